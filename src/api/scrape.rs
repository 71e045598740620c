//! `GET /metrics`: counters and current values.

use super::health::best_replica;
use super::{Api, RequestContext};
use crate::front::Response;
use crate::logging;
use crate::memory;
use crate::metrics::{Metric, Reading};

/// Prometheus text exposition format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the table in `docs/operations.md`.
pub fn metrics(api: &Api, context: &RequestContext) -> Response {
    let (gateway, stats) = (&api.gateway, &api.stats);
    let busy = stats.busy();
    let (held, limit) = memory::held();
    let now = [
        (Metric::InFlight, "", gateway.metrics.in_flight()),
        (Metric::Clients, "", stats.clients() as u64),
        (Metric::Workers, "busy", busy as u64),
        (Metric::Workers, "idle", api.permits.saturating_sub(busy) as u64),
        (Metric::QueueLength, "", stats.queue_length() as u64),
        (Metric::LogLinesDropped, "", logging::lost_lines()),
        (Metric::MemoryHeld, "", held as u64),
        (Metric::MemoryLimit, "", limit as u64),
        (Metric::BuildInfo, env!("CARGO_PKG_VERSION"), 1),
    ];
    // A provider that has not been checked yet has no value.
    let providers = context.config.providers.iter().filter_map(|provider| {
        let health = best_replica(gateway, provider)?;
        Some((Metric::ProviderHealthy, &*provider.name, u64::from(health.healthy)))
    });
    let workers: Vec<(String, usize)> =
        (0..).map(|number: u32| number.to_string()).zip(stats.clients_of_workers()).collect();
    let workers = workers.iter().map(|(number, clients)| (Metric::WorkerClients, &**number, *clients as u64));
    let all: Vec<_> = now
        .into_iter()
        .chain(workers)
        .chain(providers)
        .map(|(metric, label, value)| (metric, [label], value))
        .collect();
    let readings = all.iter().map(|(metric, label, value)| {
        let labels: &[&str] = if label[0].is_empty() { &[] } else { label };
        Reading { metric: *metric, labels, value: *value }
    });
    let text = gateway.metrics.render(&readings.collect::<Vec<_>>());
    Response {
        status: 200,
        fields: context.response_context.fields(CONTENT_TYPE),
        body: text.into_bytes().into(),
    }
}
