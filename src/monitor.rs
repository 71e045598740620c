//! Health checks and model lists, in parallel, at their intervals, never on a request's path.

use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Instant, SystemTime};

use ureq::Body;

use crate::catalog::{self, Model, Parsed};
use crate::config::{Config, Provider, Replica, ReplicaId, Scope, known};
use crate::gateway::{Check, Gateway, Health};
use crate::limits::{
    CHECK_TIMEOUT, LEAST_MODEL_LIST, MAX_LISTS, MAX_LISTS_IN_TRANSIT, MAX_MODEL_LIST, MAX_NAMED_UNHEALTHY,
    MAX_QUOTED, MAX_REASON, MAX_UPSTREAM_HEAD, THREAD_STACK, UPSTREAM_READ_BUFFER,
};
use crate::memory::{Holder, Share, Size};
use crate::text::{Text, quoted};
use crate::upstream::{Failure, Fault, Upstream, unusable};

/// Starts the monitor; it ends with the gateway. `on_first_round` gets a line about the first checks of all
/// providers, which is also logged.
///
/// # Errors
/// The system refuses its thread.
pub fn start(gateway: &Arc<Gateway>, on_first_round: impl FnOnce(&str) + Send + 'static) -> io::Result<()> {
    gateway.board.adopt(&gateway.live.snapshot());
    let gateway = Arc::downgrade(gateway);
    thread::Builder::new()
        .stack_size(THREAD_STACK)
        .name("monitor".to_owned())
        .spawn(move || watch(&gateway, on_first_round))
        .map(drop)
}

fn watch(gateway: &Weak<Gateway>, on_first_round: impl FnOnce(&str)) {
    let mut on_first_round = Some(on_first_round);
    while let Some(gateway) = gateway.upgrade() {
        let config = gateway.live.snapshot();
        for provider in &config.providers {
            for (index, replica) in provider.replicas.iter().enumerate() {
                let id = replica.id;
                if let Some(check) = gateway.board.claim(id, Instant::now()) {
                    spawn_check(&gateway, &config, provider, index, check);
                }
            }
        }
        if gateway.board.is_first_round_over() {
            if let Some(on_first_round) = on_first_round.take() {
                let text = first_checks(&gateway, &config);
                log::info!("{text}");
                on_first_round(&text);
            }
        }
        gateway.upstream().close_idle();
        gateway.history.note(&gateway.metrics, Instant::now());
        if gateway.is_state_due() {
            spawn_save(&gateway);
        }
        gateway.board.wait_until_due(&config);
    }
}

/// The providers that are healthy after the first checks, and why others are not.
fn first_checks(gateway: &Gateway, config: &Config) -> String {
    let error_of = |provider: &Provider| {
        let known = provider.replicas.iter().filter_map(|replica| gateway.board.health(replica.id));
        let best = known.min_by_key(|health| !health.healthy)?;
        let error = best.error.unwrap_or_default();
        (!best.healthy).then(|| format!("{}: {error}", provider.name))
    };
    let unhealthy: Vec<String> = config.providers.iter().filter_map(error_of).collect();
    let total = config.providers.len();
    let mut named = unhealthy.iter().take(MAX_NAMED_UNHEALTHY).cloned().collect::<Vec<_>>().join("; ");
    if unhealthy.len() > MAX_NAMED_UNHEALTHY {
        named.push_str("; …");
    }
    Text::FirstChecks(total - unhealthy.len(), total, &named).say(config.language)
}

/// One thread per save: a hanging disk delays no check. If the system refuses the thread, the next save is
/// soon enough.
fn spawn_save(gateway: &Arc<Gateway>) {
    let gateway = Arc::clone(gateway);
    let _ = thread::Builder::new()
        .stack_size(THREAD_STACK)
        .name("journal".to_owned())
        .spawn(move || gateway.save_state());
}

