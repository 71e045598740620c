//! How many requests may be in hand at once: each thread that serves holds a place, and hands it on with an answer that
//! outlives its handler.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded number of places.
#[derive(Debug)]
pub struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// So many.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), freed: Condvar::new() })
    }

    /// A place, once there is one: every place is held by a request whose deadlines end it.
    pub fn take(self: &Arc<Self>) -> Place {
        let mut free = self.lock();
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}
