//! A relayed call, from its body to its log line. This is the only place that decides about another attempt; nothing is
//! tried again once a byte has left for the client.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, HeaderValue, header};

use super::admission::Admitted;
use super::allowance::{self, Times};
use super::envelope::{Envelope, REQUEST_ID, X_REQUEST_ID, sane_id};
use super::error::ApiError;
use super::outcome::{Failed, Outcome, SUCCESS, WholeAnswer};
use super::record::{Record, word};
use super::{Action, Ticket, admission, masking, messages, relayed_headers, responses};
use crate::anthropic::{self, Translator};
use crate::auth::Permit;
use crate::auth::quota::Clock;
use crate::config::{Config, Format, known};
use crate::front::{Answer, Done, Fields, Request, Responder};
use crate::gateway::Gateway;
use crate::limits::{MAX_ERROR_BODY, MAX_ERROR_TEXT, MAX_REFUSAL, MAX_SEARCHED};
use crate::metrics::Metric;
use crate::routing::{Choice, Plan, Verdict};
use crate::upstream::refusal::Refusal;
use crate::upstream::response_id;
use crate::upstream::stream::{self, Broke};
use crate::upstream::usage::{self, Usage};
use crate::upstream::{self, COMMENT, Call, Exchange, Failure, Fault, Heartbeat, Patience, Reply};

/// Pause before a lone replica is tried again after it could not be reached.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A client that has waited so long for a worker may have left; a provider is not asked for nobody.
const QUEUED_LONG: Duration = Duration::from_millis(50);

/// Relays a call to the provider that its model names.
pub fn relay(gateway: &Gateway, request: &Request<Ticket>, responder: Responder) -> Done {
    let config = &*request.ticket.config;
    let token = &config.tokens[request.ticket.token.unwrap_or_default()];
    let mut record = Record::new(request);
    let _in_flight = gateway.metrics.enter();
    let body = admission::parse(request);
    if let Ok(body) = &body {
        record.model.clone_from(&body.model);
        record.streamed = body.stream;
    }
    let mut envelope = request.ticket.envelope.clone();
    let admitted = body.and_then(|body| admission::prepare(gateway, request, token, body)).and_then(|call| {
        let permit = admission::admit(gateway, token, &mut envelope)?;
        Ok((call, permit))
    });
    let (call, permit) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            record.fail(&error);
            record.end(&gateway.metrics, &token.name);
            return responder.send(error.answer(&envelope));
        }
    };
    let reply = new_reply(request, &call, responder);
    let begun = Instant::now();
    let left =
        request.received.elapsed() > QUEUED_LONG && reply.borrow().client().is_some_and(|c| c.is_gone());
    record.model.clone_from(&call.body.model);
    let mut relay = Relay {
        gateway,
        config,
        request,
        call: &call,
        permit: Some(permit),
        begun,
        is_short: false,
        envelope,
        reply,
        record,
    };
    let done = if left { relay.deliver_fault(Fault::ClientGone) } else { relay.run() };
    relay.record.end(&gateway.metrics, &token.name);
    done
}

/// The client's side. A client that asked for a stream hears a heartbeat while nothing else comes.
fn new_reply(request: &Request<Ticket>, call: &Admitted, responder: Responder) -> Rc<RefCell<Reply>> {
    let event = match request.ticket.envelope.format {
        Format::OpenAi => COMMENT,
        Format::Anthropic => anthropic::PING,
    };
    let every = request.ticket.config.stream_heartbeat.filter(|_| call.body.stream);
    let heartbeat = every.map(|every| Heartbeat { every, event });
    Rc::new(RefCell::new(Reply::new(responder, heartbeat)))
}

/// A reverse proxy in front must not hold events back (contract section 4).
fn add_stream_fields(fields: &mut Fields) {
    for (name, value) in [("cache-control", "no-cache"), ("x-accel-buffering", "no")] {
        if !fields.contains(name) {
            fields.push(name, value);
        }
    }
}

