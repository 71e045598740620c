//! Reads a body to its end before any of it leaves, and has it examined.

use std::sync::Arc;

use super::document::{Document, Promised, Translated, Unread};
use super::{Stage, Step};
use crate::api::outcome::{Failed, Finish, Outcome, SUCCESS};
use crate::api::relay::{Attempt, Relay};
use crate::api::{Action, messages, promised, responses};
use crate::config::Format;
use crate::limits::MAX_ERROR_BODY;
use crate::routing::{Choice, Verdict};
use crate::upstream::{Collected, Fault, UpstreamResponse, Whole, stream, unusable};

/// A body that is collected.
pub struct Collect {
    pub response: UpstreamResponse,
    pub whole: Whole,
}

impl Collect {
    /// Collects the bytes at hand. It allocates a box only where more are due.
    pub fn advance(mut self, relay: &mut Relay, attempt: &Attempt) -> Step {
        match self.whole.collect(&mut self.response, relay.now) {
            Ok(Collected::Whole) => relay.collected(self.response, self.whole, &attempt.choice),
            Ok(Collected::Again) => Step::Yield(Stage::Collect(Box::new(self))),
            Ok(Collected::Waits) => Stage::Collect(Box::new(self)).park(relay),
            Err(failure) => Step::failed(failure),
        }
    }
}

impl Relay {
    /// Handles a complete buffered response, of which nothing has left.
    fn collected(&mut self, response: UpstreamResponse, whole: Whole, choice: &Choice) -> Step {
        let UpstreamResponse { status, headers, .. } = response;
        let Whole { bytes: mut body, share, .. } = whole;
        // The coding hides the text of an error, but not its status.
        if unusable::coding(&headers).is_some() {
            body.clear();
        }
        if self.lacks_api(status, &body, choice) {
            return Step::Ended(self.translate_instead(choice));
        }
        // A transcript in plain text may begin like an event.
        let may_be_events = stream::is_event_stream(&headers) || !self.call.path.starts_with("/audio/");
        let is_good = (200..300).contains(&status);
        let action = self.client_call.request.context.endpoint.action;
        let unread = Unread {
            status,
            headers,
            body,
            share,
            is_document: is_good && !self.call.body.stream && may_be_events,
            output: self.output(),
            translated: self.translated(),
            limit: self.client_call.config().max_response_size,
            makes_response: is_good && action == Action::CreateResponse,
            is_stored: action == Action::StoredResponse,
            promised: self.promised(),
            mask: Arc::clone(choice.provider().mask()),
        };
        self.examine(unread, choice)
    }

    fn translated(&self) -> Option<Translated> {
        let chat = self.call.chat.as_ref().filter(|_| self.is_translated)?;
        let (model, id) =
            (Arc::clone(&self.call.body.model), Arc::clone(&self.client_call.response_context.id));
        Some(Translated { chat: Arc::clone(chat), model, id })
    }

    fn promised(&self) -> Option<Promised> {
        let context = &self.client_call.response_context;
        match (context.format, context.is_responses) {
            _ if !self.client_call.is_committed() => None,
            (Format::OpenAi, true) => Some(|body, _| promised::response(body)),
            (Format::OpenAi, false) => {
                Some(|body, is_refusal| if is_refusal { None } else { promised::completion(body) })
            }
            (Format::Anthropic, _) => None,
        }
    }

    /// Handles a buffered response that was examined.
    pub(super) fn on_document(&mut self, document: Document, choice: &Choice) -> Outcome {
        let Document { response, measured, made, is_made_in_background, share } = document;
        self.share.take_over(share);
        let buffered = match response {
            Ok(buffered) => buffered,
            Err(failure) => {
                if failure.fault == Fault::Untranslatable {
                    // The provider charges for it all the same.
                    self.note_document(measured, None, false);
                }
                return failure.into();
            }
        };
        let is_good = (200..300).contains(&buffered.status);
        let is_error = buffered.status >= 400 || buffered.refusal.is_some();
        let failed = Failed::Response(buffered);
        if failed.is_retryable() || (self.call.is_search && !is_good) {
            return Outcome::Failed(failed);
        }
        if !is_error {
            self.note_document(measured, made.as_deref(), is_made_in_background);
        }
        // Nothing is stored where the call was translated.
        if is_good && !self.is_translated {
            responses::learn(&self.gateway, &self.client_call.request, &self.call, choice, || made);
        }
        let result = failed.result();
        self.note(choice, failed.verdict(), result);
        // An error with a status of success may mean that there is no such model.
        self.client_call.record.note_responder(choice, is_good && result == SUCCESS);
        Outcome::Finished(failed.into())
    }

    /// Whether a response shows that a replica with unknown support lacks the call's API. A 404 may also mean the model, or the response
    /// that the call continues.
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
        // Many providers with `/messages` count no tokens.
        let may_lack = || {
            messages::counts_tokens(request)
                || board.may_lack(replica, request.context.response_context.format)
        };
        means_path && !self.is_translated && messages::is_translatable(request) && may_lack()
    }

    /// Tries a replica again with the call translated, because it seems to support chat completions alone. A success proves it.
    fn translate_instead(&mut self, choice: &Choice) -> Outcome {
        if messages::counts_tokens(&self.client_call.request) {
            self.note(choice, Verdict::Succeeded, "client_error");
            self.client_call.record.note_responder(choice, false);
            let estimate =
                messages::estimated_count(&self.client_call.request, self.client_call.estimated_prompt);
            return Outcome::Finished(Finish::Response(estimate));
        }
        (self.is_translated, self.lacks_api) = (true, true);
        self.client_call.response.end_quiet();
        Outcome::Again
    }
}
