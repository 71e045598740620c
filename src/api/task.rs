//! A relayed request from its first attempt to its end, owned by the loop that advances it: a connection to the provider, the
//! request on it, the response's head, then a body that is collected or a stream that is passed on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inference::{Asked, Attempt, Decision, RECONNECT_PAUSE, Relay};
use super::outcome::{Failed, Outcome};
use super::streaming::Streaming;
use crate::front::{self, Client, Done, Handled, Io, Next};
use crate::limits::{MAX_BEGINNING, QUICK_BODY};
use crate::upstream::opening::begins_like_events;
use crate::upstream::stream::Progress;
use crate::upstream::{
    Collected, Connecting, Failure, Fault, NoResponse, Outgoing, PendingResponse, Sent, UpstreamResponse,
    Whole, failure_of_time,
};

/// Whether an attempt is made.
enum State {
    /// It is, and has come so far.
    Attempt(Box<Attempt>, Stage),
    /// One has failed, and another follows then.
    Backoff(Instant),
}

/// How far an attempt has come, in the order of time.
pub enum Stage {
    /// An attempt begins: it takes an idle connection, unless that is `fresh`, or has one made.
    Begin { fresh: bool },
    /// A helper makes its connection, since then.
    Connect(Outgoing, Connecting, Instant),
    /// Its request leaves.
    Send(PendingResponse),
    /// The head of its response is awaited.
    AwaitHead(PendingResponse),
    /// The beginning of its body is awaited, which shows what it is.
    AwaitBody(UpstreamResponse, Vec<u8>),
    /// Its body is read whole before any of it leaves.
    Collect(UpstreamResponse, Whole),
    /// Its body is passed on as it comes.
    Stream(Box<Streaming>),
}

impl Stage {
    /// When it must advance even if its connection reports nothing. `is_committed`: the client has had its first byte.
    fn deadline(&self, is_committed: bool) -> Option<Instant> {
        match self {
            // Nothing reports that it may begin: its worker advances it when it takes the task.
            Self::Begin { .. } => None,
            Self::Connect(outgoing, _, since) => Some(outgoing.deadline(*since, is_committed)),
            Self::Send(pending) | Self::AwaitHead(pending) => Some(pending.deadline(is_committed)),
            Self::AwaitBody(response, _) | Self::Collect(response, _) => {
                Some(response.deadline(is_committed))
            }
            Self::Stream(streaming) => streaming.stream.deadline(is_committed),
        }
    }
}

/// What a stage comes to.
pub enum Step {
    /// The next stage, which may have more at hand.
    To(Stage),
    /// This stage, once its connection, its client or the clock has news.
    Park(Stage),
    /// This stage, after others had their turn.
    Yield(Stage),
    /// The end of the attempt.
    Ended(Outcome),
    /// A body that is whole, and takes long to look at.
    Compute(UpstreamResponse, Vec<u8>),
}

/// A relayed request under way.
pub struct Task {
    relay: Relay,
    client: Arc<Client>,
    /// Taken out for a turn.
    state: Option<State>,
    /// What the client sent is not needed any more, and is dropped.
    is_settled: bool,
}

/// Begins a request.
pub fn begin(relay: Relay) -> Handled {
    let client = Arc::clone(relay.client_call.response.client());
    let mut task = Task { relay, client, state: None, is_settled: false };
    match task.next_attempt() {
        Ok(state) => task.parked(state),
        Err(done) => done.into(),
    }
}

