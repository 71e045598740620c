//! Blocking calls, for the monitor: ureq's own agent with our look-ups, race of addresses and SOCKS5, as for relayed calls.
//! Each call has an agent and a connection of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use ureq::http::Request;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    RustlsConnector, Transport,
};
use ureq::{Agent, Body, Error, Proxy};

use super::resolver::LimitedResolver;
use super::timeouts::Limit;
use super::{Headers, Upstream, account, base_url, connectors, tcp};
use crate::config::{Format, Replica};
use crate::limits::{MAX_UPSTREAM_HEAD, UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// A response whose body has still to be read.
pub struct Response {
    pub status: u16,
    /// Unchanged header fields.
    pub headers: Headers,
    /// Its body, which must end before the deadline of the call.
    pub body: Body,
}

impl Upstream {
    /// Sends `GET` for `path` after a replica's base URL and reads the response's head. Head and body together have until `deadline`.
    ///
    /// # Errors
    /// There is no response by then. A status or a redirect is never an error.
    pub fn get(&self, replica: &Replica, path: &str, deadline: Instant) -> Result<Response, Error> {
        let request = Request::get([base_url(replica, Format::OpenAi), path].concat());
        let request = account(replica, Format::OpenAi).add_to(request).body(())?;
        let resolver = self.connectors.resolver(Limit::until(deadline));
        let (head, body) = agent(resolver, replica, deadline)?.run(request)?.into_parts();
        let mut headers = Headers::default();
        for (name, value) in &head.headers {
            headers.append(name.as_str(), value.as_bytes());
        }
        Ok(Response { status: head.status.as_u16(), headers, body })
    }
}

fn agent(resolver: LimitedResolver, replica: &Replica, deadline: Instant) -> Result<Agent, Error> {
    let proxy = replica.proxy_for(Format::OpenAi).map(|proxy| Proxy::new(proxy.expose())).transpose()?;
    // Sets every option that the product depends on, instead of the library's defaults.
    let settings = Agent::config_builder()
        .proxy(proxy)
        .tls_config(connectors::tls_config(replica.ca_file.as_ref()))
        .timeout_global(Some(deadline.saturating_duration_since(Instant::now())))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .max_response_header_size(MAX_UPSTREAM_HEAD)
        // More than the largest head, so that a larger one is noticed.
        .input_buffer_size(MAX_UPSTREAM_HEAD + UPSTREAM_READ_BUFFER)
        .output_buffer_size(UPSTREAM_WRITE_BUFFER)
        .build();
    let links =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector(resolver.clone()))
            .chain(RustlsConnector::default());
    Ok(Agent::with_parts(settings, links, resolver))
}

/// Opens TCP connections, unless an earlier connector of the chain (a proxy's) has opened one.
#[derive(Debug)]
struct TcpConnector(LimitedResolver);

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(transport) = chained {
            return Ok(Some(Either::A(transport)));
        }
        let stream = tcp::open(&self.0, details)?;
        stream.set_nonblocking(false)?;
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TcpTransport { stream, buffers: LazyBuffers::new(input, output) })))
    }
}

/// One TCP connection, blocking: each wait ends when ureq says so.
#[derive(Debug)]
struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(time_left(timeout)?))?;
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(timed_out)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(Some(time_left(timeout)?))?;
        let count = self.stream.read(self.buffers.input_append_buf()).map_err(timed_out)?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

/// How long a wait may take. ureq names a time for each, because an agent here always has a deadline.
fn time_left(timeout: NextTimeout) -> Result<std::time::Duration, Error> {
    if timeout.after.is_zero() {
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    } else {
        Ok(*timeout.after)
    }
}

/// Converts the error of a blocking socket at the end of its time.
fn timed_out(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::from(io::ErrorKind::TimedOut).into(),
        _ => error.into(),
    }
}
