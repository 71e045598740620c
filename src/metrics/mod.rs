//! Metrics: one table of families, counters without locks, and their text form. Gauges live elsewhere: the
//! caller of [`Metrics::render`] passes their readings.

mod exposition;
mod series;
mod totals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{MAX_LABELLED_MODEL, MAX_LABELLED_MODELS, MAX_SERIES};
use series::Series;
pub use totals::{ByProvider, Totals, quantile};

/// A family of metrics; its row is in [`FAMILIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Relayed requests.
    Requests,
    /// Their duration.
    Duration,
    /// Time to the first byte of the response, seconds.
    FirstByte,
    Attempts,
    /// Tokens used, as reported by the provider.
    Tokens,
    /// Tokens used, estimated where the provider reports none.
    EstimatedTokens,
    /// Relayed requests in flight.
    InFlight,
    /// Open client connections.
    Clients,
    /// `worker_clients`, labelled worker.
    WorkerClients,
    /// Worker threads.
    Workers,
    /// Requests that wait for a permit.
    QueueLength,
    ProviderHealthy,
    ResponseBytes,
    /// Errors of the proxy itself.
    Rejected,
    ConfigReloads,
    /// Lost log lines.
    LogLinesDropped,
    MemoryHeld,
    /// Upper bound of [`Metric::MemoryHeld`].
    MemoryLimit,
    BuildInfo,
}

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Read at scrape time.
    Gauge,
    /// Counts durations by [`BUCKETS`].
    Histogram,
}

#[derive(Debug)]
pub struct Family {
    /// Name in the code.
    pub metric: Metric,
    /// Name in the exposition.
    pub name: &'static str,
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Help text, one line.
    pub help: &'static str,
}

const fn family(
    metric: Metric,
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { metric, name, kind, labels, help }
}

/// Every metric, in the order of [`Metric`]. A new metric is a new row.
pub static FAMILIES: [Family; 19] = [
    family(
        Metric::Requests,
        "ai_proxy_requests_total",
        Kind::Counter,
        &["provider", "model", "status"],
        "Relayed requests by provider (of the last attempt), model and the status sent to the client (499: the client left).",
    ),
    family(
        Metric::Duration,
        "ai_proxy_request_duration_seconds",
        Kind::Histogram,
        &["provider", "stream"],
        "Time from the complete request head to the end of the response.",
    ),
    family(
        Metric::FirstByte,
        "ai_proxy_time_to_first_byte_seconds",
        Kind::Histogram,
        &["provider"],
        "Time from the complete request head to the first byte of the response.",
    ),
    family(
        Metric::Attempts,
        "ai_proxy_upstream_attempts_total",
        Kind::Counter,
        &["provider", "result"],
        "Attempts at providers by result.",
    ),
    family(
        Metric::Tokens,
        "ai_proxy_tokens_total",
        Kind::Counter,
        &["provider", "model", "token", "kind"],
        "Tokens used as reported by providers, by client token and kind (prompt, completion).",
    ),
    family(
        Metric::EstimatedTokens,
        "ai_proxy_tokens_estimated_total",
        Kind::Counter,
        &["provider", "model", "token", "kind"],
        "Tokens used without a provider's report, estimated from the bytes of request and response.",
    ),
    family(
        Metric::InFlight,
        "ai_proxy_requests_in_flight",
        Kind::Gauge,
        &[],
        "Relayed requests in flight, including running streams.",
    ),
    family(Metric::Clients, "ai_proxy_clients", Kind::Gauge, &[], "Open client connections."),
    family(
        Metric::WorkerClients,
        "ai_proxy_worker_clients",
        Kind::Gauge,
        &["worker"],
        "Open client connections of each worker.",
    ),
    family(
        Metric::Workers,
        "ai_proxy_workers",
        Kind::Gauge,
        &["state"],
        "Permits for requests handled at once, busy and idle (max_connections in all).",
    ),
    family(
        Metric::QueueLength,
        "ai_proxy_queue_length",
        Kind::Gauge,
        &[],
        "Complete requests that wait for a permit.",
    ),
    family(
        Metric::ProviderHealthy,
        "ai_proxy_provider_healthy",
        Kind::Gauge,
        &["provider"],
        "1 if a provider's last health check succeeded, else 0.",
    ),
    family(
        Metric::ResponseBytes,
        "ai_proxy_response_bytes_total",
        Kind::Counter,
        &["provider"],
        "Bytes of response bodies sent to clients.",
    ),
    family(
        Metric::Rejected,
        "ai_proxy_rejected_total",
        Kind::Counter,
        &["reason"],
        "Requests that ended with an error of the proxy itself, by reason (client_gone: the client left the queue).",
    ),
    family(
        Metric::ConfigReloads,
        "ai_proxy_config_reloads_total",
        Kind::Counter,
        &["result"],
        "Reloads of the configuration.",
    ),
    family(
        Metric::LogLinesDropped,
        "ai_proxy_log_lines_dropped_total",
        Kind::Counter,
        &[],
        "Log lines that were lost because the log could not take them in time.",
    ),
    family(
        Metric::MemoryHeld,
        "ai_proxy_memory_held_bytes",
        Kind::Gauge,
        &[],
        "Bytes of the memory budget that requests and responses hold.",
    ),
    family(
        Metric::MemoryLimit,
        "ai_proxy_memory_limit_bytes",
        Kind::Gauge,
        &[],
        "Bytes of the memory budget for all requests and responses together.",
    ),
    family(
        Metric::BuildInfo,
        "ai_proxy_build_info",
        Kind::Gauge,
        &["version"],
        "Always 1; the label is the version.",
    ),
];