impl front::Task for Task {
    fn client(&self) -> &Arc<Client> {
        &self.client
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        let Some(mut state) = self.state.take() else { return Next::Done(self.cancel()) };
        loop {
            let next = match state {
                State::Backoff(until) => match self.back_off(until, io.now()) {
                    Some(next) => next,
                    None => {
                        self.state = Some(state);
                        return Next::Park(self);
                    }
                },
                State::Attempt(attempt, stage) => match self.step(&attempt, stage, io) {
                    Step::To(stage) => Ok(State::Attempt(attempt, stage)),
                    Step::Park(stage) => {
                        self.state = Some(State::Attempt(attempt, stage));
                        return Next::Park(self);
                    }
                    Step::Yield(stage) => {
                        self.state = Some(State::Attempt(attempt, stage));
                        return Next::Yield(self);
                    }
                    Step::Ended(outcome) => self.conclude(*attempt, outcome),
                    Step::Compute(response, body) => {
                        return Next::Compute(Box::new(move || self.compute(*attempt, response, body)));
                    }
                },
            };
            match next {
                Ok(next) => state = next,
                Err(done) => return Next::Done(done),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let client_call = &self.relay.client_call;
        let stage = match self.state.as_ref()? {
            State::Backoff(until) => Some(*until),
            State::Attempt(_, stage) => stage.deadline(client_call.is_committed()),
        };
        stage.into_iter().chain(client_call.response.deadline()).min()
    }

    fn cancel(mut self: Box<Self>) -> Done {
        match self.state.take() {
            Some(State::Attempt(attempt, Stage::Stream(mut streaming))) => {
                let ended = streaming.stream.cancel();
                match self.relay.stream_ended(*streaming, ended, &attempt.choice) {
                    Outcome::Done(done) => self.relay.end(done),
                    Outcome::Failed(_) => self.relay.client_gone(&attempt),
                }
            }
            Some(State::Attempt(attempt, stage)) => {
                // A provider that is not to go on is left before its request is over.
                drop(stage);
                self.relay.client_gone(&attempt)
            }
            Some(State::Backoff(_)) | None => self.relay.give_last(),
        }
    }
}

impl Task {
    fn step(&mut self, attempt: &Attempt, stage: Stage, io: &mut dyn Io) -> Step {
        match stage {
            Stage::Begin { fresh } => self.begin_attempt(attempt, fresh, io),
            Stage::Connect(outgoing, connecting, since) => self.connect(outgoing, connecting, since, io),
            Stage::Send(pending) => self.send(attempt, pending, io),
            Stage::AwaitHead(pending) => self.await_head(attempt, pending, io),
            Stage::AwaitBody(response, bytes) => self.await_body(attempt, response, bytes, io),
            Stage::Collect(response, whole) => self.collect(attempt, response, whole, io),
            Stage::Stream(streaming) => self.stream(attempt, streaming, io),
        }
    }

    fn begin_attempt(&mut self, attempt: &Attempt, fresh: bool, io: &mut dyn Io) -> Step {
        match self.relay.ask(attempt, (!fresh).then_some(io.worker())) {
            Ok(Asked::On(pending, sent)) => {
                io.watch(pending.source());
                after_sending(pending, sent)
            }
            Ok(Asked::Unconnected(outgoing)) => {
                let since = io.now();
                let deadline = outgoing.deadline(since, self.relay.client_call.is_committed());
                let (job, connecting) = outgoing.connect(deadline, io.load());
                if !io.spawn(job) {
                    let detail = "too many wait for connections".to_owned();
                    return failed(Failure { fault: Fault::Overloaded, detail });
                }
                Step::Park(Stage::Connect(outgoing, connecting, since))
            }
            Err(failure) => failed(failure),
        }
    }

    fn connect(
        &mut self,
        outgoing: Outgoing,
        mut connecting: Connecting,
        since: Instant,
        io: &mut dyn Io,
    ) -> Step {
        match connecting.poll() {
            Ok(Some(connection)) => {
                let pending = outgoing.on_new(connection);
                io.watch(pending.source());
                return Step::To(Stage::Send(pending));
            }
            // Its time was over while it was waited for.
            Err(failure) if io.now() < self.deadline_of(&outgoing, since) => return failed(failure),
            Ok(None) | Err(_) => {}
        }
        match self.see_to_clock(io.now(), self.deadline_of(&outgoing, since)) {
            Ok(()) => Step::Park(Stage::Connect(outgoing, connecting, since)),
            Err(failure) => failed(failure),
        }
    }

    fn deadline_of(&self, outgoing: &Outgoing, since: Instant) -> Instant {
        outgoing.deadline(since, self.relay.client_call.is_committed())
    }

    fn send(&mut self, attempt: &Attempt, mut pending: PendingResponse, io: &mut dyn Io) -> Step {
        match self.relay.with_body(&attempt.choice, |body| pending.send(body)) {
            Ok(Sent::Blocked) => {
                let deadline = pending.deadline(self.relay.client_call.is_committed());
                match self.see_to_clock(io.now(), deadline) {
                    Ok(()) => Step::Park(Stage::Send(pending)),
                    Err(failure) => failed(failure),
                }
            }
            Ok(sent) => after_sending(pending, sent),
            Err(failure) => failed(failure),
        }
    }

    fn await_head(&mut self, attempt: &Attempt, mut pending: PendingResponse, io: &mut dyn Io) -> Step {
        let is_committed = self.relay.client_call.is_committed();
        match pending.poll(is_committed) {
            Ok(Some(head)) => self.relay.on_head(pending.into_response(head), attempt),
            Ok(None) => match self.see_to_clock(io.now(), pending.deadline(is_committed)) {
                Ok(()) => Step::Park(Stage::AwaitHead(pending)),
                Err(failure) => failed(failure),
            },
            Err(NoResponse::Stale) => Step::To(Stage::Begin { fresh: true }),
            Err(NoResponse::Failed(failure)) => failed(failure),
        }
    }

    /// Reads a body for which a stream was asked until its first bytes show whether it is one of events, whatever its label.
    fn await_body(
        &mut self,
        attempt: &Attempt,
        mut response: UpstreamResponse,
        mut first: Vec<u8>,
        io: &mut dyn Io,
    ) -> Step {
        loop {
            let count = match response.read(io.scratch()) {
                Ok(Some(count)) => count,
                Ok(None) => {
                    let deadline = response.deadline(self.relay.client_call.is_committed());
                    return match self.see_to_clock(io.now(), deadline) {
                        Ok(()) => Step::Park(Stage::AwaitBody(response, first)),
                        Err(failure) => failed(failure),
                    };
                }
                Err(failure) => return failed(failure),
            };
            first.extend_from_slice(&io.scratch()[..count]);
            if count == 0 && first.trim_ascii().is_empty() {
                let detail = "ended before its first event".to_owned();
                return failed(Failure { fault: Fault::Broken, detail });
            }
            let is_all = count == 0 || first.len() > MAX_BEGINNING;
            if let Some(is_events) = begins_like_events(&first).or(is_all.then_some(false)) {
                return self.relay.begun(response, first, is_events, attempt);
            }
        }
    }

    fn collect(
        &mut self,
        attempt: &Attempt,
        mut response: UpstreamResponse,
        mut whole: Whole,
        io: &mut dyn Io,
    ) -> Step {
        match whole.collect(&mut response) {
            Ok(Collected::Whole) => {
                self.relay.share.take_over(whole.share);
                if whole.bytes.len() > QUICK_BODY {
                    return Step::Compute(response, whole.bytes);
                }
                Step::Ended(self.relay.document(response, whole.bytes, &attempt.choice))
            }
            Ok(Collected::Again) => Step::Yield(Stage::Collect(response, whole)),
            Ok(Collected::Waits) => {
                let deadline = response.deadline(self.relay.client_call.is_committed());
                match self.see_to_clock(io.now(), deadline) {
                    Ok(()) => Step::Park(Stage::Collect(response, whole)),
                    Err(failure) => failed(failure),
                }
            }
            Err(failure) => failed(failure),
        }
    }

    fn compute(mut self: Box<Self>, attempt: Attempt, response: UpstreamResponse, body: Vec<u8>) -> Handled {
        let outcome = self.relay.document(response, body, &attempt.choice);
        match self.conclude(attempt, outcome) {
            Ok(state) => self.parked(state),
            Err(done) => done.into(),
        }
    }

    fn stream(&mut self, attempt: &Attempt, mut streaming: Box<Streaming>, io: &mut dyn Io) -> Step {
        let (client, now) = (&mut self.relay.client_call.response, io.now());
        let to = match streaming.stream.advance(client, io.scratch(), now) {
            Progress::Waits => Step::Park,
            Progress::Again => Step::Yield,
            Progress::Ended(ended) => {
                return Step::Ended(self.relay.stream_ended(*streaming, ended, &attempt.choice));
            }
        };
        if !self.is_settled && client.is_begun() {
            // No other attempt follows, and what was asked may be large.
            self.relay.call.settle();
            self.relay.client_call.request.drop_body();
            self.is_settled = true;
        }
        to(Stage::Stream(streaming))
    }

    /// What follows where the pause before another attempt is over, or the client has left or heard something meanwhile.
    fn back_off(&mut self, until: Instant, now: Instant) -> Option<Result<State, Done>> {
        let is_there = self.see_to_client(now).is_ok();
        if is_there && now < until {
            return None;
        }
        if !is_there || self.relay.client_call.is_committed() {
            return Some(Err(self.relay.give_last()));
        }
        self.relay.plan.again();
        Some(self.next_attempt())
    }

    /// What follows from the end of an attempt: another one or a pause before it, where one may be made.
    fn conclude(&mut self, attempt: Attempt, outcome: Outcome) -> Result<State, Done> {
        let failed = match outcome {
            Outcome::Done(done) => return Err(self.relay.end(done)),
            Outcome::Failed(failed) => failed,
        };
        let may_retry = self.relay.may_retry(&failed);
        let same_again = failed.is_unreachable() && self.relay.plan.is_lone();
        self.relay.keep_failure(failed, &attempt.choice);
        // Its replica is free before another is chosen.
        drop(attempt);
        match (may_retry, same_again) {
            (false, _) => Err(self.relay.give_last()),
            (true, false) => self.next_attempt(),
            (true, true) => self.pause(RECONNECT_PAUSE),
        }
    }

    fn next_attempt(&mut self) -> Result<State, Done> {
        match self.relay.next_attempt() {
            Decision::Attempt(attempt) => Ok(State::Attempt(attempt, Stage::Begin { fresh: false })),
            Decision::Pause(time) => self.pause(time),
            Decision::End => Err(self.relay.give_last()),
        }
    }

    /// Waits before another attempt, if there is time for it.
    fn pause(&mut self, time: Duration) -> Result<State, Done> {
        match self.relay.has_time_for(time) {
            true => Ok(State::Backoff(Instant::now() + time)),
            false => Err(self.relay.give_last()),
        }
    }

    /// Sees to the client, who may be due a heartbeat, and to the provider's time limit.
    fn see_to_clock(&mut self, now: Instant, deadline: Instant) -> Result<(), Failure> {
        let seen = self.see_to_client(now);
        seen.map_err(|error| Failure { fault: Fault::ClientGone, detail: error.to_string() })?;
        if now >= deadline {
            return Err(failure_of_time());
        }
        Ok(())
    }

    fn see_to_client(&mut self, now: Instant) -> io::Result<()> {
        let client = &mut self.relay.client_call.response;
        client.beat(now)?;
        client.flush()
    }

    fn parked(mut self, state: State) -> Handled {
        self.state = Some(state);
        Handled::Task(Box::new(self))
    }
}

/// Where the request has left, its response is awaited.
fn after_sending(pending: PendingResponse, sent: Sent) -> Step {
    match sent {
        Sent::Whole => Step::To(Stage::AwaitHead(pending)),
        Sent::Blocked => Step::Park(Stage::Send(pending)),
        Sent::Part => Step::Yield(Stage::Send(pending)),
    }
}

fn failed(failure: Failure) -> Step {
    Step::Ended(Outcome::Failed(Failed::Fault(failure)))
}
