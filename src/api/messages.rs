//! Calls in Anthropic's format or to the Responses API for providers that support chat completions alone: request and response
//! are translated.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::error::ApiError;
use super::outcome::BufferedResponse;
use super::{Action, RequestContext};
use crate::config::{Config, Format, Mask, Replica, Scope, Thinking, known};
use crate::core::BodyError;
use crate::core::sse::{EventTooLarge, Events};
use crate::dialect::anthropic::{self, unsigned_thinking};
use crate::dialect::{self, Attached, ChatRequest, Document, Output, Translator, Unfit, responses};
use crate::front::Request;
use crate::gateway::Gateway;
use crate::limits::{MAX_ERROR_BODY, TRANSLATED_COPIES};
use crate::memory::{Holder, Share};
use crate::routing::Route;
use crate::upstream::meter::{Measured, Meter};
use crate::upstream::opening::Opening;
use crate::upstream::refusal::Refusal;
use crate::upstream::stream::{Broke, Sink, StreamFilter};
use crate::upstream::{Failure, Fault, Headers};

/// The path of a translated call after the provider's base URL. The client's query belongs to the other API.
pub const CHAT: &str = "/chat/completions";

/// The path of the one call in Anthropic's format that can be translated.
const MESSAGES: &str = "/v1/messages";
/// The path that creates a response.
const RESPONSES: &str = "/v1/responses";
/// The paths of the calls that count a request's tokens.
const COUNT_TOKENS: &str = "/v1/messages/count_tokens";
const COUNT_INPUT: &str = "/v1/responses/input_tokens";

/// A call translated to chat completions, and the translation of its response.
pub struct Chat {
    /// The call.
    pub request: ChatRequest,
    /// The form of earlier reasoning in it.
    pub thinking: Thinking,
    back: Back,
    /// Its memory.
    _copies: Share,
}

/// The client's format, into which a chat completion is translated.
#[derive(Clone)]
enum Back {
    /// A message of Anthropic's format; the content of the request beside text.
    Message(Attached),
    /// A response of the Responses API to a request that came at that Unix time, seconds.
    Response(Arc<responses::Translation>, u64),
}

/// A call that may have to be translated.
#[derive(Default)]
pub struct Translated {
    /// The translated call, where one of the routes needs it.
    pub chat: Option<Chat>,
    /// Why the providers that need it are skipped, where the call cannot be translated and others are left.
    pub refused: Option<ApiError>,
    /// Ranges of the body that providers which support the format do not get.
    pub cuts: Vec<Range<usize>>,
    /// The name of a provider that cannot count tokens, where the call asks for a count: our estimate is the response.
    pub uncounting: Option<String>,
}

/// Translates a call where a provider among `routes` does not speak its API. A call that cannot be translated is left to the
/// providers that do.
///
/// # Errors
/// The call cannot be translated and no provider supports its API. There is no memory to translate it.
pub fn translate(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    routes: &mut Vec<Route>,
) -> Result<Translated, ApiError> {
    if !is_translatable(request) {
        return Ok(Translated::default());
    }
    let (config, now) = (&*request.context.config, Instant::now());
    let is_native = |replica: &Replica| is_native(gateway, request, replica, now);
    let native = |route: &Route| replicas_of(config, route).all(is_native);
    let may_be_native = |route: &Route| replicas_of(config, route).any(is_native);
    let is_messages = request.context.response_context.format == Format::Anthropic;
    let cuts = match is_messages && routes.iter().any(may_be_native) {
        true => unsigned_thinking(&request.body),
        false => Vec::new(),
    };
    let mut translated = Translated { cuts, ..Translated::default() };
    let Some(first) = routes.iter().find(|route| !native(route)) else { return Ok(translated) };
    if counts_tokens(request) {
        translated.uncounting = Some(first.provider(config).name.clone());
        routes.retain(native);
        return Ok(translated);
    }
    // Where the first of several attempts fails, the next replica may need another form of earlier reasoning.
    let replica = replicas_of(config, first).find(|replica| !is_native(replica));
    match chat(request, replica.map(thinking_for).unwrap_or_default()) {
        Ok(chat) => translated.chat = Some(chat),
        Err(error @ ApiError::Overloaded(_)) => return Err(error),
        Err(error) => {
            routes.retain(may_be_native);
            if routes.is_empty() {
                return Err(error);
            }
            translated.refused = Some(error);
        }
    }
    Ok(translated)
}

