//! Which replica next: least requests in flight over weight, none that is cooling down while another is fit.
//!
//! A replica is *fit*, or it *cools down* until a time, or it is *half open*: its cooldown is over and it has not served
//! since. Half open, it gets one request at a time, until one is served or it cools down again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Provider, Replica, ReplicaId};
use crate::limits::{FAILURES_TO_COOL, FIRST_COOLDOWN, MAX_COOLDOWN};

/// Requests in flight, failures and cooldowns of every replica. It lives beside the configuration: what did not change
/// keeps its state over a reload.
#[derive(Debug, Default)]
pub struct Balance(Mutex<HashMap<ReplicaId, State>>);

#[derive(Debug, Default)]
struct State {
    in_flight: u32,
    /// Failures in a row.
    failures: u32,
    /// How often it has cooled down in a row.
    cooldowns: u32,
    /// When its cooldown ends; stays when it has ended, until the replica serves: it is half open then.
    cooling_until: Option<Instant>,
    /// When its last cooldown began or it last recovered: an attempt that began before says nothing of it any more. So a
    /// replica that dies with many requests in flight cools down once, not once for every three of them.
    changed: Option<Instant>,
    /// A request is out to learn whether it is fit again.
    probed: bool,
    /// Why it failed last, and when; none: it has served since.
    last_failure: Option<(String, Instant)>,
}

/// How an attempt ended, for the replica's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It served.
    Served,
    /// It failed.
    Failed,
    /// It failed in a way that the next request would meet too: it cools down at once.
    Refused,
    /// It is to be left alone for so long.
    CoolDown(Duration),
    /// Nothing can be said: the client left, say.
    Unknown,
}

/// What requests have met at a replica lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Requests in flight.
    pub in_flight: u32,
    /// When its cooldown ends, where it is cooling down.
    pub cooling_until: Option<Instant>,
    /// Why it failed last, and when; none: it has served since, or was never asked.
    pub last_failure: Option<(String, Instant)>,
}

/// A replica in use: one of its requests in flight.
#[derive(Debug)]
pub struct Lease {
    balance: Arc<Balance>,
    key: ReplicaId,
    begun: Instant,
    /// It is the one request that a half open replica gets.
    is_probe: bool,
}

impl Balance {
    fn lock(&self) -> MutexGuard<'_, HashMap<ReplicaId, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best replica of `provider` that is not among `tried`: the one with the least load among the fit; when none
    /// is fit, the one that cools off soonest.
    pub fn choose(
        self: &Arc<Self>,
        provider: &Provider,
        tried: &[usize],
        now: Instant,
    ) -> Option<(usize, Lease)> {
        let mut all = self.lock();
        let candidates = (0..provider.replicas.len()).filter(|index| !tried.contains(index));
        let best = candidates
            .map(|index| {
                let replica = &provider.replicas[index];
                let key = ReplicaId::of(&provider.name, replica);
                let (unfit, load) = all.get(&key).map_or((None, load(0, replica)), |state| {
                    (state.unfit_until(now), load(state.in_flight, replica))
                });
                (unfit, load, index, key)
            })
            .min_by_key(|&(unfit, load, index, _)| (unfit, load, index));
        let (_, _, index, key) = best?;
        let state = all.entry(key).or_default();
        state.in_flight += 1;
        let is_probe = state.is_half_open(now) && !state.probed;
        state.probed |= is_probe;
        Some((index, Lease { balance: Arc::clone(self), key, begun: now, is_probe }))
    }

    /// Whether a replica of `provider` that is not among `tried` is fit.
    pub fn has_fit(&self, provider: &Provider, tried: &[usize], now: Instant) -> bool {
        let all = self.lock();
        let mut others =
            provider.replicas.iter().enumerate().filter(|(index, _)| !tried.contains(index)).map(|(_, r)| r);
        others.any(|replica| {
            let state = all.get(&ReplicaId::of(&provider.name, replica));
            state.is_none_or(|state| state.unfit_until(now).is_none())
        })
    }

    /// What requests have met at a replica lately.
    pub fn condition(&self, id: ReplicaId, now: Instant) -> Condition {
        self.lock().get(&id).map_or_else(Condition::default, |state| Condition {
            in_flight: state.in_flight,
            cooling_until: state.cooling_until.filter(|until| *until > now),
            last_failure: state.last_failure.clone(),
        })
    }

    /// Forgets replicas that are no longer configured.
    pub fn retain(&self, config: &Config) {
        let known: Vec<ReplicaId> = config
            .providers
            .iter()
            .flat_map(|provider| {
                provider.replicas.iter().map(|replica| ReplicaId::of(&provider.name, replica))
            })
            .collect();
        self.lock().retain(|key, state| state.in_flight > 0 || known.contains(key));
    }
}

/// Load as a number to compare: (in flight + 1) / weight.
fn load(in_flight: u32, replica: &Replica) -> u64 {
    u64::from(in_flight + 1) * 1_000_000 / u64::from(replica.weight.max(1))
}

