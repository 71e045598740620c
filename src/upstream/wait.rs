//! What a thread waits for while it talks to a provider: the provider, the client's leaving, the heartbeat, the clock.
//!
//! ureq's connectors call the [`super::transport`] with nothing but time limits, so what belongs to the call in hand
//! lies in a thread-local while it runs ([`Watched::during`]).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reply::SharedReply;
use crate::front::{Client, Source, Want, Woken, wait_for_peer};
use crate::limits::CHECK_TIMEOUT;

/// How long a call may take; whichever ends first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// To its last byte, by then.
    pub until: Option<Instant>,
    /// Without a byte from the provider, so long.
    pub silence: Option<Duration>,
    /// The same, while another attempt may still follow: until the answer is taken ([`take_time`]), or the client has had
    /// its first byte.
    pub haste: Option<Duration>,
}

impl Patience {
    /// To the last byte, by then.
    pub fn until(deadline: Instant) -> Self {
        Self { until: Some(deadline), ..Self::default() }
    }

    /// Without a byte from the provider, so long.
    pub fn silence(time: Duration) -> Self {
        Self { silence: Some(time), ..Self::default() }
    }
}

/// Why a wait was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The client went away, or does not take what it is sent.
    ClientGone,
    /// [`Patience`] ran out.
    TimedOut,
}

/// What is known of the call in hand.
struct Watch {
    patience: Patience,
    quiet_since: Instant,
    client: Option<Arc<Client>>,
    reply: Option<SharedReply>,
    facts: Facts,
    manner: Manner,
    /// The socket that it runs on.
    socket: Option<Arc<Source>>,
}

/// How the provider is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nothing is read: a request is sent, for which there is as much time as [`Patience`] allows.
    Send,
    /// Nothing is read, and of a request is sent what goes at once.
    SendAtOnce,
    /// For as long as [`Patience`] allows.
    Patient,
    /// Not at all: what is there is read, until a read finds less than it has room for.
    AtOnce,
    /// Not at all, to the end: the peer has ended the connection, which a short read does not show.
    ToTheEnd,
    /// There is nothing more for now.
    Drained,
}

/// What happened to the call so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// Why it was given up.
    pub stop: Option<Stop>,
    /// Bytes the provider sent on the connection, TLS ones included.
    pub received: u64,
    /// Nothing but HTTP runs on the connection: no TLS, no proxy.
    pub clear: bool,
    /// Bytes the provider sent since the caller last got some of them.
    pub undelivered: u64,
    /// A part of the request has still to leave.
    pub unsent: bool,
    /// Bytes of an answer came, TLS taken off.
    pub answered: bool,
    /// The connection ended, by TLS's own rules where there is TLS.
    pub ended_cleanly: bool,
}

impl Watch {
    fn deadline(&self) -> Instant {
        let Patience { until, silence, haste } = self.patience;
        let is_committed = || self.reply.as_ref().is_some_and(|reply| reply.lock().is_committed());
        let silence = silence.into_iter().chain(haste.filter(|_| !is_committed())).min();
        let silent = silence.and_then(|time| self.quiet_since.checked_add(time));
        let deadline = until.into_iter().chain(silent).min();
        // Nothing may wait for ever.
        deadline.unwrap_or_else(|| self.quiet_since + CHECK_TIMEOUT)
    }
}

impl Facts {
    /// Whether the provider has said nothing of an answer.
    pub fn is_unanswered(self) -> bool {
        // TLS says goodbye in bytes of its own.
        let silent = self.received == 0 || self.ended_cleanly;
        self.stop.is_none() && !self.answered && silent
    }
}

thread_local! {
    static WATCH: RefCell<Option<Box<Watch>>> = const { RefCell::new(None) };
}

/// A call and what is known of it; it lies with the thread while the transport runs for it.
pub struct Watched(Option<Box<Watch>>);

/// Takes the watch back from the thread, also on the way of a panic.
struct TakeBack<'a>(&'a mut Watched);

