//! Which replica next: least requests in flight over weight, none that is cooling down while another is fit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Provider, ReplicaId};
use crate::limits::{FAILURES_TO_COOL, FIRST_COOLDOWN, MAX_COOLDOWN};

/// Requests in flight, failures and cooldowns of every replica. It lives beside the configuration: what did not change
/// keeps its state over a reload.
#[derive(Debug, Default)]
pub struct Balance(Mutex<HashMap<ReplicaId, State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    in_flight: u32,
    /// Failures in a row.
    failures: u32,
    /// How often it has cooled down in a row.
    cooldowns: u32,
    cooling_until: Option<Instant>,
}

/// How an attempt ended, for the replica's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It served.
    Served,
    /// It failed.
    Failed,
    /// It asked to be left alone for so long.
    CoolDown(Duration),
    /// Nothing can be said: the client left, say.
    Unknown,
}

/// A replica in use: one of its requests in flight.
#[derive(Debug)]
pub struct Lease {
    balance: Arc<Balance>,
    key: ReplicaId,
}

impl Balance {
    /// The best replica of `provider` that is not among `tried`: the one with the least load among the fit; when all
    /// are cooling down, the one that cools off soonest.
    pub fn choose(
        self: &Arc<Self>,
        provider: &Provider,
        tried: &[usize],
        now: Instant,
    ) -> Option<(usize, Lease)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = (0..provider.replicas.len()).filter(|index| !tried.contains(index));
        let best = candidates
            .map(|index| {
                let replica = &provider.replicas[index];
                let key = ReplicaId::of(&provider.name, replica);
                let state = all.get(&key).copied().unwrap_or_default();
                let cooling = state.cooling_until.filter(|until| *until > now);
                // Load as a fraction, compared without division: (in flight + 1) / weight.
                let load = u64::from(state.in_flight + 1) * 1_000_000 / u64::from(replica.weight.max(1));
                (cooling, load, index, key)
            })
            .min_by_key(|&(cooling, load, index, _)| (cooling, load, index));
        let (_, _, index, key) = best?;
        all.entry(key).or_default().in_flight += 1;
        Some((index, Lease { balance: Arc::clone(self), key }))
    }

    /// Whether every replica of `provider` is cooling down.
    pub fn is_cooling(&self, provider: &Provider, now: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        provider.replicas.iter().all(|replica| {
            let state = all.get(&ReplicaId::of(&provider.name, replica));
            state.and_then(|state| state.cooling_until).is_some_and(|until| until > now)
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, state| state.in_flight > 0 || known.contains(key));
    }
}

impl Lease {
    /// Notes how the attempt ended.
    pub fn report(&self, verdict: Verdict, now: Instant) {
        let mut all = self.balance.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = all.entry(self.key).or_default();
        match verdict {
            Verdict::Unknown => {}
            Verdict::Served => {
                state.failures = 0;
                state.cooldowns = 0;
                state.cooling_until = None;
            }
            Verdict::CoolDown(time) => state.cooling_until = Some(now + time.min(MAX_COOLDOWN)),
            Verdict::Failed => {
                state.failures += 1;
                if state.failures >= FAILURES_TO_COOL {
                    let factor = 1u32.checked_shl(state.cooldowns).unwrap_or(u32::MAX);
                    state.cooling_until = Some(now + FIRST_COOLDOWN.saturating_mul(factor).min(MAX_COOLDOWN));
                    state.cooldowns = (state.cooldowns + 1).min(16);
                    state.failures = 0;
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut all = self.balance.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = all.get_mut(&self.key) {
            state.in_flight = state.in_flight.saturating_sub(1);
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
