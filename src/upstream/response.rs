//! The body of a response: read piece by piece, or collected, each as far as it goes at once.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::active::{ActiveConnection, failed, would_block};
use super::timeouts::Timeouts;
use super::{Failure, Fault, Headers};
use crate::core::body::Piece;
use crate::core::response_head::{Ending, Head};
use crate::front::Source;
use crate::limits::{PIECES_A_TURN, UPSTREAM_READ_BUFFER};
use crate::memory::{Holder, Share, Size};

/// A response whose body has still to be read.
pub struct UpstreamResponse {
    pub status: u16,
    /// Unchanged header fields.
    pub headers: Headers,
    active: Box<ActiveConnection>,
    body: Ending,
    keep_alive: bool,
}
impl UpstreamResponse {
    /// The response with that head, on its connection.
    pub(super) fn new(head: Head, active: Box<ActiveConnection>) -> Self {
        let (status, headers, body, keep_alive) = head.into_parts();
        Self { status, headers, active, body, keep_alive }
    }

    /// Reads the part of the body at hand; `None`: no more yet, 0: its end.
    ///
    /// # Errors
    /// `CutOff`: the body will not be complete. The time limit is no error here: see [`UpstreamResponse::deadline`].
    pub fn read(&mut self, into: &mut [u8], now: Instant) -> Result<Option<usize>, Failure> {
        outcome_of_read(self.read_on(into, now))
    }

    /// Like [`UpstreamResponse::read`]; appends to `buffer` without another copy. `None`: [`UpstreamResponse::read`] has to be called.
    fn read_behind(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Option<Result<Option<usize>, Failure>> {
        let (before, room) = (buffer.len(), buffer.capacity() - buffer.len());
        // Bytes after the body belong to no response.
        let has_place = room > 0 && self.length()? >= room as u64;
        if !has_place || !self.active.is_clear || !self.active.input().is_empty() {
            return None;
        }
        let count = match self.active.receive_behind(buffer, now) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) => return Some(outcome_of_read(Err(error))),
        };
        let taken = self.body.next(&buffer[before..]).map_err(ureq::Error::Io);
        self.active.source.deliver();
        if self.is_over() {
            self.active.leave(self.keep_alive);
        }
        Some(outcome_of_read(taken.map(|_| count)))
    }

    fn read_on(&mut self, into: &mut [u8], now: Instant) -> Result<usize, ureq::Error> {
        loop {
            if self.is_over() {
                self.active.leave(self.keep_alive);
                return Ok(0);
            }
            let filled = self.take(into)?;
            if filled > 0 {
                self.active.source.deliver();
                // From here on the next request may use its connection.
                if self.is_over() {
                    self.active.leave(self.keep_alive);
                }
                return Ok(filled);
            }
            if self.is_over() {
                continue;
            }
            if !self.active.more(now)? {
                let Ending::Closing = self.body else {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                };
                self.active.leave(false);
                return Ok(0);
            }
        }
    }

    /// Whether the whole body has been read, where its framing tells.
    pub fn is_over(&self) -> bool {
        self.body.is_reached()
    }

    /// Takes payload from the input at hand; returns how much.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let input = self.active.input();
        let (mut at, mut filled) = (0, 0);
        while at < input.len() && filled < into.len() && !self.body.is_reached() {
            let room = (into.len() - filled).min(input.len() - at);
            match self.body.next(&input[at..at + room]) {
                // The bytes before the error still pass, so that the place where a response breaks off does not depend on its pieces.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
                Ok(Piece::Framing(count)) => at += count,
                Ok(Piece::Payload(count)) => {
                    into[filled..filled + count].copy_from_slice(&input[at..at + count]);
                    (at, filled) = (at + count, filled + count);
                }
            }
        }
        self.active.consume(at);
        Ok(filled)
    }

    /// When its time ends. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        self.active.timer.deadline(is_committed)
    }

    /// The socket of the connection.
    pub fn source(&self) -> &Arc<Source> {
        &self.active.source
    }

    /// Whether there is certainly nothing more to read for now: with TLS there may be more, and an end counts as more.
    pub fn is_drained(&mut self) -> bool {
        self.active.is_clear
            && !self.active.source.is_readable()
            && self.active.input().is_empty()
            && !self.is_over()
    }

    /// Restarts the time of the provider, after the client has taken the output.
    pub fn restart_timer(&mut self, now: Instant) {
        self.active.timer.restart(now);
    }

    /// Gives the response the whole time of its request, because no other replica will be tried.
    pub fn take_time(&mut self) {
        self.active.timer.take_time();
    }

    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.active.timer.set(timeouts);
    }

    /// How many bytes of body are announced and have still to be read.
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Ending::Framed(decoder) => decoder.announced(),
            Ending::Closing => None,
        }
    }

    /// Whether only the end of the connection ends the body (RFC 9112 section 6.3).
    pub fn is_close_delimited(&self) -> bool {
        matches!(self.body, Ending::Closing)
    }
}
/// A body that is collected.
pub struct Whole {
    /// The bytes so far.
    pub bytes: Vec<u8>,
    /// Their memory.
    pub share: Share,
    max: usize,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// There is no more of it yet.
    Waits,
    /// It has more, and has used its share of this turn.
    Again,
    /// It is complete.
    Whole,
}

