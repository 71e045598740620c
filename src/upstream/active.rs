//! A connection to a provider while a request has it: what leaves on it, what has come, and the way back to the pool.

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
    /// Until it has gone back to the pool.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    pub timer: Timer,
    /// Bytes that had come when the timer was last looked after.
    heard: u64,
    /// Nothing but HTTP runs on it: no TLS, no proxy.
    pub is_clear: bool,
}

impl ActiveConnection {
    /// `connection`, for a request. `is_clear`: neither TLS nor a proxy is in between.
    pub fn new(connection: Connection, pool: &Arc<Pool>, timer: Timer, is_clear: bool) -> Self {
        connection.source.begin_request();
        let source = Arc::clone(&connection.source);
        Self { source, connection: Some(connection), pool: Arc::clone(pool), timer, heard: 0, is_clear }
    }

    /// Takes as many bytes of these parts as it can at once; how many. `is_direct`: its link is the socket itself and holds nothing that has
    /// to leave before them: the socket may take them from their place.
    ///
    /// # Errors
    /// What the connection failed with.
    pub fn send(&mut self, parts: &[IoSlice<'_>], is_direct: &mut bool) -> Result<usize, ureq::Error> {
        if *is_direct {
            if let Ok(taken @ 1..) = self.source.send(parts) {
                return Ok(taken);
            }
            // The link sends the rest, and finds out why the socket took no more.
            *is_direct = false;
        }
        let Some(Connection { link, .. }) = &mut self.connection else {
            return Err(ureq::Error::ConnectionFailed);
        };
        link.send(parts)
    }

    /// Takes what has come of the response; `false` at the connection's end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing more has come. What the connection failed with.
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

    /// Sends what has still to leave, as far as it goes at once, and reads nothing; whether something of a response is here all
    /// the same.
    pub fn flush(&mut self) -> Result<bool, ureq::Error> {
        match self.flush_and_look() {
            Err(error) if would_block(&error) => Ok(false),
            other => other,
        }
    }

    /// As [`ActiveConnection::more`], and the socket is not read.
    fn flush_and_look(&mut self) -> Result<bool, ureq::Error> {
        // The link sends before it reads.
        self.source.hold_reads(true);
        let more = self.receive();
        self.source.hold_reads(false);
        more
    }

    /// What has come and has not been taken off.
    pub fn input(&mut self) -> &[u8] {
        self.connection.as_mut().map_or(&[], |connection| connection.link.buffers().input())
    }

    /// Takes off so many bytes of what has come.
    pub fn consume(&mut self, count: usize) {
        if let Some(connection) = &mut self.connection {
            connection.link.buffers().input_consume(count);
        }
    }

    /// Takes off blank lines ahead of a head: they mean nothing, and are no end of it.
    pub fn skip_blank_lines(&mut self) {
        let (input, mut count) = (self.input(), 0);
        while let [b'\r', b'\n', ..] | [b'\n', ..] = input[count..] {
            count += if input[count] == b'\r' { 2 } else { 1 };
        }
        self.consume(count);
    }

    /// Whether nothing is here that the socket does not show: TLS may hold what came together with the response, which would be
    /// taken for the next one.
    fn is_silent(&mut self) -> bool {
        self.is_clear || self.flush_and_look().is_err_and(|error| would_block(&error))
    }

    /// The request has done with the connection; `is_clean`: another may use it.
    pub fn leave(&mut self, is_clean: bool) {
        // It has left before: the socket may be another worker's by now.
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
/// Whether there is nothing for now.
pub fn would_block(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
/// There is no more time.
pub fn failure_of_time() -> Failure {
    let detail = io::Error::from(io::ErrorKind::TimedOut).to_string();
    Failure { fault: Fault::TimedOut, detail }
}

/// What the connection failed with.
pub fn failed(error: &ureq::Error, fault: Fault) -> Failure {
    Failure { fault, detail: error.to_string() }
}
