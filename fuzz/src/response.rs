//! A response as a provider may send it, on a connection: what is made of it does not depend on how it came, and is what a
//! plain reading of the grammar finds; no end of the connection passes for a response's; the connection serves another call
//! only where nothing of this one is left on it.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::Instant;

use ai_proxy::config::{Format, Replica, load};
use ai_proxy::front::Fields;
use ai_proxy::limits::{MAX_UNDELIVERED, MAX_UPSTREAM_HEAD, MAX_UPSTREAM_HEADERS, UPSTREAM_READ_BUFFER};
use ai_proxy::upstream::{
    Call, Collected, Failure, Fault, NoResponse, PendingResponse, Sent, Timeouts, Upstream, UpstreamResponse,
    Whole,
};

use super::{chunked, cut, with_runs};

/// Most runs of one input: so many fill more interim heads than a provider may send.
const MAX_RUNS: usize = 18;
/// Two of them are no head any more.
const RUN_LENGTH: usize = MAX_UPSTREAM_HEAD / 2;
/// What a socket takes at once.
const MOST_AT_ONCE: usize = 4 * UPSTREAM_READ_BUFFER;

/// Reads it whole and in pieces, as a stream is read and as a document is.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let bytes = with_runs(bytes, MAX_RUNS, RUN_LENGTH);
    // Fewer pieces of what is large: cuts at each place are for small inputs.
    let step = if bytes.len() > MAX_UPSTREAM_HEAD { step * 257 } else { step }.min(MOST_AT_ONCE);
    let whole = Run::of(&bytes, MOST_AT_ONCE, Reading::Passing);
    check_plainly(&bytes, &whole);
    let pieces = Run::of(&bytes, step, Reading::Passing);
    // Where more interim responses come than may come, what came with the last of them is not looked at.
    if bytes.len() as u64 > MAX_UNDELIVERED {
        return check_plainly(&bytes, &pieces);
    }
    assert_eq!(whole, pieces, "in pieces of {step}");
    let collected = Run::of(&bytes, step, Reading::Collecting);
    assert_eq!(whole, collected, "collected, in pieces of {step}");
    if bytes.len() <= MOST_AT_ONCE {
        check_whole(&bytes, &whole.outcome);
    }
}

/// What a call made of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The connection was over before the request came.
    Stale,
    /// It is none.
    Refused,
    /// A response, and whether it was whole.
    Response(Head, Vec<u8>, bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Sorted by name; those of one name in their order.
    fields: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
    is_close_delimited: bool,
}

/// How a body is read.
#[derive(Clone, Copy)]
enum Reading {
    /// As it is passed on.
    Passing,
    /// As a document is collected.
    Collecting,
}

/// A call that does not wait, from its request to the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    outcome: Outcome,
    /// All had come, and more was waited for.
    waited: bool,
    /// Another call used its connection.
    was_reused: bool,
}

enum Stage {
    Head(PendingResponse),
    Body(Box<UpstreamResponse>, Head, Whole),
    Over(Outcome),
}

impl Run {
    fn of(bytes: &[u8], step: usize, reading: Reading) -> Self {
        let (mut provider, pending) = call();
        let mut stage = Stage::Head(pending);
        for piece in bytes.chunks(step) {
            let sent = provider.write_all(piece);
            assert!(sent.is_ok() || matches!(stage, Stage::Over(_)), "{sent:?}");
            stage = stage.advance(false, reading);
        }
        let had = stage.payload();
        let waited = !matches!(stage, Stage::Over(_));
        let was_reused = !waited && serves_another(&mut provider);
        if waited {
            provider.shutdown(Shutdown::Write).expect("it can be ended");
            stage = stage.advance(true, reading);
            assert_eq!(stage.payload(), had, "held back");
        }
        let Stage::Over(outcome) = stage else { panic!("waits for what cannot come") };
        assert!(another().is_none(), "a connection that has ended is kept");
        Self { outcome, waited, was_reused }
    }
}

