//! Providers in memory, for unit tests: the test decides what their connections carry, and when.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::link::Link;
use crate::front::Source;
use crate::limits::{UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// The other end of a connection to a provider.
#[derive(Clone)]
pub struct Peer {
    state: Arc<Mutex<State>>,
    source: Arc<Source>,
}

struct State {
    /// Bytes that it was sent.
    received: Vec<u8>,
    /// Bytes that it takes before its window is full.
    room: usize,
    /// Pieces that it has sent and we have not read.
    pieces: VecDeque<Vec<u8>>,
    /// It has closed its side.
    has_ended: bool,
    /// The connection was closed.
    is_closed: bool,
    /// Its bytes are at hand even while reads of the socket are held, as with TLS.
    is_ahead: bool,
}

impl Peer {
    /// A provider that takes all bytes and sends none.
    pub fn open() -> Self {
        let (received, pieces) = (Vec::new(), VecDeque::new());
        let state =
            State { received, room: usize::MAX, pieces, has_ended: false, is_closed: false, is_ahead: false };
        Self { state: Arc::new(Mutex::new(state)), source: Source::in_memory() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn send(&self, piece: &[u8]) {
        if !piece.is_empty() {
            self.state().pieces.push_back(piece.to_vec());
            self.source.set_ready(false);
        }
    }

    /// Closes its side.
    pub fn end(&self) {
        self.state().has_ended = true;
        self.source.set_ready(true);
    }

    /// Makes its bytes available before the socket is read, as with TLS.
    pub fn be_ahead(&self) {
        self.state().is_ahead = true;
    }

    /// Lets it take so many more bytes.
    pub fn set_room(&self, room: usize) {
        self.state().room = room;
    }

    /// Bytes that it was sent since the last call.
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().received)
    }

    /// Whether the connection to it was closed.
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Our end of the connection.
    pub fn link(&self) -> (Link, Arc<Source>) {
        let buffers = LazyBuffers::new(UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER);
        let wire = Wire { peer: self.clone(), buffers, unsent: Vec::new() };
        (Link::Other(Box::new(wire)), Arc::clone(&self.source))
    }
}

/// Our end of a connection.
struct Wire {
    peer: Peer,
    buffers: LazyBuffers,
    unsent: Vec<u8>,
}

impl Wire {
    fn flush(&mut self) {
        let mut state = self.peer.state();
        let taken = self.unsent.len().min(state.room);
        state.room -= taken;
        state.received.extend(self.unsent.drain(..taken));
        self.peer.source.set_unsent(!self.unsent.is_empty());
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.unsent.extend_from_slice(&self.buffers.output()[..amount]);
        self.flush();
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.flush();
        let mut state = self.peer.state();
        let would_block = || Err(Error::Io(io::ErrorKind::WouldBlock.into()));
        let is_here = state.is_ahead && !state.pieces.is_empty();
        if !is_here && !self.peer.source.is_readable() {
            return would_block();
        }
        let Some(mut piece) = state.pieces.pop_front() else {
            self.peer.source.drained(!state.has_ended);
            return if state.has_ended { Ok(false) } else { would_block() };
        };
        let room = self.buffers.input_append_buf();
        let count = piece.len().min(room.len());
        room[..count].copy_from_slice(&piece[..count]);
        self.buffers.input_appended(count);
        self.peer.source.receive(count);
        if count < piece.len() {
            state.pieces.push_front(piece.split_off(count));
        } else if state.pieces.is_empty() {
            self.peer.source.drained(false);
        }
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        let state = self.peer.state();
        state.pieces.is_empty() && !state.has_ended
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.peer.state().is_closed = true;
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wire")
    }
}

/// The fate of new connections, in their order: each leads to a provider or is refused.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<VecDeque<Option<Peer>>>>);

impl Network {
    fn add(&self, next: Option<Peer>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(next);
    }

    /// Leads the next connection to this provider.
    pub fn lead_to(&self) -> Peer {
        let peer = Peer::open();
        self.add(Some(peer.clone()));
        peer
    }

    /// Refuses the next connection.
    pub fn refuse(&self) {
        self.add(None);
    }

    /// Forgets the plans for new connections: the next one is refused.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A new connection.
    ///
    /// # Errors
    /// It is refused.
    pub fn connect(&self) -> Result<(Link, Arc<Source>), Error> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.flatten().map(|peer| peer.link()).ok_or(Error::ConnectionFailed)
    }
}
