//! Limits of each token, and what it has used: requests a minute, requests at once, tokens a day. Pure: the
//! time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Token, TokenId};
use crate::core::date::{self, DAY};

/// Use of every token. It survives a reload.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    tokens: HashMap<TokenId, Used>,
    /// Number of changes to the daily counts.
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    /// Theoretical arrival time of the next request at an even rate; a request may come up to a minute's
    /// worth before it.
    due: Instant,
    parallel: u32,
    today: Spent,
}

/// Tokens used on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Days since 1970-01-01, in UTC.
    pub day: i64,
    /// Prompt and completion, as reported or estimated.
    pub tokens: u64,
}

/// The time on both clocks: the monotonic one and the calendar.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// For rates.
    pub at: Instant,
    /// For days: seconds since 1970, UTC.
    pub unix: i64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Clock {
    pub fn now() -> Self {
        Self { at: Instant::now(), unix: date::seconds(SystemTime::now()) }
    }

    fn day(self) -> i64 {
        self.unix.div_euclid(DAY)
    }
}

/// The limit that a request would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests a minute.
    Rate(u32),
    /// Requests at once.
    Parallel(u32),
    /// Tokens a day.
    Day(u64),
}

/// How much of its requests a minute a token has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may come right now.
    pub remaining: u32,
    /// Time until `remaining` is `limit` again.
    pub reset: Duration,
}

/// How much of its tokens a day a token has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Tokens a day.
    pub limit: u64,
    /// Tokens used today.
    pub used: u64,
    /// Time until the next day begins in UTC.
    pub reset: Duration,
}

/// What a token has used of each limit it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Requests a minute.
    pub rate: Option<Standing>,
    /// Requests in flight.
    pub parallel: u32,
    /// Tokens a day.
    pub day: Option<Day>,
}

/// A refused request. It uses up nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The limit it met.
    pub limit: Limit,
    /// How long to wait before the next try.
    pub wait: Duration,
    /// The token's requests a minute.
    pub standing: Option<Standing>,
    /// The token's day.
    pub day: Option<Day>,
}

/// Permission for one request. Dropping it frees one of the token's parallel requests.
#[derive(Debug)]
pub struct Permit {
    /// `None`: the token has no limits.
    of: Option<(Arc<Quotas>, TokenId)>,
    /// The token has a limit of tokens a day.
    is_counted: bool,
    /// The token's rate after this request, if it has one.
    pub standing: Option<Standing>,
    /// The token's day, if it has a limit of tokens a day; this request has used nothing yet.
    pub day: Option<Day>,
}

impl Quotas {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a request.
    ///
    /// # Errors
    /// The limit that is exceeded, and how long to wait.
    pub fn admit(self: &Arc<Self>, token: &Token, now: Clock) -> Result<Permit, Refused> {
        if !token.is_limited() {
            return Ok(Permit::UNLIMITED);
        }
        let id = TokenId::of(token);
        let mut all = self.lock();
        let used = all.tokens.entry(id).or_insert(Used::fresh(now));
        used.today.begin_day(now.day());
        let day = used.day(token, now);
        let refused =
            |limit, wait, used: &Used| Err(Refused { limit, wait, standing: used.standing(token, now), day });
        if let Some(max) = token.max_parallel.filter(|max| used.parallel >= *max) {
            return refused(Limit::Parallel(max), Duration::from_secs(1), used);
        }
        if let Some(day) = day.filter(|day| day.used >= day.limit) {
            return refused(Limit::Day(day.limit), day.reset, used);
        }
        if let Some(rpm) = token.rpm {
            let next = used.due.max(now.at) + MINUTE / rpm;
            if let Some(early) = next.checked_duration_since(now.at + MINUTE).filter(|early| !early.is_zero())
            {
                return refused(Limit::Rate(rpm), early, used);
            }
            used.due = next;
        }
        used.parallel += 1;
        let (of, is_counted) = (Some((Arc::clone(self), id)), day.is_some());
        Ok(Permit { of, is_counted, standing: used.standing(token, now), day })
    }

    /// What a token has used of its limits.
    pub fn account(&self, token: &Token, now: Clock) -> Account {
        let used = self.lock().tokens.get(&TokenId::of(token)).copied();
        let mut used = used.unwrap_or(Used::fresh(now));
        used.today.begin_day(now.day());
        Account { rate: used.standing(token, now), parallel: used.parallel, day: used.day(token, now) }
    }

    /// Drops tokens that the configuration no longer has.
    pub fn retain(&self, config: &Config) {
        let known: Vec<TokenId> = config.tokens.iter().map(TokenId::of).collect();
        self.lock().tokens.retain(|id, used| used.parallel > 0 || known.contains(id));
    }

    /// Number of changes to the daily counts: a file written at another number is out of date.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Use of a token on the last day it was used.
    pub fn spent(&self, id: TokenId) -> Spent {
        self.lock().tokens.get(&id).map(|used| used.today).unwrap_or_default()
    }

