//! Whether jobs wait for helpers.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Jobs and helpers of a lane.
#[derive(Debug, Default)]
pub struct Load {
    /// Jobs sent and not finished.
    pub(super) unfinished: AtomicUsize,
    /// Threads started.
    pub(super) started: AtomicUsize,
}

impl Load {
    /// Whether jobs wait for a thread.
    pub fn is_over(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) > self.started.load(Ordering::Relaxed)
    }
}
