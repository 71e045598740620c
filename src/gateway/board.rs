//! Results of the health checks of each replica: when, whether it is healthy, and the models it lists.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::{Lists, Model};
use crate::config::{Config, Format, Provider, Replica, ReplicaId};
use crate::limits::{CONTROL_THREADS, FIRST_RECHECK};

/// Result of a replica's last check.
#[derive(Debug, Clone)]
pub struct Health {
    /// The status was 2xx.
    pub healthy: bool,
    /// Time to the response head.
    pub latency: Duration,
    pub checked_at: SystemTime,
    /// Why it is unhealthy.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The model list is due too.
    pub models: bool,
}

/// Check results of all replicas. The monitor writes them, requests read them.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Some replica failed its last check: only then can a relayed success change anything.
    any_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// The configuration in force.
    config: Option<Arc<Config>>,
    replicas: HashMap<ReplicaId, Entry>,
    lists: Arc<Lists>,
    /// Every replica of one configuration has been checked.
    first_round_done: bool,
    /// Threads in [`Board::wait_for_first_round`].
    waiting: usize,
    /// Wakes the monitor before the next check is due.
    woken: bool,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    health: Option<Health>,
    models: Option<Vec<Model>>,
    checking: bool,
    failures: u32,
    /// The error of the last failed check, if a request has succeeded since: the same error again is no news.
    refuted: Option<String>,
    check_at: Option<Instant>,
    models_at: Option<Instant>,
    /// Its APIs beside chat completions, by [`Format`]: `/responses` and `/messages`.
    apis: [Api; 2],
}

/// Findings about an API that a replica may lack.
#[derive(Debug, Clone, Copy, Default)]
struct Api {
    /// It lacks the API; the API is tried again at this time.
    lacking_until: Option<Instant>,
    /// It has served a call natively: a later refusal is about the call, not about the path.
    has_succeeded: bool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a new configuration: drops replicas that are gone, and makes new ones due at once. A
    /// replica that differs from an old one only in its key, say, inherits that one's health and list until
    /// its own check.
    pub fn adopt(&self, config: &Arc<Config>) {
        let mut inner = self.lock();
        let mut replicas = HashMap::new();
        for provider in &config.providers {
            for replica in &provider.replicas {
                replicas.entry(replica.id).or_insert_with(|| inner.known_of(provider, replica));
            }
        }
        inner.replicas = replicas;
        inner.config = Some(Arc::clone(config));
        inner.rebuild_lists();
        inner.woken = true;
        self.note_failed(&inner);
        self.changed.notify_all();
    }

    /// Claims the check of a replica if it is due; the claimant must [`Board::post`] the result.
    pub fn claim(&self, id: ReplicaId, now: Instant) -> Option<Check> {
        let mut inner = self.lock();
        let entry = inner.replicas.get_mut(&id)?;
        let due = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        if entry.checking || !(due(entry.check_at) || due(entry.models_at)) {
            return None;
        }
        entry.checking = true;
        // A provider that was down when its list was due gives it with its first successful check.
        Some(Check { models: due(entry.models_at) || entry.models.is_none() })
    }

    /// Posts the result of a check; `models`: the list, where it was due and readable. Returns whether the
    /// replica's health changed. The result of a removed replica is dropped.
    pub fn post(&self, id: ReplicaId, due: Check, health: Health, models: Option<Vec<Model>>) -> bool {
        let mut inner = self.lock();
        let Some(config) = inner.config.clone() else { return false };
        let Some(entry) = inner.replicas.get_mut(&id) else { return false };
        let now = Instant::now();
        let changed = entry.health.as_ref().map_or(!health.healthy, |old| old.healthy != health.healthy);
        let changed = changed && (health.healthy || health.error != entry.refuted);
        if health.healthy {
            entry.refuted = None;
        }
        entry.checking = false;
        entry.failures = if health.healthy { 0 } else { entry.failures.saturating_add(1) };
        entry.check_at = now.checked_add(pause(entry.failures, config.health_interval));
        if due.models {
            // A list that could not be fetched is due again with the next check.
            entry.models_at =
                if health.healthy { now.checked_add(config.models_interval) } else { entry.check_at };
        }
        entry.health = Some(health);
        if models.is_some() && models != entry.models {
            entry.models = models;
            inner.rebuild_list_with(id);
        }
        self.note_failed(&inner);
        inner.first_round_done |= inner.replicas.values().all(|entry| entry.health.is_some());
        self.changed.notify_all();
        changed
    }

