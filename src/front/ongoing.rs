//! Answers that go on after their handler: one thread waits for the sources and clients of all of them, so a stream costs
//! neither a thread nor its stack.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::places::Place;
use super::response::{Client, Done};
use super::running::Shared;
use super::source::Source;
use super::sys::{self, Epoll, Event, Interest, Waker};
use super::table::{split, token};
use super::worker::panic_message;
use super::{Handled, Notice, Rest, Service};
use crate::limits::{ACCEPT_BACKOFF, EVENT_BATCH, ONGOING_SWEEP, RELAY_PIECE};

/// The token of the wake-up.
const WAKER: u64 = u64::MAX;
/// Marks the token of a client; without it, it is the source's.
const CLIENT: u64 = 1 << 31;

/// An answer whose bytes come from another socket, its source. Many are driven from one thread: none may make it wait.
pub trait Ongoing: Send {
    /// Where its bytes come from.
    fn source(&self) -> &Arc<Source>;

    /// Whom it goes to.
    fn client(&self) -> &Arc<Client>;

    /// Whether it waits for something else than its source: it can go on by what it has, or its client is behind.
    fn has_more(&self) -> bool;

    /// Goes on as far as that is possible at once. Also asked every [`ONGOING_SWEEP`], to see to its time limits.
    /// `scratch`: what it may read into.
    fn go_on(self: Box<Self>, ready: Ready, scratch: &mut [u8]) -> Turn;

    /// Ends it: its client has gone.
    fn give_up(self: Box<Self>) -> Done;
}

/// What happened since the last turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read. It is told once: what is not read is there the next time, told of or not.
    pub source: bool,
    /// The source ends behind what there is to read.
    pub ended: bool,
}

/// What an answer is to wait for.
pub enum Turn {
    /// Its source.
    Source(Box<dyn Ongoing>),
    /// Its client, which has to take what it was sent.
    Client(Box<dyn Ongoing>),
    /// Its next turn: it has had its share of this one.
    Again(Box<dyn Ongoing>),
    /// A worker.
    Waits(Rest),
    /// Nothing: it has ended.
    Done(Done),
}

/// The ongoing answers, and what wakes their thread.
pub struct Answers {
    epoll: Arc<Epoll>,
    waker: Waker,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    spots: Vec<Spot>,
    free: Vec<u32>,
}

/// A token names a spot and how often it was used, so that a late event meets nobody.
#[derive(Default)]
struct Spot {
    generation: u32,
    entry: Option<Entry>,
}

struct Entry {
    answer: Box<dyn Ongoing>,
    /// Held to its end: it counts among the requests that are handled at once.
    place: Place,
}

impl Answers {
    /// None yet.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub fn new() -> io::Result<Self> {
        let answers = Self { epoll: Arc::new(Epoll::new()?), waker: Waker::new()?, table: Mutex::default() };
        answers.epoll.add(&answers.waker, WAKER)?;
        Ok(answers)
    }

    /// Wakes their thread.
    pub fn wake(&self) {
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer over, or gives it back where the system refuses to watch it.
    fn enter(&self, entry: Entry) -> Result<(), Entry> {
        let mut table = self.lock();
        let is_first = table.is_empty();
        let token = table.reserve();
        // Under the lock: the answer is in its place before the first event finds it.
        if self.watch(token, &*entry.answer).is_err() {
            table.release(token);
            return Err(entry);
        }
        table.put(token, entry);
        drop(table);
        if is_first {
            // The thread waits without a time limit while there is none to watch over.
            self.wake();
        }
        Ok(())
    }

    fn watch(&self, token: u64, answer: &dyn Ongoing) -> io::Result<()> {
        // Its source may have nothing more to tell: room at its client gives it its first turn.
        let first = answer.has_more().then_some(Interest::Write);
        self.epoll.follow(&**answer.client(), token | CLIENT, first)?;
        let source = answer.source();
        self.epoll.follow(source, token, Some(Interest::Read))?;
        source.watch(&self.epoll);
        Ok(())
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.spots.len() == self.free.len()
    }

    fn reserve(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.spots.push(Spot::default());
            // There is no more of them than of places.
            (self.spots.len() - 1) as u32
        });
        token(index, self.spots[index as usize].generation)
    }

    fn spot(&mut self, token: u64) -> Option<&mut Spot> {
        let (index, generation) = split(token);
        self.spots.get_mut(index as usize).filter(|spot| spot.generation == generation)
    }

    fn take(&mut self, token: u64) -> Option<Entry> {
        self.spot(token)?.entry.take()
    }

    fn put(&mut self, token: u64, entry: Entry) {
        if let Some(spot) = self.spot(token) {
            spot.entry = Some(entry);
        }
    }

    fn release(&mut self, token: u64) {
        if let Some(spot) = self.spot(token) {
            spot.generation = spot.generation.wrapping_add(1);
            self.free.push(split(token).0);
        }
    }

    fn tokens(&self) -> Vec<u64> {
        let taken = self.spots.iter().zip(0..).filter(|(spot, _)| spot.entry.is_some());
        taken.map(|(spot, index)| token(index, spot.generation)).collect()
    }
}

/// Runs the rest of a handler, and what is left behind that.
pub fn handled_by(rest: Rest) -> Handled {
    let mut handled = rest();
    while let Handled::Waits(rest) = handled {
        handled = rest();
    }
    handled
}

