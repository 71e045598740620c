//! The replica that made each stored object, so that later calls about the object go to the same provider and
//! key.
//!
//! Memory only: a search over the providers finds a forgotten object.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::recent::Recent;
use crate::config::ReplicaId;
use crate::limits::MAX_MODEL_ID;

/// Origin of a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseOwner {
    pub replica: ReplicaId,
    /// The model as the client named it; empty where a search found the object.
    pub model: String,
}

/// The owners used most recently.
#[derive(Debug, Default)]
pub struct ResponseOwners(Mutex<Recent<ResponseOwner>>);

impl ResponseOwners {
    /// Remembers the owner of `id`. A model longer than any real one is not remembered.
    pub fn remember(&self, id: String, owner: ResponseOwner) {
        if owner.model.len() <= MAX_MODEL_ID {
            self.lock().put(id, owner);
        }
    }

    /// The owner of `id`, if known.
    pub fn of(&self, id: &str) -> Option<ResponseOwner> {
        self.lock().get(id).cloned()
    }

    /// Forgets `id`: the object is deleted.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Recent<ResponseOwner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{ResponseOwner, ResponseOwners};
    use crate::config::{Replica, ReplicaId, ResponsesApi, Secret, StreamUsage};
    use crate::limits::{MAX_RESPONSE_ID, MAX_RESPONSE_OWNERS};

    fn owner(model: &str) -> ResponseOwner {
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
            responses: ResponsesApi::Auto,
        };
        ResponseOwner { replica: replica.identified("p").id, model: model.into() }
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let owners = ResponseOwners::default();
        owners.remember("kept".into(), owner("p/m"));
        for number in 0..3 * MAX_RESPONSE_OWNERS {
            owners.remember(number.to_string(), owner("p/m"));
            assert_eq!(owners.of("kept"), Some(owner("p/m")), "after {number}");
        }
        let known =
            (0..3 * MAX_RESPONSE_OWNERS).filter(|number| owners.of(&number.to_string()).is_some()).count();
        assert!((MAX_RESPONSE_OWNERS / 2..=MAX_RESPONSE_OWNERS).contains(&known), "{known}");
        assert!(owners.lock().len() <= MAX_RESPONSE_OWNERS);
    }

    #[test]
    fn what_is_forgotten_or_too_long_is_not_known() {
        let owners = ResponseOwners::default();
        owners.remember("a".into(), owner("p/m"));
        owners.forget("a");
        assert_eq!(owners.of("a"), None);
        let long = "x".repeat(MAX_RESPONSE_ID + 1);
        owners.remember(long.clone(), owner("p/m"));
        assert_eq!(owners.of(&long), None);
    }
}
