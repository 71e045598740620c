//! Limits the requests handled at once over all workers, and queues the others in the order of their arrival.
//!
//! One lock, held for a few instructions, twice per request.

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

/// Notifies a worker that the request of that token has its permit, with that number ([`Permits::granted`]).
type Grant = Box<dyn Fn(usize, u64, u64) + Send + Sync>;

#[derive(Default)]
struct State {
    in_use: usize,
    /// Requests that have asked so far.
    asked: u64,
    /// In the order of their numbers.
    queue: VecDeque<Waiter>,
}

/// A request that waits for a permit.
struct Waiter {
    /// Position in the order of requests.
    number: u64,
    /// Its worker.
    worker: usize,
    /// Token of its connection at that worker.
    token: u64,
}

/// Result of [`Permits::acquire`].
pub enum Acquired {
    Now(Permit),
    /// The request waits: its worker gets the permit, unless the request leaves the queue first.
    Queued,
    /// The queue is full.
    Full,
}

/// Permission to be handled. Dropping it, on any thread, passes it to the next request.
pub struct Permit {
    permits: Arc<Permits>,
    /// Number of its request in the queue.
    number: u64,
    is_put_back: bool,
}

impl Permits {
    /// `max` permits, and a bound for the queue.
    pub(super) fn new(
        lane: Lane,
        (max, max_queue): (usize, usize),
        grant: Grant,
        stats: &Arc<Stats>,
    ) -> Arc<Self> {
        Arc::new(Self { lane, max, max_queue, state: Mutex::default(), grant, stats: Arc::clone(stats) })
    }

    /// Takes a permit for a worker's request of that token, or queues the request.
    pub(super) fn acquire(self: &Arc<Self>, worker: usize, token: u64) -> Acquired {
        let mut state = self.lock();
        let number = state.asked;
        state.asked += 1;
        if state.in_use < self.max && state.queue.is_empty() {
            state.in_use += 1;
            self.count(&state);
            return Acquired::Now(self.granted(number));
        }
        if state.queue.len() >= self.max_queue + (self.max - state.in_use) {
            return Acquired::Full;
        }
        state.queue.push_back(Waiter { number, worker, token });
        self.count(&state);
        Acquired::Queued
    }

    /// The permit that a worker has been granted.
    pub(super) fn granted(self: &Arc<Self>, number: u64) -> Permit {
        Permit { permits: Arc::clone(self), number, is_put_back: false }
    }

    /// The permit for the first request in the queue, if one is free and the request is that worker's.
    pub(super) fn retry(self: &Arc<Self>, worker: usize) -> Option<(Permit, u64)> {
        let mut state = self.lock();
        let is_next = state.in_use < self.max && state.queue.front().is_some_and(|it| it.worker == worker);
        let waiter = if is_next { state.queue.pop_front() } else { None }?;
        state.in_use += 1;
        self.count(&state);
        Some((self.granted(waiter.number), waiter.token))
    }

    /// Grants a free permit to the next request in the queue: memory for it may be free now.
    pub(super) fn grant_next(&self) {
        self.grant(&mut self.lock());
    }

    fn grant(&self, state: &mut State) {
        let next = if state.in_use < self.max { state.queue.pop_front() } else { None };
        if let Some(Waiter { number, worker, token }) = next {
            state.in_use += 1;
            (self.grant)(worker, token, number);
        }
        self.count(state);
    }

