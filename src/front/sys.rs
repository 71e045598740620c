//! The system calls of the front that std does not offer, each with its meaning here. Linux only; a port
//! changes this file alone.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

/// Events of a peer that left: it closed, half-closed or reset the connection. A half-closed client counts as
/// gone: until a write fails it looks like one that closed (nginx decides the same).
const GONE: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);

/// Reads available bytes without waiting. `Ok(None)`: none yet. `Ok(Some(0))`: the peer sends no more.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<Option<usize>> {
    received(|| recv(&socket, &mut *into, RecvFlags::DONTWAIT).map(|(count, _)| count))
}

/// Like [`receive`]; appends to `buffer`, which does not grow.
pub fn receive_behind(socket: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    received(|| recv(&socket, spare_capacity(buffer), RecvFlags::DONTWAIT).map(|(count, _)| count))
}

fn received(mut receive: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match receive() {
            Ok(count) => return Ok(Some(count)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes what the socket takes without waiting; returns 0 when it takes nothing now. Never raises SIGPIPE.
pub fn send_now(socket: impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let sent = match parts {
            [one] => rustix::net::send(&socket, one, flags),
            many => sendmsg(&socket, many, &mut SendAncillaryBuffer::default(), flags),
        };
        match sent {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Whether the peer closed, half-closed or reset the connection.
pub fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let mut wait = [PollFd::new(&socket, GONE)];
    matches!(poll(&mut wait, Some(&timespec(Duration::ZERO))), Ok(count) if count > 0)
}

/// What to wait for at a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Bytes from it.
    Read,
    /// Room for bytes to it.
    Write,
}

/// Waits until `peer` is ready as wanted or has failed; `false`: `deadline` has passed.
pub fn wait_for_peer(peer: BorrowedFd<'_>, want: Want, deadline: Instant) -> io::Result<bool> {
    let interest = match want {
        Want::Read => PollFlags::IN,
        Want::Write => PollFlags::OUT,
    };
    poll_until(&mut [PollFd::new(&peer, interest)], Some(deadline))
}

fn poll_until(wait: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(wait, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes from the peer.
    Read,
    /// Room in the peer's window.
    Write,
}

/// The epoll instance of one thread, which alone handles its events. Connections stay in it until they close
/// and report each change once; listeners and the wake-up report as long as they are readable.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Reports when `socket` becomes readable, has room again after it had none, and has ended.
    pub fn watch(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        self.insert(socket, token, CHANGES)
    }

    /// Adds a source that reports as long as it is readable.
    pub fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.insert(source, token, epoll::EventFlags::IN)
    }

    fn insert(&self, source: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, source, epoll::EventData::new_u64(token), flags)?)
    }

    /// Removes a source.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, source)?)
    }

    /// Waits for events, at most `timeout` (`None`: without end), and puts them into `happened`.
    pub fn wait(
        &self,
        events: &mut [epoll::Event],
        happened: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        happened.clear();
        let timeout = timeout.map(|timeout| timespec(timeout.min(MAX_SLEEP)));
        match epoll::wait(&self.0, &mut *events, timeout.as_ref()) {
            Ok(count) => {
                happened.extend(events[..count].iter().map(Event::of));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Old kernels limit a wait to 31 bits of milliseconds.
const MAX_SLEEP: Duration = Duration::from_secs(86_400);

/// Edge-triggered: each change at a socket once.
const CHANGES: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

/// An event at a socket.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Token of the socket.
    pub token: u64,
    /// There is something to read, even if only the end.
    pub readable: bool,
    /// The peer closed, half-closed or reset the connection.
    pub ended: bool,
}

impl Event {
    fn of(event: &epoll::Event) -> Self {
        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        // The structure is packed: its fields are copied, not borrowed.
        let (flags, data) = (event.flags, event.data);
        let ended = flags.intersects(ended);
        Self { token: data.u64(), readable: ended || flags.contains(epoll::EventFlags::IN), ended }
    }
}

/// A buffer for that many events.
pub fn event_buffer(count: usize) -> Vec<epoll::Event> {
    vec![epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; count]
}

/// Wakes a loop from another thread.
pub struct Waker(OwnedFd);

impl Waker {
    /// A new wake-up, to add to an [`Epoll`].
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes the loop; a pending wake-up stays pending.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then a wake-up is pending anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Clears the wake-up.
    pub fn clear(&self) {
        // Fails only when no wake-up is pending.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends our side of a connection, so that the peer reads the response to its end.
pub fn shut_write(socket: impl AsFd) {
    // Fails only when the peer has closed already, and then there is nothing to shut down.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}
