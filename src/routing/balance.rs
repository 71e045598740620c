//! Chooses the next replica: the least requests in flight over weight, and none in cooldown while another is
//! available.
//!
//! A replica is *available*, *in cooldown* until a time, or *half open*: its cooldown is over, and no request
//! has succeeded since. A half-open replica gets one request at a time, until one succeeds or the next
//! cooldown begins.
//!
//! A token can send requests that make any replica fail: a model that the key may not use, a prompt that
//! takes too long. So a failure counts for its token alone until another token meets one too.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Provider, Replica, ReplicaId, TokenId};
use crate::limits::{FAILURES_TO_COOLDOWN, FIRST_COOLDOWN, MAX_COOLDOWN};

/// Requests in flight, failures and cooldowns of every replica. The state of a replica survives a reload that
/// keeps the replica.
#[derive(Debug, Default)]
pub struct Balance(Mutex<States>);

/// Replica states by id. An id is a hash already.
type States = HashMap<ReplicaId, State, BuildHasherDefault<AsItIs>>;

/// Uses the last word of a key as its hash.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

#[derive(Debug, Default)]
struct State {
    in_flight: u32,
    /// Failures that count for every token.
    record: Record,
    /// Failures that count for one token alone: no other token has met one since the last success.
    suspicion: Option<(TokenId, Record)>,
    /// Whether the monitor's checks find the key refused.
    check: Checked,
    /// The replica is half open, and a request in flight probes it.
    probed: bool,
    /// Reason and time of the last failure; `None` once a request has succeeded since.
    last_failure: Option<(String, Instant)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    cooldowns: u32,
    /// When the cooldown ends. A time in the past means half open: it stays until a request succeeds.
    cooldown_until: Option<Instant>,
    /// The provider itself set the cooldown, so trying sooner does not help.
    is_by_provider: bool,
    /// When the last cooldown began or the replica last recovered. An attempt that began before says nothing
    /// about the replica any more: a replica that dies with many requests in flight begins one cooldown, not
    /// one for every three of them.
    changed: Option<Instant>,
}

/// Whether the provider has refused the key to a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Checked {
    #[default]
    Accepted,
    Refused,
    /// Refused, and no longer evidence: a call has succeeded since (the key may not list models), or the
    /// refusal has already confirmed one refused call.
    Settled,
}

/// How an attempt ended, for the record of its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The replica responded as a working one does.
    Succeeded,
    /// No connection: no token can be the cause.
    Unreachable,
    Failed,
    /// The next request would fail in the same way: the cooldown begins at once.
    Refused,
    /// The provider asks for a pause this long.
    CoolDown(Duration),
    /// The attempt says nothing about the replica: the client left, say.
    Unknown,
}

/// Recent results of a replica's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Requests in flight.
    pub in_flight: u32,
    /// When the cooldown ends; `None`: it is not in cooldown.
    pub cooldown_until: Option<Instant>,
    /// The token for which alone it is in cooldown, and until when.
    pub cooldown_for: Option<(TokenId, Instant)>,
    /// Reason and time of the last failure; `None`: a request has succeeded since, or there was none.
    pub last_failure: Option<(String, Instant)>,
}

/// One request in flight at a replica.
#[derive(Debug)]
pub struct Lease {
    balance: Arc<Balance>,
    key: ReplicaId,
    token: Option<TokenId>,
    begun: Instant,
    /// It is the one request that a half-open replica gets.
    is_probe: bool,
    /// The request has ended. The replica is free before the client has its response, because the client's
    /// next request may come sooner than the lease is dropped.
    is_over: Cell<bool>,
}

