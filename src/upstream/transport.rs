//! Our own TCP transport under ureq: it waits for the provider and watches the client in one `poll`, knows a silence
//! from a long answer, and sends a request's head and body in one write.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::wait;
use crate::limits::{CONNECT_TIMEOUT, UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// Opens TCP connections, unless an earlier connector of the chain (a proxy's) has opened one.
#[derive(Debug, Default)]
pub struct TcpConnector;

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
        let mut last = Error::HostNotFound;
        let addresses = details.addrs.len();
        for (index, address) in details.addrs.iter().enumerate() {
            // Each address gets its share of the time, so that a dead first one leaves some for the others.
            let share = CONNECT_TIMEOUT / u32::try_from(addresses - index).unwrap_or(1);
            match connect(*address, Instant::now() + share) {
                Ok(stream) => return Ok(Some(Either::B(TcpTransport::new(stream)))),
                Err(error) => last = Error::Io(error),
            }
            if wait::is_over() {
                break;
            }
        }
        Err(last)
    }
}

fn connect(address: SocketAddr, limit: Instant) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS) => {
            if !wait::for_peer(socket.as_fd(), true, Some(limit))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            rustix::net::sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(TcpStream::from(socket))
}

/// One TCP connection, non-blocking.
pub struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// A request's bytes that have not left: head and body go together, at the latest when the answer is awaited.
    unsent: Vec<u8>,
    /// The provider takes no more bytes; it may still have an answer for us (a 413, say).
    deaf: bool,
}

impl TcpTransport {
    fn new(stream: TcpStream) -> Self {
        let buffers = LazyBuffers::new(UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER);
        Self { stream, buffers, unsent: Vec::new(), deaf: false }
    }

    fn flush(&mut self, tail: usize) -> io::Result<()> {
        let tail = &self.buffers.output()[..tail];
        let mut sent = 0;
        let all = self.unsent.len() + tail.len();
        while sent < all && !self.deaf {
            let head = self.unsent.get(sent..).unwrap_or_default();
            let rest = &tail[sent.saturating_sub(self.unsent.len())..];
            match send(&self.stream, head, rest) {
                Ok(0) => {
                    wait::for_peer(self.stream.as_fd(), true, None)?;
                }
                Ok(count) => sent += count,
                Err(_) => self.deaf = true,
            }
        }
        self.unsent.clear();
        Ok(())
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
        if self.unsent.len() + amount <= UPSTREAM_WRITE_BUFFER {
            self.unsent.extend_from_slice(&self.buffers.output()[..amount]);
            return Ok(());
        }
        Ok(self.flush(amount)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        if !self.unsent.is_empty() {
            self.flush(0)?;
        }
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(Error::LargeResponseHeader(UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER));
        }
        loop {
            wait::for_peer(self.stream.as_fd(), false, None)?;
            match rustix::net::recv(&self.stream, &mut *room, RecvFlags::empty()) {
                Ok((count, _)) => {
                    wait::heard(count);
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }

    /// Asked before a pooled connection is used: an idle one must be silent.
    fn is_open(&mut self) -> bool {
        let silent = matches!(
            rustix::net::recv(&self.stream, &mut [0u8; 1], RecvFlags::PEEK),
            Err(rustix::io::Errno::AGAIN)
        );
        let usable = silent && !self.deaf && !wait::wants_fresh_connection();
        if usable {
            wait::note(|facts| facts.reused = true);
        }
        usable
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TcpTransport").field("peer", &self.stream.peer_addr().ok()).finish()
    }
}

/// Last in the chain: a connection that came this far stands, TLS included.
#[derive(Debug, Default)]
pub struct Established;

impl<In: Transport> Connector<In> for Established {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<In>, Error> {
        wait::note(|facts| facts.connected = chained.is_some());
        Ok(chained)
    }
}
