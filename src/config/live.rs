//! The configuration in force: an immutable snapshot behind a lock, held only to copy a pointer.

use std::sync::{Arc, RwLock};

use super::Config;

/// The one mutable place of the configuration. Each request takes a snapshot and keeps it to its end.
#[derive(Debug)]
pub struct Live(RwLock<Arc<Config>>);

impl Live {
    pub fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    pub fn snapshot(&self) -> Arc<Config> {
        // A poisoned lock still guards a whole `Arc`: the only write exchanges one pointer.
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Puts another configuration in force; requests in flight keep theirs.
    pub fn replace(&self, config: Config) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(config);
    }
}
