//! What a client's token is known by: itself, or its SHA-256 alone, so that the file need not hold it.

use std::fmt;

use ring::digest;

use super::Secret;

/// What stands before the hexadecimal digits in the file.
const PREFIX: &str = "sha256:";

/// A client's token as the file gives it. `Debug` shows what [`Secret`] shows, and nothing of a digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    digest: [u8; 32],
    plain: Option<Secret>,
}

impl Credential {
    /// Reads what stands in the file; `None` where `sha256:` is not followed by 64 hexadecimal digits.
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

#[cfg(test)]
mod tests {
    use super::{Credential, sha256};
    use crate::config::Secret;

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
}
