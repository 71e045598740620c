//! A streamed response under way: each event is sent as soon as it is complete, so that a heartbeat or an
//! error never falls inside one.

use std::io;
use std::time::Instant;

use super::meter::Measured;
use super::refusal::Refusal;
use super::{ClientResponse, Failure, Fault, Headers, UpstreamResponse};
use crate::front::Fields;
use crate::limits::{MAX_HELD_EVENT, PIECES_A_TURN};
use crate::memory::{Holder, Share};

/// How a stream ended.
#[derive(Debug)]
pub struct Ended {
    /// Why it broke off; `None`: it is complete.
    pub broke: Option<Broke>,
    /// Its tokens, as far as they are known.
    pub measured: Measured,
    /// The id of the response that it began with.
    pub response_id: Option<String>,
    /// The number that a further event of the Responses API would have.
    pub next_sequence: u64,
    /// The error in an event after the first.
    pub refusal: Option<Refusal>,
}

/// Why a stream broke off.
#[derive(Debug)]
pub enum Broke {
    Failed(Failure),
    /// Its first event is an error, and none of it has left for the client; with the event's data.
    Refused(Refusal, Vec<u8>),
}

impl From<Broke> for Failure {
    /// A refusal after the first event breaks the stream.
    fn from(broke: Broke) -> Self {
        match broke {
            Broke::Failed(failure) => failure,
            Broke::Refused(..) => Self { fault: Fault::Broken, detail: "refused".to_owned() },
        }
    }
}

/// Whether the response is a stream of events in the clear.
pub fn is_event_stream(headers: &Headers) -> bool {
    let kind = headers.get("content-type").map(<[u8]>::trim_ascii);
    let plain = headers.get("content-encoding").is_none_or(|coding| coding == b"identity");
    plain
        && kind.is_some_and(|kind| {
            kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
        })
}

/// A stream under way. The client's response begins with the first event: until then a failure can still become
/// another attempt ([`ClientResponse::is_begun`]). The caller ends the response.
pub struct Relay {
    response: UpstreamResponse,
    filter: Box<dyn StreamFilter>,
    head: ResponseHead,
    /// Bytes received; at most `max_size`.
    size: usize,
    max_size: usize,
    /// The beginning of the body, read to learn its kind.
    first: Vec<u8>,
    /// There may be more to read: with TLS the socket alone does not show it.
    has_more: bool,
    /// The client had not taken all output at the last turn.
    is_behind: bool,
    /// The memory of an event of more than the usual size.
    share: Share,
}

/// Transforms a stream between provider and client.
pub trait StreamFilter: Send {
    /// Takes a piece of the stream, and sends the part that the client may get.
    ///
    /// # Errors
    /// Why the stream ends here.
    fn take(&mut self, piece: &[u8], sink: &mut Sink) -> Result<(), Broke>;

    /// The provider has ended the stream; `by_closing`: only the end of the connection ended it.
    ///
    /// # Errors
    /// It is incomplete; else as [`StreamFilter::take`].
    fn end(&mut self, by_closing: bool, sink: &mut Sink) -> Result<(), Broke>;

    /// Bytes held of an incomplete event, where they may exceed [`MAX_HELD_EVENT`].
    fn held(&self) -> usize {
        0
    }

    /// Whether an event has passed after which a provider sends nothing more.
    fn is_over(&mut self) -> bool;

    /// The tokens of the stream, as far as they are known.
    fn measured(&mut self) -> Measured;

    /// The id of the response that it began with.
    fn response_id(&mut self) -> Option<String> {
        None
    }

    /// The number that a further event of the Responses API would have.
    fn next_sequence(&mut self) -> u64 {
        0
    }

    /// The error in an event after the first.
    fn refusal(&mut self) -> Option<Refusal> {
        None
    }

    /// Whether an event has come, held back or not, so that the provider does not hang.
    fn has_announced(&self) -> bool {
        false
    }

    /// Sends the events that are held back: a heartbeat is due, so no other attempt may follow.
    fn release(&mut self, _sink: &mut Sink) {}
}

/// How far a stream has come.
#[derive(Debug)]
pub enum Progress {
    /// Nothing more has come, or the client must first take its output.
    Waits,
    /// There is more, and the stream has used its share of this turn.
    Again,
    Ended(Ended),
}

