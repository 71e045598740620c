//! Awaits the response head, which decides the next stage.

use super::await_body::{AwaitBody, content_type, is_binary, is_media};
use super::{Stage, Step};
use crate::api::relay::{Attempt, Relay};
use crate::upstream::{Fault, NoResponse, PendingResponse, UpstreamResponse, stream, unusable};

pub fn advance(mut pending: PendingResponse, relay: &mut Relay, attempt: &Attempt) -> Step {
    match pending.poll(relay.client_call.is_committed(), relay.now) {
        Ok(Some(head)) => relay.on_head(pending.into_response(head), attempt),
        Ok(None) => Stage::AwaitHead(pending).park(relay),
        Err(NoResponse::Stale) => Step::To(Stage::Begin { is_fresh: true }),
        Err(NoResponse::Failed(failure)) => Step::failed(failure),
    }
}

impl Relay {
    /// The next stage of a response that has begun.
    fn on_head(&mut self, response: UpstreamResponse, attempt: &Attempt) -> Step {
        self.client_call.adopt_id(Some(&response.headers), &attempt.choice.provider().name);
        let unusable = unusable::failure_of(response.status, &response.headers);
        // An empty body needs no decoding.
        let unusable = unusable.filter(|it| it.fault == Fault::Redirected || !response.is_over());
        if let Some(failure) = unusable {
            return Step::failed(failure);
        }
        let asked = self.call.body.stream;
        let is_good = (200..300).contains(&response.status) && response.status != 204;
        let is_labelled = stream::is_event_stream(&response.headers);
        // A request for speech asks for events with another member than `stream`.
        let is_speech = self.call.path.starts_with("/audio/speech");
        let is_wanted = asked || is_speech;
        if is_good && is_labelled && is_wanted {
            return self.stream(response, Vec::new(), true, attempt);
        }
        // Where a heartbeat has left, further ones may follow: the response becomes events.
        if !self.client_call.is_committed() {
            self.client_call.response.keep_quiet();
        }
        // Sound may begin with the same bytes as events.
        let kind = content_type(&response);
        let may_be_events = !is_media(kind) || (is_binary(kind) && !is_speech);
        if is_good && asked && !is_labelled && may_be_events {
            return Step::To(Stage::AwaitBody(Box::new(AwaitBody { response, first: Vec::new() })));
        }
        self.begun(response, Vec::new(), false, attempt)
    }
}
