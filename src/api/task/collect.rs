//! Reads a body to its end before any of it leaves, and looks at it.

use super::{Stage, Step};
use crate::api::messages;
use crate::api::outcome::{BufferedResponse, Failed, Finish, Outcome, SUCCESS};
use crate::api::relay::{Attempt, Relay, not_carried};
use crate::api::responses;
use crate::limits::{MAX_ERROR_BODY, MAX_REFUSAL, QUICK_BODY, TRANSLATED_COPIES};
use crate::memory::{Holder, Share};
use crate::routing::{Choice, Verdict};
use crate::upstream::assembly::{Unassembled, assemble};
use crate::upstream::meter::Measured;
use crate::upstream::opening::begins_like_events;
use crate::upstream::refusal::Refusal;
use crate::upstream::{
    Collected, Failure, Fault, Headers, UpstreamResponse, Whole, response_id, stream, unusable,
};

/// A body that is collected.
pub struct Collect {
    pub response: UpstreamResponse,
    pub whole: Whole,
}

impl Collect {
    pub fn advance(mut self: Box<Self>, relay: &mut Relay, attempt: &Attempt) -> Step {
        match self.whole.collect(&mut self.response, relay.now) {
            Ok(Collected::Whole) => {
                let Self { response, whole } = *self;
                relay.share.take_over(whole.share);
                if whole.bytes.len() > QUICK_BODY {
                    return Step::Compute(response, whole.bytes);
                }
                Step::Ended(relay.document(response, whole.bytes, &attempt.choice))
            }
            Ok(Collected::Again) => Step::Yield(Stage::Collect(self)),
            Ok(Collected::Waits) => Stage::Collect(self).park(relay),
            Err(failure) => Step::failed(failure),
        }
    }
}

impl Relay {
    /// A buffered response: read to its end before any of it leaves.
    pub(super) fn document(
        &mut self,
        response: UpstreamResponse,
        mut body: Vec<u8>,
        choice: &Choice,
    ) -> Outcome {
        // The text of an error is unreadable then, but its status is not.
        if unusable::coding(&response.headers).is_some() {
            body.clear();
        }
        let status = response.status;
        if self.lacks_api(status, &body, choice) {
            return self.translate_instead(choice);
        }
        // A transcript in plain text may begin like an event.
        let may_be_events =
            stream::is_event_stream(&response.headers) || !self.call.path.starts_with("/audio/");
        let is_unasked = (200..300).contains(&status) && !self.call.body.stream && may_be_events;
        let buffered = if is_unasked && begins_like_events(&body) == Some(true) {
            let held = self.hold_copies_of(&body);
            match held.and_then(|()| assembled(status, response.headers, &body)) {
                Ok(buffered) => buffered,
                Err(failure) => {
                    if failure.fault == Fault::Untranslatable {
                        let mut meter = self.meter();
                        meter.events(&body);
                        self.note_document(meter.measured(), &[]);
                    }
                    return failure.into();
                }
            }
        } else {
            let refusal = refusal_in(status, &body);
            BufferedResponse { status, headers: response.headers, body, refusal }
        };
        let measured = Measured::of_document(&buffered.body, self.output());
        if !self.is_translated {
            return self.whole(buffered, measured, choice);
        }
        if let Err(failure) = self.hold_copies_of(&buffered.body) {
            return failure.into();
        }
        // Borrowed anew: counting the copies needs `self` in between.
        let Some(chat) = self.chat() else {
            return self.whole(buffered, measured, choice);
        };
        let (model, limit) = (&self.call.body.model, self.client_call.config().max_response_size);
        match messages::translate_response(
            buffered,
            model,
            chat,
            &self.client_call.response_context.id,
            limit,
        ) {
            Ok(buffered) => self.whole(buffered, measured, choice),
            Err(failure) => {
                if failure.fault == Fault::Untranslatable {
                    // The provider has produced it, and charges for it.
                    self.note_document(measured, &[]);
                }
                failure.into()
            }
        }
    }

