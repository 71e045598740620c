//! Counters of a front.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

#[derive(Debug, Default)]
pub struct Stats {
    clients: AtomicUsize,
    /// Those that only receive their refusal.
    refused: AtomicUsize,
    /// Requests that wait for a permit.
    pub(super) queued: AtomicUsize,
    /// Requests that hold a permit.
    pub(super) busy: AtomicUsize,
    workers: OnceLock<Box<[WorkerStats]>>,
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerStats {
    /// Turns of its loop.
    pub(super) turns: AtomicU64,
    clients: AtomicUsize,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    stats: Arc<Stats>,
    worker: usize,
    refused: bool,
}

impl Stats {
    /// Open client connections.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Open client connections of each worker.
    pub fn clients_of_workers(&self) -> impl Iterator<Item = usize> {
        self.workers().iter().map(|worker| worker.clients.load(Ordering::Relaxed))
    }

    /// Requests that hold a permit, until their responses end.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Requests that wait for a permit.
    pub fn queue_length(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Sets the number of workers at the start.
    pub(super) fn begin(&self, workers: usize) {
        self.workers.get_or_init(|| (0..workers).map(|_| WorkerStats::default()).collect());
    }

    pub(super) fn workers(&self) -> &[WorkerStats] {
        self.workers.get().map_or(&[], |workers| workers)
    }

    /// Connections within the limit, and those that only receive their refusal.
    pub(super) fn admitted_and_refused(&self) -> (usize, usize) {
        let refused = self.refused.load(Ordering::Relaxed);
        (self.clients().saturating_sub(refused), refused)
    }

    /// The worker with the fewest connections; of several the next after `last`.
    pub(super) fn least_busy(&self, last: usize) -> usize {
        let workers = self.workers();
        let in_turn = (1..=workers.len()).map(|step| (last + step) % workers.len());
        in_turn.min_by_key(|worker| workers[*worker].clients.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Counts a connection for that worker; `refused`: it only receives its refusal.
    pub(super) fn count(self: &Arc<Self>, worker: usize, refused: bool) -> Counted {
        self.clients.fetch_add(1, Ordering::Relaxed);
        self.refused.fetch_add(usize::from(refused), Ordering::Relaxed);
        self.workers()[worker].clients.fetch_add(1, Ordering::Relaxed);
        Counted { stats: Arc::clone(self), worker, refused }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { stats, worker, refused } = self;
        stats.clients.fetch_sub(1, Ordering::Relaxed);
        stats.refused.fetch_sub(usize::from(*refused), Ordering::Relaxed);
        stats.workers()[*worker].clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Stats;

    #[test]
    fn connection_goes_to_the_worker_with_the_fewest_and_ties_go_in_turn() {
        let stats = Arc::new(Stats::default());
        stats.begin(3);
        let (mut last, mut counted) = (0, Vec::new());
        for expected in [1, 2, 0, 1, 2, 0] {
            last = stats.least_busy(last);
            assert_eq!(last, expected);
            counted.push(stats.count(last, false));
        }
        drop(counted.remove(1));
        assert_eq!((stats.least_busy(0), stats.least_busy(1)), (2, 2));
        assert_eq!(stats.clients_of_workers().collect::<Vec<_>>(), [2, 2, 1]);
        counted.push(stats.count(2, true));
        assert_eq!((stats.clients(), stats.admitted_and_refused()), (6, (5, 1)));
        drop(counted);
        assert_eq!((stats.clients(), stats.admitted_and_refused()), (0, (0, 0)));
    }
}