/// The replicas that a route may lead to.
fn replicas_of<'a>(config: &'a Config, route: &Route) -> impl Iterator<Item = &'a Replica> {
    let pin = route.pin;
    let replicas = route.provider(config).replicas.iter();
    replicas.enumerate().filter(move |(at, _)| pin.is_none_or(|pin| pin == *at)).map(|(_, replica)| replica)
}

/// Our own response to a call that asks for the tokens of a request. It says that it is an estimate.
pub fn estimated_count(request: &Request<RequestContext>, tokens: u64) -> BufferedResponse {
    let is_input = request.head.path() == COUNT_INPUT;
    let object = if is_input { "\"object\":\"response.input_tokens\"," } else { "" };
    let mut headers = Headers::default();
    headers.set("content-type", b"application/json");
    let body = format!("{{{object}\"input_tokens\":{tokens},\"estimated\":true}}").into_bytes();
    BufferedResponse { status: 200, headers, body, refusal: None }
}

/// Whether a call can be translated for providers that support chat completions alone.
pub fn is_translatable(request: &Request<RequestContext>) -> bool {
    let (path, context) = (request.head.path(), &request.context);
    let is_responses = path.starts_with(RESPONSES) && context.endpoint.action != Action::StoredResponse;
    context.response_context.format == Format::Anthropic || is_responses
}

/// Whether a call asks for the tokens of a request.
pub fn counts_tokens(request: &Request<RequestContext>) -> bool {
    [COUNT_TOKENS, COUNT_INPUT].contains(&request.head.path())
}

/// Whether a replica of a provider gets a call untranslated.
pub fn is_native(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    replica: &Replica,
    now: Instant,
) -> bool {
    gateway.board.is_native(replica, request.context.response_context.format, now)
}

/// The form of earlier reasoning that a replica takes.
pub fn thinking_for(replica: &Replica) -> Thinking {
    known(&replica.url).thinking
}

/// Translates a call to chat completions; `thinking`: the form of earlier reasoning.
///
/// # Errors
/// The call cannot be translated, or there is no memory to translate it.
pub fn chat(request: &Request<RequestContext>, thinking: Thinking) -> Result<Chat, ApiError> {
    let (path, limit) = (request.head.path(), request.context.config.max_request_size);
    let is_messages = request.context.response_context.format == Format::Anthropic;
    if is_messages && path != MESSAGES {
        return Err(ApiError::NotSpoken(path.to_owned()));
    }
    if !is_messages && path != RESPONSES {
        return Err(ApiError::Refused(dialect::Refusal::not_carried(path)));
    }
    let mut copies = Share::new(Holder::Request);
    if !copies.set(request.body.len().saturating_mul(TRANSLATED_COPIES)) {
        return Err(ApiError::Overloaded("max_memory"));
    }
    let body = std::str::from_utf8(&request.body)
        .map_err(|error| ApiError::Body(BodyError::InvalidJson(error.to_string())))?;
    // It is valid: it has been read for its model.
    let document = Document::of_valid(body);
    let (request, back) = if is_messages {
        let request =
            anthropic::chat_request(document.value(), limit, thinking).map_err(ApiError::Refused)?;
        let back = Back::Message(request.attached);
        (request, back)
    } else {
        let (request, translation) =
            responses::chat_request(document.value(), limit, thinking).map_err(ApiError::Refused)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (request, Back::Response(Arc::new(translation), now.as_secs()))
    };
    Ok(Chat { request, thinking, back, _copies: copies })
}

