//! A gate that a test opens for a scripted upstream: ordering by event instead of by time.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Holds back each passer until the test opens it for one.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets one more pass.
    pub fn open(&self) {
        self.open_for(1);
    }

    /// Lets `passes` more pass.
    pub fn open_for(&self, passes: usize) {
        let (permits, changed) = &*self.0;
        *permits.lock().expect("gate") += passes;
        changed.notify_all();
    }

    /// Takes one permit, waiting at most `timeout`; `false` if there was none.
    pub fn pass(&self, timeout: Duration) -> bool {
        let (permits, changed) = &*self.0;
        let guard = permits.lock().expect("gate");
        let (mut guard, _) =
            changed.wait_timeout_while(guard, timeout, |permits| *permits == 0).expect("gate");
        if *guard == 0 {
            return false;
        }
        *guard -= 1;
        true
    }
}
