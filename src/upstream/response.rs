//! A request and its response on one connection: sent, then awaited, then read, each as far as it goes at once.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use ureq::unversioned::transport::NextTimeout;

use super::pool::{Connection, Pool};
use super::timeouts::{Timeouts, Timer};
use super::{Failure, Fault, Headers};
use crate::core::body::Piece;
use crate::core::provider_request::RequestHead;
use crate::core::response_head::{self, Ending, Head, Start};
use crate::front::Source;
use crate::limits::{MAX_UPSTREAM_HEAD, PARTS_AT_ONCE, PIECES_A_TURN, SENT_A_TURN, UPSTREAM_READ_BUFFER};
use crate::memory::{Holder, Share, Size};

/// A request that is being sent or has been: its response is awaited.
pub struct PendingResponse {
    active: Box<ActiveConnection>,
    /// The head of the request, until all of the request has left.
    request: RequestHead,
    /// Bytes of head and body that the connection has taken.
    sent: usize,
    /// It was idle before.
    is_reused: bool,
    /// Bytes of the response came, TLS taken off.
    has_begun: bool,
    /// Bytes of the response are here that have not been looked at.
    is_unseen: bool,
    /// The beginning of a head that is larger than the read buffer.
    held: Vec<u8>,
}

/// Why a request got no response.
#[derive(Debug)]
pub enum NoResponse {
    /// The provider had closed the connection while it was idle: the request may be sent once more, on a new one.
    Stale,
    Failed(Failure),
}

/// How far a request has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All of it has.
    Whole,
    /// The provider has to take what it was sent first.
    Blocked,
    /// It had its share of this turn.
    Part,
}

/// A response whose body has still to be read.
pub struct UpstreamResponse {
    /// Status code.
    pub status: u16,
    /// Header fields as they came.
    pub headers: Headers,
    active: Box<ActiveConnection>,
    body: Ending,
    keep_alive: bool,
}

/// A connection in use.
struct ActiveConnection {
    source: Arc<Source>,
    /// Until it has gone back to the pool.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    timer: Timer,
    /// Bytes that had come when the timer was last looked after.
    heard: u64,
    /// Nothing but HTTP runs on it: no TLS, no proxy.
    is_clear: bool,
}

impl ActiveConnection {
    /// Takes what has come of the response; `false` at the connection's end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing more has come. What the connection failed with.
    fn more(&mut self, now: Instant) -> Result<bool, ureq::Error> {
        let more = self.receive();
        if self.source.received() != self.heard {
            self.heard = self.source.received();
            self.timer.restart(now);
        }
        more
    }

    fn receive(&mut self) -> Result<bool, ureq::Error> {
        let Some(Connection { transport, .. }) = &mut self.connection else { return Ok(false) };
        transport.await_input(NextTimeout::default())
    }