impl Stage {
    /// Advances as far as the bytes that came allow. `ended`: the provider has ended the connection.
    fn advance(mut self, ended: bool, reading: Reading) -> Self {
        match &self {
            Self::Head(pending) => pending.source().set_ready(ended),
            Self::Body(response, ..) => response.source().set_ready(ended),
            Self::Over(_) => {}
        }
        if let Self::Head(mut pending) = self {
            let head = match pending.poll(false, Instant::now()) {
                Ok(None) => return Self::Head(pending),
                Ok(Some(head)) => head,
                Err(no_response) => return Self::Over(refused(no_response)),
            };
            let response = Box::new(pending.into_response(head));
            let head = Head::of(&response);
            self = Self::Body(response, head, Whole::new(usize::MAX));
        }
        let Self::Body(mut response, head, mut whole) = self else { return self };
        let is_whole = match reading {
            Reading::Passing => pass(&mut response, &mut whole.bytes),
            Reading::Collecting => collect(&mut response, &mut whole),
        };
        match is_whole {
            Ok(None) => Self::Body(response, head, whole),
            Ok(Some(())) => Self::Over(Outcome::Response(head, whole.bytes, true)),
            Err(failure) => {
                assert_eq!(failure.fault, Fault::CutOff, "{}", failure.detail);
                Self::Over(Outcome::Response(head, whole.bytes, false))
            }
        }
    }

    fn payload(&self) -> usize {
        match self {
            Self::Body(_, _, Whole { bytes, .. }) | Self::Over(Outcome::Response(_, bytes, _)) => bytes.len(),
            _ => 0,
        }
    }
}

impl Head {
    fn of(response: &UpstreamResponse) -> Self {
        let fields = response.headers.iter();
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_vec()));
        Self {
            status: response.status,
            fields: sorted(fields.collect()),
            length: response.length(),
            is_close_delimited: response.is_close_delimited(),
        }
    }
}

fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// Bytes that are read at once, fewer than arrive at once.
const PIECE: usize = 8 * 1024;

/// As the relay of a stream does it.
fn pass(response: &mut UpstreamResponse, body: &mut Vec<u8>) -> Result<Option<()>, Failure> {
    let mut piece = [0; PIECE];
    loop {
        match response.read(&mut piece, Instant::now())? {
            None => return Ok(None),
            Some(0) => return Ok(Some(())),
            Some(count) => body.extend_from_slice(&piece[..count]),
        }
        if response.is_drained() {
            return Ok(None);
        }
    }
}

fn collect(response: &mut UpstreamResponse, whole: &mut Whole) -> Result<Option<()>, Failure> {
    loop {
        match whole.collect(response, Instant::now())? {
            Collected::Waits => return Ok(None),
            Collected::Whole => return Ok(Some(())),
            Collected::Again => {}
        }
    }
}

fn refused(no_response: NoResponse) -> Outcome {
    match no_response {
        NoResponse::Stale => Outcome::Stale,
        NoResponse::Failed(failure) => {
            assert_eq!(failure.fault, Fault::Broken, "{}", failure.detail);
            Outcome::Refused
        }
    }
}

/// What came at once is read the same, and a document is never larger than it may be.
fn check_whole(bytes: &[u8], outcome: &Outcome) {
    let (learnt, fault) = read_whole(bytes, usize::MAX);
    match outcome {
        // Of a document that breaks off there is nothing.
        Outcome::Response(head, _, false) => {
            let nothing = Outcome::Response(head.clone(), Vec::new(), false);
            assert_eq!((learnt, fault), (nothing, Some(Fault::CutOff)));
        }
        _ => assert_eq!((&learnt, fault), (outcome, None)),
    }
    if let Outcome::Response(_, body, true) = outcome {
        assert_eq!(read_whole(bytes, body.len()), (outcome.clone(), None));
        if let Some(less) = body.len().checked_sub(1) {
            assert_eq!(read_whole(bytes, less).1, Some(Fault::TooLarge));
        }
    }
}

/// What it is where all of it has come and a document may have so many bytes, and why there is no document.
fn read_whole(bytes: &[u8], max: usize) -> (Outcome, Option<Fault>) {
    let (mut provider, mut pending) = call();
    provider.write_all(bytes).expect("there is room");
    provider.shutdown(Shutdown::Write).expect("it can be ended");
    pending.source().set_ready(true);
    let mut response = match pending.poll(false, Instant::now()) {
        Ok(Some(head)) => pending.into_response(head),
        Ok(None) => panic!("waits for what cannot come"),
        Err(no_response) => return (refused(no_response), None),
    };
    let head = Head::of(&response);
    let mut whole = Whole::new(max);
    let body = collect(&mut response, &mut whole).map(|over| over.map(|()| whole.bytes));
    assert!(another().is_none(), "a connection that has ended is kept");
    match body {
        Ok(body) => (Outcome::Response(head, body.expect("all of it came"), true), None),
        Err(failure) => (Outcome::Response(head, Vec::new(), false), Some(failure.fault)),
    }
}

