//! A connection to a provider while a request uses it: output, input, and the return to the pool.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use super::pool::{Connection, Pool};
use super::timeouts::Timer;
use super::{Failure, Fault};
use crate::front::Source;

/// A connection in use.
pub struct ActiveConnection {
    pub source: Arc<Source>,
    /// `None`: it is back in the pool, or closed.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    pub timer: Timer,
    /// Bytes received at the last restart of the timer.
    heard: u64,
    /// Nothing but HTTP runs on it: no TLS, no proxy.
    pub is_clear: bool,
}

impl ActiveConnection {
    /// `connection` for a request. `is_clear`: neither TLS nor a proxy is in between.
    pub fn new(connection: Connection, pool: &Arc<Pool>, timer: Timer, is_clear: bool) -> Self {
        connection.source.begin_request();
        let source = Arc::clone(&connection.source);
        Self { source, connection: Some(connection), pool: Arc::clone(pool), timer, heard: 0, is_clear }
    }

    /// Sends as many bytes of these parts as it can at once; returns how many. `is_direct`: the link is the socket itself and has no earlier
    /// bytes to send, so that the socket may take the parts without a copy.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn send(&mut self, parts: &[IoSlice<'_>], is_direct: &mut bool) -> Result<usize, ureq::Error> {
        if *is_direct {
            if let Ok(taken @ 1..) = self.source.send(parts) {
                return Ok(taken);
            }
            // The link sends the rest, and learns why the socket took no more.
            *is_direct = false;
        }
        let Some(Connection { link, .. }) = &mut self.connection else {
            return Err(ureq::Error::ConnectionFailed);
        };
        link.send(parts)
    }

    /// Reads the part of the response at hand; `false` at the connection's end.
    ///
    /// # Errors
    /// `WouldBlock`: no more input yet. The connection has failed.
    pub fn more(&mut self, now: Instant) -> Result<bool, ureq::Error> {
        let more = self.receive();
        if self.source.received() != self.heard {
            self.heard = self.source.received();
            self.timer.restart(now);
        }
        more
    }

    fn receive(&mut self) -> Result<bool, ureq::Error> {
        let Some(Connection { link, .. }) = &mut self.connection else { return Ok(false) };
        link.await_input()
    }

    /// Reads once from the socket itself and appends to `buffer`; 0: the transport has to read.
    pub fn receive_behind(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Result<usize, ureq::Error> {
        if !self.source.is_readable() {
            return Ok(0);
        }
        let received = self.source.receive_behind(buffer)?;
        if received > 0 {
            self.heard = self.source.received();
            self.timer.restart(now);
        }
        Ok(received)
    }

    /// Sends the output that waits, as far as it goes at once, and reads nothing; returns whether bytes of a response are here all
    /// the same.
    pub fn flush(&mut self) -> Result<bool, ureq::Error> {
        match self.flush_and_look() {
            Err(error) if would_block(&error) => Ok(false),
            other => other,
        }
    }

    /// Like [`ActiveConnection::more`] without a read of the socket.
    fn flush_and_look(&mut self) -> Result<bool, ureq::Error> {
        // The link sends before it reads.
        self.source.hold_reads(true);
        let more = self.receive();
        self.source.hold_reads(false);
        more
    }

    /// Input that is not consumed yet.
    pub fn input(&mut self) -> &[u8] {
        self.connection.as_mut().map_or(&[], |connection| connection.link.buffers().input())
    }

    /// Consumes so many bytes of the input.
    pub fn consume(&mut self, count: usize) {
        if let Some(connection) = &mut self.connection {
            connection.link.buffers().input_consume(count);
        }
    }

    /// Consumes blank lines before a head: they have no meaning and do not end it.
    pub fn skip_blank_lines(&mut self) {
        let (input, mut count) = (self.input(), 0);
        while let [b'\r', b'\n', ..] | [b'\n', ..] = input[count..] {
            count += if input[count] == b'\r' { 2 } else { 1 };
        }
        self.consume(count);
    }

    /// Whether the link holds no input that the socket does not show: TLS may hold bytes that came with the response, and they
    /// would pass for the next one.
    fn is_silent(&mut self) -> bool {
        self.is_clear || self.flush_and_look().is_err_and(|error| would_block(&error))
    }

    /// Ends the use of the connection; `is_clean`: another request may use it.
    pub fn leave(&mut self, is_clean: bool) {
        // A second call changes nothing: the socket may be another worker's by now.
        if self.connection.is_none() {
            return;
        }
        let is_clean = is_clean && self.input().is_empty() && !self.source.is_unsent() && self.is_silent();
        self.source.release();
        if let Some(connection) = self.connection.take().filter(|_| is_clean) {
            self.pool.put(connection);
        }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.leave(false);
    }
}
/// Whether the error only says that there is no input yet.
pub fn would_block(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
/// The failure when the time limit passes.
pub fn failure_of_time() -> Failure {
    let detail = io::Error::from(io::ErrorKind::TimedOut).to_string();
    Failure { fault: Fault::TimedOut, detail }
}

/// The failure for an error of the connection.
pub fn failed(error: &ureq::Error, fault: Fault) -> Failure {
    Failure { fault, detail: error.to_string() }
}