impl Back {
    /// The translator for a client that asked for `model`; `id` is the request's. It holds at most `limit` bytes.
    fn translator(&self, model: &str, id: &str, limit: usize) -> Translator {
        match self {
            Self::Message(_) => anthropic::translator(model, id, limit),
            Self::Response(request, at) => {
                responses::translator(request, responses::Asked { model, id, at: *at }, limit)
            }
        }
    }

    fn document(&self, body: &[u8], model: &str, id: &str, limit: usize) -> Result<Vec<u8>, Unfit> {
        match self {
            Self::Message(_) => anthropic::message(body, model, id, limit),
            Self::Response(request, at) => {
                responses::response(body, request, responses::Asked { model, id, at: *at }, limit)
            }
        }
    }

    fn events(&self, body: &[u8], model: &str, id: &str, limit: usize) -> Result<Vec<u8>, Unfit> {
        let (mut translator, mut out) = (self.translator(model, id, limit), Output::new(limit));
        translator.take(body, &mut out)?;
        translator.take(b"[DONE]", &mut out)?;
        Ok(out.into_bytes()?)
    }

    /// A provider's error in the client's API. The Responses API has the same errors as chat.
    fn error(&self, status: u16, document: &[u8], id: &str) -> Vec<u8> {
        match self {
            Self::Message(attached) => anthropic::error::translate(status, document, id, *attached),
            Self::Response(..) => document.to_vec(),
        }
    }
}

/// Whether a header field belongs to Anthropic's API and so means nothing to a provider that gets a translated call.
pub fn is_field_of_its_own(name: &str) -> bool {
    let start = "anthropic-";
    name.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
}

/// Translates a buffered response for the client that asked for `model` with `chat`, into events where it asked for a stream; `id` is the
/// request's. The result has at most `limit` bytes.
///
/// # Errors
/// [`Fault::Untranslatable`], [`Fault::Broken`] or [`Fault::TooLarge`]: a response of success that cannot be translated.
pub fn translate_response(
    mut response: BufferedResponse,
    model: &str,
    Chat { request, back, .. }: &Chat,
    id: &str,
    limit: usize,
) -> Result<BufferedResponse, Failure> {
    if response.status < 300 {
        let (kind, translated) = if request.stream {
            ("text/event-stream", back.events(&response.body, model, id, limit))
        } else {
            ("application/json", back.document(&response.body, model, id, limit))
        };
        response.headers.set("content-type", kind.as_bytes());
        match translated {
            Ok(body) => return Ok(BufferedResponse { body, ..response }),
            // A provider's error with status 200.
            Err(Unfit::Error) => response.status = refusal(&response.body).status,
            Err(unfit) => return Err(unfit.into()),
        }
    }
    // A body that is not JSON, or too long to relay, is wrapped later.
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&response.body).is_ok();
    if (is_json || request.attached.is_any()) && response.body.len() <= MAX_ERROR_BODY {
        response.body = back.error(response.status, &response.body, id);
        response.headers.set("content-type", b"application/json");
    }
    Ok(response)
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        let (fault, detail) = match unfit {
            Unfit::Malformed(detail) => (Fault::Untranslatable, detail),
            Unfit::Broken(detail) => (Fault::Broken, detail),
            Unfit::Error => (Fault::Broken, "an error"),
            Unfit::TooLarge => (Fault::TooLarge, "too large when translated"),
        };
        Self { fault, detail: detail.to_owned() }
    }
}

fn refusal(document: &[u8]) -> Refusal {
    Refusal::in_document(document).unwrap_or_default()
}

/// Translates a streamed chat completion to the events of the client's API.
pub struct Translation {
    translator: Translator,
    events: Events,
    meter: Meter,
    /// The id of the request.
    id: String,
    back: Back,
    /// Another attempt may follow: the message's beginning is held back, so that a failure after it can still lead to one.
    is_patient: bool,
    mask: Arc<Mask>,
    /// The output that is to be sent.
    out: Output,
}