    /// Reads once from the socket itself and appends to `buffer`; 0: the transport has to read.
    fn receive_behind(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Result<usize, ureq::Error> {
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
    fn flush(&mut self) -> Result<bool, ureq::Error> {
        match self.flush_and_look() {
            Err(error) if would_block(&error) => Ok(false),
            other => other,
        }
    }

    /// As [`Line::more`], and the socket is not read.
    fn flush_and_look(&mut self) -> Result<bool, ureq::Error> {
        // The transport sends before it reads.
        self.source.hold_reads(true);
        let more = self.receive();
        self.source.hold_reads(false);
        more
    }

    fn input(&mut self) -> &[u8] {
        self.connection.as_mut().map_or(&[], |connection| connection.transport.buffers().input())
    }

    fn consume(&mut self, count: usize) {
        if let Some(connection) = &mut self.connection {
            connection.transport.buffers().input_consume(count);
        }
    }

    /// Takes off blank lines ahead of a head: they mean nothing, and are no end of it.
    fn skip_blank_lines(&mut self) {
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
    fn leave(&mut self, is_clean: bool) {
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

impl PendingResponse {
    /// A request with that head that is to be sent on `connection`. `is_clear`: neither TLS nor a proxy is in between.
    pub(super) fn new(
        connection: Connection,
        pool: &Arc<Pool>,
        request: RequestHead,
        timer: Timer,
        (is_clear, is_reused): (bool, bool),
    ) -> Self {
        connection.source.begin_request();
        let active = Box::new(ActiveConnection {
            source: Arc::clone(&connection.source),
            connection: Some(connection),
            pool: Arc::clone(pool),
            timer,
            heard: 0,
            is_clear,
        });
        Self { active, request, sent: 0, is_reused, has_begun: false, is_unseen: false, held: Vec::new() }
    }

    /// Sends what is left of the request, whose body is in these pieces, as far as it goes at once.
    ///
    /// # Errors
    /// The connection was lost.
    pub fn send(&mut self, body: &[&[u8]], now: Instant) -> Result<Sent, Failure> {
        let (had_waited, before) = (self.active.source.is_unsent(), self.sent);
        let sent = self.send_on(body).map_err(|error| failed(&error, Fault::Broken))?;
        // Bytes that the provider takes are a sign of life; those that leave at once are none.
        if had_waited && (self.sent > before || sent == Sent::Whole) {
            self.active.timer.restart(now);
        }
        if sent == Sent::Whole {
            self.request = RequestHead::default();
        }
        Ok(sent)
    }

    fn send_on(&mut self, body: &[&[u8]]) -> Result<Sent, ureq::Error> {
        let end = self.sent + SENT_A_TURN;
        if self.active.is_clear || self.active.source.is_unsent() {
            self.is_unseen |= self.active.flush()?;
        }
        // More pieces would be searched again for every few of them.
        if self.active.is_clear && !self.active.source.is_unsent() && body.len() < PARTS_AT_ONCE {
            self.send_from_its_place(body, end);
        }
        let Self { active, request, sent, is_unseen, .. } = self;
        let mut skipped = *sent;
        for piece in std::iter::once(request.on_the_wire()).chain(body.iter().copied()) {
            let mut rest = piece.get(skipped..).unwrap_or_default();
            skipped = skipped.saturating_sub(piece.len());
            while !rest.is_empty() {
                if active.source.is_unsent() {
                    return Ok(Sent::Blocked);
                }
                if *sent >= end {
                    return Ok(Sent::Part);
                }
                let Some(Connection { transport, .. }) = &mut active.connection else { break };
                let room = transport.buffers().output();
                let count = rest.len().min(room.len());
                room[..count].copy_from_slice(&rest[..count]);
                transport.transmit_output(count, NextTimeout::default())?;
                rest = &rest[count..];
                *sent += count;
            }
        }
        *is_unseen |= active.flush()?;
        Ok(if active.source.is_unsent() { Sent::Blocked } else { Sent::Whole })
    }

    /// Sends up to `end` without a copy, as far as the socket takes it at once. The transport sends the rest, and finds out why the socket
    /// took no more.
    fn send_from_its_place(&mut self, body: &[&[u8]], end: usize) {
        let Self { active, request, sent, .. } = self;
        loop {
            let (mut skipped, mut room) = (*sent, end.saturating_sub(*sent));
            let mut parts = [IoSlice::new(b""); PARTS_AT_ONCE];
            let mut count = 0;
            for piece in std::iter::once(request.on_the_wire()).chain(body.iter().copied()) {
                let rest = piece.get(skipped..).unwrap_or_default();
                skipped = skipped.saturating_sub(piece.len());
                let rest = &rest[..rest.len().min(room)];
                if !rest.is_empty() && count < parts.len() {
                    parts[count] = IoSlice::new(rest);
                    (count, room) = (count + 1, room - rest.len());
                }
            }
            if count == 0 {
                return;
            }
            match active.source.send(&parts[..count]) {
                Ok(taken) if taken > 0 => *sent += taken,
                _ => return,
            }
        }
    }

    /// The response's head, if it is whole by now. `is_committed`: the client has had its first byte.
    ///
    /// # Errors
    /// Why there will be none, but for the time it takes: [`PendingResponse::deadline`] tells.
    pub fn poll(&mut self, is_committed: bool, now: Instant) -> Result<Option<Head>, NoResponse> {
        loop {
            while std::mem::take(&mut self.is_unseen) {
                match self.start().map_err(broken)? {
                    Start::Partial => {}
                    Start::Interim(_) => self.is_unseen = !self.active.input().is_empty(),
                    Start::Final(head, _) => {
                        // How some servers say that an idle connection is over (RFC 9110 section 15.5.9): it has
                        // crossed the request, or the request came too late.
                        let is_over = head.status() == 408 && !head.keep_alive();
                        if self.is_reused && is_over && !is_committed {
                            return Err(NoResponse::Stale);
                        }
                        return Ok(Some(head));
                    }
                }
            }
            match self.active.more(now) {
                Ok(true) => (self.is_unseen, self.has_begun) = (true, true),
                // TLS ends with bytes of its own, which are no part of a response.
                Ok(false) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof).into();
                    return Err(self.no_response(&error, !is_committed));
                }
                Err(error) if would_block(&error) => return Ok(None),
                Err(error) => {
                    let is_silent = self.active.source.received() == 0;
                    return Err(self.no_response(&error, is_silent && !is_committed));
                }
            }
        }
    }

    /// What the bytes that are here begin with; takes a head off that is whole, and the part of one that fills the read buffer.
    fn start(&mut self) -> Result<Start, String> {
        let before = self.held.len();
        if before == 0 {
            self.active.skip_blank_lines();
        }
        let input = self.active.input();
        let start = if before == 0 {
            response_head::start_of(input)?
        } else {
            self.held.extend_from_slice(input);
            // Read once, when it may be whole: not anew with each of many small pieces.
            let may_end = ends_within(&self.held[before.saturating_sub(3)..]);
            if may_end { response_head::start_of(&self.held)? } else { Start::Partial }
        };
        let arrived = self.active.input().len();
        let used = match &start {
            Start::Interim(used) | Start::Final(_, used) => *used,
            Start::Partial if before == 0 && arrived < UPSTREAM_READ_BUFFER => return Ok(start),
            Start::Partial => before + arrived,
        };
        if used > MAX_UPSTREAM_HEAD || (matches!(start, Start::Partial) && used == MAX_UPSTREAM_HEAD) {
            return Err(format!("a head of more than {MAX_UPSTREAM_HEAD} bytes"));
        }
        match start {
            Start::Partial if before == 0 => self.held.extend_from_slice(self.active.input()),
            Start::Partial => {}
            Start::Interim(_) | Start::Final(..) => self.held = Vec::new(),
        }
        // What was held has been taken off before: it was no whole head.
        self.active.consume(used.saturating_sub(before));
        Ok(start)
    }

    /// `may_repeat`: where the connection was idle and the provider has said nothing, the request may be sent once more.
    fn no_response(&self, error: &ureq::Error, may_repeat: bool) -> NoResponse {
        if self.is_reused && !self.has_begun && may_repeat {
            return NoResponse::Stale;
        }
        NoResponse::Failed(failed(error, Fault::Broken))
    }

    /// When the time it may take is over. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        self.active.timer.deadline(is_committed)
    }

    /// The socket that the response comes on.
    pub fn source(&self) -> &Arc<Source> {
        &self.active.source
    }

    /// The response of which that is the head.
    pub fn into_response(self, head: Head) -> UpstreamResponse {
        let (status, headers, body, keep_alive) = head.into_parts();
        UpstreamResponse { status, headers, active: self.active, body, keep_alive }
    }
}

impl UpstreamResponse {
    /// Reads what is at hand of the body; `None`: there is nothing more for now, 0: its end.
    ///
    /// # Errors
    /// `CutOff`: what there is says that there will be no whole body. Not the time it takes: [`UpstreamResponse::deadline`] tells.
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
                // Its connection is the next request's from here on.
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

    /// Takes payload from what is here; how much.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = &mut self.active.connection else { return Ok(0) };
        let buffers = connection.transport.buffers();
        let (mut at, mut filled) = (0, 0);
        let input = buffers.input();
        while at < input.len() && filled < into.len() && !self.body.is_reached() {
            let room = (into.len() - filled).min(input.len() - at);
            match self.body.next(&input[at..at + room]) {
                // What came before the error still passes: where a response breaks off does not depend on how its bytes came.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
                Ok(Piece::Framing(count)) => at += count,
                Ok(Piece::Payload(count)) => {
                    into[filled..filled + count].copy_from_slice(&input[at..at + count]);
                    (at, filled) = (at + count, filled + count);
                }
            }
        }
        buffers.input_consume(at);
        Ok(filled)
    }

    /// When the time it may take is over. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        self.active.timer.deadline(is_committed)
    }

