//! Client tokens: who calls, and how much they may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Token};
use crate::front::{Head, Peer};

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// No token was sent.
    Missing,
    /// The token sent is none of ours.
    Invalid,
}

/// The caller's token: its place in `config.tokens`.
///
/// The first that is present of `Authorization`, `x-api-key` and `api-key` counts, so that a wrong one is not made
/// good by another.
///
/// # Errors
/// [`Denial`].
pub fn identify(config: &Config, head: &Head) -> Result<usize, Denial> {
    let sent = match head.field("authorization") {
        Some(value) => bearer(value).ok_or(Denial::Invalid)?,
        None => head.field("x-api-key").or_else(|| head.field("api-key")).ok_or(Denial::Missing)?,
    };
    let mut found = None;
    // To the end of the list, whatever is met: the time taken tells nothing of the tokens.
    for (index, token) in config.tokens.iter().enumerate() {
        if same(token.token.expose().as_bytes(), sent) {
            found = Some(index);
        }
    }
    found.ok_or(Denial::Invalid)
}

/// Whether the caller sent any token.
pub fn is_presented(head: &Head) -> bool {
    ["authorization", "x-api-key", "api-key"].iter().any(|name| head.field(name).is_some())
}

/// Whether the caller may administrate: on this machine and not through a proxy, or with any valid token. A browser on
/// this machine that another site's page has sent here is not the operator.
pub fn is_admin(config: &Config, head: &Head, peer: Peer) -> bool {
    let forwarded = head.field("x-forwarded-for").is_some() || head.field("forwarded").is_some();
    (peer.is_local() && !forwarded && !is_foreign(head)) || identify(config, head).is_ok()
}

/// Whether a page of another origin made the request (Fetch standard, section 3.1).
fn is_foreign(head: &Head) -> bool {
    let Some(origin) = head.field("origin") else { return false };
    let own = head.field("host").unwrap_or_default();
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(own))
}

/// RFC 6750 section 2.1; the scheme in any case (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii_start())
}

/// Compares in a time that depends on the lengths alone.
fn same(ours: &[u8], sent: &[u8]) -> bool {
    let difference = ours.iter().zip(sent).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    ours.len() == sent.len() && difference == 0
}

/// What each token has used of its limits. It survives a reload.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<String, Used>>);

#[derive(Debug, Clone, Copy)]
struct Used {
    /// When the next request would be due if all came evenly: a request is let in up to a minute's worth ahead of it.
    due: Instant,
    parallel: u32,
}

/// The right to one request; the place among the parallel ones is free again when it is dropped.
#[derive(Debug)]
pub struct Permit(Option<(Arc<Quotas>, String)>);

impl Quotas {
    /// Lets a request in, or says after how long the next one may be.
    ///
    /// # Errors
    /// How long to wait, for `Retry-After`. A refused request uses up nothing.
    pub fn admit(self: &Arc<Self>, token: &Token, now: Instant) -> Result<Permit, Duration> {
        if token.rpm.is_none() && token.max_parallel.is_none() {
            return Ok(Permit(None));
        }
        let key = token.token.expose().to_owned();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry(key.clone()).or_insert(Used { due: now, parallel: 0 });
        if token.max_parallel.is_some_and(|max| used.parallel >= max) {
            return Err(Duration::from_secs(1));
        }
        if let Some(rpm) = token.rpm {
            let minute = Duration::from_secs(60);
            let next = used.due.max(now) + minute / rpm;
            if let Some(early) = next.checked_duration_since(now + minute).filter(|early| !early.is_zero()) {
                return Err(early);
            }
            used.due = next;
        }
        used.parallel += 1;
        Ok(Permit(Some((Arc::clone(self), key))))
    }

    /// Forgets tokens that are no longer there.
    pub fn retain(&self, config: &Config) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, used| {
            used.parallel > 0 || config.tokens.iter().any(|token| token.token.expose() == key)
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((quotas, key)) = &self.0 {
            let mut all = quotas.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(used) = all.get_mut(key) {
                used.parallel -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Quotas, bearer, same};
    use crate::config::{Secret, Token};

    fn token(rpm: Option<u32>, max_parallel: Option<u32>) -> Token {
        Token { name: "t".into(), token: Secret::new("sk-t".into()), models: None, rpm, max_parallel }
    }

    #[test]
    fn bearer_in_any_case_and_nothing_else() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER   abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
        assert_eq!(bearer(b""), None);
    }

    #[test]
    fn same_means_equal_in_length_and_bytes() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
        assert!(!same(b"ab", b"abc"));
        assert!(!same(b"abc", b""));
    }

    #[test]
    fn a_minute_holds_rpm_requests_and_the_next_is_told_when_to_come() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(Some(3), None), Instant::now());
        for _ in 0..3 {
            assert!(quotas.admit(&token, now).is_ok());
        }
        assert_eq!(quotas.admit(&token, now).err(), Some(Duration::from_secs(20)));
        assert_eq!(quotas.admit(&token, now).err(), Some(Duration::from_secs(20)), "a refusal costs nothing");
        assert!(quotas.admit(&token, now + Duration::from_secs(20)).is_ok());
    }

    #[test]
    fn parallel_places_are_given_back_by_dropping() {
        let quotas = Arc::new(Quotas::default());
        let (token, now) = (token(None, Some(2)), Instant::now());
        let first = quotas.admit(&token, now);
        let _second = quotas.admit(&token, now);
        assert!(quotas.admit(&token, now).is_err());
        drop(first);
        assert!(quotas.admit(&token, now).is_ok());
    }
}
