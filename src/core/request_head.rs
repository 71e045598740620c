//! The head of a request: grammar and framing, strictly according to RFC 9112.

use std::fmt;
use std::ops::Range;

use super::Rejection;
use super::framing::{Framing, FramingFields};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_TARGET};

/// Longest request line, bytes: room for a method and a version around the longest target.
const MAX_REQUEST_LINE: usize = MAX_TARGET + 64;

/// Fields of most requests: to set up room for [`MAX_HEADERS`] costs more than to parse these.
const USUAL_HEADERS: usize = 20;
/// The first two bytes of a TLS handshake (RFC 8446 section 5.1): its record type, and the major version of every record.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 3;

/// State of a scan for the end of a head, so that no byte is scanned twice.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scan {
    at: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Looks for the blank line that ends the head at the start of `bytes`; the length of the head, if it is complete.
    ///
    /// # Errors
    /// A bare CR or LF (RFC 9112 section 2.2), a NUL, a first byte that cannot begin a method, a TLS handshake, or a head over a limit.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        match bytes {
            [TLS_HANDSHAKE] => return Ok(None),
            [TLS_HANDSHAKE, TLS_MAJOR, ..] => return Err(Rejection::Tls),
            [first, ..] if !is_token_byte(*first) => return Err(Rejection::Malformed("no method")),
            _ => {}
        }
        loop {
            let unseen = &bytes[self.at..bytes.len().min(MAX_HEAD)];
            let Some(found) = memchr::memchr3(b'\r', b'\n', 0, unseen) else {
                self.at += unseen.len();
                break;
            };
            self.at += found;
            match (bytes[self.at], bytes.get(self.at + 1)) {
                (b'\r', Some(b'\n')) if self.at + 1 == MAX_HEAD => {}
                (b'\r', None) => break,
                (b'\r', Some(b'\n')) => {
                    self.at += 1;
                    if self.at - self.line_start == 1 {
                        return Ok(Some(self.at + 1));
                    }
                    // The same limit as below, so that a line in pieces gets the same result as one in one piece.
                    if self.lines == 0 && self.at > MAX_REQUEST_LINE + 1 {
                        return Err(Rejection::UriTooLong);
                    }
                    self.line_start = self.at + 1;
                    self.lines += 1;
                }
                (b'\r', Some(_)) => return Err(Rejection::Malformed("bare CR")),
                (b'\n', _) => return Err(Rejection::Malformed("bare LF")),
                _ => return Err(Rejection::Malformed("NUL")),
            }
            self.at += 1;
        }
        if bytes.len() > MAX_HEAD && self.at == MAX_HEAD {
            return Err(self.too_large());
        }
        if self.lines == 0 && self.at > MAX_REQUEST_LINE {
            return Err(Rejection::UriTooLong);
        }
        Ok(None)
    }

    fn too_large(self) -> Rejection {
        if self.lines == 0 { Rejection::UriTooLong } else { Rejection::HeadTooLarge }
    }
}

/// A checked request head. Names and values are borrowed from one copy of its bytes.
pub struct Head {
    /// The head; where it is not UTF-8, with `?` for each byte that is not ASCII. Method, target and the names of fields are ASCII.
    text: String,
    /// The unchanged head, where `text` differs from it.
    raw: Option<Box<[u8]>>,
    /// Ranges of `text`.
    method: Range<usize>,
    target: Range<usize>,
    /// Where the path ends in `text`.
    path_end: usize,
    fields: Vec<Field>,
    minor: u8,
    framing: Framing,
    expects_continue: bool,
    keep_alive: bool,
}

#[derive(Debug, Clone)]
struct Field {
    /// Where its name stands in `text`.
    name: Range<usize>,
    /// Where its value stands in the unchanged head.
    value: Range<usize>,
}