    /// Marks a replica as healthy because a request to it succeeded. Returns whether that is news: a provider
    /// without a model list fails each check and serves requests all the same.
    pub fn succeeded(&self, id: ReplicaId) -> bool {
        if !self.any_failed.load(Ordering::Relaxed) {
            return false;
        }
        let mut inner = self.lock();
        let Some(entry) = inner.replicas.get_mut(&id) else { return false };
        let Some(health) = entry.health.as_mut().filter(|health| !health.healthy) else { return false };
        health.healthy = true;
        let refuted = health.error.take();
        let is_news = refuted != entry.refuted;
        entry.refuted = refuted;
        self.note_failed(&inner);
        is_news
    }

    fn note_failed(&self, inner: &Inner) {
        let failed = inner.replicas.values().any(|entry| entry.health.as_ref().is_some_and(|it| !it.healthy));
        self.any_failed.store(failed, Ordering::Relaxed);
    }

    /// Waits for the next due check or for [`Board::adopt`].
    pub fn wait_until_due(&self, config: &Config) {
        let mut inner = self.lock();
        if !inner.woken {
            let now = Instant::now();
            let idle = inner.replicas.values().filter(|entry| !entry.checking);
            let waiting = idle.flat_map(|entry| [entry.check_at, entry.models_at]).flatten();
            let next = waiting.min().map_or(config.health_interval, |at| at.saturating_duration_since(now));
            // A check that ends meanwhile sets its own next time; a look each second finds it.
            let nap = next.clamp(Duration::from_millis(10), Duration::from_secs(1));
            (inner, _) = self.changed.wait_timeout(inner, nap).unwrap_or_else(PoisonError::into_inner);
        }
        inner.woken = false;
    }

    /// Whether the first round of checks is over.
    pub fn is_first_round_over(&self) -> bool {
        self.lock().first_round_done
    }

    /// Waits for the first round of checks, at most `timeout`. After that round it never waits again, even
    /// when a reload brings new providers.
    pub fn wait_for_first_round(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut inner = self.lock();
        // At least one control thread stays free for other requests.
        if inner.waiting + 1 >= CONTROL_THREADS {
            return;
        }
        inner.waiting += 1;
        while !inner.first_round_done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (inner, _) = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting -= 1;
    }

    /// Notes that a replica refused a call of that format and served it as a chat completion. The API is tried
    /// again after `time`.
    pub fn note_chat_alone(&self, id: ReplicaId, format: Format, now: Instant, time: Duration) {
        if let Some(entry) = self.lock().replicas.get_mut(&id) {
            let api = &mut entry.apis[format as usize];
            // It may have served another call meanwhile.
            if !api.has_succeeded {
                api.lacking_until = now.checked_add(time);
            }
        }
    }

    /// Notes that a replica has served a call of that format natively.
    pub fn note_native(&self, id: ReplicaId, format: Format) {
        if let Some(entry) = self.lock().replicas.get_mut(&id) {
            entry.apis[format as usize] = Api { lacking_until: None, has_succeeded: true };
        }
    }

    fn api(&self, replica: &Replica, format: Format) -> Api {
        self.lock().replicas.get(&replica.id).map_or_else(Api::default, |entry| entry.apis[format as usize])
    }

    /// Whether a refusal by this replica may mean that it lacks the API of that format: no call has shown that it
    /// has the path.
    pub fn may_lack(&self, replica: &Replica, format: Format) -> bool {
        replica.is_native(format).is_none() && !self.api(replica, format).has_succeeded
    }

    /// Whether a call of that format goes to a replica untranslated.
    pub fn is_native(&self, replica: &Replica, format: Format, now: Instant) -> bool {
        replica
            .is_native(format)
            .unwrap_or_else(|| self.api(replica, format).lacking_until.is_none_or(|until| until <= now))
    }

    pub fn health(&self, id: ReplicaId) -> Option<Health> {
        self.lock().replicas.get(&id).and_then(|entry| entry.health.clone())
    }

    /// Model lists by provider.
    pub fn lists(&self) -> Arc<Lists> {
        Arc::clone(&self.lock().lists)
    }
}

impl Inner {
    /// State of a replica of a new configuration: the old state of the same replica, else the check results
    /// of another one at the same URL.
    fn known_of(&self, provider: &Provider, replica: &Replica) -> Entry {
        if let Some(same) = self.replicas.get(&replica.id) {
            return same.clone();
        }
        let old = self.config.as_ref().and_then(|config| config.provider(&provider.name));
        let like = old.and_then(|old| old.replicas.iter().find(|other| other.url == replica.url));
        let known = like.and_then(|other| self.replicas.get(&other.id));
        known.map_or_else(Entry::default, |known| Entry {
            health: known.health.clone(),
            models: known.models.clone(),
            ..Entry::default()
        })
    }

