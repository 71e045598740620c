//! Talking to providers: one ureq agent, one attempt at a time, and what came of it as facts.

pub mod events;
mod pool;
pub mod refusal;
mod reply;
mod resolver;
pub mod response_id;
mod socks;
pub mod stream;
mod transport;
pub mod usage;
mod wait;
mod ways;

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use ureq::{Body, SendBody};

pub use reply::{COMMENT, Heartbeat, Reply, SharedReply};
pub use wait::{Patience, pause};

use crate::config::{Config, Format, Replica};
use crate::limits::UPSTREAM_READ_BUFFER;
use pool::Pool;
use wait::{Facts, Manner, Stop, Watched};
use ways::Ways;

/// The HTTP client all threads share, with its pool of idle connections.
#[derive(Debug)]
pub struct Upstream {
    ways: Ways,
    pool: Arc<Pool>,
    idle: (usize, Duration),
}

/// A request to a provider.
pub struct Call<'a> {
    /// GET and DELETE, without a body, or POST.
    pub method: Method,
    /// What the call is written in: it decides the base URL and where the key goes.
    pub format: Format,
    /// Path behind the provider's base URL, with its query: `/chat/completions?x=1`.
    pub path: &'a str,
    /// Makes its header fields: to copy them for each request costs more. The provider's key and own headers are added
    /// over them.
    pub headers: &'a dyn Fn() -> HeaderMap,
    /// Body, in pieces that are sent one behind the other.
    pub body: &'a [&'a [u8]],
}

/// Why an attempt gave no answer, or an answer no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client went away; nobody is left to answer.
    ClientGone,
    /// No connection: refused, unresolved, no TLS.
    Unreachable,
    /// The connection was lost before the head of the answer was whole, or what came is not HTTP.
    Broken,
    /// The answer ended before its end.
    CutOff,
    /// The time limit passed.
    TimedOut,
    /// Over `max_response_size`.
    TooLarge,
}

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    /// What kind.
    pub fault: Fault,
    /// For the log: what the system or the library said.
    pub detail: String,
}

/// An answer whose body has still to be read.
pub struct Exchange {
    /// Status code.
    pub status: u16,
    /// Header fields as they came.
    pub headers: HeaderMap,
    body: Body,
    watched: Watched,
}

impl Upstream {
    /// A client with that configuration's limits for idle connections.
    pub fn new(config: &Config) -> Self {
        let idle = Self::idle_limits(config);
        let pool = Pool::new(idle.0, idle.1);
        let ways = Ways::new(&pool);
        Self { ways, pool, idle }
    }

    /// Closes connections that have been idle for longer than `keepalive_expiry`.
    pub fn close_idle(&self) {
        self.pool.close_idle();
    }

    /// Whether this client has the limits that configuration asks for.
    pub fn fits(&self, config: &Config) -> bool {
        self.idle == Self::idle_limits(config)
    }

    /// Forgets what no replica of that configuration needs.
    pub fn retain(&self, config: &Config) {
        self.ways.retain(config);
    }

    fn idle_limits(config: &Config) -> (usize, Duration) {
        (config.max_keepalive_connections, config.keepalive_expiry)
    }

    /// One attempt at one replica. `reply`: the client's side; its leaving ends the attempt, and in silence it gets its
    /// heartbeats.
    ///
    /// A request on a pooled connection that ends without a byte of answer is sent once more on a new connection: the
    /// provider had closed the idle connection. It can in principle run twice then, as with every HTTP client.
    ///
    /// # Errors
    /// Any [`Fault`] but `TooLarge`.
    pub fn attempt(
        &self,
        replica: &Replica,
        call: &Call<'_>,
        patience: Patience,
        reply: Option<&SharedReply>,
    ) -> Result<Exchange, Failure> {
        let proxied = replica.proxy_for(call.format).is_some();
        let base = base_url(replica, call.format);
        let clear = !proxied && base.starts_with("http://");
        let mut fresh = false;
        loop {
            let facts = Facts { fresh, proxied, clear, ..Facts::default() };
            let mut watched = Watched::new(patience, reply, facts);
            let answered = watched.during(|| self.run(replica, base, call));
            let facts = watched.facts();
            match answered {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    if let Some(detail) = objection(&head) {
                        return Err(Failure { fault: Fault::Broken, detail });
                    }
                    return Ok(Exchange {
                        status: head.status.as_u16(),
                        headers: head.headers,
                        body,
                        watched,
                    });
                }
                Err(_) if facts.was_stale() && !fresh && !is_committed(reply) => fresh = true,
                Err(error) => return Err(Failure { fault: fault(facts, &error), detail: error.to_string() }),
            }
        }
    }

    fn run(&self, replica: &Replica, base: &str, call: &Call<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = [base, call.path].concat().try_into().map_err(ureq::http::Error::from)?;
        *request.headers_mut() = (call.headers)();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        add_credentials(headers, replica, call.format);
        let (proxy, ca_file) = (replica.proxy_for(call.format), replica.ca_file.as_ref());
        if matches!(call.method, Method::GET | Method::DELETE) {
            return self.ways.run(proxy, ca_file, request.map(|()| SendBody::none()));
        }
        let length: usize = call.body.iter().map(|piece| piece.len()).sum();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let mut pieces = Pieces { pieces: call.body, at: 0 };
        self.ways.run(proxy, ca_file, request.map(|()| SendBody::from_reader(&mut pieces)))
    }
}

