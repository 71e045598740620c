//! The time limits of a provider.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::front::{Load, Want, wait_for_peer};
use crate::limits::{CHECK_TIMEOUT, CONNECT_TIMEOUT};

/// How long a request may take; the first limit to pass counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeouts {
    /// End of the whole response.
    pub total: Option<Instant>,
    /// Without a byte from the provider, so long.
    pub idle: Option<Duration>,
    /// Longest time without a byte from the provider while another attempt may follow: until the response is accepted
    /// ([`Timer::take_time`]), or the client has had its first byte.
    pub first_byte: Option<Duration>,
}

impl Timeouts {
    /// Without a byte from the provider, so long.
    pub fn idle(time: Duration) -> Self {
        Self { idle: Some(time), ..Self::default() }
    }
}

/// The time limits of a request, and since when its provider has been silent.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    timeouts: Timeouts,
    quiet_since: Instant,
}

impl Timer {
    /// Starts the time of the provider.
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self { timeouts, quiet_since: now }
    }

    /// Changes how long the rest of the request may take.
    pub fn set(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// Gives the request its whole time, because no other attempt follows.
    pub fn take_time(&mut self) {
        self.timeouts.first_byte = None;
    }

    /// Restarts the provider's silence, after a sign of life, or after the client has taken the output: the time that the client needs is
    /// no silence of the provider.
    pub fn restart(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// When its time ends. `is_committed`: the client has had its first byte.
    pub fn deadline(&self, is_committed: bool) -> Instant {
        let Timeouts { total, idle, first_byte } = self.timeouts;
        let silence = idle.into_iter().chain(first_byte.filter(|_| !is_committed)).min();
        let silent = silence.and_then(|time| self.quiet_since.checked_add(time));
        let deadline = total.into_iter().chain(silent).min();
        // No request may wait for ever.
        deadline.unwrap_or_else(|| self.quiet_since + CHECK_TIMEOUT)
    }
}

/// How long a helper may wait for a connection.
#[derive(Debug)]
pub struct Limit {
    begun: Instant,
    deadline: Instant,
    is_abandoned: AtomicBool,
    /// The load of the helpers, if it runs on one of them.
    load: Option<Arc<Load>>,
}

/// Interval at which a wait checks whether its request is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Limit {
    /// A limit at that time.
    pub fn until(deadline: Instant) -> Arc<Self> {
        Self::new(deadline, None)
    }

    /// A limit at that time, on a helper.
    pub fn of_helper(deadline: Instant, load: Arc<Load>) -> Arc<Self> {
        Self::new(deadline, Some(load))
    }

    fn new(deadline: Instant, load: Option<Arc<Load>>) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), deadline, is_abandoned: AtomicBool::new(false), load })
    }

    /// The request has left. Its connection has [`CONNECT_TIMEOUT`] in all from now on, and none where other jobs wait for a
    /// helper.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether no request waits for the connection any more.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// When the wait has to end.
    pub fn end(&self) -> Instant {
        match self.is_abandoned() {
            true if self.load.as_ref().is_some_and(|load| load.is_over()) => self.begun,
            true => self.deadline.min(self.begun + CONNECT_TIMEOUT),
            false => self.deadline,
        }
    }

    /// Waits until `peer` is ready for `want`; `Ok(false)` at `until`.
    ///
    /// # Errors
    /// `TimedOut`: the limit has passed. Errors of `poll`.
    pub fn wait(&self, peer: BorrowedFd<'_>, want: Want, until: Option<Instant>) -> io::Result<bool> {
        loop {
            let (now, end) = (Instant::now(), self.end());
            // Checked even where the peer is always ready, so that a flood cannot outlast the limit.
            if now >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let look_again = Some(now + LOOK_AGAIN);
            let next = [look_again, until].into_iter().flatten().fold(end, Instant::min);
            if wait_for_peer(peer, want, next)? {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
    }
}
