//! `GET /health` and `POST /v1/reload`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ApiError, Ticket, json_answer, refuse};
use crate::config::{Provider, ReplicaId};
use crate::front::Answer;
use crate::gateway::{self, Gateway};
use crate::limits::CHECK_TIMEOUT;
use crate::text::Text;

/// The answer to `GET /health` (contract section 3).
#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    providers: BTreeMap<&'a str, bool>,
    healthy_providers: usize,
    total_providers: usize,
    details: BTreeMap<&'a str, Detail>,
}

#[derive(Serialize)]
struct Detail {
    latency_ms: Option<u128>,
    checked_at: Option<String>,
    error: Option<String>,
}

/// The last known health of every provider; a provider with replicas is as well as the best of them.
pub fn health(gateway: &Gateway, ticket: &Ticket) -> Answer {
    let config = &*ticket.config;
    gateway.board.wait_for_first_round(CHECK_TIMEOUT);
    let known: Vec<_> =
        config.providers.iter().map(|provider| (&*provider.name, best_replica(gateway, provider))).collect();
    let is_healthy = |health: &Option<gateway::Health>| health.as_ref().is_some_and(|health| health.healthy);
    let (healthy, total) = (known.iter().filter(|(_, health)| is_healthy(health)).count(), known.len());
    let status = match healthy {
        0 => "unhealthy",
        some if some < total => "degraded",
        _ => "healthy",
    };
    let document = Health {
        status,
        providers: known.iter().map(|(name, health)| (*name, is_healthy(health))).collect(),
        healthy_providers: healthy,
        total_providers: total,
        details: known.iter().map(|(name, health)| (*name, Detail::of(health.as_ref()))).collect(),
    };
    json_answer(if healthy == 0 { 503 } else { 200 }, &ticket.envelope, &document)
}

/// What is known of a provider: of the best of its replicas.
pub fn best_replica(gateway: &Gateway, provider: &Provider) -> Option<gateway::Health> {
    let replicas = provider.replicas.iter();
    let known = replicas.filter_map(|replica| gateway.board.health(ReplicaId::of(&provider.name, replica)));
    known.min_by_key(|health| (!health.healthy, health.latency))
}

impl Detail {
    fn of(health: Option<&gateway::Health>) -> Self {
        match health {
            Some(health) => Self {
                latency_ms: Some(health.latency.as_millis()),
                checked_at: Some(health.checked_at.to_string()),
                error: health.error.clone(),
            },
            None => Self { latency_ms: None, checked_at: None, error: Some("not checked yet".to_owned()) },
        }
    }
}

/// Reads the configuration again.
pub fn reload(gateway: &Gateway, ticket: &Ticket) -> Answer {
    #[derive(Serialize)]
    struct Done {
        message: String,
        providers_count: usize,
        restart_required: Vec<&'static str>,
    }
    match gateway.reload() {
        Ok(reloaded) => {
            let document = Done {
                message: Text::Reloaded.say(reloaded.config.language),
                providers_count: reloaded.config.providers.len(),
                restart_required: reloaded.restart_required,
            };
            json_answer(200, &ticket.envelope, &document)
        }
        Err(problems) => refuse(gateway, &ApiError::ReloadRefused(problems), &ticket.envelope),
    }
}
