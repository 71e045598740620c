//! The poller's connections, the answers under way to their clients, and their places.

use std::sync::{Arc, Mutex, PoisonError};

use super::conn::Conn;
use super::ongoing::Ongoing;

/// A connection's place in the poller's table; it is free again when this is dropped.
pub struct Slot {
    pub(super) token: u64,
    gone: Gone,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gone.add(self.token);
    }
}

/// Tokens whose places are free again, told from whatever thread. There are no more of them than places.
#[derive(Debug, Clone, Default)]
pub struct Gone(Arc<Mutex<Vec<u64>>>);

impl Gone {
    /// That token's place is free.
    pub(super) fn add(&self, token: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }

    /// Those that were added since.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The poller's connections. A token is a place and how often it was used, so that an event for a connection that
/// is gone does not meet the next one in its place.
pub struct Table<T> {
    pub(super) places: Vec<Place<T>>,
    free: Vec<u32>,
    max: usize,
    /// Places of connections that are only told why they are not served.
    pub(super) refused: usize,
    gone: Gone,
}

/// A connection's place. Its socket tells of each change once, so what was told while nobody could act on it is kept.
pub struct Place<T> {
    generation: u32,
    refused: bool,
    /// There may be something to read.
    pub(super) unread: bool,
    /// The client has ended its side: what there is to read has an end behind it.
    pub(super) ended: bool,
    /// The source of the answer here could not be watched: nobody tells of it.
    pub(super) unwatched: bool,
    pub(super) here: Here<T>,
}

/// What is at a place.
pub enum Here<T> {
    /// Nothing: a thread has it, or the place is free.
    Nothing,
    /// A connection that waits.
    Conn(Conn<T>),
    /// An answer that waits.
    Answer(Box<dyn Ongoing>),
}

impl<T> Table<T> {
    /// Room for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), max, refused: 0, gone: Gone::default() }
    }

    /// Places that are taken, wherever their connections are.
    pub(super) fn used(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A place, if there is one; `refused`: for a connection that is only told why it is not served.
    pub(super) fn reserve(&mut self, refused: bool) -> Option<Slot> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.max => {
                self.places.push(Place {
                    generation: 0,
                    refused: false,
                    unread: false,
                    ended: false,
                    unwatched: false,
                    here: Here::Nothing,
                });
                u32::try_from(self.places.len() - 1).ok()?
            }
            None => return None,
        };
        let place = &mut self.places[index as usize];
        (place.refused, place.unread, place.ended) = (refused, false, false);
        self.refused += usize::from(refused);
        let generation = place.generation;
        Some(Slot { token: token(index, generation), gone: self.gone.clone() })
    }

    /// Frees the places of the connections that have ended.
    pub(super) fn release_gone(&mut self) {
        for gone in self.gone.take() {
            let (index, _) = split(gone);
            let place = &mut self.places[index as usize];
            place.generation = (place.generation + 1) & MAX_GENERATION;
            self.refused -= usize::from(std::mem::take(&mut place.refused));
            self.free.push(index);
        }
    }

    /// A connection is here to wait.
    pub(super) fn put(&mut self, conn: Conn<T>) {
        let (index, _) = split(conn.wire.slot.token);
        self.places[index as usize].here = Here::Conn(conn);
    }

    /// An answer is here to wait.
    pub(super) fn put_answer(&mut self, token: u64, answer: Box<dyn Ongoing>) {
        if let Some(place) = self.place(token) {
            place.here = Here::Answer(answer);
        }
    }

    /// The place that this token means, if its connection has not ended.
    pub(super) fn place(&mut self, token: u64) -> Option<&mut Place<T>> {
        let (index, generation) = split(token);
        self.places.get_mut(index as usize).filter(|place| place.generation == generation)
    }

    /// Takes the connection that this token means, if it is here.
    pub(super) fn take(&mut self, token: u64) -> Option<Conn<T>> {
        self.place(token)?.take_conn()
    }

    /// Takes the answer to this token's client, if it is here.
    pub(super) fn take_answer(&mut self, token: u64) -> Option<Box<dyn Ongoing>> {
        let place = self.place(token)?;
        match std::mem::replace(&mut place.here, Here::Nothing) {
            Here::Answer(answer) => Some(answer),
            other => {
                place.here = other;
                None
            }
        }
    }

    /// The tokens of all answers that wait here, and whether nobody tells of their sources.
    pub(super) fn answers(&self) -> Vec<(u64, bool)> {
        let waiting = self.places.iter().zip(0..).filter(|(place, _)| matches!(place.here, Here::Answer(_)));
        waiting.map(|(place, index)| (token(index, place.generation), place.unwatched)).collect()
    }
}

impl<T> Place<T> {
    fn take_conn(&mut self) -> Option<Conn<T>> {
        self.take_conn_if(|_| true)
    }

    /// Takes the connection, if one waits here of which that holds.
    pub(super) fn take_conn_if(&mut self, holds: impl FnOnce(&mut Conn<T>) -> bool) -> Option<Conn<T>> {
        let Here::Conn(conn) = &mut self.here else { return None };
        if !holds(conn) {
            return None;
        }
        match std::mem::replace(&mut self.here, Here::Nothing) {
            Here::Conn(conn) => Some(conn),
            Here::Nothing | Here::Answer(_) => None,
        }
    }
}

/// Tokens have two bits above the generation for what they mean.
pub(super) const MAX_GENERATION: u32 = 0x3fff_ffff;

/// The token of a place that was used so often.
pub(super) fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// A token's place, and how often it was used.
pub(super) fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