    /// Restores a count from the state file.
    pub fn restore(&self, id: TokenId, spent: Spent, now: Clock) {
        self.lock().tokens.insert(id, Used { today: spent, ..Used::fresh(now) });
    }
}

impl Spent {
    /// A new day starts at zero. A clock set back over midnight starts none. A clock set back by more was
    /// wrong before: without a new day the token would stay blocked until that wrong date.
    fn begin_day(&mut self, day: i64) {
        if day > self.day || day < self.day - 1 {
            *self = Self { day, tokens: 0 };
        }
    }
}

impl Used {
    fn fresh(now: Clock) -> Self {
        Self { due: now.at, parallel: 0, today: Spent::default() }
    }

    fn day(&self, token: &Token, now: Clock) -> Option<Day> {
        let limit = token.tokens_per_day?;
        // The clock may have been set back.
        let end = (self.today.day + 1) * DAY;
        let reset = Duration::from_secs(u64::try_from(end - now.unix).unwrap_or(1));
        Some(Day { limit, used: self.today.tokens, reset })
    }

    fn standing(&self, token: &Token, now: Clock) -> Option<Standing> {
        let limit = token.rpm?;
        let ahead = self.due.saturating_duration_since(now.at);
        let fit = MINUTE.saturating_sub(ahead).as_nanos() / (MINUTE / limit).as_nanos();
        let remaining = u32::try_from(fit).unwrap_or(limit).min(limit);
        Some(Standing { limit, remaining, reset: ahead })
    }
}

impl Permit {
    /// The permit of a token without limits.
    pub const UNLIMITED: Self = Self { of: None, is_counted: false, standing: None, day: None };

