//! The poller: one thread that holds every connection that waits, and the clock over them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::conn::{Conn, Context, Request, Step, Transit, Wire};
use super::listener::{Listener, discard_input};
use super::response::{Client, Shape};
use super::sys::{self, Epoll, Interest, Waker};
use super::worker::{Job, Pool, panic_message};
use super::{Lane, Listen, Notice, Peer, Rejection, Service, Settings, after};
use crate::limits::{
    ACCEPT_BACKOFF, ACCEPT_BATCH, CONTROL_THREADS, DRAIN_GRACE, EVENT_BATCH, MAX_CONTROL_QUEUE, MAX_QUEUE,
    READ_CHUNK, SWEEP_INTERVAL,
};

/// Bound sockets that do not serve yet.
#[derive(Debug)]
pub struct Bound(Vec<Listener>);

/// A front that serves.
pub struct Running {
    stats: Arc<Stats>,
    drain: Arc<dyn Fn() + Send + Sync>,
    ended: mpsc::Receiver<()>,
}

/// What a front counts.
#[derive(Debug, Default)]
pub struct Stats {
    clients: AtomicUsize,
}

impl Stats {
    /// Open client connections.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }
}

/// What the poller and the threads of the pools share.
pub struct Shared<S: Service> {
    pub(super) service: Arc<S>,
    epoll: Epoll,
    waker: Waker,
    workers: Pool<S::Ticket>,
    control: Pool<S::Ticket>,
    returns: Sender<Return<S::Ticket>>,
    pub(super) draining: Arc<AtomicBool>,
    transit: Arc<Transit>,
}

/// A connection on its way back to the poller.
pub enum Return<T> {
    /// To wait; it is armed already, or about to be.
    Waiting(Conn<T>),
    /// To go on with what it has read.
    Again(Conn<T>),
    /// To have its next request queued.
    Ready(Lane, Box<Request<T>>, Box<Wire>),
}

/// A connection's place in the poller's table; it is free again when this is dropped.
pub struct Slot {
    token: u64,
    gone: Sender<u64>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // There is room for every slot's one message; the poller being gone is the only failure.
        let _ = self.gone.try_send(self.token);
    }
}

impl Bound {
    /// Binds everything `listen` names.
    ///
    /// # Errors
    /// As [`Listen`] says; the message names the address.
    pub fn new(listen: &Listen) -> io::Result<Self> {
        Listener::bind(listen).map(Self)
    }

    /// What a person calls each bound address: `http://127.0.0.1:8080`.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Listener::name).collect()
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// The system refuses a descriptor or the poller's thread.
    pub fn serve<S: Service>(self, service: Arc<S>, settings: Settings) -> io::Result<Running> {
        let slots = settings.max_clients + MAX_REFUSED;
        let (returns, returned) = bounded(slots);
        let (gone, left) = bounded(slots);
        let shared = Arc::new(Shared {
            service,
            epoll: Epoll::new()?,
            waker: Waker::new()?,
            workers: Pool::new(Lane::Worker, settings.workers, MAX_QUEUE),
            control: Pool::new(Lane::Control, CONTROL_THREADS, MAX_CONTROL_QUEUE),
            returns,
            draining: Arc::default(),
            transit: Arc::default(),
        });
        shared.epoll.add(&shared.waker, WAKER)?;
        for (index, listener) in self.0.iter().enumerate() {
            shared.epoll.add(listener, LISTENERS + index as u64)?;
        }
        let stats = Arc::new(Stats::default());
        let (end, ended) = mpsc::sync_channel(1);
        let poller = Poller {
            table: Table::new(slots, gone),
            shared: Arc::clone(&shared),
            settings,
            listeners: self.0,
            returned,
            left,
            queued: [VecDeque::new(), VecDeque::new()],
            scratch: vec![0; READ_CHUNK],
            accept: Accept::default(),
            drain_grace_until: None,
            again: Vec::new(),
            stats: Arc::clone(&stats),
        };
        thread::Builder::new().name("poller".to_owned()).spawn(move || {
            // Without its poller the process is deaf: better that its supervisor starts it anew.
            let service = Arc::clone(&poller.shared.service);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| poller.run())) {
                service.notice(Notice::Panicked(panic_message(&*panic)));
                std::process::abort();
            }
            // Nobody waits for it where the process ends at once.
            let _ = end.send(());
        })?;
        let drain = move || {
            shared.draining.store(true, Ordering::SeqCst);
            shared.waker.wake();
        };
        Ok(Running { stats, drain: Arc::new(drain), ended })
    }
}

