//! A request on a connection: sends it, then awaits its response, each as far as it goes at once.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use super::active::{ActiveConnection, failed, would_block};
use super::pool::{Connection, Pool};
use super::response::UpstreamResponse;
use super::timeouts::Timer;
use super::{Failure, Fault};
use crate::core::provider_request::RequestHead;
use crate::core::response_head::{self, Head, Start};
use crate::front::Source;
use crate::limits::{MAX_UPSTREAM_HEAD, PARTS_AT_ONCE, SENT_A_TURN, UPSTREAM_READ_BUFFER};

/// A request that is being sent, or whose response is awaited.
pub struct PendingResponse {
    active: Box<ActiveConnection>,
    /// The head of the request, until the whole request has left.
    request: RequestHead,
    /// The position up to which it has left.
    sent: Position,
    /// The connection was idle before.
    is_reused: bool,
    /// Bytes of the response have come, after decryption.
    has_begun: bool,
    /// Bytes of the response are at hand and not parsed yet.
    is_unseen: bool,
    /// The beginning of a head that is larger than the read buffer.
    held: Vec<u8>,
}

/// A position in a request, whose first piece is the head and whose others are the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    piece: usize,
    offset: usize,
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
    /// The provider has to take the bytes sent so far first.
    Blocked,
    /// It has used its share of this turn.
    Part,
}
impl PendingResponse {
    /// A request with that head, to be sent on `connection`. `is_clear`: neither TLS nor a proxy is in between.
    pub(super) fn new(
        connection: Connection,
        pool: &Arc<Pool>,
        request: RequestHead,
        timer: Timer,
        (is_clear, is_reused): (bool, bool),
    ) -> Self {
        let active = Box::new(ActiveConnection::new(connection, pool, timer, is_clear));
        let (sent, held) = (Position::default(), Vec::new());
        Self { active, request, sent, is_reused, has_begun: false, is_unseen: false, held }
    }

    /// Sends the rest of the request, whose body is in these pieces, as far as it goes at once.
    ///
    /// # Errors
    /// The connection was lost.
    pub fn send(&mut self, body: &[&[u8]], now: Instant) -> Result<Sent, Failure> {
        let (had_waited, before) = (self.active.source.is_unsent(), self.sent);
        let sent = self.send_on(body).map_err(|error| failed(&error, Fault::Broken))?;
        // Bytes that the provider takes after a wait are a sign of life; those that leave at once are not.
        if had_waited && (self.sent != before || sent == Sent::Whole) {
            self.active.timer.restart(now);
        }
        if sent == Sent::Whole {
            self.request = RequestHead::default();
        }
        Ok(sent)
    }

    fn send_on(&mut self, body: &[&[u8]]) -> Result<Sent, ureq::Error> {
        let Self { active, request, sent, is_unseen, .. } = self;
        if active.is_clear || active.source.is_unsent() {
            *is_unseen |= active.flush()?;
        }
        let (mut room, mut is_direct) = (SENT_A_TURN, active.is_clear);
        loop {
            if active.source.is_unsent() {
                return Ok(Sent::Blocked);
            }
            let mut parts = [IoSlice::new(b""); PARTS_AT_ONCE];
            let count = sent.fill(&mut parts, request.on_the_wire(), body, room);
            if count == 0 {
                break;
            }
            let taken = active.send(&parts[..count], &mut is_direct)?;
            sent.advance(taken, request.on_the_wire(), body);
            room -= taken;
        }
        if room == 0 && sent.piece <= body.len() {
            return Ok(Sent::Part);
        }
        *is_unseen |= active.flush()?;
        Ok(if active.source.is_unsent() { Sent::Blocked } else { Sent::Whole })
    }