    /// Removes a request that has waited too long from the queue; `false`: it has a permit already.
    pub(super) fn leave_queue(&self, worker: usize, token: u64) -> bool {
        let mut state = self.lock();
        // The oldest waiter is usually the first to time out.
        let is_it = |waiter: &Waiter| (waiter.worker, waiter.token) == (worker, token);
        let Some(place) = state.queue.iter().position(is_it) else { return false };
        state.queue.remove(place);
        // If it waited for memory, its permit is free for the next.
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
    pub(super) fn lane(&self) -> Lane {
        self.permits.lane
    }

    /// Returns the permit and queues the request again, ahead of all later ones, until memory is free.
    pub(super) fn put_back(mut self, worker: usize, token: u64) {
        self.is_put_back = true;
        let mut state = self.permits.lock();
        state.in_use -= 1;
        let place = state.queue.partition_point(|waiter| waiter.number < self.number);
        state.queue.insert(place, Waiter { number: self.number, worker, token });
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

    use super::{Acquired, Permit, Permits};
    use crate::front::Lane;
    use crate::front::stats::Stats;

    struct Queue {
        permits: Arc<Permits>,
        granted: Receiver<(usize, u64, u64)>,
        stats: Arc<Stats>,
    }

    impl Queue {
        fn new(max: usize, max_queue: usize) -> Self {
            let (grant, granted) = channel();
            let grant = move |worker, token, number| grant.send((worker, token, number)).expect("told");
            let stats = Arc::new(Stats::default());
            let permits = Permits::new(Lane::Worker, (max, max_queue), Box::new(grant), &stats);
            Self { permits, granted, stats }
        }

        fn acquire(&self, worker: usize, token: u64) -> Acquired {
            self.permits.acquire(worker, token)
        }

        fn now(&self, worker: usize, token: u64) -> Permit {
            match self.acquire(worker, token) {
                Acquired::Now(permit) => permit,
                Acquired::Queued | Acquired::Full => unreachable!("one is free"),
            }
        }

        /// The workers and tokens that were granted a permit.
        fn granted(&self) -> Vec<(usize, u64)> {
            self.granted.try_iter().map(|(worker, token, _)| (worker, token)).collect()
        }

        /// The permit that one was granted.
        fn permit(&self) -> Permit {
            let (.., number) = self.granted.try_recv().expect("one is granted");
            self.permits.granted(number)
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
        // A request that has left passes its permit on.
        assert!(matches!(queue.acquire(0, 6), Acquired::Queued));
        drop(queue.permits.granted(2));
        assert_eq!(queue.granted(), [(0, 6)]);
        drop((queue.permits.granted(3), queue.permits.granted(4)));
        assert_eq!(queue.counted(), (0, 0));
    }

    #[test]
    fn permit_that_is_put_back_is_the_firsts_again() {
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(0, 2);
        assert_eq!(queue.counted(), (1, 1));
        // Others queue after it, though a permit is free.
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
    fn permits_that_are_put_back_keep_the_order_of_their_requests() {
        let queue = Queue::new(2, 4);
        let held = (queue.now(0, 1), queue.now(0, 2));
        (3..=5).for_each(|token| assert!(matches!(queue.acquire(0, token), Acquired::Queued)));
        drop(held);
        let (third, fourth) = (queue.permit(), queue.permit());
        third.put_back(0, 3);
        fourth.put_back(0, 4);
        // The first is granted its permit again and still lacks memory.
        let (third, token) = queue.permits.retry(0).expect("its turn");
        assert_eq!(token, 3);
        third.put_back(0, 3);
        let (_third, first) = queue.permits.retry(0).expect("its turn");
        let (_fourth, second) = queue.permits.retry(0).expect("its turn");
        assert_eq!((first, second), (3, 4));
    }

    #[test]
    fn request_that_gives_up_leaves_the_queue_unless_it_has_its_permit() {
        let queue = Queue::new(1, 2);
        let held = queue.now(0, 1);
        assert!(matches!(queue.acquire(1, 2), Acquired::Queued));
        assert!(matches!(queue.acquire(0, 3), Acquired::Queued));
        assert!(!queue.permits.leave_queue(0, 2), "another worker's");
        assert!(queue.permits.leave_queue(1, 2));
        assert_eq!((queue.granted(), queue.counted()), (vec![], (1, 1)));
        drop(held);
        assert_eq!(queue.granted(), [(0, 3)]);
        assert!(!queue.permits.leave_queue(0, 3), "it has its permit");
        // A request waits for memory and others after it; the next one has its turn.
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(0, 2);
        assert!(matches!(queue.acquire(1, 3), Acquired::Queued));
        assert!(queue.permits.leave_queue(0, 2));
        assert_eq!((queue.granted(), queue.counted()), (vec![(1, 3)], (2, 0)));
    }
}
