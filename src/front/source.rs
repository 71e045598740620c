//! Sockets of providers under the watch of workers. Each is registered with one worker, and stays so while
//! its connection serves one request of that worker after another. This is the only place that keeps a
//! socket's readiness.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::places::{Places, Slot};
use super::sys::{Epoll, receive_behind, send_now};

/// Marks the token of a source.
pub const SOURCE: u64 = 1 << 62;
/// Value of `waits` without a task.
const NOBODY: u64 = u64::MAX;

/// A provider's socket.
#[derive(Debug)]
pub struct Source {
    socket: Socket,
    readiness: Arc<Readiness>,
    registered: Mutex<Option<Registered>>,
    /// Bytes received, and how many had been received when the client last got some.
    received: AtomicU64,
    delivered: AtomicU64,
    /// Some bytes of a request are unsent.
    is_unsent: AtomicBool,
    /// The provider takes no more bytes of a request.
    is_deaf: AtomicBool,
}

/// The provider's end.
#[derive(Debug)]
enum Socket {
    System(TcpStream),
    /// A unit test's, with a transport of its own.
    #[cfg(test)]
    Memory,
}

/// Readiness of a socket that reports each change once. Only one thread at a time uses it: the atomics order
/// nothing.
#[derive(Debug)]
struct Readiness {
    /// Token of the client whose task waits for it, or [`NOBODY`].
    waits: AtomicU64,
    /// A read may find bytes.
    is_readable: AtomicBool,
    /// The peer has ended its side. The event comes only once.
    has_ended: AtomicBool,
    /// Reads are paused, even if there are bytes.
    is_held: AtomicBool,
}

/// Registration of a source.
#[derive(Debug)]
struct Registered {
    worker: usize,
    epoll: Arc<Epoll>,
    _slot: Slot,
}

impl Source {
    /// A socket without a waiting task.
    pub fn new(stream: TcpStream) -> Arc<Self> {
        Self::on(Socket::System(stream))
    }

    /// The readiness of a provider in memory.
    #[cfg(test)]
    pub fn in_memory() -> Arc<Self> {
        Self::on(Socket::Memory)
    }

    fn on(socket: Socket) -> Arc<Self> {
        let readiness = Readiness {
            waits: AtomicU64::new(NOBODY),
            is_readable: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
        };
        Arc::new(Self {
            socket,
            readiness: Arc::new(readiness),
            registered: Mutex::default(),
            received: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            is_unsent: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
        })
    }

    /// Begins a request: all earlier bytes have been read, and later ones are reported.
    pub fn begin_request(&self) {
        self.readiness.is_readable.store(false, Ordering::Relaxed);
        self.received.store(0, Ordering::Relaxed);
        self.delivered.store(0, Ordering::Relaxed);
    }

    /// The worker that watches it, if any.
    pub fn worker(&self) -> Option<usize> {
        self.registered().as_ref().map(|registered| registered.worker)
    }

    fn registered(&self) -> MutexGuard<'_, Option<Registered>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Detaches its task, so that later events have no task. Must be called before another task uses it.
    pub fn release(&self) {
        self.readiness.waits.store(NOBODY, Ordering::Release);
    }

    /// Whether a read may find bytes.
    pub fn is_readable(&self) -> bool {
        self.readiness.is_readable.load(Ordering::Relaxed) && !self.readiness.is_held.load(Ordering::Relaxed)
    }

