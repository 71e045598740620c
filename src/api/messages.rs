//! Calls in Anthropic's format for providers that speak OpenAI's alone: translated on the way there and back.

use std::sync::Arc;

use serde_json::value::RawValue;
use ureq::http::{HeaderValue, header};

use super::Ticket;
use super::error::ApiError;
use super::outcome::WholeAnswer;
use crate::anthropic::{self, ChatRequest, Events, Translator, Unfit};
use crate::config::{Config, Format, Mask, Scope};
use crate::front::Request;
use crate::limits::{MAX_ERROR_BODY, TRANSLATED_COPIES};
use crate::memory::{Holder, Share};
use crate::routing::Route;
use crate::upstream::meter::{Measured, Meter};
use crate::upstream::opening::Opening;
use crate::upstream::refusal::Refusal;
use crate::upstream::stream::{Broke, Passage, Way};
use crate::upstream::{Failure, Fault};

/// Where a translated call goes, behind the provider's base URL. The client's query belongs to the other API.
pub const CHAT: &str = "/chat/completions";

/// The path of the one call that can be translated.
const MESSAGES: &str = "/v1/messages";

/// Translates a call in Anthropic's format where a provider among `routes` does not speak it. A call that cannot be
/// translated is left to the providers that do.
///
/// # Errors
/// There are none that do: what cannot be translated. There is no memory to translate it.
pub fn translate(
    config: &Config,
    request: &Request<Ticket>,
    routes: &mut Vec<Route>,
) -> Result<Option<(ChatRequest, Share)>, ApiError> {
    let native = |route: &Route| {
        config.provider(&route.provider).is_some_and(|provider| provider.speaks(Format::Anthropic))
    };
    if request.ticket.envelope.format == Format::OpenAi || routes.iter().all(native) {
        return Ok(None);
    }
    let mut copies = Share::new(Holder::Request);
    if !copies.set(request.body.len().saturating_mul(TRANSLATED_COPIES)) {
        return Err(ApiError::Overloaded);
    }
    match chat_request(request) {
        Ok(chat) => Ok(Some((chat, copies))),
        Err(error) => {
            routes.retain(native);
            if routes.is_empty() { Err(error) } else { Ok(None) }
        }
    }
}

fn chat_request(request: &Request<Ticket>) -> Result<ChatRequest, ApiError> {
    let path = request.head.path();
    if path != MESSAGES {
        return Err(ApiError::NotSpoken(path.to_owned()));
    }
    let body: &RawValue =
        serde_json::from_slice(&request.body).map_err(|error| ApiError::InvalidJson(error.to_string()))?;
    ChatRequest::of(body).map_err(ApiError::Refused)
}

/// Whether a header field means nothing to a provider that gets a translated call: those of Anthropic's API.
pub fn is_field_of_its_own(name: &str) -> bool {
    let start = "anthropic-";
    name.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
}

/// A whole answer for the client that asked for `model`, as events where it asked for a stream; `id` is the request's.
///
/// # Errors
/// [`Fault::Broken`]: a good answer that is no chat completion.
pub fn answer(
    mut answer: WholeAnswer,
    model: &str,
    streamed: bool,
    id: &str,
) -> Result<WholeAnswer, Failure> {
    if answer.status < 300 {
        let translated = if streamed {
            let (mut translator, mut out) = (Translator::new(model, id), Vec::new());
            let whole =
                translator.take(&answer.body, &mut out).and_then(|()| translator.take(b"[DONE]", &mut out));
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            whole.map(|()| out)
        } else {
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            anthropic::message(&answer.body, model, id)
        };
        match translated {
            Ok(body) => return Ok(WholeAnswer { body, ..answer }),
            Err(Unfit::Malformed(detail)) => return Err(broken(detail)),
            // A provider that says 200 and means something else.
            Err(Unfit::Error) => answer.status = refusal(&answer.body).status,
        }
    }
    // What is no JSON, or too long to pass, is wrapped later.
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok();
    if is_json && answer.body.len() <= MAX_ERROR_BODY {
        answer.body = anthropic::error::translate(answer.status, &answer.body, id);
    }
    Ok(answer)
}

