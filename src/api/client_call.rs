//! What the client gets of a relayed call, and how it ends: a response, an error of ours, or the last event of a stream.

use std::sync::Arc;

use super::error::ApiError;
use super::outcome::{BufferedResponse, Finish};
use super::record::{CLIENT_CLOSED_REQUEST, Record};
use super::response_context::{REQUEST_ID, ResponseContext, X_REQUEST_ID, sane_id};
use super::worded_refusal::with_words_ahead;
use super::{RequestContext, error_event, masking, promised};
use crate::auth::Permit;
use crate::auth::quota::Clock;
use crate::config::{Config, Format};
use crate::core::relayed_headers;
use crate::front::{Done, Fields, Request, Response};
use crate::gateway::Gateway;
use crate::limits::{MAX_ERROR_BODY, MAX_ERROR_TEXT};
use crate::metrics::InFlight;
use crate::text::beginning;
use crate::upstream::refusal::Refusal;
use crate::upstream::stream;
use crate::upstream::{ClientResponse, Fault, Finished, Headers};

/// The client's side of a call.
pub struct ClientCall {
    /// What the client asked.
    pub request: Arc<Request<RequestContext>>,
    /// Given back before the response's last byte leaves: the client's next request may be quicker than we are.
    pub permit: Permit,
    /// Released at the same moment, for the same reason.
    pub in_flight: InFlight,
    /// What goes with the response: id, language, format, limits, CORS.
    pub response_context: ResponseContext,
    /// Where the response leaves.
    pub response: ClientResponse,
    /// For the log and the metrics.
    pub record: Record,
    /// Tokens of its prompt, estimated from its body.
    pub estimated_prompt: u64,
    /// Tokens that its token's day is charged with at its end.
    pub charge: u64,
}

impl ClientCall {
    /// The configuration that it began with.
    pub fn config(&self) -> &Config {
        &self.request.context.config
    }

    /// What the client sent is not needed any more.
    pub fn drop_body(&mut self) {
        // A helper that has it is done with it by now.
        if let Some(request) = Arc::get_mut(&mut self.request) {
            request.drop_body();
        }
    }

    /// Whether a status has left: no attempt may follow then.
    pub fn is_committed(&self) -> bool {
        self.response.is_committed()
    }

    /// An attempt at this provider begins. A client that asked for a stream may hear a heartbeat before it says anything.
    pub fn begin_attempt(&mut self, provider: &str, streamed: bool) {
        self.record.attempts += 1;
        // That of an attempt that failed would lead to nothing.
        self.adopt_id(None, provider);
        if streamed {
            let mut fields = self.response_context.fields("text/event-stream");
            fields.push("x-ai-proxy-provider", provider);
            add_stream_fields(&mut fields);
            self.response.promise(fields);
        }
    }

    /// Takes the provider's id of the current response for the log, and for the client if it sent none and has none yet. One that
    /// quotes a key is none.
    pub fn adopt_id(&mut self, headers: Option<&Headers>, provider: &str) {
        let id = headers.and_then(|headers| headers.get(X_REQUEST_ID).or_else(|| headers.get(REQUEST_ID)));
        let id = id.and_then(sane_id);
        let id = id.filter(|id| !masking::holds_secret(self.config(), provider, id.as_bytes()));
        self.record.upstream_id = id.map(str::to_owned);
        if !self.is_committed() {
            self.response_context
                .adopt_id(&self.request.context.response_context.id, self.record.upstream_id.as_deref());
        }
    }

    /// The fields of a provider's response as the client gets them.
    pub fn relayed_fields(&self, headers: &Headers, provider: &str) -> Fields {
        let kept_back = |name: &str, value: &[u8]| {
            self.response_context.replaces(name)
                || masking::field_holds_secret(self.config(), provider, name, value)
        };
        let mut fields = relayed_headers::of_response(headers, kept_back);
        self.response_context.mark(&mut fields);
        fields.push("x-ai-proxy-provider", provider);
        fields
    }

    /// Ends it. The call is counted, and has its line in the log.
    pub fn finish(mut self, finish: Finish, gateway: &Gateway) -> Done {
        match finish {
            Finish::Response(response) => self.respond(response, gateway),
            Finish::Fault(fault) => match self.error_of(fault) {
                Some(error) => self.fail(&error, gateway),
                None => self.end(CLIENT_CLOSED_REQUEST, gateway, |client| client.break_off(None)),
            },
            Finish::Error(error) => self.fail(&error, gateway),
            Finish::Complete(status) => self.end(status, gateway, ClientResponse::finish),
            Finish::Broken { status, fault, is_events, sequence } => {
                let event = self.error_of(fault).map(|error| {
                    self.record.fail(&error);
                    error_event::of(&error, &self.response_context, sequence)
                });
                self.break_off(status, event.as_deref().filter(|_| is_events), gateway)
            }
        }
    }

