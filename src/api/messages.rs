//! Calls in Anthropic's format for providers that speak OpenAI's alone: translated on the way there and back.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::value::RawValue;
use ureq::http::{HeaderMap, HeaderValue, header};

use super::Ticket;
use super::error::ApiError;
use super::outcome::WholeAnswer;
use crate::anthropic::{self, ChatRequest, Events, Translator, Unfit};
use crate::config::{Config, Format};
use crate::front::{Fields, Request};
use crate::limits::{MAX_ERROR_BODY, RELAY_PIECE};
use crate::routing::Route;
use crate::upstream::refusal::Refusal;
use crate::upstream::stream::{Broke, Ended};
use crate::upstream::usage::Usage;
use crate::upstream::{Exchange, Failure, Fault, Reply};

/// Where a translated call goes, behind the provider's base URL. The client's query belongs to the other API.
pub const CHAT: &str = "/chat/completions";

/// The path of the one call that can be translated.
const MESSAGES: &str = "/v1/messages";

/// Translates a call in Anthropic's format where a provider among `routes` does not speak it. A call that cannot be
/// translated is left to the providers that do.
///
/// # Errors
/// There are none that do: what cannot be translated.
pub fn translate(
    config: &Config,
    request: &Request<Ticket>,
    routes: &mut Vec<Route>,
) -> Result<Option<ChatRequest>, ApiError> {
    let native = |route: &Route| {
        config.provider(&route.provider).is_some_and(|provider| provider.speaks(Format::Anthropic))
    };
    if request.ticket.envelope.format == Format::OpenAi || routes.iter().all(native) {
        return Ok(None);
    }
    match chat_request(request) {
        Ok(chat) => Ok(Some(chat)),
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

/// The header fields of a translated call: those of Anthropic's API mean nothing to another.
pub fn headers(of_call: &HeaderMap) -> HeaderMap {
    let kept = of_call.iter().filter(|(name, _)| !name.as_str().starts_with("anthropic-"));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
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

/// Relays a streamed chat completion as the events of the Messages API, as [`crate::upstream::stream::relay`] does one that
/// passes as it is. `id` is the request's.
pub fn relay(
    exchange: &mut Exchange,
    reply: &Rc<RefCell<Reply>>,
    fields: &Fields,
    max_size: usize,
    translator: Translator,
    id: &str,
) -> Ended {
    let mut way = Way { reply, translator, id, out: Vec::new() };
    let (mut events, mut size) = (Events::default(), 0);
    let mut piece = vec![0; RELAY_PIECE];
    let broke = loop {
        let read = exchange.read(&mut piece);
        let count = *read.as_ref().unwrap_or(&0);
        size += count;
        let taken = match read {
            Err(failure) => Err(Broke::Failed(failure)),
            Ok(_) if size > max_size => Err(Broke::Failed(too_large(max_size))),
            Ok(0) => way.end(exchange, &mut events),
            Ok(count) => events.take(&piece[..count], |data| way.take(data)),
        };
        // What came before the trouble is the client's.
        match way.send(exchange.status, fields).and(taken) {
            Err(broke) => break Some(broke),
            Ok(()) if count == 0 => break None,
            Ok(()) => {}
        }
    };
    // Clients leave as soon as they have read the last event: nothing was lost then.
    let left = |broke: &Broke| matches!(broke, Broke::Failed(Failure { fault: Fault::ClientGone, .. }));
    let broke = broke.filter(|broke| !(way.translator.is_over() && left(broke)));
    let usage = way.translator.tokens().map(|(prompt, completion)| Usage::told(prompt, completion));
    Ended { broke, usage, response_id: None }
}

/// A translated stream's way to the client.
struct Way<'a> {
    reply: &'a Rc<RefCell<Reply>>,
    translator: Translator,
    id: &'a str,
    /// What is to be sent.
    out: Vec<u8>,
}

impl Way<'_> {
    /// Takes the data of an event. An error of the provider's is a refusal while nothing was sent, and an event behind it.
    fn take(&mut self, data: &[u8]) -> Result<(), Broke> {
        match self.translator.take(data, &mut self.out) {
            Err(Unfit::Error) => {
                let refusal = refusal(data);
                let error = anthropic::error::translate(refusal.status, data, self.id);
                if self.out.is_empty() && !self.reply.borrow().is_committed() {
                    return Err(Broke::Refused(refusal, error));
                }
                self.out.extend(anthropic::error::event(&error));
                self.translator.stop();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The provider's end: clean where its framing or `[DONE]` says so, and the message says why it stopped.
    fn end(&mut self, exchange: &Exchange, events: &mut Events) -> Result<(), Broke> {
        events.end(|data| self.take(data))?;
        if exchange.is_close_delimited() && !self.translator.is_over() {
            let detail = "closed before [DONE]".to_owned();
            return Err(Broke::Failed(Failure { fault: Fault::CutOff, detail }));
        }
        Ok(self.translator.finish(&mut self.out)?)
    }

    fn send(&mut self, status: u16, fields: &Fields) -> Result<(), Broke> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut reply = self.reply.borrow_mut();
        reply.begin(status, fields, None);
        let sent = reply.write(&self.out, false);
        self.out.clear();
        sent.map_err(|error| Broke::Failed(Failure { fault: Fault::ClientGone, detail: error.to_string() }))
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

fn too_large(max_size: usize) -> Failure {
    Failure { fault: Fault::TooLarge, detail: format!("more than {max_size} bytes") }
}
