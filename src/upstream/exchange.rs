//! A request and its answer on one connection: sent, then awaited, then read. Each step can be taken on a thread that waits,
//! or as far as it goes at once and taken up again when the socket has more.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use ureq::unversioned::transport::NextTimeout;

use super::http::{self, Ending, Head, Start};
use super::pool::{Connection, Pool};
use super::wait::{Manner, Patience, Watched};
use super::{By, Failure, Fault, Headers};
use crate::front::Source;
use crate::front::body::Piece;
use crate::limits::{MAX_UPSTREAM_HEAD, PIECES_A_TURN, UPSTREAM_READ_BUFFER};
use crate::memory::{Holder, Share, Size};

/// A request that is on its way: its answer is awaited.
pub struct Awaited {
    line: Line,
    is_reused: bool,
    /// Bytes of the answer are here that have not been looked at.
    is_unseen: bool,
    /// The beginning of a head that is larger than the read buffer.
    held: Vec<u8>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The provider had closed the connection while it was idle: the request may be sent once more, on a new one.
    Stale,
    /// It failed.
    Failed(Failure),
}

/// An answer whose body has still to be read.
pub struct Exchange {
    /// Status code.
    pub status: u16,
    /// Header fields as they came.
    pub headers: Headers,
    line: Line,
    body: Ending,
    keep_alive: bool,
}

/// A connection in use, and what is known of its call.
pub(super) struct Line {
    /// Until it has gone back to the pool.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    watched: Watched,
}

impl Line {
    /// A connection that a call begins to use.
    pub fn new(connection: Connection, pool: &Arc<Pool>, watched: Watched) -> Self {
        Self { connection: Some(connection), pool: Arc::clone(pool), watched }
    }

