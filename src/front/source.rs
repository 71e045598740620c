//! Sockets that answers come from, as the poller watches them: each is registered once, and stays so while its connection
//! serves one answer after the other.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::sys::Epoll;
use super::table::{split, token};

/// Marks the token of a source.
pub const SOURCE: u64 = 1 << 62;
/// No answer waits for it.
const NOBODY: u64 = u64::MAX;

/// A provider's socket.
#[derive(Debug)]
pub struct Source {
    stream: TcpStream,
    registered: OnceLock<Registered>,
}

/// A source in the poller's table; its place is free again when this is dropped.
#[derive(Debug)]
struct Registered {
    /// The token of the client whose answer waits for it.
    waits: Arc<AtomicU64>,
    token: u64,
    freed: Arc<Mutex<Vec<u64>>>,
}

impl Source {
    /// A socket that no answer waits for yet.
    pub fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream, registered: OnceLock::new() })
    }

    /// No answer waits for it any more: what happens on it is nobody's. Has to be called before another may use it.
    pub fn release(&self) {
        if let Some(registered) = self.registered.get() {
            registered.waits.store(NOBODY, Ordering::Release);
        }
    }
}

impl Deref for Source {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner).push(self.token);
    }
}

/// The sources that are registered. A token is a place and how often it was used, so that a late event for a socket that is
/// closed does not meet the next one.
#[derive(Default)]
pub struct Sources {
    places: Vec<Place>,
    free: Vec<u32>,
    freed: Arc<Mutex<Vec<u64>>>,
}

struct Place {
    generation: u32,
    waits: Arc<AtomicU64>,
    /// It has told of its end, which it does but once.
    ended: bool,
}

impl Sources {
    /// Has the answer to `client` told of what happens at `source` from now on, and of how it is now if it was never watched
    /// before; whether its end was told of already.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(super) fn watch(&mut self, epoll: &Epoll, source: &Source, client: u64) -> io::Result<bool> {
        if let Some(registered) = source.registered.get() {
            registered.waits.store(client, Ordering::Release);
            let (index, _) = split(registered.token & !SOURCE);
            return Ok(self.places[index as usize].ended);
        }
        self.take_freed();
        let (index, generation, waits) = self.reserve(client);
        let token = token(index, generation) | SOURCE;
        if let Err(error) = epoll.watch_input(source, token) {
            self.free.push(index);
            return Err(error);
        }
        let registered = Registered { waits, token, freed: Arc::clone(&self.freed) };
        // The poller alone registers, so it was not set meanwhile.
        drop(source.registered.set(registered));
        Ok(false)
    }

    /// The source of that token has something to tell, perhaps its end: the client whose answer waits for it.
    pub(super) fn told(&mut self, token: u64, ended: bool) -> Option<u64> {
        let (index, generation) = split(token & !SOURCE);
        let place = self.places.get_mut(index as usize).filter(|place| place.generation == generation)?;
        place.ended |= ended;
        Some(place.waits.load(Ordering::Acquire)).filter(|client| *client != NOBODY)
    }

    fn take_freed(&mut self) {
        let freed = std::mem::take(&mut *self.freed.lock().unwrap_or_else(PoisonError::into_inner));
        for gone in freed {
            let (index, _) = split(gone & !SOURCE);
            let place = &mut self.places[index as usize];
            place.generation = (place.generation + 1) & MAX_GENERATION;
            self.free.push(index);
        }
    }

    fn reserve(&mut self, client: u64) -> (u32, u32, Arc<AtomicU64>) {
        let waits = Arc::new(AtomicU64::new(client));
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, waits: Arc::clone(&waits), ended: false });
            // There are no more of them than requests in hand and idle connections.
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        (place.waits, place.ended) = (Arc::clone(&waits), false);
        (index, place.generation, waits)
    }
}

/// Tokens have two bits above the generation for what they mean.
pub const MAX_GENERATION: u32 = 0x3fff_ffff;