/// A replica that is asked for a format it has no URL for gets the call at its only one: it knows best what to say.
fn base_url(replica: &Replica, format: Format) -> &str {
    replica.base_url(format).unwrap_or(&replica.url)
}

/// The provider's key goes in as a bearer token, in Anthropic's format as `x-api-key` beside a version; where both formats
/// are spoken at one URL, a call in OpenAI's carries both, for the list of models is Anthropic's there. The provider's
/// own headers come last and win.
fn add_credentials(headers: &mut HeaderMap, replica: &Replica, format: Format) {
    let sensitive = |text: &str| {
        // Checked when the configuration was loaded.
        HeaderValue::from_str(text).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        })
    };
    let as_openai = format == Format::OpenAi;
    let as_anthropic = !as_openai || replica.anthropic_url.as_ref() == Some(&replica.url);
    if as_openai && !replica.key.is_empty() {
        let value = sensitive(&["Bearer ", replica.key.expose()].concat());
        headers.extend(value.map(|value| (header::AUTHORIZATION, value)));
    }
    if as_anthropic {
        let value = sensitive(replica.key.expose()).filter(|_| !replica.key.is_empty());
        headers.extend(value.map(|value| (HeaderName::from_static("x-api-key"), value)));
        headers.entry("anthropic-version").or_insert(HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    for (name, value) in &replica.headers {
        if let (Ok(name), Some(value)) = (HeaderName::try_from(name.as_str()), sensitive(value.expose())) {
            headers.insert(name, value);
        }
    }
}

/// The only version there is, for a client that names none.
const ANTHROPIC_VERSION: &str = "2023-06-01";

impl Exchange {
    /// Reads what is at hand of the body, waiting for some; 0 at its end.
    ///
    /// # Errors
    /// Any [`Fault`] but `Unreachable` and `TooLarge`.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        self.watched.listen();
        self.watched.wait(Manner::Patient);
        self.read_on(into).map_err(|error| self.failure(&error))
    }

    /// Reads what is at hand of the body without waiting; `None`: there is nothing more for now. `ended`: the provider has
    /// ended the connection behind what there is.
    ///
    /// # Errors
    /// As [`Exchange::read`], and not for the time it takes: [`Exchange::is_overdue`] tells.
    pub fn read_at_once(&mut self, into: &mut [u8], ended: bool) -> Result<Option<usize>, Failure> {
        self.watched.wait(if ended { Manner::ToTheEnd } else { Manner::AtOnce });
        match self.read_on(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some).map_err(|error| self.failure(&error)),
        }
    }

    fn read_on(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let body = &mut self.body;
        let read = self.watched.during(|| {
            loop {
                match body.as_reader().read(into) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })?;
        if read == 0 && self.was_cut_in_chunks() {
            return Err(io::Error::other("the last chunk is not whole"));
        }
        self.watched.delivered();
        Ok(read)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let fault = match self.watched.facts().stop {
            Some(stop) => stop.into(),
            None if is_timeout(error) => Fault::TimedOut,
            None => Fault::CutOff,
        };
        Failure { fault, detail: error.to_string() }
    }

    /// Whether the time it may take is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.watched.is_overdue(now)
    }

    /// The client has taken what came: the provider is waited for again.
    pub fn listen(&mut self) {
        self.watched.listen();
    }

    /// Keeps that for as long as the socket is this answer's.
    pub fn attach(&mut self, to_socket: impl Send + 'static) {
        self.watched.attach(to_socket);
    }

    /// The socket that it comes on.
    pub fn socket(&self) -> Option<Arc<TcpStream>> {
        self.watched.socket()
    }

    /// ureq takes the connection's end for the blank line behind the last chunk.
    fn was_cut_in_chunks(&self) -> bool {
        self.watched.facts().ended && self.headers.contains_key(header::TRANSFER_ENCODING)
    }

    /// It may take the whole time that its call has: what another replica would do no longer counts.
    pub fn take_time(&mut self) {
        self.watched.take_time();
    }

    /// Reads the body whole.
    ///
    /// # Errors
    /// As [`Exchange::read`]; `TooLarge` above `max` bytes, at once where the length says so.
    pub fn read_whole(&mut self, max: usize) -> Result<Vec<u8>, Failure> {
        let announced = self.length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let too_large = || Failure { fault: Fault::TooLarge, detail: format!("more than {max} bytes") };
        if announced.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let mut whole = Vec::new();
        loop {
            let filled = whole.len();
            // One byte more than is due shows where the body ends; without a length, a buffer's worth at a time.
            let step = announced.map_or(UPSTREAM_READ_BUFFER, |length| length.saturating_sub(filled) + 1);
            whole.resize(filled + step.min(UPSTREAM_READ_BUFFER), 0);
            let count = self.read(&mut whole[filled..])?;
            whole.truncate(filled + count);
            match count {
                0 => return Ok(whole),
                _ if whole.len() > max => return Err(too_large()),
                _ => {}
            }
        }
    }

    /// How many bytes of body the provider announced.
    pub fn length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// From now on the provider has that much patience.
    pub fn be_patient(&mut self, patience: Patience) {
        self.watched.be_patient(patience);
    }

    /// Whether the end of the body is told by nothing but the end of the connection (RFC 9112 section 6.3).
    pub fn is_close_delimited(&self) -> bool {
        !self.headers.contains_key(header::CONTENT_LENGTH)
            && !self.headers.contains_key(header::TRANSFER_ENCODING)
            && self.status != StatusCode::NO_CONTENT
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::ClientGone => Self::ClientGone,
            Stop::TimedOut => Self::TimedOut,
        }
    }
}

