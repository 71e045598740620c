//! Begins an attempt: makes its request, and sends it on an idle connection if there is one.

use super::connect::Connect;
use super::send::SendRequest;
use super::{Stage, Step};
use crate::api::allowance;
use crate::api::relay::{Attempt, Relay, not_carried};
use crate::front::Io;
use crate::upstream::{Failure, Outgoing, PendingResponse, Sent};

/// An attempt that begins.
pub struct Begin {
    /// Use no idle connection: the provider had closed the one before.
    pub is_fresh: bool,
}

/// A request on its way to a replica.
enum Asked {
    /// On an idle connection; how much of it has left.
    On(PendingResponse, Sent),
    /// It needs a new connection.
    Unconnected(Outgoing),
}

impl Begin {
    pub fn advance(self, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
        let Attempt { choice, .. } = attempt;
        if relay.is_translated {
            if let Some(step) = relay.translate_for(&choice.provider().replicas[choice.replica]) {
                return step;
            }
        }
        match ask(relay, attempt, (!self.is_fresh).then_some(io.worker())) {
            Ok(Asked::On(pending, sent)) => {
                io.watch(pending.source());
                SendRequest(pending).after(sent, relay)
            }
            Ok(Asked::Unconnected(outgoing)) => match Connect::begin(outgoing, relay, io) {
                Ok(connect) => Step::Park(Stage::Connect(Box::new(connect))),
                Err(failure) => Step::failed(failure),
            },
            Err(failure) => Step::failed(failure),
        }
    }
}

/// Sends the request to a replica, in its provider's format, on an idle connection of that worker if there is one.
fn ask(relay: &mut Relay, attempt: &Attempt, idle_of: Option<usize>) -> Result<Asked, Failure> {
    let Attempt { choice, others } = attempt;
    if relay.is_untranslatable {
        return Err(not_carried());
    }
    let is_first = relay.client_call.record.attempts == 1;
    let (streamed, now) = (relay.call.body.stream, relay.now);
    let allowance = allowance::of(relay.client_call.config(), streamed, relay.times(), is_first, *others);
    relay.is_short = allowance.is_short;
    let replica = &choice.provider().replicas[choice.replica];
    relay.adds_usage = relay.has_to_ask_for_usage(replica);
    relay.with_body(choice, |body| {
        let length = body.iter().map(|piece| piece.len()).sum();
        match relay.request(choice, length, allowance.timeouts, idle_of)? {
            Err(outgoing) => Ok(Asked::Unconnected(outgoing)),
            Ok(mut pending) => {
                let sent = pending.send(body, now)?;
                Ok(Asked::On(pending, sent))
            }
        }
    })
}
