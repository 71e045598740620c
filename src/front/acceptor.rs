//! The acceptor: one thread that accepts connections and gives each to the worker with the fewest. It refuses
//! connections over the limit, and leaves them in the kernel's queue while the system lacks descriptors or
//! memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::inbox::Post;
use super::listener::{Listener, discard_input};
use super::response::{Shape, send_last};
use super::shared::Shared;
use super::sys::{self, Epoll};
use super::{Notice, Peer, Rejection, Service};
use crate::limits::{ACCEPT_BACKOFF, ACCEPT_BATCH, ACCEPT_CALM, BACKLOG, EVENT_BATCH, MAX_REFUSED};

/// Token of the wake-up; a listener's token is its index.
const WAKER: u64 = u64::MAX;

/// Connections over `max_clients` that may be open at once to receive their refusal.
pub fn places_to_refuse(max_clients: usize) -> usize {
    (max_clients / 10).clamp(1, MAX_REFUSED)
}

pub struct Acceptor<S: Service> {
    shared: Arc<Shared<S>>,
    max_clients: usize,
    listeners: Vec<Listener>,
    epoll: Epoll,
    now: Instant,
    paused_until: Option<Instant>,
    /// Time of the last failure of `accept`; `None` once it works again for [`ACCEPT_CALM`].
    failed: Option<Instant>,
    full: bool,
    /// The worker that got the last connection.
    last: usize,
}

impl<S: Service> Acceptor<S> {
    /// An acceptor for these listeners.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        max_clients: usize,
        listeners: Vec<Listener>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&shared.door, WAKER)?;
        let (now, last) = (Instant::now(), shared.inboxes.len() - 1);
        let (shared, paused_until, failed, full) = (Arc::clone(shared), None, None, false);
        let acceptor = Self { shared, max_clients, listeners, epoll, now, paused_until, failed, full, last };
        acceptor.add_listeners()?;
        Ok(acceptor)
    }

    /// Accepts until the drain begins, and then once more whatever is waiting.
    pub(super) fn run(mut self) {
        let mut events = sys::event_buffer(EVENT_BATCH);
        let mut happened = Vec::with_capacity(EVENT_BATCH);
        while !self.shared.is_draining() {
            if self.epoll.wait(&mut events, &mut happened, self.timeout()).is_err() {
                // An unknown failure; the pause keeps the loop from spinning.
                thread::sleep(ACCEPT_BACKOFF);
            }
            self.now = Instant::now();
            for event in happened.drain(..) {
                match event.token {
                    WAKER => self.shared.door.clear(),
                    listener => drop(self.accept(listener as usize)),
                }
            }
            self.see_to_accept(self.now);
        }
        self.accept_last();
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.inboxes.iter().for_each(super::inbox::Inbox::wake);
    }

    /// Longest time to sleep.
    fn timeout(&self) -> Option<Duration> {
        let calm = self.failed.map(|failed| failed + ACCEPT_CALM);
        let next = self.paused_until.into_iter().chain(calm).min()?;
        Some(next.saturating_duration_since(self.now))
    }

    /// Resumes what was paused.
    fn see_to_accept(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
            if self.add_listeners().is_err() {
                self.paused_until = Some(now + ACCEPT_BACKOFF);
                self.failed = Some(now);
            }
        }
        if self.failed.take_if(|failed| now >= *failed + ACCEPT_CALM).is_some() {
            self.shared.service.notice(Notice::AcceptResumed);
        }
    }

    fn add_listeners(&self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            match self.epoll.add(listener, index as u64) {
                // It was never removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Accepts at one listener, up to the bound of one turn. Returns whether more may wait.
    fn accept(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = self.listeners.get(index) else { return false };
            match listener.accept() {
                Ok((socket, peer)) => self.hand_out(Client::new(socket), peer),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        self.pause_accept(error);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// Accepts all waiting connections and closes the listeners; the system resets the rest.
    fn accept_last(&mut self) {
        for index in 0..self.listeners.len() {
            // Bounded by the backlog: a connect flood must not delay the drain.
            let mut batches = 0..=BACKLOG.unsigned_abs() as usize / ACCEPT_BATCH;
            while batches.next().is_some() && self.accept(index) {}
        }
        self.listeners.clear();
    }

    /// Stops accepting while the system lacks descriptors or memory: they return as connections end. The
    /// listeners are not watched meanwhile, because they would wake the loop again at once.
    fn pause_accept(&mut self, error: io::Error) {
        let now = self.now;
        self.paused_until = Some(now + ACCEPT_BACKOFF);
        for listener in &self.listeners {
            let _ = self.epoll.remove(listener);
        }
        if self.failed.replace(now).is_none() {
            self.shared.service.notice(Notice::AcceptFailed(error));
        }
    }

    /// Gives a connection to a worker.
    fn hand_out(&mut self, mut client: Client, peer: Peer) {
        let (admitted, refused) = self.shared.stats.admitted_and_refused();
        let full = admitted >= self.max_clients;
        if full && !std::mem::replace(&mut self.full, true) {
            self.shared.service.notice(Notice::TooManyClients(self.max_clients));
        }
        // Logged once, until a tenth of the places are free again.
        if admitted < self.max_clients - self.max_clients.div_ceil(10) {
            self.full = false;
        }
        if full && refused >= places_to_refuse(self.max_clients) {
            return self.turn_away(&client, peer);
        }
        if full {
            discard_input(client.as_fd());
        }
        self.last = self.shared.stats.least_busy(self.last);
        client.counted = Some(self.shared.stats.count(self.last, full));
        self.shared.inboxes[self.last].post(Post::Accepted(client, peer, full));
    }

    /// Refuses a connection far over the limit at once, without waiting for the client to read the response.
    fn turn_away(&self, client: &Client, peer: Peer) {
        discard_input(client.as_fd());
        let response = self.shared.service.reject(Rejection::TooManyClients, peer, None);
        send_last(client, Shape::UNKNOWN, &response);
        sys::shut_write(client);
    }
}
