//! Begins an attempt: makes its request, and sends it on an idle connection if there is one.

use super::connect::Connect;
use super::{Stage, Step, send};
use crate::api::relay::{Attempt, Relay, not_carried};
use crate::front::Io;
use crate::upstream::{Failure, Outgoing, PendingResponse, Sent};

pub fn advance(is_fresh: bool, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
    let Attempt { choice, .. } = attempt;
    if relay.is_translated {
        if let Some(step) = relay.translate_for(&choice.provider().replicas[choice.replica]) {
            return step;
        }
    }
    match ask(relay, attempt, (!is_fresh).then_some(io.worker())) {
        Ok(Ok((pending, sent))) => {
            io.watch(pending.source());
            send::after(pending, sent, relay)
        }
        Ok(Err(outgoing)) => match Connect::begin(outgoing, relay, io) {
            Ok(connect) => Step::Park(Stage::Connect(Box::new(connect))),
            Err(failure) => Step::failed(failure),
        },
        Err(failure) => Step::failed(failure),
    }
}

/// Sends the request to a replica, in its provider's format, on an idle connection of that worker; inner error: there is none.
fn ask(
    relay: &mut Relay,
    attempt: &Attempt,
    idle_of: Option<usize>,
) -> Result<Result<(PendingResponse, Sent), Outgoing>, Failure> {
    let Attempt { choice, others } = attempt;
    if relay.is_untranslatable {
        return Err(not_carried());
    }
    let now = relay.now;
    let (timeouts, is_short) = relay.allowance(*others);
    relay.is_short = is_short;
    let replica = &choice.provider().replicas[choice.replica];
    relay.adds_usage = relay.has_to_ask_for_usage(replica);
    relay.with_body(choice, |body| {
        let length = body.iter().map(|piece| piece.len()).sum();
        match relay.request(choice, length, timeouts, idle_of)? {
            Err(outgoing) => Ok(Err(outgoing)),
            Ok(mut pending) => {
                let sent = pending.send(body, now)?;
                Ok(Ok((pending, sent)))
            }
        }
    })
}
