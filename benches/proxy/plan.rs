//! The measurements under load, and their aims.

use serde_json::Value;

use super::request::{Api, Backslashes, Body};

/// A bound that a figure of ai-proxy should keep.
#[derive(Clone, Copy)]
pub enum Bound {
    /// Of its ratio to nginx.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Of the figure itself.
    AtMost(f64),
}

/// (aim, dream)
pub type Bounds = Option<(Bound, Bound)>;

/// One number out of the outcome of a load run.
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub read: fn(&Value) -> Option<f64>,
    /// The same figure without a proxy is taken off.
    pub over_direct: bool,
    pub bounds: Bounds,
}

/// The contender that ai-proxy is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Between {
    #[default]
    Nginx,
    /// The upstream speaks TLS with both.
    NginxOverTls,
    /// Itself at WARNING, while it logs at INFO.
    LogLevels,
    /// Itself without a scraper, while one fetches `/metrics` each second.
    Scraped,
    /// Itself relaying the call, while it translates that API's.
    Translated(Api),
}

/// One kind of load.
pub struct Scenario {
    /// Filter on the command line, key in the JSON.
    pub key: &'static str,
    pub title: &'static str,
    pub clients: u64,
    pub latency_us: u64,
    pub chunks: u64,
    pub gap_us: u64,
    /// What the request carries.
    pub body: Body,
    /// Event loops of both proxies.
    pub workers: u32,
    pub between: Between,
    pub figures: &'static [Figure],
}

/// One small request after another to one event loop; the upstream responds at once.
const SATURATED: Scenario = Scenario {
    key: "",
    title: "",
    clients: 16,
    latency_us: 0,
    chunks: 0,
    gap_us: 0,
    body: Body::Question,
    workers: 1,
    between: Between::Nginx,
    figures: &[],
};

/// The same with an upstream that responds after 20 ms.
const AFTER_20_MS: Scenario = Scenario { latency_us: 20_000, ..SATURATED };

/// Streams, a chunk every 2 ms.
const EVERY_2_MS: Scenario = Scenario {
    clients: 64,
    chunks: 500,
    gap_us: 2_000,
    figures: &[CPU_PER_CHUNK, CHUNKS_PER_SECOND, DELAY_P50, DELAY_P99, ADDED_FIRST_P50],
    ..SATURATED
};

/// One large body after another, to an upstream that speaks TLS.
const OVER_TLS: Scenario = Scenario {
    between: Between::NginxOverTls,
    figures: &[cpu_per_response(1.4, 1.2), RESPONSES_PER_SECOND, LATENCY_P99],
    ..SATURATED
};

