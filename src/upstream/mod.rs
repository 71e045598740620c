//! Requests to providers: one attempt at a time, on connections that ureq makes, with its result as facts.

mod active;
mod added_usage;
mod agent;
pub mod assembly;
mod client_response;
mod connect;
mod connecting;
mod connectors;
mod estimate;
pub mod events;
#[cfg(test)]
pub mod in_memory;
mod link;
pub mod meter;
pub mod opening;
mod pending;
mod pool;
pub mod refusal;
mod resolver;
mod response;
pub mod response_id;
mod socks;
pub mod stream;
pub mod stream_filter;
mod tcp;
mod terminal;
mod timeouts;
mod tls;
mod transport;
pub mod unusable;
pub mod usage;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr;
use ureq::http::Method;

pub use crate::core::headers::Headers;
pub use active::failure_of_time;
pub use client_response::{ClientResponse, Finished};
pub use connecting::Connecting;
pub use estimate::{Output, prompt as estimated_prompt};
pub use pending::{NoResponse, PendingResponse, Sent};
pub use pool::Connection;
pub use response::{Collected, UpstreamResponse, Whole};
pub use timeouts::Timeouts;

use crate::config::{Config, Format, Replica};
use crate::core::provider_request::{Account, RequestHead};
use crate::front::{Fields, Job, Load};
use connecting::Destination;
use connectors::Connectors;
use link::Link;
use pool::Pool;
use timeouts::{Limit, Timer};
use transport::TcpTransport;

/// The HTTP client all threads share, with its pool of idle connections.
#[derive(Debug)]
pub struct Upstream {
    connectors: Connectors,
    pool: Arc<Pool>,
    idle: (usize, Duration),
}

/// Makes a request's header fields, except those for whose names the given function returns `true`.
pub type MakeFields<'a> = dyn Fn(&dyn Fn(&str) -> bool) -> Fields + 'a;

/// A request to a provider.
pub struct Call<'a> {
    /// GET, DELETE or POST.
    pub method: Method,
    /// The format of the call, which decides the base URL and the field of the key.
    pub format: Format,
    /// Path after the provider's base URL, with its query: `/chat/completions?x=1`.
    pub path: &'a str,
    /// Makes its header fields, except those that the provider's key and own headers
    /// replace.
    pub fields: &'a MakeFields<'a>,
    /// Bytes of its body.
    pub length: usize,
}

/// A request that is to be sent, without its body.
pub struct Outgoing {
    head: RequestHead,
    destination: Destination,
    timeouts: Timeouts,
    /// Neither TLS nor a proxy is in between.
    is_clear: bool,
}

/// Why an attempt has no response, or only a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client has left.
    ClientGone,
    /// No connection: it was refused, the name is unknown, or TLS failed.
    Unreachable,
    /// The connection was lost before the response head was complete, or the response is not HTTP.
    Broken,
    /// The response ended before its end.
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
    /// There is no memory for it.
    Overloaded,
    /// The response is complete, and cannot be translated into the client's format.
    Untranslatable,
    /// The provider does not support the API of the call, and the call cannot be translated for it.
    NotCarried,
}

/// A failed attempt.
#[derive(Debug)]
pub struct Failure {
    pub fault: Fault,
    /// For the log: the words of the system or the library.
    pub detail: String,
}

impl Upstream {
    /// A client with that configuration's limits for idle connections.
    pub fn new(config: &Config) -> Self {
        let idle = Self::idle_limits(config);
        Self { connectors: Connectors::new(), pool: Pool::new(idle.0, idle.1), idle }
    }

    /// A client for unit tests, whose connections lead into that network.
    #[cfg(test)]
    pub fn in_memory(config: &Config, network: in_memory::Network) -> Self {
        Self { connectors: Connectors::in_memory(network), ..Self::new(config) }
    }

    /// Adds a given non-blocking connection to the idle ones of a replica that has neither proxy nor `ca_file`.
    pub fn adopt(&self, replica: &Replica, stream: TcpStream) {
        let Target { origin, .. } = Target::of(&replica.url);
        let transport = TcpTransport::new(stream, origin.starts_with("http:"), Limit::until(Instant::now()));
        let source = Arc::clone(transport.source());
        let link = Link::Other(Box::new(transport));
        self.pool.put(Connection::new((link, source), origin, Connectors::PLAIN));
    }

    /// Closes connections that have been idle for longer than `keepalive_expiry`.
    pub fn close_idle(&self) {
        self.pool.close_idle();
    }

    /// Whether this client has the limits that configuration asks for.
    pub fn fits(&self, config: &Config) -> bool {
        self.idle == Self::idle_limits(config)
    }