    /// The socket that it comes on.
    pub fn source(&self) -> &Arc<Source> {
        &self.active.source
    }

    /// Whether it is certain that there is nothing more to read for now: behind TLS there may be, and an end is something.
    pub fn is_drained(&mut self) -> bool {
        self.active.is_clear
            && !self.active.source.is_readable()
            && self.active.input().is_empty()
            && !self.is_over()
    }

    /// The client has taken what came: the provider is waited for again.
    pub fn restart_timer(&mut self, now: Instant) {
        self.active.timer.restart(now);
    }

    /// It may take the whole time that its request has: what another replica would do no longer counts.
    pub fn take_time(&mut self) {
        self.active.timer.take_time();
    }

    /// From now on these are its time limits.
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

/// Whether a blank line is in there, with which a head ends.
fn ends_within(bytes: &[u8]) -> bool {
    [&b"\n\r\n"[..], b"\n\n"].iter().any(|end| memchr::memmem::find(bytes, end).is_some())
}

/// A body that is collected.
pub struct Whole {
    /// What there is of it.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub share: Share,
    max: usize,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// There is nothing more of it for now.
    Waits,
    /// It has more, and had its share of this turn.
    Again,
    /// All of it.
    Whole,
}

impl Whole {
    /// Nothing of a body that may have `max` bytes.
    pub fn new(max: usize) -> Self {
        Self::begun(Vec::new(), max)
    }