/// One call under way.
struct Relay<'a> {
    gateway: &'a Gateway,
    config: &'a Config,
    request: &'a Request<Ticket>,
    call: &'a Admitted,
    /// Given back before the answer's last byte leaves: the client's next request may be quicker than we are.
    permit: Option<Permit>,
    /// When the provider's time began: the client's upload and the queue are not its fault.
    begun: Instant,
    /// The attempt in hand has less time than a first one would have.
    is_short: bool,
    envelope: Envelope,
    reply: Rc<RefCell<Reply>>,
    record: Record,
}

impl Relay<'_> {
    /// Tries replica after replica until one serves, or none is left that may.
    fn run(&mut self) -> Done {
        let mut plan = Plan::new(self.config, &self.call.routes);
        let mut last = None;
        loop {
            let Some(choice) = plan.next(&self.gateway.balance, Instant::now()) else {
                // All were tried: one that asked for a short wait may be asked again behind it.
                let once = plan.is_lone() || self.call.is_search;
                let wait = last.as_ref().and_then(Failed::short_wait).filter(|_| !once);
                match wait {
                    Some(wait) if self.may_pause(wait) => plan.again(),
                    _ => break,
                }
                continue;
            };
            self.record.attempts += 1;
            let others = self.has_retries() && plan.has_hope_left(&self.gateway.balance, Instant::now());
            let failed = match self.attempt(&choice, others) {
                Outcome::Done(done) => return done,
                Outcome::Failed(failed) => failed,
            };
            self.note_failed(&choice, &failed);
            let may_retry = self.may_retry(&failed) && self.has_retries() && self.has_time();
            let again = failed.is_unreachable() && plan.is_lone();
            last = Some(self.the_telling_one(last, failed, &choice));
            if !may_retry || (again && !self.may_pause(RECONNECT_PAUSE)) {
                break;
            }
            if again {
                plan.again();
            }
        }
        let unreachable = || Failure { fault: Fault::Unreachable, detail: "no replica".to_owned() };
        self.deliver(last.unwrap_or_else(|| Failed::Fault(unreachable())))
    }

    /// Whether another attempt can mend this one.
    fn may_retry(&self, failed: &Failed) -> bool {
        if self.call.is_search { failed.fault() != Some(Fault::ClientGone) } else { failed.is_retryable() }
    }

    /// What came of an attempt, for the replica's record and for the metrics; gives the time of a cooldown that begins.
    fn note(&self, choice: &Choice<'_>, verdict: Verdict, result: &str) -> Option<Duration> {
        self.gateway.metrics.add(Metric::Attempts, &[&choice.provider.name, result], 1);
        choice.lease.report(verdict, Instant::now())
    }

    fn has_retries(&self) -> bool {
        let most = if self.call.is_search { MAX_SEARCHED - 1 } else { self.config.max_retries };
        self.record.attempts <= most && !self.reply.borrow().is_committed()
    }

    fn has_time(&self) -> bool {
        !self.times().left(self.config, self.call.body.stream).is_zero()
    }

    fn times(&self) -> Times {
        Times { begun: self.begun, now: Instant::now(), beat: self.reply.borrow().next_beat() }
    }

    /// Waits before another attempt, if there is time for it; whether the attempt may then be made: the client is there,
    /// and has not had a heartbeat meanwhile.
    fn may_pause(&self, wait: Duration) -> bool {
        let in_time = wait < self.times().left(self.config, self.call.body.stream);
        in_time && upstream::pause(&self.reply, wait) && !self.reply.borrow().is_committed()
    }

    /// What the client gets if no further attempt serves: the last answer there was, else the last fault.
    fn the_telling_one(&mut self, before: Option<Failed>, now: Failed, choice: &Choice<'_>) -> Failed {
        let no_answer = matches!(now.fault(), Some(Fault::Unreachable | Fault::Broken | Fault::CutOff));
        match before {
            Some(before) if self.call.is_search && before.weight_in_search() >= now.weight_in_search() => {
                before
            }
            Some(answer @ Failed::Answer(_)) if no_answer && !self.call.is_search => answer,
            _ => {
                self.record.answered_by(choice);
                now
            }
        }
    }

    /// Sends the call to a replica, in the format its provider speaks.
    fn ask(&self, choice: &Choice<'_>, patience: Patience) -> Result<Exchange, Failure> {
        let replica = &choice.provider.replicas[choice.replica];
        let model = self.call.body.written(choice.model);
        let chat = self.call.chat_for(choice.provider);
        let (format, path, body) = match chat {
            None => {
                let body = self.call.body.with_model(&self.request.body, &model);
                (self.envelope.format, &*self.call.path, body)
            }
            Some(chat) => {
                let body = chat.with_model(&model, known(&replica.url).token_limit);
                (Format::OpenAi, messages::CHAT, body)
            }
        };
        let headers = || {
            let headers = relayed_headers::of_request(&self.request.head, &self.request.ticket.envelope);
            if chat.is_some() { messages::headers(&headers) } else { headers }
        };
        let method = self.call.method.clone();
        let call = Call { method, format, path, headers: &headers, body: &body };
        self.gateway.upstream().attempt(replica, &call, patience, Some(&self.reply))
    }

    /// One attempt; `others`: a replica is left that may serve, and may be asked behind it.
    fn attempt(&mut self, choice: &Choice<'_>, others: bool) -> Outcome {
        let streamed = self.call.body.stream;
        if streamed {
            self.reply.borrow_mut().promise(self.early_fields(&choice.provider.name));
        }
        let is_first = self.record.attempts == 1;
        let allowance = allowance::of(self.config, streamed, self.times(), is_first, others);
        self.is_short = allowance.is_short;
        self.adopt_id(&HeaderMap::new());
        let mut exchange = match self.ask(choice, allowance.patience) {
            Ok(exchange) => exchange,
            Err(failure) => return Outcome::Failed(Failed::Fault(failure)),
        };
        let is_translated = self.call.chat_for(choice.provider).is_some();
        if (200..300).contains(&exchange.status) && !choice.model.is_empty() {
            self.gateway.metrics.accept(&choice.provider.name, choice.model);
        }
        self.adopt_id(&exchange.headers);
        if !stream::is_event_stream(&exchange.headers) {
            self.reply.borrow_mut().keep_quiet();
        }
        // A heartbeat has promised events: what is none of them cannot follow it.
        let promised = self.reply.borrow().is_committed() && !stream::is_event_stream(&exchange.headers);
        // What is translated is events or a document, never anything else.
        if is_streamed(&exchange, streamed && !is_translated) && !promised {
            return self.stream(exchange, choice, others);
        }
        // It has begun: it is no hanging replica.
        exchange.take_time();
        let status = exchange.status;
        match exchange.read_whole(self.config.max_response_size) {
            Err(failure) => Outcome::Failed(Failed::Fault(failure)),
            Ok(body) => {
                let refusal = refusal_in(status, &body);
                let headers = std::mem::take(&mut exchange.headers);
                let answer = WholeAnswer { status, headers, body, refusal };
                let model = &self.call.body.model;
                let answer = if is_translated {
                    messages::answer(answer, model, streamed, &self.envelope.id)
                } else {
                    Ok(answer)
                };
                match answer {
                    Ok(answer) => self.whole(answer, choice),
                    Err(failure) => Outcome::Failed(Failed::Fault(failure)),
                }
            }
        }
    }

    /// Takes the provider's id of the answer at hand for the log, and for the client if it sent none and has none yet.
    fn adopt_id(&mut self, headers: &HeaderMap) {
        let id = headers.get(X_REQUEST_ID).or_else(|| headers.get(REQUEST_ID));
        self.record.upstream_id = id.and_then(|id| sane_id(id.as_bytes())).map(str::to_owned);
        if !self.reply.borrow().is_committed() {
            self.envelope.adopt_id(&self.request.ticket.envelope.id, self.record.upstream_id.as_deref());
        }
    }

    fn stream(&mut self, mut exchange: Exchange, choice: &Choice<'_>, others: bool) -> Outcome {
        let status = exchange.status;
        // What is passed on as it comes is a stream, asked for or not.
        if !self.call.body.stream {
            exchange.be_patient(Patience::silence(self.config.stream_timeout));
        }
        let events = stream::is_event_stream(&exchange.headers);
        let mut fields = self.answer_fields(&exchange.headers, &choice.provider.name);
        if events || exchange.length().is_none() {
            add_stream_fields(&mut fields);
        }
        let max_size = self.config.max_response_size;
        let ended = if self.call.chat_for(choice.provider).is_some() {
            let translator = Translator::new(&self.call.body.model, &self.envelope.id);
            messages::relay(&mut exchange, &self.reply, &fields, max_size, translator, &self.envelope.id)
        } else {
            let patient = others && self.config.stream_heartbeat.is_some();
            stream::relay(&mut exchange, &self.reply, &fields, max_size, patient)
        };
        let headers = std::mem::take(&mut exchange.headers);
        drop(exchange);
        let is_begun = self.reply.borrow().is_begun();
        let failure = match ended.broke {
            Some(Broke::Refused(refusal, body)) => return self.refused(refusal, headers, body, choice),
            // Not an event was at hand: as good as no answer, another attempt may follow.
            Some(Broke::Failed(failure)) if !is_begun => {
                let fault = if failure.fault == Fault::CutOff { Fault::Broken } else { failure.fault };
                return Outcome::Failed(Failed::Fault(Failure { fault, ..failure }));
            }
            Some(Broke::Failed(failure)) => Some(failure),
            None => None,
        };
        // Only now is this the answer: until here, that of an earlier attempt may be.
        self.record.answered_by(choice);
        self.record.usage = self.spent(ended.usage);
        responses::learn(self.gateway, self.request, self.call, choice, || ended.response_id);
        let Some(failure) = failure else {
            self.note(choice, Verdict::Served, SUCCESS);
            return self.finish(status, Reply::finish);
        };
        let failed = Failed::Fault(failure);
        self.note_failed(choice, &failed);
        let event = failed.fault().and_then(|fault| self.error_of(fault)).map(|error| {
            self.record.fail(&error);
            error.event(&self.envelope)
        });
        self.finish(status, |reply| reply.break_off(event.as_deref().filter(|_| events)))
    }

    /// A stream whose first event says no is an answer with the status that the event stands for.
    fn refused(
        &mut self,
        refusal: Refusal,
        mut headers: HeaderMap,
        body: Vec<u8>,
        choice: &Choice<'_>,
    ) -> Outcome {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.remove("cache-control");
        self.whole(WholeAnswer { status: refusal.status, headers, body, refusal: Some(refusal) }, choice)
    }

    /// For a stream that a heartbeat begins, before the provider has said anything.
    fn early_fields(&self, provider: &str) -> Fields {
        let mut fields = self.envelope.fields("text/event-stream");
        fields.push("x-ai-proxy-provider", provider);
        add_stream_fields(&mut fields);
        fields
    }

    fn answer_fields(&self, headers: &HeaderMap, provider: &str) -> Fields {
        let kept_back = |name: &str, value: &[u8]| {
            self.envelope.replaces(name) || masking::holds_secret(self.config, provider, value)
        };
        let mut fields = relayed_headers::of_answer(headers, kept_back);
        self.envelope.mark(&mut fields);
        fields.push("x-ai-proxy-provider", provider);
        fields
    }

    fn whole(&mut self, answer: WholeAnswer, choice: &Choice<'_>) -> Outcome {
        let is_good = (200..300).contains(&answer.status);
        if is_good {
            let id = || response_id::in_answer(&answer.body);
            responses::learn(self.gateway, self.request, self.call, choice, id);
        }
        let failed = Failed::Answer(answer);
        if failed.is_retryable() || (self.call.is_search && !is_good) {
            return Outcome::Failed(failed);
        }
        self.note(choice, failed.verdict(), failed.result());
        self.record.answered_by(choice);
        Outcome::Done(self.deliver(failed))
    }

    /// What a stored response once used is not used again by reading it.
    fn spent(&self, told: Option<Usage>) -> Option<Usage> {
        told.filter(|_| self.request.ticket.action != Action::StoredResponse)
    }

    /// Gives the client what the last attempt left.
    fn deliver(&mut self, last: Failed) -> Done {
        match last {
            Failed::Fault(failure) => self.deliver_fault(failure.fault),
            Failed::Answer(answer) => self.deliver_answer(answer),
        }
    }

    fn deliver_fault(&mut self, fault: Fault) -> Done {
        let Some(error) = self.error_of(fault) else {
            return self.end(CLIENT_CLOSED_REQUEST, |reply| reply.break_off(None));
        };
        self.record.fail(&error);
        if self.reply.borrow().is_committed() {
            let event = error.event(&self.envelope);
            return self.end(200, |reply| reply.break_off(Some(&event)));
        }
        let mut answer = error.answer(&self.envelope);
        answer.fields.push("x-ai-proxy-provider", &self.record.provider);
        self.end(error.status(), |reply| reply.send(answer))
    }

    fn deliver_answer(&mut self, answer: WholeAnswer) -> Done {
        let WholeAnswer { status, mut headers, body, .. } = answer;
        // Another attempt may have followed it.
        self.adopt_id(&headers);
        self.record.usage = self.spent(usage::in_answer(&body));
        let body = if status >= 400 { self.error_body(status, &mut headers, body) } else { body };
        if self.reply.borrow().is_committed() {
            return self.end_promised_stream(status, &headers, &body);
        }
        let fields = self.answer_fields(&headers, &self.record.provider);
        self.end(status, |reply| reply.send(Answer { status, fields, body }))
    }

    /// A heartbeat has promised a stream: what came instead, unless translation has made events of it, can only be told of in
    /// an event. Anthropic's has a name, and an answer is no error.
    fn end_promised_stream(&mut self, status: u16, headers: &HeaderMap, body: &[u8]) -> Done {
        if status < 300 && stream::is_event_stream(headers) {
            return self.end(status, |reply| {
                reply.begin(status, &Fields::default(), None);
                match reply.write(body, false) {
                    Ok(()) => reply.finish(),
                    Err(_) => reply.break_off(None),
                }
            });
        }
        let may_say = self.envelope.format == Format::OpenAi || status >= 400;
        let event = if is_json(body) && (may_say || Refusal::in_document(body).is_some()) {
            self.envelope.error_event(&single_line(body))
        } else {
            let error = ApiError::Broken(self.record.provider.clone());
            self.record.fail(&error);
            error.event(&self.envelope)
        };
        self.end(status, |reply| reply.break_off(Some(&event)))
    }

    /// An error that is not JSON is put into our shape; a key that the provider quotes is masked.
    fn error_body(&self, status: u16, headers: &mut HeaderMap, mut body: Vec<u8>) -> Vec<u8> {
        let too_long = body.len() > MAX_ERROR_BODY;
        body.truncate(MAX_ERROR_BODY);
        let body = masking::without_secrets(self.config, &self.record.provider, body);
        if !too_long && is_json(&body) {
            return body;
        }
        headers.remove("content-encoding");
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let text = String::from_utf8_lossy(&body);
        let cut = text.floor_char_boundary(MAX_ERROR_TEXT);
        let text = if text.trim().is_empty() { format!("HTTP {status}") } else { text[..cut].to_owned() };
        ApiError::Upstream(status, text).body(&self.envelope)
    }

    fn error_of(&self, fault: Fault) -> Option<ApiError> {
        ApiError::of_fault(fault, &self.record.provider, self.config.max_response_size)
    }

    fn finish(&mut self, status: u16, end: impl FnOnce(&mut Reply) -> Option<Done>) -> Outcome {
        Outcome::Done(self.end(status, end))
    }

    fn end(&mut self, status: u16, end: impl FnOnce(&mut Reply) -> Option<Done>) -> Done {
        if let (Some(permit), Some(usage)) = (self.permit.take(), self.record.usage) {
            permit.spend(usage.prompt.saturating_add(usage.completion), Clock::now());
        }
        let mut reply = self.reply.borrow_mut();
        let done = end(&mut reply);
        self.record.status = status;
        self.record.bytes = reply.bytes();
        self.record.first_byte = reply.started();
        // A reply ends once: each path above ends it and returns.
        done.expect("a reply is ended once")
    }

    /// A failed attempt: for record and metrics, and in one line for the operator.
    fn note_failed(&self, choice: &Choice<'_>, failed: &Failed) {
        let too_soon = failed.fault() == Some(Fault::TimedOut) && self.is_short;
        let verdict = if too_soon { Verdict::Unknown } else { failed.verdict() };
        let cooldown = self.note(choice, verdict, failed.result());
        // A client that left is no failure of the provider, nor is what it does not have.
        let no_failure = self.call.is_search && failed.weight_in_search() == 0;
        if no_failure || failed.fault() == Some(Fault::ClientGone) {
            return;
        }
        let what = masking::without_secrets(self.config, &choice.provider.name, failed.what().into_bytes());
        let what = String::from_utf8_lossy(&what).into_owned();
        let (attempt, replica, record) = (self.record.attempts, choice.replica + 1, &self.record);
        log::warn!(
            attempt, provider = *choice.provider.name, replica, model = choice.model,
            request_id = *record.request_id, upstream_id = record.upstream_id,
            cooldown = cooldown.map(|time| time.as_secs_f64()), error = *what;
            "attempt={attempt} provider={} replica={replica} model={} request_id={} upstream_id={} cooldown={} {}",
            choice.provider.name,
            word(choice.model),
            record.request_id,
            record.upstream_id(),
            cooldown.map_or("-".to_owned(), |time| format!("{}s", time.as_secs_f64().ceil())),
            word(&what),
        );
        choice.lease.explain(what, Instant::now());
    }
}

/// nginx's status for the log line of a request whose client went away before its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A good answer is streamed where it is a stream of events, where it is sound or pictures, or where a stream was asked for
/// and what comes is no JSON document.
fn is_streamed(exchange: &Exchange, asked: bool) -> bool {
    let kind = exchange.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_of =
        |start: &str| kind.get(..start.len()).is_some_and(|k| k.eq_ignore_ascii_case(start.as_bytes()));
    let media = ["audio/", "image/", "video/", "application/octet-stream"].into_iter().any(is_of);
    let asked = asked && !is_of("application/json") && !kind.is_empty();
    (200..300).contains(&exchange.status)
        && exchange.status != 204
        && (stream::is_event_stream(&exchange.headers) || media || asked)
}

/// What an answer read whole says no with. One of success is looked at where it is small.
fn refusal_in(status: u16, body: &[u8]) -> Option<Refusal> {
    let limit = if status < 400 { MAX_REFUSAL } else { MAX_ERROR_BODY };
    (body.len() <= limit).then(|| Refusal::in_document(body)).flatten()
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// A JSON document without the line ends that would cut an event.
fn single_line(document: &[u8]) -> Vec<u8> {
    document.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}
