//! Relays a streamed response, and decides what its end means.

use std::sync::Arc;

use super::document::Document;
use super::{Stage, Step};
use crate::api::client_call::add_stream_fields;
use crate::api::messages::Translation;
use crate::api::outcome::{BufferedResponse, Failed, Finish, Outcome, SUCCESS};
use crate::api::relay::{Attempt, Relay};
use crate::api::responses;
use crate::front::Io;
use crate::memory::{Holder, Share};
use crate::routing::{Choice, Verdict};
use crate::upstream::refusal::Refusal;
use crate::upstream::stream::{self, Broke, Ended, Progress, ResponseHead, StreamFilter};
use crate::upstream::stream_filter::{AsTheyCame, Bytes};
use crate::upstream::{Failure, Fault, Headers, Timeouts, UpstreamResponse};

/// A response under way, and facts of its beginning for its end.
pub struct Streaming {
    pub stream: stream::Relay,
    status: u16,
    /// The client gets events: one more event can report an error.
    is_events: bool,
    /// The client's request is no longer needed and was dropped.
    is_settled: bool,
}

impl Streaming {
    pub fn advance(mut self: Box<Self>, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
        let client = &mut relay.client_call.response;
        let was_flowing = self.is_settled && self.stream.is_flowing(client);
        let to = match self.stream.advance(client, io.scratch(), relay.now) {
            Progress::Waits => Step::Park,
            Progress::Again => Step::Yield,
            Progress::Ended(ended) => return Step::Ended(relay.stream_ended(*self, ended, &attempt.choice)),
        };
        if was_flowing && self.stream.is_flowing(client) {
            io.keep_deadline();
        }
        if !self.is_settled && client.is_begun() {
            // No other attempt follows, and the request may be large.
            relay.call.settle();
            relay.client_call.drop_body();
            self.is_settled = true;
        }
        to(Stage::Stream(self))
    }

    /// Ends the stream because the client has left.
    pub fn cancel(mut self, relay: &mut Relay, attempt: &Attempt) -> Outcome {
        let ended = self.stream.cancel();
        relay.stream_ended(self, ended, &attempt.choice)
    }
}

impl Relay {
    /// The stage for a response that is relayed while it arrives; `beginning`: the part of its body that was read to learn its kind.
    pub(super) fn stream(
        &mut self,
        mut response: UpstreamResponse,
        beginning: Vec<u8>,
        is_events: bool,
        attempt: &Attempt,
    ) -> Step {
        let Attempt { choice, others } = attempt;
        let config = &self.client_call.request.context.config;
        // A response that is relayed while it arrives counts as a stream, requested or not.
        if !self.call.body.stream {
            response.set_timeouts(Timeouts::idle(config.stream_timeout));
        }
        if is_events {
            self.client_call.response.end_quiet();
            if !stream::is_event_stream(&response.headers) {
                response.headers.set("content-type", b"text/event-stream");
            }
        }
        let mut fields = self.client_call.relayed_fields(&response.headers, &choice.provider().name);
        if is_events || response.length().is_none() {
            add_stream_fields(&mut fields);
        }
        let chat = self.chat();
        let is_translated = chat.is_some();
        let length = response.length().map(|length| length + beginning.len() as u64);
        let length = length.filter(|_| !is_events && !is_translated);
        let mask = || Arc::clone(choice.provider().mask());
        let filter: Box<dyn StreamFilter> = if let Some(chat) = chat {
            let (model, id) = (&*self.call.body.model, &*self.client_call.response_context.id);
            let limit = config.max_response_size;
            Box::new(Translation::new((model, id, chat), limit, self.meter(), *others, mask()))
        } else if is_events {
            let filter = AsTheyCame::new(self.meter(), *others, mask());
            Box::new(filter.hiding_usage(self.adds_usage))
        } else {
            Box::new(Bytes::new(self.meter(), mask()))
        };
        let status = response.status;
        let head = ResponseHead { status, fields, length, is_begun: false };
        match stream::Relay::new(response, beginning, filter, head, config.max_stream_size) {
            Ok(stream) => {
                Step::To(Stage::Stream(Box::new(Streaming { stream, status, is_events, is_settled: false })))
            }
            Err(failure) => Step::Ended(Outcome::Failed(Failed::Fault(failure))),
        }
    }

    /// Handles the end of a stream. Before it has begun, another attempt may follow.
    fn stream_ended(&mut self, streaming: Streaming, ended: Ended, choice: &Choice) -> Outcome {
        let is_begun = self.client_call.response.is_begun();
        match ended.broke {
            Some(Broke::Refused(refusal, body)) => {
                self.refused(refusal, streaming.stream.into_headers(), body, choice)
            }
            // A stream without an event counts as no response, and another attempt may follow.
            Some(Broke::Failed(failure)) if !is_begun => {
                let fault = if failure.fault == Fault::CutOff { Fault::Broken } else { failure.fault };
                Outcome::Failed(Failed::Fault(Failure { fault, ..failure }))
            }
            _ => Outcome::Finished(self.ended(streaming, ended, choice)),
        }
    }

    /// A stream whose first event is an error is a response with the status that the event stands for.
    fn refused(&mut self, refusal: Refusal, mut headers: Headers, body: Vec<u8>, choice: &Choice) -> Outcome {
        headers.set("content-type", b"application/json");
        headers.remove("cache-control");
        let buffered = BufferedResponse { status: refusal.status, headers, body, refusal: Some(refusal) };
        self.on_document(Document::of(Ok(buffered), Share::new(Holder::Response)), choice)
    }

    /// Handles the end of a stream that has begun: no other attempt may follow.
    fn ended(&mut self, streaming: Streaming, ended: Ended, choice: &Choice) -> Finish {
        let Streaming { stream, status, is_events, .. } = streaming;
        // The connection to the provider closes before the client gets the end.
        drop(stream);
        // Until here the response of an earlier attempt may still be the one to send.
        self.client_call.record.note_responder(choice, true);
        self.note_stream(ended.measured, ended.response_id.as_deref());
        if !self.is_translated {
            let id = || ended.response_id;
            responses::learn(&self.gateway, &self.client_call.request, &self.call, choice, id);
        }
        match ended.broke {
            None => {
                match ended.refusal {
                    Some(refusal) => self.note_failed(choice, &Failed::refused(status, refusal)),
                    None => drop(self.note(choice, Verdict::Succeeded, SUCCESS)),
                }
                Finish::Complete(status)
            }
            Some(broke) => {
                let failure = Failure::from(broke);
                let fault = failure.fault;
                self.note_failed(choice, &Failed::Fault(failure));
                Finish::Broken { status, fault, is_events, sequence: ended.next_sequence }
            }
        }
    }
}
