//! Helpers: threads for what may wait or takes long. They take their jobs from a bounded channel, and post what came of each to its
//! worker.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::inbox::Post;
use super::incoming::Request;
use super::response::{Client, Responder, Shape};
use super::running::Shared;
use super::sys;
use super::task::{self, Computation};
use super::wire::Wire;
use super::{Handled, Lane, Notice, Rejection, Service, Thread};
use crate::limits::THREAD_STACK;
use crate::memory;

/// A piece of work that may wait or take long.
pub enum Job<T> {
    /// A whole request.
    Request(Box<Request<T>>, Box<Wire>),
    /// What is left of a request takes long to compute; it is for the client of that token.
    Compute(Computation, Arc<Client>, u64),
    /// What the task for the client of that token waits for, and needs nothing of it.
    Run(task::Job, u64),
}

/// The threads of one lane. They are started as the load first asks for them and then stay: an unused thread costs memory,
/// and `recv` is the cheaper the fewer wait in it.
pub struct Helpers<T> {
    lane: Lane,
    jobs: Sender<(usize, Job<T>)>,
    queue: Receiver<(usize, Job<T>)>,
    /// Jobs sent and not finished.
    unfinished: AtomicUsize,
    started: AtomicUsize,
    max: usize,
    /// The system refused a thread, which was told of.
    refused: AtomicBool,
}

impl<T: Send + 'static> Helpers<T> {
    /// Helpers for so many jobs at once, on as many threads where there is memory for their stacks.
    pub(super) fn new(lane: Lane, most: usize) -> Self {
        let max = memory::threads(most);
        // A task that ends leaves its job behind.
        let (jobs, queue) = bounded(2 * most);
        let (unfinished, started) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { lane, jobs, queue, unfinished, started, max, refused: AtomicBool::new(false) }
    }

    /// Sends a job of that worker; whether there was room for it. For a request that has its permit there is.
    pub(super) fn send<S: Service<Ticket = T>>(
        &self,
        shared: &Arc<Shared<S>>,
        worker: usize,
        job: Job<T>,
    ) -> bool {
        self.has_thread(shared);
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let is_sent = self.jobs.try_send((worker, job)).is_ok();
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
        if started >= self.max {
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
        let name = if lane == Lane::Worker { "helper" } else { "control" };
        thread::Builder::new()
            .stack_size(THREAD_STACK)
            .name(name.to_owned())
            .spawn(move || shared.helpers(lane).work(&shared))?;
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn work<S: Service<Ticket = T>>(&self, shared: &Shared<S>) {
        while let Ok((worker, job)) = self.queue.recv() {
            let post = perform(shared, job);
            // Before its worker hears of it, who may have the next.
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
            if let Some(post) = post {
                shared.inboxes[worker].post(post);
            }
        }
    }
}

/// Does a job; what its worker hears of it. Nothing: it has panicked, and its connection has ended.
fn perform<S: Service>(shared: &Shared<S>, job: Job<S::Ticket>) -> Option<Post> {
    let (token, mut handled) = match job {
        Job::Request(request, wire) => {
            let token = wire.slot.token;
            let patience = shared.service.limits().client_timeout;
            (token, handle(shared, request, wire, Thread::Helper, patience))
        }
        Job::Compute(rest, client, token) => (token, behind_barrier(shared, &client, None, rest)),
        Job::Run(job, token) => {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                shared.service.notice(Notice::Panicked(panic_message(&*panic)));
            }
            return Some(Post::Ran(token));
        }
    };
    loop {
        match handled? {
            (Handled::Compute(rest), client) => handled = behind_barrier(shared, &client, None, rest),
            (Handled::Done(done), _) => return Some(Post::Done(done)),
            (Handled::Task(task), _) => return Some(Post::Begun(token, task)),
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
