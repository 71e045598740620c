//! Tokens charged so far for each background response, so that each token is charged once, however often the
//! response is fetched.
//!
//! Memory only: a forgotten response is charged again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::recent::Recent;

/// The responses charged or fetched most recently.
#[derive(Debug, Default)]
pub struct Charges(Mutex<Recent<u64>>);

impl Charges {
    /// Charges response `id`, which has used `total` tokens so far. Returns the tokens that were not charged
    /// before.
    pub fn charge(&self, id: &str, total: u64) -> u64 {
        let mut recent = self.lock();
        let charged = recent.get(id).copied().unwrap_or(0);
        recent.put(id.to_owned(), charged.max(total));
        total.saturating_sub(charged)
    }

    /// Whether `id` is a known background response.
    pub fn knows(&self, id: &str) -> bool {
        self.lock().get(id).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Recent<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Charges;

    #[test]
    fn each_token_is_charged_once() {
        let charges = Charges::default();
        assert!(!charges.knows("a"));
        assert_eq!(charges.charge("a", 0), 0);
        assert!(charges.knows("a"));
        let charged = [5, 5, 3, 12, 12].map(|total| charges.charge("a", total));
        assert_eq!(charged, [5, 0, 0, 7, 0]);
        assert_eq!(charges.charge("b", 12), 12);
    }
}