impl Running {
    /// Stops accepting, lets what is in flight finish, no longer than `patience`; how many connections were left.
    pub fn drain(&self, patience: Duration) -> usize {
        (self.drain)();
        match self.ended.recv_timeout(patience) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => 0,
            Err(mpsc::RecvTimeoutError::Timeout) => self.stats.clients().max(1),
        }
    }

    /// What it counts.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

impl<S: Service> Shared<S> {
    pub(super) fn context(&self) -> Context<'_, S> {
        Context {
            service: &*self.service,
            limits: self.service.limits(),
            draining: self.is_draining(),
            transit: &self.transit,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn pool(&self, lane: Lane) -> &Pool<S::Ticket> {
        match lane {
            Lane::Worker => &self.workers,
            Lane::Control => &self.control,
        }
    }

    /// A connection that has to be seen to by the poller now.
    pub(super) fn give_back(&self, conn: Return<S::Ticket>) {
        // There is room for every slot's one message; the poller being gone drops the connection, as it must be then.
        let _ = self.returns.try_send(conn);
        self.waker.wake();
    }

    /// A connection that has to be seen to when it is ready.
    pub(super) fn wait_again(&self, conn: Conn<S::Ticket>, interest: Interest) {
        let (client, token) = (Arc::clone(&conn.wire.client), conn.wire.slot.token);
        // It is in the poller's channel before it can become ready.
        let _ = self.returns.try_send(Return::Waiting(conn));
        if self.epoll.arm(&*client, token, interest).is_err() || self.is_draining() {
            self.waker.wake();
        }
    }
}

const WAKER: u64 = u64::MAX;
const LISTENERS: u64 = 1 << 63;
/// Connections over `max_clients` that may be open at once to be told so.
const MAX_REFUSED: usize = 64;
/// Reads of one connection in one turn, so that a fast sender does not starve the others.
const READS_A_TURN: usize = 16;

/// The poller's connections. A token is a place and how often it was used, so that an event for a connection that
/// is gone does not meet the next one in its place.
struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    max: usize,
    gone: Sender<u64>,
}

struct Place<T> {
    generation: u32,
    conn: Option<Conn<T>>,
}

impl<T> Table<T> {
    fn new(max: usize, gone: Sender<u64>) -> Self {
        Self { places: Vec::new(), free: Vec::new(), max, gone }
    }

    fn used(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn reserve(&mut self) -> Option<Slot> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.max => {
                self.places.push(Place { generation: 0, conn: None });
                u32::try_from(self.places.len() - 1).ok()?
            }
            None => return None,
        };
        let generation = self.places[index as usize].generation;
        Some(Slot { token: token(index, generation), gone: self.gone.clone() })
    }

    fn release(&mut self, gone: u64) {
        let (index, _) = split(gone);
        let place = &mut self.places[index as usize];
        // Half the range: the top bit marks tokens that are no connection.
        place.generation = (place.generation + 1) & 0x7fff_ffff;
        self.free.push(index);
    }

    fn put(&mut self, conn: Conn<T>) {
        let (index, _) = split(conn.wire.slot.token);
        self.places[index as usize].conn = Some(conn);
    }

    fn take(&mut self, token: u64) -> Option<Conn<T>> {
        let (index, generation) = split(token);
        let place = self.places.get_mut(index as usize)?;
        if place.generation == generation { place.conn.take() } else { None }
    }
}

fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}

/// Whether `accept` works.
#[derive(Default)]
struct Accept {
    paused_until: Option<Instant>,
    failing: bool,
    full: bool,
}

/// Requests in a pool's queue with the time each may wait; oldest first.
type Queued<T> = VecDeque<(Instant, Arc<Job<T>>)>;

struct Poller<S: Service> {
    shared: Arc<Shared<S>>,
    settings: Settings,
    listeners: Vec<Listener>,
    table: Table<S::Ticket>,
    returned: Receiver<Return<S::Ticket>>,
    left: Receiver<u64>,
    queued: [Queued<S::Ticket>; 2],
    scratch: Vec<u8>,
    accept: Accept,
    drain_grace_until: Option<Instant>,
    /// Connections that have bytes to go on with.
    again: Vec<u64>,
    stats: Arc<Stats>,
}

