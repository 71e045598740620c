//! Lines that wait for the log's thread. The queue is bounded: a blocked log loses lines instead of taking
//! memory, and no logging thread waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Destination;
use crate::limits::{LOG_GATHER, LOG_PIECE, MAX_LOG_BYTES, MAX_LOG_LINES};

/// Work for the log's thread.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Line(String),
    /// Write to this destination from now on.
    Open(Destination),
    /// Report that this many lines are missing here.
    Dropped(u64),
}

/// The entries, oldest first.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    /// Lines lost since the start, including those that could not be written.
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    lines: usize,
    bytes: usize,
    /// Lines dropped since the last entry.
    dropped: u64,
    /// Set when a bound is met, until half of the queue is free again: so there is one gap, not one after
    /// every other line.
    is_full: bool,
    /// The log's thread waits for an entry.
    is_waiting: bool,
    /// The log's thread is busy with an entry.
    is_writing: bool,
}

impl Queue {
    /// Appends a line, or drops and counts it. Never waits.
    pub fn push(&self, line: String) {
        let mut state = self.lock();
        state.is_full |= state.lines >= MAX_LOG_LINES || state.bytes + line.len() > MAX_LOG_BYTES;
        if state.is_full {
            state.dropped += 1;
            self.lose(1);
        } else {
            if let Some(gap) = state.take_gap() {
                state.entries.push_back(gap);
            }
            state.lines += 1;
            state.bytes += line.len();
            state.entries.push_back(Entry::Line(line));
        }
        self.wake(state);
    }

    /// Appends a change of destination; there is always room. It replaces a change at the end of the queue,
    /// and one that waits for a full queue.
    pub fn open(&self, destination: Destination) {
        let mut state = self.lock();
        if state.is_full {
            state.entries.retain(|entry| !matches!(entry, Entry::Open(_)));
        } else if matches!(state.entries.back(), Some(Entry::Open(_))) {
            state.entries.pop_back();
        }
        state.entries.push_back(Entry::Open(destination));
        self.wake(state);
    }

    /// Takes the oldest entry; waits for one, asleep for [`LOG_GATHER`] first: lines that come meanwhile wake nobody, which costs
    /// more than writing them.
    pub fn pop(&self) -> Entry {
        let mut state = self.lock();
        let mut has_slept = false;
        loop {
            if let Some(entry) = state.pop() {
                state.is_writing = true;
                return entry;
            }
            state.is_writing = false;
            self.emptied.notify_all();
            if !has_slept {
                drop(state);
                std::thread::sleep(LOG_GATHER);
                has_slept = true;
                state = self.lock();
                continue;
            }
            state.is_waiting = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_waiting = false;
        }
    }

    /// Appends the next lines to `lines`, as far as all are written at once; how many.
    pub fn pop_lines(&self, lines: &mut String) -> u64 {
        let mut state = self.lock();
        let mut count = 0;
        while let Some(Entry::Line(next)) = state.entries.front() {
            if lines.len() + next.len() > LOG_PIECE {
                break;
            }
            lines.push_str(next);
            state.pop();
            count += 1;
        }
        count
    }

    /// Whether a change of destination waits.
    pub fn has_open(&self) -> bool {
        self.lock().entries.iter().any(|entry| matches!(entry, Entry::Open(_)))
    }

