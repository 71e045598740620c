//! A client in memory for unit tests: the test decides how many bytes it takes and when it leaves.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The other end of a client's connection.
#[derive(Clone)]
pub struct Peer(Arc<Mutex<State>>);

struct State {
    received: Vec<u8>,
    /// Free bytes of its window.
    room: usize,
    is_gone: bool,
    /// Called before bytes arrive.
    witness: Box<dyn FnMut() + Send>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Peer")
    }
}

impl Peer {
    /// A client that takes everything.
    pub fn open() -> Self {
        Self(Arc::new(Mutex::new(State {
            received: Vec::new(),
            room: usize::MAX,
            is_gone: false,
            witness: Box::new(|| {}),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the free bytes of its window.
    pub fn set_room(&self, room: usize) {
        self.state().room = room;
    }

    /// Closes its connection.
    pub fn leave(&self) {
        self.state().is_gone = true;
    }

    /// Calls `witness` before each delivery of bytes.
    pub fn watch(&self, witness: impl FnMut() + Send + 'static) {
        self.state().witness = Box::new(witness);
    }

    /// The bytes it has taken since the last call.
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().received)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().is_gone
    }

    pub(super) fn take(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state();
        if state.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        (state.witness)();
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let taken = all.len().min(state.room);
        state.room -= taken;
        state.received.extend_from_slice(&all[..taken]);
        Ok(taken)
    }
}
