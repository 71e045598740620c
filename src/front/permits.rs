//! How many requests are handled at once, over all workers, and the queue of those that wait: first come, first served.
//!
//! One lock, held for a few instructions, twice a request.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Lane;
use super::stats::Stats;

/// The permits of one lane.
pub struct Permits {
    lane: Lane,
    max: usize,
    max_queue: usize,
    state: Mutex<State>,
    grant: Grant,
    stats: Arc<Stats>,
}

/// Tells a worker that the request of that token has its permit.
type Grant = Box<dyn Fn(usize, u64) + Send + Sync>;

#[derive(Default)]
struct State {
    in_use: usize,
    /// The oldest first.
    queue: VecDeque<Waiter>,
}

/// A request that waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Whose it is.
    pub(super) worker: usize,
    /// Its connection there.
    pub(super) token: u64,
}

/// What becomes of a request that asks for a permit.
pub enum Acquired {
    /// It has one.
    Now(Permit),
    /// It waits: its worker is told of its permit, unless it gives up before.
    Queued,
    /// Too many wait.
    Full,
}

/// The right to be handled. The next request has it when this is dropped, on whatever thread.
pub struct Permit {
    permits: Arc<Permits>,
    is_put_back: bool,
}

impl Permits {
    /// `max` permits, and so many requests that may wait for one.
    pub(super) fn new(
        lane: Lane,
        (max, max_queue): (usize, usize),
        grant: Grant,
        stats: &Arc<Stats>,
    ) -> Arc<Self> {
        Arc::new(Self { lane, max, max_queue, state: Mutex::default(), grant, stats: Arc::clone(stats) })
    }

    /// Takes a permit, or a place in the queue.
    pub(super) fn acquire(self: &Arc<Self>, waiter: Waiter) -> Acquired {
        let mut state = self.lock();
        if state.in_use < self.max && state.queue.is_empty() {
            state.in_use += 1;
            self.count(&state);
            return Acquired::Now(Permit::of(self));
        }
        if state.queue.len() >= self.max_queue + (self.max - state.in_use) {
            return Acquired::Full;
        }
        state.queue.push_back(waiter);
        self.count(&state);
        Acquired::Queued
    }

    /// The permit that a worker was told of.
    pub(super) fn granted(self: &Arc<Self>) -> Permit {
        Permit::of(self)
    }

    /// The permit of the first that waits, where one is free and it is that worker's.
    pub(super) fn retry(self: &Arc<Self>, worker: usize) -> Option<(Permit, u64)> {
        let mut state = self.lock();
        let is_next = state.in_use < self.max && state.queue.front().is_some_and(|it| it.worker == worker);
        let waiter = if is_next { state.queue.pop_front() } else { None }?;
        state.in_use += 1;
        self.count(&state);
        Some((Permit::of(self), waiter.token))
    }

    /// Gives a permit to the next that waits, where one is free: of the memory that it needs there may be some now.
    pub(super) fn grant_next(&self) {
        self.grant(&mut self.lock());
    }

    fn grant(&self, state: &mut State) {
        let next = if state.in_use < self.max { state.queue.pop_front() } else { None };
        if let Some(Waiter { worker, token }) = next {
            state.in_use += 1;
            (self.grant)(worker, token);
        }
        self.count(state);
    }

    /// Takes a request out of the queue that has waited for too long; `false`: it has been granted its permit.
    pub(super) fn give_up(&self, waiter: Waiter) -> bool {
        let mut state = self.lock();
        // The first that gives up is mostly the first that came.
        let Some(place) = state.queue.iter().position(|other| *other == waiter) else { return false };
        state.queue.remove(place);
        // Where it has waited for memory, a permit is free for the next.
        self.grant(&mut state);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        if self.lane == Lane::Worker {
            self.stats.busy.store(state.in_use, Ordering::Relaxed);
            self.stats.queued.store(state.queue.len(), Ordering::Relaxed);
        }
    }
}

impl Permit {
    fn of(permits: &Arc<Permits>) -> Self {
        Self { permits: Arc::clone(permits), is_put_back: false }
    }

    /// Whose it is.
    pub(super) fn lane(&self) -> Lane {
        self.permits.lane
    }

