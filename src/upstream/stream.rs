//! A streamed answer on its way: complete events are sent on the moment they are complete, so that a heartbeat or an
//! error never falls inside one.

use std::cell::RefCell;
use std::rc::Rc;

use ureq::http::{HeaderMap, header};

use super::events::Events;
use super::usage::Usage;
use super::{Exchange, Failure, Fault, Reply};
use crate::front::Fields;
use crate::limits::RELAY_PIECE;

/// How a stream went.
#[derive(Debug)]
pub struct Ended {
    /// Why it broke off; `None`: it is complete.
    pub failure: Option<Failure>,
    /// Tokens it reported.
    pub usage: Option<Usage>,
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

/// Relays a stream to its end. The client's answer begins with the first bytes, so that until then a failure can
/// still become another attempt: [`Reply::is_begun`] tells. It is not ended here.
pub fn relay(exchange: &mut Exchange, reply: &Rc<RefCell<Reply>>, fields: &Fields, max_size: usize) -> Ended {
    let mut events = is_event_stream(&exchange.headers).then(Events::default);
    let length = exchange.length().filter(|_| events.is_none());
    if length.is_some_and(|length| length > max_size as u64) {
        let failure = Failure { fault: Fault::TooLarge, detail: format!("more than {max_size} bytes") };
        return Ended { failure: Some(failure), usage: None };
    }
    let mut piece = vec![0; RELAY_PIECE];
    let mut size = 0;
    let failure = loop {
        let count = match exchange.read(&mut piece) {
            Err(failure) => break Some(failure),
            Ok(0) => break end(exchange, reply, fields, events.as_mut()).err(),
            Ok(count) => count,
        };
        // What is under the limit still goes, so that where a stream ends does not depend on how it was cut.
        let passed = count.min(max_size - size);
        size += passed;
        let mut reply = reply.borrow_mut();
        reply.begin(exchange.status, fields, length);
        let sent = match &mut events {
            Some(events) => events.pass(&piece[..passed], |part, mid_event| reply.write(part, mid_event)),
            // No comment fits into what is no stream of events.
            None => reply.write(&piece[..passed], true),
        };
        if let Err(error) = sent {
            break Some(Failure { fault: Fault::ClientGone, detail: error.to_string() });
        }
        if passed < count {
            break Some(Failure { fault: Fault::TooLarge, detail: format!("more than {max_size} bytes") });
        }
    };
    // Clients leave as soon as they have read the last event: nothing was lost then.
    let said_goodbye = events.as_ref().is_some_and(Events::said_goodbye);
    let failure = failure.filter(|failure| !(said_goodbye && failure.fault == Fault::ClientGone));
    Ended { failure, usage: events.and_then(|events| events.usage()) }
}

/// The provider's end: clean where its framing or its last event says so.
fn end(
    exchange: &Exchange,
    reply: &Rc<RefCell<Reply>>,
    fields: &Fields,
    events: Option<&mut Events>,
) -> Result<(), Failure> {
    let Some(events) = events else {
        reply.borrow_mut().begin(exchange.status, fields, exchange.length());
        return Ok(());
    };
    let rest = events.end();
    if exchange.is_close_delimited() && !events.said_goodbye() {
        return Err(Failure { fault: Fault::CutOff, detail: "closed before [DONE]".to_owned() });
    }
    let mut reply = reply.borrow_mut();
    reply.begin(exchange.status, fields, None);
    if rest.is_empty() {
        return Ok(());
    }
    let sent = reply.write(&rest, false);
    sent.map_err(|error| Failure { fault: Fault::ClientGone, detail: error.to_string() })
}
