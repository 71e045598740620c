//! The series of a family: a table that only grows, so that a lookup takes no lock and each value is an
//! atomic. Two threads contend only when both add the same new series, for the time of one pointer store.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::sort::sort_by;
use crate::limits::SERIES_BUCKETS;

/// Values by labels.
#[derive(Debug)]
pub struct Series<V> {
    buckets: Box<[Link<V>]>,
    count: AtomicUsize,
    max: usize,
    /// Counts whatever comes when the table is full.
    rest: V,
}

type Link<V> = OnceLock<Box<Node<V>>>;

#[derive(Debug)]
struct Node<V> {
    labels: Box<[Box<str>]>,
    value: V,
    next: Link<V>,
}

impl<V: Default> Series<V> {
    /// An empty table for up to `max` series.
    pub fn new(max: usize) -> Self {
        let buckets = (0..SERIES_BUCKETS).map(|_| OnceLock::new()).collect();
        Self { buckets, count: AtomicUsize::new(0), max, rest: V::default() }
    }

    /// The value of the series with these labels, if it exists.
    pub fn get(&self, labels: &[&str]) -> Option<&V> {
        let mut link = self.bucket(labels);
        while let Some(node) = link.get() {
            if node.is(labels) {
                return Some(&node.value);
            }
            link = &node.next;
        }
        None
    }

    /// The value of the series with these labels. A new series is added; without room for it the value is
    /// that of the rest.
    pub fn at(&self, labels: &[&str]) -> &V {
        if let Some(value) = self.get(labels) {
            return value;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return &self.rest;
        }
        let labels_there = labels.iter().map(|label| (*label).into()).collect();
        let mut new = Box::new(Node { labels: labels_there, value: V::default(), next: OnceLock::new() });
        let mut link = self.bucket(labels);
        loop {
            // If another thread was first, its series may be this one.
            let ours = link.set(new).err();
            let Some(node) = link.get() else { return &self.rest };
            match ours {
                None => return &node.value,
                Some(_) if node.is(labels) => {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return &node.value;
                }
                Some(refused) => new = refused,
            }
            link = &node.next;
        }
    }

    /// All series, sorted by their labels.
    pub fn all(&self) -> Vec<(&[Box<str>], &V)> {
        let mut all = Vec::new();
        for mut link in &self.buckets {
            while let Some(node) = link.get() {
                all.push((&*node.labels, &node.value));
                link = &node.next;
            }
        }
        sort_by(&mut all, |a, b| a.0.cmp(b.0));
        all
    }

    /// The value of all series without room of their own.
    pub fn rest(&self) -> &V {
        &self.rest
    }

    /// Labels are bounded, so no client can fill one bucket.
    fn bucket(&self, labels: &[&str]) -> &Link<V> {
        let hash = labels.iter().fold(0, |hash, label| hashed(hash, label.as_bytes()));
        &self.buckets[(hash >> 32) as usize % SERIES_BUCKETS]
    }
}

/// A hash of a label and of those before it, eight bytes at a time.
fn hashed(before: u64, label: &[u8]) -> u64 {
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (mut hash, mut rest) = (before, label);
    while let Some((word, behind)) = rest.split_first_chunk() {
        (hash, rest) = (add(hash, u64::from_le_bytes(*word)), behind);
    }
    // The length makes the end of a label count.
    add(hash, rest.iter().fold(label.len() as u64, |word, byte| word << 8 | u64::from(*byte)))
}

impl<V> Node<V> {
    fn is(&self, labels: &[&str]) -> bool {
        self.labels.iter().map(|label| &**label).eq(labels.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Series;
    use crate::limits::SERIES_BUCKETS;

    #[test]
    fn threads_that_bring_the_same_new_series_lose_no_count() {
        let names: Vec<String> = (0..4 * SERIES_BUCKETS).map(|number| number.to_string()).collect();
        let series = Series::<AtomicU64>::new(names.len());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in &names {
                        series.at(&[name, "x"]).fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let (all, rest) = (series.all(), series.rest());
        let counted: u64 = all.iter().map(|(_, value)| value.load(Ordering::Relaxed)).sum();
        assert_eq!(
            all.len(),
            all.iter().map(|(labels, _)| labels).collect::<std::collections::HashSet<_>>().len()
        );
        assert_eq!(counted + rest.load(Ordering::Relaxed), 4 * names.len() as u64);
        assert!(all.is_sorted_by_key(|(labels, _)| *labels));
    }

    #[test]
    fn where_a_label_ends_matters() {
        let series = Series::<AtomicU64>::new(10);
        series.at(&["ab", "c"]).store(1, Ordering::Relaxed);
        assert!(series.get(&["a", "bc"]).is_none());
        assert!(series.get(&["ab"]).is_none());
        assert_eq!(series.get(&["ab", "c"]).map(|value| value.load(Ordering::Relaxed)), Some(1));
    }

    #[test]
    fn what_finds_no_room_is_counted_with_the_rest() {
        let series = Series::<AtomicU64>::new(2);
        for name in ["a", "b", "c", "d", "a"] {
            series.at(&[name]).fetch_add(1, Ordering::Relaxed);
        }
        let (all, rest) = (series.all(), series.rest());
        assert_eq!(all.len(), 2);
        assert_eq!(rest.load(Ordering::Relaxed), 2);
    }
}
