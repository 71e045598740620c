//! Requests whose response takes time: their worker advances each of them by what its two sockets are ready for, so
//! that waiting for a provider costs neither a thread nor its stack.

use std::sync::Arc;
use std::time::Instant;

use super::client::Client;
use super::load::Load;
use super::response::Done;
use super::source::Source;

/// A request under way. Many are advanced by one thread: none may make it wait.
pub trait Task: Send {
    /// Whom its response goes to.
    fn client(&self) -> &Arc<Client>;

    /// Advances it as far as that is possible at once: at its beginning, when its source or its client is ready, when its job is
    /// done, and at its [`Task::deadline`].
    fn advance(self: Box<Self>, io: &mut dyn Io) -> Next;

    /// When it must next advance even if nothing is reported of its source, its client or its job: its next time limit or heartbeat.
    /// `None`: it waits for reports alone.
    fn deadline(&self) -> Option<Instant>;

    /// Ends it: its client has gone.
    fn cancel(self: Box<Self>) -> Done;
}

/// What a task has of the thread that advances it.
pub trait Io {
    /// The number of that thread's worker.
    fn worker(&self) -> usize;

    /// When this turn began.
    fn now(&self) -> Instant;

    /// What it may read into.
    fn scratch(&mut self) -> &mut [u8];

    /// Has the task advance whenever something happens at `source` from now on.
    fn watch(&mut self, source: &Arc<Source>);

    /// The task's deadline need not be asked for after this turn: since the last one it has moved to a later time, if at all.
    fn keep_deadline(&mut self);

    /// What the helpers have to do.
    fn load(&self) -> Arc<Load>;

    /// Has a helper do `job`, and the task advance after it; `false`: too much waits for helpers already.
    fn spawn(&mut self, job: Job) -> bool;

    /// The same for a job that takes so long that one of its kind is done at a time, in the order of asking.
    fn spawn_alone(&mut self, job: Job) -> bool;
}

/// What may wait or take long: it has values of the request, and neither its task nor its client.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a task needs next.
pub enum Next {
    /// Its source, its client, which has to take what it was sent, or its job.
    Park(Box<dyn Task>),
    /// Another turn: it has had its share of this one.
    Yield(Box<dyn Task>),
    /// Nothing: it has ended.
    Done(Done),
}
