//! Our own TCP transport under ureq: it waits for the provider and watches the client in one `poll`, knows a silence
//! from a long answer, and sends a request's head and body in one write.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags};
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Proxy, ProxyProtocol};

use super::connect;
use super::resolver::CachingResolver;
use super::socks;
use super::wait::{self, Manner};
use crate::front::{Source, Want};
use crate::limits::{MAX_GATHERED, MAX_UNDELIVERED, UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// Opens TCP connections, unless an earlier connector of the chain (a proxy's) has opened one.
#[derive(Debug)]
pub struct TcpConnector(pub CachingResolver);

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
        let Some(proxy) = details.config.proxy().filter(|proxy| is_socks(proxy)) else {
            let stream = connect(&self.0, details.uri.host(), &details.addrs)?;
            return Ok(Some(Either::B(TcpTransport::new(stream))));
        };
        Ok(Some(Either::B(TcpTransport::new(through_socks(&self.0, proxy, details)?))))
    }
}

fn is_socks(proxy: &Proxy) -> bool {
    !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
}

/// `socks5h` has the proxy resolve the provider's name; `socks5` resolves it here, as curl does, and tries each address.
fn through_socks(
    resolver: &CachingResolver,
    proxy: &Proxy,
    details: &ConnectionDetails<'_>,
) -> Result<TcpStream, Error> {
    let mut addresses = resolver.resolve(proxy.uri(), details.config, details.timeout)?;
    for address in addresses.iter_mut() {
        address.set_port(proxy.port());
    }
    let targets: Vec<String> = if proxy.resolve_target() {
        details.addrs.iter().map(|address| address.ip().to_string()).collect()
    } else {
        details.uri.host().map(str::to_owned).into_iter().collect()
    };
    let port = details.uri.port_u16().unwrap_or(if details.needs_tls() { 443 } else { 80 });
    let mut last = Error::HostNotFound;
    for host in targets {
        let stream = connect(resolver, proxy.uri().host(), &addresses)?;
        match socks::negotiate(&stream, proxy, &host, port) {
            Ok(()) => return Ok(stream),
            Err(error) => last = Error::Io(error),
        }
        if wait::is_over() {
            break;
        }
    }
    Err(last)
}

/// A connection to one of the addresses of `host`; the resolver remembers which, for the next.
fn connect(
    resolver: &CachingResolver,
    host: Option<&str>,
    addresses: &[SocketAddr],
) -> Result<TcpStream, Error> {
    let stream = connect::to_any(addresses)?;
    if let (2.., Some(host), Ok(peer)) = (addresses.len(), host, stream.peer_addr()) {
        resolver.prefer(host, peer.ip());
    }
    Ok(stream)
}

/// One TCP connection, non-blocking.
pub struct TcpTransport {
    stream: Arc<Source>,
    buffers: LazyBuffers,
    /// A request's bytes that have not left: head and body go together, at the latest when the answer is awaited.
    unsent: Vec<u8>,
    /// The provider takes no more bytes; it may still have an answer for us (a 413, say).
    deaf: bool,
}

impl TcpTransport {
    /// On a connection that is there, non-blocking.
    pub fn new(stream: TcpStream) -> Self {
        let buffers = LazyBuffers::new(UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER);
        Self { stream: Source::new(stream), buffers, unsent: Vec::new(), deaf: false }
    }

