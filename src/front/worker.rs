//! The fixed pool: threads that take whole requests from a bounded channel and answer them.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::conn::{Conn, Context, Step};
use super::incoming::Request;
use super::ongoing;
use super::places::{Place, Places};
use super::response::{Client, Responder, Shape};
use super::running::{Shared, Stats};
use super::sys::{self, Interest};
use super::wire::{Pace, Wire};
use super::{Handled, Lane, Notice, Rejection, Service, Thread};
use crate::limits::{CONTROL_PATIENCE, KEEPALIVE_GRACE, READ_CHUNK};

/// A whole request and the connection it came on.
pub type Parcel<T> = (Box<Request<T>>, Box<Wire>);

/// A request that waits for a thread. Whoever empties it first has it: a thread, or the poller when its time is up.
pub struct Job<T>(Mutex<Option<Parcel<T>>>);

impl<T> Job<T> {
    /// Takes the request, if nobody did.
    pub(super) fn take(&self) -> Option<Parcel<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// The threads of one lane and the queue before them. Threads are started as the load first asks for them and then
/// stay: an unused thread costs memory, and `recv` is the cheaper the fewer wait in it.
pub struct Pool<T> {
    lane: Lane,
    jobs: Sender<Arc<Job<T>>>,
    queue: Receiver<Arc<Job<T>>>,
    /// Requests queued or in a thread's hands, and those in hand.
    stats: Arc<Stats>,
    started: AtomicUsize,
    max: usize,
    /// Where its requests have their places, of which there are `max`.
    places: Arc<Places>,
    /// The system refused a thread, which was told of.
    refused: AtomicBool,
}

impl<T: Send + 'static> Pool<T> {
    pub(super) fn new(lane: Lane, max: usize, queue: usize, stats: Arc<Stats>) -> Self {
        let (jobs, receiver) = bounded(queue);
        let (started, refused) = (AtomicUsize::new(0), AtomicBool::new(false));
        let places = Places::new(max);
        Self { lane, jobs, queue: receiver, stats, started, max, places, refused }
    }

    /// Hands a request to the pool; gives it back when the queue is full. Called by the poller alone.
    pub(super) fn submit<S: Service<Ticket = T>>(
        &self,
        shared: &Arc<Shared<S>>,
        request: Box<Request<T>>,
        wire: Box<Wire>,
    ) -> Result<Arc<Job<T>>, Parcel<T>> {
        let job = Arc::new(Job(Mutex::new(Some((request, wire)))));
        // Counted before it is sent, so that the thread that takes it never sees a count without it.
        let load = self.stats.load.fetch_add(1, Ordering::Relaxed) + 1;
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.jobs.try_send(Arc::clone(&job))
        {
            self.stats.load.fetch_sub(1, Ordering::Relaxed);
            return job.take().map_or(Ok(job), Err);
        }
        let started = self.started.load(Ordering::Relaxed);
        // For an ongoing answer's place there is no need of a thread.
        if load > started && started + self.stats.ongoing.load(Ordering::Relaxed) < self.max {
            self.start_thread(shared);
        }
        Ok(job)
    }

    /// A request that the poller took back from the queue. It was the oldest, so its empty place is the first; where a
    /// thread was quicker, what is found there instead goes to the end of the queue.
    pub(super) fn withdraw(&self) {
        self.stats.load.fetch_sub(1, Ordering::Relaxed);
        if let Ok(job) = self.queue.try_recv()
            && !job.is_taken()
        {
            // The poller alone sends, so the place is still free.
            let _ = self.jobs.try_send(job);
        }
    }

    /// Starts the first thread: with it there is one that serves, whatever the system refuses later.
    ///
    /// # Errors
    /// The system refuses even that.
    pub(super) fn start<S: Service<Ticket = T>>(&self, shared: &Arc<Shared<S>>) -> io::Result<()> {
        let (lane, shared) = (self.lane, Arc::clone(shared));
        let name = if lane == Lane::Worker { "worker" } else { "control" };
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.pool(lane).work(&shared))?;
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn start_thread<S: Service<Ticket = T>>(&self, shared: &Arc<Shared<S>>) {
        let error = self.start(shared).err();
        let told = self.refused.swap(error.is_some(), Ordering::Relaxed);
        // The threads there are go on; the next request tries again.
        if let Some(error) = error
            && !told
        {
            shared.service.notice(Notice::ThreadRefused(error));
        }
    }

