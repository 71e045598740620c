//! The head of a request: grammar and framing, strictly as RFC 9112 has them.

use std::ops::Range;

use super::Rejection;
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_TARGET};

/// Where a scan for the end of a head stands, so that no byte is looked at twice.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scan {
    at: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Looks for the blank line that ends the head which begins at `bytes[0]`; its length when it is there.
    ///
    /// # Errors
    /// A bare CR or LF (RFC 9112 section 2.2), a NUL, a first byte that begins no method, or a head over a limit.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        if bytes.first().is_some_and(|&first| !is_token_byte(first)) {
            return Err(Rejection::Malformed("no method"));
        }
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\r' => match bytes.get(self.at + 1) {
                    Some(b'\n') => {}
                    Some(_) => return Err(Rejection::Malformed("bare CR")),
                    None => break,
                },
                b'\n' => {
                    if self.at == 0 || bytes[self.at - 1] != b'\r' {
                        return Err(Rejection::Malformed("bare LF"));
                    }
                    if self.at - self.line_start == 1 {
                        return Ok(Some(self.at + 1));
                    }
                    self.line_start = self.at + 1;
                    self.lines += 1;
                }
                0 => return Err(Rejection::Malformed("NUL")),
                _ => {}
            }
            self.at += 1;
            if self.at > MAX_HEAD {
                return Err(self.too_large());
            }
        }
        // Room for a method and a version around the longest target: what is over it cannot become a good request line.
        if self.lines == 0 && self.at > MAX_TARGET + 64 {
            return Err(Rejection::UriTooLong);
        }
        Ok(None)
    }

    fn too_large(self) -> Rejection {
        if self.lines == 0 { Rejection::UriTooLong } else { Rejection::HeadTooLarge }
    }
}

/// How the body of a request is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`, more than 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A checked request head. Names and values are borrowed from one copy of its bytes.
#[derive(Debug)]
pub struct Head {
    raw: Box<[u8]>,
    method: Range<usize>,
    target: Range<usize>,
    fields: Vec<Field>,
    /// HTTP/1.0 or 1.1 (any later 1.x counts as 1.1).
    pub minor: u8,
    /// How the body is delimited.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client will take another answer on this connection.
    pub keep_alive: bool,
}

#[derive(Debug, Clone)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Head {
    /// Parses a whole head, blank line included, as [`Scan::find_end`] delimits it.
    ///
    /// # Errors
    /// The status and reason of contract section 5.
    pub fn parse(raw: &[u8]) -> Result<Self, Rejection> {
        let line_end = raw.iter().position(|&byte| byte == b'\r').unwrap_or(raw.len());
        let (method, target, minor) = parse_request_line(&raw[..line_end])?;
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let headers = match httparse::parse_headers(&raw[line_end + 2..], &mut slots) {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Ok(httparse::Status::Partial) => return Err(Rejection::Malformed("header field")),
            Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadTooLarge),
            Err(httparse::Error::HeaderName) => return Err(Rejection::Malformed("header name")),
            Err(_) => return Err(Rejection::Malformed("header value")),
        };
        let meaning = Meaning::of(headers, minor)?;
        let target = strip_authority(raw, target, method.clone())?;
        let fields = headers.iter().map(|header| Field {
            name: span_in(raw, header.name.as_bytes()),
            value: span_in(raw, header.value),
        });
        Ok(Self {
            fields: fields.collect(),
            raw: raw.into(),
            method,
            target,
            minor,
            framing: meaning.framing,
            expects_continue: meaning.expects_continue && meaning.framing != Framing::None,
            keep_alive: meaning.keep_alive,
        })
    }

    /// The method, as it was sent (methods are case-sensitive).
    pub fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// Path and query in origin form, as they were sent; `*` for an asterisk target.
    pub fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// What stands behind the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// All fields in the order they came; values without the white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (self.text(&field.name), &self.raw[field.value.clone()]))
    }

    /// The first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Method, target and names were checked byte by byte to be ASCII.
        std::str::from_utf8(&self.raw[range.clone()]).unwrap_or_default()
    }
}

/// Where `part`, a slice of `whole`, stands in it.
fn span_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    // An empty value may point anywhere.
    if part.is_empty() || start > whole.len() { 0..0 } else { start..start + part.len() }
}

/// RFC 9112 section 3: method SP target SP version, one space each.
fn parse_request_line(line: &[u8]) -> Result<(Range<usize>, Range<usize>, u8), Rejection> {
    let method_end =
        line.iter().position(|&byte| byte == b' ').ok_or(Rejection::Malformed("request line"))?;
    let version_start =
        line.iter().rposition(|&byte| byte == b' ').ok_or(Rejection::Malformed("request line"))? + 1;
    let target = method_end + 1..(version_start - 1).max(method_end + 1);
    if method_end == 0 || !line[..method_end].iter().copied().all(is_token_byte) {
        return Err(Rejection::Malformed("method"));
    }
    if version_start <= method_end + 1 {
        return Err(Rejection::Malformed("request line"));
    }
    if target.len() > MAX_TARGET {
        return Err(Rejection::UriTooLong);
    }
    let bytes = &line[target.clone()];
    if bytes.is_empty() || !bytes.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Rejection::Malformed("request target"));
    }
    Ok((0..method_end, target, parse_version(&line[version_start..])?))
}

