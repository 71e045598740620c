//! What is done with a stream between provider and client: events pass as they came, but for the provider's secrets in errors, in
//! large events, and beside the data.

use std::sync::{Arc, LazyLock};

use memchr::memchr2;
use memchr::memmem::Finder;

use super::events::Events;
use super::meter::{Measured, Meter};
use super::opening::{Opening, error_among};
use super::refusal::Refusal;
use super::stream::{Broke, Sink, StreamFilter, failed};
use super::{Fault, added_usage};
use crate::config::{Mask, Scope};
use crate::core::sse::Lines;
use crate::limits::{MASK_OVERLAP, MAX_HELD_EVENT};

/// What each event of an error holds.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("error"));

/// Events, passed on as they came.
pub struct AsTheyCame {
    events: Events,
    outlet: Outlet,
}

/// The way of events to the client.
struct Outlet {
    /// Another attempt may follow: events that only announce are held back, because another attempt can mend a failure after them.
    is_patient: bool,
    /// These events, at most [`MAX_HELD_EVENT`] bytes.
    held: Vec<u8>,
    /// There are more than comments among them.
    has_announced: bool,
    mask: Arc<Mask>,
    refusal: Option<Refusal>,
    /// The event that is passed on in pieces.
    large: Option<Large>,
    /// The client did not ask for the event that only reports usage.
    hides_usage: bool,
}

/// What is known of an event that is passed on in pieces.
#[derive(Default)]
struct Large {
    /// It holds the word `error`.
    speaks_of_error: bool,
    /// The end of its last piece, at most [`MASK_OVERLAP`] bytes: a secret, or the word, may begin there.
    kept: Vec<u8>,
}

impl AsTheyCame {
    /// Events of which none has come; `is_patient`: another attempt may follow. `mask` is the provider's.
    pub fn new(meter: Meter, is_patient: bool, mask: Arc<Mask>) -> Self {
        let (held, refusal, large) = (Vec::new(), None, None);
        let (has_announced, hides_usage) = (false, false);
        let outlet = Outlet { is_patient, held, has_announced, mask, refusal, large, hides_usage };
        Self { events: Events::new(meter), outlet }
    }

    /// The same; `hides_usage`: the event that only reports usage is kept from the client, which did not ask for it.
    pub fn hiding_usage(mut self, hides_usage: bool) -> Self {
        self.outlet.hides_usage = hides_usage;
        self
    }
}

impl Outlet {
    /// Sends complete events on that the client is to see, or a piece of a large one.
    fn send(&mut self, part: &[u8], mid_event: bool, sink: &mut Sink) -> Result<(), Broke> {
        let shown = if self.hides_usage && !mid_event { added_usage::without(part) } else { None };
        match shown {
            Some(shown) if shown.is_empty() => Ok(()),
            Some(shown) => self.pass(&shown, mid_event, sink),
            None => self.pass(part, mid_event, sink),
        }
    }

    /// Good events pass unsearched, but for what stands beside their data; errors and large events do not.
    fn pass(&mut self, part: &[u8], mid_event: bool, sink: &mut Sink) -> Result<(), Broke> {
        if mid_event || self.large.is_some() {
            let part = self.masked_piece(part, mid_event);
            return self.open(&part, mid_event, sink);
        }
        let scope = if ERROR.find(part).is_some() {
            let error = error_among(part);
            // What only speaks of errors is a good response.
            let scope = if error.is_some() { Scope::All } else { Scope::Unmistakable };
            self.refusal = error.or_else(|| self.refusal.take());
            scope
        } else if part.len() > MAX_HELD_EVENT || self.has_secret_beside_data(part) {
            Scope::Unmistakable
        } else {
            return self.open(part, mid_event, sink);
        };
        self.open(&self.mask.hidden(part, scope), mid_event, sink)
    }

    /// Whether a comment, an event's name or its id holds a secret.
    fn has_secret_beside_data(&self, events: &[u8]) -> bool {
        // Most parts are one line of data.
        let line = events.trim_ascii_end();
        if line.starts_with(b"data:") && memchr2(b'\n', b'\r', line).is_none() {
            return false;
        }
        let mut lines = Lines(events).filter(|line| !line.starts_with(b"data:"));
        lines.any(|line| self.mask.is_in(line, Scope::Unmistakable))
    }

