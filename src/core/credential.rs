//! Client tokens: each as plain text or as its SHA-256 (then the file does not contain the token), and the search for the one
//! that a request carries.

use std::fmt;

use ring::digest;
use subtle::{Choice, ConstantTimeEq};

use super::request_head::Head;
use super::secret::Secret;

/// The prefix of the hexadecimal digits in the file.
const PREFIX: &str = "sha256:";

/// A client's token as the file gives it. `Debug` shows what [`Secret`] shows, and nothing of a digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    digest: [u8; 32],
    plain: Option<Secret>,
}

impl Credential {
    /// Parses a token of the file; `None`: no 64 hexadecimal digits follow `sha256:`.
    pub fn read(text: Secret) -> Option<Self> {
        let (prefix, digits) = text.expose().split_at_checked(PREFIX.len()).unwrap_or_default();
        if prefix.eq_ignore_ascii_case(PREFIX) {
            return Some(Self { digest: bytes_of(digits)?, plain: None });
        }
        Some(Self { digest: sha256(text.expose().as_bytes()), plain: Some(text) })
    }

    /// The token itself, where the file holds it.
    pub fn plain(&self) -> Option<&Secret> {
        self.plain.as_ref()
    }

    /// Its SHA-256.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plain {
            Some(secret) => secret.fmt(formatter),
            None => formatter.write_str("sha256:***"),
        }
    }
}

/// The SHA-256 of what a client sent.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(bytes)
}

/// Why a caller is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// No token was sent.
    Missing,
    /// The token sent is unknown.
    Invalid,
    /// The header that holds the token came more than once: another reader could take another one.
    Repeated,
}

/// Header fields that may hold a token, in the order in which they count.
const CREDENTIALS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// The caller's token: its place among `tokens`.
///
/// The first of `Authorization`, `x-api-key` and `api-key` that is present counts: a right token does not make up for a
/// wrong one before it.
///
/// # Errors
/// [`Denial`].
pub fn identify<'a>(tokens: impl Iterator<Item = &'a Credential>, head: &Head) -> Result<usize, Denial> {
    let sent = presented(head)?.ok_or(Denial::Missing)?;
    let mut found = None;
    let mut digest = None;
    // The whole list in any case, so that the time taken reveals nothing about the tokens.
    for (index, token) in tokens.enumerate() {
        // A hash is never compared with the bytes sent: it is no token.
        let is_sent = match token.plain() {
            Some(plain) => same(plain.expose().as_bytes(), sent),
            None => same(token.digest(), digest.get_or_insert_with(|| sha256(sent))),
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
    for (sent, name) in sent.iter_mut().zip(CREDENTIALS) {
        let mut values = head.values(name);
        *sent = values.next();
        if values.next().is_some() {
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
    CREDENTIALS.iter().any(|name| head.field(name).is_some())
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
        let few = || bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        bytes.try_into().map_or_else(|_| few(), u64::from_be_bytes)
    };
    let words = ours.chunks(WORD).zip(sent.chunks(WORD));
    let equal = words.fold(Choice::from(1), |equal, (ours, sent)| equal & word(ours).ct_eq(&word(sent)));
    ours.len() == sent.len() && equal.into()
}

#[cfg(test)]
mod tests {
    use super::{Credential, bearer, same, sha256};
    use crate::core::secret::Secret;

    fn read(text: &str) -> Option<Credential> {
        Credential::read(Secret::new(text.to_owned()))
    }

    #[test]
    fn a_token_and_its_hash_are_the_same_credential_to_whoever_compares_digests() {
        // FIPS 180-4's example, as `printf abc | sha256sum` gives it.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for text in [format!("sha256:{hash}"), format!("SHA256:{}", hash.to_uppercase())] {
            let hashed = read(&text).expect("a hash");
            assert_eq!((hashed.plain(), hashed.digest()), (None, &sha256(b"abc")));
        }
        let plain = read("abc").expect("a token");
        assert_eq!(plain.digest(), &sha256(b"abc"));
        assert_eq!(plain.plain().map(Secret::expose), Some("abc"));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_what_claims_to_be_none_is_a_token() {
        let digits = "0123456789abcdef".repeat(4);
        for bad in [
            "",
            "0",
            &digits[1..],
            &format!("{digits}0"),
            &format!("{}g", &digits[1..]),
            &format!(" {}", &digits[1..]),
        ] {
            assert_eq!(read(&format!("sha256:{bad}")), None, "{bad}");
        }
        for token in ["sha256", "sha512:0", "sk-sha256:0", "é", "令牌令牌令牌"] {
            assert!(read(token).is_some_and(|credential| credential.plain().is_some()), "{token}");
        }
    }

    #[test]
    fn debug_shows_neither() {
        let hash = format!("sha256:{}", "a".repeat(64));
        assert_eq!(format!("{:?}", read(&hash).expect("a hash")), "sha256:***");
        assert_eq!(format!("{:?}", read("sk-secret-token-0").expect("a token")), "sk-***-0");
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
