//! Bounds over what all connections hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{BODY_STEP, MAX_ANSWERS_IN_TRANSIT, MAX_BODIES_IN_TRANSIT};

/// Bytes of one kind that all connections hold, against a bound.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicUsize,
    most: usize,
}

/// What connections hold together.
#[derive(Debug)]
pub struct Transit {
    /// Request bodies, from their first byte until their requests have been answered.
    pub(super) bodies: Arc<Held>,
    /// Whole answers that their clients have still to take.
    pub(super) answers: Arc<Held>,
}

/// A share of [`Held`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Default for Transit {
    fn default() -> Self {
        let bounded = |most| Arc::new(Held { bytes: AtomicUsize::new(0), most });
        Self { bodies: bounded(MAX_BODIES_IN_TRANSIT), answers: bounded(MAX_ANSWERS_IN_TRANSIT) }
    }
}

impl Share {
    /// A share of nothing yet.
    pub(super) fn of(held: &Arc<Held>) -> Self {
        Self { held: Arc::clone(held), bytes: 0 }
    }

    /// Counts so many bytes more; whether there is room for them. For a little there always is.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let total = self.held.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        total <= self.held.most || self.bytes <= BODY_STEP
    }

    /// Gives all of it back.
    pub(super) fn give_back(&mut self) {
        self.held.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}
