//! Answers that go on after their handler: the poller drives all of them, each by what its two sockets are ready for, so that
//! waiting for a provider costs neither a thread nor its stack.

use std::sync::Arc;

use super::Rest;
use super::response::{Client, Done};
use super::source::Source;

/// An answer whose bytes come from another socket, its source. Many are driven from one thread: none may make it wait.
pub trait Ongoing: Send {
    /// Where its bytes come from.
    fn source(&self) -> &Arc<Source>;

    /// Whom it goes to.
    fn client(&self) -> &Arc<Client>;

    /// Goes on as far as that is possible at once. Also asked every [`crate::limits::ONGOING_SWEEP`], to see to its time
    /// limits, and when its client has room again. `scratch`: what it may read into.
    fn go_on(self: Box<Self>, ready: Ready, scratch: &mut [u8]) -> Turn;

    /// Ends it: its client has gone.
    fn give_up(self: Box<Self>) -> Done;
}

/// What happened since the last turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read. It is told once: what is not read is there the next time, told of or not.
    pub source: bool,
    /// The source ends behind what there is to read.
    pub ended: bool,
}

/// What an answer is to wait for.
pub enum Turn {
    /// Its source, or its client, which has to take what it was sent.
    Wait(Box<dyn Ongoing>),
    /// Its next turn: it has had its share of this one.
    Again(Box<dyn Ongoing>),
    /// A worker: what it has to do next may wait.
    Waits(Rest),
    /// Nothing: it has ended.
    Done(Done),
}