    /// Notes that there are bytes to read, with `ended` also the peer's end after them.
    pub fn set_ready(&self, ended: bool) {
        self.readiness.is_readable.store(true, Ordering::Relaxed);
        if ended {
            self.readiness.has_ended.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that a read found fewer bytes than it had room for. That was all, unless the peer's end follows,
    /// which a short read does not show; `certainly`: the read found nothing.
    pub fn drained(&self, certainly: bool) {
        if certainly || !self.readiness.has_ended.load(Ordering::Relaxed) {
            self.readiness.is_readable.store(false, Ordering::Relaxed);
        }
    }

    /// Pauses or resumes reads.
    pub fn hold_reads(&self, held: bool) {
        self.readiness.is_held.store(held, Ordering::Relaxed);
    }

    /// Counts received bytes.
    pub fn receive(&self, count: usize) {
        self.received.store(self.received() + count as u64, Ordering::Relaxed);
    }

    /// Bytes received since the request began, including those of TLS.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Notes that the client got some of the received bytes.
    pub fn deliver(&self) {
        self.delivered.store(self.received(), Ordering::Relaxed);
    }

    /// Bytes received since the client last got some.
    pub fn undelivered(&self) -> u64 {
        self.received() - self.delivered.load(Ordering::Relaxed)
    }

    /// Reads once and appends to `buffer`, which does not grow; returns the number of bytes, 0 also at the end of the connection.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn receive_behind(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        let received = match &self.socket {
            Socket::System(stream) => receive_behind(stream, buffer)?,
            #[cfg(test)]
            Socket::Memory => return Ok(0),
        };
        match received {
            None => self.drained(true),
            // The transport reads the end once more and reports it.
            Some(0) => {}
            Some(count) => {
                self.receive(count);
                if count < room {
                    self.drained(false);
                }
            }
        }
        Ok(received.unwrap_or(0))
    }

    /// Whether the provider takes no more bytes of a request. It may still have a response for us (a 413, say).
    pub fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed)
    }

    /// Drops what has still to leave, now and later: the provider does not take it.
    pub fn set_deaf(&self) {
        self.is_deaf.store(true, Ordering::Relaxed);
    }

    /// Sends what the socket takes of these parts without waiting; returns the number of bytes, 0 when the socket has no room.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.socket {
            // The transport has dropped bytes: those after them would stand in their place.
            Socket::System(_) if self.is_deaf() => Ok(0),
            Socket::System(stream) => send_now(stream, parts),
            #[cfg(test)]
            Socket::Memory => Ok(0),
        }
    }

    /// Whether bytes of a request are unsent.
    pub fn is_unsent(&self) -> bool {
        self.is_unsent.load(Ordering::Relaxed)
    }

    /// Sets whether bytes of a request are unsent.
    pub fn set_unsent(&self, unsent: bool) {
        self.is_unsent.store(unsent, Ordering::Relaxed);
    }
}

impl Deref for Source {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        match &self.socket {
            Socket::System(stream) => stream,
            #[cfg(test)]
            Socket::Memory => unreachable!("a provider in memory has a transport of its own"),
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

/// The sources registered with one worker.
pub struct Sources {
    worker: usize,
    epoll: Arc<Epoll>,
    places: Places<Arc<Readiness>>,
}

impl Sources {
    pub(super) fn new(worker: usize, epoll: &Arc<Epoll>) -> Self {
        // Bounded elsewhere: by the requests in flight and the idle connections.
        Self { worker, epoll: Arc::clone(epoll), places: Places::new(usize::MAX) }
    }

    /// Lets each event at `source` run the task of `client` from now on.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(super) fn watch(&mut self, source: &Source, client: u64) -> io::Result<()> {
        source.readiness.waits.store(client, Ordering::Release);
        let mut registered = source.registered();
        if registered.as_ref().is_some_and(|registered| registered.worker == self.worker) {
            return Ok(());
        }
        // Late events at its previous worker find no task for that token.
        if let Some(Registered { epoll, .. }) = registered.take() {
            epoll.remove(source)?;
        }
        self.places.free_left(|_| {});
        let slot = self.places.take(Arc::clone(&source.readiness)).ok_or(io::ErrorKind::OutOfMemory)?;
        // Events before the registration are reported too.
        self.epoll.watch(source, slot.token | SOURCE)?;
        *registered = Some(Registered { worker: self.worker, epoll: Arc::clone(&self.epoll), _slot: slot });
        Ok(())
    }