    /// Drops the connectors that no replica of that configuration needs.
    pub fn retain(&self, config: &Config) {
        self.connectors.retain(config);
    }

    fn idle_limits(config: &Config) -> (usize, Duration) {
        (config.max_keepalive_connections, config.keepalive_expiry)
    }

    /// A request to a replica with these time limits, on an idle connection for the worker `idle_of`; inner error: there is none.
    ///
    /// # Errors
    /// `Unreachable`: the configured way there is invalid.
    pub fn request(
        &self,
        replica: &Replica,
        call: &Call<'_>,
        timeouts: Timeouts,
        idle_of: Option<usize>,
        now: Instant,
    ) -> Result<Result<PendingResponse, Outgoing>, Failure> {
        let target = Target::of(base_url(replica, call.format));
        let proxy = replica.proxy_for(call.format);
        let is_clear = proxy.is_none() && !target.is_tls();
        let connector = self
            .connectors
            .of(proxy, replica.ca_file.as_ref())
            .map_err(|error| Failure { fault: Fault::Unreachable, detail: error.to_string() })?;
        let head = request_head(replica, &target, call);
        let idle = idle_of.and_then(|worker| self.pool.take(target.origin, connector.number, worker));
        Ok(match idle {
            Some(connection) => {
                let timer = Timer::new(timeouts, now);
                Ok(PendingResponse::new(connection, &self.pool, head, timer, (is_clear, true)))
            }
            None => {
                let destination = Destination::new(target.origin, connector, &self.pool);
                Err(Outgoing { head, destination, timeouts, is_clear })
            }
        })
    }
}

impl Outgoing {
    /// Begins the request on a new connection.
    pub fn on_new(self, connection: Connection, now: Instant) -> PendingResponse {
        let Self { head, destination, timeouts, is_clear } = self;
        let timer = Timer::new(timeouts, now);
        PendingResponse::new(connection, destination.pool(), head, timer, (is_clear, false))
    }

    /// When the time for a connection ends, after a wait since `begun`. `is_committed`: the client has had its first
    /// byte.
    pub fn deadline(&self, begun: Instant, is_committed: bool) -> Instant {
        Timer::new(self.timeouts, begun).deadline(is_committed)
    }

    /// A connection for the request within the deadline: the job that makes it, and the place where it arrives.
    pub fn connect(&self, deadline: Instant, load: Arc<Load>) -> (Job, Connecting) {
        self.destination.connect(deadline, load)
    }
}

/// The destination of a call.
struct Target<'a> {
    /// Scheme, host and port.
    origin: &'a str,
    /// The path of the base URL, without a slash at its end.
    path: &'a str,
}

impl<'a> Target<'a> {
    /// Splits a base URL of the configuration, which is checked and in normal form.
    fn of(url: &'a str) -> Self {
        let host = end_of_scheme(url);
        let path = memchr(b'/', &url.as_bytes()[host..]).map_or(url.len(), |at| host + at);
        Self { origin: &url[..path], path: &url[path..] }
    }

    fn is_tls(&self) -> bool {
        self.origin.starts_with("https:")
    }

    fn authority(&self) -> &'a str {
        &self.origin[end_of_scheme(self.origin)..]
    }
}

/// Where the authority of a checked URL begins: after the first colon and two slashes.
fn end_of_scheme(url: &str) -> usize {
    memchr(b':', url.as_bytes()).map_or(0, |at| (at + "://".len()).min(url.len()))
}

fn request_head(replica: &Replica, target: &Target<'_>, call: &Call<'_>) -> RequestHead {
    let account = account(replica, call.format);
    // A provider would read an unannounced body as the next request, whatever the method (RFC 9112 section 6.3).
    let is_announced = call.length > 0 || !matches!(call.method, Method::GET | Method::DELETE);
    let length = is_announced.then_some(call.length as u64);
    let fields = (call.fields)(&|name| account.has(name));
    account.request_head(&call.method, [target.path, call.path], target.authority(), fields, length)
}

/// A replica without a URL for the format gets the call at its only one and finds the right error itself.
fn base_url(replica: &Replica, format: Format) -> &str {
    replica.base_url(format).unwrap_or(&replica.url)
}

/// The provider's key is a bearer token, in Anthropic's format `x-api-key` beside a version. Where one URL supports both
/// formats, a call in OpenAI's carries both, because the list of models is Anthropic's there.
fn account(replica: &Replica, format: Format) -> Account<'_> {
    Account {
        key: &replica.key,
        headers: &replica.headers,
        takes_bearer: format == Format::OpenAi,
        takes_api_key: format == Format::Anthropic || replica.anthropic_url.as_ref() == Some(&replica.url),
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
            assert!(target.origin.parse::<ureq::http::Uri>().is_ok());
        }
    }
}
