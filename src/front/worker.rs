//! The fixed pool: threads for what may wait. They take their jobs from a bounded channel, and give back what came of each.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::conn::Conn;
use super::incoming::Request;
use super::response::{Client, Done, Responder, Shape};
use super::running::{Return, Shared};
use super::sys;
use super::task::{self, Computation, Task};
use super::wire::Wire;
use super::{Handled, Lane, Notice, Rejection, Service, Thread};
use crate::limits::{CONTROL_PATIENCE, THREAD_STACK};
use crate::memory;

/// A piece of work that may wait or take long.
pub enum Job<T> {
    /// A whole request.
    Request(Box<Request<T>>, Box<Wire>),
    /// What is left of a request takes long to compute; it is for the client of that token.
    Compute(Computation, Arc<Client>, u64),
    /// What the task for the client of that token waits for, and needs nothing of it.
    Run(task::Job, u64),
    /// An answer that its client has to take, while the poller may keep no more of them.
    Settle(Conn<T>),
}

/// What came of a job.
pub enum Outcome<T> {
    /// The answer is given: how its connection goes on.
    Done(Conn<T>),
    /// The request of the client of that token is under way.
    Task(u64, Box<dyn Task>),
    /// What the task for the client of that token waits for is there.
    Ran(u64),
    /// A panic: the connection has ended.
    Lost,
}

/// The threads of one lane. They are started as the load first asks for them and then stay: an unused thread costs memory,
/// and `recv` is the cheaper the fewer wait in it.
pub struct Pool<T> {
    lane: Lane,
    jobs: Sender<Job<T>>,
    queue: Receiver<Job<T>>,
    /// Jobs sent and not finished.
    unfinished: AtomicUsize,
    started: AtomicUsize,
    max: usize,
    /// The system refused a thread, which was told of.
    refused: AtomicBool,
}

impl<T: Send + 'static> Pool<T> {
    /// A pool for so many jobs at once, on as many threads where there is memory for their stacks.
    pub(super) fn new(lane: Lane, most: usize) -> Self {
        let max = memory::threads(most);
        // A task that ends leaves its job behind.
        let (jobs, queue) = bounded(2 * most);
        let (unfinished, started) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { lane, jobs, queue, unfinished, started, max, refused: AtomicBool::new(false) }
    }

    /// Sends a job; whether there was room for it. For what has its place there is. Called by the poller alone.
    pub(super) fn send<S: Service<Ticket = T>>(&self, shared: &Arc<Shared<S>>, job: Job<T>) -> bool {
        self.has_thread(shared);
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let is_sent = self.jobs.try_send(job).is_ok();
        if !is_sent {
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Whether a thread is free for a job, or can be started.
    pub(super) fn has_thread<S: Service<Ticket = T>>(&self, shared: &Arc<Shared<S>>) -> bool {
        let started = self.started.load(Ordering::Relaxed);
        if self.unfinished.load(Ordering::Relaxed) < started {
            return true;
        }
        if started == self.max {
            return false;
        }
        let error = self.start(shared).err();
        let told = self.refused.swap(error.is_some(), Ordering::Relaxed);
        // The threads there are go on; the next request tries again.
        match error {
            None => true,
            Some(_) if told => false,
            Some(error) => {
                shared.service.notice(Notice::ThreadRefused(error));
                false
            }
        }
    }

    /// Starts the first thread: with it there is one that serves, whatever the system refuses later.
    ///
    /// # Errors
    /// The system refuses even that.
    pub(super) fn start<S: Service<Ticket = T>>(&self, shared: &Arc<Shared<S>>) -> io::Result<()> {
        let (lane, shared) = (self.lane, Arc::clone(shared));
        let name = if lane == Lane::Worker { "worker" } else { "control" };
        thread::Builder::new()
            .stack_size(THREAD_STACK)
            .name(name.to_owned())
            .spawn(move || shared.pool(lane).work(&shared))?;
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn work<S: Service<Ticket = T>>(&self, shared: &Shared<S>) {
        while let Ok(job) = self.queue.recv() {
            let outcome = self.perform(shared, job);
            // Before the poller hears of it: its place is the next job's.
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
            shared.give_back(Return(self.lane, outcome));
        }
    }

    fn perform<S: Service<Ticket = T>>(&self, shared: &Shared<S>, job: Job<T>) -> Outcome<T> {
        let (token, mut handled) = match job {
            Job::Request(request, wire) => {
                let token = wire.slot.token;
                let patience = shared.service.limits().client_timeout;
                (token, handle(shared, request, wire, Thread::Worker, patience))
            }
            Job::Compute(rest, client, token) => (token, behind_barrier(shared, &client, None, rest)),
            Job::Run(job, token) => {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                    shared.service.notice(Notice::Panicked(panic_message(&*panic)));
                }
                return Outcome::Ran(token);
            }
            Job::Settle(mut conn) => {
                conn.wire.settle(self.patience(shared));
                return Outcome::Done(conn);
            }
        };
        loop {
            match handled {
                Some((Handled::Compute(rest), client)) => {
                    handled = behind_barrier(shared, &client, None, rest);
                }
                Some((Handled::Done(done), _)) => return Outcome::Done(self.settled(shared, done)),
                Some((Handled::Task(task), _)) => return Outcome::Task(token, task),
                None => return Outcome::Lost,
            }
        }
    }

    /// Sees to what the client has not taken at once.
    fn settled<S: Service<Ticket = T>>(&self, shared: &Shared<S>, done: Done) -> Conn<T> {
        let mut conn = Conn::behind(done.wire, done.keep, shared.service.limits(), Instant::now());
        if conn.wire.has_output() && !conn.wire.leave(self.lane) {
            conn.wire.settle(self.patience(shared));
        }
        conn
    }

    fn patience<S: Service<Ticket = T>>(&self, shared: &Shared<S>) -> Duration {
        match self.lane {
            Lane::Worker => shared.service.limits().client_timeout,
            Lane::Control => CONTROL_PATIENCE,
        }
    }
}

/// What a handler gave, and for whom; `None`: it panicked, and the connection has ended.
pub type HandledFor = Option<(Handled, Arc<Client>)>;

/// Runs the handler behind the panic barrier.
pub fn handle<S: Service>(
    shared: &Shared<S>,
    request: Box<Request<S::Ticket>>,
    wire: Box<Wire>,
    thread: Thread,
    client_timeout: Duration,
) -> HandledFor {
    let shape = Shape::of(&request.head);
    let client = Arc::clone(&wire.client);
    let responder = Responder::new(wire, shape, client_timeout, &shared.draining);
    behind_barrier(shared, &client, Some(shape), || shared.service.handle(request, responder, thread))
}

/// Runs a piece of a handler. A panic has dropped the connection's buffers; its socket still takes a 500 if nothing else was
/// sent.
pub fn behind_barrier<S: Service>(
    shared: &Shared<S>,
    client: &Arc<Client>,
    shape: Option<Shape>,
    run: impl FnOnce() -> Handled,
) -> HandledFor {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(handled) => Some((handled, Arc::clone(client))),
        Err(panic) => {
            shared.service.notice(Notice::Panicked(panic_message(&*panic)));
            if let Some(shape) = shape.filter(|_| !client.started.load(Ordering::Relaxed)) {
                let answer = shared.service.reject(Rejection::Panicked, None);
                client.send_last(shape.closing(), &answer);
            }
            sys::shut_write(&**client);
            None
        }
    }
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
