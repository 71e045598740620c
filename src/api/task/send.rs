//! Sends the request, as far as its provider takes it.

use super::{Stage, Step};
use crate::api::relay::{Attempt, Relay};
use crate::upstream::{PendingResponse, Sent};

pub fn advance(mut pending: PendingResponse, relay: &mut Relay, attempt: &Attempt) -> Step {
    let now = relay.now;
    match relay.with_body(&attempt.choice, |body| pending.send(body, now)) {
        Ok(sent) => after(pending, sent, relay),
        Err(failure) => Step::failed(failure),
    }
}

/// The next step after so much of it was sent.
pub fn after(pending: PendingResponse, sent: Sent, relay: &mut Relay) -> Step {
    match sent {
        Sent::Whole => Step::To(Stage::AwaitHead(pending)),
        Sent::Blocked => Stage::Send(pending).park(relay),
        Sent::Part => Step::Yield(Stage::Send(pending)),
    }
}
