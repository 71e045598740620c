//! `GET /v1/status`: the state of each replica and each token, the last hour, the last errors, and the current configuration without its secrets. It
//! is for the status page; counters are in the metrics.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Api, RequestContext, health, json_response};
use crate::auth::quota::Clock;
use crate::config::{Config, Format, Provider, Replica, Token, TokenId, VirtualModel, load};
use crate::front::Response;
use crate::gateway::{LastError, Point};
use crate::limits::HISTORY_INTERVAL;
use crate::metrics::{Totals, quantile};

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    uptime_seconds: u64,
    /// All providers together.
    recent: Recent,
    providers: Vec<ProviderStatus<'a>>,
    /// The virtual models.
    models: Vec<ModelStatus<'a>>,
    tokens: Vec<TokenStatus<'a>>,
    history: History,
    /// Newest first.
    last_errors: Vec<ErrorStatus<'a>>,
    /// The output of `ai-proxy check`, line by line.
    config: Vec<String>,
}

#[derive(Serialize)]
struct ProviderStatus<'a> {
    name: &'a str,
    recent: Recent,
    replicas: Vec<ReplicaStatus<'a>>,
}

/// The calls of the last five minutes.
#[derive(Serialize)]
struct Recent {
    requests: u64,
    /// Calls that ended with a 5xx status.
    failures: u64,
    /// Median duration; `null`: no request ended.
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    first_byte_p50_ms: Option<u64>,
}

/// The last hour: a number for each interval, oldest first.
#[derive(Serialize)]
struct History {
    interval_seconds: u64,
    requests: Vec<Option<u64>>,
    failures: Vec<Option<u64>>,
    tokens: Vec<Option<u64>>,
    p50_ms: Vec<Option<u64>>,
    p95_ms: Vec<Option<u64>>,
    in_flight: Vec<Option<u64>>,
}

#[derive(Serialize)]
struct ModelStatus<'a> {
    name: &'a str,
    /// In the order in which they are tried.
    targets: Vec<TargetStatus<'a>>,
}

#[derive(Serialize)]
struct TargetStatus<'a> {
    provider: &'a str,
    model: &'a str,
}

/// An error that a client got; `null` where there is none, or none is known.
#[derive(Serialize)]
struct ErrorStatus<'a> {
    at: String,
    request_id: &'a str,
    status: u16,
    reason: Option<&'static str>,
    provider: Option<&'a str>,
    model: Option<&'a str>,
    token: Option<&'a str>,
}

#[derive(Serialize)]
struct ReplicaStatus<'a> {
    url: String,
    /// `null` before the first check.
    healthy: Option<bool>,
    latency_ms: Option<u128>,
    /// How calls to `/v1/responses` reach it: `native`, or `chat` where they are translated.
    responses: &'static str,
    /// How calls to `/v1/messages` reach it.
    messages: &'static str,
    checked_at: Option<String>,
    /// Why the last check failed.
    error: Option<String>,
    /// Why the last request failed; `null`: it succeeded.
    last_failure: Option<String>,
    in_flight: u32,
    /// Seconds left of its cooldown; `null`: it has none.
    #[serde(rename = "cooling_seconds")]
    cooldown_seconds: Option<u64>,
    /// The only token that the cooldown is for; `null`: it is for all.
    #[serde(rename = "cooling_token")]
    cooldown_token: Option<&'a str>,
}

/// A token; a limit that it does not have is `null`.
#[derive(Serialize)]
struct TokenStatus<'a> {
    name: &'a str,
    rpm: Option<Limited>,
    max_parallel: Option<Limited>,
    tokens_per_day: Option<Limited>,
}

#[derive(Serialize)]
struct Limited {
    used: u64,
    limit: u64,
    /// Time until the whole limit is free again; `null`: it is free when a request ends.
    reset_seconds: Option<u64>,
}

/// Responds with the status document.
pub fn status(api: &Api, context: &RequestContext) -> Response {
    let (config, gateway) = (&*context.config, &api.gateway);
    let recent = gateway.history.recent(&gateway.metrics);
    let providers = config.providers.iter().map(|provider| {
        let replicas = provider.replicas.iter().map(|replica| of_replica(api, config, provider, replica));
        let recent = Recent::of(&recent.get(&provider.name));
        ProviderStatus { name: &provider.name, recent, replicas: replicas.collect() }
    });
    let errors = gateway.last_errors.list();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: api.started.elapsed().as_secs(),
        recent: Recent::of(&recent.sum()),
        providers: providers.collect(),
        models: config.models.iter().map(|model| of_model(config, model)).collect(),
        tokens: config.tokens.iter().map(|token| of_token(api, token)).collect(),
        history: History::of(&gateway.history.points()),
        last_errors: errors.iter().map(of_error).collect(),
        config: load::summary(config).lines().map(str::to_owned).collect(),
    };
    let mut response = json_response(200, &context.response_context, &status);
    response.fields.push("cache-control", "no-store");
    response
}

