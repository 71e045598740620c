//! A relayed call, from its body to its log line. This is the only place that decides about another attempt; nothing is
//! tried again once a byte has left for the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admitted::Admitted;
use super::allowance::{self, Times};
use super::client_call::ClientCall;
use super::outcome::{BufferedResponse, Failed, Outcome, SUCCESS};
use super::record::{Record, word};
use super::{RequestContext, admission, charge, masking, messages, responses, task};
use crate::auth::Permit;
use crate::config::{Format, known};
use crate::core::relayed_headers;
use crate::core::splice::Body;
use crate::front::{Done, Handled, Request, Responder};
use crate::gateway::Gateway;
use crate::limits::MAX_SEARCHED;
use crate::memory::{Holder, Share};
use crate::metrics::Metric;
use crate::routing::{Choice, Plan, Verdict};
use crate::upstream::meter::Measured;
use crate::upstream::response_id;
use crate::upstream::{Call, ClientResponse, Failure, Fault, Outgoing, PendingResponse, Sent, Timeouts};

/// Pause before a lone replica is tried again after it could not be reached.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A client that has waited so long may have left: the provider is skipped then.
const QUEUED_LONG: Duration = Duration::from_millis(50);

/// Relays a call to the provider that its model names.
pub fn relay(gateway: &Arc<Gateway>, request: Box<Request<RequestContext>>, responder: Responder) -> Handled {
    let mut record = Record::new(&request);
    let in_flight = gateway.metrics.enter();
    let body = admission::parse(&request);
    if let Ok(body) = &body {
        record.model.clone_from(&body.model);
        record.streamed = body.stream;
    }
    let mut response_context = request.context.response_context.clone();
    let token = request.context.token();
    // What is refused counts too, and what costs more than its own bytes (filters, lists) comes after the count.
    let admitted =
        admission::admit(gateway, token, &mut response_context).and_then(|permit| Ok((body?, permit)));
    let is_long = |(body, _): &(Body, Permit)| admission::takes_long(&request, body);
    // Computed alone, in its turn.
    let since = admitted.as_ref().is_ok_and(is_long).then(Instant::now);
    let gateway = Arc::clone(gateway);
    let begin = move || {
        let has_left = || responder.client().is_gone();
        let prepare =
            |(body, permit)| Ok((admission::prepare(&gateway, &request, body, since, &has_left)?, permit));
        let (mut call, permit) = match admitted.and_then(prepare) {
            Ok(prepared) => prepared,
            Err(error) => {
                record.fail(&error);
                record.end(&gateway.metrics, &request.context.token().name);
                return responder.send(error.response(&response_context)).into();
            }
        };
        let response = new_response(&request, &call, responder);
        record.model.clone_from(&call.body.model);
        let estimated_prompt = charge::estimated_prompt(&request);
        let (permit, in_flight) = (Some(permit), Some(in_flight));
        let client_call = ClientCall {
            request,
            permit,
            in_flight,
            response_context,
            response,
            record,
            estimated_prompt,
            charge: 0,
        };
        let context = &client_call.request.context;
        let plan = Plan::new(&context.config, std::mem::take(&mut call.routes), context.token());
        let (begun, adds_usage, is_short) = (Instant::now(), false, false);
        let share = Share::new(Holder::Response);
        Relay { gateway, call, plan, last: None, begun, adds_usage, is_short, share, client_call }.begin()
    };
    if since.is_some() { Handled::Compute(Box::new(begin)) } else { begin() }
}

/// The client's side. A client that asked for a stream hears a heartbeat while nothing else comes.
fn new_response(request: &Request<RequestContext>, call: &Admitted, responder: Responder) -> ClientResponse {
    let heartbeat = request.context.config.stream_heartbeat.filter(|_| call.body.stream);
    ClientResponse::new(responder, heartbeat)
}