/// Upper bounds of histogram buckets: from a cached embedding to a long chain of thought.
pub static BUCKETS: [Duration; 15] = [
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// Label of values that get no label of their own.
pub const OTHER: &str = "other";

/// All counters of the process. A reload leaves them alone.
#[derive(Debug)]
pub struct Metrics {
    stores: [Store; FAMILIES.len()],
    /// Provider and model, where the provider has accepted the model at least once.
    accepted: Series<()>,
    in_flight: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Store {
    Counter(Series<AtomicU64>),
    Histogram(Series<Histogram>),
    Gauge,
}

/// Durations per bucket.
#[derive(Debug, Default)]
struct Histogram {
    /// Durations above the previous bound of [`BUCKETS`] and up to this one; the last counts those above all
    /// bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// Value of a gauge, or of a counter kept elsewhere.
#[derive(Debug)]
pub struct Reading<'a> {
    pub metric: Metric,
    /// Label values in the order of its row.
    pub labels: &'a [&'a str],
    pub value: u64,
}

/// A relayed request in flight, until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicU64>);

impl Default for Metrics {
    fn default() -> Self {
        let store = |family: &Family| match family.kind {
            Kind::Counter => Store::Counter(Series::new(MAX_SERIES)),
            Kind::Histogram => Store::Histogram(Series::new(MAX_SERIES)),
            Kind::Gauge => Store::Gauge,
        };
        Self {
            stores: FAMILIES.each_ref().map(store),
            accepted: Series::new(MAX_LABELLED_MODELS),
            in_flight: Arc::default(),
        }
    }
}

impl Metrics {
    /// Adds to a counter; `labels` are values in the order of its row.
    pub fn add(&self, metric: Metric, labels: &[&str], count: u64) {
        debug_assert_eq!(labels.len(), FAMILIES[metric as usize].labels.len());
        if let Store::Counter(series) = &self.stores[metric as usize] {
            series.at(labels).fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds a duration to a histogram; `labels` are values in the order of its row.
    pub fn observe(&self, metric: Metric, labels: &[&str], time: Duration) {
        debug_assert_eq!(labels.len(), FAMILIES[metric as usize].labels.len());
        if let Store::Histogram(series) = &self.stores[metric as usize] {
            let histogram = series.at(labels);
            let bucket = BUCKETS.partition_point(|bound| *bound < time);
            histogram.counts[bucket].fetch_add(1, Ordering::Relaxed);
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            histogram.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Counts an error of the proxy itself.
    pub fn reject(&self, reason: &str) {
        self.add(Metric::Rejected, &[reason], 1);
    }

    /// The label of a provider's model: its id if the provider has accepted it (`taken`), it is a valid label
    /// and there are not too many; else [`OTHER`]. A model that a client makes up never becomes a label.
    pub fn model_label<'a>(&self, provider: &str, model: &'a str, taken: bool) -> &'a str {
        let labels = [provider, model];
        let is_known = || self.accepted.get(&labels).is_some();
        let is_label =
            || !model.is_empty() && model.len() <= MAX_LABELLED_MODEL && !model.contains(char::is_control);
        if is_known() {
            return model;
        }
        if taken && is_label() {
            self.accepted.at(&labels);
            if is_known() {
                return model;
            }
        }
        OTHER
    }

    /// Counts a relayed request as in flight until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// Relayed requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// All metrics as text (Prometheus text exposition format 0.0.4), including these readings.
    pub fn render(&self, readings: &[Reading<'_>]) -> String {
        let mut text = String::new();
        for (family, store) in FAMILIES.iter().zip(&self.stores) {
            exposition::head(&mut text, family);
            match store {
                Store::Counter(series) => exposition::counters(&mut text, family, series),
                Store::Histogram(series) => exposition::histograms(&mut text, family, series),
                Store::Gauge => {}
            }
            let readings = readings.iter().filter(|reading| reading.metric == family.metric);
            readings.for_each(|reading| exposition::reading(&mut text, family, reading));
        }
        text
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, FAMILIES, Kind, Metric, Metrics, Reading};
    use crate::limits::MAX_LABELLED_MODELS;

    #[test]
    fn each_metric_finds_its_own_row() {
        for (index, family) in FAMILIES.iter().enumerate() {
            assert_eq!(family.metric as usize, index, "{}", family.name);
            assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{}", family.help);
        }
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn the_text_is_what_the_format_asks_for() {
        let metrics = Metrics::default();
        metrics.add(Metric::Requests, &["b", "m", "200"], 2);
        metrics.add(Metric::Requests, &["a", "x\\\"\ny", "200"], 1);
        metrics.observe(Metric::FirstByte, &["a"], Duration::from_millis(10));
        metrics.observe(Metric::FirstByte, &["a"], Duration::from_micros(10_001));
        metrics.observe(Metric::FirstByte, &["a"], Duration::from_secs(1000));
        let _one = metrics.enter();
        let text = metrics.render(&[
            Reading { metric: Metric::Workers, labels: &["busy"], value: 3 },
            Reading { metric: Metric::InFlight, labels: &[], value: metrics.in_flight() },
        ]);
        for line in [
            "# TYPE ai_proxy_requests_total counter\n\
             ai_proxy_requests_total{provider=\"a\",model=\"x\\\\\\\"\\ny\",status=\"200\"} 1\n\
             ai_proxy_requests_total{provider=\"b\",model=\"m\",status=\"200\"} 2\n#",
            "ai_proxy_time_to_first_byte_seconds_bucket{provider=\"a\",le=\"0.01\"} 1\n",
            "ai_proxy_time_to_first_byte_seconds_bucket{provider=\"a\",le=\"0.025\"} 2\n",
            "ai_proxy_time_to_first_byte_seconds_bucket{provider=\"a\",le=\"2.5\"} 2\n",
            "ai_proxy_time_to_first_byte_seconds_bucket{provider=\"a\",le=\"+Inf\"} 3\n",
            "ai_proxy_time_to_first_byte_seconds_sum{provider=\"a\"} 1000.020001\n",
            "ai_proxy_time_to_first_byte_seconds_count{provider=\"a\"} 3\n",
            "ai_proxy_workers{state=\"busy\"} 3\n",
            "ai_proxy_requests_in_flight 1\n",
            "# HELP ai_proxy_clients Open client connections.\n# TYPE ai_proxy_clients gauge\n#",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn only_a_model_that_was_taken_is_a_label_and_not_more_than_there_is_room_for() {
        let metrics = Metrics::default();
        let label = |provider, model: &str| metrics.model_label(provider, model, false) == model;
        let take = |model: &str| metrics.model_label("p", model, true) == model;
        assert!(!label("p", "m"));
        assert!(take("m") && !take("a\nb") && !take("") && !take(&"x".repeat(300)));
        assert!(label("p", "m"));
        assert!(!label("q", "m"), "another provider's model");
        assert!(!label("p", "a\nb"));
        for number in 0..2 * MAX_LABELLED_MODELS {
            take(&number.to_string());
        }
        let labelled = (0..2 * MAX_LABELLED_MODELS).map(|number| number.to_string());
        assert_eq!(labelled.filter(|model| label("p", model)).count(), MAX_LABELLED_MODELS - 1);
    }
}
