//! Who is served next: places for the requests in hand, and the queue of those that wait for one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::after;
use super::incoming::Request;
use super::wire::Wire;

/// A whole request that waits for a place.
pub struct Waiting<T> {
    pub(super) request: Box<Request<T>>,
    pub(super) wire: Box<Wire>,
}

/// The places of one lane and the queue before them.
pub struct Desk<T> {
    /// With the time until which each may wait; the oldest first.
    queue: VecDeque<(Instant, Waiting<T>)>,
    max_queue: usize,
    in_hand: usize,
    places: usize,
}

impl<T> Desk<T> {
    /// So many places, and so many that may wait for one.
    pub(super) fn new(places: usize, max_queue: usize) -> Self {
        Self { queue: VecDeque::new(), max_queue, in_hand: 0, places }
    }

    /// Lets a request wait, or gives it back where too many do. Who finds a place free is none of them.
    pub(super) fn queue(&mut self, waiting: Waiting<T>, patience: Duration) -> Result<(), Waiting<T>> {
        let free = self.places - self.in_hand;
        if self.queue.len() >= self.max_queue + free {
            return Err(waiting);
        }
        self.queue.push_back((after(Instant::now(), patience), waiting));
        Ok(())
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Whether one waits and there is a place.
    pub(super) fn can_serve(&self) -> bool {
        self.in_hand < self.places && !self.queue.is_empty()
    }

    /// Who is next, where there is a place.
    pub(super) fn first(&self) -> Option<&Waiting<T>> {
        self.queue.front().filter(|_| self.can_serve()).map(|(_, first)| first)
    }

    /// Gives the next one its place.
    pub(super) fn seat(&mut self) -> Option<Waiting<T>> {
        if !self.can_serve() {
            return None;
        }
        self.in_hand += 1;
        self.queue.pop_front().map(|(_, first)| first)
    }

    /// A place is free again.
    pub(super) fn leave(&mut self) {
        self.in_hand -= 1;
    }

    /// Takes one that has waited too long.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Waiting<T>> {
        let is_overdue = self.queue.front().is_some_and(|(until, _)| *until <= now);
        if is_overdue { self.queue.pop_front().map(|(_, first)| first) } else { None }
    }
}
