//! The client's side of a relayed call: nothing sent yet, or a stream that has begun. Heartbeats happen here.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::front::{Client, Done, Fields, Responder, Response};

/// Sent to a stream's client while its provider is silent: a comment (WHATWG HTML section 9.2.6) without a blank line, which
/// some parsers take for the end of an event without data.
const HEARTBEAT: &[u8] = b": keep-alive\n";

/// The response to a relayed call, from the first attempt to its end.
pub struct ClientResponse {
    responder: Responder,
    /// How often a heartbeat is due, for a request that asked for a stream.
    heartbeat: Option<Duration>,
    /// When this turn began.
    now: Instant,
    last_sent: Instant,
    /// Fields of a stream that begins with a heartbeat, before the provider's response.
    early_fields: Fields,
    /// The client has the beginning of an event without its end: no comment may be put there.
    mid_event: bool,
    /// No heartbeat fits into the response that is being read.
    quiet: bool,
    /// When the first byte of the provider's response went to the client.
    started: Option<Instant>,
    /// Bytes of body sent, heartbeats not counted.
    bytes: u64,
}

/// A response that has ended.
pub struct Finished {
    /// The front's proof of it.
    pub done: Done,
    /// Bytes of body sent, heartbeats not counted.
    pub bytes: u64,
    /// When the first byte of the provider's response went to the client.
    pub first_byte: Option<Instant>,
}

impl ClientResponse {
    /// Nothing is sent yet, and no heartbeat will be.
    pub fn new(responder: Responder, now: Instant) -> Self {
        Self {
            responder,
            heartbeat: None,
            now,
            last_sent: now,
            early_fields: Fields::default(),
            mid_event: false,
            quiet: false,
            started: None,
            bytes: 0,
        }
    }

    /// Makes heartbeats due from now on, where there is an interval: only for a request that asked for an event stream.
    pub fn expect_stream(&mut self, heartbeat: Option<Duration>, now: Instant) {
        (self.heartbeat, self.now, self.last_sent) = (heartbeat, now, now);
    }

    /// The client's socket.
    pub fn client(&self) -> &Arc<Client> {
        self.responder.client()
    }

    /// Begins a turn: `now` is the time of all its writes.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Stops heartbeats: the response of this attempt is no stream of events, so none fits into it or before it.
    pub fn keep_quiet(&mut self) {
        self.quiet = true;
    }

    /// Allows heartbeats again.
    pub fn end_quiet(&mut self) {
        self.quiet = false;
    }

    /// Sets the fields of an attempt for a stream that begins with a heartbeat.
    pub fn promise(&mut self, early_fields: Fields) {
        self.early_fields = early_fields;
        self.quiet = false;
    }

    /// Whether a status has been sent: no attempt may follow then.
    pub fn is_committed(&self) -> bool {
        self.responder.is_begun()
    }

    /// Whether the provider, not a heartbeat, has begun the stream.
    pub fn is_begun(&self) -> bool {
        self.started.is_some()
    }

    /// Whether the client has the beginning of an event without its end.
    pub fn is_mid_event(&self) -> bool {
        self.mid_event
    }

    /// When the next heartbeat is due, if one may be sent at all.
    pub fn next_beat(&self) -> Option<Instant> {
        let heartbeat = self.heartbeat.filter(|_| !self.mid_event && !self.quiet)?;
        self.last_sent.checked_add(heartbeat)
    }

    /// When it needs a turn even if its client reports nothing: at the next heartbeat, or at the end of the client's time to take the
    /// flushed bytes.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_beat().into_iter().chain(self.responder.deadline()).min()
    }

    /// Sends a heartbeat if it is due; the first one commits the response to a 200.
    ///
    /// # Errors
    /// The client does not take it.
    pub fn beat(&mut self) -> io::Result<()> {
        if self.next_beat().is_none_or(|due| self.now < due) {
            return Ok(());
        }
        self.last_sent = self.now;
        if !self.is_committed() {
            self.responder.begin(200, &self.early_fields, None);
        }
        // A client that does not take its output needs no sign of life.
        if !self.is_behind() {
            self.responder.push(HEARTBEAT);
        }
        self.flush()
    }

    /// Sends the output, as far as the client takes it now.
    ///
    /// # Errors
    /// The client does not take it any more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.responder.flush(self.now)
    }

    /// Whether the client has not taken all flushed bytes yet: more would only wait.
    pub fn is_behind(&self) -> bool {
        self.responder.is_behind()
    }

    /// Begins a stream, of `length` bytes if known. A heartbeat may have begun it already: then status and fields
    /// stay unchanged.
    pub fn begin(&mut self, status: u16, fields: &Fields, length: Option<u64>) {
        self.started.get_or_insert(self.now);
        if !self.is_committed() {
            self.responder.begin(status, fields, length);
        }
    }

    /// Adds a piece of the stream, to leave with the next [`ClientResponse::flush`]; `mid_event`: an event is not complete after it.
    pub fn write(&mut self, piece: &[u8], mid_event: bool) {
        self.last_sent = self.now;
        self.mid_event = mid_event;
        self.bytes += piece.len() as u64;
        self.responder.push(piece);
    }

    /// Sends a buffered response; closes the connection instead where a stream has begun already.
    pub fn send(mut self, response: Response) -> Finished {
        if !self.is_committed() {
            self.started.get_or_insert(self.now);
            self.bytes = response.body.len() as u64;
        }
        self.end(|responder| responder.send(response))
    }

    /// Ends a stream as complete.
    pub fn finish(self) -> Finished {
        self.end(Responder::finish)
    }

    /// Breaks a stream off: with an error event if the client gets events, and never with a clean end.
    pub fn break_off(mut self, event: Option<&[u8]>) -> Finished {
        if let Some(event) = event {
            // A truncated event must not swallow the error event.
            let lead: &[u8] = if self.mid_event { b"\n\n" } else { b"" };
            self.responder.push(&[lead, event].concat());
        }
        self.end(Responder::abort)
    }

    fn end(self, end: impl FnOnce(Responder) -> Done) -> Finished {
        Finished { done: end(self.responder), bytes: self.bytes, first_byte: self.started }
    }
}