    /// Writes these pieces, waiting where that is allowed.
    fn write<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<(), ureq::Error> {
        let Some(Connection { transport, .. }) = &mut self.connection else { return Ok(()) };
        self.watched.during(|| {
            for mut bytes in pieces {
                while !bytes.is_empty() {
                    let room = transport.buffers().output();
                    let count = bytes.len().min(room.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    transport.transmit_output(count, NextTimeout::default())?;
                    bytes = &bytes[count..];
                }
            }
            Ok(())
        })
    }

    /// Sees to it that what was written leaves; as far as it goes at once where nothing may be waited for.
    fn flush(&mut self) -> Result<(), ureq::Error> {
        // The transport sends before it reads, and is told to stop there.
        match self.more() {
            Err(error) if would_block(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Waits for more of the answer, where that is allowed; `false` at the connection's end.
    fn more(&mut self) -> Result<bool, ureq::Error> {
        let Some(Connection { transport, .. }) = &mut self.connection else { return Ok(false) };
        self.watched.during(|| transport.await_input(NextTimeout::default()))
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

    /// Whether nothing is here that the socket does not show: TLS may hold what came together with the answer, which would be
    /// taken for the next one.
    fn is_silent(&mut self) -> bool {
        if self.watched.facts().clear {
            return true;
        }
        self.watched.wait(Manner::Drained);
        self.more().is_err_and(|error| would_block(&error))
    }

    /// The call has done with the connection; `is_clean`: another may use it.
    fn leave(&mut self, is_clean: bool) {
        let is_clean =
            is_clean && self.input().is_empty() && !self.watched.facts().unsent && self.is_silent();
        self.watched.done_with_socket();
        if let Some(connection) = self.connection.take().filter(|_| is_clean) {
            self.pool.put(connection);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.leave(false);
    }
}

impl Awaited {
    /// Sends a request. Where nothing may be waited for, a part of it may have still to leave then: [`Awaited::is_sent`]
    /// tells.
    ///
    /// # Errors
    /// The connection was lost, or the call is over.
    pub(super) fn send(
        line: Line,
        head: &[u8],
        body: &[&[u8]],
        by: By,
        is_reused: bool,
    ) -> Result<Self, Failure> {
        let mut awaited = Self { line, is_reused, is_unseen: false, held: Vec::new() };
        let manner = if by == By::Idle { Manner::SendAtOnce } else { Manner::Send };
        awaited.line.watched.wait(manner);
        let line = &mut awaited.line;
        let pieces = std::iter::once(head).chain(body.iter().copied());
        match line.write(pieces).and_then(|()| line.flush()) {
            Ok(()) => Ok(awaited),
            Err(error) => Err(Failure::of(&line.watched, &error, Fault::Broken)),
        }
    }

    /// Whether the request has left whole.
    pub fn is_sent(&self) -> bool {
        !self.line.watched.facts().unsent
    }

    /// Sends what has still to leave, waiting for the provider to take it.
    ///
    /// # Errors
    /// As [`Awaited::send`].
    pub fn send_rest(&mut self) -> Result<(), Failure> {
        self.line.watched.wait(Manner::Send);
        self.line.flush().map_err(|error| Failure::of(&self.line.watched, &error, Fault::Broken))
    }

    /// Waits for the answer's head.
    ///
    /// # Errors
    /// Why there is none.
    pub fn wait(&mut self) -> Result<Head, Unanswered> {
        self.line.watched.wait(Manner::Patient);
        match self.read()? {
            Some(head) => Ok(head),
            None => Err(broken("no answer".to_owned())),
        }
    }

    /// The answer's head, if it is whole by now. `ended`: the provider has ended the connection behind what there is.
    ///
    /// # Errors
    /// Why there will be none, but for the time it takes: [`Awaited::is_overdue`] tells.
    pub fn poll(&mut self, ended: bool) -> Result<Option<Head>, Unanswered> {
        self.line.watched.wait_not(ended);
        self.read()
    }

    fn read(&mut self) -> Result<Option<Head>, Unanswered> {
        loop {
            while std::mem::take(&mut self.is_unseen) {
                match self.start().map_err(broken)? {
                    Start::Partial => {}
                    Start::Interim(_) => self.is_unseen = !self.line.input().is_empty(),
                    Start::Final(head, _) => {
                        // How some servers say that an idle connection is over (RFC 9110 section 15.5.9): it has
                        // crossed the request, or the request came too late.
                        let is_over = head.status == 408 && !head.keep_alive;
                        if self.is_reused && is_over && !self.line.watched.is_committed() {
                            return Err(Unanswered::Stale);
                        }
                        return Ok(Some(head));
                    }
                }
            }
            match self.line.more() {
                Ok(true) => {
                    self.is_unseen = true;
                    self.line.watched.note(|facts| facts.answered = true);
                }
                Ok(false) => {
                    self.line.watched.note(|facts| facts.ended_cleanly = true);
                    return Err(self.unanswered(&io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Err(error) if would_block(&error) => return Ok(None),
                Err(error) => return Err(self.unanswered(&error)),
            }
        }
    }

    /// What the bytes that are here begin with; takes a head off that is whole, and the part of one that fills the read buffer.
    fn start(&mut self) -> Result<Start, String> {
        let before = self.held.len();
        if before == 0 {
            self.line.skip_blank_lines();
        }
        let input = self.line.input();
        let start = if before == 0 {
            http::start_of(input)?
        } else {
            self.held.extend_from_slice(input);
            // Read once, when it may be whole: not anew with each of many small pieces.
            let may_end = ends_within(&self.held[before.saturating_sub(3)..]);
            if may_end { http::start_of(&self.held)? } else { Start::Partial }
        };
        let arrived = self.line.input().len();
        let used = match &start {
            Start::Interim(used) | Start::Final(_, used) => *used,
            Start::Partial if before == 0 && arrived < UPSTREAM_READ_BUFFER => return Ok(start),
            Start::Partial => before + arrived,
        };
        if used > MAX_UPSTREAM_HEAD || (matches!(start, Start::Partial) && used == MAX_UPSTREAM_HEAD) {
            return Err(format!("a head of more than {MAX_UPSTREAM_HEAD} bytes"));
        }
        match start {
            Start::Partial if before == 0 => self.held.extend_from_slice(self.line.input()),
            Start::Partial => {}
            Start::Interim(_) | Start::Final(..) => self.held = Vec::new(),
        }
        // What was held has been taken off before: it was no whole head.
        self.line.consume(used.saturating_sub(before));
        Ok(start)
    }

    fn unanswered(&self, error: &ureq::Error) -> Unanswered {
        let watched = &self.line.watched;
        if self.is_reused && watched.facts().is_unanswered() && !watched.is_committed() {
            return Unanswered::Stale;
        }
        Unanswered::Failed(Failure::of(watched, error, Fault::Broken))
    }

    /// Whether the time it may take is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.line.watched.is_overdue(now)
    }

    /// Its socket has something to read.
    pub fn woken(&mut self) {
        self.line.watched.woken();
    }

    /// The socket that the answer comes on.
    pub fn socket(&self) -> Option<Arc<Source>> {
        self.line.watched.socket()
    }

    /// The answer of which that is the head.
    pub fn into_exchange(self, head: Head) -> Exchange {
        let Head { status, headers, body, keep_alive } = head;
        Exchange { status, headers, line: self.line, body, keep_alive }
    }
}

impl Exchange {
    /// Reads what is at hand of the body, waiting for some; 0 at its end.
    ///
    /// # Errors
    /// Any [`Fault`] but `Unreachable` and `TooLarge`.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        self.line.watched.listen();
        self.line.watched.wait(Manner::Patient);
        self.read_on(into).map_err(|error| self.failure(&error))
    }

    /// Reads what is at hand of the body without waiting; `None`: there is nothing more for now. `ended`: the provider has
    /// ended the connection behind what there is.
    ///
    /// # Errors
    /// As [`Exchange::read`], and not for the time it takes: [`Exchange::is_overdue`] tells.
    pub fn read_at_once(&mut self, into: &mut [u8], ended: bool) -> Result<Option<usize>, Failure> {
        self.line.watched.wait_not(ended);
        match self.read_on(into) {
            Err(error) if would_block(&error) => Ok(None),
            other => other.map(Some).map_err(|error| self.failure(&error)),
        }
    }

    fn read_on(&mut self, into: &mut [u8]) -> Result<usize, ureq::Error> {
        loop {
            if self.is_over() {
                self.line.leave(self.keep_alive);
                return Ok(0);
            }
            let filled = self.take(into)?;
            if filled > 0 {
                self.line.watched.delivered();
                // Its connection is the next call's from here on.
                if self.is_over() {
                    self.line.leave(self.keep_alive);
                }
                return Ok(filled);
            }
            if self.is_over() {
                continue;
            }
            if !self.line.more()? {
                let Ending::Closing = self.body else {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                };
                self.line.leave(false);
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
        let Some(connection) = &mut self.line.connection else { return Ok(0) };
        let buffers = connection.transport.buffers();
        let (mut at, mut filled) = (0, 0);
        let input = buffers.input();
        while at < input.len() && filled < into.len() && !self.body.is_reached() {
            let room = (into.len() - filled).min(input.len() - at);
            match self.body.next(&input[at..at + room]) {
                // What stands before it is still given on: where an answer breaks off does not depend on how it came.
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

    fn failure(&self, error: &ureq::Error) -> Failure {
        let timed_out = matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut);
        let otherwise = if timed_out { Fault::TimedOut } else { Fault::CutOff };
        Failure::of(&self.line.watched, error, otherwise)
    }

    /// Whether the time it may take is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.line.watched.is_overdue(now)
    }

    /// Its socket has something to read.
    pub fn woken(&mut self) {
        self.line.watched.woken();
    }

    /// Whether it is certain that there is nothing more to read for now: behind TLS there may be, and an end is something.
    pub fn is_drained(&mut self) -> bool {
        let watched = &self.line.watched;
        let all_came = watched.is_drained() && watched.facts().clear;
        all_came && self.line.input().is_empty() && !self.is_over()
    }

    /// The client has taken what came: the provider is waited for again.
    pub fn listen(&mut self) {
        self.line.watched.listen();
    }

    /// It may take the whole time that its call has: what another replica would do no longer counts.
    pub fn take_time(&mut self) {
        self.line.watched.take_time();
    }

    /// Reads the body whole, waiting for it.
    ///
    /// # Errors
    /// As [`Exchange::read`]; `TooLarge` above `max` bytes, at once where the length says so; `Overloaded` where there is no memory.
    pub fn read_whole(&mut self, max: usize) -> Result<Vec<u8>, Failure> {
        let mut whole = Whole::new(max);
        while !whole.is_read(self, |exchange, room| exchange.read(room).map(Some))? {}
        Ok(whole.bytes)
    }

    /// How many bytes of body are announced and have still to be read.
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Ending::Framed(decoder) => decoder.announced(),
            Ending::Closing => None,
        }
    }

    /// From now on the provider has that much patience.
    pub fn be_patient(&mut self, patience: Patience) {
        self.line.watched.be_patient(patience);
    }

    /// Whether the end of the body is told by nothing but the end of the connection (RFC 9112 section 6.3).
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
    Source,
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

    /// Takes what is at hand of the body. `ended`: the provider has ended the connection behind what there is.
    ///
    /// # Errors
    /// As [`Exchange::read_at_once`]; `TooLarge`, at once where the length says so; `Overloaded` where there is no memory.
    pub fn collect(&mut self, exchange: &mut Exchange, ended: bool) -> Result<Collected, Failure> {
        for _ in 0..PIECES_A_TURN {
            let mut drained = false;
            let whole = self.is_read(exchange, |exchange, room| {
                let read = exchange.read_at_once(room, ended);
                drained = matches!(read, Ok(None));
                read
            })?;
            match (whole, drained) {
                (true, _) => return Ok(Collected::Whole),
                (false, true) => return Ok(Collected::Source),
                (false, false) => {}
            }
        }
        Ok(Collected::Again)
    }

    /// Reads a piece; whether it was the last one.
    fn is_read(
        &mut self,
        exchange: &mut Exchange,
        read: impl FnOnce(&mut Exchange, &mut [u8]) -> Result<Option<usize>, Failure>,
    ) -> Result<bool, Failure> {
        let (filled, max) = (self.bytes.len(), self.max);
        let too_large = || Failure { fault: Fault::TooLarge, detail: format!("more than {max} bytes") };
        let due = exchange.length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
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
        self.bytes.resize(filled + room, 0);
        let read = read(exchange, &mut self.bytes[filled..]);
        self.bytes.truncate(filled + *read.as_ref().unwrap_or(&None).as_ref().unwrap_or(&0));
        if self.bytes.len() > max {
            return Err(too_large());
        }
        Ok(read? == Some(0) || exchange.is_over())
    }
}

impl Ending {
    /// Whether the whole body has passed, where its framing tells.
    fn is_reached(&self) -> bool {
        matches!(self, Self::Framed(decoder) if decoder.is_done())
    }

    fn next(&mut self, input: &[u8]) -> io::Result<Piece> {
        match self {
            Self::Framed(decoder) => {
                decoder.next(input).map_err(|_| io::Error::other("the framing of its body"))
            }
            Self::Closing => Ok(Piece::Payload(input.len())),
        }
    }
}

impl Failure {
    /// What a failed step amounts to, where the call was not given up.
    pub(super) fn of(watched: &Watched, error: &ureq::Error, otherwise: Fault) -> Self {
        let fault = watched.facts().stop.map_or(otherwise, Fault::from);
        Self { fault, detail: error.to_string() }
    }
}

fn broken(detail: String) -> Unanswered {
    Unanswered::Failed(Failure { fault: Fault::Broken, detail })
}

fn would_block(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use ureq::Error;
    use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

    use super::{Awaited, Collected, Line, Unanswered, Whole};
    use crate::upstream::Fault;
    use crate::upstream::pool::{Connection, Pool};
    use crate::upstream::wait::{Facts, Patience, Watched};

    /// A provider that sends these pieces, then nothing, or its end.
    #[derive(Debug)]
    struct Scripted {
        buffers: LazyBuffers,
        pieces: VecDeque<Vec<u8>>,
        ends: bool,
    }

    impl Transport for Scripted {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
            match self.pieces.pop_front() {
                Some(piece) => {
                    self.buffers.input_append_buf()[..piece.len()].copy_from_slice(&piece);
                    self.buffers.input_appended(piece.len());
                    Ok(true)
                }
                None if self.ends => Ok(false),
                None => Err(Error::Io(io::ErrorKind::WouldBlock.into())),
            }
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    fn awaited(pieces: &[&[u8]], ends: bool, is_reused: bool) -> (Awaited, Arc<Pool>) {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        let transport = Scripted { buffers: LazyBuffers::new(1024, 64), pieces, ends };
        let pool = Pool::new(1, Duration::from_secs(60));
        let watched = Watched::new(Patience::default(), None, Facts::default());
        let line = Line::new(Connection::new(Box::new(transport), "http://a", 0), &pool, watched);
        (Awaited { line, is_reused, is_unseen: false, held: Vec::new() }, pool)
    }

    /// The status and the body, or what went wrong, and whether the connection went back to its pool.
    fn read(pieces: &[&[u8]], ends: bool) -> (Result<(u16, String), Fault>, bool) {
        let (mut awaited, pool) = awaited(pieces, ends, false);
        let read = || -> Result<(u16, String), Fault> {
            let head = match awaited.wait() {
                Ok(head) => head,
                Err(Unanswered::Failed(failure)) => return Err(failure.fault),
                Err(Unanswered::Stale) => unreachable!("the connection is new"),
            };
            let mut exchange = awaited.into_exchange(head);
            let body = exchange.read_whole(100).map_err(|failure| failure.fault)?;
            Ok((exchange.status, String::from_utf8_lossy(&body).into_owned()))
        };
        let read = read();
        (read, pool.take("http://a", 0).is_some())
    }

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6  \r\n world\r\n0\r\n\r\n";
    const OF_LENGTH: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 11\r\n\r\nhello world";
    const TO_ITS_END: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello world";

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let whole = |status| Ok((status, "hello world".to_owned()));
        for (answer, status, ends, kept) in
            [(CHUNKED, 200, false, true), (OF_LENGTH, 404, false, true), (TO_ITS_END, 200, true, false)]
        {
            for at in 0..answer.len() {
                let (one, two) = answer.split_at(at);
                let pieces: Vec<&[u8]> = [one, two].into_iter().filter(|piece| !piece.is_empty()).collect();
                assert_eq!(read(&pieces, ends), (whole(status), kept), "{at}");
            }
            let single: Vec<&[u8]> = answer.chunks(1).collect();
            assert_eq!(read(&single, ends), (whole(status), kept));
        }
    }

    #[test]
    fn every_answer_that_is_cut_short_is_told_from_a_whole_one() {
        for answer in [CHUNKED, OF_LENGTH] {
            for at in 0..answer.len() {
                let pieces: &[&[u8]] = if at == 0 { &[] } else { &[&answer[..at]] };
                let (read, kept) = read(pieces, true);
                assert!(matches!(read, Err(Fault::Broken | Fault::CutOff)), "{at}: {read:?}");
                assert!(!kept, "{at}");
            }
        }
    }

    #[test]
    fn a_connection_with_something_behind_the_answer_serves_no_other_request() {
        let more = [OF_LENGTH, b"HTTP/1.1 200 OK\r\n"].concat();
        assert_eq!(read(&[&more], false), (Ok((404, "hello world".to_owned())), false));
        // As TLS does it: there was no room for it yet.
        let apart = [OF_LENGTH, b"HTTP/1.1 200 OK\r\n"];
        assert_eq!(read(&apart, false), (Ok((404, "hello world".to_owned())), false));
        let closes = String::from_utf8_lossy(OF_LENGTH).replace("x\r\n", "x\r\nConnection: close\r\n");
        assert_eq!(read(&[closes.as_bytes()], false), (Ok((404, "hello world".to_owned())), false));
    }

    #[test]
    fn broken_framing_is_no_answer() {
        for (answer, fault) in [
            (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"[..], Fault::CutOff),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", Fault::CutOff),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Fault::Broken),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", Fault::TooLarge),
        ] {
            assert_eq!(read(&[answer], false), (Err(fault), false), "{}", String::from_utf8_lossy(answer));
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        assert_eq!(read(&[long.as_bytes()], true), (Err(Fault::TooLarge), false));
    }

    #[test]
    fn what_stands_before_broken_framing_is_given_on_however_it_came() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1z\r\n";
        for step in 1..=answer.len() {
            let (mut awaited, _) = awaited(&answer.chunks(step).collect::<Vec<_>>(), false, false);
            let Ok(head) = awaited.wait() else { unreachable!("its head is good") };
            let (mut exchange, mut body, mut piece) = (awaited.into_exchange(head), Vec::new(), [0; 100]);
            let failure = loop {
                match exchange.read(&mut piece) {
                    Ok(count) => body.extend_from_slice(&piece[..count]),
                    Err(failure) => break failure,
                }
            };
            assert_eq!((failure.fault, &*body), (Fault::CutOff, &b"ok"[..]), "in pieces of {step}");
        }
    }

    #[test]
    fn an_idle_connection_that_ends_without_a_byte_is_stale_and_one_that_says_something_is_not() {
        let (mut silent, _) = awaited(&[], true, true);
        assert!(matches!(silent.wait(), Err(Unanswered::Stale)));
        let (mut fresh, _) = awaited(&[], true, false);
        assert!(matches!(fresh.wait(), Err(Unanswered::Failed(_))));
        let (mut half, _) = awaited(&[b"HTTP/1.1 2"], true, true);
        assert!(matches!(half.wait(), Err(Unanswered::Failed(_))));
        let over = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
        let (mut crossed, _) = awaited(&[over], false, true);
        assert!(matches!(crossed.wait(), Err(Unanswered::Stale)));
        let (mut fresh, _) = awaited(&[over], false, false);
        assert!(matches!(fresh.wait(), Ok(head) if head.status == 408));
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for_by_nobody() {
        let (mut awaited, pool) = awaited(&[&OF_LENGTH[..40]], false, false);
        assert!(matches!(awaited.poll(false), Ok(None)));
        let mut exchange = match read_on(&mut awaited, &OF_LENGTH[40..66]) {
            Some(head) => awaited.into_exchange(head),
            None => unreachable!("the head is whole"),
        };
        let mut whole = Whole::new(100);
        assert_eq!(whole.collect(&mut exchange, false).ok(), Some(Collected::Source));
        drop(exchange);
        assert!(pool.take("http://a", 0).is_none());
    }

    fn read_on(awaited: &mut Awaited, more: &[u8]) -> Option<super::Head> {
        let buffers = awaited.line.connection.as_mut()?.transport.buffers();
        buffers.input_append_buf()[..more.len()].copy_from_slice(more);
        buffers.input_appended(more.len());
        awaited.is_unseen = true;
        awaited.poll(false).ok()?
    }
}
