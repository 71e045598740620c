//! Which replica made which stored object, so that what a client does with it later goes to the same provider and key.
//!
//! Kept in memory alone: what is not known here can still be found by asking.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::recent::Recent;
use crate::config::ReplicaId;
use crate::limits::MAX_MODEL_ID;

/// Where a stored object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The replica that made it.
    pub replica: ReplicaId,
    /// The model as the client named it; empty where it was found by asking.
    pub model: String,
}

/// The origins that were used last.
#[derive(Debug, Default)]
pub struct Origins(Mutex<Recent<Origin>>);

impl Origins {
    /// Remembers where `id` is. A model longer than any real one is not remembered.
    pub fn remember(&self, id: String, origin: Origin) {
        if origin.model.len() <= MAX_MODEL_ID {
            self.lock().put(id, origin);
        }
    }

    /// Where `id` is, if that is known.
    pub fn of(&self, id: &str) -> Option<Origin> {
        self.lock().get(id).cloned()
    }

    /// Forgets `id`: it is no more.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Origin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Origin, Origins};
    use crate::config::{Replica, ReplicaId, Secret, StreamUsage};
    use crate::limits::{MAX_ORIGINS, MAX_RESPONSE_ID};

    fn origin(model: &str) -> Origin {
        let replica = Replica {
            id: ReplicaId::default(),
            url: "http://127.0.0.1:1".into(),
            anthropic_url: None,
            ca_file: None,
            key: Secret::default(),
            models: None,
            headers: Vec::new(),
            proxy: None,
            anthropic_proxy: None,
            weight: 1,
            stream_usage: StreamUsage::Auto,
        };
        Origin { replica: replica.identified("p").id, model: model.into() }
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let origins = Origins::default();
        origins.remember("kept".into(), origin("p/m"));
        for number in 0..3 * MAX_ORIGINS {
            origins.remember(number.to_string(), origin("p/m"));
            assert_eq!(origins.of("kept"), Some(origin("p/m")), "after {number}");
        }
        let known = (0..3 * MAX_ORIGINS).filter(|number| origins.of(&number.to_string()).is_some()).count();
        assert!((MAX_ORIGINS / 2..=MAX_ORIGINS).contains(&known), "{known}");
        assert!(origins.lock().len() <= MAX_ORIGINS);
    }

    #[test]
    fn what_is_forgotten_or_too_long_is_not_known() {
        let origins = Origins::default();
        origins.remember("a".into(), origin("p/m"));
        origins.forget("a");
        assert_eq!(origins.of("a"), None);
        let long = "x".repeat(MAX_RESPONSE_ID + 1);
        origins.remember(long.clone(), origin("p/m"));
        assert_eq!(origins.of(&long), None);
    }
}
