//! The long computations of an attempt: a helper examines a large response, or translates a large call.

use std::sync::Arc;
use std::time::Instant;

use super::computing::Computing;
use super::document::{Document, Unread, overloaded};
use super::{Stage, Step};
use crate::api::RequestContext;
use crate::api::error::ApiError;
use crate::api::messages::{self, Chat};
use crate::api::outcome::{Finish, Outcome};
use crate::api::relay::{Attempt, Relay, not_carried};
use crate::config::{Replica, Thinking};
use crate::front::{Io, Request};
use crate::limits::QUICK_BODY;
use crate::routing::Choice;
use crate::upstream::Failure;

/// A computation on a helper.
pub struct Compute {
    computing: Computing<Computed>,
    /// It examines a response, for which the provider charges.
    has_response: bool,
}

enum Computed {
    /// The examined response.
    Document(Document),
    /// The call translated for its replica.
    Chat(Result<Chat, ApiError>),
}

impl Compute {
    /// When a helper must have begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.computing.deadline()
    }

    pub fn advance(mut self: Box<Self>, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
        let result = match self.computing.poll(io, relay.now) {
            Err(ApiError::Overloaded(_)) if self.has_response => Ok(self.computing.compute_here()),
            result => result,
        };
        match result {
            Ok(None) => Stage::Compute(self).park(relay),
            Ok(Some(Computed::Document(document))) => {
                Step::Ended(relay.on_document(document, &attempt.choice))
            }
            Ok(Some(Computed::Chat(chat))) => match relay.on_chat(chat) {
                Ok(()) => Step::To(Stage::Begin { is_fresh: false }),
                Err(failure) => Step::failed(failure),
            },
            Err(ApiError::Overloaded(_)) => Step::failed(overloaded("no thread in time")),
            Err(error) => Step::Ended(Outcome::Finished(Finish::Error(error))),
        }
    }
}

impl Relay {
    /// Examines a response, at once or on a helper.
    pub(super) fn examine(&mut self, unread: Unread, choice: &Choice) -> Step {
        if unread.body.len() > QUICK_BODY {
            return self.compute(true, unread, |unread| Computed::Document(unread.examine()));
        }
        Step::Ended(self.on_document(unread.examine(), choice))
    }

    /// Ensures that the call is translated with the form of earlier reasoning that this replica takes; `Some`: the step to take first.
    pub(super) fn translate_for(&mut self, replica: &Replica) -> Option<Step> {
        let thinking = messages::thinking_for(replica);
        if self.call.chat.as_ref().is_some_and(|chat| chat.thinking == thinking) {
            return None;
        }
        // Frees its memory before the next one takes some.
        self.call.chat = None;
        let input = (Arc::clone(&self.client_call.request), thinking);
        if input.0.body.len() > QUICK_BODY {
            return Some(self.compute(false, input, |input| Computed::Chat(chat(input))));
        }
        self.on_chat(chat(input)).err().map(Step::failed)
    }

    fn on_chat(&mut self, chat: Result<Chat, ApiError>) -> Result<(), Failure> {
        let chat = chat.map_err(|error| {
            self.call.refused = Some(error);
            not_carried()
        })?;
        self.call.chat = Some(Arc::new(chat));
        Ok(())
    }

    fn compute<I: Send + 'static>(&self, has_response: bool, input: I, compute: fn(I) -> Computed) -> Step {
        let until = self.now + self.client_call.config().queue_timeout;
        let computing = Computing::new(input, compute, false, until);
        Step::To(Stage::Compute(Box::new(Compute { computing, has_response })))
    }
}

fn chat((request, thinking): (Arc<Request<RequestContext>>, Thinking)) -> Result<Chat, ApiError> {
    messages::chat(&request, thinking)
}
