//! What is done with a stream between provider and client: events pass as they came, but for the provider's secrets in errors.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use super::events::Events;
use super::meter::{Measured, Meter};
use super::opening::{Opening, error_among};
use super::refusal::Refusal;
use super::stream::{Broke, Passage, Way, failed};
use super::{Fault, added_usage};
use crate::config::{Mask, Scope};
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
    told: Option<Refusal>,
    /// The event that is passed on in pieces holds an error.
    in_large_error: bool,
    /// The client did not ask for the event that only reports usage.
    hides_usage: bool,
    /// The end of its last piece, at most [`MASK_OVERLAP`] bytes: a secret may begin there.
    kept: Vec<u8>,
}

impl AsTheyCame {
    /// Events of which none has come; `is_patient`: another attempt may follow. `mask` is the provider's.
    pub fn new(meter: Meter, is_patient: bool, mask: Arc<Mask>) -> Self {
        let (held, kept) = (Vec::new(), Vec::new());
        let (has_announced, told, in_large_error, hides_usage) = (false, None, false, false);
        let outlet =
            Outlet { is_patient, held, has_announced, mask, told, in_large_error, hides_usage, kept };
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
    fn send(&mut self, part: &[u8], mid_event: bool, way: &mut Way) -> Result<(), Broke> {
        let shown = if self.hides_usage && !mid_event { added_usage::without(part) } else { None };
        match shown {
            Some(shown) if shown.is_empty() => Ok(()),
            Some(shown) => self.pass(&shown, mid_event, way),
            None => self.pass(part, mid_event, way),
        }
    }

    fn pass(&mut self, part: &[u8], mid_event: bool, way: &mut Way) -> Result<(), Broke> {
        if !self.in_large_error && ERROR.find(part).is_none() {
            return self.open(part, mid_event, way);
        }
        let part = self.masked(part, mid_event);
        self.open(&part, mid_event, way)
    }

    /// A part that holds an error, without the provider's secrets.
    fn masked(&mut self, part: &[u8], mid_event: bool) -> Vec<u8> {
        let mut part = [&std::mem::take(&mut self.kept), part].concat();
        let error = if mid_event || self.in_large_error { None } else { error_among(&part) };
        // What only speaks of errors is a good response.
        let is_error = error.is_some() || mid_event || self.in_large_error;
        self.told = error.or_else(|| self.told.take());
        self.in_large_error = mid_event;
        part = self.mask.hide(part, if is_error { Scope::All } else { Scope::Unmistakable });
        if mid_event {
            self.kept = part.split_off(part.len().saturating_sub(MASK_OVERLAP));
        }
        part
    }

    /// Looks at the first events, and decides whether they leave.
    fn open(&mut self, part: &[u8], mid_event: bool, way: &mut Way) -> Result<(), Broke> {
        if way.is_undecided() {
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
        self.release(way);
        way.send(part, mid_event);
        Ok(())
    }

    fn release(&mut self, way: &mut Way) {
        if !self.held.is_empty() {
            way.send(&std::mem::take(&mut self.held), false);
        }
    }
}

impl Passage for AsTheyCame {
    fn take(&mut self, piece: &[u8], way: &mut Way) -> Result<(), Broke> {
        let Self { events, outlet } = self;
        events.pass(piece, |part, mid_event| outlet.send(part, mid_event, way))
    }

    fn end(&mut self, by_closing: bool, way: &mut Way) -> Result<(), Broke> {
        let rest = self.events.end();
        if self.events.is_truncated() || (by_closing && !self.events.is_over()) {
            return Err(failed(Fault::CutOff, "ended before its last event".to_owned()));
        }
        if !way.is_begun && matches!(Opening::of(&rest), Opening::Nothing | Opening::Announcement) {
            return Err(failed(Fault::CutOff, "ended before its first event".to_owned()));
        }
        self.outlet.send(&rest, false, way)
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

    fn told(&mut self) -> Option<Refusal> {
        self.outlet.told.take()
    }

    fn has_announced(&self) -> bool {
        self.outlet.has_announced
    }

    fn release(&mut self, way: &mut Way) {
        self.outlet.release(way);
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

impl Passage for Bytes {
    fn take(&mut self, piece: &[u8], way: &mut Way) -> Result<(), Broke> {
        self.held.extend_from_slice(piece);
        let kept = self.mask.overwrite(&mut self.held);
        let passed = self.held.len() - kept;
        // No comment fits into what is no stream of events.
        self.meter.plain(piece.len());
        way.send(&self.held[..passed], true);
        self.held.drain(..passed);
        Ok(())
    }

    fn end(&mut self, _: bool, way: &mut Way) -> Result<(), Broke> {
        way.send(&self.held, false);
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        false
    }

    fn measured(&self) -> Measured {
        self.meter.measured()
    }
}