    /// An error of ours, or of the call's.
    fn fail(mut self, error: &ApiError, gateway: &Gateway) -> Done {
        self.record.fail(error);
        if self.is_committed() {
            let event = error_event::of(error, &self.response_context, 0);
            return self.break_off(200, Some(&event), gateway);
        }
        let mut response = error.response(&self.response_context);
        if !self.record.provider.is_empty() {
            response.fields.push("x-ai-proxy-provider", &self.record.provider);
        }
        self.end(error.status(), gateway, |client| client.send(response))
    }

    /// A response of the provider's that was read whole.
    fn respond(self, response: BufferedResponse, gateway: &Gateway) -> Done {
        let refused = response.refusal_of_us();
        let BufferedResponse { status, mut headers, body, refusal } = response;
        let body = match refusal {
            _ if status >= 400 => self.error_body(status, refused, &mut headers, body),
            Some(_) => {
                self.worded(refused, masking::without_secrets(self.config(), &self.record.provider, body))
            }
            // It was masked when it was examined (`task/document.rs`).
            None => body,
        };
        if self.is_committed() {
            return self.respond_in_stream(status, &headers, &body, gateway);
        }
        let mut fields = self.relayed_fields(&headers, &self.record.provider);
        if refused.is_some() {
            fields.push("x-ai-proxy-refused-by", "provider");
        }
        self.end(status, gateway, |client| client.send(Response { status, fields, body: body.into() }))
    }

    /// A heartbeat has promised a stream: the events that a document became leave, else an event tells of it. Anthropic's has a name,
    /// and a good response is no error.
    fn respond_in_stream(mut self, status: u16, headers: &Headers, body: &[u8], gateway: &Gateway) -> Done {
        if status < 300 && stream::is_event_stream(headers) {
            self.response.begin(status, &Fields::default(), None);
            self.response.write(body, false);
            return self.end(status, gateway, ClientResponse::finish);
        }
        let may_say = (self.response_context.format == Format::OpenAi && !self.response_context.is_responses)
            || status >= 400;
        let event = if is_json(body) && (may_say || Refusal::in_document(body).is_some()) {
            error_event::of_document(&promised::single_line(body).collect::<Vec<_>>(), &self.response_context)
        } else {
            let error = ApiError::Broken(self.record.provider.clone());
            self.record.fail(&error);
            error_event::of(&error, &self.response_context, 0)
        };
        self.break_off(status, Some(&event), gateway)
    }

    fn break_off(self, status: u16, event: Option<&[u8]>, gateway: &Gateway) -> Done {
        self.end(status, gateway, |client| client.break_off(event))
    }

    fn end(self, status: u16, gateway: &Gateway, end: impl FnOnce(ClientResponse) -> Finished) -> Done {
        let Self { request, permit, in_flight, response, mut record, charge, .. } = self;
        if permit.is_counted() {
            permit.spend(charge, Clock::now());
        }
        drop((permit, in_flight));
        let Finished { done, bytes, first_byte } = end(response);
        (record.status, record.bytes, record.first_byte) = (status, bytes, first_byte);
        record.end(gateway, &request);
        done
    }

    /// An error that is not JSON is put into our shape; a key that the provider quotes is masked.
    fn error_body(
        &self,
        status: u16,
        refused: Option<u16>,
        headers: &mut Headers,
        mut body: Vec<u8>,
    ) -> Vec<u8> {
        let too_long = body.len() > MAX_ERROR_BODY;
        body.truncate(MAX_ERROR_BODY);
        let body = masking::without_secrets(self.config(), &self.record.provider, body);
        if !too_long && is_json(&body) {
            return self.worded(refused, body);
        }
        headers.remove("content-encoding");
        headers.set("content-type", b"application/json");
        let text = String::from_utf8_lossy(&body);
        let message = match text.trim() {
            "" => format!("HTTP {status}"),
            _ => beginning(&text, MAX_ERROR_TEXT).to_owned(),
        };
        ApiError::Upstream(status, self.record.provider.clone(), message).body(&self.response_context)
    }

    /// A JSON document in which the provider refuses ai-proxy with a status of 401 or 403, worded so.
    fn worded(&self, refused: Option<u16>, document: Vec<u8>) -> Vec<u8> {
        let Some(status) = refused else { return document };
        let refusal = ApiError::Upstream(status, self.record.provider.clone(), String::new());
        with_words_ahead(document, &refusal.words(self.response_context.language))
    }

    fn error_of(&self, fault: Fault) -> Option<ApiError> {
        ApiError::of_fault(fault, &self.record.provider, self.config())
    }
}

/// A reverse proxy in front must not hold events back.
pub fn add_stream_fields(fields: &mut Fields) {
    for (name, value) in [("cache-control", "no-cache"), ("x-accel-buffering", "no")] {
        if !fields.contains(name) {
            fields.push(name, value);
        }
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}