    /// Whether a response says that a replica, of which it is not known, lacks the call's API. A 404 may mean the model, or the response
    /// that is continued.
    fn lacks_api(&self, status: u16, body: &[u8], choice: &Choice) -> bool {
        let names_model = || {
            let said = &body[..body.len().min(MAX_ERROR_BODY)];
            String::from_utf8_lossy(said).to_ascii_lowercase().contains("model")
        };
        let means_path = match status {
            404 => self.call.body.previous.is_none() && !names_model(),
            405 | 501 => true,
            _ => false,
        };
        let (request, board) = (&self.client_call.request, &self.gateway.board);
        let replica = &choice.provider().replicas[choice.replica];
        // Many a provider with `/messages` counts no tokens.
        let may_lack = || {
            messages::counts_tokens(request)
                || board.may_lack(replica, request.context.response_context.format)
        };
        means_path && !self.is_translated && messages::is_translatable(request) && may_lack()
    }

    /// A replica seems to speak chat completions alone: it is asked again in these. That it serves them shows that it does.
    fn translate_instead(&mut self, choice: &Choice) -> Outcome {
        let replica = &choice.provider().replicas[choice.replica];
        if messages::counts_tokens(&self.client_call.request) {
            self.note(choice, Verdict::Succeeded, "client_error");
            self.client_call.record.note_responder(choice, false);
            let estimate =
                messages::estimated_count(&self.client_call.request, self.client_call.estimated_prompt);
            return Outcome::Finished(Finish::Response(estimate));
        }
        match self.translate_for(replica) {
            Ok(()) => {
                (self.is_translated, self.lacks_api) = (true, true);
                self.client_call.response.end_quiet();
                Outcome::Again
            }
            Err(error) => {
                self.call.refused = Some(error);
                not_carried().into()
            }
        }
    }

    /// Counts the copies that exist while a body is translated.
    fn hold_copies_of(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut copies = Share::new(Holder::Response);
        if !copies.set(body.len().saturating_mul(TRANSLATED_COPIES)) {
            let detail = "no memory to translate it".to_owned();
            return Err(Failure { fault: Fault::Overloaded, detail });
        }
        self.share.take_over(copies);
        Ok(())
    }

    /// The outcome of a buffered response, whose tokens are known as far as `measured` says.
    pub(super) fn whole(
        &mut self,
        buffered: BufferedResponse,
        measured: Measured,
        choice: &Choice,
    ) -> Outcome {
        let is_good = (200..300).contains(&buffered.status);
        let is_error = buffered.status >= 400 || buffered.refusal.is_some();
        let failed = Failed::Response(buffered);
        if failed.is_retryable() || (self.call.is_search && !is_good) {
            return Outcome::Failed(failed);
        }
        if let Failed::Response(buffered) = &failed {
            // Nothing is stored where the call was translated.
            if is_good && !self.is_translated {
                let id = || response_id::in_document(&buffered.body);
                responses::learn(&self.gateway, &self.client_call.request, &self.call, choice, id);
            }
            if !is_error {
                self.note_document(measured, &buffered.body);
            }
        }
        let result = failed.result();
        self.note(choice, failed.verdict(), result);
        // An error with a status of success may mean that there is no such model.
        self.client_call.record.note_responder(choice, is_good && result == SUCCESS);
        Outcome::Finished(failed.into())
    }
}

/// The document that unrequested events make.
fn assembled(status: u16, mut headers: Headers, events: &[u8]) -> Result<BufferedResponse, Failure> {
    headers.set("content-type", b"application/json");
    match assemble(events) {
        Ok(body) => Ok(BufferedResponse { status, headers, body, refusal: None }),
        Err(Unassembled::Refused(refusal, body)) => {
            Ok(BufferedResponse { status: refusal.status, headers, body, refusal: Some(refusal) })
        }
        Err(Unassembled::Broken(detail)) => Err(Failure { fault: Fault::CutOff, detail: detail.to_owned() }),
        Err(Unassembled::Unknown(detail)) => {
            Err(Failure { fault: Fault::Untranslatable, detail: detail.to_owned() })
        }
    }
}

/// The refusal in a buffered response. One of success is searched only where it is small.
fn refusal_in(status: u16, body: &[u8]) -> Option<Refusal> {
    let limit = if status < 400 { MAX_REFUSAL } else { MAX_ERROR_BODY };
    (body.len() <= limit).then(|| Refusal::in_document(body)).flatten()
}