fn broken(detail: &str) -> Failure {
    Failure { fault: Fault::Broken, detail: detail.to_owned() }
}

fn refusal(document: &[u8]) -> Refusal {
    Refusal::in_document(document).unwrap_or_default()
}

/// A streamed chat completion as the events of the Messages API.
pub struct Translation {
    translator: Translator,
    events: Events,
    meter: Meter,
    /// The request's.
    id: String,
    /// Another attempt may follow: the message's beginning is held back, because a failure behind it could still be mended.
    is_patient: bool,
    mask: Arc<Mask>,
    /// What is to be sent.
    out: Vec<u8>,
}

impl Translation {
    /// For the client that asked for `model`; `id` is the request's, `is_patient`: another attempt may follow, `mask` is the
    /// provider's.
    pub fn new(model: &str, id: &str, meter: Meter, is_patient: bool, mask: Arc<Mask>) -> Self {
        let translator = Translator::new(model, id);
        let (events, id, out) = (Events::default(), id.to_owned(), Vec::new());
        Self { translator, events, meter, id, is_patient, mask, out }
    }

    /// Takes the events of `bytes`; at the stream's end, what it ended in.
    fn translate(&mut self, bytes: Option<&[u8]>, way: &Way) -> Result<(), Broke> {
        let Self { translator, events, meter, id, is_patient, mask, out } = self;
        let mut translate = |data: &[u8]| match translator.take(data, out) {
            Err(Unfit::Error) => {
                let refusal = refusal(data);
                let error = anthropic::error::translate(refusal.status, data, id);
                let announces = *is_patient && !matches!(Opening::of(out), Opening::Content);
                if (out.is_empty() || announces) && way.is_undecided() {
                    out.clear();
                    return Err(Broke::Refused(refusal, error));
                }
                out.extend(anthropic::error::event(&mask.hide(error, Scope::All)));
                translator.stop();
                Ok(())
            }
            other => Ok(other?),
        };
        let event = |data: &[u8]| {
            meter.data(data);
            translate(data)
        };
        match bytes {
            Some(bytes) => events.take(bytes, event),
            None => events.end(event),
        }
    }

    /// Sends what there is, but for what only announces while another attempt may follow.
    fn send(&mut self, way: &mut Way) {
        let is_held =
            self.is_patient && way.is_undecided() && !matches!(Opening::of(&self.out), Opening::Content);
        if !is_held {
            self.release(way);
        }
    }

    /// Clean where the provider's framing, `[DONE]` or a `finish_reason` says so, and the message says why it stopped.
    fn finish(&mut self, by_closing: bool, way: &Way) -> Result<(), Broke> {
        self.translate(None, way)?;
        if by_closing && !self.is_over() {
            let detail = "closed before [DONE]".to_owned();
            return Err(Broke::Failed(Failure { fault: Fault::CutOff, detail }));
        }
        Ok(self.translator.finish(&mut self.out)?)
    }
}

impl Passage for Translation {
    fn take(&mut self, piece: &[u8], way: &mut Way) -> Result<(), Broke> {
        let taken = self.translate(Some(piece), way);
        // What came before the trouble is the client's.
        self.send(way);
        taken
    }

    fn end(&mut self, by_closing: bool, way: &mut Way) -> Result<(), Broke> {
        let ended = self.finish(by_closing, way);
        self.send(way);
        ended
    }

    fn is_over(&mut self) -> bool {
        self.translator.is_over() || self.translator.has_finished()
    }

    fn has_announced(&self) -> bool {
        !self.out.is_empty()
    }

    fn release(&mut self, way: &mut Way) {
        if !self.out.is_empty() {
            way.send(&self.out, false);
            self.out.clear();
        }
    }

    fn held(&self) -> usize {
        self.events.held()
    }

    fn measured(&self) -> Measured {
        self.meter.measured()
    }
}

impl From<Unfit> for Broke {
    fn from(unfit: Unfit) -> Self {
        Self::Failed(broken(match unfit {
            Unfit::Malformed(detail) => detail,
            Unfit::Error => "an error",
        }))
    }
}
