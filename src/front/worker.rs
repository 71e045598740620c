//! A worker: one thread that owns the connections it was given, from the first byte to the last. It reads what comes, advances
//! every request under way, handles what need not wait, and keeps the clock over them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::client_stream::ClientStream;
use super::conn::{Conn, Context, Step};
use super::helper::{self, Job, panic_message};
use super::inbox::{Inbox, Post};
use super::load::Load;
use super::permits::{Acquired, Permit};
use super::response::{Done, Shape};
use super::shared::Shared;
use super::source::{SOURCE, Source, Sources};
use super::sys::{self, Epoll, Event, Interest};
use super::table::{Queued, State, Table};
use super::task::{self, Io, Next, Task};
use super::{Handled, Lane, Limits, Notice, Peer, Rejection, Service, after};
use crate::limits::{
    ACCEPT_BACKOFF, CONTROL_TIMEOUT, DRAIN_GRACE, EVENT_BATCH, LOOK_AGAIN, READ_CHUNK, READS_A_TURN,
};

/// The token of the wake-up; a connection's has not its top bit.
const WAKER: u64 = u64::MAX;

/// The thread's state.
pub struct Worker<S: Service> {
    shared: Arc<Shared<S>>,
    /// Its number among the workers.
    number: usize,
    epoll: Arc<Epoll>,
    table: Table<S::RequestContext>,
    sources: Sources,
    /// The limits of this turn.
    limits: Limits,
    now: Instant,
    /// Whole requests that have not asked for a permit.
    whole: Vec<Queued<S::RequestContext>>,
    /// The first request that waits for a permit is here, and waits for memory.
    is_short: bool,
    scratch: Vec<u8>,
    drain_grace_until: Option<Instant>,
    /// The places that have their next turn at once.
    again: Vec<u64>,
}

