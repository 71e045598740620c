//! The real binary: started with a test's own config, observed, signalled, and stopped.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::calls::{KEY, TOKEN, ask_streamed, bare, event};
use super::client::{Client, Response, timed};
use super::script::{Script, Step};
use super::temp::TempDir;
use super::upstream::Upstream;
use super::{DEADLINE, eventually};

/// A config that serves `providers`, with English messages, the token [`TOKEN`] and a log on stderr.
pub fn config(providers: &[(&str, &Upstream)]) -> Value {
    let providers: Vec<String> =
        providers.iter().map(|(name, upstream)| format!("{name}|{}|{KEY}", upstream.url())).collect();
    json!({
        "host": "127.0.0.1",
        "port": 0,
        "log_level": "INFO",
        "log_file": null,
        "language": "en",
        "providers": providers,
        "tokens": [format!("tester|{TOKEN}")],
    })
}

/// The virtual model `best`: first a provider that supports Anthropic's format and is down, then `upstream`,
/// which does not support it.
pub fn behind_a_dead_native(upstream: &Upstream) -> Value {
    let closed = "http://127.0.0.1:1";
    let native = json!({"name": "native", "url": closed, "anthropic_url": closed, "key": KEY});
    let plain = json!({"name": "plain", "url": upstream.url(), "key": KEY});
    let models = json!({"best": ["native/m", "plain/m"]});
    with(config(&[]), json!({"providers": [native, plain], "models": models}))
}

/// `config` with some keys set.
pub fn with(mut config: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    config.as_object_mut().expect("object").extend(changes);
    config
}

/// The binary (`AI_PROXY_BIN`, else the one built with the tests) with a working directory of its own, and
/// without any of the caller's variables that could change its behaviour.
pub fn command(directory: &Path) -> Command {
    let given = std::env::var_os("AI_PROXY_BIN");
    let mut command = Command::new(given.unwrap_or_else(|| env!("CARGO_BIN_EXE_ai-proxy").into()));
    command.current_dir(directory).stdin(Stdio::null());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for name in ["AI_PROXY_CONFIG", "LC_ALL", "LC_MESSAGES", "LANG"] {
        command.env_remove(name);
    }
    command
}

/// The result of a command.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Both outputs.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end; panics when it does not end.
pub fn run(command: &mut Command) -> Finished {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the binary");
    let stdout = Lines::collect(child.stdout.take().expect("stdout"));
    let stderr = Lines::collect(child.stderr.take().expect("stderr"));
    let status = wait(&mut child);
    Finished { code: status.code(), stdout: stdout.to_end(), stderr: stderr.to_end() }
}

/// A running proxy; killed on drop.
pub struct Proxy {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
    /// What follows `listening on `, one for each bound address.
    pub bound: Vec<String>,
    pub directory: TempDir,
}

impl Proxy {
    /// Serves `config`.
    pub fn start(config: &Value) -> Proxy {
        Proxy::start_in(TempDir::new(), config, |_| {})
    }

    /// Like [`Proxy::start`] in a given directory, with the command changed by `adjust`.
    pub fn start_in(directory: TempDir, config: &Value, adjust: impl FnOnce(&mut Command)) -> Proxy {
        let path = directory.join("config.json");
        std::fs::write(&path, config.to_string()).expect("write config");
        let mut command = command(directory.path());
        command.arg("--config").arg(path);
        adjust(&mut command);
        Proxy::spawn(directory, command)
    }

    /// Starts `command` and waits for the line that says where it listens.
    pub fn spawn(directory: TempDir, mut command: Command) -> Proxy {
        command.stderr(Stdio::piped());
        Proxy::spawn_as_it_is(directory, command)
    }

    /// Like [`Proxy::spawn`], with the caller's own stderr.
    pub fn spawn_with_log(directory: TempDir, mut command: Command, log: impl Into<Stdio>) -> Proxy {
        command.stderr(log);
        Proxy::spawn_as_it_is(directory, command)
    }

    fn spawn_as_it_is(directory: TempDir, mut command: Command) -> Proxy {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start the binary");
        let stdout = Lines::collect(child.stdout.take().expect("stdout"));
        let stderr = child.stderr.take().map_or_else(Lines::default, Lines::collect);
        let mut proxy = Proxy { child, stdout, stderr, bound: Vec::new(), directory };
        if !proxy.stdout.wait_for(|line| line.starts_with(LISTENING)) {
            let code = wait(&mut proxy.child);
            panic!("did not start ({code}): {}", proxy.stderr.to_end());
        }
        proxy.bound = proxy.listening();
        proxy
    }

    /// The addresses announced so far.
    pub fn listening(&self) -> Vec<String> {
        let lines = self.stdout.all();
        lines.iter().filter_map(|line| line.strip_prefix(LISTENING)).map(str::to_owned).collect()
    }