/// One thread per check, at most one for each replica: a hanging provider delays no other check.
fn spawn_check(
    gateway: &Arc<Gateway>,
    config: &Arc<Config>,
    provider: &Provider,
    index: usize,
    check: Check,
) {
    let (shared, config_there, name) = (Arc::clone(gateway), Arc::clone(config), provider.name.clone());
    let spawned = thread::Builder::new().stack_size(THREAD_STACK).name("check".to_owned()).spawn(move || {
        if let Some(provider) = config_there.provider(&name) {
            let _claim = Claim { gateway: &shared, id: provider.replicas[index].id, check };
            run_check(&shared, &config_there, provider, &provider.replicas[index], check);
        }
    });
    if let Err(error) = spawned {
        let id = provider.replicas[index].id;
        let health = unhealthy(Instant::now(), &error.to_string());
        gateway.board.post(id, check, health, None);
    }
}

/// Ends a check that panics: otherwise its replica would never be checked again.
struct Claim<'a> {
    gateway: &'a Gateway,
    id: ReplicaId,
    check: Check,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.gateway.board.post(self.id, self.check, unhealthy(Instant::now(), "internal error"), None);
        }
    }
}

fn run_check(gateway: &Gateway, config: &Config, provider: &Provider, replica: &Replica, due: Check) {
    let begun = Instant::now();
    let fetched = fetch_models(gateway, config, provider, replica);
    let language = config.language;
    let (health, models) = match fetched {
        Err(reason) => {
            // Without its query, and without a key in its path.
            let asked = quoted(&provider.without_secrets(&format!("{}/models", replica.url)), MAX_QUOTED);
            let health = unhealthy(begun, &reason);
            (Health { error: health.error.map(|reason| format!("{reason} (GET {asked})")), ..health }, None)
        }
        Ok(body) => {
            let models = due.models.then(|| listed(config, provider, replica, &body)).flatten();
            let health = Health {
                healthy: true,
                latency: begun.elapsed(),
                checked_at: SystemTime::now(),
                error: None,
            };
            (health, models)
        }
    };
    let error = health.error.clone();
    if gateway.board.post(replica.id, due, health, models) {
        match error {
            Some(reason) => log::warn!("{}", Text::ProviderUnhealthy(&provider.name, &reason).say(language)),
            None => log::info!("{}", Text::ProviderHealthy(&provider.name).say(language)),
        }
    }
}

/// The models in a replica's list; `None` if it is unreadable, which is logged.
fn listed(config: &Config, provider: &Provider, replica: &Replica, body: &[u8]) -> Option<Vec<Model>> {
    match catalog::parse_list(known(&replica.url).listed_prefix, body, MAX_LISTS / replicas(config)) {
        Ok(Parsed { models, dropped }) => {
            if dropped > 0 {
                let text = Text::ModelListCut(&provider.name, models.len(), dropped);
                log::warn!("{}", text.say(config.language));
            }
            Some(models)
        }
        Err(reason) => {
            // The reason may quote a word of the list.
            let reason = quoted(&provider.without_secrets(&reason), MAX_REASON);
            log::warn!("{}", Text::ModelListUnusable(&provider.name, &reason).say(config.language));
            None
        }
    }
}

/// Number of replicas that share the total; at least 1.
fn replicas(config: &Config) -> usize {
    config.providers.iter().map(|provider| provider.replicas.len()).sum::<usize>().max(1)
}

/// `GET {url}/models`: its body when the status is 2xx, else the reason.
fn fetch_models(
    gateway: &Gateway,
    config: &Config,
    provider: &Provider,
    replica: &Replica,
) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + config.non_stream_timeout.min(CHECK_TIMEOUT);
    let Asked { status, body, .. } = ask(&gateway.upstream(), config, provider, replica, deadline);
    let Some(status) = status else { return body };
    gateway.balance.note_check(replica.id, matches!(status, 401 | 403));
    match body {
        Ok(_) if !(200..300).contains(&status) => Err(format!("HTTP {status}")),
        other => other,
    }
}

