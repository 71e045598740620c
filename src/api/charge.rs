//! The charge of a call to its token's day: the tokens that its provider reports, else an estimate.

use super::relay::Relay;
use super::{Action, RequestContext, responses};
use crate::config::Replica;
use crate::front::Request;
use crate::upstream::meter::{Measured, Meter};
use crate::upstream::{Output, estimated_prompt as estimated_prompt_of};

/// Paths that count tokens and run no model.
const FREE: &[&str] = &["/v1/messages/count_tokens", "/v1/responses/input_tokens"];

/// Paths, after the provider's base URL, whose streams report usage where `stream_options` asks for it.
const WITH_STREAM_OPTIONS: &[&str] = &["/chat/completions", "/completions"];

impl Relay {
    /// The meter of a stream. A token without a daily limit has its streams measured by samples.
    pub(super) fn meter(&self) -> Meter {
        let is_limited = self.client_call.request.context.token().tokens_per_day.is_some();
        Meter::new(self.output(), is_limited)
    }

    /// Whether the request must ask this replica for the usage of a stream, where the client does not.
    pub(super) fn has_to_ask_for_usage(&self, replica: &Replica) -> bool {
        let path = self.call.path.split('?').next().unwrap_or_default();
        let request = &self.client_call.request.context;
        self.call.body.lacks_usage()
            && WITH_STREAM_OPTIONS.contains(&path)
            && replica.asks_for_usage(request.token().tokens_per_day.is_some())
    }

    /// The kind of the response's output.
    pub(super) fn output(&self) -> Output {
        Output::of(&self.call.path)
    }

    /// Notes the tokens of a call whose client left before its response began.
    pub(super) fn note_request(&mut self) {
        if self.client_call.request.context.endpoint.action != Action::StoredResponse {
            self.charge(Measured::default());
        }
    }

    /// Notes the tokens of a buffered response. A response made in the background reports them when it is fetched; any other
    /// stored response was charged when it was made.
    pub(super) fn note_document(
        &mut self,
        measured: Measured,
        made: Option<&str>,
        is_made_in_background: bool,
    ) {
        match self.client_call.request.context.endpoint.action {
            Action::StoredResponse => {
                let is_chargeable = |id: &String| is_made_in_background || self.gateway.charges.knows(id);
                let id = self.fetched_id().filter(|_| measured.is_reported()).filter(is_chargeable);
                if let Some(id) = id {
                    self.charge_once(&id, measured);
                }
            }
            Action::CreateResponse if self.call.body.is_background => match made {
                Some(id) if measured.is_reported() => self.charge_once(id, measured),
                Some(id) => drop(self.gateway.charges.charge(id, 0)),
                None if measured.is_reported() => self.charge(measured),
                None => {}
            },
            _ => self.charge(measured),
        }
    }

    /// Notes the tokens of a stream, which created the response `made`. A stored response that is streamed was made in the background.
    pub(super) fn note_stream(&mut self, measured: Measured, made: Option<&str>) {
        match self.client_call.request.context.endpoint.action {
            Action::StoredResponse => {
                if let Some(id) = self.fetched_id().filter(|id| !self.is_charged_already(id)) {
                    self.charge_once(&id, measured);
                }
            }
            Action::CreateResponse if self.call.body.is_background => match made {
                Some(id) => self.charge_once(id, measured),
                None => self.charge(measured),
            },
            _ => self.charge(measured),
        }
    }

    /// The stored response that the client gets with its tokens.
    fn fetched_id(&self) -> Option<String> {
        let head = &self.client_call.request.head;
        let is_whole = match head.method() {
            "GET" => !head.path().ends_with("/input_items"),
            "POST" => true,
            _ => false,
        };
        is_whole.then(|| responses::id_of(head.path()))
    }

    /// Whether this process has charged a response when it was made, not in the background.
    fn is_charged_already(&self, id: &str) -> bool {
        let was_made_here = self.gateway.response_owners.of(id).is_some_and(|owner| !owner.model.is_empty());
        was_made_here && !self.gateway.charges.knows(id)
    }

    /// Charges the part of a response that is not charged yet.
    fn charge_once(&mut self, id: &str, measured: Measured) {
        let used = measured.used(self.client_call.estimated_prompt);
        let charge = self.gateway.charges.charge(id, used.total());
        if charge > 0 {
            self.client_call.record.tokens = Some(used);
            self.client_call.charge = charge;
        }
    }

    fn charge(&mut self, measured: Measured) {
        let client_call = &mut self.client_call;
        if !FREE.contains(&client_call.request.head.path()) {
            let used = measured.used(client_call.estimated_prompt);
            client_call.record.tokens = Some(used);
            client_call.charge = used.total();
        }
    }
}

/// Tokens of the prompt, estimated from the body of the request.
pub(super) fn estimated_prompt(request: &Request<RequestContext>) -> u64 {
    // An endpoint for forms also takes JSON, which is no form.
    let is_form = request.context.endpoint.action == Action::RelayForm && !request.body.starts_with(b"{");
    estimated_prompt_of(&request.body, is_form)
}