/// Against a second reading of RFC 9112.
fn check_plainly(bytes: &[u8], run: &Run) {
    let plain = Plain::of(bytes);
    let (head, body, is_whole) = match &run.outcome {
        Outcome::Response(head, body, is_whole) => (head, body, *is_whole),
        other => {
            let is_stale = *other == Outcome::Stale;
            let Some(plain) = plain else { return assert!(!is_stale || bytes.is_empty()) };
            let is_over = plain.status == 408 && !plain.keeps;
            assert!(!is_stale || (is_over && plain.ending.is_ok()), "{plain:?}");
            let may_be = is_stale || bytes.len() as u64 > MAX_UNDELIVERED;
            return assert!(may_be || plain.is_lax || plain.ending.is_err(), "refused: {plain:?}");
        }
    };
    let plain = plain.expect("a response where there is none");
    assert!(plain.longest_head <= MAX_UPSTREAM_HEAD, "{} bytes of head", plain.longest_head);
    assert!((bytes.len() - plain.behind.len()) as u64 <= MAX_UNDELIVERED, "interim responses without end");
    assert!(plain.fields.len() <= MAX_UPSTREAM_HEADERS);
    assert_eq!((head.status, &head.fields), (plain.status, &plain.fields));
    assert!((200..600).contains(&head.status));
    for (name, value) in &head.fields {
        assert!(!name.is_empty() && name.bytes().all(is_token), "{name:?}");
        assert!(value.iter().all(|&byte| is_content(byte)), "{name}: {value:?}");
    }
    let ending = plain.ending.as_ref().expect("a response that could be read in two ways");
    assert_eq!(head.is_close_delimited, *ending == Ending::Close);
    let rest = plain.behind;
    let behind = match *ending {
        Ending::None => {
            assert!(body.is_empty() && is_whole);
            Some(rest)
        }
        Ending::Length(length) => {
            assert_eq!(head.length, Some(length));
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            assert_eq!(body, &rest[..length.min(rest.len())]);
            rest.get(length..)
        }
        Ending::Chunked => {
            let (payload, behind) = chunked::plainly(rest);
            assert!(payload.starts_with(body), "{payload:?}, not {body:?}");
            assert!(!(is_whole || run.waited) || payload == *body, "{payload:?}, not {body:?}");
            // It is stricter than this reading.
            behind.filter(|_| is_whole)
        }
        Ending::Close => {
            assert!(is_whole && run.waited);
            assert_eq!(body, rest);
            return assert!(!run.was_reused);
        }
    };
    assert_eq!(is_whole, behind.is_some(), "{plain:?}");
    assert!(!(run.waited && is_whole), "whole, and more was waited for");
    assert_eq!(run.was_reused, plain.keeps && behind == Some(b""), "{plain:?}");
}

/// A final response, and how its body ends.
#[derive(Debug)]
struct Plain<'a> {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    /// Not as it is to be written, though it may be understood; the same of interim ones.
    is_lax: bool,
    /// What stands behind its head.
    behind: &'a [u8],
    /// Of it and of interim ones.
    longest_head: usize,
    /// An error where it is no response, whatever else it may be.
    ending: Result<Ending, ()>,
    keeps: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    None,
    Length(u64),
    Chunked,
    Close,
}

impl<'a> Plain<'a> {
    /// `None` where there is no end of a head.
    fn of(mut bytes: &'a [u8]) -> Option<Self> {
        let (mut is_lax, mut longest_head) = (false, 0);
        let (minor, status, fields) = loop {
            let mut lines = Lines { rest: bytes, is_lax };
            let (minor, status) = lines.status()?;
            let fields = lines.fields()?;
            longest_head = longest_head.max(bytes.len() - lines.rest.len());
            is_lax = lines.is_lax || longest_head > MAX_UPSTREAM_HEAD || fields.len() > MAX_UPSTREAM_HEADERS;
            bytes = lines.rest;
            if !matches!(status, 100 | 102..200) {
                break (minor, status, sorted(fields));
            }
        };
        let ending = ending(status, minor, &fields);
        let options: Vec<Vec<u8>> = all(&fields, "connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(|option| trimmed(option).to_ascii_lowercase())
            .collect();
        let has = |wanted: &[u8]| options.iter().any(|option| option == wanted);
        let keeps = !has(b"close") && (minor == 1 || has(b"keep-alive")) && ending != Ok(Ending::Close);
        Some(Self { status, fields, is_lax, behind: bytes, longest_head, ending, keeps })
    }
}

/// A head, line by line.
struct Lines<'a> {
    rest: &'a [u8],
    /// What came so far is not as it is to be written.
    is_lax: bool,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        let text = line.strip_suffix(b"\r");
        self.is_lax |= text.is_none();
        Some(text.unwrap_or(line))
    }

    /// Minor version and status of `HTTP/1.1 200 OK`; 0 where that is none.
    fn status(&mut self) -> Option<(u8, u16)> {
        let mut line = self.next()?;
        while line.is_empty() {
            self.is_lax = true;
            line = self.next()?;
        }
        let read = status_of(line);
        self.is_lax |= read.is_none() || !line.iter().all(|&byte| is_content(byte));
        Some(read.unwrap_or_default())
    }

    fn fields(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.next()?;
            if line.is_empty() {
                return Some(fields);
            }
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let value = trimmed(value.get(1..).unwrap_or_default());
            self.is_lax |= name.is_empty() || colon == line.len() || !name.iter().copied().all(is_token);
            self.is_lax |= !value.iter().all(|&byte| is_content(byte));
            fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
        }
    }
}

