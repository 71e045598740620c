//! State that all requests share, each piece with one owner: the configuration in force, the HTTP client, the
//! check results of the providers, the balance over replicas, the quotas of tokens, the owners of stored
//! responses, the metrics with their last hour, the last errors.

mod board;
mod charges;
mod exclusive;
mod history;
mod journal;
mod last_errors;
mod recent;
mod response_owners;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

pub use board::{Board, Check, Health};
pub use charges::Charges;
pub use exclusive::Exclusive;
pub use history::{History, Point};
pub use last_errors::{LastError, LastErrors};
pub use response_owners::{ResponseOwner, ResponseOwners};

use crate::auth::Quotas;
use crate::config::{Config, Live, Provider, ReplicaId, load};
use crate::limits::RELOAD_TIMEOUT;
use crate::logging::{self, Destination};
use crate::metrics::{Metric, Metrics};
use crate::routing::Balance;
use crate::text::Text;
use crate::upstream::Upstream;
use journal::Journal;

/// Results of a reload in the metrics.
const RELOADED: &str = "success";
const REFUSED: &str = "failure";

#[derive(Debug)]
pub struct Gateway {
    pub live: Live,
    /// Check results of each provider.
    pub board: Board,
    /// Load and cooldowns of replicas.
    pub balance: Arc<Balance>,
    /// Use of each token's limits.
    pub quotas: Arc<Quotas>,
    /// Owners of stored responses.
    pub response_owners: ResponseOwners,
    /// Tokens charged for background responses.
    pub charges: Charges,
    pub metrics: Metrics,
    /// The last hour of the metrics.
    pub history: History,
    pub last_errors: LastErrors,
    /// The daily counts on disk.
    journal: Mutex<Journal>,
    upstream: RwLock<Arc<Upstream>>,
    /// Path of the config file; `None`: the configuration is built in and cannot be reloaded.
    path: Option<PathBuf>,
    /// One reload at a time. The next waits at most [`RELOAD_TIMEOUT`]: a hanging disk must not block every
    /// control thread.
    reloading: Exclusive,
}

/// Result of a reload.
#[derive(Debug)]
pub struct Reloaded {
    pub config: Arc<Config>,
    /// Keys whose change needs a restart.
    pub restart_required: Vec<&'static str>,
}

impl Gateway {
    /// State for a first configuration; `path`: its file, if it has one.
    pub fn new(config: Config, path: Option<PathBuf>) -> Self {
        let upstream = RwLock::new(Arc::new(Upstream::new(&config)));
        let metrics = Metrics::default();
        // `increase()` in Prometheus needs a value before the first event.
        for result in [RELOADED, REFUSED] {
            metrics.add(Metric::ConfigReloads, &[result], 0);
        }
        Self {
            live: Live::new(config),
            board: Board::default(),
            balance: Arc::default(),
            quotas: Arc::default(),
            response_owners: ResponseOwners::default(),
            charges: Charges::default(),
            metrics,
            history: History::default(),
            last_errors: LastErrors::default(),
            journal: Mutex::default(),
            upstream,
            path,
            reloading: Exclusive::default(),
        }
    }

    /// State for a unit test, whose requests use that client.
    #[cfg(test)]
    pub fn in_memory(config: Config, upstream: Upstream) -> Self {
        Self { upstream: RwLock::new(Arc::new(upstream)), ..Self::new(config, None) }
    }

    /// The HTTP client in use.
    pub fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.upstream.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks a replica as healthy because a request to it succeeded.
    pub fn succeeded(&self, provider: &Provider, replica: ReplicaId) {
        if self.board.succeeded(replica) {
            let language = self.live.snapshot().language;
            log::info!("{}", Text::ProviderHealthy(&provider.name).say(language));
        }
    }

    /// Restores the daily counts of an earlier run.
    pub fn restore_state(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.restore(&self.live.snapshot(), &self.quotas);
    }

    /// Whether a write of the daily counts is due and no thread does it yet.
    pub fn is_state_due(&self) -> bool {
        let mut journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        journal.is_due(&self.live.snapshot(), &self.quotas)
    }

    /// Writes the daily counts if they have changed. A hanging disk blocks the caller.
    pub fn save_state(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.save(&self.live.snapshot(), &self.quotas);
    }

    /// Loads the configuration again, puts it in force, reopens the log, and logs the result.
    ///
    /// # Errors
    /// Every problem of the new configuration, a sentence each; the old one stays in force.
    pub fn reload(&self) -> Result<Reloaded, Vec<String>> {
        let busy = || vec![Text::ReloadBusy.say(self.live.snapshot().language)];
        let _permit = self.reloading.acquire(RELOAD_TIMEOUT).ok_or_else(busy)?;
        let old = self.live.snapshot();
        let language = old.language;
        let new = match &self.path {
            Some(path) => load::from_file(path).map_err(|problems| problems.say(language)),
            None => Ok((*old).clone()),
        };
        let new = new.inspect_err(|problems| {
            self.metrics.add(Metric::ConfigReloads, &[REFUSED], 1);
            let _ = reopen_log(&old);
            log::error!("{}", Text::ReloadRefused(&problems.join("; ")).say(language));
        })?;
        let restart_required = load::restart_required(&old, &new);
        self.put_in_force(&old, new);
        self.metrics.add(Metric::ConfigReloads, &[RELOADED], 1);
        let config = self.live.snapshot();
        log::info!("{}", Text::Reloaded.say(config.language));
        let warnings = self.path.iter().flat_map(|path| load::warnings(&config, path));
        warnings.for_each(|warning| log::warn!("{warning}"));
        if !restart_required.is_empty() {
            log::warn!("{}", Text::RestartRequired(&restart_required.join(", ")).say(config.language));
        }
        Ok(Reloaded { config, restart_required })
    }

    fn put_in_force(&self, old: &Config, mut new: Config) {
        // The running values stay in force, so that the next reload compares with the truth.
        new.host = old.host.clone();
        new.port = old.port;
        new.workers = old.workers;
        new.max_connections = old.max_connections;
        new.max_clients = old.max_clients;
        new.max_memory = old.max_memory;
        let _ = reopen_log(&new);
        if !self.upstream().fits(&new) {
            *self.upstream.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Upstream::new(&new));
        }
        self.upstream().retain(&new);
        self.balance.retain(&new);
        self.quotas.retain(&new);
        self.live.replace(new);
        self.board.adopt(&self.live.snapshot());
    }
}

/// Opens or reopens the log that `config` names.
///
/// # Errors
/// The system refuses the log's thread; only the first call starts one.
pub fn reopen_log(config: &Config) -> io::Result<()> {
    let destination = Destination { path: config.log_file.clone(), language: config.language };
    logging::start(destination, config.log_level, config.log_format)
}