impl Head {
    /// Bytes in memory.
    pub fn size(&self) -> usize {
        let raw = self.raw.as_ref().map_or(0, |raw| raw.len());
        raw + self.text.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Parses a complete head, blank line included, as [`Scan::find_end`] delimits it.
    ///
    /// # Errors
    /// The status and reason.
    pub fn parse(raw: &[u8]) -> Result<Self, Rejection> {
        let line_end = raw.iter().position(|&byte| byte == b'\r').unwrap_or(raw.len());
        let (method, target, minor) = parse_request_line(&raw[..line_end])?;
        let (mut few, mut many);
        few = [httparse::EMPTY_HEADER; USUAL_HEADERS];
        let mut parsed = httparse::parse_headers(&raw[line_end + 2..], &mut few);
        if matches!(parsed, Err(httparse::Error::TooManyHeaders)) {
            many = [httparse::EMPTY_HEADER; MAX_HEADERS];
            parsed = httparse::parse_headers(&raw[line_end + 2..], &mut many);
        }
        let headers = match parsed {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Ok(httparse::Status::Partial) => return Err(Rejection::Malformed("header field")),
            Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadTooLarge),
            Err(httparse::Error::HeaderName) => return Err(Rejection::Malformed("header name")),
            Err(_) => return Err(Rejection::Malformed("header value")),
        };
        let meaning = Meaning::of(headers, minor)?;
        let sent = target.start;
        let target = strip_authority(raw, target, method.clone())?;
        let mut bytes = raw.to_vec();
        if target.start != sent {
            // The first byte left of an absolute form becomes the slash.
            bytes[target.start] = b'/';
        }
        let field = |header: &httparse::Header<'_>| Field {
            name: span_in(raw, header.name.as_bytes()),
            value: span_in(raw, header.value),
        };
        let fields = headers.iter().map(field).collect();
        let (text, raw) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => (ascii_of(error.as_bytes()), Some(raw.into())),
        };
        Ok(Self {
            fields,
            raw,
            path_end: end_of_path(&text, &target),
            text,
            method,
            target,
            minor,
            framing: meaning.framing,
            expects_continue: meaning.expects_continue && meaning.framing != Framing::None,
            keep_alive: meaning.keep_alive,
        })
    }

    /// The minor version of HTTP/1: 0 or 1 (any later one counts as 1).
    pub fn minor(&self) -> u8 {
        self.minor
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the client takes another response on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The method, as it was sent (methods are case-sensitive).
    pub fn method(&self) -> &str {
        &self.text[self.method.clone()]
    }

    /// Path and query in origin form, as they were sent; `*` for an asterisk target.
    pub fn target(&self) -> &str {
        &self.text[self.target.clone()]
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        &self.text[self.target.start..self.path_end]
    }

    /// Replaces the path; the query stays. `false`: `path` cannot be one in a request line, and nothing has changed.
    pub fn set_path(&mut self, path: &str) -> bool {
        let may_stand = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        if !path.starts_with('/') || !path.bytes().all(may_stand) {
            return false;
        }
        let mut target = path.to_owned();
        if let Some(query) = self.query() {
            target.push('?');
            target.push_str(query);
        }
        let start = self.text.len();
        self.text.push_str(&target);
        self.target = start..self.text.len();
        self.path_end = end_of_path(&self.text, &self.target);
        true
    }

    /// The text after the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// All fields in their order; values without the white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| self.name_and_value(field))
    }

    /// The fields whose names have so many bytes.
    pub fn fields_of_length(&self, length: usize) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
        let of_length = self.fields.iter().filter(move |field| field.name.len() == length);
        of_length.map(|field| self.name_and_value(field))
    }

    /// The values of the fields of that name, in any case.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let same_length = self.fields_of_length(name.len());
        same_length.filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn name_and_value(&self, field: &Field) -> (&str, &[u8]) {
        let raw = self.raw.as_deref().unwrap_or(self.text.as_bytes());
        (&self.text[field.name.clone()], &raw[field.value.clone()])
    }
}

/// Shows neither query nor fields: they may contain secrets.
impl fmt::Debug for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({} fields)", self.method(), self.path(), self.fields.len())
    }
}

/// The bytes as text of the same length, with `?` for each that is not ASCII.
fn ascii_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
}

