//! A relayed request from its first attempt to its end, owned by the worker that advances it. Its stages stand in a file each, in the
//! order of time: `begin`, `connect`, `send`, `await_head`, `await_body`, `collect` (with `document`) or `stream`; and `backoff` between two attempts.
//! This is the only place that decides about another attempt; nothing is tried again once a byte has left for the client.

mod await_body;
mod await_head;
mod backoff;
mod begin;
mod collect;
mod compute;
mod computing;
mod connect;
mod document;
mod request;
mod send;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcome::{Failed, Finish, Outcome};
use super::relay::{Attempt, Relay};
use crate::front::{self, Client, Done, Handled, Io, Next};
use crate::limits::RECONNECT_PAUSE;
use crate::upstream::{Failure, Fault, PendingResponse, failure_of_time};
use await_body::AwaitBody;
use collect::Collect;
use compute::Compute;
pub use computing::Computing;
use connect::Connect;
use stream::Streaming;

/// A relayed request under way.
pub struct Task {
    relay: Relay,
    /// `None` during a turn.
    state: Option<State>,
}

/// The state between two turns.
enum State {
    /// An attempt in this stage.
    Attempt(Box<Attempt>, Stage),
    /// A pause after a failed attempt, until the next one.
    Backoff(Instant),
}

/// The stage of an attempt, in the order of time. It moves several times a turn, so large ones are boxed.
enum Stage {
    /// It begins: it takes an idle connection, or has one made. `is_fresh`: no idle one, because the provider had closed the
    /// one before.
    Begin { is_fresh: bool },
    /// A helper makes its connection.
    Connect(Box<Connect>),
    /// It sends the request.
    Send(PendingResponse),
    /// It awaits the head of the response.
    AwaitHead(PendingResponse),
    /// It awaits the beginning of the body, which shows its kind.
    AwaitBody(Box<AwaitBody>),
    /// It collects the whole body before any of it leaves.
    Collect(Box<Collect>),
    /// A helper examines the body.
    Compute(Box<Compute>),
    /// It relays the body while it arrives.
    Stream(Box<Streaming>),
}

/// The result of a stage's turn.
enum Step {
    /// The next stage, which advances at once.
    To(Stage),
    /// This stage waits for its connection, its client or its deadline.
    Park(Stage),
    /// This stage continues after others had their turn.
    Yield(Stage),
    /// The end of the attempt.
    Ended(Outcome),
}

/// Begins a request.
pub fn begin(relay: Relay) -> Handled {
    let mut task = Box::new(Task { relay, state: None });
    match task.next_attempt() {
        Ok(state) => Handled::Task(task.waiting(state)),
        Err(finish) => task.relay.finish(finish).into(),
    }
}

