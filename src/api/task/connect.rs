//! A helper makes the connection.

use std::time::Instant;

use super::{Stage, Step};
use crate::api::relay::Relay;
use crate::front::Io;
use crate::upstream::{Connecting, Failure, Fault, Outgoing, failure_of_time};

/// A request that waits for its connection.
pub struct Connect {
    outgoing: Outgoing,
    connecting: Connecting,
    since: Instant,
}

impl Connect {
    /// Has a helper make a connection.
    ///
    /// # Errors
    /// Too many requests wait for a connection already.
    pub fn begin(outgoing: Outgoing, relay: &Relay, io: &mut dyn Io) -> Result<Self, Failure> {
        let deadline = outgoing.deadline(relay.now, relay.client_call.is_committed());
        let (job, connecting) = outgoing.connect(deadline, io.load());
        if !io.spawn(job) {
            let detail = "too many wait for connections".to_owned();
            return Err(Failure { fault: Fault::Overloaded, detail });
        }
        Ok(Self { outgoing, connecting, since: relay.now })
    }

    /// When its time ends. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        self.outgoing.deadline(self.since, is_committed)
    }

    pub fn advance(mut self: Box<Self>, relay: &mut Relay, io: &mut dyn Io) -> Step {
        let is_overdue = relay.now >= self.deadline(relay.client_call.is_committed());
        match self.connecting.poll() {
            Ok(Some(connection)) => {
                let pending = self.outgoing.on_new(connection, relay.now);
                io.watch(pending.source());
                Step::To(Stage::Send(pending))
            }
            Ok(None) => Stage::Connect(self).park(relay),
            Err(_) if is_overdue => Step::failed(failure_of_time()),
            Err(failure) => Step::failed(failure),
        }
    }
}