impl<S: Service> Worker<S> {
    /// The worker of that number.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub(super) fn new(shared: &Arc<Shared<S>>, number: usize) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        epoll.add(&shared.inboxes[number], WAKER)?;
        Ok(Self {
            limits: shared.service.limits(),
            now: Instant::now(),
            shared: Arc::clone(shared),
            number,
            sources: Sources::new(number, &epoll),
            epoll,
            table: Table::new(),
            whole: Vec::new(),
            is_short: false,
            scratch: vec![0; READ_CHUNK],
            drain_grace_until: None,
            again: Vec::new(),
        })
    }

    /// Serves until the drain is over.
    pub(super) fn run(mut self) {
        let mut events = sys::event_buffer(EVENT_BATCH);
        let mut happened = Vec::with_capacity(EVENT_BATCH);
        loop {
            if self.epoll.wait(&mut events, &mut happened, self.timeout()).is_err() {
                // Nothing that a wait can recover from; pausing keeps it from spinning.
                thread::sleep(ACCEPT_BACKOFF);
            }
            (self.now, self.limits) = (Instant::now(), self.shared.service.limits());
            self.advance_again();
            happened.drain(..).for_each(|event| self.on_event(event));
            // Looked at after the events: the wake-up that they took back may have been the acceptor's last. What was accepted is in
            // the inbox when this is so.
            let is_last = self.shared.is_draining() && self.shared.is_closed.load(Ordering::Acquire);
            if is_last {
                self.take_posts();
            }
            self.begin_whole();
            for token in self.table.due(self.now) {
                self.on_deadline(token);
            }
            self.table.free_left();
            self.shared.stats.workers()[self.number].turns.fetch_add(1, Ordering::Relaxed);
            if is_last && self.drain() {
                return;
            }
        }
    }

    /// How long it may sleep; `None`: until an event.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.whole.is_empty() {
            return Some(Duration::ZERO);
        }
        // No event reports memory that others release.
        let shortage = self.is_short.then(|| self.now + LOOK_AGAIN);
        let grace = self.drain_grace_until.filter(|until| self.now < *until);
        let next = self.table.next_deadline().into_iter().chain(shortage).chain(grace).min()?;
        // The turn may have taken long.
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn inbox(&self) -> &Inbox {
        &self.shared.inboxes[self.number]
    }

    fn take_posts(&mut self) {
        for post in self.inbox().take() {
            match post {
                Post::Accepted(client, peer, refused) => self.welcome(client, peer, refused),
                Post::Granted(lane, token, number) => {
                    let permit = self.shared.permits(lane).granted(number);
                    self.on_permit(permit, token);
                }
                Post::Handled(token, handled) => self.handled(token, handled),
                Post::Ran(token) => self.advance(token),
            }
        }
    }

    /// A connection is this worker's from now on.
    fn welcome(&mut self, client: Client, peer: Peer, refused: bool) {
        let Some(slot) = self.table.reserve() else { return };
        let mut stream = Box::new(ClientStream::new(client, peer, slot));
        let conn = if refused {
            let response = self.shared.service.reject(Rejection::TooManyClients, peer, None);
            stream.respond(Shape::UNKNOWN, response);
            Conn::refused(stream)
        } else {
            Conn::new(stream, self.limits, self.now)
        };
        // A connection that epoll refuses closes.
        if self.epoll.watch(&*conn.stream.client, conn.stream.slot.token).is_ok() {
            self.proceed(conn);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event.token {
            WAKER => self.take_posts(),
            source if source & SOURCE != 0 => {
                if let Some(client) = self.sources.on_event(source, event.readable, event.ended) {
                    self.advance(client);
                }
            }
            token => {
                let Some(place) = self.table.place(token) else { return };
                place.unread |= event.readable;
                place.ended |= event.ended;
                self.advance(token);
            }
        }
    }

    /// One turn for each that has more to do, however often it has had one: a flood must not crowd out the others.
    fn advance_again(&mut self) {
        if self.again.is_empty() {
            return;
        }
        let mut due = std::mem::take(&mut self.again);
        due.sort_unstable();
        due.dedup();
        for token in due {
            self.advance(token);
        }
    }

    /// Advances what is at a place, if it can.
    fn advance(&mut self, token: u64) {
        match self.table.take(token) {
            State::Conn(conn) => self.proceed(conn),
            State::Task(task) => self.drive(token, task),
            State::Queued(queued) => self.table.put(token, State::Queued(queued), self.now),
            State::Away => {}
        }
    }

    /// The deadline of a place has come, or nothing reports what it waits for.
    fn on_deadline(&mut self, token: u64) {
        match self.table.take(token) {
            State::Conn(mut conn) if conn.deadline <= self.now => {
                let step = conn.expire(&self.context());
                self.follow(conn, step);
            }
            State::Conn(conn) => self.proceed(conn),
            State::Queued(queued) => self.expire_queued(queued),
            State::Task(task) => {
                let unwatched = self.table.place(token).and_then(|place| place.unwatched.as_ref());
                unwatched.into_iter().for_each(|source| source.set_ready(true));
                self.drive(token, task);
            }
            State::Away => {}
        }
    }

    /// Advances a connection as far as its bytes allow, those included that have still to be read.
    fn proceed(&mut self, mut conn: Conn<S::RequestContext>) {
        let token = conn.stream.slot.token;
        for _ in 0..READS_A_TURN {
            let step = conn.advance(&self.context());
            let Some(place) = self.table.place(token) else { return };
            if !matches!(step, Step::Wait(Interest::Read)) || !place.unread {
                return self.follow(conn, step);
            }
            let Ok((count, room)) = conn.fill(&mut self.scratch) else { return };
            // A short read was all there is, unless the end comes after it, which is reported once.
            place.unread = count == room || (place.ended && count > 0);
        }
        self.follow(conn, Step::Again);
    }

    /// Does what a connection needs.
    fn follow(&mut self, conn: Conn<S::RequestContext>, step: Step<S::RequestContext>) {
        match step {
            Step::Close => {}
            Step::Short => self.put(conn),
            Step::Ready(lane, request) => {
                let until = after(self.now, self.limits.queue_timeout);
                self.whole.push(Queued { lane, request, stream: conn.stream, until });
            }
            Step::Again => {
                self.again.push(conn.stream.slot.token);
                self.put(conn);
            }
            Step::Wait(interest) => {
                let token = conn.stream.slot.token;
                let is_unread = self.table.place(token).is_some_and(|place| place.unread);
                if is_unread && interest == Interest::Read {
                    self.again.push(token);
                }
                self.put(conn);
            }
        }
    }

    fn put(&mut self, conn: Conn<S::RequestContext>) {
        self.table.put(conn.stream.slot.token, State::Conn(conn), self.now);
    }

    fn put_queued(&mut self, queued: Queued<S::RequestContext>) {
        self.table.put(queued.stream.slot.token, State::Queued(queued), self.now);
    }

    /// Refuses a complete request that got no permit in time. The next request on its connection waits for the next turn.
    fn refuse_whole(&mut self, queued: Queued<S::RequestContext>) {
        let Queued { lane, request, mut stream, .. } = queued;
        let head = &request.head;
        let rejection = if lane == Lane::Worker { Rejection::NoPermit } else { Rejection::Overloaded };
        let response = self.shared.service.reject(rejection, stream.peer, Some(head));
        stream.respond(Shape::of(head), response);
        let conn = Conn::after_response(stream, head.keep_alive(), self.limits, self.now);
        self.follow(conn, Step::Again);
    }

    /// Begins the requests that are whole, or has them wait for a permit. Those that come meanwhile have their turn after the
    /// others' reads.
    fn begin_whole(&mut self) {
        if std::mem::take(&mut self.is_short) {
            for lane in [Lane::Worker, Lane::Control] {
                if let Some((permit, token)) = self.shared.permits(lane).retry(self.number) {
                    self.on_permit(permit, token);
                }
            }
        }
        // As in most turns of streams.
        if self.whole.is_empty() {
            return;
        }
        let mut whole = std::mem::take(&mut self.whole);
        for queued in whole.drain(..) {
            match self.shared.permits(queued.lane).acquire(self.number, queued.stream.slot.token) {
                Acquired::Now(permit) => drop(self.begin(permit, queued)),
                Acquired::Queued => self.put_queued(queued),
                Acquired::Full => self.refuse_whole(queued),
            }
        }
        // The room serves the next turn.
        whole.append(&mut self.whole);
        self.whole = whole;
    }

    /// A request that has waited has its permit; where it is gone, the next has it.
    fn on_permit(&mut self, permit: Permit, token: u64) {
        let lane = permit.lane();
        match self.table.take(token) {
            State::Queued(queued) => {
                if self.begin(permit, queued) {
                    self.shared.permits(lane).grant_next();
                }
            }
            other => self.table.put(token, other, self.now),
        }
    }

    /// Begins a request, or has it wait until there is memory for it; whether there was.
    fn begin(&mut self, permit: Permit, mut queued: Queued<S::RequestContext>) -> bool {
        if !queued.request.reserve_slot() {
            permit.put_back(self.number, queued.stream.slot.token);
            self.is_short = true;
            self.put_queued(queued);
            return false;
        }
        let Queued { lane, request, mut stream, .. } = queued;
        let token = stream.slot.token;
        stream.permit = Some(permit);
        if lane == Lane::Control {
            self.shared.helpers(lane).send(self.number, Job::Request(request, stream));
            return true;
        }
        let timeout = self.limits.client_timeout;
        let Shared { service, draining, .. } = &*self.shared;
        if let Some(handled) = helper::handle(&**service, draining, request, stream, timeout) {
            self.handled(token, handled);
        }
        true
    }

    /// Continues after a handler.
    fn handled(&mut self, token: u64, handled: Handled) {
        match handled {
            Handled::Done(done) => self.done(done),
            Handled::Task(task) => self.drive(token, task),
        }
    }

    /// A request is done: its connection waits for what the client asks next. Where there is no memory for what the client
    /// has still to take, the request keeps its permit meanwhile.
    fn done(&mut self, done: Done) {
        let mut conn = Conn::after_response(done.stream, done.keep, self.limits, self.now);
        let lane = conn.stream.permit.as_ref().map_or(Lane::Worker, Permit::lane);
        if conn.stream.has_output() && !conn.stream.leave(lane) {
            let timeout = if lane == Lane::Control { CONTROL_TIMEOUT } else { self.limits.client_timeout };
            conn.settle_until(after(self.now, timeout));
        } else {
            conn.stream.permit = None;
        }
        self.proceed(conn);
    }

    /// One turn of a task, behind the panic barrier: it ends where its client has gone.
    fn drive(&mut self, token: u64, task: Box<dyn Task>) {
        let has_left = self.table.place(token).is_none_or(|place| place.ended);
        let client = Arc::clone(task.client());
        let mut turn = Turn {
            shared: &self.shared,
            worker: self.number,
            sources: &mut self.sources,
            scratch: &mut self.scratch,
            now: self.now,
            token,
            watched: None,
            keeps_deadline: false,
        };
        let next = catch_unwind(AssertUnwindSafe(|| match has_left {
            true => Next::Done(task.cancel()),
            false => task.advance(&mut turn),
        }));
        let watched = match &next {
            Ok(Next::Park(_) | Next::Yield(_)) => turn.watched,
            // A source that is not watched ends with its task.
            _ => Some(None),
        };
        let keeps_deadline = turn.keeps_deadline;
        if let (Some(unwatched), Some(place)) = (watched, self.table.place(token)) {
            place.unwatched = unwatched;
        }
        match next {
            Ok(Next::Park(task)) => self.table.put_task(token, task, keeps_deadline, self.now),
            Ok(Next::Yield(task)) => {
                self.table.put_task(token, task, keeps_deadline, self.now);
                self.again.push(token);
            }
            Ok(Next::Done(done)) => self.done(done),
            Err(panic) => {
                // Its connection has ended.
                self.shared.service.notice(Notice::Panicked(panic_message(&*panic)));
                sys::shut_write(&*client);
            }
        }
    }

    /// A request has waited for its permit for too long, unless the grant of one is on its way.
    fn expire_queued(&mut self, queued: Queued<S::RequestContext>) {
        if self.shared.permits(queued.lane).leave_queue(self.number, queued.stream.slot.token) {
            self.refuse_whole(queued);
        } else {
            self.put_queued(queued);
        }
    }

    fn context(&self) -> Context<'_, S> {
        Context {
            service: &*self.shared.service,
            limits: self.limits,
            now: self.now,
            draining: self.shared.is_draining(),
            refusing: self.is_grace_over(),
        }
    }

    fn is_grace_over(&self) -> bool {
        self.drain_grace_until.is_some_and(|until| self.now >= until)
    }

    /// Advances the drain; whether it is over. A client that has connected gets one more response: idle connections are closed,
    /// and further requests on kept ones refused, only after a grace.
    fn drain(&mut self) -> bool {
        // It begins when all have been let in, which takes a while.
        self.drain_grace_until.get_or_insert_with(|| Instant::now() + DRAIN_GRACE);
        if self.is_grace_over() {
            self.close_idle();
        }
        self.table.used() == 0
    }

    fn close_idle(&mut self) {
        for token in self.table.conns(Conn::is_idle) {
            // A request may have come that no event has reported yet.
            if let Some(place) = self.table.place(token) {
                place.unread = true;
            }
            self.advance(token);
        }
        for token in self.table.conns(Conn::is_idle) {
            drop(self.table.take(token));
        }
        for token in self.table.conns(Conn::is_draining) {
            if let State::Conn(mut conn) = self.table.take(token) {
                conn.stop_draining();
                self.proceed(conn);
            }
        }
        self.table.free_left();
    }
}