    fn rebuild_lists(&mut self) {
        let Some(config) = &self.config else { return };
        let mut lists = Lists::default();
        for provider in &config.providers {
            lists.put(&provider.name, self.list_of(provider));
        }
        self.lists = Arc::new(lists);
    }

    /// Rebuilds the list of that replica's provider; the other lists are shared with the previous snapshot.
    fn rebuild_list_with(&mut self, id: ReplicaId) {
        let Some(config) = &self.config else { return };
        let mut lists = (*self.lists).clone();
        for provider in &config.providers {
            if provider.replicas.iter().any(|replica| replica.id == id) {
                lists.put(&provider.name, self.list_of(provider));
            }
        }
        self.lists = Arc::new(lists);
    }

    /// The models of all replicas of a provider; a replica's own `models` replace its fetched list.
    fn list_of(&self, provider: &Provider) -> Vec<Model> {
        let own = |id: &String| Model { id: id.as_str().into(), created: 0 };
        let listed = provider.replicas.iter().flat_map(|replica| match &replica.models {
            Some(models) => models.iter().map(own).collect(),
            None => self.replicas.get(&replica.id).and_then(|entry| entry.models.clone()).unwrap_or_default(),
        });
        listed.collect()
    }
}

/// Time from one check to the next: after failures 1, 2, 4, 8 … s, at most the interval. After a boot the
/// network may come up later than this process.
fn pause(failures: u32, interval: Duration) -> Duration {
    match failures.checked_sub(1) {
        None => interval,
        Some(earlier) => FIRST_RECHECK.saturating_mul(1 << earlier.min(20)).min(interval),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use super::{Board, Check, Health, pause};
    use crate::config::{Config, ReplicaId, load};

    fn board() -> (Board, Arc<Config>, ReplicaId) {
        let config = load::from_text(r#"{"providers": ["p|http://127.0.0.1:1|"]}"#, &|_| None);
        let (board, config) = (Board::default(), Arc::new(config.expect("a good config")));
        board.adopt(&config);
        let id = config.providers[0].replicas[0].id;
        (board, config, id)
    }

    fn found(error: Option<&str>) -> Health {
        Health {
            healthy: error.is_none(),
            latency: Duration::ZERO,
            checked_at: SystemTime::now(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn pause_after_failures_doubles_up_to_the_interval() {
        let seconds = |failures| pause(failures, Duration::from_secs(30)).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, u32::MAX].map(seconds), [30, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pause(1, Duration::from_millis(300)), Duration::from_millis(300));
    }

    #[test]
    fn failed_check_is_due_again_soon_and_its_list_with_it() {
        let (board, _, id) = board();
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            let begun = Instant::now();
            let check = board.claim(id, begun + Duration::from_secs(30)).expect("due");
            assert!(check.models);
            board.post(id, check, found(Some("refused")), None);
            let wait = Duration::from_secs(wait);
            assert_eq!(board.claim(id, begun + wait - Duration::from_millis(1)), None, "{wait:?}");
            let inner = board.lock();
            assert_eq!(inner.replicas[&id].models_at, inner.replicas[&id].check_at);
        }
        let check = board.claim(id, Instant::now() + Duration::from_secs(30)).expect("due");
        board.post(id, check, found(None), Some(Vec::new()));
        assert_eq!(board.claim(id, Instant::now() + Duration::from_secs(29)), None);
        let next = board.claim(id, Instant::now() + Duration::from_secs(31));
        assert_eq!(next, Some(Check { models: false }));
    }

    #[test]
    fn successful_request_makes_a_replica_healthy_and_is_news_once() {
        let (board, _, id) = board();
        let check = Check { models: true };
        let healthy = || board.health(id).is_some_and(|health| health.healthy);
        assert!(!board.succeeded(id), "before the first check");
        assert!(board.post(id, check, found(Some("refused")), None));
        assert!(!healthy());
        assert!(board.succeeded(id));
        assert!(healthy() && board.health(id).is_some_and(|health| health.error.is_none()));
        assert!(!board.succeeded(id));
        // A provider that serves requests and has no list fails each check: only the first is news.
        assert!(!board.post(id, check, found(Some("refused")), None));
        assert!(!healthy() && !board.succeeded(id) && healthy());
        assert_eq!(board.claim(id, Instant::now()), None, "no request brings a check");
        assert!(board.post(id, check, found(Some("HTTP 401")), None), "another reason is news");
        assert!(board.succeeded(id) && healthy());
    }
}
