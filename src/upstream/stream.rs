//! A streamed answer on its way: complete events are sent on the moment they are complete, so that a heartbeat or an
//! error never falls inside one.

use std::cell::RefCell;
use std::rc::Rc;

use ureq::http::{HeaderMap, header};

use super::events::Events;
use super::refusal::{Opening, Refusal};
use super::usage::Usage;
use super::{Exchange, Failure, Fault, Reply};
use crate::front::Fields;
use crate::limits::{MAX_HELD_EVENT, RELAY_PIECE};

/// How a stream went.
#[derive(Debug)]
pub struct Ended {
    /// Why it broke off; `None`: it is complete.
    pub broke: Option<Broke>,
    /// Tokens it reported.
    pub usage: Option<Usage>,
    /// The id of the response that it began with.
    pub response_id: Option<String>,
}

/// Why a stream broke off.
#[derive(Debug)]
pub enum Broke {
    /// It failed on its way.
    Failed(Failure),
    /// Its first event, of which nothing has left for the client, says no; the event's data.
    Refused(Refusal, Vec<u8>),
}

/// Whether the answer is a stream of events in the clear.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii());
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    plain
        && kind.is_some_and(|kind| {
            kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
        })
}

/// Relays a stream to its end. The client's answer begins with the first event, so that until then a failure can
/// still become another attempt: [`Reply::is_begun`] tells. It is not ended here.
///
/// `patient`: comments ahead of the first event are held back, until a heartbeat is due, because a failure behind them
/// could still be mended.
pub fn relay(
    exchange: &mut Exchange,
    reply: &Rc<RefCell<Reply>>,
    fields: &Fields,
    max_size: usize,
    patient: bool,
) -> Ended {
    let mut events = is_event_stream(&exchange.headers).then(Events::default);
    let length = exchange.length().filter(|_| events.is_none());
    if length.is_some_and(|length| length > max_size as u64) {
        let detail = format!("more than {max_size} bytes");
        let failure = Failure { fault: Fault::TooLarge, detail };
        return Ended { broke: Some(Broke::Failed(failure)), usage: None, response_id: None };
    }
    let mut delivery = Delivery { reply, status: exchange.status, fields, length, patient, held: Vec::new() };
    let mut piece = vec![0; RELAY_PIECE];
    let mut size = 0;
    let broke = loop {
        let count = match exchange.read(&mut piece) {
            Err(failure) => break Some(Broke::Failed(failure)),
            Ok(0) => break end(exchange, &mut delivery, events.as_mut()).err(),
            Ok(count) => count,
        };
        // What is under the limit still goes, so that where a stream ends does not depend on how it was cut.
        let passed = count.min(max_size - size);
        size += passed;
        let sent = match &mut events {
            Some(events) => events.pass(&piece[..passed], |part, mid_event| delivery.send(part, mid_event)),
            // No comment fits into what is no stream of events.
            None => delivery.send_on(&piece[..passed], true),
        };
        if let Err(broke) = sent {
            break Some(broke);
        }
        if passed < count {
            let detail = format!("more than {max_size} bytes");
            break Some(Broke::Failed(Failure { fault: Fault::TooLarge, detail }));
        }
    };
    // Clients leave as soon as they have read the last event: nothing was lost then.
    let said_goodbye = events.as_ref().is_some_and(Events::said_goodbye);
    let left = |broke: &Broke| matches!(broke, Broke::Failed(Failure { fault: Fault::ClientGone, .. }));
    let broke = broke.filter(|broke| !(said_goodbye && left(broke)));
    let response_id = events.as_mut().and_then(Events::response_id);
    Ended { broke, usage: events.and_then(|events| events.usage()), response_id }
}

/// The provider's end: clean where its framing or its last event says so.
fn end(exchange: &Exchange, delivery: &mut Delivery<'_>, events: Option<&mut Events>) -> Result<(), Broke> {
    let Some(events) = events else { return delivery.send_on(&[], false) };
    let rest = events.end();
    if exchange.is_close_delimited() && !events.said_goodbye() {
        let detail = "closed before [DONE]".to_owned();
        return Err(Broke::Failed(Failure { fault: Fault::CutOff, detail }));
    }
    delivery.patient = false;
    delivery.send(&rest, false)
}

/// A stream's way to the client.
struct Delivery<'a> {
    reply: &'a Rc<RefCell<Reply>>,
    status: u16,
    fields: &'a Fields,
    length: Option<u64>,
    patient: bool,
    /// Comments ahead of the first event, in complete lines, at most [`MAX_HELD_EVENT`] bytes.
    held: Vec<u8>,
}

impl Delivery<'_> {
    /// Sends complete events on, or a piece of a large one; looks at the first.
    fn send(&mut self, part: &[u8], mid_event: bool) -> Result<(), Broke> {
        let undecided = {
            let reply = self.reply.borrow();
            !reply.is_begun() && !reply.is_committed()
        };
        if undecided {
            match Opening::of(part) {
                Opening::Nothing if self.patient && self.held.len() + part.len() <= MAX_HELD_EVENT => {
                    self.held.extend_from_slice(part);
                    return Ok(());
                }
                Opening::Refusal(refusal, data) => return Err(Broke::Refused(refusal, data)),
                Opening::Nothing | Opening::Event => {}
            }
        }
        self.send_on(part, mid_event)
    }

    fn send_on(&mut self, part: &[u8], mid_event: bool) -> Result<(), Broke> {
        let mut reply = self.reply.borrow_mut();
        reply.begin(self.status, self.fields, self.length);
        let held = std::mem::take(&mut self.held);
        for (piece, mid_event) in [(&held[..], false), (part, mid_event)] {
            if !piece.is_empty() {
                reply.write(piece, mid_event).map_err(|error| {
                    Broke::Failed(Failure { fault: Fault::ClientGone, detail: error.to_string() })
                })?;
            }
        }
        Ok(())
    }
}