impl<S: Service> Poller<S> {
    fn run(mut self) {
        let mut events = sys::event_buffer(EVENT_BATCH);
        let mut tokens = Vec::with_capacity(EVENT_BATCH);
        let mut next_sweep = Instant::now();
        loop {
            let patience =
                (self.table.used() > 0 || self.accept.paused_until.is_some()).then_some(SWEEP_INTERVAL);
            let patience = if self.again.is_empty() { patience } else { Some(Duration::ZERO) };
            if self.shared.epoll.wait(&mut events, &mut tokens, patience).is_err() {
                // Nothing that a wait can recover from; pausing keeps it from spinning.
                thread::sleep(ACCEPT_BACKOFF);
            }
            self.take_returns();
            for &token in &tokens {
                match token {
                    WAKER => self.shared.waker.clear(),
                    listener if listener >= LISTENERS => self.accept((listener - LISTENERS) as usize),
                    token => self.readable(token),
                }
            }
            self.go_on();
            let now = Instant::now();
            self.withdraw_overdue(now);
            if now >= next_sweep {
                next_sweep = now + SWEEP_INTERVAL;
                self.sweep(now);
            }
            self.take_returns();
            self.stats.clients.store(self.table.used(), Ordering::Relaxed);
            if self.shared.is_draining() && self.drain(now) {
                return;
            }
        }
    }

    fn take_returns(&mut self) {
        while let Ok(back) = self.returned.try_recv() {
            match back {
                Return::Waiting(conn) => self.table.put(conn),
                Return::Again(conn) => self.follow(conn, Step::Again, true),
                Return::Ready(lane, request, wire) => self.queue(lane, request, wire),
            }
        }
        while let Ok(gone) = self.left.try_recv() {
            self.table.release(gone);
        }
    }

    fn readable(&mut self, token: u64) {
        let Some(mut conn) = self.table.take(token) else { return };
        for _ in 0..READS_A_TURN {
            let Ok(count) = conn.wire.fill(&mut self.scratch) else { return };
            match conn.advance(&self.shared.context()) {
                // A full read: there is more to come, and no need to ask the kernel whether.
                Step::Wait(Interest::Read) if count == READ_CHUNK => {}
                step => return self.follow(conn, step, true),
            }
        }
        self.follow(conn, Step::Wait(Interest::Read), true);
    }

    /// Gives each connection that has more to do its turn.
    fn go_on(&mut self) {
        for token in std::mem::take(&mut self.again) {
            if let Some(mut conn) = self.table.take(token) {
                let step = conn.advance(&self.shared.context());
                self.follow(conn, step, true);
            }
        }
    }

    /// Does what a connection needs; `spent`: its event was taken, so waiting means arming it again.
    fn follow(&mut self, conn: Conn<S::Ticket>, step: Step<S::Ticket>, spent: bool) {
        match step {
            Step::Close => {}
            Step::Ready(lane, request) => self.queue(lane, request, conn.wire),
            Step::Again => {
                self.again.push(conn.wire.slot.token);
                self.table.put(conn);
            }
            Step::Wait(interest) => {
                let armed = !spent && interest == Interest::Read
                    || self.shared.epoll.arm(&*conn.wire.client, conn.wire.slot.token, interest).is_ok();
                if armed {
                    self.table.put(conn);
                }
            }
        }
    }

    fn queue(&mut self, lane: Lane, request: Box<Request<S::Ticket>>, wire: Box<Wire>) {
        let limits = self.shared.service.limits();
        match self.shared.pool(lane).submit(&self.shared, request, wire) {
            Ok(job) => {
                self.queued[lane as usize].push_back((after(Instant::now(), limits.queue_timeout), job));
            }
            Err((request, wire)) => self.refuse_whole(&request, wire),
        }
    }

    /// Answers a whole request that no thread had time for. What the client has pipelined behind it waits for the next
    /// turn.
    fn refuse_whole(&mut self, request: &Request<S::Ticket>, mut wire: Box<Wire>) {
        let head = &request.head;
        wire.answer(Shape::of(head), self.shared.service.reject(Rejection::Overloaded, Some(head)));
        let limits = self.shared.service.limits();
        let conn = if head.keep_alive {
            Conn::new(wire, limits)
        } else {
            Conn::closing(wire, limits.client_timeout)
        };
        self.follow(conn, Step::Again, true);
    }