/// RFC 9112 section 6.3, over all fields of a name.
fn ending(status: u16, minor: u8, fields: &[(String, Vec<u8>)]) -> Result<Ending, ()> {
    let mut lengths = all(fields, "content-length").map(|value| {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok())
    });
    let length = lengths.next();
    let is_one = length != Some(None) && lengths.all(|other| Some(other) == length);
    let codings: Vec<&[u8]> = all(fields, "transfer-encoding").collect();
    let is_chunked = match &*codings {
        [] => false,
        [coding] if minor == 1 && length.is_none() && coding.eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(()),
    };
    match length.flatten() {
        _ if !is_one || !(200..600).contains(&status) => Err(()),
        _ if matches!(status, 204 | 304) => Ok(Ending::None),
        Some(length) => Ok(Ending::Length(length)),
        None if is_chunked => Ok(Ending::Chunked),
        None => Ok(Ending::Close),
    }
}

fn all<'a>(fields: &'a [(String, Vec<u8>)], wanted: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_slice())
}

/// Minor version and status of `HTTP/1.1 200 OK`.
fn status_of(line: &[u8]) -> Option<(u8, u16)> {
    let (version, rest) = line.split_at_checked(b"HTTP/1.x ".len())?;
    let minor = match version {
        b"HTTP/1.0 " => 0,
        b"HTTP/1.1 " => 1,
        _ => return None,
    };
    let (status, rest) = rest.split_at_checked(3)?;
    let reads = status.iter().all(u8::is_ascii_digit) && matches!(rest.first(), None | Some(b' '));
    reads.then(|| (minor, status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))))
}

/// Without the blanks at its ends.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    &value[start..end]
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Visible, blank, or beyond ASCII.
fn is_content(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

static PROVIDER: LazyLock<(Upstream, Replica)> = LazyLock::new(|| {
    let config = r#"{"providers": ["a|http://127.0.0.1:9|key"]}"#;
    let config = load::from_text(config, &|_| None).expect("a good config");
    (Upstream::new(&config), config.providers[0].replicas[0].clone())
});

/// A request to a provider that has not responded yet, and its end of the connection.
fn call() -> (TcpStream, PendingResponse) {
    let (provider, ours) = UnixStream::pair().expect("a pair of sockets");
    let [provider, ours] = [provider, ours].map(|socket| {
        socket.set_nonblocking(true).expect("non-blocking");
        TcpStream::from(OwnedFd::from(socket))
    });
    PROVIDER.0.adopt(&PROVIDER.1, ours);
    (provider, another().expect("an idle connection"))
}

/// A request on a connection that is idle.
fn another() -> Option<PendingResponse> {
    let call = Call {
        method: "POST".parse().expect("a method"),
        format: Format::OpenAi,
        path: "/x",
        fields: &|_| Fields::default(),
        length: 2,
    };
    let request = PROVIDER.0.request(&PROVIDER.1, &call, Timeouts::default(), Some(0), Instant::now());
    let mut pending = request.expect("a way there").ok()?;
    assert_eq!(pending.send(&[b"{}"], Instant::now()).ok(), Some(Sent::Whole), "it leaves at once");
    Some(pending)
}

/// Whether the connection is given to the next call, which gets its own response then.
fn serves_another(provider: &mut TcpStream) -> bool {
    let Some(mut pending) = another() else { return false };
    let bytes = b"HTTP/1.1 201 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    provider.write_all(bytes).expect("somebody listens");
    pending.source().set_ready(false);
    let head = pending.poll(false, Instant::now()).expect("a response").expect("all of it");
    let mut response = pending.into_response(head);
    let mut whole = Whole::new(2);
    assert!(matches!(collect(&mut response, &mut whole), Ok(Some(()))));
    assert_eq!((response.status, &*whole.bytes), (201, &b"ok"[..]));
    true
}