impl State {
    fn is_half_open(&self, now: Instant) -> bool {
        self.cooling_until.is_some_and(|until| until <= now)
    }

    /// Until when it cools down; half open and being probed, it is no better than one whose time is over.
    fn unfit_until(&self, now: Instant) -> Option<Instant> {
        self.cooling_until.filter(|until| *until > now || self.probed)
    }

    fn cool_down(&mut self, time: Duration, now: Instant) -> Duration {
        let time = time.min(MAX_COOLDOWN);
        // A short wait asked for does not cut a longer one.
        self.cooling_until = self.cooling_until.max(Some(now + time));
        self.changed = Some(now);
        self.failures = 0;
        time
    }

    /// The next of the doubling cooldowns.
    fn cool_down_longer(&mut self, now: Instant) -> Duration {
        let factor = 1u32.checked_shl(self.cooldowns).unwrap_or(u32::MAX);
        self.cooldowns = (self.cooldowns + 1).min(16);
        self.cool_down(FIRST_COOLDOWN.saturating_mul(factor), now)
    }
}

impl Lease {
    /// Notes how the attempt ended; gives the time of the cooldown that begins with it.
    pub fn report(&self, verdict: Verdict, now: Instant) -> Option<Duration> {
        let mut all = self.balance.lock();
        let state = all.entry(self.key).or_default();
        let is_stale = state.changed.is_some_and(|changed| self.begun < changed);
        match verdict {
            Verdict::Unknown => None,
            Verdict::Served => {
                if !is_stale {
                    if state.cooling_until.take().is_some() {
                        state.changed = Some(now);
                    }
                    state.failures = 0;
                    state.cooldowns = 0;
                    state.last_failure = None;
                }
                None
            }
            Verdict::CoolDown(time) => Some(state.cool_down(time, now)),
            Verdict::Failed | Verdict::Refused => {
                let counts = !is_stale && state.cooling_until.is_none_or(|until| self.begun >= until);
                if !counts {
                    return None;
                }
                state.failures += 1;
                let enough = state.failures >= FAILURES_TO_COOL
                    || state.cooling_until.is_some()
                    || verdict == Verdict::Refused;
                enough.then(|| state.cool_down_longer(now))
            }
        }
    }

    /// Keeps why the attempt failed, for whoever asks after the replica's health.
    pub fn explain(&self, why: String, now: Instant) {
        if let Some(state) = self.balance.lock().get_mut(&self.key) {
            state.last_failure = Some((why, now));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(state) = self.balance.lock().get_mut(&self.key) {
            state.in_flight = state.in_flight.saturating_sub(1);
            if self.is_probe {
                state.probed = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Balance, Verdict};
    use crate::config::{Provider, Replica, Secret};

    fn provider(weights: &[u32]) -> Provider {
        let replicas = weights.iter().enumerate().map(|(index, &weight)| Replica {
            url: format!("http://127.0.0.1:{index}"),
            anthropic_url: None,
            key: Secret::default(),
            models: None,
            headers: Vec::new(),
            proxy: None,
            ca_file: None,
            weight,
        });
        Provider { name: "p".into(), replicas: replicas.collect() }
    }

    #[test]
    fn load_is_shared_by_weight() {
        let (balance, provider, now) = (Arc::new(Balance::default()), provider(&[1, 3]), Instant::now());
        let leases: Vec<_> =
            (0..40).map(|_| balance.choose(&provider, &[], now).expect("there are replicas")).collect();
        assert_eq!(leases.iter().filter(|(index, _)| *index == 1).count(), 30);
    }

    #[test]
    fn three_failures_cool_down_and_the_time_doubles_until_it_serves() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let fail = |now| {
            for _ in 0..3 {
                let (index, lease) = balance.choose(&provider, &[1], now).expect("there is a replica");
                assert_eq!(index, 0);
                lease.report(Verdict::Failed, now);
            }
        };
        let first = |now| balance.choose(&provider, &[], now).expect("there are replicas").0;
        fail(start);
        assert_eq!(first(start + Duration::from_secs(9)), 1);
        assert_eq!(first(start + Duration::from_secs(11)), 0);
        fail(start + Duration::from_secs(11));
        assert_eq!(first(start + Duration::from_secs(30)), 1, "20 s the second time");
        assert_eq!(first(start + Duration::from_secs(32)), 0);
    }

    #[test]
    fn when_all_cool_down_the_one_that_is_fit_soonest_is_tried() {
        let (balance, provider, now) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        for (tried, seconds) in [([1], 100), ([0], 50)] {
            let (_, lease) = balance.choose(&provider, &tried, now).expect("there is a replica");
            lease.report(Verdict::CoolDown(Duration::from_secs(seconds)), now);
        }
        assert_eq!(balance.choose(&provider, &[], now).map(|(index, _)| index), Some(1));
        assert!(balance.choose(&provider, &[0, 1], now).is_none());
    }
}