    /// A piece of a large event, or its end and what follows, without the provider's secrets.
    fn masked_piece(&mut self, piece: &[u8], mid_event: bool) -> Vec<u8> {
        let Large { speaks_of_error, kept } = self.large.take().unwrap_or_default();
        let piece = [&kept, piece].concat();
        let speaks_of_error = speaks_of_error || ERROR.find(&piece).is_some();
        if speaks_of_error && !mid_event {
            self.refusal = error_among(&piece).or_else(|| self.refusal.take());
        }
        let scope = if speaks_of_error { Scope::All } else { Scope::Unmistakable };
        let mut piece = self.mask.hide(piece, scope);
        if mid_event {
            let kept = piece.split_off(piece.len().saturating_sub(MASK_OVERLAP));
            self.large = Some(Large { speaks_of_error, kept });
        }
        piece
    }

    /// Looks at the first events, and decides whether they leave.
    fn open(&mut self, part: &[u8], mid_event: bool, sink: &mut Sink) -> Result<(), Broke> {
        if sink.is_undecided() {
            let opening = if self.is_patient { Opening::of(part) } else { Opening::of_first(part) };
            match opening {
                Opening::Refusal(refusal, data) => return Err(Broke::Refused(refusal, data)),
                opening @ (Opening::Nothing | Opening::Announcement)
                    if self.is_patient && self.held.len() + part.len() <= MAX_HELD_EVENT =>
                {
                    self.has_announced |= opening == Opening::Announcement;
                    self.held.extend_from_slice(part);
                    return Ok(());
                }
                Opening::Nothing | Opening::Announcement | Opening::Content => {}
            }
        }
        self.release(sink);
        sink.send(part, mid_event);
        Ok(())
    }

    fn release(&mut self, sink: &mut Sink) {
        if !self.held.is_empty() {
            sink.send(&std::mem::take(&mut self.held), false);
        }
    }
}

impl StreamFilter for AsTheyCame {
    fn take(&mut self, piece: &[u8], sink: &mut Sink) -> Result<(), Broke> {
        let Self { events, outlet } = self;
        events.pass(piece, |part, mid_event| outlet.send(part, mid_event, sink))
    }

    fn end(&mut self, by_closing: bool, sink: &mut Sink) -> Result<(), Broke> {
        // It is one piece a stream, and may be the beginning of anything.
        let rest = self.outlet.mask.hide(self.events.end(), Scope::Unmistakable);
        if self.events.is_truncated() || (by_closing && !self.events.is_over()) {
            return Err(failed(Fault::CutOff, "ended before its last event".to_owned()));
        }
        if !sink.is_begun() && matches!(Opening::of(&rest), Opening::Nothing | Opening::Announcement) {
            return Err(failed(Fault::CutOff, "ended before its first event".to_owned()));
        }
        self.outlet.send(&rest, false, sink)
    }

    fn is_over(&mut self) -> bool {
        self.events.is_over()
    }

    fn measured(&self) -> Measured {
        self.events.measured()
    }

    fn response_id(&mut self) -> Option<String> {
        self.events.response_id()
    }

    fn next_sequence(&mut self) -> u64 {
        self.events.next_sequence()
    }

    fn refusal(&mut self) -> Option<Refusal> {
        self.outlet.refusal.take()
    }

    fn has_announced(&self) -> bool {
        self.outlet.has_announced
    }

    fn release(&mut self, sink: &mut Sink) {
        self.outlet.release(sink);
    }
}

/// Bytes that are no events: sound, pictures, or what is labelled so.
pub struct Bytes {
    meter: Meter,
    mask: Arc<Mask>,
    /// The beginning of a secret, perhaps.
    held: Vec<u8>,
}

impl Bytes {
    /// Bytes that the meter counts, of a provider whose secrets that mask finds.
    pub fn new(meter: Meter, mask: Arc<Mask>) -> Self {
        Self { meter, mask, held: Vec::new() }
    }
}

impl StreamFilter for Bytes {
    fn take(&mut self, piece: &[u8], sink: &mut Sink) -> Result<(), Broke> {
        self.held.extend_from_slice(piece);
        let kept = self.mask.overwrite(&mut self.held);
        let passed = self.held.len() - kept;
        // No comment fits into what is no stream of events.
        self.meter.plain(piece.len());
        sink.send(&self.held[..passed], true);
        self.held.drain(..passed);
        Ok(())
    }

    fn end(&mut self, _: bool, sink: &mut Sink) -> Result<(), Broke> {
        sink.send(&self.held, false);
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        false
    }

    fn measured(&self) -> Measured {
        self.meter.measured()
    }
}