    fn work<S: Service<Ticket = T>>(&self, shared: &Shared<S>) {
        let mut scratch = vec![0; READ_CHUNK];
        let mut place = Some(self.places.take());
        while let Ok(job) = self.queue.recv() {
            if let Some((request, wire)) = job.take() {
                drop(job);
                self.stats.busy.fetch_add(1, Ordering::Relaxed);
                let served = catch_unwind(AssertUnwindSafe(|| {
                    self.serve(shared, request, wire, &mut place, &mut scratch);
                }));
                if let Err(panic) = served {
                    shared.service.notice(Notice::Panicked(panic_message(&*panic)));
                }
                self.stats.busy.fetch_sub(1, Ordering::Relaxed);
                self.stats.load.fetch_sub(1, Ordering::Relaxed);
            }
            // It went on with an answer.
            place = place.or_else(|| Some(self.places.take()));
        }
    }

    /// Answers a request, and those that follow on its connection while nobody waits for this thread.
    fn serve<S: Service<Ticket = T>>(
        &self,
        shared: &Shared<S>,
        request: Box<Request<T>>,
        wire: Box<Wire>,
        place: &mut Option<Place>,
        scratch: &mut [u8],
    ) {
        let (mut request, mut wire) = (request, wire);
        while let Some(mut conn) = answer(shared, *request, wire, place) {
            if conn.wire.has_output() {
                self.settle(&shared.context(), &mut conn.wire);
            }
            match self.next_step(shared, &mut conn, scratch) {
                Step::Ready(lane, next) if lane == self.lane && self.queue.is_empty() => {
                    (request, wire) = (next, conn.wire);
                }
                step => return shared.go_on(conn, step),
            }
        }
    }

    /// Sees to what the client has not taken at once.
    fn settle<S>(&self, context: &Context<'_, S>, wire: &mut Wire) {
        let patience = match self.lane {
            Lane::Worker => context.limits.client_timeout,
            Lane::Control => CONTROL_PATIENCE,
        };
        wire.settle(&context.transit.answers, patience);
    }

    /// What follows on a connection: at once where a client pipelines, after a short grace where it was as quick before. To
    /// wait for others would only hold the thread, and have another started.
    fn next_step<S: Service<Ticket = T>>(
        &self,
        shared: &Shared<S>,
        conn: &mut Conn<T>,
        scratch: &mut [u8],
    ) -> Step<T> {
        let context = shared.context();
        let mut graced = false;
        loop {
            match conn.advance(&context) {
                Step::Wait(Interest::Read)
                    if !graced && conn.is_idle() && self.may_linger(&context, conn) =>
                {
                    graced = true;
                    match sys::readable_within(conn.wire.client.as_fd(), KEEPALIVE_GRACE) {
                        Ok(true) if conn.wire.fill(scratch).is_err() => return Step::Close,
                        Ok(true) => {}
                        Ok(false) => return Step::Wait(Interest::Read),
                        Err(_) => return Step::Close,
                    }
                }
                step => return step,
            }
        }
    }

    fn may_linger<S>(&self, context: &Context<'_, S>, conn: &Conn<T>) -> bool {
        let is_quick = conn.wire.pace == Pace::Quick;
        is_quick && self.lane == Lane::Worker && !context.draining && self.queue.is_empty()
    }
}

/// Runs the handler behind the panic barrier. `None`: the connection has ended, or the answer goes on elsewhere, with the
/// thread's place.
fn answer<S: Service>(
    shared: &Shared<S>,
    request: Request<S::Ticket>,
    wire: Box<Wire>,
    place: &mut Option<Place>,
) -> Option<Conn<S::Ticket>> {
    let limits = shared.service.limits();
    let shape = Shape::of(&request.head);
    let client = Arc::clone(&wire.client);
    let responder = Responder::new(wire, shape, limits.client_timeout, &shared.draining);
    let service = &shared.service;
    match catch_unwind(AssertUnwindSafe(|| match service.handle(request, responder, Thread::Worker) {
        Handled::Waits(rest) => ongoing::handled_by(rest),
        handled => handled,
    })) {
        Ok(Handled::Done(done)) => Some(Conn::behind(done, limits)),
        Ok(Handled::Ongoing(answer)) => {
            ongoing::hand_over(shared, answer, place.take()?);
            None
        }
        Ok(Handled::Waits(_)) => None,
        Err(panic) => {
            service.notice(Notice::Panicked(panic_message(&*panic)));
            apologize(shared, shape, &client);
            None
        }
    }
}

/// A panic dropped the connection's buffers with the handler; its socket still takes a 500 if nothing else was sent.
fn apologize<S: Service>(shared: &Shared<S>, shape: Shape, client: &Client) {
    if !client.started.load(Ordering::Relaxed) {
        let answer = shared.service.reject(Rejection::Panicked, None);
        client.send_last(shape.closing(), &answer);
    }
    sys::shut_write(client);
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
