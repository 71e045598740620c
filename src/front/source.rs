//! Sockets that answers come from, as the poller watches them: each is registered once, and stays so while its connection
//! serves one answer after the other.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::places::{Places, Slot};
use super::sys::Epoll;

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

/// What is known of a source.
#[derive(Debug)]
struct Watch {
    /// The token of the client whose answer waits for it, or [`NOBODY`].
    waits: AtomicU64,
    /// It has told of its end, which it does but once.
    ended: AtomicBool,
}

/// A source in the poller's table.
#[derive(Debug)]
struct Registered {
    watch: Arc<Watch>,
    _slot: Slot,
}

impl Source {
    /// A socket that no answer waits for yet.
    pub fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream, registered: OnceLock::new() })
    }

    /// No answer waits for it any more: what happens on it is nobody's. Has to be called before another may use it.
    pub fn release(&self) {
        if let Some(registered) = self.registered.get() {
            registered.watch.waits.store(NOBODY, Ordering::Release);
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

/// The sources that are registered.
pub struct Sources(Places<Arc<Watch>>);

impl Sources {
    /// None yet.
    pub(super) fn new() -> Self {
        // There are no more of them than requests in hand and idle connections, which have their bounds.
        Self(Places::new(usize::MAX))
    }

    /// Has the answer to `client` told of what happens at `source` from now on, and of how it is now if it was never watched
    /// before; whether its end was told of already.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(super) fn watch(&mut self, epoll: &Epoll, source: &Source, client: u64) -> io::Result<bool> {
        if let Some(registered) = source.registered.get() {
            registered.watch.waits.store(client, Ordering::Release);
            return Ok(registered.watch.ended.load(Ordering::Acquire));
        }
        self.0.free_left(|_| {});
        let watch = Arc::new(Watch { waits: AtomicU64::new(client), ended: AtomicBool::new(false) });
        let slot = self.0.take(Arc::clone(&watch)).ok_or(io::ErrorKind::OutOfMemory)?;
        epoll.watch_input(source, slot.token | SOURCE)?;
        // The poller alone registers, so it was not set meanwhile.
        drop(source.registered.set(Registered { watch, _slot: slot }));
        Ok(false)
    }

    /// The source of that token has something to tell, perhaps its end: the client whose answer waits for it.
    pub(super) fn told(&mut self, token: u64, ended: bool) -> Option<u64> {
        let Watch { waits, ended: has_ended } = &**self.0.get(token & !SOURCE)?;
        if ended {
            has_ended.store(true, Ordering::Release);
        }
        Some(waits.load(Ordering::Acquire)).filter(|client| *client != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::{SOURCE, Source, Sources};
    use crate::front::sys::{Epoll, Event, event_buffer};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        (one, listener.accept().expect("accept").0)
    }

    fn next(epoll: &Epoll) -> Option<Event> {
        let mut happened = Vec::new();
        epoll.wait(&mut event_buffer(4), &mut happened, Some(Duration::from_secs(5))).expect("wait");
        happened.pop()
    }

    #[test]
    fn what_happens_is_told_to_whoever_waits_and_to_nobody_else() {
        let (epoll, mut sources) = (Epoll::new().expect("epoll"), Sources::new());
        let (near, mut far) = pair();
        let source = Source::new(near);
        // What came before it was watched is told of too.
        far.write_all(b"x").expect("write");
        assert!(!sources.watch(&epoll, &source, 7).expect("watch"));
        let event = next(&epoll).expect("told");
        assert_ne!(event.token & SOURCE, 0);
        assert_eq!(sources.told(event.token, event.ended), Some(7));

        source.release();
        far.write_all(b"y").expect("write");
        let event = next(&epoll).expect("told");
        assert_eq!(sources.told(event.token, event.ended), None);

        // Another answer has it; its end is told once, and known from then on.
        assert!(!sources.watch(&epoll, &source, 8).expect("watch"));
        drop(far);
        let event = next(&epoll).expect("told");
        assert!(event.ended && event.readable);
        assert_eq!(sources.told(event.token, event.ended), Some(8));
        source.release();
        assert!(sources.watch(&epoll, &source, 9).expect("watch"), "its end was told of");
    }

    #[test]
    fn a_late_event_meets_no_other_source_in_its_place() {
        let (epoll, mut sources) = (Epoll::new().expect("epoll"), Sources::new());
        let (near, mut far) = pair();
        let source = Source::new(near);
        far.write_all(b"x").expect("write");
        sources.watch(&epoll, &source, 7).expect("watch");
        let late = next(&epoll).expect("told").token;
        drop(source);
        let (near, _far) = pair();
        let other = Source::new(near);
        sources.watch(&epoll, &other, 8).expect("watch");
        assert_eq!(sources.0.iter().count(), 1, "the place is used again");
        assert_eq!(sources.told(late, true), None);
        assert!(!sources.watch(&epoll, &other, 8).expect("watch"), "the end was another's");
    }
}