fn fault(facts: Facts, error: &ureq::Error) -> Fault {
    match (facts.stop, error) {
        (Some(stop), _) => stop.into(),
        (None, ureq::Error::Timeout(_)) => Fault::TimedOut,
        (None, _) if facts.connected || facts.reused => Fault::Broken,
        (None, _) => Fault::Unreachable,
    }
}

/// What is wrong with the head of an answer that ureq let through: a status that is none, or framing that two readers
/// could read in two ways (RFC 9112 section 6.1).
fn objection(head: &ureq::http::response::Parts) -> Option<String> {
    if !(200..600).contains(&head.status.as_u16()) {
        return Some(format!("status {}", head.status));
    }
    let coding = head.headers.get(header::TRANSFER_ENCODING)?;
    let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && head.headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1
        && head.version == Version::HTTP_11
        && !head.headers.contains_key(header::CONTENT_LENGTH);
    (!plain).then(|| "Transfer-Encoding other than chunked alone".to_owned())
}

fn is_committed(reply: Option<&SharedReply>) -> bool {
    reply.is_some_and(|reply| reply.lock().is_committed())
}

/// ureq hands its own time limits on as the source of an `Other`.
fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    error.kind() == io::ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)))
}

/// A body in pieces, as a reader.
struct Pieces<'a> {
    pieces: &'a [&'a [u8]],
    at: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let [first, rest @ ..] = self.pieces {
            let left = &first[self.at..];
            let count = left.len().min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&left[..count]);
            filled += count;
            if count < left.len() {
                self.at += count;
                break;
            }
            self.pieces = rest;
            self.at = 0;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::Pieces;

    #[test]
    fn pieces_read_one_behind_the_other_whatever_the_buffer() {
        for size in 1..12 {
            let mut pieces = Pieces { pieces: &[b"abc", b"", b"defg", b"h"], at: 0 };
            let mut read = Vec::new();
            let mut buffer = vec![0; size];
            loop {
                match pieces.read(&mut buffer).expect("memory does not fail") {
                    0 => break,
                    count => read.extend_from_slice(&buffer[..count]),
                }
            }
            assert_eq!(read, b"abcdefgh", "buffer of {size}");
        }
    }
}
