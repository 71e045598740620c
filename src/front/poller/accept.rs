//! Connections as they come in: accepted, welcomed, told that there are too many, or left waiting while the system has no room.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use super::{LISTENERS, Poller, places_to_refuse};
use crate::front::conn::Conn;
use crate::front::listener::discard_input;
use crate::front::response::{Client, Shape};
use crate::front::wire::Wire;
use crate::front::{Notice, Peer, Rejection, Service, sys};
use crate::limits::{ACCEPT_BACKOFF, ACCEPT_BATCH, ACCEPT_CALM, BACKLOG};

/// Whether `accept` works.
#[derive(Default)]
pub(super) struct Accept {
    paused_until: Option<Instant>,
    /// When it failed last, until it has not for [`ACCEPT_CALM`].
    pub(super) failed: Option<Instant>,
    full: bool,
}

impl<S: Service> Poller<S> {
    /// Takes up again what had to pause.
    pub(super) fn see_to_accept(&mut self, now: Instant) {
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

    /// Takes those that wait at a listener, as many as one turn may; whether there may be more.
    pub(super) fn accept(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPT_BATCH {
            let Some(listener) = self.listeners.get(index) else { return false };
            match listener.accept() {
                Ok((socket, peer)) => self.welcome(Client::new(socket), peer),
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

    /// Takes all that wait, and closes the listeners: the system resets what is left at them.
    pub(super) fn accept_last(&mut self) {
        for index in 0..self.listeners.len() {
            // As many as the system lets wait: a flood must not keep the drain from beginning.
            let mut batches = 0..=BACKLOG.unsigned_abs() as usize / ACCEPT_BATCH;
            while batches.next().is_some() && self.accept(index) {}
        }
        self.listeners.clear();
    }

    /// Out of descriptors or memory: waiting lets connections end. The listeners leave the poller meanwhile, for they
    /// would wake it again at once.
    fn pause_accept(&mut self, error: io::Error) {
        let now = self.now;
        self.accept.paused_until = Some(now + ACCEPT_BACKOFF);
        for listener in &self.listeners {
            let _ = self.shared.epoll.remove(listener);
        }
        if self.accept.failed.replace(now).is_none() {
            self.shared.service.notice(Notice::AcceptFailed(error));
        }
    }

    fn welcome(&mut self, client: Client, peer: Peer) {
        self.table.free_left();
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
        let mut wire = Box::new(Wire::new(client, peer, slot));
        if full {
            discard_input(wire.client.as_fd());
            wire.answer(Shape::UNKNOWN, self.shared.service.reject(Rejection::TooManyClients, None));
            return self.welcome_conn(Conn::refused(wire));
        }
        self.welcome_conn(Conn::new(wire, self.limits, self.now));
    }

    /// Over the limit by far: no place to wait until the client has read why.
    fn turn_away(&self, client: &Client) {
        discard_input(client.as_fd());
        client.send_last(Shape::UNKNOWN, &self.shared.service.reject(Rejection::TooManyClients, None));
        sys::shut_write(client);
    }

    fn welcome_conn(&mut self, conn: Conn<S::Ticket>) {
        // Without a place in the poller the connection cannot be served; it closes.
        if self.shared.epoll.watch(&*conn.wire.client, conn.wire.slot.token).is_ok() {
            self.proceed(conn);
        }
    }
}
