//! Client tokens: who calls, and how much they may.

pub mod quota;

pub use quota::{Permit, Quotas};

use subtle::{Choice, ConstantTimeEq};

use crate::config::{Config, sha256};
use crate::front::{Head, Peer};

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// No token was sent.
    Missing,
    /// The token sent is none of ours.
    Invalid,
    /// The header that holds the token came more than once: another reader could take another one.
    Repeated,
}

/// Header fields that may hold a token, in the order in which they count.
const CREDENTIALS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Header fields that a proxy in front adds (those that begin with `x-forwarded-` aside).
const SIGNS_OF_A_PROXY: &[&str] = &["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];

/// The caller's token: its place in `config.tokens`.
///
/// The first that is present of `Authorization`, `x-api-key` and `api-key` counts, so that a wrong one is not made
/// good by another.
///
/// # Errors
/// [`Denial`].
pub fn identify(config: &Config, head: &Head) -> Result<usize, Denial> {
    let sent = presented(head)?.ok_or(Denial::Missing)?;
    let mut found = None;
    let mut digest = None;
    // To the end of the list, whatever is met: the time taken tells nothing of the tokens.
    for (index, token) in config.tokens.iter().enumerate() {
        // A hash is never compared with what was sent: it is no token.
        let is_sent = match token.token.plain() {
            Some(plain) => same(plain.expose().as_bytes(), sent),
            None => same(token.token.digest(), digest.get_or_insert_with(|| sha256(sent))),
        };
        if is_sent {
            found = Some(index);
        }
    }
    found.ok_or(Denial::Invalid)
}

/// The token that the caller sent, if any.
///
/// # Errors
/// [`Denial::Repeated`]; [`Denial::Invalid`]: `Authorization` is no `Bearer`.
fn presented(head: &Head) -> Result<Option<&[u8]>, Denial> {
    let mut sent: [Option<&[u8]>; CREDENTIALS.len()] = Default::default();
    for (name, value) in head.fields() {
        let Some(place) = CREDENTIALS.iter().position(|it| it.eq_ignore_ascii_case(name)) else { continue };
        if sent[place].replace(value).is_some() {
            return Err(Denial::Repeated);
        }
    }
    match sent {
        [Some(value), ..] => bearer(value).ok_or(Denial::Invalid).map(Some),
        [None, x_api_key, api_key] => Ok(x_api_key.or(api_key)),
    }
}

/// Whether the caller sent any token.
pub fn is_presented(head: &Head) -> bool {
    head.fields().any(|(name, _)| CREDENTIALS.iter().any(|it| it.eq_ignore_ascii_case(name)))
}

/// Lets in who may administrate: a caller on this machine and not through a proxy, or one with any valid token. A browser on
/// this machine that another site's page has sent here is not the operator.
///
/// # Errors
/// [`Denial`]; a token that came twice is refused on this machine as well.
pub fn admit_admin(config: &Config, head: &Head, peer: Peer) -> Result<(), Denial> {
    let is_operator = peer.is_local() && !is_proxied(head) && !is_foreign(head);
    match identify(config, head) {
        Ok(_) => Ok(()),
        Err(Denial::Missing | Denial::Invalid) if is_operator => Ok(()),
        Err(denial) => Err(denial),
    }
}

/// Whether a proxy passed the request on.
fn is_proxied(head: &Head) -> bool {
    let start = "x-forwarded-";
    head.fields().any(|(name, _)| {
        SIGNS_OF_A_PROXY.iter().any(|sign| sign.eq_ignore_ascii_case(name))
            || name.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
    })
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

/// Compares in a time that depends on the lengths alone, a word at a time.
fn same(ours: &[u8], sent: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    let word = |bytes: &[u8]| {
        let mut word = [0; WORD];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    let words = ours.chunks(WORD).zip(sent.chunks(WORD));
    let equal = words.fold(Choice::from(1), |equal, (ours, sent)| equal & word(ours).ct_eq(&word(sent)));
    ours.len() == sent.len() && equal.into()
}

#[cfg(test)]
mod tests {
    use super::{bearer, same};

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
        let long = *b"sk-0123456789abcdef-2";
        assert!(same(&long, &long));
        for place in 0..long.len() {
            let mut other = long;
            other[place] ^= 1;
            assert!(!same(&long, &other), "{place}");
            assert!(!same(&long, &long[..place]), "{place}");
        }
        assert!(!same(b"abc", b"ab"));
        assert!(!same(b"ab", b"abc"));
        assert!(!same(b"abc", b""));
    }
}