impl Translation {
    /// A translation for the client that asked for `model` with `chat`; `id` is the request's. It holds at most `limit` bytes of the message.
    /// `is_patient`: another attempt may follow; `mask` is the provider's.
    pub fn new(
        (model, id, chat): (&str, &str, &Chat),
        limit: usize,
        meter: Meter,
        is_patient: bool,
        mask: Arc<Mask>,
    ) -> Self {
        let back = chat.back.clone();
        let translator = back.translator(model, id, limit);
        let (events, id, out) = (Events::default(), id.to_owned(), Output::new(limit));
        Self { translator, events, meter, id, back, is_patient, mask, out }
    }

    /// Translates the events of `bytes`; `None`: the stream has ended, and so has its last event.
    fn translate(&mut self, bytes: Option<&[u8]>, sink: &Sink) -> Result<(), Broke> {
        let Self { translator, events, meter, id, back, is_patient, mask, out } = self;
        let mut translate = |data: &[u8]| match translator.take(data, out) {
            Err(Unfit::Error) => {
                let refusal = refusal(data);
                let announces = *is_patient && !matches!(Opening::of(out.bytes()), Opening::Content);
                if (out.bytes().is_empty() || announces) && sink.is_undecided() {
                    out.clear();
                    let error = back.error(refusal.status, data, id);
                    return Err(Broke::Refused(refusal, error));
                }
                translator.fail(refusal.status, &mask.hide(data.to_vec(), Scope::All), out);
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

    /// Sends the output, but holds back events that only announce while another attempt may follow.
    fn send(&mut self, sink: &mut Sink) {
        let is_held = self.is_patient
            && sink.is_undecided()
            && !matches!(Opening::of(self.out.bytes()), Opening::Content);
        if !is_held {
            self.release(sink);
        }
    }

    /// The stream is complete with `[DONE]` or a finish reason: some providers leave out `[DONE]`, others the reason.
    fn finish(&mut self, by_closing: bool, sink: &Sink) -> Result<(), Broke> {
        self.translate(None, sink)?;
        self.translator.finish(&mut self.out).map_err(|unfit| match unfit {
            Unfit::Broken(detail) if by_closing => {
                Broke::Failed(Failure { fault: Fault::CutOff, detail: detail.to_owned() })
            }
            other => other.into(),
        })
    }
}

impl StreamFilter for Translation {
    fn take(&mut self, piece: &[u8], sink: &mut Sink) -> Result<(), Broke> {
        let taken = self.translate(Some(piece), sink);
        // The client gets the events before the failure.
        self.send(sink);
        taken
    }

    fn end(&mut self, by_closing: bool, sink: &mut Sink) -> Result<(), Broke> {
        let ended = self.finish(by_closing, sink);
        self.send(sink);
        ended
    }

    fn is_over(&mut self) -> bool {
        self.translator.is_over() || self.translator.has_finished()
    }

    fn has_announced(&self) -> bool {
        !self.out.bytes().is_empty()
    }

    fn release(&mut self, sink: &mut Sink) {
        if !self.out.bytes().is_empty() {
            sink.send(self.out.bytes(), false);
            self.out.clear();
        }
    }

    fn held(&self) -> usize {
        self.events.held() + self.translator.held()
    }

    fn measured(&mut self) -> Measured {
        self.meter.measured()
    }

    fn next_sequence(&mut self) -> u64 {
        self.translator.next_sequence()
    }
}

impl From<EventTooLarge> for Broke {
    fn from(error: EventTooLarge) -> Self {
        Unfit::from(error).into()
    }
}

impl From<Unfit> for Broke {
    fn from(unfit: Unfit) -> Self {
        Self::Failed(unfit.into())
    }
}
