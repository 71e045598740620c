//! Helpers: threads for what may wait or takes long. They take jobs from a bounded channel, and post to the worker of each when it
//! is done.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::client_stream::ClientStream;
use super::inbox::{Inbox, Post};
use super::incoming::Request;
use super::load::Load;
use super::response::{Responder, Shape, send_last};
use super::sys;
use super::task;
use super::{Handled, Lane, Notice, Rejection, Service};
use crate::limits::{MAX_WORKERS, THREAD_STACK};
use crate::memory;

/// A piece of work that may wait or take long.
pub enum Job<T> {
    /// A request for [`Lane::Control`].
    Request(Box<Request<T>>, Box<ClientStream>),
    /// What the task of that token waits for.
    Run(task::Job, u64),
    /// The same; one of them is done at a time.
    Alone(task::Job, u64),
}

/// The jobs that are done one at a time. Those that wait hold no thread, which others may need to connect.
#[derive(Default)]
struct Alone {
    is_busy: bool,
    /// The oldest first, each with its worker and the token of its task.
    jobs: VecDeque<(usize, task::Job, u64)>,
}

impl Alone {
    /// A job for a helper, where it need not wait.
    fn begin(&mut self, worker: usize, job: task::Job, token: u64) -> Option<(usize, task::Job, u64)> {
        if std::mem::replace(&mut self.is_busy, true) {
            self.jobs.push_back((worker, job, token));
            return None;
        }
        Some((worker, job, token))
    }

    /// The next job for a helper: one has ended.
    fn end(&mut self) -> Option<(usize, task::Job, u64)> {
        let next = self.jobs.pop_front();
        self.is_busy = next.is_some();
        next
    }
}

/// The threads of one lane. They are started as the load first asks for them and then stay: an unused thread costs memory,
/// and `recv` is the cheaper the fewer wait in it.
pub struct Helpers<S: Service> {
    lane: Lane,
    service: Arc<S>,
    /// Where what came of a job goes, by the number of its worker.
    inboxes: Arc<[Inbox]>,
    draining: Arc<AtomicBool>,
    jobs: Sender<(usize, Job<S::RequestContext>)>,
    queue: Receiver<(usize, Job<S::RequestContext>)>,
    alone: Mutex<Alone>,
    /// Jobs that wait, from which on there is no room for another [`Job::Run`]; and as many may wait to be done alone.
    max_run: usize,
    pub(super) load: Arc<Load>,
    max: usize,
    /// The system refused a thread, which the log says.
    refused: AtomicBool,
}

impl<S: Service> Helpers<S> {
    /// Helpers for so many jobs at once, on as many threads where there is memory for their stacks.
    pub(super) fn new(
        lane: Lane,
        most: usize,
        service: &Arc<S>,
        inboxes: &Arc<[Inbox]>,
        draining: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        let (max, max_run) = (memory::threads(most), 2 * most);
        let (jobs, queue) = bounded(max_run + most + MAX_WORKERS);
        Arc::new(Self {
            lane,
            service: Arc::clone(service),
            inboxes: Arc::clone(inboxes),
            draining: Arc::clone(draining),
            jobs,
            queue,
            alone: Mutex::default(),
            max_run,
            load: Arc::default(),
            max,
            refused: AtomicBool::new(false),
        })
    }