/// Hands an answer to the thread that drives them, with the place of the request it answers.
pub fn hand_over<S: Service>(shared: &Shared<S>, answer: Box<dyn Ongoing>, place: Place) {
    shared.stats.ongoing.fetch_add(1, Ordering::Relaxed);
    if let Err(Entry { answer, place }) = shared.answers.enter(Entry { answer, place }) {
        end(shared, place, answer.give_up());
    }
}

/// The thread that drives them, as long as the process lives.
pub fn drive<S: Service>(shared: &Arc<Shared<S>>) {
    let answers = &shared.answers;
    let mut events = sys::event_buffer(EVENT_BATCH);
    let mut happened = Vec::with_capacity(EVENT_BATCH);
    let mut scratch = vec![0; RELAY_PIECE];
    let mut again = Vec::new();
    let mut next_sweep = Instant::now();
    loop {
        let patience = match (again.is_empty(), answers.lock().is_empty()) {
            (false, _) => Some(Duration::ZERO),
            (true, false) => Some(ONGOING_SWEEP),
            (true, true) => None,
        };
        if answers.epoll.wait(&mut events, &mut happened, patience).is_err() {
            // Nothing that a wait can recover from; pausing keeps it from spinning.
            thread::sleep(ACCEPT_BACKOFF);
        }
        // Once each, however often one had a turn: a flood must not have the more of them the longer it lasts.
        again.sort_unstable();
        again.dedup();
        let due = std::mem::take(&mut again);
        let mut turn = |token, what| {
            if step(shared, token, what, &mut scratch) {
                again.push(token);
            }
        };
        for token in due {
            turn(token, What::Ready(Ready::default()));
        }
        for Event { token, ended } in happened.drain(..) {
            match token {
                WAKER => answers.waker.clear(),
                token if token & CLIENT == 0 => turn(token, What::Ready(Ready { source: true, ended })),
                token if ended => turn(token & !CLIENT, What::Gone),
                token => turn(token & !CLIENT, What::Ready(Ready::default())),
            }
        }
        let now = Instant::now();
        if now >= next_sweep {
            next_sweep = now + ONGOING_SWEEP;
            let all = answers.lock().tokens();
            all.into_iter().for_each(|token| turn(token, What::Ready(Ready::default())));
        }
        shared.stats.ongoing_turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why an answer has its turn.
#[derive(Clone, Copy)]
enum What {
    Ready(Ready),
    /// Its client has gone.
    Gone,
}

/// One turn of one answer, behind the panic barrier; whether it is to have another at once.
fn step<S: Service>(shared: &Arc<Shared<S>>, token: u64, what: What, scratch: &mut [u8]) -> bool {
    let answers = &shared.answers;
    // In a statement of its own: the table must not be locked during the turn.
    let taken = answers.lock().take(token);
    let Some(Entry { answer, place }) = taken else { return false };
    let client = Arc::clone(answer.client());
    let turn = catch_unwind(AssertUnwindSafe(|| match what {
        What::Ready(ready) => answer.go_on(ready, scratch),
        What::Gone => Turn::Done(answer.give_up()),
    }));
    let (answer, again) = match turn {
        Ok(Turn::Source(answer)) => (answer, false),
        Ok(Turn::Again(answer)) => (answer, true),
        Ok(Turn::Client(answer)) => {
            // What cannot be watched is seen to by the sweep.
            let _ = answers.epoll.follow(&*client, token | CLIENT, Some(Interest::Write));
            (answer, false)
        }
        Ok(Turn::Waits(rest)) => {
            answers.lock().release(token);
            wait_elsewhere(shared, rest, place, client);
            return false;
        }
        Ok(Turn::Done(done)) => {
            answers.lock().release(token);
            end(shared, place, done);
            return false;
        }
        Err(panic) => {
            shared.service.notice(Notice::Panicked(panic_message(&*panic)));
            sys::shut_write(&*client);
            answers.lock().release(token);
            shared.stats.ongoing.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
    };
    answers.lock().put(token, Entry { answer, place });
    again
}

/// A handler has to wait: on a thread of its own, of which there are no more than places.
fn wait_elsewhere<S: Service>(shared: &Arc<Shared<S>>, rest: Rest, place: Place, client: Arc<Client>) {
    let others = Arc::clone(shared);
    let started = thread::Builder::new().name("worker".to_owned()).spawn(move || {
        match catch_unwind(AssertUnwindSafe(|| handled_by(rest))) {
            Ok(Handled::Ongoing(answer)) => {
                others.stats.ongoing.fetch_sub(1, Ordering::Relaxed);
                hand_over(&others, answer, place);
            }
            Ok(Handled::Done(done)) => end(&others, place, done),
            Ok(Handled::Waits(_)) => {}
            Err(panic) => {
                others.service.notice(Notice::Panicked(panic_message(&*panic)));
                sys::shut_write(&*client);
                others.stats.ongoing.fetch_sub(1, Ordering::Relaxed);
            }
        }
    });
    if let Err(error) = started {
        shared.service.notice(Notice::ThreadRefused(error));
        shared.stats.ongoing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer has ended: its place is free, its connection waits for what the client asks next.
fn end<S: Service>(shared: &Shared<S>, place: Place, done: Done) {
    drop(place);
    shared.stats.ongoing.fetch_sub(1, Ordering::Relaxed);
    let context = shared.context();
    let mut conn = Conn::behind(done, context.limits);
    if conn.wire.has_output() {
        // All wait for this thread: nobody's slowness may hold it.
        conn.wire.settle(&context.transit.answers, Duration::ZERO);
    }
    let step = conn.advance(&context);
    shared.go_on(conn, step);
}