/// One call under way.
pub struct Relay {
    pub(super) gateway: Arc<Gateway>,
    pub(super) call: Admitted,
    pub(super) plan: Plan,
    /// What the client gets of the attempts that failed, if none serves.
    last: Option<Box<Failed>>,
    /// When the provider's time began: the client's upload and the queue are not its fault.
    begun: Instant,
    /// The attempt in hand asks for the usage of its stream, and the client did not.
    pub(super) adds_usage: bool,
    /// The attempt in hand has less time than a first one would have.
    is_short: bool,
    /// What the responses that were collected for it hold, to its end.
    pub(super) share: Share,
    pub(super) client_call: ClientCall,
}

/// An attempt that is made.
pub struct Attempt {
    /// At whom.
    pub choice: Choice,
    /// A replica is left that may serve, and may be asked behind it.
    pub others: bool,
}

/// What follows in the plan of attempts.
pub enum Decision {
    /// An attempt.
    Attempt(Box<Attempt>),
    /// A pause, and the same replicas again.
    Pause(Duration),
    /// Nothing.
    End,
}

/// A request on its way to a replica.
pub enum Asked {
    /// On an idle connection; how far it has left.
    On(PendingResponse, Sent),
    /// A connection has to be made.
    Unconnected(Outgoing),
}

impl Relay {
    fn begin(mut self) -> Handled {
        if self.client_has_left() {
            let done = self.client_call.fault(Fault::ClientGone);
            return self.end(done).into();
        }
        task::begin(self)
    }

    /// The next attempt, where there is one.
    pub(super) fn next_attempt(&mut self) -> Decision {
        let (balance, now) = (&self.gateway.balance, Instant::now());
        if let Some(choice) = self.plan.next(balance, now) {
            self.client_call.begin_attempt(&choice.provider().name, self.call.body.stream);
            let others = self.has_retries() && self.plan.has_hope_left(balance, now);
            return Decision::Attempt(Box::new(Attempt { choice, others }));
        }
        // All were tried: one that asked for a short wait may be asked again behind it.
        let once = self.plan.is_lone() || self.call.is_search;
        let wait = self.last.as_ref().and_then(|last| last.short_wait()).filter(|_| !once);
        wait.map_or(Decision::End, Decision::Pause)
    }

    /// Gives the client what the attempts that failed have left.
    pub(super) fn give_last(&mut self) -> Done {
        let last = self.last.take().map_or_else(|| Failed::Fault(unreachable("no replica")), |last| *last);
        // A provider works for a client that leaves.
        if last.fault() == Some(Fault::ClientGone) && self.client_call.record.attempts > 0 {
            self.note_request();
        }
        // Only targets that cannot take the call are left: their reason helps the client, a 502 does not.
        let done = match self.call.refused.take() {
            Some(error) if last.is_without_response() => self.client_call.error(&error),
            _ => self.client_call.last(last),
        };
        self.end(done)
    }

    /// The client has gone while an attempt was made.
    pub(super) fn client_gone(&mut self, attempt: &Attempt) -> Done {
        let failed =
            Failed::Fault(Failure { fault: Fault::ClientGone, detail: "the client went away".to_owned() });
        self.keep_failure(failed, &attempt.choice);
        self.give_last()
    }

    /// Notes a failed attempt, and keeps what it left for the client where no other serves.
    pub(super) fn keep_failure(&mut self, failed: Failed, choice: &Choice) {
        self.note_failed(choice, &failed);
        let before = self.last.take();
        self.last = Some(self.the_telling_one(before, failed, choice));
    }

    /// Whether nobody has waited for a call that was queued for long.
    fn client_has_left(&self) -> bool {
        let queued = self.begun.saturating_duration_since(self.client_call.request.received);
        queued > QUEUED_LONG && self.client_call.response.client().is_gone()
    }

    /// The call has been answered: it is counted, and has its line in the log.
    pub(super) fn end(&self, done: Done) -> Done {
        let token = self.client_call.request.context.token();
        self.client_call.record.end(&self.gateway.metrics, &token.name);
        done
    }