    /// Sends a job of that worker; whether there was room for it. For a request that has its permit, and for the one [`Job::Alone`],
    /// there is: a task that ends leaves its [`Job::Run`] in the queue, and those may not fill it, though each worker may send one too
    /// many.
    pub(super) fn send(self: &Arc<Self>, worker: usize, job: Job<S::RequestContext>) -> bool {
        if matches!(job, Job::Run(..)) && self.jobs.len() >= self.max_run {
            return false;
        }
        let before = self.load.unfinished.fetch_add(1, Ordering::Relaxed);
        self.has_thread(before);
        let is_sent = self.jobs.try_send((worker, job)).is_ok();
        if !is_sent {
            self.load.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
        is_sent
    }

    /// Whether a thread is free for a job behind so many unfinished ones, or can be started.
    fn has_thread(self: &Arc<Self>, before: usize) -> bool {
        let started = self.load.started.load(Ordering::Relaxed);
        if before < started {
            return true;
        }
        if started >= self.max {
            return false;
        }
        let error = self.start().err();
        let is_logged = self.refused.swap(error.is_some(), Ordering::Relaxed);
        // The threads that there are serve; the next request tries again.
        match error {
            None => true,
            Some(_) if is_logged => false,
            Some(error) => {
                self.service.notice(Notice::ThreadRefused(error));
                false
            }
        }
    }

    /// Starts the first thread: with it there is one that serves, whatever the system refuses later.
    ///
    /// # Errors
    /// The system refuses even that.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let helpers = Arc::clone(self);
        let name = if self.lane == Lane::Worker { "helper" } else { "control" };
        let thread = thread::Builder::new().stack_size(THREAD_STACK).name(name.to_owned());
        thread.spawn(move || helpers.work())?;
        self.load.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn work(self: &Arc<Self>) {
        while let Ok((worker, job)) = self.queue.recv() {
            let post = self.perform(job);
            // Before its worker hears of it, who may have the next.
            self.load.unfinished.fetch_sub(1, Ordering::Relaxed);
            match post {
                Some(post) => self.inboxes[worker].post(post),
                // A place may be free, which a drain waits for.
                None => self.inboxes[worker].wake(),
            }
        }
    }

    /// Does a job; returns the post for its worker. `None`: a handler panicked, and its connection has ended.
    fn perform(self: &Arc<Self>, job: Job<S::RequestContext>) -> Option<Post> {
        match job {
            Job::Request(request, stream) => {
                let token = stream.slot.token;
                let timeout = self.service.limits().client_timeout;
                let handled = handle(&*self.service, &self.draining, request, stream, timeout);
                handled.map(|handled| Post::Handled(token, handled))
            }
            Job::Run(job, token) => Some(self.run(job, token)),
            Job::Alone(job, token) => {
                let post = self.run(job, token);
                let next = self.alone().end();
                self.send_next_alone(next);
                Some(post)
            }
        }
    }

    fn run(&self, job: task::Job, token: u64) -> Post {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            self.service.notice(Notice::Panicked(panic_message(&*panic)));
        }
        Post::Ran(token)
    }

    /// Has a job done in its turn among those that are done alone; `false`: too many wait.
    pub(super) fn send_alone(self: &Arc<Self>, worker: usize, job: task::Job, token: u64) -> bool {
        let mut alone = self.alone();
        if alone.jobs.len() >= self.max_run {
            return false;
        }
        let next = alone.begin(worker, job, token);
        drop(alone);
        self.send_next_alone(next);
        true
    }

    /// Sends it behind all jobs that wait. Where there is no room for it, its task hears so, and the next is sent.
    fn send_next_alone(self: &Arc<Self>, mut next: Option<(usize, task::Job, u64)>) {
        while let Some((worker, job, token)) = next {
            if self.send(worker, Job::Alone(job, token)) {
                return;
            }
            self.inboxes[worker].post(Post::Ran(token));
            next = self.alone().end();
        }
    }

    fn alone(&self) -> MutexGuard<'_, Alone> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the handler behind the panic barrier; `None`: it panicked, and the connection has ended. Its buffers are gone then; its socket
/// still takes a 500 if nothing else was sent.
pub fn handle<S: Service>(
    service: &S,
    draining: &Arc<AtomicBool>,
    request: Box<Request<S::RequestContext>>,
    stream: Box<ClientStream>,
    client_timeout: Duration,
) -> Option<Handled> {
    let shape = Shape::of(&request.head);
    let (client, peer) = (Arc::clone(&stream.client), stream.peer);
    let responder = Responder::new(stream, shape, client_timeout, draining);
    match catch_unwind(AssertUnwindSafe(|| service.handle(request, responder))) {
        Ok(handled) => Some(handled),
        Err(panic) => {
            service.notice(Notice::Panicked(panic_message(&*panic)));
            if !client.started.load(Ordering::Relaxed) {
                let response = service.reject(Rejection::Panicked, peer, None);
                send_last(&client, shape.closing(), &response);
            }
            sys::shut_write(&*client);
            None
        }
    }
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Alone;

    #[test]
    fn jobs_that_are_done_alone_wait_for_the_one_ahead_and_keep_their_order() {
        let mut alone = Alone::default();
        let tokens = |(worker, _, token)| (worker, token);
        assert_eq!(alone.begin(0, Box::new(|| {}), 1).map(tokens), Some((0, 1)));
        assert!(alone.begin(1, Box::new(|| {}), 2).is_none());
        assert!(alone.begin(0, Box::new(|| {}), 3).is_none());
        assert_eq!(alone.end().map(tokens), Some((1, 2)));
        assert_eq!(alone.end().map(tokens), Some((0, 3)));
        assert!(alone.end().is_none());
        assert_eq!(alone.begin(1, Box::new(|| {}), 4).map(tokens), Some((1, 4)), "none is under way");
    }
}
