//! A front as a whole: bound, then running, then drained; and what its threads share.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::conn::Context;
use super::listener::Listener;
use super::poller::{LISTENERS, Poller, WAKER};
use super::sys::{Epoll, Waker};
use super::worker::{Outcome, Pool, panic_message};
use super::{Lane, Limits, Listen, Notice, Service, Settings};
use crate::limits::{CONTROL_THREADS, MAX_RETURNS, THREAD_STACK};

/// Bound sockets that do not serve yet.
#[derive(Debug)]
pub struct Bound(Vec<Listener>);

/// How long a front of which a vital thread has died may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Pause between two looks at the poller's pulse.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A front that serves.
pub struct Running {
    stats: Arc<Stats>,
    drain: Box<dyn Fn() + Send + Sync>,
    wake: Arc<dyn Fn() + Send + Sync>,
    ended: mpsc::Receiver<()>,
}

/// What a front counts.
#[derive(Debug, Default)]
pub struct Stats {
    pub(super) clients: AtomicUsize,
    /// Turns of the poller.
    pub(super) turns: AtomicU64,
    /// Requests that wait for their place.
    pub(super) queued: AtomicUsize,
    /// Requests in hand.
    pub(super) busy: AtomicUsize,
}

/// Tells whether a front is alive.
pub struct Pulse {
    stats: Arc<Stats>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Pulse {
    /// Whether the thread that all else depends on, woken now, comes round within `patience`.
    pub fn beats(&self, patience: Duration) -> bool {
        let before = self.stats.turns.load(Ordering::Relaxed);
        (self.wake)();
        let until = Instant::now() + patience;
        while self.stats.turns.load(Ordering::Relaxed) == before {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(LOOK_AGAIN.min(patience));
        }
        true
    }
}

impl Stats {
    /// Open client connections.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Requests in hand, from the time they have their place to the end of their answers.
    pub fn busy_workers(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Requests that wait for their place.
    pub fn queue_length(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// What the poller and the threads of the pools share.
pub struct Shared<S: Service> {
    pub(super) service: Arc<S>,
    pub(super) epoll: Epoll,
    pub(super) waker: Waker,
    workers: Pool<S::Ticket>,
    control: Pool<S::Ticket>,
    returns: Sender<Return<S::Ticket>>,
    /// Answers close their connections.
    pub(super) draining: Arc<AtomicBool>,
    /// The drain's grace is over: new requests are refused.
    pub(super) refusing: AtomicBool,
}

/// What came of a job, on its way back to the poller.
pub struct Return<T>(pub(super) Lane, pub(super) Outcome<T>);

impl Bound {
    /// Binds everything `listen` names.
    ///
    /// # Errors
    /// As [`Listen`] says; the message names the address.
    pub fn new(listen: &Listen) -> io::Result<Self> {
        Listener::bind(listen).map(Self)
    }

    /// Takes sockets that listen already.
    ///
    /// # Errors
    /// One of them is no listening stream socket.
    pub fn inherited(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        sockets.into_iter().map(Listener::inherited).collect::<io::Result<_>>().map(Self)
    }

    /// What a person calls each bound address: `http://127.0.0.1:8080`.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Listener::name).collect()
    }

    /// Begins to serve; `stats`: what it counts meanwhile.
    ///
    /// # Errors
    /// The system refuses a descriptor or the poller's thread.
    pub fn serve<S: Service>(
        self,
        service: Arc<S>,
        settings: Settings,
        stats: Arc<Stats>,
    ) -> io::Result<Running> {
        let (returns, returned) = bounded(MAX_RETURNS);
        let shared = Arc::new(Shared {
            service,
            epoll: Epoll::new()?,
            waker: Waker::new()?,
            workers: Pool::new(Lane::Worker, settings.workers),
            control: Pool::new(Lane::Control, CONTROL_THREADS),
            returns,
            draining: Arc::default(),
            refusing: AtomicBool::default(),
        });
        shared.epoll.add(&shared.waker, WAKER)?;
        for (index, listener) in self.0.iter().enumerate() {
            shared.epoll.add(listener, LISTENERS + index as u64)?;
        }
        shared.workers.start(&shared)?;
        shared.control.start(&shared)?;
        let (end, ended) = mpsc::sync_channel(1);
        let poller = Poller::new(Arc::clone(&shared), settings, self.0, returned, Arc::clone(&stats));
        start_vital("poller", Arc::clone(&shared.service), move || {
            poller.run();
            // Nobody waits for it where the process ends at once.
            let _ = end.send(());
        })?;
        let woken = Arc::clone(&shared);
        let wake = Arc::new(move || woken.waker.wake());
        let drain = move || {
            shared.draining.store(true, Ordering::SeqCst);
            shared.waker.wake();
        };
        Ok(Running { stats, drain: Box::new(drain), wake, ended })
    }
}

/// Starts a thread without which the process is deaf or mute: where it dies, better that the process ends and its
/// supervisor starts it anew.
fn start_vital<S: Service>(
    name: &str,
    service: Arc<S>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().stack_size(THREAD_STACK).name(name.to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            // Also where the log does not take the notice.
            let _ = thread::Builder::new().stack_size(THREAD_STACK).spawn(|| {
                thread::sleep(LAST_WORDS);
                std::process::abort();
            });
            service.notice(Notice::Panicked(panic_message(&*panic)));
            std::process::abort();
        }
    })?;
    Ok(())
}

impl Running {
    /// What tells, from another thread, whether it is alive.
    pub fn pulse(&self) -> Pulse {
        Pulse { stats: Arc::clone(&self.stats), wake: Arc::clone(&self.wake) }
    }

    /// Stops accepting, lets what is in flight finish, no longer than `patience`; how many connections were left.
    pub fn drain(&self, patience: Duration) -> usize {
        (self.drain)();
        match self.ended.recv_timeout(patience) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => 0,
            Err(mpsc::RecvTimeoutError::Timeout) => self.stats.clients().max(1),
        }
    }
}

impl<S: Service> Shared<S> {
    /// What surrounds a connection at that time.
    pub(super) fn context(&self, limits: Limits, now: Instant) -> Context<'_, S> {
        Context {
            service: &*self.service,
            limits,
            now,
            draining: self.is_draining(),
            refusing: self.refusing.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn pool(&self, lane: Lane) -> &Pool<S::Ticket> {
        match lane {
            Lane::Worker => &self.workers,
            Lane::Control => &self.control,
        }
    }

    /// Gives back what came of a job. Where the channel is full, waits until the poller has been woken to empty it; the poller
    /// itself waits for nobody.
    pub(super) fn give_back(&self, what: Return<S::Ticket>) {
        if let Err(TrySendError::Full(what)) = self.returns.try_send(what) {
            self.waker.wake();
            // Fails only when the poller is gone, and then the connection must end.
            drop(self.returns.send(what));
        }
        self.waker.wake();
    }
}
