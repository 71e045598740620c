//! From a checked configuration to a process that serves, reloads and drains.

mod signals;
mod start;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::Api;
use crate::config::{Config, Host};
use crate::front::{Bound, Listen, Running, Settings, places_to_refuse};
use crate::gateway::{Gateway, reopen_log};
use crate::limits::{LAST_RESORT, MAX_QUOTED, SAY_TIMEOUT, THREAD_STACK};
use crate::logging;
use crate::memory;
use crate::monitor;
use crate::supervisor::{self, Supervisor};
use crate::text::{Language, Text, quoted};
use signals::Order;

/// Serves until a signal ends it.
///
/// # Errors
/// The start fails: an address is taken, or the system refuses a thread or descriptor.
pub fn run(config: Config, path: Option<&Path>, greet: impl FnOnce(&str)) -> io::Result<()> {
    // Comes first, so that a signal during the start is neither lost nor deadly.
    let signals = signals::take()?;
    reopen_log(&config)?;
    // The log file exists before the process says that it serves.
    logging::flush();
    log_panics(config.language);
    set_memory_budget(&config);
    let gateway = Arc::new(Gateway::new(config, path.map(Path::to_path_buf)));
    let orders = signals::watch(signals, Arc::clone(&gateway))?;
    let config = gateway.live.snapshot();
    let settings = Settings {
        workers: memory::threads(config.workers),
        max_connections: config.max_connections,
        max_clients: bounded_clients(&config),
    };
    let language = config.language;
    let supervisor = Supervisor::from_environment()?;
    let inherited = supervisor::sockets()?;
    let bound = if inherited.is_empty() { bind(&config)? } else { Bound::inherited(inherited)? };
    let names = bound.names();
    start::show(&config, path, &names, &settings);
    gateway.restore_state();
    let shown = Arc::clone(&config);
    monitor::start(&gateway, move |text| start::say(&shown, text))?;
    let stats = Arc::default();
    let api = Api::new(Arc::clone(&gateway), Arc::clone(&stats), settings.max_connections);
    let running = bound.serve(Arc::new(api), settings, stats)?;
    for name in &names {
        log::info!("{}", Text::Listening(name).say(language));
        say(&format!("listening on {name}"));
    }
    greet(names.first().map_or("", String::as_str));
    let supervisor = Arc::new(supervisor);
    watch(&running, &supervisor)?;
    supervisor.ready(&Text::Listening(&names.join(" ")).say(language));
    while let Ok(Order::Reload) = orders.recv() {
        reload(&gateway, &supervisor);
    }
    let config = gateway.live.snapshot();
    let status = Text::Draining(config.shutdown_timeout.as_secs()).say(config.language);
    supervisor.stopping(config.shutdown_timeout + LAST_RESORT, &status);
    drain(&running, &config);
    gateway.save_state();
    Ok(())
}

/// Sends the supervisor signs of life while the front is alive, twice as often as it asks.
fn watch(running: &Running, supervisor: &Arc<Supervisor>) -> io::Result<()> {
    let Some(timeout) = supervisor::watchdog() else { return Ok(()) };
    let (pulse, supervisor, pause) = (running.pulse(), Arc::clone(supervisor), timeout / 2);
    std::thread::Builder::new().stack_size(THREAD_STACK).name("watchdog".to_owned()).spawn(move || {
        loop {
            if pulse.beats(pause / 2) {
                supervisor.alive();
            }
            std::thread::sleep(pause);
        }
    })?;
    Ok(())
}

/// The log and the supervisor's status show the result.
fn reload(gateway: &Gateway, supervisor: &Supervisor) {
    supervisor.reloading();
    let status = match gateway.reload() {
        Ok(reloaded) => Text::Reloaded.say(reloaded.config.language),
        Err(problems) => Text::ReloadRefused(&problems.join("; ")).say(gateway.live.snapshot().language),
    };
    // The log has left the renamed file before a supervisor processes it.
    logging::flush();
    supervisor.ready(&status);
}

/// Logs panics: std would write to stderr on the panicking thread, and stderr may be full.
fn log_panics(language: Language) {
    std::panic::set_hook(Box::new(move |panic| {
        log::error!("{}", Text::Panicked(&quoted(&panic.to_string(), MAX_QUOTED)).say(language));
    }));
}

fn bind(config: &Config) -> io::Result<Bound> {
    let listen = match &config.host {
        Host::Name(name) => Listen::Tcp(name.clone(), config.port),
        Host::Unix(path) => Listen::Unix(path.clone()),
    };
    Bound::new(&listen).map_err(|error| {
        let is_elsewhere = error.kind() == io::ErrorKind::AddrNotAvailable;
        let text = Text::CannotListen(&error.to_string(), is_elsewhere).say(config.language);
        io::Error::new(error.kind(), text)
    })
}

/// Prints a line on stdout, which may have no reader.
pub fn say(text: &str) {
    let _ = logging::say(io::stdout(), SAY_TIMEOUT, text);
}

fn drain(running: &Running, config: &Config) {
    let (language, timeout) = (config.language, config.shutdown_timeout);
    log::info!("{}", Text::Draining(timeout.as_secs()).say(language));
    let left = running.drain(timeout);
    if left > 0 {
        log::warn!("{}", Text::DrainTimedOut(left).say(language));
    }
    log::info!("{}", Text::Stopped.say(language));
}

/// Sets the memory budget of requests and responses.
fn set_memory_budget(config: &Config) {
    let most = config.max_memory;
    memory::set_budget(most);
    let (_, budget) = memory::held();
    log::info!("{}", Text::Memory(most >> 20, budget >> 20, memory::available() >> 20).say(config.language));
}

/// Descriptors besides those of clients and providers: files, listeners, workers, checks.
const SPARE_DESCRIPTORS: u64 = 64;

/// Raises the limit of open files to the hard limit and lowers `max_clients` to fit: each client may need a
/// descriptor, and each request one more for its provider.
fn bounded_clients(config: &Config) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let got = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
    .unwrap_or(u64::MAX);
    let others = (config.max_connections + config.max_keepalive_connections) as u64 + SPARE_DESCRIPTORS;
    let needed = others + (config.max_clients + places_to_refuse(config.max_clients)) as u64;
    log::info!("{}", Text::Descriptors(got, needed).say(config.language));
    if needed <= got {
        return config.max_clients;
    }
    // Clients come first: without a descriptor for its provider a request gets 502, but a client without one
    // gets no response at all.
    let fitted = usize::try_from(got.saturating_sub(others).max(got / 3).max(1)).unwrap_or(usize::MAX);
    log::warn!("{}", Text::ClientsFitted(fitted).say(config.language));
    fitted
}
