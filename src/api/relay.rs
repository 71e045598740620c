//! The state of a relayed call that its stages share, and its record of attempts.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admitted::Admitted;
use super::client_call::ClientCall;
use super::messages::Chat;
use super::outcome::{Failed, Finish, SUCCESS};
use super::record::word;
use super::{masking, messages};
use crate::config::{Format, Replica};
use crate::front::Done;
use crate::gateway::Gateway;
use crate::limits::MAX_SEARCHED;
use crate::memory::Share;
use crate::metrics::Metric;
use crate::routing::{Choice, Plan, Verdict};
use crate::text::Text;
use crate::upstream::{Failure, Fault};

/// A call under way.
pub struct Relay {
    pub(super) gateway: Arc<Gateway>,
    pub(super) call: Box<Admitted>,
    pub(super) plan: Plan,
    /// The failure that the client gets if no attempt succeeds.
    pub(super) last: Option<Box<Failed>>,
    /// When the provider's time began, after the client's upload and the queue.
    pub(super) begun: Instant,
    /// When this turn began.
    pub(super) now: Instant,
    /// The current attempt asks for the usage of its stream, and the client did not.
    pub(super) adds_usage: bool,
    /// The current attempt sends the call translated.
    pub(super) is_translated: bool,
    /// Its replica has refused the untranslated call, as one without the API does.
    pub(super) lacks_api: bool,
    /// Its replica needs the call translated, but the call cannot be translated.
    pub(super) is_untranslatable: bool,
    /// The current attempt has less time than a first one would have.
    pub(super) is_short: bool,
    /// The memory of the responses collected for it, held to its end.
    pub(super) share: Share,
    pub(super) client_call: Box<ClientCall>,
}

/// An attempt at one replica.
pub struct Attempt {
    /// The replica, and the model as it knows it.
    pub choice: Choice,
    /// Another replica is available and may be tried after it.
    pub others: bool,
}

impl Relay {
    /// Begins a turn.
    pub(super) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.client_call.response.begin_turn(now);
    }

    /// Sends the client its output, and a heartbeat if one is due.
    ///
    /// # Errors
    /// The client has left.
    pub(super) fn see_to_client(&mut self) -> io::Result<()> {
        let client = &mut self.client_call.response;
        client.beat()?;
        client.flush()
    }

    /// The translated call, if the current attempt sends it translated.
    pub(super) fn chat(&self) -> Option<&Chat> {
        self.call.chat.as_deref().filter(|_| self.is_translated)
    }

    /// Begins an attempt at that replica: decides whether to translate the call.
    pub(super) fn begin_attempt(&mut self, choice: &Choice) {
        let replica = &choice.provider().replicas[choice.replica];
        let is_native = || messages::is_native(&self.gateway, &self.client_call.request, replica, self.now);
        self.lacks_api = false;
        self.is_translated = self.call.chat.is_some() && !is_native();
        self.is_untranslatable = self.call.refused.is_some() && !is_native();
        self.client_call.begin_attempt(&choice.provider().name, self.call.body.stream);
    }

    /// Ends the call: its response, its record, its charge.
    pub(super) fn finish(self, finish: Finish) -> Done {
        self.client_call.finish(finish, &self.gateway)
    }

    /// The end of the call after its failed attempts.
    pub(super) fn last(&mut self) -> Finish {
        let last = self.last.take().map_or_else(|| Failed::Fault(unreachable("no replica")), |last| *last);
        if !last.leaves_it_to_others() || self.plan.has_hope_left(&self.gateway.balance, self.now) {
            return last.into();
        }
        // The targets that are left cannot take the call: their reason helps the client more than an error of the others.
        match (self.call.refused.take(), self.call.uncounting.take()) {
            (Some(error), _) => Finish::Error(error),
            (_, Some(provider)) => {
                self.client_call.record.provider = provider;
                Finish::Response(messages::estimated_count(
                    &self.client_call.request,
                    self.client_call.estimated_prompt,
                ))
            }
            _ => last.into(),
        }
    }

    /// Notes a failed attempt, and keeps its result for the client where no other succeeds.
    pub(super) fn keep_failure(&mut self, failed: Failed, choice: &Choice) {
        self.note_failed(choice, &failed);
        let before = self.last.take();
        self.last = Some(self.more_telling(before, failed, choice));
    }

    /// The result for the client if no further attempt succeeds: the last response, else the last fault.
    fn more_telling(&mut self, before: Option<Box<Failed>>, now: Failed, choice: &Choice) -> Box<Failed> {
        let is_without_response = now.is_without_response();
        let tells_more = |before: &Failed| match self.call.is_search {
            true => before.weight_in_search() >= now.weight_in_search(),
            false => is_without_response && before.fault().is_none(),
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

    /// Notes the outcome of an attempt in the replica's record and the metrics; returns the length of a cooldown that begins.
    pub(super) fn note(&self, choice: &Choice, verdict: Verdict, result: &str) -> Option<Duration> {
        self.gateway.metrics.add(Metric::Attempts, &[&choice.provider().name, result], 1);
        if result == SUCCESS {
            let replica = &choice.provider().replicas[choice.replica];
            self.gateway.succeeded(choice.provider(), replica.id);
            self.note_api(choice, replica);
        }
        choice.lease.report(verdict, self.now)
    }

    /// Notes what a success shows about a replica whose support of the call's API is unknown.
    fn note_api(&self, choice: &Choice, replica: &Replica) {
        let (board, config) = (&self.gateway.board, self.client_call.config());
        let context = &self.client_call.request.context;
        let format = context.response_context.format;
        if !messages::is_translatable(&self.client_call.request) || replica.is_native(format).is_some() {
            return;
        }
        if !self.is_translated {
            board.note_native(replica.id, format);
        } else if self.lacks_api {
            board.note_chat_alone(replica.id, format, self.now, config.models_interval);
            let name = &choice.provider().name;
            let path = if format == Format::Anthropic { "/messages" } else { "/responses" };
            log::info!("{}", Text::ChatAlone(name, choice.replica + 1, path).say(config.language));
        }
    }

    /// Notes a failed attempt in record and metrics, and logs one line.
    pub(super) fn note_failed(&self, choice: &Choice, failed: &Failed) {
        let too_soon = failed.fault() == Some(Fault::TimedOut) && self.is_short;
        let verdict = if too_soon { Verdict::Unknown } else { failed.verdict() };
        let cooldown = self.note(choice, verdict, failed.result());
        // A client that left is no failure of the provider; neither is a model or response that it does not have.
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
        // A replica that got no request has not failed.
        if failed.fault() != Some(Fault::NotCarried) {
            choice.lease.explain(what, self.now);
        }
    }

    /// Whether another attempt may follow.
    pub(super) fn has_retries(&self) -> bool {
        let most = if self.call.is_search { MAX_SEARCHED - 1 } else { self.client_call.config().max_retries };
        self.client_call.record.attempts <= most && !self.client_call.is_committed()
    }

    /// Whether there is time after a pause.
    pub(super) fn has_time_for(&self, pause: Duration) -> bool {
        pause < self.time_left()
    }
}

fn unreachable(detail: &str) -> Failure {
    Failure { fault: Fault::Unreachable, detail: detail.to_owned() }
}

/// The replica speaks chat completions alone, and the call cannot be translated.
pub fn not_carried() -> Failure {
    let detail = "it supports only chat completions, which cannot express the call".to_owned();
    Failure { fault: Fault::NotCarried, detail }
}
