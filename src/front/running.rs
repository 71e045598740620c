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

/// Bound sockets before they serve.
#[derive(Debug)]
pub struct Bound(Vec<Listener>);

/// Time to log the death of a vital thread before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Interval of checks of the workers' pulse.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub struct Running {
    stats: Arc<Stats>,
    drain: Box<dyn Fn() + Send + Sync>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Closed once all workers have ended.
    ended: mpsc::Receiver<()>,
}

/// Shows whether a front is alive.
pub struct Pulse {
    stats: Arc<Stats>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Pulse {
    /// Whether every worker, woken now, completes a turn within `timeout`.
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
    /// Binds everything that `listen` names.
    ///
    /// # Errors
    /// As for [`Listen`]; the message names the address.
    pub fn new(listen: &Listen) -> io::Result<Self> {
        Listener::bind(listen).map(Self)
    }

    /// Takes over sockets that already listen.
    ///
    /// # Errors
    /// A socket is no listening stream socket.
    pub fn inherited(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        sockets.into_iter().map(Listener::inherited).collect::<io::Result<_>>().map(Self)
    }

    /// The name of each bound address for people: `http://127.0.0.1:8080`.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Listener::name).collect()
    }

    /// Starts to serve, counting into `stats`.
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

/// Starts a thread that the front cannot work without. If it dies the process ends, so that its supervisor
/// starts a new one.
fn start_vital<S: Service>(
    name: &str,
    service: Arc<S>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().stack_size(THREAD_STACK).name(name.to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            // The process ends even if the log does not take the notice.
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
    /// A handle that shows other threads whether the front is alive.
    pub fn pulse(&self) -> Pulse {
        Pulse { stats: Arc::clone(&self.stats), wake: Arc::clone(&self.wake) }
    }

    /// Stops accepting and lets requests in flight finish, for at most `timeout`. Returns how many
    /// connections were left.
    pub fn drain(&self, timeout: Duration) -> usize {
        (self.drain)();
        match self.ended.recv_timeout(timeout) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => 0,
            Err(mpsc::RecvTimeoutError::Timeout) => self.stats.clients().max(1),
        }
    }
}
