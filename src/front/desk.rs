//! Who is served next: places for the requests in hand, and the queue of those that wait for one.

use std::collections::VecDeque;
use std::time::Instant;

use super::incoming::Request;
use super::wire::Wire;

/// A whole request that waits for a place.
pub struct Waiting<T> {
    pub(super) request: Box<Request<T>>,
    pub(super) wire: Box<Wire>,
}

/// The places of one lane and the requests that wait for one.
pub type Desk<T> = Queue<Waiting<T>>;

/// Places, and the queue before them.
pub struct Queue<W> {
    /// With the time until which each may wait; the oldest first.
    queue: VecDeque<(Instant, W)>,
    max_queue: usize,
    in_hand: usize,
    places: usize,
}

impl<W> Queue<W> {
    /// So many places, and so many that may wait for one.
    pub(super) fn new(places: usize, max_queue: usize) -> Self {
        Self { queue: VecDeque::new(), max_queue, in_hand: 0, places }
    }

    /// Lets a request wait until then, or gives it back where too many do. Who finds a place free is none of them.
    pub(super) fn queue(&mut self, waiting: W, until: Instant) -> Result<(), W> {
        let free = self.places - self.in_hand;
        if self.queue.len() >= self.max_queue + free {
            return Err(waiting);
        }
        self.queue.push_back((until, waiting));
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
    pub(super) fn first(&mut self) -> Option<&mut W> {
        if !self.can_serve() {
            return None;
        }
        self.queue.front_mut().map(|(_, first)| first)
    }

    /// Gives the next one its place.
    pub(super) fn seat(&mut self) -> Option<W> {
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
    pub(super) fn overdue(&mut self, now: Instant) -> Option<W> {
        let is_overdue = self.queue.front().is_some_and(|(until, _)| *until <= now);
        if is_overdue { self.queue.pop_front().map(|(_, first)| first) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Queue;

    #[test]
    fn places_go_to_the_oldest_and_the_queue_has_its_bound() {
        let (start, mut desk) = (Instant::now(), Queue::new(2, 1));
        let until = start + Duration::from_secs(1);
        for number in 0..3 {
            assert_eq!(desk.queue(number, until), Ok(()), "two places, one waits");
        }
        assert_eq!(desk.queue(3, until), Err(3));
        assert_eq!((desk.seat(), desk.seat(), desk.seat()), (Some(0), Some(1), None));
        assert_eq!((desk.in_hand(), desk.waiting(), desk.can_serve()), (2, 1, false));
        assert_eq!(desk.queue(4, until), Err(4));
        desk.leave();
        assert_eq!(desk.first(), Some(&mut 2));
        assert_eq!(desk.seat(), Some(2));
        assert_eq!(desk.queue(5, until), Ok(()));
        assert_eq!(desk.overdue(start), None);
        assert_eq!(desk.overdue(until), Some(5));
        assert_eq!((desk.overdue(until), desk.waiting()), (None, 0));
    }
}
