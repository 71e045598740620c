//! Sockets of providers, as workers watch them: each is registered with one worker, and stays so while its connection serves one
//! request of that worker after the other. What is known of a socket's readiness is kept here and nowhere else.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::places::{Places, Slot};
use super::sys::Epoll;

/// Marks the token of a source.
pub const SOURCE: u64 = 1 << 62;
/// No task waits for it.
const NOBODY: u64 = u64::MAX;

/// A provider's socket.
#[derive(Debug)]
pub struct Source {
    socket: Socket,
    readiness: Arc<Readiness>,
    registered: Mutex<Option<Registered>>,
    /// Bytes that came on it, and how many of them had come when the client last got some.
    received: AtomicU64,
    delivered: AtomicU64,
    /// Bytes of a request have still to leave.
    is_unsent: AtomicBool,
}

/// Where a provider's bytes come from.
#[derive(Debug)]
enum Socket {
    System(TcpStream),
    /// A unit test, which has a transport of its own.
    #[cfg(test)]
    Memory,
}

/// What is known of a socket that reports each change once. One thread at a time uses it: the atomics order nothing.
#[derive(Debug)]
struct Readiness {
    /// The token of the client whose task waits for it, or [`NOBODY`].
    waits: AtomicU64,
    /// A read may find something.
    is_readable: AtomicBool,
    /// The peer has ended its side, which is reported once.
    has_ended: AtomicBool,
    /// Nothing is read for now, whatever is there.
    is_held: AtomicBool,
}

/// Where a source is registered.
#[derive(Debug)]
struct Registered {
    worker: usize,
    epoll: Arc<Epoll>,
    _slot: Slot,
}

impl Source {
    /// A socket that no task waits for yet.
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
        })
    }

    /// A request begins: what there was to read has been read, and what comes from now on is reported.
    pub fn begin_request(&self) {
        self.readiness.is_readable.store(false, Ordering::Relaxed);
        self.received.store(0, Ordering::Relaxed);
        self.delivered.store(0, Ordering::Relaxed);
    }

    /// The worker that watches it, if one does.
    pub fn worker(&self) -> Option<usize> {
        self.registered().as_ref().map(|registered| registered.worker)
    }

    fn registered(&self) -> MutexGuard<'_, Option<Registered>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No task waits for it any more: what happens on it is nobody's. Has to be called before another may use it.
    pub fn release(&self) {
        self.readiness.waits.store(NOBODY, Ordering::Release);
    }

    /// Whether a read may find something.
    pub fn is_readable(&self) -> bool {
        self.readiness.is_readable.load(Ordering::Relaxed) && !self.readiness.is_held.load(Ordering::Relaxed)
    }

    /// There is something to read; `ended`: and the peer's end after it.
    pub fn set_ready(&self, ended: bool) {
        self.readiness.is_readable.store(true, Ordering::Relaxed);
        if ended {
            self.readiness.has_ended.store(true, Ordering::Relaxed);
        }
    }

    /// A read found less than it had room for. That was all, unless the peer's end comes after it, which a short read does not show;
    /// `certainly`: the read found nothing.
    pub fn drained(&self, certainly: bool) {
        if certainly || !self.readiness.has_ended.load(Ordering::Relaxed) {
            self.readiness.is_readable.store(false, Ordering::Relaxed);
        }
    }

    /// Keeps reads from happening, or lets them happen again.
    pub fn hold_reads(&self, held: bool) {
        self.readiness.is_held.store(held, Ordering::Relaxed);
    }

    /// Bytes came.
    pub fn receive(&self, count: usize) {
        self.received.store(self.received() + count as u64, Ordering::Relaxed);
    }

    /// Bytes that came since the request began, those of TLS included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The client got something of what came.
    pub fn deliver(&self) {
        self.delivered.store(self.received(), Ordering::Relaxed);
    }

    /// Bytes that came since the client last got some.
    pub fn undelivered(&self) -> u64 {
        self.received() - self.delivered.load(Ordering::Relaxed)
    }

    /// Whether bytes of a request have still to leave.
    pub fn is_unsent(&self) -> bool {
        self.is_unsent.load(Ordering::Relaxed)
    }

    /// Notes whether bytes of a request have still to leave.
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

/// The sources that are registered with one worker.
pub struct Sources {
    worker: usize,
    epoll: Arc<Epoll>,
    places: Places<Arc<Readiness>>,
}

impl Sources {
    /// None yet, of that worker.
    pub(super) fn new(worker: usize, epoll: &Arc<Epoll>) -> Self {
        // There are no more of them than requests in hand and idle connections, which have their bounds.
        Self { worker, epoll: Arc::clone(epoll), places: Places::new(usize::MAX) }
    }

    /// Has the task for `client` run whenever something happens at `source` from now on.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(super) fn watch(&mut self, source: &Source, client: u64) -> io::Result<()> {
        source.readiness.waits.store(client, Ordering::Release);
        let mut registered = source.registered();
        if registered.as_ref().is_some_and(|registered| registered.worker == self.worker) {
            return Ok(());
        }
        // It was another worker's, whose late events find no task of that place.
        if let Some(Registered { epoll, .. }) = registered.take() {
            epoll.remove(source)?;
        }
        self.places.free_left(|_| {});
        let slot = self.places.take(Arc::clone(&source.readiness)).ok_or(io::ErrorKind::OutOfMemory)?;
        // What has come already is reported too.
        self.epoll.watch(source, slot.token | SOURCE)?;
        *registered = Some(Registered { worker: self.worker, epoll: Arc::clone(&self.epoll), _slot: slot });
        Ok(())
    }

    /// Something happened at the source of that token: the client whose task waits for it.
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

    /// The next event; that there is room again is none.
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
        // What came before it was watched is reported too.
        far.write_all(b"x").expect("write");
        sources.watch(&source, 7).expect("watch");
        let event = next(&epoll).expect("an event");
        assert_ne!(event.token & SOURCE, 0);
        assert_eq!(on(&mut sources, event), Some(7));

        source.release();
        far.write_all(b"y").expect("write");
        let event = next(&epoll).expect("an event");
        assert_eq!(on(&mut sources, event), None);

        // Another task has it; its end is reported once, and known from then on.
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
        // What has come is reported where it is wanted now.
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