    /// Waits until everything is written, at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let is_busy = |state: &mut State| !state.is_done();
        // With or without success, the process ends next.
        let _ = self.emptied.wait_timeout_while(self.lock(), timeout, is_busy);
    }

    /// Counts lines that will never be written.
    pub fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A system call, omitted while the thread is busy.
    fn wake(&self, state: MutexGuard<'_, State>) {
        let is_waiting = state.is_waiting;
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front().or_else(|| self.take_gap())?;
        if let Entry::Line(line) = &entry {
            self.lines -= 1;
            self.bytes -= line.len();
        }
        self.is_full &= self.lines > MAX_LOG_LINES / 2 || self.bytes > MAX_LOG_BYTES / 2;
        Some(entry)
    }

    fn take_gap(&mut self) -> Option<Entry> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped > 0).then_some(Entry::Dropped(dropped))
    }

    fn is_done(&self) -> bool {
        self.entries.is_empty() && self.dropped == 0 && !self.is_writing
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Destination, Entry, Queue};
    use crate::limits::{LOG_PIECE, MAX_LOG_BYTES, MAX_LOG_LINES};

    fn line(text: &str) -> Entry {
        Entry::Line(text.to_owned())
    }

    #[test]
    fn full_queue_drops_lines_and_says_where_how_many_are_missing() {
        let queue = Queue::default();
        (0..MAX_LOG_LINES + 7).for_each(|number| queue.push(number.to_string()));
        assert_eq!(queue.lost(), 7);
        for number in 0..MAX_LOG_LINES / 2 {
            assert_eq!(queue.pop(), line(&number.to_string()));
        }
        // There is room again.
        queue.push("later".into());
        for number in MAX_LOG_LINES / 2..MAX_LOG_LINES {
            assert_eq!(queue.pop(), line(&number.to_string()));
        }
        assert_eq!((queue.pop(), queue.pop(), queue.lost()), (Entry::Dropped(7), line("later"), 7));
    }

    #[test]
    fn gap_at_the_end_is_reported_without_a_further_line() {
        let queue = Queue::default();
        queue.push("x".repeat(MAX_LOG_BYTES));
        queue.push("x".into());
        assert_eq!((queue.pop(), queue.pop()), (line(&"x".repeat(MAX_LOG_BYTES)), Entry::Dropped(1)));
        // A single line over the bound does not drop the next one.
        queue.push("x".repeat(MAX_LOG_BYTES + 1));
        assert_eq!(queue.pop(), Entry::Dropped(1));
        queue.push("y".into());
        assert_eq!(queue.pop(), line("y"));
    }

    #[test]
    fn lines_are_joined_up_to_a_piece_and_to_what_is_no_line() {
        let queue = Queue::default();
        let destination = || Destination { path: Some("new".into()), ..Destination::default() };
        let large = "x".repeat(LOG_PIECE - 3);
        ["a", "bc", &large, "d", "e"].into_iter().for_each(|text| queue.push(text.to_owned()));
        queue.open(destination());
        queue.push("f".to_owned());
        let joined = || match queue.pop() {
            Entry::Line(mut lines) => {
                let more = queue.pop_lines(&mut lines);
                (lines, more)
            }
            other => (format!("{other:?}"), 0),
        };
        assert_eq!(joined(), (format!("abc{large}"), 2));
        assert_eq!(joined(), ("de".to_owned(), 1));
        assert_eq!(joined(), (format!("{:?}", Entry::Open(destination())), 0));
        assert_eq!(joined(), ("f".to_owned(), 0));
        let state = queue.lock();
        assert_eq!((state.lines, state.bytes), (0, 0));
    }

    #[test]
    fn storm_of_reloads_adds_one_entry() {
        let queue = Queue::default();
        let destination = |name: &str| Destination { path: Some(name.into()), ..Destination::default() };
        for _ in 0..MAX_LOG_LINES + 100 {
            queue.open(destination("old"));
            queue.push("reloaded".into());
        }
        for _ in 0..1000 {
            queue.open(destination("new"));
            queue.push("reloaded".into());
        }
        let state = queue.lock();
        let opens = state.entries.iter().filter(|entry| matches!(entry, Entry::Open(_)));
        assert_eq!((opens.count(), state.entries.len()), (1, MAX_LOG_LINES + 1));
        assert_eq!(state.entries.back(), Some(&Entry::Open(destination("new"))));
    }

    #[test]
    fn flush_waits_for_the_entry_at_work_and_no_longer_than_it_may() {
        let queue = Queue::default();
        queue.flush(Duration::from_secs(60));
        queue.push("x".into());
        queue.pop();
        queue.flush(Duration::from_millis(1));
        assert!(!queue.lock().is_done(), "not done with it");
    }
}
