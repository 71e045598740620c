//! The last hour of all calls together, and the last minutes of each provider: what an incident looks like to somebody who opens the
//! status page after it has begun. A request costs nothing for it: the monitor reads the counters now and then.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{HISTORY_INTERVAL, HISTORY_POINTS, RECENT_SNAPSHOTS, SNAPSHOT_POINTS};
use crate::metrics::{ByProvider, Metrics, Totals, quantile};

/// What one [`HISTORY_INTERVAL`] brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// Relayed requests that ended.
    pub requests: u64,
    /// Those that ended with a 5xx status.
    pub failures: u64,
    pub tokens: u64,
    /// Half of the requests took no longer; `None`: no request ended.
    pub p50: Option<Duration>,
    /// The same of 95 of 100 requests.
    pub p95: Option<Duration>,
    /// Requests in flight at its end.
    pub in_flight: u64,
}

#[derive(Debug, Default)]
pub struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When the next point is due; `None` before the first [`History::note`].
    due: Option<Instant>,
    /// The counters at the last point.
    last: Totals,
    /// Oldest first, at most [`HISTORY_POINTS`].
    points: VecDeque<Point>,
    /// The counters of each provider, every [`SNAPSHOT_POINTS`] points, oldest first; at most [`RECENT_SNAPSHOTS`].
    snapshots: VecDeque<ByProvider>,
    /// Points since the last snapshot.
    since_snapshot: usize,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the point that is due, if one is. A late call adds those that it missed too, so that each stands for the same time.
    pub fn note(&self, metrics: &Metrics, now: Instant) {
        let mut inner = self.lock();
        if inner.due.is_none() {
            // The start.
            inner.snapshots.push_back(ByProvider::default());
        }
        let mut due = *inner.due.get_or_insert(now + HISTORY_INTERVAL);
        if now < due {
            return;
        }
        let (totals, in_flight) = (metrics.totals(), metrics.in_flight());
        let sum = totals.sum();
        let mut grown = sum.since(&inner.last);
        inner.last = sum;
        while due <= now {
            inner.push(Point::of(&grown, in_flight));
            (grown, due) = (Totals::default(), due + HISTORY_INTERVAL);
        }
        inner.due = Some(due);
        if inner.since_snapshot >= SNAPSHOT_POINTS {
            inner.since_snapshot = 0;
            if inner.snapshots.len() == RECENT_SNAPSHOTS {
                inner.snapshots.pop_front();
            }
            inner.snapshots.push_back(totals);
        }
    }

    /// The points of the last hour, oldest first.
    pub fn points(&self) -> Vec<Point> {
        self.lock().points.iter().copied().collect()
    }

    /// What each provider's calls came to in the last minutes: since the oldest snapshot, else since the start.
    pub fn recent(&self, metrics: &Metrics) -> ByProvider {
        let now = metrics.totals();
        match self.lock().snapshots.front() {
            Some(earlier) => now.since(earlier),
            None => now,
        }
    }
}

impl Inner {
    fn push(&mut self, point: Point) {
        if self.points.len() == HISTORY_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.since_snapshot += 1;
    }
}

impl Point {
    fn of(grown: &Totals, in_flight: u64) -> Self {
        Self {
            requests: grown.requests,
            failures: grown.failures,
            tokens: grown.tokens,
            p50: quantile(&grown.durations, 50),
            p95: quantile(&grown.durations, 95),
            in_flight,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{History, Point};
    use crate::limits::{HISTORY_INTERVAL, HISTORY_POINTS, RECENT_SNAPSHOTS, SNAPSHOT_POINTS};
    use crate::metrics::{Metric, Metrics};

    fn call(metrics: &Metrics, provider: &str, status: &str) {
        metrics.add(Metric::Requests, &[provider, "m", status], 1);
        metrics.observe(Metric::Duration, &[provider, "true"], Duration::from_millis(1));
    }

    #[test]
    fn each_interval_becomes_one_point_with_what_it_brought() {
        let (history, metrics, start) = (History::default(), Metrics::default(), Instant::now());
        history.note(&metrics, start);
        call(&metrics, "a", "200");
        call(&metrics, "b", "502");
        history.note(&metrics, start + HISTORY_INTERVAL - Duration::from_millis(1));
        assert_eq!(history.points(), []);
        history.note(&metrics, start + HISTORY_INTERVAL);
        let time = Some(Duration::from_millis(10));
        let first = Point {
            requests: 2,
            failures: 1,
            p50: Some(Duration::from_millis(5)),
            p95: time,
            ..Point::default()
        };
        assert_eq!(history.points(), [first]);
        call(&metrics, "a", "200");
        let _one = metrics.enter();
        history.note(&metrics, start + HISTORY_INTERVAL * 3);
        let late = Point { requests: 1, p50: time, p95: time, in_flight: 1, ..Point::default() };
        assert_eq!(history.points(), [first, late, Point { in_flight: 1, ..Point::default() }]);
    }

    #[test]
    fn hour_and_snapshots_are_bounded() {
        let (history, metrics, start) = (History::default(), Metrics::default(), Instant::now());
        history.note(&metrics, start);
        call(&metrics, "a", "200");
        assert_eq!(history.recent(&metrics).get("a").requests, 1, "since the start");
        let mut now = start;
        for _ in 1..SNAPSHOT_POINTS * RECENT_SNAPSHOTS {
            now += HISTORY_INTERVAL;
            history.note(&metrics, now);
        }
        assert_eq!(history.recent(&metrics).get("a").requests, 1, "still since the start");
        for _ in 0..SNAPSHOT_POINTS {
            now += HISTORY_INTERVAL;
            history.note(&metrics, now);
        }
        assert_eq!(history.recent(&metrics).get("a").requests, 0, "earlier than the oldest snapshot");
        call(&metrics, "a", "500");
        assert_eq!(history.recent(&metrics).get("a").failures, 1);
        history.note(&metrics, now + HISTORY_INTERVAL * u32::try_from(2 * HISTORY_POINTS).expect("a number"));
        assert_eq!(history.points().len(), HISTORY_POINTS);
        assert_eq!(history.lock().snapshots.len(), RECENT_SNAPSHOTS);
        assert_eq!(history.recent(&metrics).sum().requests, 1);
    }
}
