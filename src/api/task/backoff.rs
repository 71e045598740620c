//! The pause between two attempts.

use std::time::Instant;

use super::{State, Task};
use crate::api::outcome::Finish;

impl Task {
    /// The next stage when the pause is over, or when the client has left or got a heartbeat meanwhile.
    pub(super) fn back_off(&mut self, until: Instant) -> Option<Result<State, Finish>> {
        let is_there = self.relay.see_to_client().is_ok();
        if is_there && self.relay.now < until {
            return None;
        }
        if !is_there || self.relay.client_call.is_committed() {
            return Some(Err(self.last()));
        }
        self.relay.plan.again();
        Some(self.next_attempt())
    }
}
