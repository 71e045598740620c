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
    /// It cools down because the provider said so, not because it failed: then it will not serve any sooner.
    is_told: bool,
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
                let key = replica.id;
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
        self.any(provider, tried, |state| state.unfit_until(now).is_none())
    }

    /// Whether a replica of `provider` that is not among `tried` may serve: also one that cools down for its failures, which
    /// may be well again by now.
    pub fn has_hope(&self, provider: &Provider, tried: &[usize], now: Instant) -> bool {
        self.any(provider, tried, |state| state.unfit_until(now).is_none() || !state.is_told)
    }

    fn any(&self, provider: &Provider, tried: &[usize], is_good: impl Fn(&State) -> bool) -> bool {
        let all = self.lock();
        let mut others = provider.replicas.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        others.any(|(_, replica)| all.get(&replica.id).is_none_or(&is_good))
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
            .flat_map(|provider| provider.replicas.iter().map(|replica| replica.id))
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
        self.is_told = false;
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
            Verdict::CoolDown(time) => {
                state.is_told = true;
                Some(state.cool_down(time, now))
            }
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

    use super::{Balance, Lease, Verdict};
    use crate::config::{Provider, Replica, ReplicaId, Secret, StreamUsage};
    use crate::limits::{FIRST_COOLDOWN, MAX_COOLDOWN};
    use crate::testing::Random;

    fn provider(weights: &[u32]) -> Provider {
        let replicas = weights.iter().enumerate().map(|(index, &weight)| Replica {
            id: ReplicaId::default(),
            url: format!("http://127.0.0.1:{index}"),
            anthropic_url: None,
            key: Secret::default(),
            models: None,
            headers: Vec::new(),
            proxy: None,
            anthropic_proxy: None,
            stream_usage: StreamUsage::Auto,
            ca_file: None,
            weight,
        });
        let replicas = replicas.map(|replica| replica.identified("p"));
        Provider::new("p".into(), replicas.collect())
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

    /// Random histories over random replicas. After each step: a cooling replica is chosen only where none is fit, a half
    /// open one gets one request at a time, and in the end nothing is in flight and no probe is out.
    #[test]
    fn no_history_leaks_a_lease_or_prefers_a_cooling_replica() {
        for seed in 1..300 {
            let mut random = Random::new(seed);
            let weights: Vec<u32> = (0..1 + random.below(4)).map(|_| 1 + random.below(3)).collect();
            let (balance, provider) = (Arc::new(Balance::default()), provider(&weights));
            let mut now = Instant::now();
            let mut held: Vec<(usize, Lease)> = Vec::new();
            for _ in 0..400 {
                match random.below(8) {
                    0 => now += Duration::from_secs(u64::from(random.below(30))),
                    1..4 if !held.is_empty() => {
                        let (_, lease) = held.swap_remove(random.below(held.len() as u32) as usize);
                        let wait = Duration::from_secs(u64::from(random.below(400)));
                        let verdicts = [
                            Verdict::Served,
                            Verdict::Failed,
                            Verdict::Failed,
                            Verdict::Refused,
                            Verdict::CoolDown(wait),
                            Verdict::Unknown,
                        ];
                        let cooled = lease.report(verdicts[random.below(6) as usize], now);
                        assert!(cooled.is_none_or(|time| time <= MAX_COOLDOWN), "seed {seed}");
                    }
                    _ => {
                        let tried: Vec<usize> = (0..weights.len()).filter(|_| random.below(4) == 0).collect();
                        let states: Vec<_> = provider
                            .replicas
                            .iter()
                            .map(|replica| {
                                let all = balance.lock();
                                let state = all.get(&replica.id);
                                state.map_or((None, 0, false), |state| {
                                    (state.cooling_until, state.in_flight, state.probed)
                                })
                            })
                            .collect();
                        let is_fit = |(until, _, probed): &(Option<Instant>, u32, bool)| {
                            until.is_none_or(|until| until <= now && !probed)
                        };
                        let left = || (0..weights.len()).filter(|index| !tried.contains(index));
                        let has_fit = left().any(|index| is_fit(&states[index]));
                        assert!(!has_fit || balance.has_hope(&provider, &tried, now), "seed {seed}");
                        assert_eq!(balance.has_fit(&provider, &tried, now), has_fit, "seed {seed}");
                        let Some((index, lease)) = balance.choose(&provider, &tried, now) else {
                            assert_eq!(left().count(), 0, "seed {seed}: a replica was left");
                            continue;
                        };
                        assert!(!tried.contains(&index), "seed {seed}");
                        assert!(is_fit(&states[index]) || !has_fit, "seed {seed}: cooling beside a fit one");
                        if has_fit {
                            let load =
                                |index: usize| f64::from(states[index].1 + 1) / f64::from(weights[index]);
                            let best = left()
                                .filter(|index| is_fit(&states[*index]))
                                .map(load)
                                .fold(f64::MAX, f64::min);
                            assert!(load(index) <= best + 1e-6, "seed {seed}: not the least load");
                        }
                        held.push((index, lease));
                    }
                }
                let all = balance.lock();
                for (index, replica) in provider.replicas.iter().enumerate() {
                    let in_flight = held.iter().filter(|(other, _)| *other == index).count();
                    let known = all.get(&replica.id).map_or(0, |state| state.in_flight);
                    assert_eq!(known as usize, in_flight, "seed {seed}");
                }
            }
            held.clear();
            let all = balance.lock();
            assert!(all.values().all(|state| state.in_flight == 0 && !state.probed), "seed {seed}");
        }
    }

    #[test]
    fn a_replica_that_dies_with_many_requests_in_flight_cools_down_once() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let dying: Vec<_> = (0..32).filter_map(|_| balance.choose(&provider, &[1], start)).collect();
        let now = start + Duration::from_secs(1);
        let times: Vec<_> =
            dying.iter().filter_map(|(_, lease)| lease.report(Verdict::Failed, now)).collect();
        assert_eq!(times, [FIRST_COOLDOWN]);
        // Nor does one that was slow to fail reach past the recovery.
        drop(dying);
        let slow: Vec<_> = (0..9).filter_map(|_| balance.choose(&provider, &[1], now)).collect();
        let well = now + FIRST_COOLDOWN;
        let (_, probe) = balance.choose(&provider, &[1], well).expect("a replica");
        probe.report(Verdict::Served, well);
        let later = well + Duration::from_secs(1);
        assert!(slow.iter().all(|(_, lease)| lease.report(Verdict::Failed, later).is_none()));
        assert_eq!(balance.choose(&provider, &[1], later).map(|(index, _)| index), Some(0));
        assert!(balance.has_fit(&provider, &[1], later));
    }

    #[test]
    fn half_open_it_gets_one_request_at_a_time_until_one_is_served() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let choose = |now| balance.choose(&provider, &[], now).expect("a replica");
        let (index, lease) = choose(start);
        assert_eq!((index, lease.report(Verdict::Refused, start)), (0, Some(FIRST_COOLDOWN)));
        drop(lease);
        let now = start + FIRST_COOLDOWN;
        let (probe, others) = (choose(now), [choose(now), choose(now), choose(now)]);
        assert_eq!((probe.0, others.each_ref().map(|(index, _)| *index)), (0, [1, 1, 1]));
        // One whose client left says nothing: the next may go.
        drop(probe);
        let (index, probe) = choose(now);
        assert_eq!((index, probe.report(Verdict::Failed, now)), (0, Some(2 * FIRST_COOLDOWN)));
        drop(probe);
        let now = now + 2 * FIRST_COOLDOWN;
        let (_, probe) = choose(now);
        probe.report(Verdict::Served, now);
        assert_eq!(choose(now).0, 0, "well again, beside the probe that still holds its place");
    }

    #[test]
    fn a_success_from_before_ends_no_cooldown_and_a_short_wait_cuts_no_longer_one() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let early = balance.choose(&provider, &[1], start).expect("a replica").1;
        let now = start + Duration::from_secs(1);
        let limited = balance.choose(&provider, &[1], now).expect("a replica").1;
        limited.report(Verdict::CoolDown(Duration::from_secs(60)), now + Duration::from_secs(1));
        limited.report(Verdict::CoolDown(Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(!balance.has_hope(&provider, &[1], now + Duration::from_secs(2)), "it said how long");
        early.report(Verdict::Served, now + Duration::from_secs(2));
        assert_eq!(balance.choose(&provider, &[], now + Duration::from_secs(50)).map(|(i, _)| i), Some(1));
    }
}
