//! What a call costs its token's day: the tokens that its provider reports, else an estimate.

use super::Action;
use super::inference::Relay;
use crate::front::Request;
use crate::upstream::Output;
use crate::upstream::meter::{Measured, Meter};

/// Paths that count tokens and run no model.
const FREE: &[&str] = &["/v1/messages/count_tokens", "/v1/responses/input_tokens"];

impl Relay {
    /// What measures the stream at hand. A token without a daily limit has its streams measured by samples.
    pub(super) fn meter(&self) -> Meter {
        let is_limited = self.delivery.request.ticket.token().tokens_per_day.is_some();
        Meter::new(self.output(), is_limited)
    }

    /// What the response consists of.
    pub(super) fn output(&self) -> Output {
        Output::of(&self.call.path)
    }

    /// Notes the tokens of the call. A stored response used them when it was made.
    pub(super) fn note_tokens(&mut self, measured: Measured) {
        let delivery = &mut self.delivery;
        let is_free = FREE.contains(&delivery.request.head.path());
        if is_free || delivery.request.ticket.action == Action::StoredResponse {
            return;
        }
        let used = measured.used(delivery.estimated_prompt);
        delivery.record.tokens = Some(used);
        delivery.charge = used.total();
    }
}

/// Tokens of the prompt, as far as the body of the request tells.
pub(super) fn estimated_prompt(request: &Request<super::Ticket>) -> u64 {
    crate::upstream::estimated_prompt(&request.body, request.ticket.action == Action::RelayForm)
}