    /// Whether another attempt can mend this one, and may be made.
    pub(super) fn may_retry(&self, failed: &Failed) -> bool {
        let is_mended = match self.call.is_search {
            true => failed.fault() != Some(Fault::ClientGone),
            false => failed.is_retryable(),
        };
        is_mended && self.has_retries() && self.has_time_for(Duration::ZERO)
    }

    /// What came of an attempt, for the replica's record and for the metrics; gives the time of a cooldown that begins.
    pub(super) fn note(&self, choice: &Choice, verdict: Verdict, result: &str) -> Option<Duration> {
        self.gateway.metrics.add(Metric::Attempts, &[&choice.provider().name, result], 1);
        if result == SUCCESS {
            let replica = &choice.provider().replicas[choice.replica];
            self.gateway.succeeded(choice.provider(), replica.id);
        }
        choice.lease.report(verdict, Instant::now())
    }

    fn has_retries(&self) -> bool {
        let most = if self.call.is_search { MAX_SEARCHED - 1 } else { self.client_call.config().max_retries };
        self.client_call.record.attempts <= most && !self.client_call.is_committed()
    }

    /// Whether there is time behind a pause.
    pub(super) fn has_time_for(&self, pause: Duration) -> bool {
        pause < self.times().left(self.client_call.config(), self.call.body.stream)
    }

    fn times(&self) -> Times {
        Times { begun: self.begun, now: Instant::now() }
    }

    /// What the client gets if no further attempt serves: the last answer there was, else the last fault.
    fn the_telling_one(&mut self, before: Option<Box<Failed>>, now: Failed, choice: &Choice) -> Box<Failed> {
        let no_answer = now.is_without_response();
        let tells_more = |before: &Failed| match self.call.is_search {
            true => before.weight_in_search() >= now.weight_in_search(),
            false => no_answer && before.fault().is_none(),
        };
        match before.filter(|before| tells_more(before)) {
            Some(before) => {
                let provider = self.client_call.record.provider.clone();
                self.client_call.adopt_id(before.headers(), &provider);
                before
            }
            None => {
                self.client_call.record.note_responder(choice, false);
                Box::new(now)
            }
        }
    }

    /// Asks a replica, in the format its provider speaks, on an idle connection for that worker; none: on a new one.
    pub(super) fn ask(&mut self, attempt: &Attempt, idle_of: Option<usize>) -> Result<Asked, Failure> {
        let Attempt { choice, others } = attempt;
        let is_first = self.client_call.record.attempts == 1;
        let streamed = self.call.body.stream;
        let allowance = allowance::of(self.client_call.config(), streamed, self.times(), is_first, *others);
        self.is_short = allowance.is_short;
        let replica = &choice.provider().replicas[choice.replica];
        self.adds_usage = self.has_to_ask_for_usage(replica);
        self.with_body(choice, |body| {
            let length = body.iter().map(|piece| piece.len()).sum();
            let outgoing = self.request(choice, length, allowance.timeouts)?;
            let pending = match idle_of {
                Some(worker) => outgoing.on_idle(worker),
                None => Err(outgoing),
            };
            match pending {
                Err(outgoing) => Ok(Asked::Unconnected(outgoing)),
                Ok(mut pending) => {
                    let sent = pending.send(body)?;
                    Ok(Asked::On(pending, sent))
                }
            }
        })
    }

    /// The request for a replica, but for its body of that length.
    fn request(&self, choice: &Choice, length: usize, timeouts: Timeouts) -> Result<Outgoing, Failure> {
        let is_translated = self.call.chat_for(choice.provider()).is_some();
        let (format, path) = match is_translated {
            false => (self.client_call.response_context.format, &*self.call.path),
            true => (Format::OpenAi, messages::CHAT),
        };
        let fields = |kept_back: &dyn Fn(&str) -> bool| {
            let ClientCall { request, .. } = &self.client_call;
            let kind = self.call.kind;
            let mut fields =
                relayed_headers::of_request(&request.head, &request.context.response_context.id, &|name| {
                    kept_back(name)
                        || (is_translated && messages::is_field_of_its_own(name))
                        || (kind.is_some() && name.eq_ignore_ascii_case("content-type"))
                });
            if let Some(kind) = kind {
                fields.push("content-type", kind);
            }
            fields
        };
        let method = self.call.method.clone();
        let replica = &choice.provider().replicas[choice.replica];
        let call = Call { method, format, path, fields: &fields, length };
        self.gateway.upstream().request(replica, &call, timeouts)
    }