fn parse_version(version: &[u8]) -> Result<u8, Rejection> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        // A later minor version is read as the highest known one (RFC 9110 section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Ok(1),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Rejection::VersionNotSupported)
        }
        _ => Err(Rejection::Malformed("HTTP version")),
    }
}

/// RFC 9112 section 3.2: origin form stays; absolute form loses scheme and authority, which take the place of `Host`;
/// the asterisk is for OPTIONS alone; we are no tunnel, so authority form has no meaning here.
fn strip_authority(
    raw: &[u8],
    target: Range<usize>,
    method: Range<usize>,
) -> Result<Range<usize>, Rejection> {
    let bytes = &raw[target.clone()];
    if bytes[0] == b'/' || (bytes == b"*" && &raw[method] == b"OPTIONS") {
        return Ok(target);
    }
    let rest = strip_prefix_ignore_case(bytes, b"http://")
        .or_else(|| strip_prefix_ignore_case(bytes, b"https://"))
        .ok_or(Rejection::Malformed("request target"))?;
    let authority_end = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    if !is_valid_host(&rest[..authority_end]) {
        return Err(Rejection::Malformed("request target"));
    }
    match rest.get(authority_end) {
        Some(b'/') => Ok(target.end - (rest.len() - authority_end)..target.end),
        Some(_) => Err(Rejection::Malformed("request target without a path")),
        // `http://host` names the root: any slash of the target is as good as the one that is not there.
        None => {
            let slash = target.start + bytes.iter().position(|&byte| byte == b'/').unwrap_or(0);
            Ok(slash..slash + 1)
        }
    }
}

fn strip_prefix_ignore_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What the fields say about the message and the connection.
struct Meaning {
    framing: Framing,
    expects_continue: bool,
    keep_alive: bool,
}

impl Meaning {
    fn of(headers: &[httparse::Header<'_>], minor: u8) -> Result<Self, Rejection> {
        let mut length: Option<u64> = None;
        let mut coding: Option<Coding> = None;
        let mut hosts = 0;
        let mut expect = None;
        let mut close = false;
        let mut keep_alive = false;
        for header in headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                let value = parse_length(header.value)?;
                if length.is_some_and(|other| other != value) {
                    return Err(Rejection::Malformed("several Content-Length"));
                }
                length = Some(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                coding = Some(Coding::of(header.value, coding)?);
            } else if name.eq_ignore_ascii_case("host") {
                hosts += 1;
                if hosts > 1 || !is_valid_host(header.value) {
                    return Err(Rejection::Malformed("Host"));
                }
            } else if name.eq_ignore_ascii_case("expect") {
                expect = Some(header.value);
            } else if name.eq_ignore_ascii_case("connection") {
                for option in list(header.value) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        if hosts == 0 && minor >= 1 {
            return Err(Rejection::Malformed("Host"));
        }
        Ok(Self {
            framing: framing(length, coding, minor)?,
            expects_continue: expects_continue(expect, minor)?,
            keep_alive: !close && (minor >= 1 || keep_alive),
        })
    }
}

/// RFC 9110 section 10.1.1; a 1.0 client's expectation is ignored.
fn expects_continue(expect: Option<&[u8]>, minor: u8) -> Result<bool, Rejection> {
    match expect {
        Some(value) if minor >= 1 => {
            if value.eq_ignore_ascii_case(b"100-continue") {
                Ok(true)
            } else {
                Err(Rejection::ExpectationFailed)
            }
        }
        _ => Ok(false),
    }
}

/// One match over (Content-Length, Transfer-Encoding, version): RFC 9112 sections 6.1 and 6.3.
fn framing(length: Option<u64>, coding: Option<Coding>, minor: u8) -> Result<Framing, Rejection> {
    match (length, coding, minor) {
        (Some(_), Some(_), _) => Err(Rejection::Malformed("both Content-Length and Transfer-Encoding")),
        (None, Some(_), 0) => Err(Rejection::Malformed("Transfer-Encoding in HTTP/1.0")),
        (None, Some(Coding::Chunked), _) => Ok(Framing::Chunked),
        (None, Some(Coding::Unknown), _) => Err(Rejection::UnknownCoding),
        (None | Some(0), None, _) => Ok(Framing::None),
        (Some(length), None, _) => Ok(Framing::Length(length)),
    }
}

/// What a `Transfer-Encoding` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Anything but `chunked` alone.
    Unknown,
}

impl Coding {
    /// Adds one field line to what earlier lines said.
    fn of(value: &[u8], before: Option<Self>) -> Result<Self, Rejection> {
        let mut coding = before;
        for name in list(value) {
            coding = Some(match (coding, name.eq_ignore_ascii_case(b"chunked")) {
                (None, true) => Self::Chunked,
                // `chunked` may stand only once, and nothing may follow it.
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

/// Digits alone (RFC 9110 section 8.6); a number too large for 64 bits is over any limit, not malformed.
fn parse_length(value: &[u8]) -> Result<u64, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::Malformed("Content-Length"));
    }
    Ok(value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), not empty.
fn is_valid_host(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], &value[colon + 1..]),
        _ => (value, &b""[..]),
    };
    let inner = match host {
        [b'[', inner @ .., b']'] => inner,
        plain if plain.contains(&b':') => return false,
        plain => plain,
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:!$&'()*+,;=".contains(&byte);
    !inner.is_empty()
        && inner.iter().copied().all(is_host_byte)
        && port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
