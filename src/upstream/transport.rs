//! Our own TCP transport under ureq: it never waits after its connection is made, and sends a request's head and body in one write.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::timeouts::Limit;
use crate::front::{Source, Want};
use crate::limits::{MAX_GATHERED, MAX_UNDELIVERED, UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// One non-blocking TCP connection. It waits only where it gets a timeout, which ureq's connectors give while they make the
/// connection, and then no longer than its limit.
pub struct TcpTransport {
    source: Arc<Source>,
    buffers: LazyBuffers,
    /// Bytes of a request that have not left: head and body leave together, at the latest when the response is awaited.
    unsent: Vec<u8>,
    /// Nothing but HTTP runs on it: no TLS, no proxy.
    is_clear: bool,
    limit: Arc<Limit>,
}

impl TcpTransport {
    /// A transport on an existing non-blocking connection.
    pub fn new(stream: TcpStream, is_clear: bool, limit: Arc<Limit>) -> Self {
        let buffers = LazyBuffers::new(UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER);
        Self { source: Source::new(stream), buffers, unsent: Vec::new(), is_clear, limit }
    }

    /// Its socket.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Sends the unsent bytes, then `tail` bytes of the output buffer. It keeps the bytes that the socket does not take, unless `waits`.
    fn flush(&mut self, tail: usize, waits: bool) -> io::Result<()> {
        let tail = &self.buffers.output()[..tail];
        let mut sent = 0;
        let all = self.unsent.len() + tail.len();
        while sent < all && !self.source.is_deaf() {
            let head = self.unsent.get(sent..).unwrap_or_default();
            let rest = &tail[sent.saturating_sub(self.unsent.len())..];
            match send(&self.source, head, rest) {
                Ok(0) if waits => {
                    self.limit.wait(self.source.as_fd(), Want::Write, None)?;
                }
                // A response before the end of the request refuses it, and the provider does not read the rest. With TLS or a proxy, the
                // readable bytes may be something else.
                Ok(0) if self.is_clear && matches!(peeked(&self.source), Peeked::Response | Peeked::End) => {
                    self.source.set_deaf();
                }
                Ok(0) => {
                    self.unsent.extend_from_slice(tail);
                    self.unsent.drain(..sent);
                    self.source.set_unsent(true);
                    return Ok(());
                }
                Ok(count) => sent += count,
                Err(_) => self.source.set_deaf(),
            }
        }
        self.unsent.clear();
        self.source.set_unsent(false);
        Ok(())
    }
}

/// The kind of bytes that the next read would return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peeked {
    Nothing,
    /// An interim response (1xx), or too few bytes to decide.
    Interim,
    /// The beginning of a final response.
    Response,
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
                Peeked::Response
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

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // The kept bytes grow by no more than one write of the caller, even if the socket has no room.
        if self.unsent.len() + amount <= MAX_GATHERED || self.source.is_unsent() {
            self.unsent.extend_from_slice(&self.buffers.output()[..amount]);
            return Ok(());
        }
        Ok(self.flush(amount, may_wait(timeout))?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let waits = may_wait(timeout);
        if !self.unsent.is_empty() {
            self.flush(0, waits)?;
        }
        if !waits && !self.source.is_readable() {
            return Err(Error::Io(io::ErrorKind::WouldBlock.into()));
        }
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(Error::LargeResponseHeader(UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER));
        }
        loop {
            if waits {
                self.limit.wait(self.source.as_fd(), Want::Read, None)?;
            }
            match rustix::net::recv(&**self.source, &mut *room, RecvFlags::empty()) {
                Ok((count, _)) => {
                    self.source.receive(count);
                    if count < room.len() {
                        self.source.drained(count == 0);
                    }
                    self.buffers.input_appended(count);
                    if self.source.undelivered() > MAX_UNDELIVERED {
                        return Err(Error::LargeResponseHeader(UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER));
                    }
                    return Ok(count > 0);
                }
                Err(rustix::io::Errno::AGAIN) if !waits => {
                    self.source.drained(true);
                    return Err(Error::Io(io::ErrorKind::WouldBlock.into()));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }

    /// Called before a pooled connection is used: an idle one must be silent. The reports of epoll need no system
    /// call, but come late, and earlier bytes would pass for the response.
    fn is_open(&mut self) -> bool {
        !self.source.is_deaf() && peeked(&self.source) == Peeked::Nothing
    }
}

fn may_wait(timeout: NextTimeout) -> bool {
    !timeout.after.is_not_happening()
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TcpTransport").field("peer", &self.source.peer_addr().ok()).finish()
    }
}
