//! Long computations: a helper runs them on values, while the task that waits for the result stays with its worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::api::error::ApiError;
use crate::front::{Io, Job};

/// A computation of one value from another. Dropped before a helper has begun, it never runs.
pub struct Computing<O> {
    state: Arc<Mutex<State<O>>>,
    /// For a helper; `None` once it has been sent.
    job: Option<Job>,
    /// One of its kind runs at a time.
    is_alone: bool,
    /// When a helper must have begun.
    until: Instant,
}

enum State<O> {
    /// No helper has begun.
    Waiting(Box<dyn FnOnce() -> O + Send>),
    /// One has begun, or the result is no longer wanted.
    Begun,
    Computed(O),
}

impl<O: Send + 'static> Computing<O> {
    /// `compute` gets `input` and nothing else of the request. `is_alone`: one of its kind runs at a time, because it takes very long.
    /// A helper must begin by `until`.
    pub fn new<I: Send + 'static>(input: I, compute: fn(I) -> O, is_alone: bool, until: Instant) -> Self {
        let state = Arc::new(Mutex::new(State::Waiting(Box::new(move || compute(input)))));
        let shared = Arc::clone(&state);
        let job = move || {
            let begun = std::mem::replace(&mut *lock(&shared), State::Begun);
            if let State::Waiting(compute) = begun {
                let output = compute();
                *lock(&shared) = State::Computed(output);
            }
        };
        Self { state, job: Some(Box::new(job)), is_alone, until }
    }

    /// The result; `None`: not yet. The first call sends the computation to a helper.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`]: no helper began in time. [`ApiError::Internal`]: it panicked.
    pub fn poll(&mut self, io: &mut dyn Io, now: Instant) -> Result<Option<O>, ApiError> {
        let is_sent = match self.job.take() {
            Some(job) if self.is_alone => io.spawn_alone(job),
            Some(job) => io.spawn(job),
            None => true,
        };
        let mut state = lock(&self.state);
        // The job holds the state too, until it has stored its result or panicked.
        let has_helper = is_sent && Arc::strong_count(&self.state) > 1;
        match std::mem::replace(&mut *state, State::Begun) {
            State::Computed(output) => Ok(Some(output)),
            waiting @ State::Waiting(_) if has_helper && now < self.until => {
                *state = waiting;
                Ok(None)
            }
            waiting @ State::Waiting(_) => {
                *state = waiting;
                Err(ApiError::Overloaded(""))
            }
            State::Begun if has_helper => Ok(None),
            State::Begun => Err(ApiError::Internal),
        }
    }

    /// The result, computed here; `None`: a helper has begun after all.
    pub fn compute_here(&self) -> Option<O> {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Waiting(_)) {
            return None;
        }
        let begun = std::mem::replace(&mut *state, State::Begun);
        drop(state);
        match begun {
            State::Waiting(compute) => Some(compute()),
            State::Begun | State::Computed(_) => None,
        }
    }

    /// When a helper must have begun; `None` after that.
    pub fn deadline(&self) -> Option<Instant> {
        matches!(*lock(&self.state), State::Waiting(_)).then_some(self.until)
    }
}

impl<O> Drop for Computing<O> {
    fn drop(&mut self) {
        *lock(&self.state) = State::Begun;
    }
}

/// No computation holds the lock when it panics.
fn lock<O>(state: &Mutex<State<O>>) -> MutexGuard<'_, State<O>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
