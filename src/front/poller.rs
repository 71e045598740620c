//! The poller: one thread that holds every connection that waits, drives every answer under way, handles what need not wait,
//! and keeps the clock over them.

mod accept;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::conn::{Conn, Step};
use super::desk::{Desk, Waiting};
use super::listener::Listener;
use super::response::{Client, Done, Shape};
use super::running::{Return, Shared, Stats};
use super::source::{SOURCE, Source, Sources};
use super::sys::{self, Event, Interest};
use super::table::{Here, Table};
use super::task::{Computation, Io, Next, Task};
use super::wire::Wire;
use super::worker::{self, HandledFor, Job, Outcome, panic_message};
use super::{Handled, Lane, Limits, Notice, Rejection, Service, Settings, Thread, after};
use crate::limits::{
    ACCEPT_BACKOFF, CONTROL_THREADS, DRAIN_GRACE, EVENT_BATCH, MAX_CONTROL_QUEUE, MAX_QUEUE, MAX_REFUSED,
    ONGOING_SWEEP, READ_CHUNK, READS_A_TURN, SWEEP_INTERVAL,
};
use accept::Accept;

/// The token of the wake-up.
pub const WAKER: u64 = u64::MAX;
/// The token of the first listener; a connection's has not its top bit.
pub const LISTENERS: u64 = 1 << 63;
/// Connections over `max_clients` that may be open at once to be told so.
pub fn places_to_refuse(max_clients: usize) -> usize {
    (max_clients / 10).clamp(1, MAX_REFUSED)
}

/// The thread's state.
pub struct Poller<S: Service> {
    shared: Arc<Shared<S>>,
    settings: Settings,
    listeners: Vec<Listener>,
    table: Table<S::Ticket>,
    sources: Sources,
    /// As they are for this turn.
    limits: Limits,
    now: Instant,
    returned: Receiver<Return<S::Ticket>>,
    desks: [Desk<S::Ticket>; 2],
    /// A request waits for a thread that the system refuses to start, or for memory.
    is_short: bool,
    /// Tasks here.
    tasks: usize,
    scratch: Vec<u8>,
    accept: Accept,
    drain_grace_until: Option<Instant>,
    /// What is to have its next turn at once.
    again: Vec<u64>,
    stats: Arc<Stats>,
}

