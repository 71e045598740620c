//! What is measured under load, and what we aim at.

use serde_json::Value;

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

/// One kind of load.
pub struct Scenario {
    /// Filter on the command line, key in the JSON.
    pub key: &'static str,
    pub title: &'static str,
    pub clients: u64,
    pub latency_us: u64,
    pub chunks: u64,
    pub gap_us: u64,
    pub figures: &'static [Figure],
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        key: "whole_20ms_64",
        title: "whole answers, upstream takes 20 ms, 64 clients",
        clients: 64,
        latency_us: 20_000,
        chunks: 0,
        gap_us: 0,
        figures: &[cpu_per_response(1.3, 1.0), ADDED_P50, ADDED_P99],
    },
    Scenario {
        key: "whole_20ms_256",
        title: "whole answers, upstream takes 20 ms, 256 clients",
        clients: 256,
        latency_us: 20_000,
        chunks: 0,
        gap_us: 0,
        figures: &[cpu_per_response(1.5, 1.2), ADDED_P50, ADDED_P99],
    },
    Scenario {
        key: "whole_0ms_16",
        title: "whole answers, upstream takes no time, 16 clients (saturated)",
        clients: 16,
        latency_us: 0,
        chunks: 0,
        gap_us: 0,
        figures: &[cpu_per_response(1.3, 1.1), RESPONSES_PER_SECOND, LATENCY_P50, LATENCY_P99],
    },
    Scenario {
        key: "first_token_16",
        title: "streams of two chunks, upstream takes 20 ms before each, 16 clients",
        clients: 16,
        latency_us: 20_000,
        chunks: 2,
        gap_us: 20_000,
        figures: &[ADDED_FIRST_P50, ADDED_FIRST_P99, CPU_PER_STREAM],
    },
    Scenario {
        key: "stream_2ms_64",
        title: "streams, a chunk every 2 ms, 64 clients",
        clients: 64,
        latency_us: 0,
        chunks: 500,
        gap_us: 2_000,
        figures: &[CPU_PER_CHUNK, CHUNKS_PER_SECOND, DELAY_P50, DELAY_P99, ADDED_FIRST_P50],
    },
    Scenario {
        key: "stream_40ms_500",
        title: "streams, a chunk every 40 ms, 500 clients",
        clients: 500,
        latency_us: 0,
        chunks: 100,
        gap_us: 40_000,
        figures: &[CPU_PER_CHUNK, CHUNKS_PER_SECOND, DELAY_P50, DELAY_P99],
    },
    Scenario {
        key: "stream_2ms_500",
        title: "streams of 50 chunks, one every 2 ms, 500 clients (saturated)",
        clients: 500,
        latency_us: 0,
        chunks: 50,
        gap_us: 2_000,
        figures: &[STREAMS_PER_SECOND, CPU_PER_CHUNK_UNBOUND],
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

/// Of a stream, latency counts up to its first event.
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