impl Watched {
    /// A call that begins now. `reply`: the client's side, where there is one. `facts`: what is known beforehand.
    pub fn new(patience: Patience, reply: Option<&SharedReply>, facts: Facts) -> Self {
        Self(Some(Box::new(Watch {
            patience,
            quiet_since: Instant::now(),
            client: reply.and_then(|reply| reply.lock().client()),
            reply: reply.cloned(),
            facts,
            manner: Manner::Patient,
            socket: None,
        })))
    }

    /// Lets the transport run for this call.
    pub fn during<T>(&mut self, run: impl FnOnce() -> T) -> T {
        WATCH.with_borrow_mut(|watch| std::mem::swap(watch, &mut self.0));
        let _back = TakeBack(self);
        run()
    }

    /// Changes how long the rest of the call may take.
    pub fn be_patient(&mut self, patience: Patience) {
        self.with(|watch| watch.patience = patience);
    }

    /// It may take the whole time it has: no other attempt is to follow.
    pub fn take_time(&mut self) {
        self.with(|watch| watch.patience.haste = None);
    }

    /// The provider is waited for again: the time that the client has needed to take what came is no silence of the
    /// provider's.
    pub fn listen(&mut self) {
        self.with(|watch| watch.quiet_since = Instant::now());
    }

    /// How the provider is waited for from now on.
    pub fn wait(&mut self, manner: Manner) {
        self.with(|watch| watch.manner = manner);
    }

    /// Its bytes are not waited for from now on. `ended`: the peer has ended the connection.
    pub fn wait_not(&mut self, ended: bool) {
        self.with(|watch| match (watch.manner, ended) {
            (Manner::Drained, _) => {}
            (_, true) => watch.manner = Manner::ToTheEnd,
            (_, false) => watch.manner = Manner::AtOnce,
        });
    }

    /// Whether all that came has been read.
    pub fn is_drained(&self) -> bool {
        self.0.as_ref().is_some_and(|watch| watch.manner == Manner::Drained)
    }

    /// Its socket has something to read again.
    pub fn woken(&mut self) {
        self.wait(Manner::AtOnce);
    }

    /// Notes what happened.
    pub fn note(&mut self, change: impl FnOnce(&mut Facts)) {
        self.with(|watch| change(&mut watch.facts));
    }

    /// Whether the client's answer has begun.
    pub fn is_committed(&self) -> bool {
        let reply = self.0.as_ref().and_then(|watch| watch.reply.as_ref());
        reply.is_some_and(|reply| reply.lock().is_committed())
    }

    /// The call has done with its socket, which may be another's from now on.
    pub fn done_with_socket(&mut self) {
        self.with(|watch| {
            if let Some(socket) = watch.socket.take() {
                socket.release();
            }
        });
    }

    /// What happened so far.
    pub fn facts(&self) -> Facts {
        self.0.as_ref().map(|watch| watch.facts).unwrap_or_default()
    }

    /// The caller has got what the provider has sent.
    pub fn delivered(&mut self) {
        self.with(|watch| watch.facts.undelivered = 0);
    }

    /// Whether its time is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|watch| now >= watch.deadline())
    }

    /// The socket that it runs on, once an answer was awaited.
    pub fn socket(&self) -> Option<Arc<Source>> {
        self.0.as_ref()?.socket.clone()
    }

    fn with(&mut self, change: impl FnOnce(&mut Watch)) {
        if let Some(watch) = &mut self.0 {
            change(watch);
        }
    }
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        WATCH.with_borrow_mut(|watch| std::mem::swap(watch, &mut self.0.0));
    }
}

/// What happened to the call in hand so far.
pub fn facts() -> Facts {
    WATCH.with_borrow(|watch| watch.as_ref().map(|watch| watch.facts).unwrap_or_default())
}

/// Lets the transport and the resolver note what happened.
pub fn note(change: impl FnOnce(&mut Facts)) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            change(&mut watch.facts);
        }
    });
}

/// The call in hand awaits an answer on this socket.
pub fn runs_on(socket: &Arc<Source>) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch.as_mut().filter(|watch| watch.socket.is_none()) {
            watch.socket = Some(Arc::clone(socket));
        }
    });
}

/// A read found nothing, or less than it had room for: with nothing to wait for, that was all.
pub fn drained(certainly: bool) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch.manner = match watch.manner {
                Manner::AtOnce => Manner::Drained,
                Manner::ToTheEnd if certainly => Manner::Drained,
                other => other,
            };
        }
    });
}