impl Relay {
    /// A stream whose beginning, `first`, has been read; the client's response has that `head`.
    ///
    /// # Errors
    /// `Content-Length` exceeds `max_size`.
    pub fn new(
        response: UpstreamResponse,
        first: Vec<u8>,
        filter: Box<dyn StreamFilter>,
        head: ResponseHead,
        max_size: usize,
    ) -> Result<Self, Failure> {
        if head.length.is_some_and(|length| length > max_size as u64) {
            return Err(too_large(max_size).into());
        }
        let share = Share::new(Holder::Response);
        let (size, has_more, is_behind) = (0, true, false);
        Ok(Self { response, filter, head, size, max_size, first, has_more, is_behind, share })
    }

    /// Relays the bytes at hand. `piece`: the buffer to read into.
    pub fn advance(&mut self, client: &mut ClientResponse, piece: &mut [u8], now: Instant) -> Progress {
        let has_news = self.response.source().is_readable();
        self.has_more |= has_news;
        // Without input, the reason of the turn is a deadline or the client.
        if !has_news || self.is_behind {
            if let Some(progress) = self.see_to_clock(client, now) {
                return progress;
            }
        }
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            if let Some(ended) = self.step(Ok(first.len()), &first, client) {
                return Progress::Ended(ended);
            }
        }
        for _ in 0..PIECES_A_TURN {
            if !self.has_more {
                break;
            }
            let read = match self.response.read(piece, now) {
                Ok(None) => {
                    self.has_more = false;
                    break;
                }
                Ok(Some(count)) => Ok(count),
                Err(failure) => Err(failure),
            };
            if let Some(ended) = self.step(read, piece, client) {
                return Progress::Ended(ended);
            }
            self.has_more = !self.response.is_drained();
        }
        match self.see_to_client(client, now) {
            Err(error) => Progress::Ended(self.client_gone(&error)),
            Ok(()) if self.has_more && !self.is_behind => Progress::Again,
            Ok(()) => Progress::Waits,
        }
    }

    /// When the provider's time ends. `None`: the client must first take its output, and the provider's time does not run.
    pub fn deadline(&self, is_committed: bool) -> Option<Instant> {
        (!self.is_behind).then(|| self.response.deadline(is_committed))
    }

    /// Whether its deadlines are the provider's and the next heartbeat's, which every event moves to a later time; another one comes
    /// when the client falls behind or is left within an event.
    pub fn is_flowing(&self, client: &ClientResponse) -> bool {
        !self.is_behind && !client.is_mid_event()
    }

    /// Ends the stream because its client has left.
    pub fn cancel(&mut self) -> Ended {
        self.client_gone(&io::ErrorKind::ConnectionAborted.into())
    }

    /// The provider's header fields.
    pub fn into_headers(self) -> Headers {
        self.response.headers
    }

    /// Sends the client its output.
    fn see_to_client(&mut self, client: &mut ClientResponse, now: Instant) -> io::Result<()> {
        client.flush()?;
        let is_behind = client.is_behind();
        if std::mem::replace(&mut self.is_behind, is_behind) && !is_behind {
            self.response.restart_timer(now);
        }
        Ok(())
    }

    /// Handles the client, its heartbeat and the provider's time limit; the progress where nothing may be read now.
    fn see_to_clock(&mut self, client: &mut ClientResponse, now: Instant) -> Option<Progress> {
        if client.next_beat().is_some_and(|due| now >= due) {
            let mut sink = Sink { client, head: &mut self.head };
            if sink.is_undecided() {
                self.filter.release(&mut sink);
            }
        }
        if let Err(error) = client.beat().and_then(|()| self.see_to_client(client, now)) {
            return Some(Progress::Ended(self.client_gone(&error)));
        }
        if self.is_behind {
            return Some(Progress::Waits);
        }
        let overdue = || failed(Fault::TimedOut, "timed out".to_owned());
        let is_overdue = now >= self.response.deadline(client.is_committed());
        is_overdue.then(|| Progress::Ended(self.ended(Some(overdue()))))
    }

    /// Handles the result of a read; `Some`: it ends the stream.
    fn step(
        &mut self,
        read: Result<usize, Failure>,
        piece: &[u8],
        client: &mut ClientResponse,
    ) -> Option<Ended> {
        let mut sink = Sink { client, head: &mut self.head };
        let broke = match read {
            // A stream after its terminal event is complete when the connection closes, also where the provider closes without
            // TLS's close_notify, or resets the connection.
            Err(Failure { fault: Fault::CutOff, .. })
                if self.response.is_close_delimited() && self.filter.is_over() =>
            {
                return Some(self.close(client));
            }
            Err(failure) => Some(Broke::Failed(failure)),
            Ok(0) => return Some(self.close(client)),
            Ok(count) => {
                // The bytes below the limit still pass: where a stream ends does not depend on how it came in pieces.
                let passed = count.min(self.max_size - self.size);
                self.size += passed;
                let taken = self.filter.take(&piece[..passed], &mut sink).err();
                let taken = taken.or_else(|| self.hold());
                if !self.head.is_begun && self.filter.has_announced() {
                    self.response.take_time();
                }
                taken.or_else(|| (passed < count).then(|| too_large(self.max_size)))
            }
        };
        broke.map(|broke| self.ended(Some(broke)))
    }

    /// Reserves memory for the bytes held of a large event; `Some`: there is none, and the stream ends.
    fn hold(&mut self) -> Option<Broke> {
        let held = self.filter.held();
        let counted = if held > MAX_HELD_EVENT { held } else { 0 };
        (!self.share.set(counted)).then(|| failed(Fault::Overloaded, "no memory for an event".to_owned()))
    }

    /// Handles the end of the provider's response.
    fn close(&mut self, client: &mut ClientResponse) -> Ended {
        let mut sink = Sink { client, head: &mut self.head };
        let broke = self.filter.end(self.response.is_close_delimited(), &mut sink).err();
        self.ended(broke)
    }

    fn client_gone(&mut self, error: &io::Error) -> Ended {
        self.ended(Some(failed(Fault::ClientGone, error.to_string())))
    }

    fn ended(&mut self, broke: Option<Broke>) -> Ended {
        // Clients leave as soon as they have read the last event: nothing was lost then.
        let left = |broke: &Broke| matches!(broke, Broke::Failed(Failure { fault: Fault::ClientGone, .. }));
        let broke = broke.filter(|broke| !(left(broke) && self.filter.is_over()));
        let filter = &mut self.filter;
        let measured = Measured { is_cut: broke.is_some(), ..filter.measured() };
        let (next_sequence, refusal) = (filter.next_sequence(), filter.refusal());
        Ended { broke, measured, response_id: filter.response_id(), next_sequence, refusal }
    }
}

