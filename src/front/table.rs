//! A worker's connections, and the tasks of their requests.

use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use super::client_stream::ClientStream;
use super::conn::Conn;
use super::incoming::Request;
use super::places::{Places, Slot, index};
use super::source::Source;
use super::task::Task;
use super::timers::Timers;
use crate::limits::LOOK_AGAIN;

/// A worker's connections.
pub struct Table<T> {
    places: Places<Place<T>>,
    timers: Timers,
}

/// A connection's place. Its socket reports each change once, so the place keeps reports that come while
/// nothing can act on them.
pub struct Place<T> {
    /// There may be something to read.
    pub(super) unread: bool,
    /// The client has ended its side: its end follows the bytes to read.
    pub(super) ended: bool,
    /// The source of the task here could not be watched: no event of it is reported.
    pub(super) unwatched: Option<Arc<Source>>,
    pub(super) state: State<T>,
}

/// Content of a place.
pub enum State<T> {
    /// Nothing: a worker or helper works on the connection, or the place is free.
    Away,
    /// A connection that waits.
    Conn(Conn<T>),
    /// A request that waits for its permit.
    Queued(Queued<T>),
    /// A task that waits.
    Task(Box<dyn Task>),
}

/// A complete request that waits for its permit until a deadline.
pub struct Queued<T> {
    pub(super) lane: Lane,
    pub(super) request: Box<Request<T>>,
    pub(super) stream: Box<ClientStream>,
    pub(super) until: Instant,
}

impl<T> Place<T> {
    /// When to look at this place even without an event.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        // No event reports memory that others return, or bytes of a source that could not be watched.
        let look_again = self.is_unreported().then(|| now + LOOK_AGAIN);
        let deadline = match &self.state {
            State::Away => None,
            State::Conn(conn) => Some(conn.deadline),
            State::Queued(queued) => Some(queued.until),
            State::Task(task) => task.deadline(),
        };
        match look_again {
            None => deadline,
            Some(_) => deadline.into_iter().chain(look_again).min(),
        }
    }

    /// Whether it waits for something without an event.
    fn is_unreported(&self) -> bool {
        match &self.state {
            State::Conn(conn) => conn.is_short(),
            State::Task(_) => self.unwatched.is_some(),
            State::Away | State::Queued(_) => false,
        }
    }
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        // The acceptor bounds them over all workers.
        Self { places: Places::new(usize::MAX), timers: Timers::default() }
    }

    /// Taken places, with or without their connections.
    pub(super) fn used(&self) -> usize {
        self.places.used()
    }

    /// Reserves a place for a connection.
    pub(super) fn reserve(&mut self) -> Option<Slot> {
        self.places.take(Place { unread: false, ended: false, unwatched: None, state: State::Away })
    }

    /// Frees the places of closed connections.
    pub(super) fn free_left(&mut self) {
        self.places.free_left(|_| {});
    }

    /// The place of this token, until its connection closes.
    pub(super) fn place(&mut self, token: u64) -> Option<&mut Place<T>> {
        self.places.get(token)
    }

    /// Puts a waiting state into a place.
    pub(super) fn put(&mut self, token: u64, state: State<T>, now: Instant) {
        let Some(place) = self.places.get(token) else { return };
        place.state = state;
        if let Some(deadline) = place.deadline(now) {
            self.timers.arm(index(token), deadline);
        }
    }

    /// This task is here to wait; `keeps_deadline`: its deadline has not come nearer since it was here last.
    pub(super) fn put_task(&mut self, token: u64, task: Box<dyn Task>, keeps_deadline: bool, now: Instant) {
        match self.places.get(token) {
            Some(place)
                if keeps_deadline && place.unwatched.is_none() && self.timers.is_armed(index(token)) =>
            {
                place.state = State::Task(task);
            }
            _ => self.put(token, State::Task(task), now),
        }
    }

    /// Takes the state out of the place of this token.
    pub(super) fn take(&mut self, token: u64) -> State<T> {
        let place = self.places.get(token);
        place.map_or(State::Away, |place| std::mem::replace(&mut place.state, State::Away))
    }

    /// When to look at a place next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The tokens of the places whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(index) = self.timers.pop_due(now) {
            let (token, place) = self.places.at(index);
            match place.deadline(now) {
                Some(deadline) if deadline > now && !place.is_unreported() => {
                    self.timers.arm(index, deadline);
                }
                Some(_) => due.push(token),
                None => {}
            }
        }
        due
    }

    /// The tokens of the waiting connections for which `holds` is true.
    pub(super) fn conns(&self, holds: impl Fn(&Conn<T>) -> bool) -> Vec<u64> {
        let waits = |place: &Place<T>| matches!(&place.state, State::Conn(conn) if holds(conn));
        self.places.iter().filter(|(_, place)| waits(place)).map(|(token, _)| token).collect()
    }
}
