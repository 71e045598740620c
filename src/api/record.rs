//! A relayed call in the log and in the metrics (`docs/operations.md`, "Log" and "Metrics").

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::error::ApiError;
use super::{RequestContext, client_address};
use crate::front::Request;
use crate::gateway::{Gateway, LastError};
use crate::limits::{MAX_MODEL, MAX_QUOTED};
use crate::metrics::{Metric, Metrics};
use crate::routing::Choice;
use crate::text::{beginning, quoted};
use crate::upstream::meter::Used;

/// The reason of a call whose client left the queue before a provider was asked.
const CLIENT_GONE: &str = "client_gone";

/// nginx's status for the log line of a request whose client went away before its response.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The facts of a call for the log and the metrics.
pub struct Record {
    /// When its head was complete.
    pub begun: Instant,
    /// The last provider that got the call.
    pub provider: String,
    /// The provider's own id of the model.
    pub provider_model: Arc<str>,
    /// The provider has accepted that model, so the client has not invented the id.
    pub model_taken: bool,
    /// The model that the client names.
    pub model: Arc<str>,
    /// The status that the client gets.
    pub status: u16,
    /// It asked for a stream.
    pub streamed: bool,
    /// Bytes of body sent.
    pub bytes: u64,
    /// Tokens, as reported or estimated; `None`: it used none.
    pub tokens: Option<Used>,
    /// When the first byte of the response left.
    pub first_byte: Option<Instant>,
    pub attempts: u32,
    /// Its id in the log: the client's own, else one of ours. The provider gets it too.
    pub request_id: Arc<str>,
    /// The last provider's id of the call. The client gets this one, unless it sent its own.
    pub upstream_id: Option<String>,
    /// The reason of an error of ours.
    pub reason: Option<&'static str>,
}

impl Record {
    /// The record of a new call.
    pub fn new(request: &Request<RequestContext>) -> Self {
        Self {
            begun: request.received,
            provider: String::new(),
            provider_model: Arc::default(),
            model_taken: false,
            model: Arc::default(),
            status: 0,
            streamed: false,
            bytes: 0,
            tokens: None,
            first_byte: None,
            attempts: 0,
            request_id: Arc::clone(&request.context.response_context.id),
            upstream_id: None,
            reason: None,
        }
    }

    /// Notes an error of our own; a 5xx gets its ERROR line at once.
    pub fn fail(&mut self, error: &ApiError) {
        self.status = error.status();
        self.reason = Some(error.reason());
        if self.status >= 500 {
            let (status, reason, provider) = (self.status, error.reason(), &*self.provider);
            let (request_id, upstream_id) = (&*self.request_id, self.upstream_id());
            log::error!(
                status, reason, provider, request_id, upstream_id = self.upstream_id;
                "{status} {reason} provider={provider} request_id={request_id} upstream_id={upstream_id}"
            );
        }
    }

    /// The provider's id as a word of a log line.
    pub fn upstream_id(&self) -> &str {
        self.upstream_id.as_deref().unwrap_or("-")
    }

    /// Notes the last replica that got the call; `taken`: it has accepted the model.
    pub fn note_responder(&mut self, choice: &Choice, taken: bool) {
        self.model_taken = taken;
        choice.provider().name.clone_into(&mut self.provider);
        self.provider_model = Arc::clone(&choice.model);
    }

    /// Counts the finished call and writes its line to the log.
    pub fn end(&self, gateway: &Gateway, request: &Request<RequestContext>) {
        let token = &request.context.token().name;
        self.count(&gateway.metrics, token);
        if self.reason.is_some() || (self.status >= 400 && self.status != CLIENT_CLOSED_REQUEST) {
            gateway.last_errors.note(self.error(token));
        }
        self.log(request);
    }

    /// Notes a failed call for the status page.
    #[cold]
    fn error(&self, token: &str) -> LastError {
        LastError {
            at: SystemTime::now(),
            request_id: Arc::clone(&self.request_id),
            reason: self.reason,
            provider: self.provider.clone(),
            status: self.status,
            model: beginning(&self.model, MAX_MODEL).to_owned(),
            token: token.to_owned(),
        }
    }