impl Whole {
    /// An empty beginning of a body that may have `max` bytes.
    pub fn new(max: usize) -> Self {
        Self::begun(Vec::new(), max)
    }

    /// The beginning of a body that may have `max` bytes.
    pub fn begun(bytes: Vec<u8>, max: usize) -> Self {
        let mut share = Share::new(Holder::Response);
        share.admit(bytes.capacity());
        Self { bytes, share, max }
    }

    /// Collects the part of the body at hand.
    ///
    /// # Errors
    /// As [`UpstreamResponse::read`]; `TooLarge`, at once where the length says so; `Overloaded` where there is no memory.
    pub fn collect(&mut self, response: &mut UpstreamResponse, now: Instant) -> Result<Collected, Failure> {
        for _ in 0..PIECES_A_TURN {
            match self.read_piece(response, now)? {
                None => return Ok(Collected::Waits),
                Some(0) => return Ok(Collected::Whole),
                Some(_) if response.is_over() => return Ok(Collected::Whole),
                Some(_) => {}
            }
        }
        Ok(Collected::Again)
    }

    /// As [`UpstreamResponse::read`].
    fn read_piece(
        &mut self,
        response: &mut UpstreamResponse,
        now: Instant,
    ) -> Result<Option<usize>, Failure> {
        let (filled, max) = (self.bytes.len(), self.max);
        let too_large = || Failure { fault: Fault::TooLarge, detail: format!("more than {max} bytes") };
        let due = response.length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if due.is_some_and(|due| due > max.saturating_sub(filled)) {
            return Err(too_large());
        }
        let room = due.unwrap_or(UPSTREAM_READ_BUFFER).min(UPSTREAM_READ_BUFFER);
        let size = match due {
            Some(due) => Size::Known(filled + due),
            None => Size::AtMost(max.saturating_add(room)),
        };
        if self.share.make_room(&mut self.bytes, room, size).is_err() {
            let detail = "no memory for its body".to_owned();
            return Err(Failure { fault: Fault::Overloaded, detail });
        }
        if let Some(read) = response.read_behind(&mut self.bytes, now) {
            return read;
        }
        self.bytes.resize(filled + room, 0);
        let read = response.read(&mut self.bytes[filled..], now);
        self.bytes.truncate(filled + *read.as_ref().unwrap_or(&None).as_ref().unwrap_or(&0));
        if self.bytes.len() > max {
            return Err(too_large());
        }
        read
    }
}

impl Ending {
    /// Whether the whole body has passed, where its framing tells.
    fn is_reached(&self) -> bool {
        matches!(self, Self::Framed(decoder) if decoder.is_done())
    }

    #[inline]
    fn next(&mut self, input: &[u8]) -> io::Result<Piece> {
        match self {
            Self::Framed(decoder) => {
                decoder.next(input).map_err(|_| io::Error::other("the framing of its body"))
            }
            Self::Closing => Ok(Piece::Payload(input.len())),
        }
    }
}
/// The result of a read of a body.
#[inline]
fn outcome_of_read(read: Result<usize, ureq::Error>) -> Result<Option<usize>, Failure> {
    match read {
        Err(error) if would_block(&error) => Ok(None),
        // The system ends a connection that is silent for very long.
        Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(failed(&error.into(), Fault::TimedOut))
        }
        other => other.map(Some).map_err(|error| failed(&error, Fault::CutOff)),
    }
}
