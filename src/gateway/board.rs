//! What is known of each replica: when it was checked, whether it is well, what it lists.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::{Lists, Model};
use crate::config::{Config, Provider, Replica, ReplicaId};
use crate::limits::CONTROL_THREADS;

/// What the last check of a replica found.
#[derive(Debug, Clone)]
pub struct Health {
    /// It answered 2xx.
    pub healthy: bool,
    /// How long its answer took.
    pub latency: Duration,
    /// When.
    pub checked_at: jiff::Timestamp,
    /// Why it is not well.
    pub error: Option<String>,
}

/// A check that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The model list is due too.
    pub models: bool,
}

/// The board. The monitor writes it, requests read it.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// The configuration in force.
    config: Option<Arc<Config>>,
    replicas: HashMap<ReplicaId, Entry>,
    lists: Arc<Lists>,
    /// Every replica of one configuration has been checked.
    first_round_done: bool,
    /// Threads that wait for it.
    waiting: usize,
    /// The monitor has something new to look at.
    woken: bool,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    health: Option<Health>,
    models: Option<Vec<Model>>,
    checking: bool,
    check_at: Option<Instant>,
    models_at: Option<Instant>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a new configuration: replicas that are gone are forgotten, new ones are due at once. One that differs from an
    /// old one but by its key, say, is taken to be as well as that one, and to list the same, until it is checked.
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
        self.changed.notify_all();
    }

    /// Claims the check of a replica if it is due; the claimant must [`Board::post`] what it found.
    pub fn claim(&self, id: ReplicaId, now: Instant) -> Option<Check> {
        let mut inner = self.lock();
        let entry = inner.replicas.get_mut(&id)?;
        let due = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        if entry.checking || !(due(entry.check_at) || due(entry.models_at)) {
            return None;
        }
        entry.checking = true;
        // A provider that was down when its list was due is asked for it as soon as it is well.
        Some(Check { models: due(entry.models_at) || entry.models.is_none() })
    }

    /// Posts what a check found; `models`: the list, where it was due and could be read. Returns whether the replica's
    /// health changed. What is found of a replica that is gone meanwhile is dropped.
    pub fn post(&self, id: ReplicaId, due: Check, health: Health, models: Option<Vec<Model>>) -> bool {
        let mut inner = self.lock();
        let Some(config) = inner.config.clone() else { return false };
        let Some(entry) = inner.replicas.get_mut(&id) else { return false };
        let now = Instant::now();
        let changed = entry.health.as_ref().map_or(!health.healthy, |old| old.healthy != health.healthy);
        entry.checking = false;
        entry.health = Some(health);
        entry.check_at = now.checked_add(config.health_interval);
        if due.models {
            entry.models_at = now.checked_add(config.models_interval);
        }
        if models.is_some() {
            entry.models = models;
            inner.rebuild_lists();
        }
        inner.first_round_done |= inner.replicas.values().all(|entry| entry.health.is_some());
        self.changed.notify_all();
        changed
    }

    /// Waits for the next check to fall due, or for [`Board::adopt`].
    pub fn wait_until_due(&self, config: &Config) {
        let mut inner = self.lock();
        if !inner.woken {
            let now = Instant::now();
            let idle = inner.replicas.values().filter(|entry| !entry.checking);
            let waiting = idle.flat_map(|entry| [entry.check_at, entry.models_at]).flatten();
            let next = waiting.min().map_or(config.health_interval, |at| at.saturating_duration_since(now));
            // A check that ends meanwhile sets its next time; looking again each second finds it.
            let nap = next.clamp(Duration::from_millis(10), Duration::from_secs(1));
            (inner, _) = self.changed.wait_timeout(inner, nap).unwrap_or_else(PoisonError::into_inner);
        }
        inner.woken = false;
    }

    /// Waits for the first round of checks, no longer than `patience`; once every provider has been checked nobody waits
    /// again, also where a reload brings new ones.
    pub fn wait_for_first_round(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        // One control thread at least stays free for those who need not wait.
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

    /// What is known of a replica.
    pub fn health(&self, id: ReplicaId) -> Option<Health> {
        self.lock().replicas.get(&id).and_then(|entry| entry.health.clone())
    }

    /// What each provider lists.
    pub fn lists(&self) -> Arc<Lists> {
        Arc::clone(&self.lock().lists)
    }
}

impl Inner {
    /// What is known of a replica of a new configuration: all of it where the old one has the same, else what was found at
    /// the same URL.
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

    /// A provider lists what any of its replicas lists; a replica's own `models` replace what was fetched from it.
    fn rebuild_lists(&mut self) {
        let Some(config) = &self.config else { return };
        let mut lists = Lists::new();
        for provider in &config.providers {
            let list = lists.entry(provider.name.clone()).or_default();
            for replica in &provider.replicas {
                match &replica.models {
                    Some(models) => list.extend(models.iter().map(|id| Model {
                        id: id.clone(),
                        created: 0,
                        owned_by: provider.name.clone(),
                    })),
                    None => {
                        let entry = self.replicas.get(&replica.id);
                        list.extend(entry.and_then(|entry| entry.models.clone()).unwrap_or_default());
                    }
                }
            }
            list.sort_by(|a, b| a.id.cmp(&b.id));
            list.dedup_by(|a, b| a.id == b.id);
        }
        self.lists = Arc::new(lists);
    }
}
