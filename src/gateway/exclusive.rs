//! A permit that one thread holds at a time; threads get it in the order of their requests.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Exclusive {
    /// The first thread holds the permit, the others wait.
    threads: Mutex<VecDeque<Thread>>,
}

/// Held until dropped.
#[derive(Debug)]
pub struct ExclusivePermit<'a>(&'a Exclusive);

impl Exclusive {
    /// Waits for the permit, at most `timeout`. A thread that holds it must not call this.
    pub fn acquire(&self, timeout: Duration) -> Option<ExclusivePermit<'_>> {
        let (me, deadline) = (thread::current(), Instant::now().checked_add(timeout)?);
        self.threads().push_back(me.clone());
        loop {
            let mut threads = self.threads();
            if threads.front().is_some_and(|first| first.id() == me.id()) {
                return Some(ExclusivePermit(self));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                threads.retain(|thread| thread.id() != me.id());
                return None;
            }
            drop(threads);
            thread::park_timeout(left);
        }
    }

    fn threads(&self) -> MutexGuard<'_, VecDeque<Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ExclusivePermit<'_> {
    fn drop(&mut self) {
        let mut threads = self.0.threads();
        threads.pop_front();
        if let Some(next) = threads.front() {
            next.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use super::Exclusive;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn permit_is_held_by_one_and_given_in_the_order_of_asking() {
        let (exclusive, order) = (Exclusive::default(), Mutex::new(Vec::new()));
        let permit = exclusive.acquire(LONG).expect("free");
        thread::scope(|scope| {
            for number in 0..8 {
                let (exclusive, order) = (&exclusive, &order);
                scope.spawn(move || {
                    let _permit = exclusive.acquire(LONG).expect("the others release it");
                    assert!(order.try_lock().map(|mut order| order.push(number)).is_ok(), "alone");
                });
                while exclusive.threads().len() < number + 2 {
                    thread::yield_now();
                }
            }
            drop(permit);
        });
        assert_eq!(*order.lock().expect("order"), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(exclusive.threads().is_empty());
    }

    #[test]
    fn wait_for_a_permit_that_is_not_released_ends_at_its_timeout() {
        let exclusive = Exclusive::default();
        let hangs = exclusive.acquire(LONG).expect("free");
        thread::scope(|scope| {
            let next = scope.spawn(|| exclusive.acquire(Duration::from_millis(20)).is_some());
            assert!(!next.join().expect("joined"));
        });
        assert_eq!(exclusive.threads().len(), 1, "a thread that left holds no place");
        drop(hangs);
        assert!(exclusive.acquire(Duration::ZERO).is_some());
    }
}