    /// Handles an event at the source of that token. Returns the client whose task waits for it.
    pub(super) fn on_event(&mut self, token: u64, readable: bool, ended: bool) -> Option<u64> {
        let readiness = &**self.places.get(token & !SOURCE)?;
        if readable {
            readiness.is_readable.store(true, Ordering::Relaxed);
        }
        if ended {
            readiness.has_ended.store(true, Ordering::Relaxed);
        }
        Some(readiness.waits.load(Ordering::Acquire)).filter(|client| *client != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    use super::{SOURCE, Source, Sources};
    use crate::front::sys::{Epoll, Event, event_buffer};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        (one, listener.accept().expect("accept").0)
    }

    fn worker(number: usize) -> (Arc<Epoll>, Sources) {
        let epoll = Arc::new(Epoll::new().expect("epoll"));
        let sources = Sources::new(number, &epoll);
        (epoll, sources)
    }

    /// The next event other than that there is room again.
    fn next(epoll: &Epoll) -> Option<Event> {
        let mut happened = Vec::new();
        loop {
            epoll.wait(&mut event_buffer(4), &mut happened, Some(Duration::from_secs(5))).expect("wait");
            let event = happened.pop()?;
            if event.readable || event.ended {
                return Some(event);
            }
        }
    }

    fn on(sources: &mut Sources, event: Event) -> Option<u64> {
        sources.on_event(event.token, event.readable, event.ended)
    }

    #[test]
    fn event_of_source_runs_the_task_that_waits_and_no_other() {
        let (epoll, mut sources) = worker(0);
        let (near, mut far) = pair();
        let source = Source::new(near);
        // Bytes from before the registration are reported too.
        far.write_all(b"x").expect("write");
        sources.watch(&source, 7).expect("watch");
        let event = next(&epoll).expect("an event");
        assert_ne!(event.token & SOURCE, 0);
        assert_eq!(on(&mut sources, event), Some(7));

        source.release();
        far.write_all(b"y").expect("write");
        let event = next(&epoll).expect("an event");
        assert_eq!(on(&mut sources, event), None);

        // Another task takes it; its end is reported once and remembered.
        sources.watch(&source, 8).expect("watch");
        drop(far);
        let event = next(&epoll).expect("an event");
        assert!(event.ended && event.readable);
        assert_eq!(on(&mut sources, event), Some(8));
        source.drained(false);
        assert!(source.is_readable(), "behind a short read stands the end");
        source.drained(true);
        assert!(!source.is_readable());
    }

    #[test]
    fn late_event_meets_no_other_source_in_its_place() {
        let (epoll, mut sources) = worker(0);
        let (near, mut far) = pair();
        let source = Source::new(near);
        far.write_all(b"x").expect("write");
        sources.watch(&source, 7).expect("watch");
        let late = next(&epoll).expect("an event").token;
        drop(source);
        let (near, _far) = pair();
        let other = Source::new(near);
        other.begin_request();
        sources.watch(&other, 8).expect("watch");
        assert_eq!(sources.places.iter().count(), 1, "the place is used again");
        assert_eq!(sources.on_event(late, true, true), None);
        assert!(!other.is_readable(), "the event was another's");
    }

    #[test]
    fn source_that_another_worker_takes_reports_there_alone() {
        let ((one, mut first), (other, mut second)) = (worker(0), worker(1));
        let (near, mut far) = pair();
        let source = Source::new(near);
        first.watch(&source, 7).expect("watch");
        assert_eq!(source.worker(), Some(0));
        source.release();
        source.begin_request();
        far.write_all(b"x").expect("write");
        let late = next(&one).expect("an event");
        second.watch(&source, 8).expect("watch");
        assert_eq!(source.worker(), Some(1));
        // Earlier bytes are reported to the new worker.
        let event = next(&other).expect("an event");
        assert_eq!(on(&mut second, event), Some(8));
        first.places.free_left(|_| {});
        assert_eq!(on(&mut first, late), None);
        far.write_all(b"y").expect("write");
        assert!(next(&other).is_some());
        let mut happened = Vec::new();
        one.wait(&mut event_buffer(4), &mut happened, Some(Duration::ZERO)).expect("wait");
        assert!(happened.is_empty(), "{happened:?}");
    }
}
