//! Log lines about requests that are refused before a handler sees them, a bounded number for each reason.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::error::ApiError;
use crate::core::date;
use crate::front::{Head, Peer};
use crate::limits::{MAX_QUOTED, MAX_REFUSAL_LINES, REFUSALS_INTERVAL};
use crate::text::quoted;

/// What was logged for each reason, of which there are as many as [`ApiError`] knows.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<&'static str, Logged>>);

struct Logged {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Refusals {
    /// Logs who sent what and why it was refused: [`MAX_REFUSAL_LINES`] for a reason in each [`REFUSALS_INTERVAL`]. The next line after
    /// it says how many were left out.
    pub fn log(&self, error: &ApiError, peer: Peer, head: &Head, request_id: &str) {
        let (status, reason) = (error.status(), error.reason());
        let Some(left_out) = self.count(reason, Instant::now()) else { return };
        let client = match peer {
            Peer::Ip(address) => address.to_string(),
            Peer::Unix => "unix".to_owned(),
        };
        let (method, path) = (quoted(head.method(), MAX_QUOTED), quoted(head.path(), MAX_QUOTED));
        log::warn!(
            status, reason, client = &*client, method = &*method, path = &*path, request_id, left_out;
            "{status} {reason} client={client} method={method} path={path} request_id={request_id} left_out={left_out}"
        );
    }

    /// How many lines were left out before this one, if it is written.
    fn count(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = all.entry(reason).or_insert(Logged { since: now, lines: 0, left_out: 0 });
        if now.duration_since(logged.since) >= REFUSALS_INTERVAL {
            (logged.since, logged.lines) = (now, 0);
        }
        if logged.lines >= MAX_REFUSAL_LINES {
            logged.left_out += 1;
            return None;
        }
        logged.lines += 1;
        Some(std::mem::take(&mut logged.left_out))
    }
}

/// Keeps what can happen to every request from filling the log.
#[derive(Default)]
pub struct OnceASecond(AtomicI64);

impl OnceASecond {
    /// Whether this second has not had one yet.
    pub fn may_tell(&self) -> bool {
        let now = date::seconds(SystemTime::now());
        self.0.swap(now, Ordering::Relaxed) != now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::Refusals;
    use crate::limits::{MAX_REFUSAL_LINES, REFUSALS_INTERVAL};

    #[test]
    fn refusals_over_the_bound_are_counted_until_the_next_line() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        for _ in 0..MAX_REFUSAL_LINES {
            assert_eq!(refusals.count("one", start), Some(0));
        }
        assert_eq!((refusals.count("one", start), refusals.count("one", start)), (None, None));
        assert_eq!(refusals.count("other", start), Some(0));
        assert_eq!(refusals.count("one", start + REFUSALS_INTERVAL), Some(2));
        assert_eq!(refusals.count("one", start + REFUSALS_INTERVAL), Some(0));
    }
}
