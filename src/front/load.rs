//! Whether the helpers have more to do than there are of them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What the helpers of a lane have to do.
#[derive(Debug, Default)]
pub struct Load {
    /// Jobs sent and not finished.
    pub(super) unfinished: AtomicUsize,
    /// Threads.
    pub(super) started: AtomicUsize,
}

impl Load {
    /// Whether jobs wait for a thread.
    pub fn is_over(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) > self.started.load(Ordering::Relaxed)
    }
}