    /// Sends what is here, and `tail` bytes of the output buffer behind it.
    fn flush(&mut self, tail: usize) -> io::Result<()> {
        let tail = &self.buffers.output()[..tail];
        let stream = &*self.stream;
        let (mut sent, mut has_waited) = (0, false);
        let all = self.unsent.len() + tail.len();
        while sent < all && !self.deaf {
            let head = self.unsent.get(sent..).unwrap_or_default();
            let rest = &tail[sent.saturating_sub(self.unsent.len())..];
            match send(stream, head, rest) {
                Ok(0) if wait::manner() != Manner::Patient && wait::manner() != Manner::Send => {
                    self.unsent.extend_from_slice(tail);
                    self.unsent.drain(..sent);
                    wait::note(|facts| facts.unsent = true);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(0) => {
                    // An answer before the request is sent whole refuses it: the rest is not wanted. Behind TLS or a
                    // proxy, what can be read may be anything.
                    let heard = if wait::facts().clear { peeked(stream) } else { Peeked::Interim };
                    match heard {
                        Peeked::Answer | Peeked::End => self.deaf = true,
                        Peeked::Nothing => {
                            has_waited = wait::for_peer(stream.as_fd(), Want::Either, None)?;
                        }
                        Peeked::Interim => {
                            has_waited = wait::for_peer(stream.as_fd(), Want::Write, None)?;
                        }
                    }
                }
                Ok(count) => {
                    sent += count;
                    // Bytes that the provider takes are a sign of life; those that leave at once are none.
                    if sent < all || has_waited {
                        wait::heard(0);
                    }
                }
                Err(_) => self.deaf = true,
            }
        }
        self.unsent.clear();
        wait::note(|facts| facts.unsent = false);
        Ok(())
    }
}

/// What the next read would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peeked {
    Nothing,
    /// An interim answer (1xx), or too little to tell.
    Interim,
    /// The beginning of something else.
    Answer,
    End,
}

fn peeked(stream: &TcpStream) -> Peeked {
    const INTERIM: &[u8] = b"HTTP/1.1 1";
    let mut start = [0u8; INTERIM.len()];
    match rustix::net::recv(stream, &mut start[..], RecvFlags::PEEK) {
        Ok((count, _)) if count > 0 => {
            if INTERIM.starts_with(&start[..count]) {
                Peeked::Interim
            } else {
                Peeked::Answer
            }
        }
        Err(rustix::io::Errno::AGAIN) => Peeked::Nothing,
        Ok(_) | Err(_) => Peeked::End,
    }
}

fn send(stream: &TcpStream, head: &[u8], rest: &[u8]) -> io::Result<usize> {
    let parts = [IoSlice::new(head), IoSlice::new(rest)];
    let mut ancillary = rustix::net::SendAncillaryBuffer::default();
    let sent = match (head, rest) {
        (only, []) | ([], only) => rustix::net::send(stream, only, SendFlags::NOSIGNAL),
        _ => rustix::net::sendmsg(stream, &parts, &mut ancillary, SendFlags::NOSIGNAL),
    };
    match sent {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        other => other.map_err(io::Error::from),
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // Where nothing may be waited for, what leaves at once is seen when all is here.
        if self.unsent.len() + amount <= MAX_GATHERED || wait::manner() == Manner::SendAtOnce {
            self.unsent.extend_from_slice(&self.buffers.output()[..amount]);
            return Ok(());
        }
        Ok(self.flush(amount)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        if !self.unsent.is_empty() {
            self.flush(0)?;
        }
        wait::runs_on(&self.stream);
        if matches!(wait::manner(), Manner::Send | Manner::SendAtOnce) {
            return Err(Error::Io(io::ErrorKind::WouldBlock.into()));
        }
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(Error::LargeResponseHeader(UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER));
        }
        let stream = &*self.stream;
        loop {
            wait::for_peer(stream.as_fd(), Want::Read, None)?;
            match rustix::net::recv(stream, &mut *room, RecvFlags::empty()) {
                Ok((count, _)) => {
                    wait::heard(count);
                    if count < room.len() {
                        wait::drained(count == 0);
                    }
                    self.buffers.input_appended(count);
                    if wait::facts().undelivered > MAX_UNDELIVERED {
                        return Err(Error::LargeResponseHeader(UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER));
                    }
                    return Ok(count > 0);
                }
                Err(rustix::io::Errno::AGAIN) => wait::drained(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }

    /// Asked before a pooled connection is used: an idle one must be silent. What epoll has told of would be known without a
    /// system call, but late, and what came before it would be taken for the answer.
    fn is_open(&mut self) -> bool {
        !self.deaf && peeked(&self.stream) == Peeked::Nothing
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TcpTransport").field("peer", &self.stream.peer_addr().ok()).finish()
    }
}