impl front::Task for Task {
    fn client(&self) -> &Arc<Client> {
        self.relay.client_call.response.client()
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        self.relay.begin_turn(io.now());
        let Some(mut state) = self.state.take() else { return Next::Done(self.cancel()) };
        loop {
            let next = match state {
                State::Backoff(until) => match self.back_off(until) {
                    Some(next) => next,
                    None => return Next::Park(self.waiting(State::Backoff(until))),
                },
                State::Attempt(attempt, stage) => match stage.advance(&mut self.relay, &attempt, io) {
                    Step::To(stage) => Ok(State::Attempt(attempt, stage)),
                    Step::Park(stage) => return Next::Park(self.waiting(State::Attempt(attempt, stage))),
                    Step::Yield(stage) => return Next::Yield(self.waiting(State::Attempt(attempt, stage))),
                    Step::Ended(outcome) => self.conclude(attempt, outcome),
                },
            };
            match next {
                Ok(next) => state = next,
                Err(finish) => return Next::Done(self.relay.finish(finish)),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let client_call = &self.relay.client_call;
        let own = match self.state.as_ref()? {
            State::Backoff(until) => Some(*until),
            State::Attempt(_, stage) => stage.deadline(client_call.is_committed()),
        };
        own.into_iter().chain(client_call.response.deadline()).min()
    }

    fn cancel(mut self: Box<Self>) -> Done {
        self.relay.begin_turn(Instant::now());
        let finish = match self.state.take() {
            Some(State::Attempt(attempt, Stage::Stream(streaming))) => {
                match streaming.cancel(&mut self.relay, &attempt) {
                    Outcome::Finished(finish) => finish,
                    Outcome::Failed(_) | Outcome::Again => self.client_gone(&attempt),
                }
            }
            Some(State::Attempt(attempt, stage)) => {
                // The connection to the provider closes before the request ends.
                drop(stage);
                self.client_gone(&attempt)
            }
            Some(State::Backoff(_)) | None => self.last(),
        };
        self.relay.finish(finish)
    }
}

impl Task {
    fn waiting(mut self: Box<Self>, state: State) -> Box<Self> {
        self.state = Some(state);
        self
    }

    /// The next state after the end of an attempt.
    fn conclude(&mut self, attempt: Box<Attempt>, outcome: Outcome) -> Result<State, Finish> {
        match outcome {
            Outcome::Finished(finish) => Err(finish),
            Outcome::Failed(failed) => self.after(attempt, failed),
            Outcome::Again => Ok(State::Attempt(attempt, Stage::Begin { is_fresh: false })),
        }
    }

    /// The next state after a failed attempt: another attempt, at once or after a pause, where one is allowed and may succeed.
    fn after(&mut self, attempt: Box<Attempt>, failed: Failed) -> Result<State, Finish> {
        let relay = &mut self.relay;
        let is_mended = match relay.call.is_search {
            true => failed.fault() != Some(Fault::ClientGone),
            false => failed.is_retryable(),
        };
        let may_retry = is_mended && relay.has_retries() && relay.has_time_for(Duration::ZERO);
        let same_again = failed.is_unreachable() && relay.plan.is_lone();
        relay.keep_failure(failed, &attempt.choice);
        // Releases its replica before the next one is chosen.
        drop(attempt);
        match (may_retry, same_again) {
            (false, _) => Err(self.last()),
            (true, false) => self.next_attempt(),
            (true, true) => self.pause(RECONNECT_PAUSE),
        }
    }

    /// The next attempt in the plan. Where all replicas were tried, and one asked for a short wait, all may be tried again after it.
    fn next_attempt(&mut self) -> Result<State, Finish> {
        let relay = &mut self.relay;
        let balance = &relay.gateway.balance;
        let Some(choice) = relay.plan.next(balance, relay.now) else {
            let is_once = relay.plan.is_lone() || relay.call.is_search;
            let wait = relay.last.as_ref().and_then(|last| last.short_wait()).filter(|_| !is_once);
            return match wait {
                Some(wait) => self.pause(wait),
                None => Err(self.last()),
            };
        };
        relay.begin_attempt(&choice);
        let others = relay.has_retries() && relay.plan.has_hope_left(&relay.gateway.balance, relay.now);
        Ok(State::Attempt(Box::new(Attempt { choice, others }), Stage::Begin { is_fresh: false }))
    }

    /// Waits before another attempt, if there is time for it.
    fn pause(&mut self, time: Duration) -> Result<State, Finish> {
        match self.relay.has_time_for(time) {
            true => Ok(State::Backoff(self.relay.now + time)),
            false => Err(self.last()),
        }
    }

    /// The result of the failed attempts for the client.
    fn last(&mut self) -> Finish {
        let finish = self.relay.last();
        // The client leaves while a provider works for it.
        if matches!(finish, Finish::Fault(Fault::ClientGone)) && self.relay.client_call.record.attempts > 0 {
            self.relay.note_request();
        }
        finish
    }

    /// Handles a client that has left during an attempt.
    fn client_gone(&mut self, attempt: &Attempt) -> Finish {
        let detail = "the client went away".to_owned();
        let failed = Failed::Fault(Failure { fault: Fault::ClientGone, detail });
        self.relay.keep_failure(failed, &attempt.choice);
        self.last()
    }
}

impl Stage {
    fn advance(self, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
        match self {
            Self::Begin { is_fresh } => begin::advance(is_fresh, relay, attempt, io),
            Self::Connect(connect) => connect.advance(relay, io),
            Self::Send(pending) => send::advance(pending, relay, attempt),
            Self::AwaitHead(pending) => await_head::advance(pending, relay, attempt),
            Self::AwaitBody(await_body) => await_body.advance(relay, attempt, io),
            Self::Collect(collect) => (*collect).advance(relay, attempt),
            Self::Compute(compute) => compute.advance(relay, attempt, io),
            Self::Stream(streaming) => streaming.advance(relay, attempt, io),
        }
    }

    /// When the stage must advance even if its connection reports nothing. `is_committed`: the client has had its first byte.
    fn deadline(&self, is_committed: bool) -> Option<Instant> {
        match self {
            // This stage never waits: its worker advances it when it takes the task.
            Self::Begin { .. } => None,
            Self::Connect(connect) => Some(connect.deadline(is_committed)),
            Self::Send(pending) | Self::AwaitHead(pending) => Some(pending.deadline(is_committed)),
            Self::AwaitBody(await_body) => Some(await_body.response.deadline(is_committed)),
            Self::Collect(collect) => Some(collect.response.deadline(is_committed)),
            Self::Compute(compute) => compute.deadline(),
            Self::Stream(streaming) => streaming.stream.deadline(is_committed),
        }
    }

    /// Waits in this stage: sends the client its output first, then checks the provider's time limit.
    fn park(self, relay: &mut Relay) -> Step {
        if let Err(error) = relay.see_to_client() {
            return Step::failed(Failure { fault: Fault::ClientGone, detail: error.to_string() });
        }
        let deadline = self.deadline(relay.client_call.is_committed());
        match deadline.is_some_and(|deadline| relay.now >= deadline) {
            true => Step::failed(failure_of_time()),
            false => Step::Park(self),
        }
    }
}

impl Step {
    fn failed(failure: Failure) -> Self {
        Self::Ended(failure.into())
    }
}

#[cfg(test)]
mod tests;