    /// The first TCP address.
    pub fn address(&self) -> SocketAddr {
        self.bound
            .iter()
            .find_map(|bound| bound.strip_prefix("http://")?.parse().ok())
            .unwrap_or_else(|| panic!("no TCP address in {:?}", self.bound))
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Requests a stream of provider `p1`, sends `more` after the request, and leaves when the stream falls
    /// silent. Returns the time until the upstream connection closes.
    pub fn leave_a_stream(&self, upstream: &Upstream, more: &[u8]) -> Duration {
        upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
        let mut client = self.client();
        client.send([&ask_streamed("p1/m")[..], more].concat());
        assert_eq!(client.streamed().next_event(), Some(event("a")));
        client.leave();
        timed(|| upstream.wait_closed(upstream.last().connection)).0
    }

    /// One request on a connection of its own.
    pub fn call(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.client().call(bytes)
    }

    /// A GET without a token.
    pub fn get(&self, target: &str) -> Response {
        self.call(bare("GET", target, &[]))
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// Replaces the config on disk.
    pub fn write_config(&self, config: &Value) {
        std::fs::write(self.config_path(), config.to_string()).expect("write config");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("try_wait").is_none()
    }

    /// How many descriptors the process has open.
    pub fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its descriptors").count()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads").count()
    }

    /// Number of its threads without those of the pools, which start with the load and then stay.
    pub fn threads_outside_pools(&self) -> usize {
        self.threads() - self.threads_named("helper") - self.threads_named("control")
    }

    /// How many threads of that name it has.
    pub fn threads_named(&self, name: &str) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        // A thread may end during the look.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|found| found.trim_end() == name).count()
    }

    /// How often its workers have gone to sleep.
    pub fn sleeps_of_workers(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        let statuses =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        let value = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
            line.trim().to_owned()
        };
        let workers = statuses.filter(|status| value(status, "Name:") == "worker");
        workers
            .map(|status| value(&status, "voluntary_ctxt_switches:").parse::<usize>().expect("a number"))
            .sum()
    }

    /// Its resident memory, bytes.
    pub fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most resident memory it ever had, bytes.
    pub fn most_resident(&self) -> usize {
        self.memory("VmHWM:")
    }

    /// Its address space, bytes.
    pub fn address_space(&self) -> usize {
        self.memory("VmSize:")
    }

    fn memory(&self, which: &str) -> usize {
        let text = self.proc("status");
        let line = text.lines().find(|line| line.starts_with(which)).expect("a line of it");
        let kib: usize = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib * 1024
    }

    /// Processor time it has used (proc(5): fields 14 and 15, in ticks of 10 ms).
    pub fn cpu_time(&self) -> Duration {
        let text = self.proc("stat");
        let (_, behind_name) = text.rsplit_once(')').expect("a name");
        let ticks = behind_name.split_whitespace().skip(11).take(2);
        Duration::from_millis(10 * ticks.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>())
    }

    /// Whether it was started with that variable.
    pub fn has_variable(&self, name: &str) -> bool {
        self.proc("environ").split('\0').any(|variable| variable.split('=').next() == Some(name))
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("its file in /proc")
    }

    /// Sets a soft limit of the running process; gives what it was.
    pub fn limit(&self, resource: Resource, soft: Option<u64>) -> Option<u64> {
        // The hard limit is inherited.
        let limit = Rlimit { current: soft, maximum: getrlimit(resource).maximum };
        prlimit(Some(Pid::from_child(&self.child)), resource, limit).expect("prlimit").current
    }

    /// Waits for the end and gives its status.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Ends it without a drain, as `kill -9` does; the directory stays.
    pub fn kill(mut self) -> TempDir {
        self.signal(Signal::KILL);
        self.wait();
        std::mem::replace(&mut self.directory, TempDir::new())
    }

    /// Everything it has said on stderr, which is the log when `log_file` is null.
    pub fn log(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// Waits for a line of the log with all of `parts`.
    pub fn log_line(&self, parts: &[&str]) -> String {
        eventually(&format!("a log line with {parts:?}"), || {
            let lines = self.stderr.all();
            lines.into_iter().find(|line| parts.iter().all(|part| line.contains(part)))
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the proxy's stderr ---\n{}", self.log());
        }
    }
}

/// The text before every bound address on stdout.
const LISTENING: &str = "listening on ";

fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("try_wait") {
            return status;
        }
        if Instant::now() > end {
            drop(child.kill());
            panic!("the process did not end by itself");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The lines of a pipe, collected as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub fn collect(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = Arc::clone(&lines.0);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                shared.0.lock().expect("lines").lines.push(text);
                shared.1.notify_all();
                line.clear();
            }
            shared.0.lock().expect("lines").ended = true;
            shared.1.notify_all();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().expect("lines").lines.clone()
    }

    /// Waits for a line that `wanted` accepts; `false` if the pipe ended without one.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let found = |state: &Collected| state.lines.iter().any(|line| wanted(line));
        let state = self.0.0.lock().expect("lines");
        let (state, wait) = self
            .0
            .1
            .wait_timeout_while(state, DEADLINE, |state| !state.ended && !found(state))
            .expect("lines");
        assert!(!wait.timed_out(), "no such line in {:?}", state.lines);
        found(&state)
    }

    /// Everything up to the end of the pipe.
    fn to_end(&self) -> String {
        let state = self.0.0.lock().expect("lines");
        let (state, _) = self.0.1.wait_timeout_while(state, DEADLINE, |state| !state.ended).expect("lines");
        let mut text = state.lines.join("\n");
        text.push('\n');
        text
    }
}
