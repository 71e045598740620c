//! Talking to providers: one attempt at a time, on connections that ureq makes, and what came of it as facts.

mod added_usage;
pub mod assembly;
mod connect;
mod estimate;
pub mod events;
mod exchange;
mod headers;
mod http;
pub mod meter;
pub mod opening;
pub mod passage;
mod pool;
pub mod refusal;
mod reply;
mod resolver;
pub mod response_id;
mod socks;
pub mod stream;
mod terminal;
mod transport;
pub mod unusable;
pub mod usage;
mod wait;
mod ways;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Method, Uri};

pub use estimate::{Output, prompt as estimated_prompt};
pub use exchange::{Awaited, Collected, Exchange, Unanswered, Whole};
pub use headers::Headers;
pub use reply::{Reply, SharedReply};
pub use wait::{Patience, pause};

use crate::config::{Config, Format, Replica};
use crate::front::Fields;
use exchange::Line;
use pool::{Connection, Pool};
use transport::TcpTransport;
use wait::{Facts, Stop, Watched};
use ways::Ways;

/// The HTTP client all threads share, with its pool of idle connections.
#[derive(Debug)]
pub struct Upstream {
    ways: Ways,
    pool: Arc<Pool>,
    idle: (usize, Duration),
}

/// Makes a request's header fields, but for those whose names the given function tells.
pub type MakeFields<'a> = dyn Fn(&dyn Fn(&str) -> bool) -> Fields + 'a;

/// A request to a provider.
pub struct Call<'a> {
    /// GET, DELETE or POST.
    pub method: Method,
    /// What the call is written in: it decides the base URL and where the key goes.
    pub format: Format,
    /// Path behind the provider's base URL, with its query: `/chat/completions?x=1`.
    pub path: &'a str,
    /// Makes its header fields, but for those whose names it is given as kept back: the provider's key and own headers
    /// stand in their place.
    pub fields: &'a MakeFields<'a>,
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
    /// A redirect, which is not followed.
    Redirected,
    /// The body has this content coding, which was not asked for.
    Coded(&'static str),
    /// A buffered response over `max_response_size`.
    TooLarge,
    /// A stream over `max_stream_size`.
    StreamTooLarge,
    /// There is no memory for it, whatever the provider says.
    Overloaded,
    /// The response is complete, and cannot be put into the client's format.
    Untranslatable,
}

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    /// What kind.
    pub fault: Fault,
    /// For the log: what the system or the library said.
    pub detail: String,
}

/// How a connection is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An idle one alone, and nothing is waited for.
    Idle,
    /// An idle one, else a new one.
    Any,
    /// A new one alone.
    New,
}

impl Upstream {
    /// A client with that configuration's limits for idle connections.
    pub fn new(config: &Config) -> Self {
        let idle = Self::idle_limits(config);
        Self { ways: Ways::new(), pool: Pool::new(idle.0, idle.1), idle }
    }

    /// Takes in a connection to a replica that somebody else has made, non-blocking, as if a call had left it idle; the replica
    /// has neither proxy nor `ca_file`.
    pub fn adopt(&self, replica: &Replica, stream: TcpStream) {
        let origin = Target::of(&replica.url).origin;
        self.pool.put(Connection::new(Box::new(TcpTransport::new(stream)), origin, Ways::PLAIN));
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

    /// Sends a request to a replica. `reply`: the client's side; its leaving ends the attempt, and in silence it gets its
    /// heartbeats. `None`: there is no connection that may be used.
    ///
    /// # Errors
    /// `Unreachable`, `Broken`, `TimedOut` or `ClientGone`.
    pub fn send(
        &self,
        replica: &Replica,
        call: &Call<'_>,
        patience: Patience,
        reply: Option<&SharedReply>,
        by: By,
    ) -> Result<Option<Awaited>, Failure> {
        let target = Target::of(base_url(replica, call.format));
        let proxy = replica.proxy_for(call.format);
        let clear = proxy.is_none() && !target.is_tls();
        let mut watched = Watched::new(patience, reply, Facts { clear, ..Facts::default() });
        let unreachable =
            |watched: &Watched, error: &ureq::Error| Failure::of(watched, error, Fault::Unreachable);
        let way =
            self.ways.of(proxy, replica.ca_file.as_ref()).map_err(|error| unreachable(&watched, &error))?;
        let idle = if by == By::New { None } else { self.pool.take(target.origin, way.number) };
        let is_reused = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None if by == By::Idle => return Ok(None),
            None => {
                let transport = watched.during(|| way.connect(&target.uri()?));
                let transport = transport.map_err(|error| unreachable(&watched, &error))?;
                Connection::new(transport, target.origin, way.number)
            }
        };
        let line = Line::new(connection, &self.pool, watched);
        let head = request_head(replica, &target, call);
        Awaited::send(line, &head, call.body, by, is_reused).map(Some)
    }