impl<S: Service> Poller<S> {
    /// A poller over these listeners; `returned`: what the pools give back.
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        settings: Settings,
        listeners: Vec<Listener>,
        returned: Receiver<Return<S::Ticket>>,
        stats: Arc<Stats>,
    ) -> Self {
        let places = settings.max_clients + places_to_refuse(settings.max_clients);
        let desks = [Desk::new(settings.workers, MAX_QUEUE), Desk::new(CONTROL_THREADS, MAX_CONTROL_QUEUE)];
        Self {
            limits: shared.service.limits(),
            now: Instant::now(),
            shared,
            settings,
            listeners,
            table: Table::new(places),
            sources: Sources::new(),
            returned,
            desks,
            is_short: false,
            tasks: 0,
            scratch: vec![0; READ_CHUNK],
            accept: Accept::default(),
            drain_grace_until: None,
            again: Vec::new(),
            stats,
        }
    }

    /// Serves until the drain is over.
    pub(super) fn run(mut self) {
        let mut events = sys::event_buffer(EVENT_BATCH);
        let mut happened = Vec::with_capacity(EVENT_BATCH);
        let (mut next_sweep, mut next_task_sweep) = (self.now, self.now);
        loop {
            if self.shared.epoll.wait(&mut events, &mut happened, self.patience()).is_err() {
                // Nothing that a wait can recover from; pausing keeps it from spinning.
                thread::sleep(ACCEPT_BACKOFF);
            }
            (self.now, self.limits) = (Instant::now(), self.shared.service.limits());
            let now = self.now;
            self.go_on();
            happened.drain(..).for_each(|event| self.told(event));
            self.serve(now);
            if now >= next_task_sweep {
                next_task_sweep = now + ONGOING_SWEEP;
                self.sweep_tasks();
            }
            if now >= next_sweep {
                next_sweep = now + SWEEP_INTERVAL;
                self.sweep(now);
            }
            self.table.free_left();
            self.stats.clients.store(self.table.used(), Ordering::Relaxed);
            self.stats.turns.fetch_add(1, Ordering::Relaxed);
            if self.shared.is_draining() && self.drain(now) {
                return;
            }
        }
    }

    /// How long it may sleep.
    fn patience(&self) -> Option<Duration> {
        if !self.again.is_empty() || (!self.is_short && self.desks.iter().any(Desk::can_serve)) {
            return Some(Duration::ZERO);
        }
        if self.tasks > 0 {
            return Some(ONGOING_SWEEP);
        }
        (self.table.used() > 0 || self.accept.failed.is_some()).then_some(SWEEP_INTERVAL)
    }

    /// Takes what came of jobs. What comes from here on wakes the thread again: the wake-up is taken back first.
    fn take_returns(&mut self) {
        self.shared.waker.clear();
        while let Ok(Return(lane, outcome)) = self.returned.try_recv() {
            match outcome {
                Outcome::Done(conn) => {
                    self.leave(lane);
                    self.proceed(conn);
                }
                Outcome::Task(token, task) => self.enter(token, task),
                Outcome::Ran(token) => self.turn(token),
                Outcome::Lost => self.leave(lane),
            }
        }
    }

    /// Acts on what the kernel tells.
    fn told(&mut self, event: Event) {
        match event.token {
            WAKER => self.take_returns(),
            listener if listener >= LISTENERS => {
                self.accept((listener - LISTENERS) as usize);
            }
            source if source & SOURCE != 0 => {
                if let Some(client) = self.sources.on_event(source, event.readable, event.ended) {
                    self.turn(client);
                }
            }
            token => {
                let Some(place) = self.table.place(token) else { return };
                place.unread |= event.readable;
                place.ended |= event.ended;
                match place.here {
                    Here::Nothing => {}
                    Here::Conn(_) => self.readable(token),
                    Here::Task(_) if event.ended => self.cancel(token),
                    Here::Task(_) => self.turn(token),
                }
            }
        }
    }

    /// Gives each that has more to do its turn, once each, however often one had a turn: a flood must not have the more of
    /// them the longer it lasts.
    fn go_on(&mut self) {
        let mut due = std::mem::take(&mut self.again);
        due.sort_unstable();
        due.dedup();
        for token in due {
            match self.table.place(token).map(|place| &place.here) {
                Some(Here::Conn(_)) => self.readable(token),
                Some(Here::Task(_)) => self.turn(token),
                Some(Here::Nothing) | None => {}
            }
        }
    }

    /// Reads what there is from a connection, and goes on with it.
    fn readable(&mut self, token: u64) {
        let Some(conn) = self.table.take(token) else { return };
        self.proceed(conn);
    }

    /// Goes on with a connection as far as its bytes allow, those included that have still to be read.
    fn proceed(&mut self, mut conn: Conn<S::Ticket>) {
        let token = conn.wire.slot.token;
        for _ in 0..READS_A_TURN {
            let step = conn.advance(&self.shared.context(self.limits, self.now));
            let Some(place) = self.table.place(token) else { return };
            if !matches!(step, Step::Wait(Interest::Read)) || !place.unread {
                return self.follow(conn, step);
            }
            let Ok(count) = conn.wire.fill(&mut self.scratch) else { return };
            // A short read was all there is, unless the end is behind it, which is told but once.
            place.unread = count == READ_CHUNK || (place.ended && count > 0);
        }
        self.follow(conn, Step::Again);
    }

    /// Does what a connection needs.
    fn follow(&mut self, conn: Conn<S::Ticket>, step: Step<S::Ticket>) {
        match step {
            Step::Close => {}
            Step::Short => self.table.put(conn),
            Step::Ready(lane, request) => self.queue(lane, Waiting { request, wire: conn.wire }),
            Step::Again => {
                self.again.push(conn.wire.slot.token);
                self.table.put(conn);
            }
            Step::Wait(interest) => {
                let token = conn.wire.slot.token;
                let is_unread = self.table.place(token).is_some_and(|place| place.unread);
                if is_unread && interest == Interest::Read {
                    self.again.push(token);
                }
                self.table.put(conn);
            }
        }
    }

    fn queue(&mut self, lane: Lane, waiting: Waiting<S::Ticket>) {
        let until = after(self.now, self.limits.queue_timeout);
        match self.desks[lane as usize].queue(waiting, until) {
            Ok(()) => self.count(lane),
            Err(Waiting { request, wire }) => self.refuse_whole(&request.head, wire),
        }
    }

    /// Answers a whole request that there was no place for in time. What the client has pipelined behind it waits for the
    /// next turn.
    fn refuse_whole(&mut self, head: &super::Head, mut wire: Box<Wire>) {
        wire.answer(Shape::of(head), self.shared.service.reject(Rejection::Overloaded, Some(head)));
        let conn = Conn::behind(wire, head.keep_alive, self.limits, self.now);
        self.follow(conn, Step::Again);
    }

    /// Gives those that wait for a place the ones that are free, and refuses those that have waited too long.
    fn serve(&mut self, now: Instant) {
        self.is_short = false;
        for lane in [Lane::Worker, Lane::Control] {
            // Those that come meanwhile have their turn behind the others' reads.
            for _ in 0..self.desks[lane as usize].waiting() {
                let Some(first) = self.desks[lane as usize].first() else { break };
                // What others hold may be free a moment later.
                if !first.request.reserve_slot() {
                    self.is_short = true;
                    break;
                }
                let is_quick = lane == Lane::Worker && self.shared.service.is_quick(&first.request);
                if !is_quick && !self.shared.pool(lane).has_thread(&self.shared) {
                    self.is_short = true;
                    break;
                }
                let Some(Waiting { request, wire }) = self.desks[lane as usize].seat() else { break };
                self.count(lane);
                if is_quick {
                    let token = wire.slot.token;
                    let handled = worker::handle(
                        &self.shared,
                        request,
                        wire,
                        Thread::Poller,
                        self.limits.client_timeout,
                    );
                    self.handled(token, handled);
                } else {
                    self.shared.pool(lane).send(&self.shared, Job::Request(request, wire));
                }
            }
            while let Some(Waiting { request, wire }) = self.desks[lane as usize].overdue(now) {
                self.count(lane);
                self.refuse_whole(&request.head, wire);
            }
        }
    }

    /// What follows from a handler that ran here.
    fn handled(&mut self, token: u64, handled: HandledFor) {
        match handled {
            Some((Handled::Done(done), _)) => self.done(done),
            Some((Handled::Task(task), _)) => self.enter(token, task),
            Some((Handled::Compute(rest), client)) => self.compute_elsewhere(rest, client, token),
            None => self.leave(Lane::Worker),
        }
    }

    fn compute_elsewhere(&mut self, rest: Computation, client: Arc<Client>, token: u64) {
        if !self.shared.pool(Lane::Worker).send(&self.shared, Job::Compute(rest, Arc::clone(&client), token))
        {
            sys::shut_write(&*client);
            self.leave(Lane::Worker);
        }
    }

    /// A request has been answered: its place is free, its connection waits for what the client asks next.
    fn done(&mut self, done: Done) {
        let mut conn = Conn::behind(done.wire, done.keep, self.limits, self.now);
        if conn.wire.has_output() && !conn.wire.leave(Lane::Worker) {
            // It keeps its place until the client has taken it.
            self.shared.pool(Lane::Worker).send(&self.shared, Job::Settle(conn));
            return;
        }
        self.leave(Lane::Worker);
        self.proceed(conn);
    }

    fn leave(&mut self, lane: Lane) {
        self.desks[lane as usize].leave();
        self.count(lane);
    }

    fn count(&self, lane: Lane) {
        if lane == Lane::Worker {
            let desk = &self.desks[lane as usize];
            self.stats.busy.store(desk.in_hand(), Ordering::Relaxed);
            self.stats.queued.store(desk.waiting(), Ordering::Relaxed);
        }
    }

    /// A task begins here.
    fn enter(&mut self, token: u64, task: Box<dyn Task>) {
        self.tasks += 1;
        let has_left = self.table.place(token).is_none_or(|place| place.ended);
        self.table.put_task(token, task);
        if has_left { self.cancel(token) } else { self.turn(token) }
    }

    /// One turn of a task.
    fn turn(&mut self, token: u64) {
        self.drive(token, |task, io| task.advance(io));
    }

    /// The client of a task has gone.
    fn cancel(&mut self, token: u64) {
        self.drive(token, |task, _| Next::Done(task.cancel()));
    }

    /// Takes a step of a task, behind the panic barrier.
    fn drive(&mut self, token: u64, step: impl FnOnce(Box<dyn Task>, &mut Turn<'_, S>) -> Next) {
        let Some(task) = self.table.take_task(token) else { return };
        let client = Arc::clone(task.client());
        let (shared, sources, scratch) = (&self.shared, &mut self.sources, &mut self.scratch[..]);
        let mut turn = Turn { shared, sources, scratch, now: self.now, token, watched: None };
        let next = catch_unwind(AssertUnwindSafe(|| step(task, &mut turn)));
        if let (Some(unwatched), Some(place)) = (turn.watched, self.table.place(token)) {
            place.unwatched = unwatched;
        }
        match next {
            Ok(Next::Park(task)) => self.table.put_task(token, task),
            Ok(Next::Yield(task)) => {
                self.table.put_task(token, task);
                self.again.push(token);
            }
            Ok(Next::Compute(rest)) => {
                self.tasks -= 1;
                self.compute_elsewhere(rest, client, token);
            }
            Ok(Next::Done(done)) => {
                self.tasks -= 1;
                self.done(done);
            }
            Err(panic) => self.lost(&client, &*panic),
        }
    }

    /// A task has panicked: its connection has ended.
    fn lost(&mut self, client: &Client, panic: &(dyn std::any::Any + Send)) {
        self.shared.service.notice(Notice::Panicked(panic_message(panic)));
        sys::shut_write(client);
        self.tasks -= 1;
        self.leave(Lane::Worker);
    }

    fn sweep_tasks(&mut self) {
        if self.tasks > 0 {
            for token in self.table.tasks() {
                self.turn(token);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.see_to_accept(now);
        for token in self.table.conns(|conn| conn.deadline <= now || conn.is_short()) {
            let Some(mut conn) = self.table.take(token) else { continue };
            if conn.deadline > now {
                self.proceed(conn);
                continue;
            }
            let step = conn.expire(&self.shared.context(self.limits, self.now));
            self.follow(conn, step);
        }
    }

    /// Goes on with the drain; whether it is over. Who has connected already, or has a request on its way, is served, once:
    /// idle connections are closed, and further requests refused, only after a grace.
    fn drain(&mut self, now: Instant) -> bool {
        if self.drain_grace_until.is_none() {
            self.accept_last();
        }
        // It begins when all have been let in, which takes a while.
        if now >= *self.drain_grace_until.get_or_insert_with(|| Instant::now() + DRAIN_GRACE) {
            self.shared.refusing.store(true, Ordering::Relaxed);
            self.close_idle();
        }
        self.table.used() == 0
    }

    fn close_idle(&mut self) {
        for token in self.table.conns(Conn::is_idle) {
            drop(self.table.take(token));
        }
        for token in self.table.conns(Conn::is_draining) {
            if let Some(mut conn) = self.table.take(token) {
                conn.give_up_draining();
                self.proceed(conn);
            }
        }
        self.table.free_left();
    }
}

/// What a task has of the poller for a turn.
struct Turn<'a, S: Service> {
    shared: &'a Arc<Shared<S>>,
    sources: &'a mut Sources,
    scratch: &'a mut [u8],
    now: Instant,
    token: u64,
    /// A source was to be watched; inside: it could not be.
    watched: Option<Option<Arc<Source>>>,
}

impl<S: Service> Io for Turn<'_, S> {
    fn now(&self) -> Instant {
        self.now
    }

    fn scratch(&mut self) -> &mut [u8] {
        self.scratch
    }

    fn watch(&mut self, source: &Arc<Source>) {
        let watched = self.sources.watch(&self.shared.epoll, source, self.token);
        // What cannot be watched is seen to by the sweep.
        self.watched = Some(watched.is_err().then(|| Arc::clone(source)));
    }

    fn spawn(&mut self, job: super::task::Job) -> bool {
        self.shared.pool(Lane::Worker).send(self.shared, Job::Run(job, self.token))
    }
}
