//! A call whose request has been sent, from there to its end: no thread waits for it. Whoever has its turn takes it as far as
//! it goes: to the answer's head, to the end of a whole answer, or along a stream.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::inference::{Attempt, Relay};
use super::outcome::{Failed, Outcome};
use super::streaming::Streaming;
use crate::front::{Client, Done, Handled, Ongoing, Ready, Source, Turn};
use crate::limits::{MAX_BEGINNING, QUICK_BODY};
use crate::upstream::opening::begins_like_events;
use crate::upstream::stream::Progress;
use crate::upstream::{Awaited, By, Collected, Exchange, Failure, Fault, Unanswered, Whole};

/// How far an answer has come.
pub enum Stage {
    /// Its head is awaited.
    Head(Awaited),
    /// The beginning of its body is awaited, which tells what it is.
    Beginning(Exchange, Vec<u8>),
    /// It is read whole before any of it leaves.
    Whole(Exchange, Whole),
    /// It is passed on as it comes.
    Stream(Box<Streaming>),
}

/// A call under way.
struct UnderWay {
    relay: Box<Relay>,
    attempt: Attempt,
    client: Arc<Client>,
    source: Arc<Source>,
    /// Taken out for a turn.
    stage: Option<Stage>,
    /// The source has told of its end.
    has_ended: bool,
    /// What was asked is not needed any more, and was let go.
    is_settled: bool,
}

/// What a turn has led to.
pub enum Led {
    /// The next stage, which may have more at hand.
    On(Stage),
    /// To nothing, until its source or its client has news.
    Wait(Stage),
    /// To its share of this turn: it has more.
    Again(Stage),
    /// To the end of the attempt.
    Outcome(Outcome),
    /// To an answer that is whole, and takes long to look at.
    Large(Exchange, Vec<u8>),
    /// The provider had closed the connection that was used.
    Stale,
}

/// Lets the answer to a request that has been sent be awaited.
pub fn answer(relay: Box<Relay>, attempt: Attempt, awaited: Awaited) -> Handled {
    let client = relay.delivery.reply.lock().client();
    let (Some(client), Some(source)) = (client, awaited.socket()) else {
        let detail = "the connection is gone".to_owned();
        return relay.follow_up(Failed::Fault(Failure { fault: Fault::Broken, detail }), attempt);
    };
    let (stage, has_ended, is_settled) = (Some(Stage::Head(awaited)), false, false);
    Handled::Ongoing(Box::new(UnderWay { relay, attempt, client, source, stage, has_ended, is_settled }))
}

impl Ongoing for UnderWay {
    fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }

    fn go_on(mut self: Box<Self>, ready: Ready, scratch: &mut [u8]) -> Turn {
        self.has_ended |= ready.ended;
        let Some(mut stage) = self.stage.take() else { return Turn::Done(self.give_up()) };
        let mut news = ready;
        loop {
            let led = match stage {
                Stage::Head(awaited) => self.await_head(awaited, news),
                Stage::Beginning(exchange, bytes) => self.await_beginning(exchange, bytes, news, scratch),
                Stage::Whole(exchange, whole) => self.collect(exchange, whole, news),
                Stage::Stream(streaming) => self.pass_on(streaming, news, scratch),
            };
            match led {
                Led::On(next) => stage = next,
                Led::Wait(stage) => {
                    self.stage = Some(stage);
                    return Turn::Wait(self);
                }
                Led::Again(stage) => {
                    self.stage = Some(stage);
                    return Turn::Again(self);
                }
                Led::Outcome(outcome) => {
                    let Self { relay, attempt, source, .. } = *self;
                    drop(source);
                    return match concluded(relay, attempt, outcome) {
                        Handled::Done(done) => Turn::Done(done),
                        Handled::Waits(rest) => Turn::Waits(rest),
                        Handled::Ongoing(answer) => Turn::Again(answer),
                    };
                }
                Led::Large(exchange, body) => {
                    let Self { mut relay, attempt, source, .. } = *self;
                    drop(source);
                    return Turn::Waits(Box::new(move || {
                        let outcome = relay.document(exchange, body, &attempt.choice);
                        concluded(relay, attempt, outcome)
                    }));
                }
                Led::Stale => {
                    let Self { relay, attempt, source, .. } = *self;
                    drop(source);
                    return Turn::Waits(Box::new(move || relay.go_on(attempt, By::New)));
                }
            }
            // The next stage has what this one has left.
            news = Ready { source: false, ended: self.has_ended };
        }
    }

    fn give_up(self: Box<Self>) -> Done {
        let Self { mut relay, attempt, source, stage, .. } = *self;
        drop(source);
        match stage {
            Some(Stage::Stream(mut streaming)) => {
                let ended = streaming.stream.give_up();
                match relay.stream_ended(*streaming, ended, &attempt.choice) {
                    Outcome::Done(done) => relay.end(done),
                    Outcome::Failed(_) => relay.client_gone(&attempt),
                }
            }
            other => {
                // A provider that is not to go on is left before its call is over.
                drop(other);
                relay.client_gone(&attempt)
            }
        }
    }
}

