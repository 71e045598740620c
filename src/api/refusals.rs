//! Log lines about requests that are refused before a handler sees them, a bounded number for each reason.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::Level;

use super::client_address;
use super::error::ApiError;
use super::record::word;
use super::response_context::ResponseContext;
use crate::config::Config;
use crate::front::{Head, Peer};
use crate::limits::{MAX_QUOTED, MAX_REFUSAL_LINES, REFUSALS_INTERVAL};
use crate::text::quoted;

/// The counts of each reason; [`ApiError`] bounds their number.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<&'static str, Logged>>);

struct Logged {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Refusals {
    /// Logs the client, the request and the reason: at most [`MAX_REFUSAL_LINES`] for a reason in each [`REFUSALS_INTERVAL`]. The next line after
    /// that says how many were left out.
    pub fn log(
        &self,
        error: &ApiError,
        config: &Config,
        peer: Peer,
        head: Option<&Head>,
        response_context: &ResponseContext,
    ) {
        let (status, reason) = (error.status(), error.reason());
        let Some(left_out) = self.count(reason, Instant::now()) else { return };
        let client = head.map_or(peer, |head| client_address::of(config, head, peer));
        let method = head.map(|head| quoted(head.method(), MAX_QUOTED));
        let path = head.map(|head| quoted(head.path(), MAX_QUOTED));
        let request_id = &*response_context.id;
        let detail = detail(error, response_context);
        log::log!(
            if status >= 500 { Level::Error } else { Level::Warn },
            status, reason, client:% = client, method = method.as_deref(), path = path.as_deref(), request_id, detail, left_out;
            "{status} {reason} client={client} method={} path={} request_id={request_id} detail={} left_out={left_out}",
            method.as_deref().unwrap_or("-"),
            path.as_deref().unwrap_or("-"),
            detail.map_or_else(|| "-".to_owned(), word),
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

/// Details of an error beyond its status and its reason.
fn detail(error: &ApiError, response_context: &ResponseContext) -> Option<&'static str> {
    match error {
        _ if response_context.is_refused_preflight => Some("cors_origins"),
        ApiError::BadRequest(part) => Some(part),
        ApiError::Overloaded(limit) if !limit.is_empty() => Some(limit),
        ApiError::Tls => Some("TLS on a port of plain HTTP"),
        _ => None,
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