impl Balance {
    fn lock(&self) -> MutexGuard<'_, States> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the best replica of `provider` that is not in `tried`: the available one with the least load,
    /// else the one whose cooldown ends first. `token` is the caller's; `None`: there is no other token, and
    /// each failure counts for all.
    pub fn choose(
        self: &Arc<Self>,
        provider: &Provider,
        tried: &[usize],
        token: Option<TokenId>,
        now: Instant,
    ) -> Option<(usize, Lease)> {
        let mut all = self.lock();
        let candidates = (0..provider.replicas.len()).filter(|index| !tried.contains(index));
        let best = candidates
            .map(|index| {
                let replica = &provider.replicas[index];
                let key = replica.id;
                let (unavailable, load) = all.get(&key).map_or((None, load(0, replica)), |state| {
                    (state.unavailable_until(token, now), load(state.in_flight, replica))
                });
                (unavailable, load, index, key)
            })
            .min_by_key(|&(unavailable, load, index, _)| (unavailable, load, index));
        let (_, _, index, key) = best?;
        let state = all.entry(key).or_default();
        state.in_flight += 1;
        let is_probe = state.is_half_open(now) && !state.probed;
        state.probed |= is_probe;
        Some((
            index,
            Lease { balance: Arc::clone(self), key, token, begun: now, is_probe, is_over: Cell::new(false) },
        ))
    }

    /// Whether a replica of `provider` that is not in `tried` is available to that token.
    pub fn has_available(
        &self,
        provider: &Provider,
        tried: &[usize],
        token: Option<TokenId>,
        now: Instant,
    ) -> bool {
        self.any(provider, tried, |state| state.unavailable_until(token, now).is_none())
    }

    /// Whether a replica of `provider` that is not in `tried` may take a request of that token. A replica in
    /// cooldown for its failures counts: it may have recovered.
    pub fn has_hope(
        &self,
        provider: &Provider,
        tried: &[usize],
        token: Option<TokenId>,
        now: Instant,
    ) -> bool {
        self.any(provider, tried, |state| !state.is_in_cooldown_by_provider(token, now))
    }

    fn any(&self, provider: &Provider, tried: &[usize], is_good: impl Fn(&State) -> bool) -> bool {
        let all = self.lock();
        let mut others = provider.replicas.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        others.any(|(_, replica)| all.get(&replica.id).is_none_or(&is_good))
    }

    /// Notes whether a check found the replica's key refused: then no token is the cause of a refused call.
    pub fn note_check(&self, id: ReplicaId, is_refused: bool) {
        let mut all = self.lock();
        let check = &mut all.entry(id).or_default().check;
        *check = match (is_refused, *check) {
            (false, _) => Checked::Accepted,
            (true, Checked::Settled) => Checked::Settled,
            (true, _) => Checked::Refused,
        };
    }