    /// The response head, if it is complete. `is_committed`: the client has had its first byte.
    ///
    /// # Errors
    /// There will be no head. The time limit is no error here: see [`PendingResponse::deadline`].
    pub fn poll(&mut self, is_committed: bool, now: Instant) -> Result<Option<Head>, NoResponse> {
        loop {
            while std::mem::take(&mut self.is_unseen) {
                match self.start().map_err(broken)? {
                    Start::Partial => {}
                    Start::Interim(_) => self.is_unseen = !self.active.input().is_empty(),
                    Start::Final(head, _) => {
                        // Some servers end an idle connection with this (RFC 9110 section 15.5.9): it has
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
                // TLS ends with bytes of its own, which belong to no response.
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

    /// Parses the bytes at hand; consumes a complete head, and a part of one that fills the read buffer.
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
            // Parsed once, when it may be complete, not again for each of many small pieces.
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
        // The held bytes were consumed before, as a part of a head.
        self.active.consume(used.saturating_sub(before));
        Ok(start)
    }

    /// `may_repeat`: the request may be sent once more, where the connection was idle and the provider has sent nothing.
    fn no_response(&self, error: &ureq::Error, may_repeat: bool) -> NoResponse {
        if self.is_reused && !self.has_begun && may_repeat {
            return NoResponse::Stale;
        }
        NoResponse::Failed(failed(error, Fault::Broken))
    }

    /// When its time ends. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        self.active.timer.deadline(is_committed)
    }

    /// The socket of the connection.
    pub fn source(&self) -> &Arc<Source> {
        &self.active.source
    }

    /// The response with that head.
    pub fn into_response(self, head: Head) -> UpstreamResponse {
        UpstreamResponse::new(head, self.active)
    }
}
impl Position {
    /// Fills `parts` with the next bytes, at most `room` of them; returns the number of parts.
    fn fill<'a>(
        self,
        parts: &mut [IoSlice<'a>],
        head: &'a [u8],
        body: &[&'a [u8]],
        mut room: usize,
    ) -> usize {
        let (mut count, mut offset) = (0, self.offset);
        for piece in std::iter::once(head).chain(body.iter().copied()).skip(self.piece) {
            if count == parts.len() || room == 0 {
                break;
            }
            let rest = &piece[offset..];
            let rest = &rest[..rest.len().min(room)];
            offset = 0;
            if !rest.is_empty() {
                parts[count] = IoSlice::new(rest);
                (count, room) = (count + 1, room - rest.len());
            }
        }
        count
    }

    /// Moves on by so many bytes; visits no piece twice.
    fn advance(&mut self, count: usize, head: &[u8], body: &[&[u8]]) {
        self.offset += count;
        for piece in std::iter::once(head).chain(body.iter().copied()).skip(self.piece) {
            if self.offset < piece.len() {
                break;
            }
            self.offset -= piece.len();
            self.piece += 1;
        }
    }
}

/// Whether the bytes contain a blank line, which ends a head.
fn ends_within(bytes: &[u8]) -> bool {
    [&b"\n\r\n"[..], b"\n\n"].iter().any(|end| memchr::memmem::find(bytes, end).is_some())
}
fn broken(detail: String) -> NoResponse {
    NoResponse::Failed(Failure { fault: Fault::Broken, detail })
}
#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{NoResponse, PendingResponse, Position, RequestHead, SENT_A_TURN, Sent, UpstreamResponse};
    use crate::upstream::in_memory::Peer;
    use crate::upstream::pool::{Connection, Pool};
    use crate::upstream::response::{Collected, Whole};
    use crate::upstream::timeouts::{Timeouts, Timer};
    use crate::upstream::{Failure, Fault};

    /// A request to a provider that sends these pieces, then nothing or the end.
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
        let connection = Connection::new(peer.link(), "http://a", 0);
        let timer = Timer::new(Timeouts::default(), Instant::now());
        let pending =
            PendingResponse::new(connection, &pool, RequestHead::default(), timer, (false, is_reused));
        (pending, peer, pool)
    }

    /// The whole body; the read never waits.
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

    /// The status and the body, or the failure, and whether the connection went back to its pool.
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

    /// The bytes of a request that have left where so many are offered, and so many taken, at once; and the position then.
    fn taken(head: &[u8], body: &[&[u8]], step: usize, room: usize) -> (Vec<u8>, Position) {
        let (mut position, mut all) = (Position::default(), Vec::new());
        loop {
            let mut parts = [IoSlice::new(b""); 3];
            let count = position.fill(&mut parts, head, body, room);
            let offered: Vec<u8> = parts[..count].iter().flat_map(|part| part.iter().copied()).collect();
            assert!(offered.len() <= room);
            if count == 0 {
                return (all, position);
            }
            let step = step.min(offered.len());
            all.extend_from_slice(&offered[..step]);
            position.advance(step, head, body);
        }
    }

    #[test]
    fn request_of_many_pieces_leaves_in_order_however_much_is_taken_at_once() {
        let many: Vec<Vec<u8>> = (0..20u8).map(|piece| vec![piece; usize::from(piece % 4)]).collect();
        let body: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let whole = [b"head", &*body.concat()].concat();
        for (step, room) in (1..12).flat_map(|step| (1..12).map(move |room| (step, room))) {
            assert_eq!(taken(b"head", &body, step, room).0, whole, "{step} {room}");
        }
        assert_eq!(taken(b"head", &[], 9, 9), (b"head".to_vec(), Position { piece: 1, offset: 0 }));
        assert_eq!(taken(b"", &[b"", b"ab", b""], 9, 9), (b"ab".to_vec(), Position { piece: 4, offset: 0 }));
    }

    #[test]
    fn request_of_many_pieces_leaves_as_its_provider_takes_it() {
        let (mut pending, peer, _) = to_peer(false);
        let body = vec![&b"0123456789"[..]; 1_000];
        peer.set_room(4_321);
        assert_eq!(pending.send(&body, Instant::now()).ok(), Some(Sent::Blocked));
        peer.set_room(usize::MAX);
        assert_eq!(pending.send(&body, Instant::now()).ok(), Some(Sent::Whole));
        assert_eq!(peer.received(), body.concat());
        // One turn takes no more than its share.
        let (mut pending, peer, _) = to_peer(false);
        let large = vec![b'x'; SENT_A_TURN + 1];
        assert_eq!(pending.send(&[&large], Instant::now()).ok(), Some(Sent::Part));
        assert_eq!(peer.received().len(), SENT_A_TURN);
        assert_eq!(pending.send(&[&large], Instant::now()).ok(), Some(Sent::Whole));
        assert_eq!(peer.received(), b"x");
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
        // As with TLS, which had no room for it yet.
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