pub(super) fn failed(fault: Fault, detail: String) -> Broke {
    Broke::Failed(Failure { fault, detail })
}

fn too_large(max_size: usize) -> Broke {
    failed(Fault::StreamTooLarge, format!("more than {max_size} bytes"))
}

/// The client's response head, unless a heartbeat has sent one.
pub struct ResponseHead {
    pub status: u16,
    /// Its header fields.
    pub fields: Fields,
    /// Bytes of body, if known.
    pub length: Option<u64>,
    /// The stream has sent it.
    pub is_begun: bool,
}

/// The output of a stream filter: the client's response.
pub struct Sink<'a> {
    /// The client's side.
    pub client: &'a mut ClientResponse,
    /// The head of its response.
    pub head: &'a mut ResponseHead,
}

impl Sink<'_> {
    /// Sends a piece, which leaves at the end of the turn; `mid_event`: it ends within an event.
    pub fn send(&mut self, part: &[u8], mid_event: bool) {
        let ResponseHead { status, fields, length, is_begun } = &mut *self.head;
        if !std::mem::replace(is_begun, true) {
            self.client.begin(*status, fields, *length);
        }
        if !part.is_empty() {
            self.client.write(part, mid_event);
        }
    }

    /// Whether something has been sent.
    pub fn is_begun(&self) -> bool {
        self.head.is_begun
    }

    /// Whether nothing has left for the client: the response may still become one of another kind.
    pub fn is_undecided(&self) -> bool {
        !self.head.is_begun && !self.client.is_committed()
    }
}