    /// Makes the body for a replica, in pieces.
    pub(super) fn with_body<T>(&self, choice: &Choice, send: impl FnOnce(&[&[u8]]) -> T) -> T {
        let replica = &choice.provider().replicas[choice.replica];
        let model = self.call.body.written(&choice.model);
        let (body, bytes) = (&self.call.body, &*self.client_call.request.body);
        match self.call.chat_for(choice.provider()) {
            None if self.adds_usage => send(&body.with_model_and_usage(bytes, &model)),
            None => send(&body.with_model(bytes, &model)),
            Some(chat) => {
                // The Messages API reports the usage of every stream.
                let limit = known(&replica.url).token_limit;
                send(&chat.with_model(&model, limit, replica.asks_for_usage(true)))
            }
        }
    }

    /// A response that was read whole, and what is known of its tokens.
    pub(super) fn whole(&mut self, answer: BufferedResponse, measured: Measured, choice: &Choice) -> Outcome {
        let is_good = (200..300).contains(&answer.status);
        let is_error = answer.status >= 400 || answer.refusal.is_some();
        let failed = Failed::Response(answer);
        if failed.is_retryable() || (self.call.is_search && !is_good) {
            return Outcome::Failed(failed);
        }
        if let Failed::Response(answer) = &failed {
            if is_good {
                let id = || response_id::in_document(&answer.body);
                responses::learn(&self.gateway, &self.client_call.request, &self.call, choice, id);
            }
            if !is_error {
                self.note_document(measured, &answer.body);
            }
        }
        let result = failed.result();
        self.note(choice, failed.verdict(), result);
        // An error under a status of success may say that there is no such model.
        self.client_call.record.note_responder(choice, is_good && result == SUCCESS);
        Outcome::Done(self.client_call.last(failed))
    }

    /// A failed attempt: for record and metrics, and in one line for the operator.
    pub(super) fn note_failed(&self, choice: &Choice, failed: &Failed) {
        let too_soon = failed.fault() == Some(Fault::TimedOut) && self.is_short;
        let verdict = if too_soon { Verdict::Unknown } else { failed.verdict() };
        let cooldown = self.note(choice, verdict, failed.result());
        // A client that left is no failure of the provider, nor is what it does not have.
        let no_failure = self.call.is_search && failed.weight_in_search() == 0;
        if no_failure || failed.fault() == Some(Fault::ClientGone) {
            return;
        }
        let what = masking::without_secrets(
            self.client_call.config(),
            &choice.provider().name,
            failed.what().into_bytes(),
        );
        let what = String::from_utf8_lossy(&what).into_owned();
        let record = &self.client_call.record;
        let (attempt, replica) = (record.attempts, choice.replica + 1);
        log::warn!(
            attempt, provider = *choice.provider().name, replica, model = *choice.model,
            request_id = *record.request_id, upstream_id = record.upstream_id,
            cooldown = cooldown.map(|time| time.as_secs_f64()), error = *what;
            "attempt={attempt} provider={} replica={replica} model={} request_id={} upstream_id={} cooldown={} {}",
            choice.provider().name,
            word(&choice.model),
            record.request_id,
            record.upstream_id(),
            cooldown.map_or("-".to_owned(), |time| format!("{}s", time.as_secs_f64().ceil())),
            word(&what),
        );
        choice.lease.explain(what, Instant::now());
    }
}

fn unreachable(detail: &str) -> Failure {
    Failure { fault: Fault::Unreachable, detail: detail.to_owned() }
}
