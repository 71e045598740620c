//! A worker's connections, and the tasks of their requests.

use std::sync::Arc;

use std::time::Instant;

use super::Lane;
use super::client_stream::ClientStream;
use super::conn::Conn;
use super::incoming::Request;
use super::places::{Places, Slot};
use super::source::Source;
use super::task::Task;

/// A worker's connections.
pub struct Table<T>(Places<Place<T>>);

/// A connection's place. Its socket reports each change once, so the place keeps what was reported while nothing could act on it.
pub struct Place<T> {
    /// There may be something to read.
    pub(super) unread: bool,
    /// The client has ended its side: what there is to read has an end behind it.
    pub(super) ended: bool,
    /// The source of the task here could not be watched: nothing of it is reported.
    pub(super) unwatched: Option<Arc<Source>>,
    pub(super) state: State<T>,
}

/// What is at a place.
pub enum State<T> {
    /// Nothing: its worker or a helper works on it, or the place is free.
    Away,
    /// A connection that waits.
    Conn(Conn<T>),
    /// A request that waits for its permit.
    Queued(Queued<T>),
    /// A task that waits.
    Task(Box<dyn Task>),
}

/// A whole request that waits for its permit until then.
pub struct Queued<T> {
    pub(super) lane: Lane,
    pub(super) request: Box<Request<T>>,
    pub(super) stream: Box<ClientStream>,
    pub(super) until: Instant,
}

impl<T> Table<T> {
    /// No connection yet.
    pub(super) fn new() -> Self {
        // The acceptor bounds them over all workers.
        Self(Places::new(usize::MAX))
    }

    /// Places that are taken, wherever their connections are.
    pub(super) fn used(&self) -> usize {
        self.0.used()
    }

    /// A place for a connection.
    pub(super) fn reserve(&mut self) -> Option<Slot> {
        self.0.take(Place { unread: false, ended: false, unwatched: None, state: State::Away })
    }

    /// Frees the places of the connections that have ended.
    pub(super) fn free_left(&mut self) {
        self.0.free_left(|_| {});
    }

    /// A connection is here to wait.
    pub(super) fn put(&mut self, conn: Conn<T>) {
        self.put_state(conn.stream.slot.token, State::Conn(conn));
    }

    /// A request is here to wait for its permit.
    pub(super) fn put_queued(&mut self, queued: Queued<T>) {
        self.put_state(queued.stream.slot.token, State::Queued(queued));
    }

    /// A task is here to wait.
    pub(super) fn put_task(&mut self, token: u64, task: Box<dyn Task>) {
        self.put_state(token, State::Task(task));
    }

    fn put_state(&mut self, token: u64, state: State<T>) {
        if let Some(place) = self.0.get(token) {
            place.state = state;
        }
    }

    /// The place that this token means, if its connection has not ended.
    pub(super) fn place(&mut self, token: u64) -> Option<&mut Place<T>> {
        self.0.get(token)
    }

    /// Takes the connection that this token means, if it is here.
    pub(super) fn take(&mut self, token: u64) -> Option<Conn<T>> {
        match self.take_state(token, |state| matches!(state, State::Conn(_)))? {
            State::Conn(conn) => Some(conn),
            _ => None,
        }
    }

    /// Takes the request of this token's client that waits for its permit, if it is here.
    pub(super) fn take_queued(&mut self, token: u64) -> Option<Queued<T>> {
        match self.take_state(token, |state| matches!(state, State::Queued(_)))? {
            State::Queued(queued) => Some(queued),
            _ => None,
        }
    }

    /// Takes the task of this token's client, if it is here.
    pub(super) fn take_task(&mut self, token: u64) -> Option<Box<dyn Task>> {
        match self.take_state(token, |state| matches!(state, State::Task(_)))? {
            State::Task(task) => Some(task),
            _ => None,
        }
    }

    fn take_state(&mut self, token: u64, is_it: impl FnOnce(&State<T>) -> bool) -> Option<State<T>> {
        let state = &mut self.0.get(token)?.state;
        is_it(state).then(|| std::mem::replace(state, State::Away))
    }

    /// The tokens of the connections that wait here and of which that holds.
    pub(super) fn conns(&self, holds: impl Fn(&Conn<T>) -> bool) -> Vec<u64> {
        let waits = |place: &Place<T>| matches!(&place.state, State::Conn(conn) if holds(conn));
        self.0.iter().filter(|(_, place)| waits(place)).map(|(token, _)| token).collect()
    }

    /// The tokens of the requests here whose wait for a permit is over.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        let is_over = |place: &Place<T>| matches!(&place.state, State::Queued(queued) if queued.until <= now);
        self.0.iter().filter(|(_, place)| is_over(place)).map(|(token, _)| token).collect()
    }

    /// The tokens of all tasks that wait here. A source that is not watched may be ready.
    pub(super) fn tasks(&self) -> Vec<u64> {
        let waiting = self.0.iter().filter(|(_, place)| matches!(place.state, State::Task(_)));
        waiting
            .map(|(token, place)| {
                place.unwatched.iter().for_each(|source| source.set_ready(true));
                token
            })
            .collect()
    }
}
