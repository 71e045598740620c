//! What each provider's calls came to since the start, read from the counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{BUCKETS, Metric, Metrics, OTHER, Store};

/// Durations counted by [`BUCKETS`]; the last number counts those above all bounds.
pub type Buckets = [u64; BUCKETS.len() + 1];

/// What calls came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    /// Those that ended with a 5xx status.
    pub failures: u64,
    /// Tokens, as reported or estimated.
    pub tokens: u64,
    pub durations: Buckets,
    /// Times to the first byte.
    pub first_bytes: Buckets,
}

/// Totals by provider.
#[derive(Debug, Default)]
pub struct ByProvider(Vec<(Box<str>, Totals)>);

impl Totals {
    /// The growth since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    fn with(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        let combined =
            |ours: &Buckets, theirs: &Buckets| std::array::from_fn(|i| combine(ours[i], theirs[i]));
        Self {
            requests: combine(self.requests, other.requests),
            failures: combine(self.failures, other.failures),
            tokens: combine(self.tokens, other.tokens),
            durations: combined(&self.durations, &other.durations),
            first_bytes: combined(&self.first_bytes, &other.first_bytes),
        }
    }
}

impl ByProvider {
    /// The totals of a provider; zeros where it has had no call.
    pub fn get(&self, provider: &str) -> Totals {
        let found = self.0.iter().find(|(name, _)| **name == *provider);
        found.map(|(_, totals)| totals.clone()).unwrap_or_default()
    }

    /// All providers together.
    pub fn sum(&self) -> Totals {
        self.0.iter().fold(Totals::default(), |sum, (_, totals)| sum.with(totals, u64::saturating_add))
    }

    /// The growth of each provider's since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().map(|(name, now)| (name.clone(), now.since(&earlier.get(name)))).collect())
    }

    fn at(&mut self, provider: &str) -> &mut Totals {
        let place = self.0.iter().rposition(|(name, _)| **name == *provider).unwrap_or_else(|| {
            self.0.push((provider.into(), Totals::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

impl Metrics {
    /// The totals of each provider. What found no series of its own counts for [`OTHER`].
    pub fn totals(&self) -> ByProvider {
        let mut all = ByProvider::default();
        for metric in [Metric::Requests, Metric::Tokens, Metric::EstimatedTokens] {
            let Store::Counter(series) = &self.stores[metric as usize] else { continue };
            let rest = (&[][..], series.rest());
            for (labels, count) in series.all().into_iter().chain([rest]) {
                let totals = all.at(labels.first().map_or(OTHER, |name| name));
                let count = count.load(Ordering::Relaxed);
                if metric == Metric::Requests {
                    totals.requests += count;
                    // Its labels are provider, model, status.
                    totals.failures +=
                        if labels.get(2).is_some_and(|it| it.starts_with('5')) { count } else { 0 };
                } else {
                    totals.tokens += count;
                }
            }
        }
        for metric in [Metric::Duration, Metric::FirstByte] {
            let Store::Histogram(series) = &self.stores[metric as usize] else { continue };
            for (labels, histogram) in series.all() {
                let totals = all.at(&labels[0]);
                let is_duration = metric == Metric::Duration;
                add(
                    if is_duration { &mut totals.durations } else { &mut totals.first_bytes },
                    &histogram.counts,
                );
            }
        }
        all
    }
}

fn add(totals: &mut Buckets, counts: &[AtomicU64]) {
    for (total, count) in totals.iter_mut().zip(counts) {
        *total += count.load(Ordering::Relaxed);
    }
}

/// The time within which `percent` of the durations are, as Prometheus estimates it: those of a bucket lie evenly between its bounds, and
/// those above all bounds at the last one. `None`: there are none.
pub fn quantile(counts: &Buckets, percent: u64) -> Option<Duration> {
    let rank = (counts.iter().sum::<u64>() * percent).div_ceil(100).max(1);
    let (mut below, mut low) = (0, Duration::ZERO);
    for (place, count) in counts.iter().enumerate() {
        let Some(bound) = BUCKETS.get(place) else { return (*count > 0).then_some(low) };
        if below + count >= rank {
            return Some(low + (*bound - low).mul_f64((rank - below) as f64 / *count as f64));
        }
        (below, low) = (below + count, *bound);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Metrics, quantile};
    use crate::metrics::Metric;

    #[test]
    fn totals_of_each_provider_and_of_all() {
        let metrics = Metrics::default();
        let call = |provider, status, millis| {
            metrics.add(Metric::Requests, &[provider, "m", status], 1);
            metrics.observe(Metric::Duration, &[provider, "false"], Duration::from_millis(millis));
        };
        call("a", "200", 5);
        call("a", "503", 20);
        call("b", "404", 400_000);
        metrics.add(Metric::Tokens, &["a", "m", "t", "prompt"], 3);
        metrics.add(Metric::EstimatedTokens, &["a", "m", "t", "completion"], 4);
        let earlier = metrics.totals();
        let (a, b, none) = (earlier.get("a"), earlier.get("b"), earlier.get("c"));
        assert_eq!((a.requests, a.failures, a.tokens), (2, 1, 7));
        assert_eq!((a.durations[..3].to_vec(), b.durations[15]), (vec![1, 1, 0], 1));
        assert_eq!((b.requests, b.failures, none.requests), (1, 0, 0));
        assert_eq!((earlier.sum().requests, earlier.sum().failures), (3, 1));
        call("a", "500", 5);
        call("c", "200", 5);
        let grown = metrics.totals().since(&earlier);
        assert_eq!((grown.get("a").requests, grown.get("a").failures, grown.get("a").tokens), (1, 1, 0));
        assert_eq!((grown.get("b").requests, grown.get("c").requests, grown.sum().requests), (0, 1, 2));
    }

    #[test]
    fn quantile_lies_within_its_bucket() {
        let counts = |pairs: &[(usize, u64)]| {
            let mut counts = [0; 16];
            pairs.iter().for_each(|(place, count)| counts[*place] = *count);
            counts
        };
        let millis = |pairs: &[(usize, u64)], percent| {
            quantile(&counts(pairs), percent).map(|time| time.as_micros() as f64 / 1000.0)
        };
        assert_eq!(millis(&[], 50), None);
        assert_eq!(millis(&[(0, 1)], 50), Some(10.0));
        assert_eq!(millis(&[(0, 2)], 50), Some(5.0));
        assert_eq!(millis(&[(3, 100)], 95), Some(97.5));
        assert_eq!(millis(&[(0, 90), (3, 10)], 50), Some(5.555));
        assert_eq!(millis(&[(0, 90), (3, 10)], 95), Some(75.0));
        assert_eq!(millis(&[(15, 1)], 50), Some(300_000.0));
    }
}