    /// Recent results of a replica's requests.
    pub fn condition(&self, id: ReplicaId, now: Instant) -> Condition {
        let all = self.lock();
        let Some(state) = all.get(&id) else { return Condition::default() };
        let of_one = state.suspicion.and_then(|(token, record)| Some((token, record.cooldown_until(now)?)));
        Condition {
            in_flight: state.in_flight,
            cooldown_until: state.record.cooldown_until(now),
            cooldown_for: of_one,
            last_failure: state.last_failure.clone(),
        }
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

/// Load in comparable form: (in flight + 1) / weight.
fn load(in_flight: u32, replica: &Replica) -> u64 {
    u64::from(in_flight + 1) * 1_000_000 / u64::from(replica.weight.max(1))
}

impl State {
    fn is_half_open(&self, now: Instant) -> bool {
        self.record.cooldown_until.is_some_and(|until| until <= now)
    }

    /// The end of the cooldown for every token. A half-open replica with a probe in flight is unavailable
    /// too, with a time in the past.
    fn unavailable_for_all_until(&self, now: Instant) -> Option<Instant> {
        self.record.cooldown_until.filter(|until| *until > now || self.probed)
    }

    /// The end of the cooldown for that token.
    fn unavailable_until(&self, token: Option<TokenId>, now: Instant) -> Option<Instant> {
        let of_one = self.suspicion_of(token).and_then(|record| record.cooldown_until(now));
        self.unavailable_for_all_until(now).max(of_one)
    }

    /// Whether the provider itself set the cooldown that holds for that token.
    fn is_in_cooldown_by_provider(&self, token: Option<TokenId>, now: Instant) -> bool {
        let of_one = self.suspicion_of(token).filter(|record| record.cooldown_until(now).is_some());
        (self.record.is_by_provider && self.unavailable_for_all_until(now).is_some())
            || of_one.is_some_and(|record| record.is_by_provider)
    }

    fn suspicion_of(&self, token: Option<TokenId>) -> Option<&Record> {
        self.suspicion.as_ref().filter(|(of, _)| Some(*of) == token).map(|(_, record)| record)
    }

    /// The record in which a failure counts: that of all tokens where no token can be the cause or two tokens
    /// have met a failure in a row.
    fn record_of_failure(&mut self, verdict: Verdict, token: Option<TokenId>) -> &mut Record {
        let is_next_in_row = self.record.failures > 0 && self.record.cooldown_until.is_none();
        let is_refusal = matches!(verdict, Verdict::Refused | Verdict::CoolDown(_));
        let is_confirmed = is_refusal && self.check == Checked::Refused;
        if is_confirmed {
            self.check = Checked::Settled;
        }
        let is_general =
            verdict == Verdict::Unreachable || is_confirmed || (verdict == Verdict::Failed && is_next_in_row);
        let Some(token) = token.filter(|_| !is_general) else { return &mut self.record };
        if let Some((_, of_another)) = self.suspicion.take_if(|(of, _)| *of != token) {
            self.record.failures = self.record.failures.max(of_another.failures);
            return &mut self.record;
        }
        &mut self.suspicion.get_or_insert((token, self.record)).1
    }
}

impl Record {
    /// The end of the cooldown, if that is still to come.
    fn cooldown_until(&self, now: Instant) -> Option<Instant> {
        self.cooldown_until.filter(|until| *until > now)
    }

    fn is_stale(&self, begun: Instant) -> bool {
        self.changed.is_some_and(|changed| begun < changed)
    }

    /// Whether the failure of an attempt is news.
    fn counts(&self, begun: Instant) -> bool {
        !self.is_stale(begun) && self.cooldown_until.is_none_or(|until| begun >= until)
    }

    /// Notes a failure. Returns the length of the cooldown that begins with it.
    fn fail(&mut self, verdict: Verdict, begun: Instant, now: Instant) -> Option<Duration> {
        if let Verdict::CoolDown(time) = verdict {
            self.is_by_provider = true;
            return Some(self.cool_down(time, now));
        }
        if !self.counts(begun) {
            return None;
        }
        self.failures += 1;
        let is_enough = self.failures >= FAILURES_TO_COOLDOWN
            || self.cooldown_until.is_some()
            || verdict == Verdict::Refused;
        is_enough.then(|| self.cool_down_longer(now))
    }

    fn cool_down(&mut self, time: Duration, now: Instant) -> Duration {
        let time = time.min(MAX_COOLDOWN);
        // A short pause does not cut a longer one.
        self.cooldown_until = self.cooldown_until.max(Some(now + time));
        self.changed = Some(now);
        time
    }

    /// Begins the next of the doubling cooldowns.
    fn cool_down_longer(&mut self, now: Instant) -> Duration {
        let factor = 1u32.checked_shl(self.cooldowns).unwrap_or(u32::MAX);
        self.cooldowns = (self.cooldowns + 1).min(16);
        self.is_by_provider = false;
        self.cool_down(FIRST_COOLDOWN.saturating_mul(factor), now)
    }
}

impl Lease {
    /// Notes how the attempt ended. Returns the length of the cooldown that begins with it.
    pub fn report(&self, verdict: Verdict, now: Instant) -> Option<Duration> {
        let mut all = self.balance.lock();
        let state = all.entry(self.key).or_default();
        self.end(state);
        match verdict {
            Verdict::Unknown => None,
            Verdict::Succeeded => {
                self.note_success(state, now);
                None
            }
            Verdict::CoolDown(_) | Verdict::Unreachable | Verdict::Failed | Verdict::Refused => {
                let counts = matches!(verdict, Verdict::CoolDown(_)) || state.record.counts(self.begun);
                let record = counts.then(|| state.record_of_failure(verdict, self.token))?;
                record.fail(verdict, self.begun, now)
            }
        }
    }

    fn end(&self, state: &mut State) {
        if !self.is_over.replace(true) {
            state.in_flight = state.in_flight.saturating_sub(1);
            state.probed &= !self.is_probe;
        }
    }

    fn note_success(&self, state: &mut State, now: Instant) {
        if state.check == Checked::Refused {
            state.check = Checked::Settled;
        }
        if state.suspicion.is_some_and(|(_, record)| !record.is_stale(self.begun)) {
            state.suspicion = None;
        }
        if !state.record.is_stale(self.begun) {
            let changed =
                if state.record.cooldown_until.is_some() { Some(now) } else { state.record.changed };
            state.record = Record { changed, ..Record::default() };
            state.last_failure = None;
        }
    }

    /// Keeps the reason of the failure for `/health` and the status page.
    pub fn explain(&self, why: String, now: Instant) {
        if let Some(state) = self.balance.lock().get_mut(&self.key) {
            state.last_failure = Some((why, now));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_over.get() {
            return;
        }
        if let Some(state) = self.balance.lock().get_mut(&self.key) {
            self.end(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Balance, Lease, Verdict};
    use crate::config::{Provider, Replica, ReplicaId, ResponsesApi, Secret, StreamUsage, TokenId};
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
            responses: ResponsesApi::Auto,
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
            (0..40).map(|_| balance.choose(&provider, &[], None, now).expect("there are replicas")).collect();
        assert_eq!(leases.iter().filter(|(index, _)| *index == 1).count(), 30);
    }

    #[test]
    fn three_failures_cool_down_and_the_time_doubles_until_it_serves() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let fail = |now| {
            for _ in 0..3 {
                let (index, lease) = balance.choose(&provider, &[1], None, now).expect("there is a replica");
                assert_eq!(index, 0);
                lease.report(Verdict::Failed, now);
            }
        };
        let first = |now| balance.choose(&provider, &[], None, now).expect("there are replicas").0;
        fail(start);
        assert_eq!(first(start + Duration::from_secs(9)), 1);
        assert_eq!(first(start + Duration::from_secs(11)), 0);
        fail(start + Duration::from_secs(11));
        assert_eq!(first(start + Duration::from_secs(30)), 1, "20 s the second time");
        assert_eq!(first(start + Duration::from_secs(32)), 0);
    }

    #[test]
    fn choose_all_in_cooldown_takes_the_one_available_soonest() {
        let (balance, provider, now) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        for (tried, seconds) in [([1], 100), ([0], 50)] {
            let (_, lease) = balance.choose(&provider, &tried, None, now).expect("there is a replica");
            lease.report(Verdict::CoolDown(Duration::from_secs(seconds)), now);
        }
        assert_eq!(balance.choose(&provider, &[], None, now).map(|(index, _)| index), Some(1));
        assert!(balance.choose(&provider, &[0, 1], None, now).is_none());
    }

    /// Random histories over random replicas and tokens. After each step: a replica in cooldown is chosen
    /// only where none is available for the token, a half-open one gets one request at a time, and a cooldown
    /// for every token has failures of more than one token as its cause. In the end no request is in flight
    /// and no probe is out.
    #[test]
    fn histories_leak_no_lease_and_prefer_no_replica_in_cooldown() {
        for seed in 1..300 {
            let mut random = Random::new(seed);
            let weights: Vec<u32> = (0..1 + random.below(4)).map(|_| 1 + random.below(3)).collect();
            let (balance, provider) = (Arc::new(Balance::default()), provider(&weights));
            let (mut now, tokens) = (Instant::now(), 1 + random.below(3));
            let mut held: Vec<(usize, Lease)> = Vec::new();
            // Tokens that have met a failure in a row, by replica.
            let mut met: Vec<HashSet<Option<TokenId>>> = vec![HashSet::new(); weights.len()];
            for _ in 0..400 {
                match random.below(8) {
                    0 => now += Duration::from_secs(u64::from(random.below(30))),
                    1..4 if !held.is_empty() => {
                        let (index, lease) = held.swap_remove(random.below(held.len() as u32) as usize);
                        let wait = Duration::from_secs(u64::from(random.below(400)));
                        let verdicts = [
                            Verdict::Succeeded,
                            Verdict::Unreachable,
                            Verdict::Failed,
                            Verdict::Failed,
                            Verdict::Refused,
                            Verdict::CoolDown(wait),
                            Verdict::Unknown,
                        ];
                        let verdict = verdicts[random.below(7) as usize];
                        let id = provider.replicas[index].id;
                        let before = balance.lock()[&id].record.cooldown_until;
                        let cooldown = lease.report(verdict, now);
                        assert!(cooldown.is_none_or(|time| time <= MAX_COOLDOWN), "seed {seed}");
                        let (record, suspicion) = {
                            let state = &balance.lock()[&id];
                            (state.record, state.suspicion)
                        };
                        if !matches!(verdict, Verdict::Succeeded | Verdict::Unknown) {
                            met[index].insert(lease.token);
                        }
                        let is_general = verdict == Verdict::Unreachable || met[index].contains(&None);
                        if record.cooldown_until > before {
                            assert!(is_general || met[index].len() > 1, "seed {seed}: {verdict:?}");
                            met[index] = suspicion.iter().map(|(token, _)| Some(*token)).collect();
                        }
                        if verdict == Verdict::Succeeded && suspicion.is_none() && record.failures == 0 {
                            met[index].clear();
                        }
                        if verdict == Verdict::Unreachable {
                            met[index].insert(None);
                        }
                    }
                    _ => {
                        let tried: Vec<usize> = (0..weights.len()).filter(|_| random.below(4) == 0).collect();
                        let token = Some(random.below(tokens)).filter(|_| tokens > 1);
                        let token = token.map(|number| TokenId::numbered(number.into()));
                        let states: Vec<_> = provider
                            .replicas
                            .iter()
                            .map(|replica| {
                                let all = balance.lock();
                                let state = all.get(&replica.id);
                                state.map_or((None, 0, false, None), |state| {
                                    let own = state.suspicion.filter(|(of, _)| Some(*of) == token);
                                    let own = own.and_then(|(_, record)| record.cooldown_until);
                                    (state.record.cooldown_until, state.in_flight, state.probed, own)
                                })
                            })
                            .collect();
                        let is_available =
                            |(until, _, probed, own): &(Option<Instant>, u32, bool, Option<Instant>)| {
                                until.is_none_or(|until| until <= now && !probed)
                                    && own.is_none_or(|until| until <= now)
                            };
                        let left = || (0..weights.len()).filter(|index| !tried.contains(index));
                        let has_available = left().any(|index| is_available(&states[index]));
                        assert!(
                            !has_available || balance.has_hope(&provider, &tried, token, now),
                            "seed {seed}"
                        );
                        assert_eq!(
                            balance.has_available(&provider, &tried, token, now),
                            has_available,
                            "seed {seed}"
                        );
                        let Some((index, lease)) = balance.choose(&provider, &tried, token, now) else {
                            assert_eq!(left().count(), 0, "seed {seed}: a replica was left");
                            continue;
                        };
                        assert!(!tried.contains(&index), "seed {seed}");
                        assert!(
                            is_available(&states[index]) || !has_available,
                            "seed {seed}: in cooldown beside an available one"
                        );
                        if has_available {
                            let load =
                                |index: usize| f64::from(states[index].1 + 1) / f64::from(weights[index]);
                            let best = left()
                                .filter(|index| is_available(&states[*index]))
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
    fn failure_of_one_token_counts_for_it_alone_until_another_meets_one() {
        let start = Instant::now();
        let [mine, other] = [1, 2].map(|number| Some(TokenId::numbered(number)));
        for (verdict, times) in [
            (Verdict::Failed, 3),
            (Verdict::Refused, 1),
            (Verdict::CoolDown(Duration::from_secs(60)), 1),
            (Verdict::CoolDown(MAX_COOLDOWN), 1),
        ] {
            let (balance, provider) = (Arc::new(Balance::default()), provider(&[1, 1]));
            let meet = |token, verdict, now| {
                let (_, lease) = balance.choose(&provider, &[1], token, now).expect("a replica");
                lease.report(verdict, now)
            };
            let is_available = |token, now| balance.has_available(&provider, &[1], token, now);
            let cooldowns: Vec<_> = (0..times).filter_map(|_| meet(mine, verdict, start)).collect();
            assert_eq!(cooldowns.len(), 1);
            assert_eq!(
                (is_available(mine, start), is_available(other, start), is_available(None, start)),
                (false, true, true)
            );
            let of_one = balance.condition(provider.replicas[0].id, start);
            assert_eq!(
                (of_one.cooldown_until, of_one.cooldown_for.map(|(token, _)| Some(token))),
                (None, Some(mine))
            );
            // A success of another token clears it.
            let now = start + Duration::from_secs(1);
            meet(other, Verdict::Succeeded, now);
            assert!(is_available(mine, now), "{verdict:?}");
            // A failure of another token puts it in cooldown for every token.
            assert_eq!((0..times).filter_map(|_| meet(mine, verdict, now)).count(), 1);
            assert!(meet(other, verdict, now).is_some(), "{verdict:?}");
            assert!([mine, other, None].iter().all(|token| !is_available(*token, now)), "{verdict:?}");
            // One token alone cannot put a half-open replica in cooldown again.
            let now = now + MAX_COOLDOWN;
            assert!(meet(mine, Verdict::Failed, now).is_some());
            assert_eq!((is_available(mine, now), is_available(other, now)), (false, true));
            assert!(meet(other, Verdict::Failed, now).is_some());
            assert!(!is_available(None, now));
        }
    }

    #[test]
    fn failures_in_a_row_count_for_every_token_where_two_have_met_them_or_there_was_no_connection() {
        let [mine, other] = [1, 2].map(|number| Some(TokenId::numbered(number)));
        for row in [
            [(mine, Verdict::Failed), (other, Verdict::Failed), (mine, Verdict::Failed)],
            [(mine, Verdict::Unreachable), (mine, Verdict::Unreachable), (mine, Verdict::Unreachable)],
        ] {
            let (balance, provider, now) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
            let cooldown = row.map(|(token, verdict)| {
                let (_, lease) = balance.choose(&provider, &[1], token, now).expect("a replica");
                lease.report(verdict, now)
            });
            assert_eq!(cooldown, [None, None, Some(FIRST_COOLDOWN)]);
            assert!(!balance.has_available(&provider, &[1], None, now), "{row:?}");
        }
    }

    #[test]
    fn refused_check_confirms_one_refused_call_unless_a_call_has_succeeded() {
        let (balance, provider, now) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let (id, mine) = (provider.replicas[0].id, Some(TokenId::numbered(1)));
        let meet = |verdict, now| {
            let (_, lease) = balance.choose(&provider, &[1], mine, now).expect("a replica");
            lease.report(verdict, now)
        };
        let is_available = |now| balance.has_available(&provider, &[1], None, now);
        balance.note_check(id, true);
        assert!(is_available(now), "a check alone puts nothing in cooldown");
        meet(Verdict::Succeeded, now);
        balance.note_check(id, true);
        meet(Verdict::Refused, now);
        assert!(is_available(now), "it may not list models");
        balance.note_check(id, false);
        balance.note_check(id, true);
        meet(Verdict::Refused, now);
        assert!(!is_available(now));
        // One confirmation only: one token cannot keep the replica in cooldown through a check that always
        // fails.
        let later = now + FIRST_COOLDOWN;
        balance.note_check(id, true);
        meet(Verdict::Refused, later);
        assert!(is_available(later));
    }

    #[test]
    fn a_replica_that_dies_with_many_requests_in_flight_cools_down_once() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let dying: Vec<_> = (0..32).filter_map(|_| balance.choose(&provider, &[1], None, start)).collect();
        let now = start + Duration::from_secs(1);
        let times: Vec<_> =
            dying.iter().filter_map(|(_, lease)| lease.report(Verdict::Failed, now)).collect();
        assert_eq!(times, [FIRST_COOLDOWN]);
        // A late failure of an attempt from before the recovery does not count either.
        drop(dying);
        let slow: Vec<_> = (0..9).filter_map(|_| balance.choose(&provider, &[1], None, now)).collect();
        let well = now + FIRST_COOLDOWN;
        let (_, probe) = balance.choose(&provider, &[1], None, well).expect("a replica");
        probe.report(Verdict::Succeeded, well);
        let later = well + Duration::from_secs(1);
        assert!(slow.iter().all(|(_, lease)| lease.report(Verdict::Failed, later).is_none()));
        assert_eq!(balance.choose(&provider, &[1], None, later).map(|(index, _)| index), Some(0));
        assert!(balance.has_available(&provider, &[1], None, later));
    }

    #[test]
    fn half_open_replica_gets_one_request_at_a_time_until_one_succeeds() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let choose = |now| balance.choose(&provider, &[], None, now).expect("a replica");
        let (index, lease) = choose(start);
        assert_eq!((index, lease.report(Verdict::Refused, start)), (0, Some(FIRST_COOLDOWN)));
        drop(lease);
        let now = start + FIRST_COOLDOWN;
        let (probe, others) = (choose(now), [choose(now), choose(now), choose(now)]);
        assert_eq!((probe.0, others.each_ref().map(|(index, _)| *index)), (0, [1, 1, 1]));
        // A probe whose client left says nothing: the next request may probe.
        drop(probe);
        let (index, probe) = choose(now);
        assert_eq!((index, probe.report(Verdict::Failed, now)), (0, Some(2 * FIRST_COOLDOWN)));
        drop(probe);
        let now = now + 2 * FIRST_COOLDOWN;
        let (_, probe) = choose(now);
        probe.report(Verdict::Succeeded, now);
        assert_eq!(choose(now).0, 0, "well again, beside the probe that still holds its place");
    }

    #[test]
    fn a_success_from_before_ends_no_cooldown_and_a_short_wait_cuts_no_longer_one() {
        let (balance, provider, start) = (Arc::new(Balance::default()), provider(&[1, 1]), Instant::now());
        let early = balance.choose(&provider, &[1], None, start).expect("a replica").1;
        let now = start + Duration::from_secs(1);
        let limited = balance.choose(&provider, &[1], None, now).expect("a replica").1;
        limited.report(Verdict::CoolDown(Duration::from_secs(60)), now + Duration::from_secs(1));
        limited.report(Verdict::CoolDown(Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(!balance.has_hope(&provider, &[1], None, now + Duration::from_secs(2)), "it said how long");
        early.report(Verdict::Succeeded, now + Duration::from_secs(2));
        assert_eq!(
            balance.choose(&provider, &[], None, now + Duration::from_secs(50)).map(|(i, _)| i),
            Some(1)
        );
    }
}
