//! `GET /health`: results of the checks, and of requests beside them.

use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::{RequestContext, json_response};
use crate::config::{Provider, Replica, ReplicaId};
use crate::core::date::{self, DateTime};
use crate::front::Response;
use crate::gateway::{self, Gateway};
use crate::limits::CHECK_TIMEOUT;

/// The document.
#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    providers: InOrder<'a, bool>,
    healthy_providers: usize,
    total_providers: usize,
    details: InOrder<'a, Detail>,
}

/// A map by provider name, in the order of the configuration.
struct InOrder<'a, T>(Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for InOrder<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
struct Detail {
    latency_ms: Option<u128>,
    checked_at: Option<String>,
    /// Why the check failed; else why the last request at a replica failed, if none has succeeded since.
    error: Option<String>,
    /// Until when a replica is in cooldown: the earliest end.
    #[serde(rename = "cooling_until")]
    cooldown_until: Option<String>,
    /// The replicas, where there are several, each by its number in the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<ReplicaDetail>,
}

#[derive(Serialize)]
struct ReplicaDetail {
    replica: usize,
    healthy: bool,
    latency_ms: Option<u128>,
    checked_at: Option<String>,
    error: Option<String>,
    #[serde(rename = "cooling_until")]
    cooldown_until: Option<String>,
}

/// The last known health of every provider; a provider with replicas is as well as the best of them.
pub fn health(gateway: &Gateway, context: &RequestContext) -> Response {
    let config = &*context.config;
    gateway.board.wait_for_first_round(CHECK_TIMEOUT);
    let known: Vec<_> =
        config.providers.iter().map(|provider| (provider, best_replica(gateway, provider))).collect();
    let is_healthy = |health: &Option<gateway::Health>| health.as_ref().is_some_and(|health| health.healthy);
    let (healthy, total) = (known.iter().filter(|(_, health)| is_healthy(health)).count(), known.len());
    let status = match healthy {
        0 => "unhealthy",
        some if some < total => "degraded",
        _ => "healthy",
    };
    let detail = |(provider, best): &(&'_ Provider, Option<gateway::Health>)| {
        Detail::of(gateway, provider, best.as_ref())
    };
    let document = Health {
        status,
        providers: InOrder(known.iter().map(|(it, health)| (&*it.name, is_healthy(health))).collect()),
        healthy_providers: healthy,
        total_providers: total,
        details: InOrder(known.iter().map(|known| (&*known.0.name, detail(known))).collect()),
    };
    json_response(if healthy == 0 { 503 } else { 200 }, &context.response_context, &document)
}

/// The health of a provider: that of its best replica.
pub fn best_replica(gateway: &Gateway, provider: &Provider) -> Option<gateway::Health> {
    let replicas = provider.replicas.iter();
    let known = replicas.filter_map(|replica| gateway.board.health(replica.id));
    known.min_by_key(|health| (!health.healthy, health.latency))
}

/// Why a replica fails: the error of its check, else that of a request.
pub fn error_of(gateway: &Gateway, id: ReplicaId) -> Option<String> {
    let checked = gateway.board.health(id).and_then(|health| health.error);
    checked.or_else(|| {
        let (why, at) = gateway.balance.condition(id, Instant::now()).last_failure?;
        Some(format!("request failed at {}: {why}", in_time(at)))
    })
}

impl Detail {
    fn of(gateway: &Gateway, provider: &Provider, best: Option<&gateway::Health>) -> Self {
        let replicas = provider.replicas.iter().enumerate();
        let replicas: Vec<_> =
            replicas.map(|(place, replica)| ReplicaDetail::of(gateway, place, replica)).collect();
        let is_lone = replicas.len() == 1;
        let failures = replicas.iter().filter_map(|replica| {
            let error = replica.error.as_ref()?;
            Some(if is_lone { error.clone() } else { format!("replica {}: {error}", replica.replica) })
        });
        let error = match best {
            None => Some("not checked yet".to_owned()),
            Some(health) => {
                health.error.clone().or_else(|| failures.reduce(|all, one| format!("{all}; {one}")))
            }
        };
        Self {
            latency_ms: best.map(|health| health.latency.as_millis()),
            checked_at: best.map(|health| rfc3339(health.checked_at)),
            error,
            cooldown_until: replicas.iter().filter_map(|replica| replica.cooldown_until.clone()).min(),
            replicas: if is_lone { Vec::new() } else { replicas },
        }
    }
}

impl ReplicaDetail {
    fn of(gateway: &Gateway, place: usize, replica: &Replica) -> Self {
        let id = replica.id;
        let health = gateway.board.health(id);
        let condition = gateway.balance.condition(id, Instant::now());
        Self {
            replica: place + 1,
            healthy: health.as_ref().is_some_and(|health| health.healthy),
            latency_ms: health.as_ref().map(|health| health.latency.as_millis()),
            checked_at: health.as_ref().map(|health| rfc3339(health.checked_at)),
            error: error_of(gateway, id),
            cooldown_until: condition.cooldown_until.map(in_time),
        }
    }
}

/// An instant as a time of day, in whole seconds, because the two clocks differ by a little.
fn in_time(at: Instant) -> String {
    let (now, wall) = (Instant::now(), SystemTime::now() + Duration::from_millis(500));
    rfc3339(match at.checked_duration_since(now) {
        Some(ahead) => wall + ahead,
        None => wall - (now - at),
    })
}

/// A time in whole seconds.
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::of(date::seconds(time)).to_string()
}