impl UnderWay {
    fn await_head(&mut self, mut awaited: Awaited, news: Ready) -> Led {
        if news.source {
            awaited.woken();
        }
        match awaited.poll(self.has_ended) {
            Ok(Some(head)) => self.relay.answered(awaited.into_exchange(head), &self.attempt),
            Ok(None) => match self.see_to_clock(|now| awaited.is_overdue(now)) {
                Ok(()) => Led::Wait(Stage::Head(awaited)),
                Err(failure) => failed(failure),
            },
            Err(Unanswered::Stale) => Led::Stale,
            Err(Unanswered::Failed(failure)) => failed(failure),
        }
    }

    /// Reads a body for which a stream was asked until its first bytes tell whether it is one of events, whatever its label.
    fn await_beginning(
        &mut self,
        mut exchange: Exchange,
        mut beginning: Vec<u8>,
        news: Ready,
        scratch: &mut [u8],
    ) -> Led {
        if news.source {
            exchange.woken();
        }
        loop {
            let count = match exchange.read_at_once(scratch, self.has_ended) {
                Ok(Some(count)) => count,
                Ok(None) => {
                    return match self.see_to_clock(|now| exchange.is_overdue(now)) {
                        Ok(()) => Led::Wait(Stage::Beginning(exchange, beginning)),
                        Err(failure) => failed(failure),
                    };
                }
                Err(failure) => return failed(failure),
            };
            beginning.extend_from_slice(&scratch[..count]);
            if count == 0 && beginning.trim_ascii().is_empty() {
                let detail = "ended before its first event".to_owned();
                return failed(Failure { fault: Fault::Broken, detail });
            }
            let is_all = count == 0 || beginning.len() > MAX_BEGINNING;
            if let Some(is_events) = begins_like_events(&beginning).or(is_all.then_some(false)) {
                return self.relay.begun(exchange, beginning, is_events, &self.attempt);
            }
        }
    }

    fn collect(&mut self, mut exchange: Exchange, mut whole: Whole, news: Ready) -> Led {
        if news.source {
            exchange.woken();
        }
        match whole.collect(&mut exchange, self.has_ended) {
            Ok(Collected::Whole) => {
                self.relay.share.take_over(whole.share);
                if whole.bytes.len() > QUICK_BODY {
                    return Led::Large(exchange, whole.bytes);
                }
                Led::Outcome(self.relay.document(exchange, whole.bytes, &self.attempt.choice))
            }
            Ok(Collected::Again) => Led::Again(Stage::Whole(exchange, whole)),
            Ok(Collected::Source) => match self.see_to_clock(|now| exchange.is_overdue(now)) {
                Ok(()) => Led::Wait(Stage::Whole(exchange, whole)),
                Err(failure) => failed(failure),
            },
            Err(failure) => failed(failure),
        }
    }

    fn pass_on(&mut self, mut streaming: Box<Streaming>, news: Ready, scratch: &mut [u8]) -> Led {
        let led = match streaming.stream.go_on(news, scratch) {
            Progress::Waits => Led::Wait,
            Progress::Again => Led::Again,
            Progress::Ended(ended) => {
                return Led::Outcome(self.relay.stream_ended(*streaming, ended, &self.attempt.choice));
            }
        };
        if !self.is_settled && self.relay.delivery.reply.lock().is_begun() {
            // No other attempt follows, and what was asked may be large.
            self.relay.call.settle();
            self.relay.delivery.request.drop_body();
            self.is_settled = true;
        }
        led(Stage::Stream(streaming))
    }

    /// Sees to the client, who may be due a heartbeat, and to the provider's time limit.
    fn see_to_clock(&self, is_overdue: impl FnOnce(Instant) -> bool) -> Result<(), Failure> {
        let now = Instant::now();
        let mut reply = self.relay.delivery.reply.lock();
        let told = reply.beat(now).and_then(|()| reply.flush());
        drop(reply);
        told.map_err(|error| Failure { fault: Fault::ClientGone, detail: error.to_string() })?;
        if is_overdue(now) {
            let detail = io::Error::from(io::ErrorKind::TimedOut).to_string();
            return Err(Failure { fault: Fault::TimedOut, detail });
        }
        Ok(())
    }
}

/// What follows from the end of an attempt.
fn concluded(relay: Box<Relay>, attempt: Attempt, outcome: Outcome) -> Handled {
    match outcome {
        Outcome::Done(done) => relay.end(done).into(),
        Outcome::Failed(failed) => relay.follow_up(failed, attempt),
    }
}

fn failed(failure: Failure) -> Led {
    Led::Outcome(Outcome::Failed(Failed::Fault(failure)))
}
