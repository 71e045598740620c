//! Readiness of many sockets and precise waits, for the upstream and the load generator.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

/// Most events handed out by one wait.
const EVENTS_PER_WAIT: usize = 512;

/// A level-triggered epoll set; a source is known by the number it was added with.
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `source` for input. Closing it ends the watch.
    pub fn add(&self, source: impl AsFd, id: u64) -> io::Result<()> {
        epoll::add(&self.epoll, source, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Watches `source` for room to write as well, or stops watching for it.
    pub fn watch_output(&self, source: impl AsFd, id: u64, is_wanted: bool) -> io::Result<()> {
        let output = if is_wanted { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        epoll::modify(&self.epoll, source, epoll::EventData::new_u64(id), epoll::EventFlags::IN | output)?;
        Ok(())
    }

    /// Puts the ids of the sources that are ready into `ready`; empty after `timeout`.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
            self.sleep(timeout)?;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
        let timeout = timeout.is_some().then_some(&now);
        match epoll::wait(&self.epoll, &mut events, timeout) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| event.data.u64())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Waits for any source. `epoll::wait` rounds its timeout up to milliseconds, too coarse for
    /// chunks 2 ms apart; `poll` on the epoll descriptor takes nanoseconds.
    fn sleep(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
