//! The last errors that clients got, for the status page. What a provider wrote is not kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::core::sort::sort_by;
use crate::limits::MAX_LAST_ERRORS;

/// An error that a client got.
#[derive(Debug, Clone)]
pub struct LastError {
    pub at: SystemTime,
    pub request_id: Arc<str>,
    /// Of an error of our own; `None`: the provider's response was relayed.
    pub reason: Option<&'static str>,
    /// Empty: none was asked.
    pub provider: String,
    /// Below 400: the stream ended with an error.
    pub status: u16,
    /// The model that the client names, at most [`crate::limits::MAX_MODEL`] bytes. Empty: none is known.
    pub model: String,
    /// The description of the client's token. Empty: none is known.
    pub token: String,
}

/// At most [`MAX_LAST_ERRORS`] with a 4xx status or of a client that is not known, and as many others: one client's wrong requests do
/// not push out the failures.
#[derive(Debug, Default)]
pub struct LastErrors(Mutex<[VecDeque<LastError>; 2]>);

impl LastErrors {
    pub fn note(&self, error: LastError) {
        let is_unknown = error.token.is_empty() && error.provider.is_empty();
        let is_clients = is_unknown || (400..500).contains(&error.status);
        let kept = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(is_clients)];
        if kept.len() == MAX_LAST_ERRORS {
            kept.pop_front();
        }
        kept.push_back(error);
    }

    /// All that are kept, newest first.
    pub fn list(&self) -> Vec<LastError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<LastError> = kept.iter().flatten().cloned().collect();
        drop(kept);
        sort_by(&mut all, |a, b| b.at.cmp(&a.at));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{LastError, LastErrors};
    use crate::limits::MAX_LAST_ERRORS;

    #[test]
    fn flood_of_client_errors_leaves_failures_in_place() {
        let errors = LastErrors::default();
        let mut at = SystemTime::UNIX_EPOCH;
        let mut note = |(status, token): (u16, &str)| {
            at += Duration::from_secs(1);
            let (provider, model, token) = (String::new(), String::new(), token.to_owned());
            errors.note(LastError {
                at,
                request_id: "r".into(),
                reason: None,
                provider,
                status,
                model,
                token,
            });
        };
        [(502, "me"), (200, "me")].into_iter().for_each(&mut note);
        (0..MAX_LAST_ERRORS).for_each(|_| note((404, "me")));
        // Of a client without a token: a version of HTTP that is not understood.
        (0..MAX_LAST_ERRORS).for_each(|_| note((505, "")));
        let statuses: Vec<u16> = errors.list().iter().map(|error| error.status).collect();
        assert_eq!(statuses[..MAX_LAST_ERRORS], [505; MAX_LAST_ERRORS]);
        assert_eq!(statuses[MAX_LAST_ERRORS..], [200, 502]);
    }
}