    /// The beginning of a body that may have `max` bytes.
    pub fn begun(bytes: Vec<u8>, max: usize) -> Self {
        let mut share = Share::new(Holder::Response);
        share.admit(bytes.capacity());
        Self { bytes, share, max }
    }

    /// Takes what is at hand of the body.
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

/// There is no more time.
pub fn failure_of_time() -> Failure {
    let detail = io::Error::from(io::ErrorKind::TimedOut).to_string();
    Failure { fault: Fault::TimedOut, detail }
}

fn failed(error: &ureq::Error, fault: Fault) -> Failure {
    Failure { fault, detail: error.to_string() }
}

fn broken(detail: String) -> NoResponse {
    NoResponse::Failed(Failure { fault: Fault::Broken, detail })
}

/// What a read of a body comes to.
#[inline]
fn outcome_of_read(read: Result<usize, ureq::Error>) -> Result<Option<usize>, Failure> {
    match read {
        Err(error) if would_block(&error) => Ok(None),
        // The system gives a connection up that is silent for very long.
        Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(failed(&error.into(), Fault::TimedOut))
        }
        other => other.map(Some).map_err(|error| failed(&error, Fault::CutOff)),
    }
}

fn would_block(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Collected, NoResponse, PendingResponse, RequestHead, UpstreamResponse, Whole};
    use crate::upstream::in_memory::Peer;
    use crate::upstream::pool::{Connection, Pool};
    use crate::upstream::timeouts::{Timeouts, Timer};
    use crate::upstream::{Failure, Fault};

    /// A request to a provider that sends these pieces, then nothing, or its end.
    fn pending(pieces: &[&[u8]], ends: bool, is_reused: bool) -> (PendingResponse, Arc<Pool>) {
        let (pending, peer, pool) = to_peer(is_reused);
        peer.be_ahead();
        pieces.iter().for_each(|piece| peer.send(piece));
        if ends {
            peer.end();
        }
        (pending, pool)
    }

    fn to_peer(is_reused: bool) -> (PendingResponse, Peer, Arc<Pool>) {
        let (peer, pool) = (Peer::open(), Pool::new(1, Duration::from_secs(60)));
        let connection = Connection::new(peer.transport(), "http://a", 0);
        let timer = Timer::new(Timeouts::default(), Instant::now());
        let pending =
            PendingResponse::new(connection, &pool, RequestHead::default(), timer, (false, is_reused));
        (pending, peer, pool)
    }

    /// The body, where there is nothing that it waits for.
    fn whole(response: &mut UpstreamResponse) -> Result<Vec<u8>, Failure> {
        let mut whole = Whole::new(100);
        loop {
            match whole.collect(response, Instant::now())? {
                Collected::Whole => return Ok(whole.bytes),
                Collected::Again => {}
                Collected::Waits => unreachable!("all is there"),
            }
        }
    }

    /// The status and the body, or what went wrong, and whether the connection went back to its pool.
    fn read(pieces: &[&[u8]], ends: bool) -> (Result<(u16, String), Fault>, bool) {
        let (mut pending, pool) = pending(pieces, ends, false);
        let read = || -> Result<(u16, String), Fault> {
            let head = match pending.poll(false, Instant::now()) {
                Ok(Some(head)) => head,
                Ok(None) => unreachable!("all is there"),
                Err(NoResponse::Failed(failure)) => return Err(failure.fault),
                Err(NoResponse::Stale) => unreachable!("the connection is new"),
            };
            let mut response = pending.into_response(head);
            let body = whole(&mut response).map_err(|failure| failure.fault)?;
            Ok((response.status, String::from_utf8_lossy(&body).into_owned()))
        };
        let read = read();
        (read, pool.take("http://a", 0, 0).is_some())
    }

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6  \r\n world\r\n0\r\n\r\n";
    const OF_LENGTH: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 11\r\n\r\nhello world";
    const TO_ITS_END: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello world";

    #[test]
    fn response_in_any_pieces_is_read_the_same() {
        let whole = |status| Ok((status, "hello world".to_owned()));
        for (response, status, ends, kept) in
            [(CHUNKED, 200, false, true), (OF_LENGTH, 404, false, true), (TO_ITS_END, 200, true, false)]
        {
            for at in 0..response.len() {
                let (one, two) = response.split_at(at);
                let pieces: Vec<&[u8]> = [one, two].into_iter().filter(|piece| !piece.is_empty()).collect();
                assert_eq!(read(&pieces, ends), (whole(status), kept), "{at}");
            }
            let single: Vec<&[u8]> = response.chunks(1).collect();
            assert_eq!(read(&single, ends), (whole(status), kept));
        }
    }

