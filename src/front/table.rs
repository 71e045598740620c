//! The poller's connections, and the tasks of their requests.

use std::sync::Arc;

use super::conn::Conn;
use super::places::{Places, Slot};
use super::source::Source;
use super::task::Task;

/// The poller's connections.
pub struct Table<T> {
    places: Places<Place<T>>,
    /// Places of connections that are only told why they are not served.
    pub(super) refused: usize,
}

/// A connection's place. Its socket tells of each change once, so what was told while nobody could act on it is kept.
pub struct Place<T> {
    refused: bool,
    /// There may be something to read.
    pub(super) unread: bool,
    /// The client has ended its side: what there is to read has an end behind it.
    pub(super) ended: bool,
    /// The source of the task here could not be watched: nothing of it is reported.
    pub(super) unwatched: Option<Arc<Source>>,
    pub(super) here: Here<T>,
}

/// What is at a place.
pub enum Here<T> {
    /// Nothing: a thread has it, or the place is free.
    Nothing,
    /// A connection that waits.
    Conn(Conn<T>),
    /// A task that waits.
    Task(Box<dyn Task>),
}

impl<T> Table<T> {
    /// Room for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { places: Places::new(max), refused: 0 }
    }

    /// Places that are taken, wherever their connections are.
    pub(super) fn used(&self) -> usize {
        self.places.used()
    }

    /// A place, if there is one; `refused`: for a connection that is only told why it is not served.
    pub(super) fn reserve(&mut self, refused: bool) -> Option<Slot> {
        let here = Here::Nothing;
        let slot = self.places.take(Place { refused, unread: false, ended: false, unwatched: None, here })?;
        self.refused += usize::from(refused);
        Some(slot)
    }

    /// Frees the places of the connections that have ended.
    pub(super) fn free_left(&mut self) {
        let refused = &mut self.refused;
        self.places.free_left(|place| *refused -= usize::from(place.refused));
    }

    /// A connection is here to wait.
    pub(super) fn put(&mut self, conn: Conn<T>) {
        if let Some(place) = self.places.get(conn.wire.slot.token) {
            place.here = Here::Conn(conn);
        }
    }

    /// A task is here to wait.
    pub(super) fn put_task(&mut self, token: u64, task: Box<dyn Task>) {
        if let Some(place) = self.places.get(token) {
            place.here = Here::Task(task);
        }
    }

    /// The place that this token means, if its connection has not ended.
    pub(super) fn place(&mut self, token: u64) -> Option<&mut Place<T>> {
        self.places.get(token)
    }

    /// Takes the connection that this token means, if it is here.
    pub(super) fn take(&mut self, token: u64) -> Option<Conn<T>> {
        let here = &mut self.places.get(token)?.here;
        match std::mem::replace(here, Here::Nothing) {
            Here::Conn(conn) => Some(conn),
            other => {
                *here = other;
                None
            }
        }
    }

    /// Takes the task of this token's client, if it is here.
    pub(super) fn take_task(&mut self, token: u64) -> Option<Box<dyn Task>> {
        let here = &mut self.places.get(token)?.here;
        match std::mem::replace(here, Here::Nothing) {
            Here::Task(task) => Some(task),
            other => {
                *here = other;
                None
            }
        }
    }

    /// The tokens of the connections that wait here and of which that holds.
    pub(super) fn conns(&self, holds: impl Fn(&Conn<T>) -> bool) -> Vec<u64> {
        let waits = |place: &Place<T>| matches!(&place.here, Here::Conn(conn) if holds(conn));
        self.places.iter().filter(|(_, place)| waits(place)).map(|(token, _)| token).collect()
    }

    /// The tokens of all tasks that wait here. A source that is not watched may be ready.
    pub(super) fn tasks(&self) -> Vec<u64> {
        let waiting = self.places.iter().filter(|(_, place)| matches!(place.here, Here::Task(_)));
        waiting
            .map(|(token, place)| {
                place.unwatched.iter().for_each(|source| source.set_ready(true));
                token
            })
            .collect()
    }
}