/// Where the path of a target ends: at its first `?`.
fn end_of_path(text: &str, target: &Range<usize>) -> usize {
    memchr::memchr(b'?', text[target.clone()].as_bytes()).map_or(target.end, |at| target.start + at)
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

/// RFC 9112 section 3.2: origin form stays; absolute form loses scheme and authority, and the authority replaces `Host`;
/// the asterisk is for OPTIONS alone; authority form is refused, because ai-proxy is no tunnel. Where there is no path, the
/// span begins with the byte that has to become its slash.
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
        // `http://host?query` names the root: its slash takes the place of the host's last byte.
        _ => Ok(target.end - (rest.len() - authority_end) - 1..target.end),
    }
}

fn strip_prefix_ignore_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The meaning of the fields for the message and the connection.
struct Meaning {
    framing: Framing,
    expects_continue: bool,
    keep_alive: bool,
}

impl Meaning {
    fn of(headers: &[httparse::Header<'_>], minor: u8) -> Result<Self, Rejection> {
        let mut fields = FramingFields::default();
        let mut hosts = 0;
        let mut expects_continue = false;
        for header in headers {
            if fields.read(header.name, header.value)? {
                continue;
            }
            if header.name.eq_ignore_ascii_case("host") {
                hosts += 1;
                if hosts > 1 || !is_valid_host(header.value) {
                    return Err(Rejection::Malformed("Host"));
                }
            } else if header.name.eq_ignore_ascii_case("expect") {
                expects_continue |= expects_continue_by(header.value, minor)?;
            }
        }
        if hosts == 0 && minor >= 1 {
            return Err(Rejection::Malformed("Host"));
        }
        let framing = match fields.framing(minor)? {
            None | Some(Framing::Length(0)) => Framing::None,
            Some(framing) => framing,
        };
        Ok(Self { framing, expects_continue, keep_alive: fields.keeps_alive(minor) })
    }
}

/// RFC 9110 section 10.1.1; a 1.0 client's expectation is ignored.
fn expects_continue_by(value: &[u8], minor: u8) -> Result<bool, Rejection> {
    match (minor, value.eq_ignore_ascii_case(b"100-continue")) {
        (0, _) => Ok(false),
        (_, true) => Ok(true),
        (_, false) => Err(Rejection::ExpectationFailed),
    }
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
    let is_host_byte = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'!' | b'$' | b'&'..=b',' | b';' | b'=')
    };
    let is_hex = |at: usize| inner.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_good =
        |(at, &byte): (usize, &u8)| is_host_byte(byte) || (byte == b'%' && is_hex(at + 1) && is_hex(at + 2));
    !inner.is_empty() && inner.iter().enumerate().all(is_good) && is_valid_port(port)
}

