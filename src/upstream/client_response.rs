//! The client's side of a relayed call: nothing sent yet, or a stream that has begun. Heartbeats happen here.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::front::{Client, Done, Fields, Responder, Response, Stream};

/// What a stream's client hears while its provider is silent: a comment (WHATWG HTML section 9.2.6), and no blank line, which
/// some parsers take for the end of an event without data.
const HEARTBEAT: &[u8] = b": keep-alive\n";

/// The response to a relayed call, from the first attempt to its end.
pub struct ClientResponse {
    client: Arc<Client>,
    state: State,
    /// How often a heartbeat is due, for a request that asked for a stream.
    heartbeat: Option<Duration>,
    last_sent: Instant,
    /// Fields of a stream that begins with a heartbeat, before the provider said anything.
    early_fields: Fields,
    /// The client has the beginning of an event without its end: no comment may be put there.
    mid_event: bool,
    /// No heartbeat fits into what is being read.
    quiet: bool,
    started: Option<Instant>,
    bytes: u64,
}

enum State {
    Pending(Responder),
    Open(Stream),
    Ended,
}

impl ClientResponse {
    /// Nothing is sent yet. `heartbeat`: only for a request that asked for an event stream.
    pub fn new(responder: Responder, heartbeat: Option<Duration>) -> Self {
        Self {
            client: Arc::clone(responder.client()),
            state: State::Pending(responder),
            heartbeat,
            last_sent: Instant::now(),
            early_fields: Fields::default(),
            mid_event: false,
            quiet: false,
            started: None,
            bytes: 0,
        }
    }

    /// The client's socket.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// What this attempt gives is no stream of events: no heartbeat fits into it, or may come before it.
    pub fn keep_quiet(&mut self) {
        self.quiet = true;
    }

    /// Heartbeats fit into it after all.
    pub fn end_quiet(&mut self) {
        self.quiet = false;
    }

    /// An attempt begins: what a stream that begins with a heartbeat is to carry.
    pub fn promise(&mut self, early_fields: Fields) {
        self.early_fields = early_fields;
        self.quiet = false;
    }

    /// Whether a status has been sent: no attempt may follow then.
    pub fn is_committed(&self) -> bool {
        !matches!(self.state, State::Pending(_))
    }

    /// Whether the provider, not a heartbeat, has begun the stream.
    pub fn is_begun(&self) -> bool {
        self.started.is_some()
    }

    /// When the first byte of the provider's response went to the client.
    pub fn started(&self) -> Option<Instant> {
        self.started
    }

    /// Bytes of body sent, heartbeats not counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next heartbeat is due, if one may be sent at all.
    pub fn next_beat(&self) -> Option<Instant> {
        let heartbeat = self
            .heartbeat
            .filter(|_| !self.mid_event && !self.quiet && !matches!(self.state, State::Ended))?;
        self.last_sent.checked_add(heartbeat)
    }

    /// When it must be seen to even if its client reports nothing: the next heartbeat, or the end of the client's time to take what was
    /// flushed.
    pub fn deadline(&self) -> Option<Instant> {
        let taken_by = match &self.state {
            State::Open(stream) => stream.deadline(),
            State::Pending(_) | State::Ended => None,
        };
        self.next_beat().into_iter().chain(taken_by).min()
    }

    /// Sends a heartbeat if it is due; the first one commits the response to a 200.
    ///
    /// # Errors
    /// The client does not take it.
    pub fn beat(&mut self, now: Instant) -> io::Result<()> {
        if self.next_beat().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.last_sent = now;
        if let State::Pending(_) = self.state {
            let fields = self.early_fields.clone();
            self.open(200, &fields, None);
        }
        match &mut self.state {
            // Who does not take what there is needs no sign of life.
            State::Open(stream) if !stream.is_behind() => stream.push(HEARTBEAT),
            State::Open(_) | State::Pending(_) | State::Ended => {}
        }
        self.flush()
    }

    /// Sends what was written, as far as the client takes it now.
    ///
    /// # Errors
    /// The client does not take it any more.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Open(stream) => stream.flush(),
            State::Pending(_) | State::Ended => Ok(()),
        }
    }

    /// Whether the client has still to take what was flushed: there is no use in more.
    pub fn is_behind(&self) -> bool {
        matches!(&self.state, State::Open(stream) if stream.is_behind())
    }

    /// Begins a stream, of `length` bytes where that is known; where a heartbeat has begun it already, status and fields
    /// stay as they are.
    pub fn begin(&mut self, status: u16, fields: &Fields, length: Option<u64>) {
        self.started.get_or_insert_with(Instant::now);
        self.open(status, fields, length);
    }

    fn open(&mut self, status: u16, fields: &Fields, length: Option<u64>) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Pending(responder) => State::Open(responder.stream(status, fields, length)),
            other => other,
        };
    }

    /// Adds a piece of the stream, to leave with the next [`ClientResponse::flush`]; `mid_event`: an event is not complete behind it.
    pub fn write(&mut self, piece: &[u8], mid_event: bool) {
        self.last_sent = Instant::now();
        self.mid_event = mid_event;
        self.bytes += piece.len() as u64;
        if let State::Open(stream) = &mut self.state {
            stream.push(piece);
        }
    }

    /// Sends a buffered response; where a stream has begun already, ends its connection instead.
    pub fn send(&mut self, answer: Response) -> Option<Done> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Pending(responder) => {
                self.started.get_or_insert_with(Instant::now);
                self.bytes = answer.body.len() as u64;
                Some(responder.send(answer))
            }
            State::Open(stream) => Some(stream.abort()),
            State::Ended => None,
        }
    }

    /// Ends a stream as complete.
    pub fn finish(&mut self) -> Option<Done> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Pending(responder) => Some(responder.abandon()),
            State::Open(stream) => Some(stream.finish()),
            State::Ended => None,
        }
    }

    /// Ends a stream as broken off: with an event that says so, unless the client gets no events, and never cleanly.
    pub fn break_off(&mut self, event: Option<&[u8]>) -> Option<Done> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Pending(responder) => Some(responder.abandon()),
            State::Open(mut stream) => {
                if let Some(event) = event {
                    // An event cut in two must not swallow the one that tells of it.
                    let lead: &[u8] = if self.mid_event { b"\n\n" } else { b"" };
                    stream.push(&[lead, event].concat());
                }
                Some(stream.abort())
            }
            State::Ended => None,
        }
    }
}
