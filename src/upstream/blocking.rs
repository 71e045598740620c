//! A request on a thread of its own, which waits: the monitor's checks are made so.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::{
    Call, Collected, Failure, Fault, Outgoing, PendingResponse, Sent, Timeouts, Unanswered, Upstream,
    UpstreamResponse, Whole, failure_of_time,
};
use crate::config::Replica;
use crate::front::{Source, Want, wait_for_peer};

impl Upstream {
    /// One attempt without a body at one replica, up to its response's head, by then.
    ///
    /// A request on an idle connection that ends without a byte of response is sent once more on a new connection: the
    /// provider had closed it meanwhile. It can in principle run twice then, as with every HTTP client.
    ///
    /// # Errors
    /// Any [`Fault`] but `TooLarge`.
    pub fn attempt(
        &self,
        replica: &Replica,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Result<UpstreamResponse, Failure> {
        let outgoing = || self.request(replica, call, Timeouts::until(deadline));
        let pending = outgoing()?.on_idle().or_else(|outgoing| connected(outgoing, deadline))?;
        match answered(pending, deadline) {
            Err(Unanswered::Stale) => match answered(connected(outgoing()?, deadline)?, deadline) {
                Err(Unanswered::Stale) => {
                    Err(Failure { fault: Fault::Broken, detail: "closed without an answer".to_owned() })
                }
                Err(Unanswered::Failed(failure)) => Err(failure),
                Ok(response) => Ok(response),
            },
            Err(Unanswered::Failed(failure)) => Err(failure),
            Ok(response) => Ok(response),
        }
    }
}

fn connected(outgoing: Outgoing, deadline: Instant) -> Result<PendingResponse, Failure> {
    let (job, mut connecting) = outgoing.connect(deadline);
    job();
    let unreachable = || Failure { fault: Fault::Unreachable, detail: "no connection".to_owned() };
    connecting.poll()?.map(|connection| outgoing.on_new(connection)).ok_or_else(unreachable)
}

fn answered(mut pending: PendingResponse, deadline: Instant) -> Result<UpstreamResponse, Unanswered> {
    while pending.send(&[]).map_err(Unanswered::Failed)? != Sent::Whole {
        wait(pending.source(), Want::Write, deadline).map_err(Unanswered::Failed)?;
    }
    loop {
        if let Some(head) = pending.poll(false)? {
            return Ok(pending.into_response(head));
        }
        wait(pending.source(), Want::Read, deadline).map_err(Unanswered::Failed)?;
    }
}

impl UpstreamResponse {
    /// Reads the body whole, waiting for it until then.
    ///
    /// # Errors
    /// As [`UpstreamResponse::read`]; `TooLarge` above `max` bytes, at once where the length says so; `Overloaded` where there is
    /// no memory; `TimedOut`.
    pub fn read_whole(&mut self, max: usize, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let mut whole = Whole::new(max);
        loop {
            match whole.collect(self)? {
                Collected::Whole => return Ok(whole.bytes),
                Collected::Again => {}
                Collected::Waits => wait(self.source(), Want::Read, deadline)?,
            }
        }
    }
}

fn wait(source: &Arc<Source>, want: Want, deadline: Instant) -> Result<(), Failure> {
    let ready = Instant::now() < deadline && wait_for_peer(source.as_fd(), want, deadline).unwrap_or(true);
    if !ready {
        return Err(failure_of_time());
    }
    source.set_ready(false);
    Ok(())
}