    #[test]
    fn response_cut_short_at_any_byte_fails() {
        for response in [CHUNKED, OF_LENGTH] {
            for at in 0..response.len() {
                let pieces: &[&[u8]] = if at == 0 { &[] } else { &[&response[..at]] };
                let (read, kept) = read(pieces, true);
                assert!(matches!(read, Err(Fault::Broken | Fault::CutOff)), "{at}: {read:?}");
                assert!(!kept, "{at}");
            }
        }
    }

    #[test]
    fn connection_with_bytes_after_its_response_is_not_reused() {
        let more = [OF_LENGTH, b"HTTP/1.1 200 OK\r\n"].concat();
        assert_eq!(read(&[&more], false), (Ok((404, "hello world".to_owned())), false));
        // As TLS does it: there was no room for it yet.
        let apart = [OF_LENGTH, b"HTTP/1.1 200 OK\r\n"];
        assert_eq!(read(&apart, false), (Ok((404, "hello world".to_owned())), false));
        let closes = String::from_utf8_lossy(OF_LENGTH).replace("x\r\n", "x\r\nConnection: close\r\n");
        assert_eq!(read(&[closes.as_bytes()], false), (Ok((404, "hello world".to_owned())), false));
    }

    #[test]
    fn response_with_broken_framing_fails() {
        for (response, fault) in [
            (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"[..], Fault::CutOff),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", Fault::CutOff),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Fault::Broken),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", Fault::TooLarge),
        ] {
            assert_eq!(
                read(&[response], false),
                (Err(fault), false),
                "{}",
                String::from_utf8_lossy(response)
            );
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        assert_eq!(read(&[long.as_bytes()], true), (Err(Fault::TooLarge), false));
    }

    #[test]
    fn bytes_before_broken_framing_are_relayed_in_any_pieces() {
        let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1z\r\n";
        for step in 1..=response.len() {
            let (mut pending, _) = pending(&response.chunks(step).collect::<Vec<_>>(), false, false);
            let Ok(Some(head)) = pending.poll(false, Instant::now()) else {
                unreachable!("its head is good")
            };
            let (mut response, mut body, mut piece) = (pending.into_response(head), Vec::new(), [0; 100]);
            let failure = loop {
                match response.read(&mut piece, Instant::now()) {
                    Ok(count) => body.extend_from_slice(&piece[..count.unwrap_or_default()]),
                    Err(failure) => break failure,
                }
            };
            assert_eq!((failure.fault, &*body), (Fault::CutOff, &b"ok"[..]), "in pieces of {step}");
        }
    }

    #[test]
    fn an_idle_connection_that_ends_without_a_byte_is_stale_and_one_that_says_something_is_not() {
        let (mut silent, _) = pending(&[], true, true);
        assert!(matches!(silent.poll(false, Instant::now()), Err(NoResponse::Stale)));
        let (mut fresh, _) = pending(&[], true, false);
        assert!(matches!(fresh.poll(false, Instant::now()), Err(NoResponse::Failed(_))));
        let (mut half, _) = pending(&[b"HTTP/1.1 2"], true, true);
        assert!(matches!(half.poll(false, Instant::now()), Err(NoResponse::Failed(_))));
        let over = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
        let (mut crossed, _) = pending(&[over], false, true);
        assert!(matches!(crossed.poll(false, Instant::now()), Err(NoResponse::Stale)));
        let (mut fresh, _) = pending(&[over], false, false);
        assert!(matches!(fresh.poll(false, Instant::now()), Ok(Some(head)) if head.status() == 408));
    }

    #[test]
    fn response_that_is_not_there_yet_is_read_later() {
        let (mut pending, peer, pool) = to_peer(false);
        peer.send(&OF_LENGTH[..40]);
        assert!(matches!(pending.poll(false, Instant::now()), Ok(None)));
        peer.send(&OF_LENGTH[40..66]);
        let Ok(Some(head)) = pending.poll(false, Instant::now()) else { unreachable!("the head is whole") };
        let mut response = pending.into_response(head);
        let mut whole = Whole::new(100);
        assert_eq!(whole.collect(&mut response, Instant::now()).ok(), Some(Collected::Waits));
        drop(response);
        assert!(peer.is_closed());
        assert!(pool.take("http://a", 0, 0).is_none());
    }
}