    /// Whether the token has a limit of tokens a day.
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Counts the tokens of the request on the current day.
    pub fn spend(&self, tokens: u64, now: Clock) {
        let Some((quotas, id)) = self.of.as_ref().filter(|_| self.is_counted && tokens > 0) else { return };
        let mut all = quotas.lock();
        all.changes += 1;
        if let Some(used) = all.tokens.get_mut(id) {
            used.today.begin_day(now.day());
            used.today.tokens = used.today.tokens.saturating_add(tokens);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((quotas, id)) = &self.of {
            if let Some(used) = quotas.lock().tokens.get_mut(id) {
                used.parallel = used.parallel.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Account, Clock, DAY, Day, Limit, Permit, Quotas, Spent, Standing};
    use crate::config::{Credential, Secret, Token, TokenId};
    use crate::testing::Random;

    fn token(rpm: Option<u32>, max_parallel: Option<u32>, tokens_per_day: Option<u64>) -> Token {
        let token = Credential::read(Secret::new("sk-t".into())).expect("a token");
        Token { name: "t".into(), token, models: None, rpm, max_parallel, tokens_per_day }
    }

    fn clock() -> Clock {
        Clock { at: Instant::now(), unix: 20_000 * DAY + 100 }
    }

    fn later(clock: Clock, seconds: u64) -> Clock {
        let unix = clock.unix + i64::try_from(seconds).expect("small");
        Clock { at: clock.at + Duration::from_secs(seconds), unix }
    }

    #[test]
    fn minute_holds_rpm_requests_and_the_next_gets_a_retry_time() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(Some(3), None, None), clock());
        for remaining in [2, 1, 0] {
            let permit = quotas.admit(&token, now).expect("let in");
            assert_eq!(permit.standing.map(|s| (s.limit, s.remaining)), Some((3, remaining)));
        }
        for _ in 0..2 {
            let refused = quotas.admit(&token, now).expect_err("over the rate");
            assert_eq!((refused.limit, refused.wait), (Limit::Rate(3), Duration::from_secs(20)));
            let standing = Standing { limit: 3, remaining: 0, reset: Duration::from_secs(60) };
            assert_eq!(refused.standing, Some(standing), "a refusal costs nothing");
        }
        let permit = quotas.admit(&token, later(now, 20)).expect("let in");
        assert_eq!(permit.standing.map(|s| s.remaining), Some(0));
        assert_eq!(
            quotas.admit(&token, later(now, 200)).expect("let in").standing.map(|s| s.remaining),
            Some(2)
        );
    }

    #[test]
    fn every_rate_lets_in_just_as_many_at_once() {
        for rpm in [1, 2, 7, 59, 60, 61, 999, 1_000_000] {
            let (quotas, token, now) = (Arc::new(Quotas::default()), token(Some(rpm), None, None), clock());
            for left in (0..rpm).rev().take(100) {
                let standing = quotas.admit(&token, now).expect("let in").standing.expect("a rate");
                assert_eq!((standing.remaining, standing.limit), (left, rpm));
            }
        }
    }

    #[test]
    fn parallel_permits_are_released_by_drop_also_in_a_panic() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(None, Some(2), None), clock());
        let first = quotas.admit(&token, now);
        let _second = quotas.admit(&token, now);
        assert_eq!(quotas.admit(&token, now).map(drop).map_err(|r| r.limit), Err(Limit::Parallel(2)));
        drop(first);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _permit = quotas.admit(&token, now).expect("let in");
            assert!(quotas.admit(&token, now).is_err());
            panic!("a handler fails");
        }));
        assert!(panicked.is_err());
        assert!(quotas.admit(&token, now).is_ok());
    }

    #[test]
    fn a_day_ends_at_midnight_utc_and_not_when_the_clock_is_set_back() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(None, None, Some(100)), clock());
        let spend = |tokens, now| quotas.admit(&token, now).map(|permit| permit.spend(tokens, now));
        assert!(spend(60, now).is_ok());
        // The call that crosses the limit succeeds: its tokens are known only afterwards.
        assert!(spend(60, now).is_ok());
        let refused = quotas.admit(&token, now).expect_err("used up");
        assert_eq!((refused.limit, refused.wait), (Limit::Day(100), Duration::from_secs(86_300)));
        let back = Clock { unix: now.unix - DAY, ..now };
        assert!(quotas.admit(&token, back).is_err());
        assert!(spend(99, later(now, 86_300)).is_ok(), "a new day");
        assert_eq!(quotas.spent(TokenId::of(&token)), Spent { day: 20_001, tokens: 99 });
        assert_eq!(quotas.changes(), 3);
        assert!(spend(1, later(now, 86_300)).is_ok(), "used up again");
        let years_back = Clock { unix: now.unix - 5000 * DAY, ..now };
        assert!(spend(100, years_back).is_ok(), "the clock had been years ahead");
        assert!(spend(1, years_back).is_err());
    }

    #[test]
    fn account_has_the_use_of_each_limit() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(Some(3), Some(2), Some(100)), clock());
        let day = |used| Some(Day { limit: 100, used, reset: Duration::from_secs(86_300) });
        let rate =
            |remaining, reset| Some(Standing { limit: 3, remaining, reset: Duration::from_secs(reset) });
        assert_eq!(quotas.account(&token, now), Account { rate: rate(3, 0), parallel: 0, day: day(0) });
        let permit = quotas.admit(&token, now).expect("let in");
        permit.spend(120, now);
        assert_eq!(permit.day, day(0));
        assert_eq!(quotas.account(&token, now), Account { rate: rate(2, 20), parallel: 1, day: day(120) });
        assert_eq!(quotas.admit(&token, now).map(drop).map_err(|refused| refused.day), Err(day(120)));
        drop(permit);
        let next = later(now, 86_300);
        let fresh = Some(Day { limit: 100, used: 0, reset: Duration::from_secs(86_400) });
        assert_eq!(quotas.account(&token, next), Account { rate: rate(3, 0), parallel: 0, day: fresh });
    }

    #[test]
    fn what_was_written_down_is_taken_up() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(None, None, Some(100)), clock());
        quotas.restore(TokenId::of(&token), Spent { day: now.unix / DAY, tokens: 100 }, now);
        assert!(quotas.admit(&token, now).is_err());
        quotas.restore(TokenId::of(&token), Spent { day: now.unix / DAY - 1, tokens: 100 }, now);
        assert!(quotas.admit(&token, now).is_ok(), "yesterday's");
    }

    /// Random histories: no permit leaks or is given twice, no rate is exceeded, and a refusal changes
    /// nothing.
    #[test]
    fn no_history_leaks_a_permit_or_passes_a_limit() {
        for seed in 1..200 {
            let mut random = Random::new(seed);
            let (rpm, max) = (1 + random.below(20), 1 + random.below(5));
            let token = token(Some(rpm), Some(max), Some(1000));
            let (quotas, mut now) = (Arc::new(Quotas::default()), clock());
            let (mut held, mut let_in, mut spent): (Vec<Permit>, Vec<Instant>, u64) = Default::default();
            for _ in 0..300 {
                match random.below(3) {
                    0 => now = later(now, u64::from(random.below(9))),
                    1 if !held.is_empty() => {
                        let permit = held.swap_remove(random.below(held.len() as u32) as usize);
                        let tokens = u64::from(random.below(20));
                        permit.spend(tokens, now);
                        spent += tokens;
                    }
                    _ => {
                        let before = format!("{:?}", quotas.lock().tokens);
                        match quotas.admit(&token, now) {
                            Ok(permit) => {
                                assert!(held.len() < max as usize && spent < 1000, "seed {seed}");
                                held.push(permit);
                                let_in.push(now.at);
                            }
                            Err(refused) => {
                                let full = held.len() == max as usize;
                                assert_eq!(full, refused.limit == Limit::Parallel(max), "seed {seed}");
                                let after = format!("{:?}", quotas.lock().tokens);
                                // Only the entry itself and the date may differ.
                                let first = before == "{}" || before.contains("day: 0");
                                assert!(first || before == after, "seed {seed}: {before} {after}");
                            }
                        }
                    }
                }
                let minute = let_in.iter().filter(|at| **at + Duration::from_secs(60) > now.at).count();
                assert!(minute < 2 * rpm as usize, "seed {seed}: a minute's burst and a minute's refill");
            }
            held.clear();
            assert!(quotas.lock().tokens.values().all(|used| used.parallel == 0), "seed {seed}");
        }
    }
}