impl Recent {
    fn of(totals: &Totals) -> Self {
        Self {
            requests: totals.requests,
            failures: totals.failures,
            p50_ms: quantile(&totals.durations, 50).map(millis),
            p95_ms: quantile(&totals.durations, 95).map(millis),
            first_byte_p50_ms: quantile(&totals.first_bytes, 50).map(millis),
        }
    }
}

impl History {
    fn of(points: &[Point]) -> Self {
        let column = |of: fn(&Point) -> Option<u64>| points.iter().map(of).collect();
        Self {
            interval_seconds: HISTORY_INTERVAL.as_secs(),
            requests: column(|point| Some(point.requests)),
            failures: column(|point| Some(point.failures)),
            tokens: column(|point| Some(point.tokens)),
            p50_ms: column(|point| point.p50.map(millis)),
            p95_ms: column(|point| point.p95.map(millis)),
            in_flight: column(|point| Some(point.in_flight)),
        }
    }
}

fn of_model<'a>(config: &'a Config, model: &'a VirtualModel) -> ModelStatus<'a> {
    let targets = config.targets_supported(model);
    let targets = targets.map(|target| TargetStatus { provider: &target.provider, model: &target.model });
    ModelStatus { name: &model.name, targets: targets.collect() }
}

fn of_error(error: &LastError) -> ErrorStatus<'_> {
    fn known(text: &str) -> Option<&str> {
        Some(text).filter(|text| !text.is_empty())
    }
    ErrorStatus {
        at: health::rfc3339(error.at),
        request_id: &error.request_id,
        status: error.status,
        reason: error.reason,
        provider: known(&error.provider),
        model: known(&error.model),
        token: known(&error.token),
    }
}

fn of_replica<'a>(
    api: &Api,
    config: &'a Config,
    provider: &Provider,
    replica: &'a Replica,
) -> ReplicaStatus<'a> {
    let id = replica.id;
    let health = api.gateway.board.health(id);
    let now = Instant::now();
    let condition = api.gateway.balance.condition(id, now);
    let of_one = condition.cooldown_for.filter(|_| condition.cooldown_until.is_none());
    let cooldown_until = condition.cooldown_until.or(of_one.map(|(_, until)| until));
    let name_of =
        |of: TokenId| config.tokens.iter().find(|token| TokenId::of(token) == of).map(|it| &*it.name);
    let api_for = |format| if api.gateway.board.is_native(replica, format, now) { "native" } else { "chat" };
    ReplicaStatus {
        url: provider.without_secrets(&replica.url),
        responses: api_for(Format::OpenAi),
        messages: api_for(Format::Anthropic),
        healthy: health.as_ref().map(|health| health.healthy),
        latency_ms: health.as_ref().map(|health| health.latency.as_millis()),
        checked_at: health.as_ref().map(|health| health::rfc3339(health.checked_at)),
        error: health::error_of(&api.gateway, id),
        last_failure: condition.last_failure.map(|(why, _)| why),
        in_flight: condition.in_flight,
        cooldown_seconds: cooldown_until.map(|until| whole_seconds(until - now)),
        cooldown_token: of_one.and_then(|(token, _)| name_of(token)),
    }
}

fn of_token<'a>(api: &Api, token: &'a Token) -> TokenStatus<'a> {
    let account = api.gateway.quotas.account(token, Clock::now());
    let limited = |used: u64, limit: u64, reset: Option<Duration>| Limited {
        used,
        limit,
        reset_seconds: reset.map(whole_seconds),
    };
    TokenStatus {
        name: &token.name,
        rpm: account
            .rate
            .map(|rate| limited((rate.limit - rate.remaining).into(), rate.limit.into(), Some(rate.reset))),
        max_parallel: token.max_parallel.map(|max| limited(account.parallel.into(), max.into(), None)),
        tokens_per_day: account.day.map(|day| limited(day.used, day.limit, Some(day.reset))),
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Rounded up: a cooldown that is not over never shows 0.
fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}