/// Whether it is empty or a valid port number.
fn is_valid_port(port: &[u8]) -> bool {
    let number = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    port.iter().all(u8::is_ascii_digit) && port.iter().fold(0, number) <= u32::from(u16::MAX)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{Framing, Head, Scan};
    use crate::core::Rejection;
    use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_TARGET};

    /// Scans and parses as a connection does, in steps of `step` bytes; `None`: more is needed.
    fn read(bytes: &[u8], step: usize) -> Result<Option<Head>, Rejection> {
        let mut scan = Scan::default();
        for end in (step..bytes.len()).step_by(step).chain([bytes.len()]) {
            if let Some(end) = scan.find_end(&bytes[..end])? {
                return Head::parse(&bytes[..end]).map(Some);
            }
        }
        Ok(None)
    }

    fn accepted(text: &str) -> Head {
        read(text.as_bytes(), text.len()).expect("a good head").expect("a whole head")
    }

    fn refused(bytes: &[u8]) -> Rejection {
        let rejection = read(bytes, bytes.len()).expect_err("a bad head");
        assert_eq!(
            read(bytes, 1).err(),
            Some(rejection),
            "byte by byte: {:?}",
            String::from_utf8_lossy(bytes)
        );
        rejection
    }

    #[test]
    fn a_good_head_is_read_to_the_letter() {
        let head = accepted(
            "POST /v1/x?a=b HTTP/1.1\r\nHost: h:80\r\nX-A:  v \t\r\nContent-Length: 5\r\nx-a:\r\n\r\n",
        );
        assert_eq!(
            (head.method(), head.target(), head.path(), head.query()),
            ("POST", "/v1/x?a=b", "/v1/x", Some("a=b"))
        );
        let fields: Vec<(&str, &[u8])> = head.fields().collect();
        assert_eq!(fields, [("Host", &b"h:80"[..]), ("X-A", b"v"), ("Content-Length", b"5"), ("x-a", b"")]);
        assert_eq!(head.field("x-a"), Some(&b"v"[..]));
        assert_eq!((head.framing, head.keep_alive, head.minor), (Framing::Length(5), true, 1));
    }

    #[test]
    fn no_truncation_is_a_head_or_an_error_and_every_split_reads_the_same() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(read(&text[..end], 1), Ok(None)), "cut at {end}");
        }
        for step in 1..=text.len() {
            let head = read(text, step).expect("good").expect("whole");
            assert_eq!(head.framing, Framing::Chunked, "step {step}");
        }
    }

    #[test]
    fn malformed_heads_are_refused_with_the_part_that_is_wrong() {
        for (request, part) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", "bare LF"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "bare LF"),
            ("GET / HTTP/1.1\rHost: a\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "bare CR"),
            ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", "NUL"),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no method"),
            ("\x16\x02\x01\x02", "no method"),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "method"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "request target"),
            ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "method"),
            ("GET /\r\n\r\n", "request line"),
            ("GET / \r\nHost: a\r\n\r\n", "HTTP version"),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", "HTTP version"),
            ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", "HTTP version"),
            ("GET\r\n\r\n", "request line"),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "request target"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "header name"),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "header name"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "header name"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", "header value"),
            ("GET / HTTP/1.1\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", "Host"),
        ] {
            assert_eq!(refused(request.as_bytes()), Rejection::Malformed(part), "{request:?}");
        }
    }

    /// Each pair of framing fields that request smuggling is made of (RFC 9112 section 11.2).
    #[test]
    fn framing_is_decided_strictly() {
        let framing = |fields: &str, version: &str| {
            let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
            read(text.as_bytes(), text.len()).map(|head| head.map(|head| head.framing))
        };
        for (fields, expected) in [
            ("X: y", Framing::None),
            ("Content-Length: 0", Framing::None),
            ("Content-Length: 7", Framing::Length(7)),
            ("Content-Length: 007", Framing::Length(7)),
            ("Content-Length: 7\r\nContent-Length: 7", Framing::Length(7)),
            ("Content-Length: 99999999999999999999999", Framing::Length(u64::MAX)),
            ("Transfer-Encoding: Chunked", Framing::Chunked),
        ] {
            assert_eq!(framing(fields, "1.1"), Ok(Some(expected)), "{fields}");
        }
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 1 2",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 1_0",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding:",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        ] {
            assert!(matches!(framing(fields, "1.1"), Err(Rejection::Malformed(_))), "{fields}");
        }
        for fields in
            ["Transfer-Encoding: gzip", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked"]
        {
            let expected = Err(Rejection::UnknownCoding);
            assert!(
                matches!(framing(fields, "1.1"), e if e == expected || matches!(e, Err(Rejection::Malformed(_))))
            );
        }
        assert_eq!(framing("Transfer-Encoding: gzip", "1.1"), Err(Rejection::UnknownCoding));
        assert!(matches!(framing("Transfer-Encoding: chunked", "1.0"), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn versions_expectations_and_persistence() {
        let head = |line: &str, fields: &str| {
            let text = format!("{line}\r\nHost: a\r\n{fields}\r\n");
            read(text.as_bytes(), text.len()).map(|head| head.expect("whole"))
        };
        assert_eq!(head("GET / HTTP/2.0", "").err(), Some(Rejection::VersionNotSupported));
        assert_eq!(head("PRI * HTTP/2.0", "").err(), Some(Rejection::VersionNotSupported));
        assert_eq!(head("GET / HTTP/1.7", "").map(|head| head.minor), Ok(1));
        assert_eq!(head("GET / HTTP/1.1", "Expect: nonsense\r\n").err(), Some(Rejection::ExpectationFailed));
        assert!(head("GET / HTTP/1.0", "Expect: nonsense\r\n").is_ok());
        let with_body =
            head("POST / HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n").expect("good");
        assert!(with_body.expects_continue);
        for (line, fields, keep_alive) in [
            ("GET / HTTP/1.1", "", true),
            ("GET / HTTP/1.1", "Connection: x, Close\r\n", false),
            ("GET / HTTP/1.0", "", false),
            ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            assert_eq!(head(line, fields).expect("good").keep_alive, keep_alive, "{line} {fields}");
        }
    }

    #[test]
    fn targets_in_all_forms() {
        for (target, origin) in [
            ("/", "/"),
            ("//x", "//x"),
            ("/a%2Fb?c?d", "/a%2Fb?c?d"),
            ("http://h/a?b", "/a?b"),
            ("HTTPS://h:1/", "/"),
            ("http://h", "/"),
            ("http://h*", "/"),
            ("http://h?a", "/?a"),
            ("http://[::1]:80/x", "/x"),
        ] {
            assert_eq!(accepted(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).target(), origin);
        }
        assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target(), "*");
        for host in ["a", "a.b-c:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "a_b"] {
            accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        }
    }

    #[test]
    fn limits_are_met_exactly() {
        let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1));
        assert_eq!(accepted(&target(MAX_TARGET)).target().len(), MAX_TARGET);
        assert_eq!(refused(target(MAX_TARGET + 1).as_bytes()), Rejection::UriTooLong);
        assert_eq!(refused("a".repeat(MAX_HEAD).as_bytes()), Rejection::UriTooLong, "without an end");
        let fields =
            |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        accepted(&fields(MAX_HEADERS));
        assert_eq!(refused(fields(MAX_HEADERS + 1).as_bytes()), Rejection::HeadTooLarge);
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let head = |size: usize| format!("{start}{}\r\n\r\n", "y".repeat(size - start.len() - 4));
        accepted(&head(MAX_HEAD));
        assert_eq!(refused(head(MAX_HEAD + 1).as_bytes()), Rejection::HeadTooLarge);
    }

    #[test]
    fn random_and_damaged_heads_never_panic() {
        let good =
            b"POST http://h/v1?x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).unwrap_or(0) % bytes.len();
                bytes[at] = random().to_le_bytes()[0];
            }
            let whole = read(&bytes, bytes.len());
            let split = read(&bytes, 7);
            assert_eq!(whole.is_ok(), split.is_ok(), "{bytes:?}");
        }
    }
    #[test]
    fn fields_are_as_they_came_in_a_head_that_is_no_utf8() {
        let raw =
            b"GET http://h?q=1 HTTP/1.1\r\nHost: a\r\nX-A: \xe9t\xe9\r\nx-a: \xc3\xa9\r\nX-Ab: z\r\n\r\n";
        let mut head = read(raw, raw.len()).expect("a good head").expect("a whole head");
        let fields: Vec<(&str, &[u8])> = head.fields().collect();
        let sent: [(&str, &[u8]); 4] =
            [("Host", b"a"), ("X-A", b"\xe9t\xe9"), ("x-a", b"\xc3\xa9"), ("X-Ab", b"z")];
        assert_eq!(fields, sent);
        assert_eq!(head.values("X-a").collect::<Vec<_>>(), [&b"\xe9t\xe9"[..], b"\xc3\xa9"]);
        assert_eq!(head.fields_of_length(4).map(|(name, _)| name).collect::<Vec<_>>(), ["Host", "X-Ab"]);
        assert_eq!((head.method(), head.target(), head.path()), ("GET", "/?q=1", "/"));
        assert!(head.set_path("/v1/models"));
        assert_eq!((head.target(), head.field("x-ab")), ("/v1/models?q=1", Some(&b"z"[..])));
    }

    #[test]
    fn set_path_keeps_the_query_and_refuses_what_is_no_path() {
        let mut head = Head::parse(b"GET /a?b=%3F?c HTTP/1.1\r\nHost: a\r\n\r\n").expect("a good head");
        for bad in ["", "x", "/x y", "/x\r\n", "/x?y", "/x#y", "/\u{e9}", "/x\0"] {
            assert!(!head.set_path(bad), "{bad:?}");
            assert_eq!(head.target(), "/a?b=%3F?c");
        }
        assert!(head.set_path("/v1/a%20b"));
        assert_eq!(
            (head.target(), head.path(), head.query()),
            ("/v1/a%20b?b=%3F?c", "/v1/a%20b", Some("b=%3F?c"))
        );
    }
}