    /// A call that no provider got has only its reason.
    fn count(&self, metrics: &Metrics, token: &str) {
        if let Some(reason) = self.reason {
            metrics.reject(reason);
        }
        let provider = &*self.provider;
        if provider.is_empty() {
            if self.reason.is_none() {
                metrics.reject(CLIENT_GONE);
            }
            return;
        }
        let model = metrics.model_label(provider, &self.provider_model, self.model_taken);
        let mut digits = [0; 3];
        metrics.add(Metric::Requests, &[provider, model, status_label(self.status, &mut digits)], 1);
        let stream = if self.streamed { "true" } else { "false" };
        metrics.observe(Metric::Duration, &[provider, stream], self.begun.elapsed());
        if let Some(at) = self.first_byte {
            metrics.observe(Metric::FirstByte, &[provider], at.duration_since(self.begun));
        }
        metrics.add(Metric::ResponseBytes, &[provider], self.bytes);
        if let Some(used) = self.tokens {
            let family = |is_estimated| if is_estimated { Metric::EstimatedTokens } else { Metric::Tokens };
            let (prompt, completion) =
                (family(used.is_prompt_estimated), family(used.is_completion_estimated));
            metrics.add(prompt, &[provider, model, token, "prompt"], used.prompt);
            metrics.add(completion, &[provider, model, token, "completion"], used.completion);
        }
    }

    /// Writes the line of `docs/operations.md`, "Log": its last two words are the seconds and their unit, in either language.
    fn log(&self, request: &Request<RequestContext>) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let context = &request.context;
        let (token, endpoint) = (&*context.token().name, context.endpoint);
        let client = client_address::of(&context.config, &request.head, context.peer);
        let seconds = |since: Instant| since.duration_since(self.begun).as_secs_f64();
        let (first_byte, duration) = (self.first_byte.map(seconds), seconds(Instant::now()));
        log::info!(
            provider = (!self.provider.is_empty()).then_some(&*self.provider),
            model = *self.model,
            status = self.status,
            stream = self.streamed,
            bytes = self.bytes,
            prompt_tokens = self.tokens.map(|used| used.prompt),
            completion_tokens = self.tokens.map(|used| used.completion),
            tokens_estimated = self.tokens.map(|used| used.is_estimated()),
            ttfb = first_byte,
            attempts = self.attempts,
            request_id = *self.request_id,
            upstream_id = self.upstream_id,
            token = token,
            client:% = client,
            endpoint:% = endpoint,
            reason = self.reason,
            duration = duration;
            "provider={} model={} status={} stream={} bytes={} tokens={} ttfb={} attempts={} request_id={} \
             upstream_id={} token={} client={client} endpoint={endpoint} reason={} 耗时: {duration:.3} s",
            if self.provider.is_empty() { "-" } else { &self.provider },
            word(&self.model),
            self.status,
            self.streamed,
            self.bytes,
            self.tokens.map_or("-".to_owned(), |used| used.to_string()),
            first_byte.map_or("-".to_owned(), |seconds| format!("{seconds:.3}")),
            self.attempts,
            self.request_id,
            self.upstream_id(),
            word(token),
            self.reason.unwrap_or("-"),
        );
    }
}

/// A status of three digits as text.
fn status_label(status: u16, digits: &mut [u8; 3]) -> &str {
    for (digit, scale) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + (status / scale % 10) as u8;
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

/// `text` as one word of a log line, so that no part of it can pass for another field.
pub fn word(text: &str) -> String {
    // Only our own part of the line may contain the word that the documented pipeline searches.
    let escaped = quoted(text, MAX_QUOTED).replace("耗时:", "耗时");
    let plain = !escaped.is_empty() && !escaped.contains([' ', '=', '"', '\u{3000}', '\u{a0}']);
    if plain { escaped } else { format!("\"{}\"", escaped.replace('"', "'")) }
}
