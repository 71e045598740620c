//! The poller: one thread that holds every connection that waits, and the clock over them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::conn::{Conn, Step};
use super::incoming::Request;
use super::listener::{Listener, discard_input};
use super::response::{Client, Shape};
use super::running::{Return, Shared, Stats};
use super::sys::{self, Interest};
use super::table::Table;
use super::wire::Wire;
use super::worker::Job;
use super::{Lane, Notice, Peer, Rejection, Service, Settings, after};
use crate::limits::{
    ACCEPT_BACKOFF, ACCEPT_BATCH, ACCEPT_CALM, DRAIN_GRACE, EVENT_BATCH, MAX_REFUSED, READ_CHUNK,
    READS_A_TURN, SWEEP_INTERVAL,
};

/// The token of the wake-up.
pub const WAKER: u64 = u64::MAX;
/// The token of the first listener; a connection's has not its top bit.
pub const LISTENERS: u64 = 1 << 63;
/// Connections over `max_clients` that may be open at once to be told so.
pub fn places_to_refuse(max_clients: usize) -> usize {
    (max_clients / 10).clamp(1, MAX_REFUSED)
}

/// Whether `accept` works.
#[derive(Default)]
struct Accept {
    paused_until: Option<Instant>,
    /// When it failed last, until it has not for [`ACCEPT_CALM`].
    failed: Option<Instant>,
    full: bool,
}

/// Requests in a pool's queue with the time each may wait; oldest first.
type Queued<T> = VecDeque<(Instant, Arc<Job<T>>)>;

/// The thread's state.
pub struct Poller<S: Service> {
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
    /// A poller over these listeners; `returned`: where connections come back from the pools.
    pub(super) fn new(
        shared: Arc<Shared<S>>,
        settings: Settings,
        listeners: Vec<Listener>,
        returned: Receiver<Return<S::Ticket>>,
        stats: Arc<Stats>,
    ) -> Self {
        let places = settings.max_clients + places_to_refuse(settings.max_clients);
        let (gone, left) = bounded(places);
        Self {
            shared,
            settings,
            listeners,
            table: Table::new(places, gone),
            returned,
            left,
            queued: [VecDeque::new(), VecDeque::new()],
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
        let mut next_sweep = Instant::now();
        loop {
            let patience = (self.table.used() > 0 || self.accept.failed.is_some()).then_some(SWEEP_INTERVAL);
            let patience = if self.again.is_empty() { patience } else { Some(Duration::ZERO) };
            if self.shared.epoll.wait(&mut events, &mut happened, patience).is_err() {
                // Nothing that a wait can recover from; pausing keeps it from spinning.
                thread::sleep(ACCEPT_BACKOFF);
            }
            self.take_returns();
            for event in &happened {
                match event.token {
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
            self.stats.turns.fetch_add(1, Ordering::Relaxed);
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
            if self.add_listeners().is_err() {
                self.accept.paused_until = Some(now + ACCEPT_BACKOFF);
                self.accept.failed = Some(now);
            }
        }
        if self.accept.failed.take_if(|failed| now >= *failed + ACCEPT_CALM).is_some() {
            self.shared.service.notice(Notice::AcceptResumed);
        }
        for index in 0..self.table.places.len() {
            let place = &mut self.table.places[index];
            if let Some(mut conn) = place.conn.take_if(|conn| conn.deadline <= now) {
                let step = conn.expire(&self.shared.context());
                self.follow(conn, step, false);
            }
        }
    }

    fn add_listeners(&self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            match self.shared.epoll.add(listener, LISTENERS + index as u64) {
                // It could not be taken out.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Goes on with the drain; whether it is over. Who has connected already, or has a request on its way, is served, once:
    /// idle connections are closed, and further requests refused, only after a grace.
    fn drain(&mut self, now: Instant) -> bool {
        if self.drain_grace_until.is_none() {
            for index in 0..self.listeners.len() {
                self.accept(index);
            }
            self.listeners.clear();
        }
        if now >= *self.drain_grace_until.get_or_insert(now + DRAIN_GRACE) {
            self.shared.refusing.store(true, Ordering::Relaxed);
            self.close_idle();
        }
        self.table.used() == 0
    }

    fn close_idle(&mut self) {
        for index in 0..self.table.places.len() {
            let place = &mut self.table.places[index];
            drop(place.conn.take_if(|conn| conn.is_idle()));
            if let Some(mut conn) = place.conn.take_if(Conn::give_up_draining) {
                let step = conn.advance(&self.shared.context());
                self.follow(conn, step, false);
            }
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
        let now = Instant::now();
        self.accept.paused_until = Some(now + ACCEPT_BACKOFF);
        for listener in &self.listeners {
            let _ = self.shared.epoll.remove(listener);
        }
        if self.accept.failed.replace(now).is_none() {
            self.shared.service.notice(Notice::AcceptFailed(error));
        }
    }

    fn welcome(&mut self, client: Client, peer: Peer) {
        self.take_returns();
        let served = self.table.used() - self.table.refused;
        let full = served >= self.settings.max_clients;
        if full && !std::mem::replace(&mut self.accept.full, true) {
            self.shared.service.notice(Notice::TooManyClients(self.settings.max_clients));
        }
        // Said once, until a tenth of the places are free again.
        if served < self.settings.max_clients - self.settings.max_clients.div_ceil(10) {
            self.accept.full = false;
        }
        let crowded = full && self.table.refused >= places_to_refuse(self.settings.max_clients);
        let slot = if crowded { None } else { self.table.reserve(full) };
        let Some(slot) = slot else { return self.turn_away(&client) };
        let limits = self.shared.service.limits();
        let mut wire = Box::new(Wire::new(client, peer, slot));
        if full {
            discard_input(wire.client.as_fd());
            wire.answer(Shape::UNKNOWN, self.shared.service.reject(Rejection::TooManyClients, None));
            let mut conn = Conn::refused(wire);
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