/// What a replica responds to `GET {url}/models`.
pub struct Asked {
    /// `None`: there is no response.
    pub status: Option<u16>,
    /// TLS failed: the replica could be reached, and not trusted.
    pub is_tls_failure: bool,
    /// What came is no HTTP response.
    pub is_malformed: bool,
    /// The body, of any status, without the provider's secrets; else why there is none, or none that can be used.
    pub body: Result<Vec<u8>, String>,
}

/// Asks a replica for its model list.
pub fn ask(
    upstream: &Upstream,
    config: &Config,
    provider: &Provider,
    replica: &Replica,
    deadline: Instant,
) -> Asked {
    let path = format!("/models{}", known(&replica.url).list_query);
    let response = match upstream.get(replica, &path, deadline) {
        Ok(response) => response,
        Err(error) => {
            let is_tls_failure = match &error {
                ureq::Error::Io(error) => {
                    error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>()).is_some()
                }
                other => matches!(other, ureq::Error::Tls(_) | ureq::Error::Rustls(_)),
            };
            let is_malformed = matches!(error, ureq::Error::Protocol(_));
            return Asked { status: None, is_tls_failure, is_malformed, body: Err(in_words(error)) };
        }
    };
    let status = response.status;
    let body = match unusable::failure_of(status, &response.headers) {
        Some(Failure { fault: Fault::Redirected, detail }) => {
            Err(provider.without_secrets(&Text::CheckRedirected(&detail).say(config.language)))
        }
        Some(Failure { detail, .. }) => Err(provider.without_secrets(&detail)),
        None => {
            let most = (MAX_LISTS_IN_TRANSIT / replicas(config)).clamp(LEAST_MODEL_LIST, MAX_MODEL_LIST);
            // The status page shows the list, and the log its errors.
            read_body(response.body, most).map(|body| provider.mask().hide(body, Scope::Unmistakable))
        }
    };
    Asked { status: Some(status), is_tls_failure: false, is_malformed: false, body }
}

/// A body of at most `most` bytes.
fn read_body(body: Body, most: usize) -> Result<Vec<u8>, String> {
    let too_large = || format!("more than {most} bytes");
    let size = match body.content_length().map(usize::try_from) {
        Some(Ok(length)) if length <= most => Size::Known(length + UPSTREAM_READ_BUFFER),
        Some(_) => return Err(too_large()),
        None => Size::AtMost(most + UPSTREAM_READ_BUFFER),
    };
    let (mut bytes, mut share, mut reader) = (Vec::new(), Share::new(Holder::Response), body.into_reader());
    loop {
        let filled = bytes.len();
        let room = share.make_room(&mut bytes, UPSTREAM_READ_BUFFER, size);
        room.map_err(|_| "no memory for its body".to_owned())?;
        bytes.resize(filled + UPSTREAM_READ_BUFFER, 0);
        let count = reader.read(&mut bytes[filled..]).map_err(|error| in_words(error.into()))?;
        bytes.truncate(filled + count);
        if bytes.len() > most {
            return Err(too_large());
        }
        if count == 0 {
            return Ok(bytes);
        }
    }
}

/// Why a call failed. The system's own words stay as they are.
fn in_words(error: ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => ureq::Error::from(io::Error::from(io::ErrorKind::TimedOut)).to_string(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ureq::Error::from(io::Error::from(io::ErrorKind::UnexpectedEof)).to_string()
        }
        ureq::Error::LargeResponseHeader(..) => format!("a head of more than {MAX_UPSTREAM_HEAD} bytes"),
        other => other.to_string(),
    }
}

fn unhealthy(begun: Instant, reason: &str) -> Health {
    Health {
        healthy: false,
        latency: begun.elapsed(),
        checked_at: SystemTime::now(),
        error: Some(quoted(reason, MAX_REASON)),
    }
}