/// One large body after another, translated.
const TRANSLATED: Scenario = Scenario {
    between: Between::Translated(Api::Messages),
    figures: &[cpu_per_response(2.0, 1.5), RESPONSES_PER_SECOND, LATENCY_P99],
    ..SATURATED
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        key: "whole_20ms_64",
        title: "buffered responses, upstream takes 20 ms, 64 clients",
        clients: 64,
        figures: &[cpu_per_response(1.3, 1.0), ADDED_P50, ADDED_P99],
        ..AFTER_20_MS
    },
    Scenario {
        key: "whole_20ms_256",
        title: "buffered responses, upstream takes 20 ms, 256 clients",
        clients: 256,
        figures: &[cpu_per_response(1.5, 1.2), ADDED_P50, ADDED_P99],
        ..AFTER_20_MS
    },
    Scenario {
        key: "whole_0ms_16",
        title: "buffered responses, upstream takes no time, 16 clients (saturated)",
        figures: &[cpu_per_response(1.3, 1.1), RESPONSES_PER_SECOND, LATENCY_P50, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "first_token_16",
        title: "streams of two chunks, upstream takes 20 ms before each, 16 clients",
        clients: 16,
        latency_us: 20_000,
        chunks: 2,
        gap_us: 20_000,
        body: Body::Question,
        workers: 1,
        between: Between::Nginx,
        figures: &[ADDED_FIRST_P50, ADDED_FIRST_P99, CPU_PER_STREAM],
    },
    Scenario { key: "stream_2ms_64", title: "streams, a chunk every 2 ms, 64 clients", ..EVERY_2_MS },
    Scenario {
        key: "stream_40ms_500",
        title: "streams, a chunk every 40 ms, 500 clients",
        clients: 500,
        latency_us: 0,
        chunks: 100,
        gap_us: 40_000,
        body: Body::Question,
        workers: 1,
        between: Between::Nginx,
        figures: &[CPU_PER_CHUNK, CHUNKS_PER_SECOND, DELAY_P50, DELAY_P99],
    },
    Scenario {
        key: "stream_2ms_500",
        title: "streams of 50 chunks, one every 2 ms, 500 clients (saturated)",
        clients: 500,
        latency_us: 0,
        chunks: 50,
        gap_us: 2_000,
        body: Body::Question,
        workers: 1,
        between: Between::Nginx,
        figures: &[STREAMS_PER_SECOND, CPU_PER_CHUNK_UNBOUND],
    },
    Scenario {
        key: "body_3kb",
        title: "bodies of 3 KB, upstream takes no time, 16 clients (saturated)",
        body: Body::History { bytes: 3_000, backslashes: Backslashes::Usual },
        figures: &[cpu_per_response(1.4, 1.2), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "body_28kb",
        title: "bodies of 28 KB, upstream takes no time, 16 clients (saturated)",
        body: Body::History { bytes: 28_000, backslashes: Backslashes::Usual },
        figures: &[cpu_per_response(1.6, 1.4), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "body_262kb",
        title: "bodies of 262 KB, upstream takes no time, 16 clients (saturated)",
        body: Body::History { bytes: 262_000, backslashes: Backslashes::Usual },
        figures: &[cpu_per_response(1.75, 1.5), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "body_1300kb",
        title: "bodies of 1.3 MB, upstream takes no time, 16 clients (saturated)",
        body: Body::History { bytes: 1_300_000, backslashes: Backslashes::Usual },
        figures: &[cpu_per_response(1.75, 1.5), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "body_262kb_escapes",
        title: "bodies of 262 KB with many escapes, 16 clients (saturated)",
        body: Body::History { bytes: 262_000, backslashes: Backslashes::Many },
        figures: &[CPU_PER_REQUEST, RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "tls_0ms_16",
        title: "TLS to the upstream: buffered responses, 16 clients (saturated)",
        between: Between::NginxOverTls,
        figures: &[cpu_per_response(1.3, 1.1), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "tls_body_28kb",
        title: "TLS to the upstream: bodies of 28 KB, 16 clients (saturated)",
        body: Body::History { bytes: 28_000, backslashes: Backslashes::Usual },
        ..OVER_TLS
    },
    Scenario {
        key: "tls_body_262kb",
        title: "TLS to the upstream: bodies of 262 KB, 16 clients (saturated)",
        body: Body::History { bytes: 262_000, backslashes: Backslashes::Usual },
        ..OVER_TLS
    },
    Scenario {
        key: "tls_body_1300kb",
        title: "TLS to the upstream: bodies of 1.3 MB, 16 clients (saturated)",
        body: Body::History { bytes: 1_300_000, backslashes: Backslashes::Usual },
        ..OVER_TLS
    },
    Scenario {
        key: "log_info",
        title: "ai-proxy at INFO, in nginx's column at WARNING: buffered responses, 16 clients (saturated)",
        between: Between::LogLevels,
        figures: &[cpu_per_response(1.05, 1.02), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "scraped",
        title: "ai-proxy with /metrics fetched each second, in nginx's column without: buffered responses, 64 clients",
        clients: 64,
        between: Between::Scraped,
        figures: &[cpu_per_response(1.05, 1.02), ADDED_P50, ADDED_P99],
        ..AFTER_20_MS
    },
    Scenario {
        key: "translated_28kb",
        title: "ai-proxy from /v1/messages to chat, in nginx's column relaying: bodies of 28 KB, 16 clients (saturated)",
        body: Body::History { bytes: 28_000, backslashes: Backslashes::Usual },
        ..TRANSLATED
    },
    Scenario {
        key: "translated_262kb",
        title: "ai-proxy from /v1/messages to chat, in nginx's column relaying: bodies of 262 KB, 16 clients (saturated)",
        body: Body::History { bytes: 262_000, backslashes: Backslashes::Usual },
        ..TRANSLATED
    },
    Scenario {
        key: "translated_2ms_64",
        title: "ai-proxy from /v1/messages to chat, in nginx's column relaying: a chunk every 2 ms, 64 clients",
        between: Between::Translated(Api::Messages),
        figures: &[CPU_PER_CHUNK_TRANSLATED, CHUNKS_PER_SECOND],
        ..EVERY_2_MS
    },
    Scenario {
        key: "two_20ms_64",
        title: "two workers: buffered responses, upstream takes 20 ms, 64 clients",
        clients: 64,
        workers: 2,
        figures: &[cpu_per_response(1.1, 0.9), ADDED_P50, ADDED_P99],
        ..AFTER_20_MS
    },
    Scenario {
        key: "two_20ms_256",
        title: "two workers: buffered responses, upstream takes 20 ms, 256 clients",
        clients: 256,
        workers: 2,
        figures: &[cpu_per_response(1.1, 0.9), ADDED_P50, ADDED_P99],
        ..AFTER_20_MS
    },
    Scenario {
        key: "two_0ms_16",
        title: "two workers: buffered responses, upstream takes no time, 16 clients (saturated)",
        workers: 2,
        figures: &[cpu_per_response(1.15, 0.9), RESPONSES_PER_SECOND, LATENCY_P99],
        ..SATURATED
    },
    Scenario {
        key: "two_2ms_64",
        title: "two workers: streams, a chunk every 2 ms, 64 clients",
        workers: 2,
        ..EVERY_2_MS
    },
];

const fn cpu_per_response(aim: f64, dream: f64) -> Figure {
    Figure { bounds: Some((Bound::RatioAtMost(aim), Bound::RatioAtMost(dream))), ..CPU_PER_REQUEST }
}

pub const CPU_PER_REQUEST: Figure = Figure {
    name: "CPU per request",
    unit: "us",
    read: |run| Some(run["cpu_ns"].as_f64()? / 1e3 / run["answers"].as_f64()?),
    over_direct: false,
    bounds: None,
};

const CPU_PER_STREAM: Figure = Figure { name: "CPU per stream", ..CPU_PER_REQUEST };

pub const CPU_PER_CHUNK_UNBOUND: Figure = Figure {
    name: "CPU per chunk",
    unit: "us",
    read: |run| Some(run["cpu_ns"].as_f64()? / 1e3 / run["events"].as_f64()?),
    over_direct: false,
    bounds: None,
};

const CPU_PER_CHUNK: Figure =
    Figure { bounds: Some((Bound::RatioAtMost(1.1), Bound::RatioAtMost(0.9))), ..CPU_PER_CHUNK_UNBOUND };

const CPU_PER_CHUNK_TRANSLATED: Figure =
    Figure { bounds: Some((Bound::RatioAtMost(2.0), Bound::RatioAtMost(1.5))), ..CPU_PER_CHUNK_UNBOUND };

const STREAMS_PER_SECOND: Figure = Figure {
    name: "streams finished",
    unit: "/s",
    read: |run| Some(run["answers"].as_f64()? / run["window_s"].as_f64()?),
    over_direct: false,
    bounds: Some((Bound::RatioAtLeast(0.8), Bound::RatioAtLeast(1.0))),
};

pub const RESPONSES_PER_SECOND: Figure = Figure { name: "requests", bounds: None, ..STREAMS_PER_SECOND };

pub const CHUNKS_PER_SECOND: Figure = Figure {
    name: "chunks",
    unit: "/s",
    read: |run| Some(run["events"].as_f64()? / run["window_s"].as_f64()?),
    over_direct: false,
    bounds: None,
};

const LATENCY_P50: Figure = Figure {
    name: "latency p50",
    unit: "ms",
    read: |run| Some(run["latency_p50_us"].as_f64()? / 1e3),
    over_direct: false,
    bounds: None,
};

const LATENCY_P99: Figure =
    Figure { name: "latency p99", read: |run| Some(run["latency_p99_us"].as_f64()? / 1e3), ..LATENCY_P50 };

const ADDED_P50: Figure = Figure { name: "added latency p50", over_direct: true, ..LATENCY_P50 };

const ADDED_P99: Figure = Figure { name: "added latency p99", over_direct: true, ..LATENCY_P99 };

/// For a stream, latency counts to its first event.
const ADDED_FIRST_P50: Figure = Figure { name: "added time to first token p50", ..ADDED_P50 };

const ADDED_FIRST_P99: Figure = Figure { name: "added time to first token p99", ..ADDED_P99 };

const DELAY_P50: Figure = Figure {
    name: "added delay p50",
    unit: "ms",
    read: |run| Some(run["delay_p50_us"].as_f64()? / 1e3),
    over_direct: true,
    bounds: Some((Bound::AtMost(0.1), Bound::AtMost(0.05))),
};

const DELAY_P99: Figure = Figure {
    name: "added delay p99",
    read: |run| Some(run["delay_p99_us"].as_f64()? / 1e3),
    bounds: Some((Bound::AtMost(1.0), Bound::AtMost(0.5))),
    ..DELAY_P50
};
