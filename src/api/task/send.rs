//! Sends the request, as far as its provider takes it.

use super::await_head::AwaitHead;
use super::{Stage, Step};
use crate::api::relay::{Attempt, Relay};
use crate::upstream::{PendingResponse, Sent};

/// A request that is being sent.
pub struct SendRequest(pub PendingResponse);

impl SendRequest {
    pub fn advance(mut self, relay: &mut Relay, attempt: &Attempt) -> Step {
        let now = relay.now;
        match relay.with_body(&attempt.choice, |body| self.0.send(body, now)) {
            Ok(sent) => self.after(sent, relay),
            Err(failure) => Step::failed(failure),
        }
    }

    /// The next step after so much of it was sent.
    pub fn after(self, sent: Sent, relay: &mut Relay) -> Step {
        match sent {
            Sent::Whole => Step::To(Stage::AwaitHead(AwaitHead(self.0))),
            Sent::Blocked => Stage::Send(self).park(relay),
            Sent::Part => Step::Yield(Stage::Send(self)),
        }
    }
}
