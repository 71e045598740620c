//! The filters of a relayed stream: events pass unchanged, except for the provider's secrets in errors, in
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

/// A word that every error event contains.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("error"));

/// Passes events unchanged.
pub struct AsTheyCame {
    events: Events,
    outlet: Outlet,
}

/// Sends events to the client, or holds them back.
struct Outlet {
    /// Another attempt may follow: events that only announce are held back, so that a failure after them can still lead to one.
    is_patient: bool,
    /// The events held back, at most [`MAX_HELD_EVENT`] bytes.
    held: Vec<u8>,
    /// The held bytes contain an event, not only comments.
    has_announced: bool,
    mask: Arc<Mask>,
    refusal: Option<Refusal>,
    /// The large event that passes in pieces.
    large: Option<Large>,
    /// The client did not ask for the event that only reports usage.
    hides_usage: bool,
}

/// The state of a large event that passes in pieces.
#[derive(Default)]
struct Large {
    /// It holds the word `error`.
    speaks_of_error: bool,
    /// The end of its last piece, at most [`MASK_OVERLAP`] bytes: a secret, or the word, may begin there.
    kept: Vec<u8>,
}

impl AsTheyCame {
    /// A filter for a stream that has not begun; `is_patient`: another attempt may follow. `mask` is the provider's.
    pub fn new(meter: Meter, is_patient: bool, mask: Arc<Mask>) -> Self {
        let (held, refusal, large) = (Vec::new(), None, None);
        let (has_announced, hides_usage) = (false, false);
        let outlet = Outlet { is_patient, held, has_announced, mask, refusal, large, hides_usage };
        Self { events: Events::new(meter), outlet }
    }

    /// `hides_usage`: the client does not get the event that only reports usage, because it did not ask for it.
    pub fn hiding_usage(mut self, hides_usage: bool) -> Self {
        self.outlet.hides_usage = hides_usage;
        self
    }
}

impl Outlet {
    /// Sends complete events, or a piece of a large one, if the client may have them.
    fn send(&mut self, part: &[u8], mid_event: bool, sink: &mut Sink) -> Result<(), Broke> {
        let shown = if self.hides_usage && !mid_event { added_usage::without(part) } else { None };
        match shown {
            Some(shown) if shown.is_empty() => Ok(()),
            Some(shown) => self.pass(&shown, mid_event, sink),
            None => self.pass(part, mid_event, sink),
        }
    }

    /// The mask searches errors, large events, and the lines beside the data; the data of other events passes unchanged.
    fn pass(&mut self, part: &[u8], mid_event: bool, sink: &mut Sink) -> Result<(), Broke> {
        if mid_event || self.large.is_some() {
            let part = self.masked_piece(part, mid_event);
            return self.open(&part, mid_event, sink);
        }
        let scope = if ERROR.find(part).is_some() {
            let error = error_among(part);
            // An event whose text only mentions errors is no error.
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

    /// A piece of a large event, or its end with the bytes after it, without the provider's secrets.
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

    /// Examines the first events, and decides whether they leave.
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
        // This happens once a stream; the piece may be the beginning of any event.
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

    fn measured(&mut self) -> Measured {
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

/// Passes bytes that are no events: sound, pictures, or a body labelled so.
pub struct Bytes {
    meter: Meter,
    mask: Arc<Mask>,
    /// Bytes that may begin a secret.
    held: Vec<u8>,
}

impl Bytes {
    /// A filter that counts with `meter` and hides what `mask` finds.
    pub fn new(meter: Meter, mask: Arc<Mask>) -> Self {
        Self { meter, mask, held: Vec::new() }
    }
}

impl StreamFilter for Bytes {
    fn take(&mut self, piece: &[u8], sink: &mut Sink) -> Result<(), Broke> {
        self.held.extend_from_slice(piece);
        let kept = self.mask.overwrite(&mut self.held);
        let passed = self.held.len() - kept;
        // Bytes are no events: no heartbeat fits between them.
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

    fn measured(&mut self) -> Measured {
        self.meter.measured()
    }
}
