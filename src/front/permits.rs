//! How many requests are handled at once, over all workers, and the queue of those that wait: first come, first served.
//!
//! One lock, held for a few instructions, twice a request.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Lane;
use super::inbox::{Inbox, Post};
use super::stats::Stats;

/// The permits of one lane.
pub struct Permits {
    lane: Lane,
    max: usize,
    max_queue: usize,
    state: Mutex<State>,
    inboxes: Arc<[Inbox]>,
    stats: Arc<Stats>,
}

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
    /// How long it may wait.
    pub(super) until: Instant,
}

/// What becomes of a request that asks for a permit.
pub enum Acquired {
    /// It has one.
    Now(Permit),
    /// It waits: [`Post::Granted`] or [`Post::Overdue`] tells its worker.
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
        inboxes: &Arc<[Inbox]>,
        stats: &Arc<Stats>,
    ) -> Arc<Self> {
        let (inboxes, stats) = (Arc::clone(inboxes), Arc::clone(stats));
        Arc::new(Self { lane, max, max_queue, state: Mutex::default(), inboxes, stats })
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

    /// The permit that [`Post::Granted`] announced to a worker.
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
        if let Some(Waiter { worker, token, .. }) = next {
            state.in_use += 1;
            self.inboxes[worker].post(Post::Granted(self.lane, token));
        }
        self.count(state);
    }

    /// Tells those that have waited for too long.
    pub(super) fn refuse_overdue(&self, now: Instant) {
        let mut state = self.lock();
        let waiting = state.queue.len();
        while let Some(waiter) = state.queue.front().copied().filter(|waiter| waiter.until <= now) {
            state.queue.pop_front();
            self.inboxes[waiter.worker].post(Post::Overdue(waiter.token));
        }
        // Where the first has waited for memory, a permit is free for the next.
        if state.queue.len() < waiting {
            self.grant(&mut state);
        }
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
    use std::time::{Duration, Instant};

    use super::{Acquired, Permit, Permits, Waiter};
    use crate::front::Lane;
    use crate::front::inbox::{Inbox, Post};
    use crate::front::stats::Stats;

    struct Queue {
        permits: Arc<Permits>,
        inboxes: Arc<[Inbox]>,
        stats: Arc<Stats>,
        until: Instant,
    }

    impl Queue {
        fn new(max: usize, max_queue: usize) -> Self {
            let inboxes: Arc<[Inbox]> = (0..2).map(|_| Inbox::new().expect("an inbox")).collect();
            let stats = Arc::new(Stats::default());
            let permits = Permits::new(Lane::Worker, (max, max_queue), &inboxes, &stats);
            Self { permits, inboxes, stats, until: Instant::now() + Duration::from_secs(60) }
        }

        fn waiter(&self, worker: usize, token: u64) -> Waiter {
            Waiter { worker, token, until: self.until }
        }

        fn acquire(&self, worker: usize, token: u64) -> Acquired {
            self.permits.acquire(self.waiter(worker, token))
        }

        fn now(&self, worker: usize, token: u64) -> Permit {
            match self.acquire(worker, token) {
                Acquired::Now(permit) => permit,
                Acquired::Queued | Acquired::Full => unreachable!("one is free"),
            }
        }

        /// The posts to a worker: the tokens that have a permit, and those that have waited too long.
        fn posts(&self, worker: usize) -> (Vec<u64>, Vec<u64>) {
            let (mut granted, mut overdue) = (Vec::new(), Vec::new());
            for post in self.inboxes[worker].take() {
                match post {
                    Post::Granted(_, token) => granted.push(token),
                    Post::Overdue(token) => overdue.push(token),
                    _ => unreachable!("nothing else happens"),
                }
            }
            (granted, overdue)
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
        assert_eq!((queue.posts(0), queue.posts(1)), ((vec![3], vec![]), (vec![], vec![])));
        drop(first);
        assert_eq!((queue.posts(0), queue.posts(1)), ((vec![], vec![]), (vec![4], vec![])));
        assert_eq!(queue.counted(), (2, 0));
        // A request that has gone meanwhile passes its permit on.
        assert!(matches!(queue.acquire(0, 6), Acquired::Queued));
        drop(queue.permits.granted());
        assert_eq!(queue.posts(0).0, [6]);
        drop((queue.permits.granted(), queue.permits.granted()));
        assert_eq!(queue.counted(), (0, 0));
    }

    #[test]
    fn permit_that_is_put_back_is_the_firsts_again() {
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(queue.waiter(0, 2));
        assert_eq!(queue.counted(), (1, 1));
        // Others wait behind it, though a permit is free.
        assert!(matches!(queue.acquire(1, 3), Acquired::Queued));
        assert!(queue.permits.retry(1).is_none());
        let (permit, token) = queue.permits.retry(0).expect("its turn");
        assert_eq!((permit.lane(), token), (Lane::Worker, 2));
        queue.permits.grant_next();
        assert_eq!(queue.posts(1).0, [0; 0], "both are taken");
        drop(permit);
        assert_eq!(queue.posts(1).0, [3]);
    }

    #[test]
    fn request_that_waits_too_long_is_refused_on_its_worker() {
        let queue = Queue::new(1, 2);
        let _held = queue.now(0, 1);
        assert!(matches!(queue.acquire(1, 2), Acquired::Queued));
        queue.permits.refuse_overdue(queue.until - Duration::from_secs(1));
        assert_eq!(queue.posts(1), (vec![], vec![]));
        queue.permits.refuse_overdue(queue.until);
        assert_eq!((queue.posts(1), queue.counted()), ((vec![], vec![2]), (1, 0)));
        // It has waited for memory, and others behind it: the next has its turn.
        let queue = Queue::new(2, 2);
        let _held = queue.now(0, 1);
        queue.now(0, 2).put_back(queue.waiter(0, 2));
        let later = queue.until + Duration::from_secs(1);
        assert!(matches!(
            queue.permits.acquire(Waiter { until: later, ..queue.waiter(1, 3) }),
            Acquired::Queued
        ));
        queue.permits.refuse_overdue(queue.until);
        assert_eq!((queue.posts(0), queue.posts(1)), ((vec![], vec![2]), (vec![3], vec![])));
    }
}
