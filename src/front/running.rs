//! A front as a whole: bound, then running, then drained.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::helper::{Helpers, panic_message};
use super::inbox::{Inbox, Post};
use super::listener::Listener;
use super::permits::Permits;
use super::shared::Shared;
use super::stats::Stats;
use super::sys::Waker;
use super::worker::Worker;
use super::{Lane, Listen, Notice, Service, Settings};
use crate::limits::{CONTROL_THREADS, MAX_CONTROL_QUEUE, MAX_QUEUE, THREAD_STACK};

/// Bound sockets that do not serve yet.
#[derive(Debug)]
pub struct Bound(Vec<Listener>);

/// How long a front of which a vital thread has died may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Pause between two looks at the workers' pulse.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A front that serves.
pub struct Running {
    stats: Arc<Stats>,
    drain: Box<dyn Fn() + Send + Sync>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Closed when all workers have ended.
    ended: mpsc::Receiver<()>,
}

/// Tells whether a front is alive.
pub struct Pulse {
    stats: Arc<Stats>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Pulse {
    /// Whether every worker, woken now, comes round within `timeout`.
    pub fn beats(&self, timeout: Duration) -> bool {
        let turns = || self.stats.workers().iter().map(|worker| worker.turns.load(Ordering::Relaxed));
        let before: Vec<u64> = turns().collect();
        (self.wake)();
        let until = Instant::now() + timeout;
        while turns().zip(&before).any(|(now, before)| now == *before) {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(LOOK_AGAIN.min(timeout));
        }
        true
    }
}

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
    /// The system refuses a descriptor or a thread.
    pub fn serve<S: Service>(
        self,
        service: Arc<S>,
        settings: Settings,
        stats: Arc<Stats>,
    ) -> io::Result<Running> {
        stats.begin(settings.workers);
        let inboxes: Arc<[Inbox]> =
            (0..settings.workers).map(|_| Inbox::new()).collect::<io::Result<Vec<_>>>()?.into();
        let lanes = [
            (Lane::Worker, settings.max_connections, MAX_QUEUE),
            (Lane::Control, CONTROL_THREADS, MAX_CONTROL_QUEUE),
        ];
        let draining = Arc::default();
        let permits = |(lane, max, queue)| {
            let inboxes = Arc::clone(&inboxes);
            let grant = move |worker: usize, token, number| {
                inboxes[worker].post(Post::Granted(lane, token, number));
            };
            Permits::new(lane, (max, queue), Box::new(grant), &stats)
        };
        let shared = Arc::new(Shared {
            permits: lanes.map(permits),
            helpers: lanes.map(|(lane, max, _)| Helpers::new(lane, max, &service, &inboxes, &draining)),
            service,
            inboxes,
            door: Waker::new()?,
            stats: Arc::clone(&stats),
            draining,
            is_closed: AtomicBool::default(),
        });
        for lane in [Lane::Worker, Lane::Control] {
            shared.helpers(lane).start()?;
        }
        let (running, ended) = mpsc::sync_channel::<()>(0);
        for number in 0..settings.workers {
            let (worker, running) = (Worker::new(&shared, number)?, running.clone());
            start_vital("worker", Arc::clone(&shared.service), move || {
                worker.run();
                drop(running);
            })?;
        }
        let acceptor = Acceptor::new(&shared, settings.max_clients, self.0)?;
        start_vital("acceptor", Arc::clone(&shared.service), move || acceptor.run())?;
        let woken = Arc::clone(&shared);
        let wake = Arc::new(move || woken.wake());
        let drain = move || {
            shared.draining.store(true, Ordering::SeqCst);
            shared.wake();
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

    /// Stops accepting, lets what is in flight finish, no longer than `timeout`; how many connections were left.
    pub fn drain(&self, timeout: Duration) -> usize {
        (self.drain)();
        match self.ended.recv_timeout(timeout) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => 0,
            Err(mpsc::RecvTimeoutError::Timeout) => self.stats.clients().max(1),
        }
    }
}
