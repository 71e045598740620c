//! The fields that determine where a message ends and whether its connection stays open. One reader for both sides: clients and
//! providers are held to the same rules.

use super::Rejection;

/// How a body is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`; of a request, more than 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The combined meaning of a message's `Content-Length`, `Transfer-Encoding` and `Connection`.
#[derive(Debug, Default)]
pub struct FramingFields {
    length: Option<u64>,
    is_huge: bool,
    coding: Option<Coding>,
    close: bool,
    keep_alive: bool,
}

impl FramingFields {
    /// Reads a field; returns whether it is one of the three.
    ///
    /// # Errors
    /// A value that two readers could understand in two ways.
    pub fn read(&mut self, name: &str, value: &[u8]) -> Result<bool, Rejection> {
        if name.eq_ignore_ascii_case("content-length") {
            let length = parse_length(value)?;
            self.is_huge |= length.is_none();
            let length = length.unwrap_or(u64::MAX);
            // A repeated length must be equal (RFC 9112 section 6.3).
            if self.length.is_some_and(|other| other != length) {
                return Err(Rejection::Malformed("several Content-Length"));
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.coding = Some(Coding::of(value, self.coding)?);
        } else if name.eq_ignore_ascii_case("connection") {
            for option in list(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// How the body is delimited, where a field says it. [`u64::MAX`] stands for every larger length as well.
    /// One match over (Content-Length, Transfer-Encoding, version): RFC 9112 sections 6.1 and 6.3.
    ///
    /// # Errors
    /// Both fields, chunks in HTTP/1.0, an unknown coding.
    pub fn framing(&self, minor: u8) -> Result<Option<Framing>, Rejection> {
        match (self.length, self.coding, minor) {
            (Some(_), Some(_), _) => Err(Rejection::Malformed("both Content-Length and Transfer-Encoding")),
            (None, Some(_), 0) => Err(Rejection::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, Some(Coding::Chunked), _) => Ok(Some(Framing::Chunked)),
            (None, Some(Coding::Unknown), _) => Err(Rejection::UnknownCoding),
            (length, None, _) => Ok(length.map(Framing::Length)),
        }
    }

    /// Whether a length has more than 64 bits.
    pub fn is_huge(&self) -> bool {
        self.is_huge
    }

    /// Whether the peer keeps the connection (RFC 9112 section 9.3).
    pub fn keeps_alive(&self, minor: u8) -> bool {
        !self.close && (minor >= 1 || self.keep_alive)
    }
}

/// The value of a `Transfer-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Anything but `chunked` alone.
    Unknown,
}

impl Coding {
    /// Combines a field line with the earlier ones.
    fn of(value: &[u8], before: Option<Self>) -> Result<Self, Rejection> {
        let mut coding = before;
        // An empty member is legal, but a reader of the last field alone would see no coding.
        for name in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            coding = Some(match (coding, name.eq_ignore_ascii_case(b"chunked")) {
                (None, true) => Self::Chunked,
                // `chunked` may stand only once, and nothing may follow it.
                _ if name.is_empty() => return Err(Rejection::Malformed("Transfer-Encoding")),
                (Some(Self::Chunked), _) => return Err(Rejection::Malformed("Transfer-Encoding")),
                (None | Some(Self::Unknown), _) => Self::Unknown,
            });
        }
        coding.ok_or(Rejection::Malformed("Transfer-Encoding"))
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), empty ones left out.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Digits alone (RFC 9110 section 8.6); `None`: a number too large for 64 bits, which is over any limit and not malformed.
fn parse_length(value: &[u8]) -> Result<Option<u64>, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::Malformed("Content-Length"));
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    Ok(value.iter().try_fold(0, add))
}