    fn withdraw_overdue(&mut self, now: Instant) {
        for lane in [Lane::Worker, Lane::Control] {
            while let Some((deadline, job)) = self.queued[lane as usize].front() {
                if !job.is_taken() && *deadline > now {
                    break;
                }
                if let Some((request, wire)) = job.take() {
                    self.shared.pool(lane).withdraw();
                    self.refuse_whole(&request, wire);
                }
                self.queued[lane as usize].pop_front();
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.accept.paused_until.is_some_and(|until| now >= until) {
            self.accept.paused_until = None;
            for (index, listener) in self.listeners.iter().enumerate() {
                // Listeners that were not taken out are still in; that is the only failure.
                let _ = self.shared.epoll.add(listener, LISTENERS + index as u64);
            }
        }
        for index in 0..self.table.places.len() {
            let place = &mut self.table.places[index];
            if let Some(mut conn) = place.conn.take_if(|conn| conn.deadline <= now) {
                let step = conn.expire(&self.shared.context());
                self.follow(conn, step, false);
            }
        }
    }

    /// Goes on with the drain; whether it is over. Who has connected already, or has a request on its way, still gets an
    /// answer: idle connections are closed only after a grace.
    fn drain(&mut self, now: Instant) -> bool {
        if self.drain_grace_until.is_none() {
            for index in 0..self.listeners.len() {
                self.accept(index);
            }
            self.listeners.clear();
        }
        if now >= *self.drain_grace_until.get_or_insert(now + DRAIN_GRACE) {
            self.close_idle();
        }
        self.table.used() == 0
    }

    fn close_idle(&mut self) {
        for place in &mut self.table.places {
            drop(place.conn.take_if(|conn| conn.is_expendable()));
        }
        self.take_returns();
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = self.listeners.get(index) else { return };
            match listener.accept() {
                Ok((socket, peer)) => self.welcome(Client::new(socket), peer),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return self.pause_accept(error),
                },
            }
        }
    }

    /// Out of descriptors or memory: waiting lets connections end. The listeners leave the poller meanwhile, for they
    /// would wake it again at once.
    fn pause_accept(&mut self, error: io::Error) {
        self.accept.paused_until = Some(Instant::now() + ACCEPT_BACKOFF);
        for listener in &self.listeners {
            let _ = self.shared.epoll.remove(listener);
        }
        if !std::mem::replace(&mut self.accept.failing, true) {
            self.shared.service.notice(Notice::AcceptFailed(error));
        }
    }

    fn welcome(&mut self, client: Client, peer: Peer) {
        if std::mem::replace(&mut self.accept.failing, false) {
            self.shared.service.notice(Notice::AcceptResumed);
        }
        self.take_returns();
        let full = self.table.used() >= self.settings.max_clients;
        if full && !std::mem::replace(&mut self.accept.full, true) {
            self.shared.service.notice(Notice::TooManyClients(self.settings.max_clients));
        }
        // Said once, until a tenth of the places are free again.
        if self.table.used() < self.settings.max_clients - self.settings.max_clients / 10 {
            self.accept.full = false;
        }
        let Some(slot) = self.table.reserve() else { return self.turn_away(&client) };
        let limits = self.shared.service.limits();
        let mut wire = Box::new(Wire::new(client, peer, slot));
        if full {
            discard_input(wire.client.as_fd());
            wire.answer(Shape::UNKNOWN, self.shared.service.reject(Rejection::TooManyClients, None));
            let mut conn = Conn::closing(wire, limits.client_timeout);
            let step = conn.advance(&self.shared.context());
            return self.enter(conn, &step);
        }
        self.enter(Conn::new(wire, limits), &Step::Wait(Interest::Read));
    }

    /// Over the limit by far: no place to wait until the client has read why.
    fn turn_away(&self, client: &Client) {
        discard_input(client.as_fd());
        client.send_last(Shape::UNKNOWN, &self.shared.service.reject(Rejection::TooManyClients, None));
        sys::shut_write(client);
    }

    fn enter(&mut self, conn: Conn<S::Ticket>, step: &Step<S::Ticket>) {
        let Step::Wait(interest) = *step else { return };
        // Without a place in the poller the connection cannot be served; it closes.
        if self.shared.epoll.add_once(&*conn.wire.client, conn.wire.slot.token, interest).is_ok() {
            self.table.put(conn);
        }
    }
}
