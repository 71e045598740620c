//! Deadlines of a worker's places: a heap with one entry per place.

use std::time::Instant;

/// Marks a place without an entry.
const NONE: u32 = u32::MAX;

/// Deadlines by place. A deadline that moves to a later time keeps its entry, which comes early and is then
/// set again. So there are never more entries than places, and moving a deadline with each event costs
/// nothing.
#[derive(Debug, Default)]
pub struct Timers {
    /// A binary heap, earliest first.
    heap: Vec<(Instant, u32)>,
    /// Position of each place's entry in the heap.
    entries: Vec<u32>,
}

impl Timers {
    /// Sets a deadline for this place.
    pub(super) fn arm(&mut self, place: u32, deadline: Instant) {
        let index = place as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, NONE);
        }
        match self.entries[index] {
            NONE => {
                self.heap.push((deadline, place));
                self.rise(self.heap.len() - 1);
            }
            at if self.heap[at as usize].0 <= deadline => {}
            at => {
                self.heap[at as usize].0 = deadline;
                self.rise(at as usize);
            }
        }
    }

    /// Whether this place has an entry.
    pub(super) fn is_armed(&self, place: u32) -> bool {
        self.entries.get(place as usize).is_some_and(|at| *at != NONE)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(deadline, _)| *deadline)
    }

    /// Removes the first entry that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (_, place) = *self.heap.first().filter(|(deadline, _)| *deadline <= now)?;
        self.heap.swap_remove(0);
        self.entries[place as usize] = NONE;
        self.sink();
        Some(place)
    }

    /// Moves the entry at `at` up to its position.
    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.heap[at].0 < self.heap[(at - 1) / 2].0 {
            self.heap.swap(at, (at - 1) / 2);
            self.note(at);
            at = (at - 1) / 2;
        }
        self.note(at);
    }

    /// Moves the first entry down to its position.
    fn sink(&mut self) {
        let mut at = 0;
        while at < self.heap.len() {
            let below = [2 * at + 1, 2 * at + 2].into_iter().filter(|below| *below < self.heap.len());
            let least = below.min_by_key(|below| self.heap[*below].0);
            let Some(least) = least.filter(|least| self.heap[*least].0 < self.heap[at].0) else { break };
            self.heap.swap(at, least);
            self.note(at);
            at = least;
        }
        if at < self.heap.len() {
            self.note(at);
        }
    }

    fn note(&mut self, at: usize) {
        let place = self.heap[at].1;
        // Places fit into half of a token.
        self.entries[place as usize] = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::Timers;

    #[test]
    fn timers_fire_in_order_with_one_entry_a_place_whatever_was_armed() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        let mut expected: BTreeMap<u32, Instant> = BTreeMap::new();
        let mut seed = 7u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for round in 0..20_000u64 {
            let now = begin + Duration::from_millis(round);
            let (place, deadline) = (random(50), now + Duration::from_millis(u64::from(random(300))));
            timers.arm(place, deadline);
            let earliest = expected.entry(place).or_insert(deadline);
            *earliest = deadline.min(*earliest);
            assert_eq!(timers.next(), expected.values().min().copied());
            let mut last = begin;
            while let Some(place) = timers.pop_due(now) {
                let due = expected.remove(&place).expect("it was armed");
                assert!(last <= due && due <= now, "in order, and not before");
                last = due;
            }
            assert!(expected.values().all(|deadline| *deadline > now), "none is late");
            assert_eq!(timers.heap.len(), expected.len());
        }
    }

    #[test]
    fn deadline_that_moves_to_a_later_time_sets_nothing_until_it_fires() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        timers.arm(3, at(5));
        timers.arm(3, at(9));
        assert_eq!(timers.next(), Some(at(5)));
        timers.arm(3, at(2));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(2)), Some(3));
        assert_eq!((timers.pop_due(at(9)), timers.next()), (None, None));
    }
}