    /// Gives it back, and waits again, ahead of all others: for memory.
    pub(super) fn put_back(mut self, waiter: Waiter) {
        self.is_put_back = true;
        let mut state = self.permits.lock();
        state.in_use -= 1;
        state.queue.push_front(waiter);
        self.permits.count(&state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_put_back {
            let mut state = self.permits.lock();
            state.in_use -= 1;
            self.permits.grant(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::{Acquired, Permit, Permits, Waiter};
    use crate::front::Lane;
    use crate::front::stats::Stats;

    struct Queue {
        permits: Arc<Permits>,
        granted: Receiver<(usize, u64)>,
        stats: Arc<Stats>,
    }

    impl Queue {
        fn new(max: usize, max_queue: usize) -> Self {
            let (grant, granted) = channel();
            let grant = move |worker, token| grant.send((worker, token)).expect("told");
            let stats = Arc::new(Stats::default());
            let permits = Permits::new(Lane::Worker, (max, max_queue), Box::new(grant), &stats);
            Self { permits, granted, stats }
        }

        fn acquire(&self, worker: usize, token: u64) -> Acquired {
            self.permits.acquire(Waiter { worker, token })
        }

        fn now(&self, worker: usize, token: u64) -> Permit {
            match self.acquire(worker, token) {
                Acquired::Now(permit) => permit,
                Acquired::Queued | Acquired::Full => unreachable!("one is free"),
            }
        }

        /// The workers and tokens of the requests that were granted a permit.
        fn granted(&self) -> Vec<(usize, u64)> {
            self.granted.try_iter().collect()
        }

        fn counted(&self) -> (usize, usize) {
            (self.stats.busy(), self.stats.queue_length())
        }
    }

    #[test]
    fn permits_go_to_the_oldest_on_whichever_worker_and_the_queue_has_its_bound() {
        let queue = Queue::new(2, 2);
        let (first, second) = (queue.now(0, 1), queue.now(1, 2));
        assert!(matches!(queue.acquire(0, 3), Acquired::Queued));
        assert!(matches!(queue.acquire(1, 4), Acquired::Queued));
        assert!(matches!(queue.acquire(1, 5), Acquired::Full));
        assert_eq!(queue.counted(), (2, 2));
        drop(second);
        assert_eq!(queue.granted(), [(0, 3)]);
        drop(first);
        assert_eq!(queue.granted(), [(1, 4)]);
        assert_eq!(queue.counted(), (2, 0));
        // A request that has gone meanwhile passes its permit on.
        assert!(matches!(queue.acquire(0, 6), Acquired::Queued));
        drop(queue.permits.granted());
        assert_eq!(queue.granted(), [(0, 6)]);
        drop((queue.permits.granted(), queue.permits.granted()));
        assert_eq!(queue.counted(), (0, 0));
    }

    #[test]
    fn permit_that_is_put_back_is_the_firsts_again() {
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(Waiter { worker: 0, token: 2 });
        assert_eq!(queue.counted(), (1, 1));
        // Others wait behind it, though a permit is free.
        assert!(matches!(queue.acquire(1, 3), Acquired::Queued));
        assert!(queue.permits.retry(1).is_none());
        let (permit, token) = queue.permits.retry(0).expect("its turn");
        assert_eq!((permit.lane(), token), (Lane::Worker, 2));
        queue.permits.grant_next();
        assert_eq!(queue.granted(), [], "both are taken");
        drop(permit);
        assert_eq!(queue.granted(), [(1, 3)]);
    }

    #[test]
    fn request_that_gives_up_leaves_the_queue_unless_it_has_its_permit() {
        let queue = Queue::new(1, 2);
        let held = queue.now(0, 1);
        assert!(matches!(queue.acquire(1, 2), Acquired::Queued));
        assert!(matches!(queue.acquire(0, 3), Acquired::Queued));
        assert!(!queue.permits.give_up(Waiter { worker: 0, token: 2 }), "another worker's");
        assert!(queue.permits.give_up(Waiter { worker: 1, token: 2 }));
        assert_eq!((queue.granted(), queue.counted()), (vec![], (1, 1)));
        drop(held);
        assert_eq!(queue.granted(), [(0, 3)]);
        assert!(!queue.permits.give_up(Waiter { worker: 0, token: 3 }), "it has its permit");
        // It has waited for memory, and others behind it: the next has its turn.
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(Waiter { worker: 0, token: 2 });
        assert!(matches!(queue.acquire(1, 3), Acquired::Queued));
        assert!(queue.permits.give_up(Waiter { worker: 0, token: 2 }));
        assert_eq!((queue.granted(), queue.counted()), (vec![(1, 3)], (2, 0)));
    }
}