/// The provider sent bytes: a silence is over.
pub fn heard(bytes: usize) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch.quiet_since = Instant::now();
            watch.facts.received += bytes as u64;
            watch.facts.undelivered += bytes as u64;
        }
    });
}

/// Waits until `peer` can be read or written, sending heartbeats meanwhile; `limit` may end the wait earlier than
/// the call's own patience (`Ok(false)` then).
///
/// # Errors
/// An error when the call is given up; [`Facts::stop`] says why. `WouldBlock` where its [`Manner`] is not to wait. What
/// `poll` says.
pub fn for_peer(peer: BorrowedFd<'_>, want: Want, limit: Option<Instant>) -> io::Result<bool> {
    match manner() {
        Manner::Patient => {}
        Manner::Send if want != Want::Read => {}
        Manner::AtOnce | Manner::ToTheEnd if want == Want::Read => return Ok(true),
        _ => return Err(io::ErrorKind::WouldBlock.into()),
    }
    loop {
        let turn = Turn::take();
        // Also where the peer is always ready: a flood must not outlast the deadline.
        if Instant::now() >= turn.deadline {
            return Err(stop(Stop::TimedOut));
        }
        let until =
            [Some(turn.deadline), turn.beat, limit].into_iter().flatten().min().unwrap_or(turn.deadline);
        match wait_for_peer(peer, want, turn.client.as_deref().map(AsFd::as_fd), until)? {
            Woken::Ready => return Ok(true),
            Woken::ClientGone => return Err(stop(Stop::ClientGone)),
            Woken::Timeout => {}
        }
        if limit.is_some_and(|limit| Instant::now() >= limit) {
            return Ok(false);
        }
        beat()?;
    }
}

/// How the provider is waited for now.
pub fn manner() -> Manner {
    WATCH.with_borrow(|watch| watch.as_ref().map_or(Manner::Patient, |watch| watch.manner))
}

/// Whether the call is given up: for waits for something that has no descriptor, in short turns.
pub fn is_over() -> bool {
    let turn = Turn::take();
    if turn.client.is_some_and(|client| client.is_gone()) {
        stop(Stop::ClientGone);
        return true;
    }
    if Instant::now() >= turn.deadline {
        stop(Stop::TimedOut);
        return true;
    }
    beat().is_err()
}

/// One look at the watch.
struct Turn {
    deadline: Instant,
    beat: Option<Instant>,
    client: Option<Arc<Client>>,
}

impl Turn {
    fn take() -> Self {
        WATCH.with_borrow(|watch| match watch {
            Some(watch) => Self {
                deadline: watch.deadline(),
                beat: watch.reply.as_ref().and_then(|reply| reply.lock().next_beat()),
                client: watch.client.clone(),
            },
            // No call is set: nothing may wait for ever all the same.
            None => Self { deadline: Instant::now() + CHECK_TIMEOUT, beat: None, client: None },
        })
    }
}

/// Waits for that long, sending heartbeats; whether the call may go on then.
pub fn pause(reply: &SharedReply, time: Duration) -> bool {
    let end = Instant::now() + time;
    let patience = Patience::silence(time + Duration::from_secs(1));
    Watched::new(patience, Some(reply), Facts::default()).during(|| {
        while Instant::now() < end {
            std::thread::sleep(PAUSE_TURN.min(end.saturating_duration_since(Instant::now())));
            if is_over() {
                return false;
            }
        }
        true
    })
}

/// How often a pause sees to its client.
const PAUSE_TURN: Duration = Duration::from_millis(50);

fn beat() -> io::Result<()> {
    let reply = WATCH.with_borrow(|watch| watch.as_ref().and_then(|watch| watch.reply.clone()));
    match reply {
        Some(reply) if reply.lock().beat(Instant::now()).is_err() => Err(stop(Stop::ClientGone)),
        _ => Ok(()),
    }
}

fn stop(why: Stop) -> io::Error {
    note(|facts| facts.stop = Some(why));
    match why {
        Stop::ClientGone => io::Error::other("the client went away"),
        Stop::TimedOut => io::ErrorKind::TimedOut.into(),
    }
}
