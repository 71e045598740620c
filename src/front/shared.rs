//! What the threads of a front share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::helper::Helpers;
use super::inbox::Inbox;
use super::permits::Permits;
use super::stats::Stats;
use super::sys::Waker;
use super::{Lane, Service};

pub struct Shared<S: Service> {
    pub(super) service: Arc<S>,
    pub(super) stats: Arc<Stats>,
    /// The workers' inboxes, by worker number.
    pub(super) inboxes: Arc<[Inbox]>,
    /// Wakes the acceptor.
    pub(super) door: Waker,
    pub(super) permits: [Arc<Permits>; 2],
    pub(super) helpers: [Arc<Helpers<S>>; 2],
    /// Each response ends its connection.
    pub(super) draining: Arc<AtomicBool>,
    /// Accepting has ended, and all accepted connections are in the inboxes.
    pub(super) is_closed: AtomicBool,
}

impl<S: Service> Shared<S> {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn helpers(&self, lane: Lane) -> &Arc<Helpers<S>> {
        &self.helpers[lane as usize]
    }

    pub(super) fn permits(&self, lane: Lane) -> &Arc<Permits> {
        &self.permits[lane as usize]
    }

    /// Wakes all workers and the acceptor.
    pub(super) fn wake(&self) {
        self.door.wake();
        self.inboxes.iter().for_each(Inbox::wake);
    }
}