    /// One attempt at one replica, up to its answer's head.
    ///
    /// A request on an idle connection that ends without a byte of answer is sent once more on a new connection: the
    /// provider had closed it meanwhile. It can in principle run twice then, as with every HTTP client.
    ///
    /// # Errors
    /// Any [`Fault`] but `TooLarge`.
    pub fn attempt(
        &self,
        replica: &Replica,
        call: &Call<'_>,
        patience: Patience,
    ) -> Result<Exchange, Failure> {
        for by in [By::Any, By::New] {
            let Some(mut awaited) = self.send(replica, call, patience, None, by)? else { break };
            match awaited.wait() {
                Err(Unanswered::Stale) => {}
                Err(Unanswered::Failed(failure)) => return Err(failure),
                Ok(head) => return Ok(awaited.into_exchange(head)),
            }
        }
        Err(Failure { fault: Fault::Broken, detail: "closed without an answer".to_owned() })
    }
}

/// Where a call goes, as its URL says.
struct Target<'a> {
    /// Scheme, host and port.
    origin: &'a str,
    /// Of the base URL, without a slash at its end.
    path: &'a str,
}

impl<'a> Target<'a> {
    /// Of a base URL as the configuration has it: checked, in normal form.
    fn of(url: &'a str) -> Self {
        let host = end_of_scheme(url);
        let path = url[host..].find('/').map_or(url.len(), |at| host + at);
        Self { origin: &url[..path], path: &url[path..] }
    }

    fn is_tls(&self) -> bool {
        self.origin.starts_with("https:")
    }

    fn authority(&self) -> &'a str {
        &self.origin[end_of_scheme(self.origin)..]
    }

    fn uri(&self) -> Result<Uri, ureq::Error> {
        self.origin.parse().map_err(|error| ureq::Error::from(ureq::http::Error::from(error)))
    }
}

/// Where the authority of a checked URL begins: after the first colon and two slashes.
fn end_of_scheme(url: &str) -> usize {
    url.find(':').map_or(0, |at| (at + "://".len()).min(url.len()))
}

fn request_head(replica: &Replica, target: &Target<'_>, call: &Call<'_>) -> Vec<u8> {
    // The provider's own headers win over whatever else there is of their names.
    let is_own = |name: &str| replica.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut fields = (call.fields)(&is_own);
    if !is_own("accept-encoding") {
        fields.push("accept-encoding", "identity");
    }
    add_credentials(&mut fields, &is_own, replica, call.format);
    let length: usize = call.body.iter().map(|piece| piece.len()).sum();
    // A body that is not announced would be read as the next request, whatever the method (RFC 9112 section 6.3).
    let is_announced = length > 0 || !matches!(call.method, Method::GET | Method::DELETE);
    if is_announced && !is_own("content-length") {
        fields.push_number("content-length", length as u64);
    }
    if speaks_as_anthropic(replica, call.format)
        && !fields.contains("anthropic-version")
        && !is_own("anthropic-version")
    {
        // For a client that names none: there is but one.
        fields.push("anthropic-version", ANTHROPIC_VERSION);
    }
    for (name, value) in &replica.headers {
        fields.push(name, value.expose());
    }
    let host = Some(target.authority()).filter(|_| !is_own("host"));
    http::request(&call.method, [target.path, call.path], host, &fields)
}

/// A replica that is asked for a format it has no URL for gets the call at its only one: it knows best what to say.
fn base_url(replica: &Replica, format: Format) -> &str {
    replica.base_url(format).unwrap_or(&replica.url)
}

/// The provider's key goes in as a bearer token, in Anthropic's format as `x-api-key` beside a version; where both formats
/// are spoken at one URL, a call in OpenAI's carries both, for the list of models is Anthropic's there.
fn add_credentials(fields: &mut Fields, is_own: &dyn Fn(&str) -> bool, replica: &Replica, format: Format) {
    let key = replica.key.expose().as_bytes();
    if key.is_empty() {
        return;
    }
    if format == Format::OpenAi && !is_own("authorization") {
        fields.push_joined("authorization", &[b"Bearer ", key]);
    }
    if speaks_as_anthropic(replica, format) && !is_own("x-api-key") {
        fields.push("x-api-key", key);
    }
}

fn speaks_as_anthropic(replica: &Replica, format: Format) -> bool {
    format == Format::Anthropic || replica.anthropic_url.as_ref() == Some(&replica.url)
}

/// The version of Anthropic's API.
const ANTHROPIC_VERSION: &str = "2023-06-01";

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::ClientGone => Self::ClientGone,
            Stop::TimedOut => Self::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_base_url_is_an_origin_and_a_path() {
        for (url, origin, authority, path) in [
            ("https://a.example/v1/x", "https://a.example", "a.example", "/v1/x"),
            ("http://127.0.0.1:81", "http://127.0.0.1:81", "127.0.0.1:81", ""),
            ("http://[::1]:81/v1", "http://[::1]:81", "[::1]:81", "/v1"),
        ] {
            let target = Target::of(url);
            assert_eq!((target.origin, target.authority(), target.path), (origin, authority, path));
            assert_eq!(target.is_tls(), url.starts_with("https"));
            assert!(target.uri().is_ok());
        }
    }
}