/// What a task has of its worker for a turn.
struct Turn<'a, S: Service> {
    shared: &'a Arc<Shared<S>>,
    worker: usize,
    sources: &'a mut Sources,
    scratch: &'a mut [u8],
    now: Instant,
    token: u64,
    /// A source was to be watched; inside: it could not be.
    watched: Option<Option<Arc<Source>>>,
    /// Its deadline has not come nearer.
    keeps_deadline: bool,
}

impl<S: Service> Io for Turn<'_, S> {
    fn worker(&self) -> usize {
        self.worker
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn scratch(&mut self) -> &mut [u8] {
        self.scratch
    }

    fn watch(&mut self, source: &Arc<Source>) {
        let watched = self.sources.watch(source, self.token);
        // A task whose source epoll refuses advances every turn.
        self.watched = Some(watched.is_err().then(|| Arc::clone(source)));
    }

    fn keep_deadline(&mut self) {
        self.keeps_deadline = true;
    }

    fn load(&self) -> Arc<Load> {
        Arc::clone(&self.shared.helpers(Lane::Worker).load)
    }

    fn spawn(&mut self, job: task::Job) -> bool {
        self.shared.helpers(Lane::Worker).send(self.worker, Job::Run(job, self.token))
    }

    fn spawn_alone(&mut self, job: task::Job) -> bool {
        self.shared.helpers(Lane::Worker).send_alone(self.worker, job, self.token)
    }
}
