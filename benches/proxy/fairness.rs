//! The latency of small calls beside large bodies, as a multiple of that on a quiet server.

use std::io;
use std::thread;

use serde_json::Value;

use crate::load::Spec;
use crate::plan::{Bound, Bounds};
use crate::report::{Contender, Report, Row};
use crate::request::{Api, Backslashes, Body};
use crate::servers::{self, Server, Setup};
use crate::{Bench, keep_errors};

pub const KEY: &str = "fairness";
pub const TITLE: &str = "small calls beside 16 clients with bodies of 262 KB";

/// A load: wait of the upstream before its responses, key, title.
type Load = (u64, &'static str, &'static str);

const SETUPS: [(Setup, [Load; 2]); 2] = [
    (
        Setup::Streams,
        [
            (
                20_000,
                "fairness_20ms",
                "small calls beside 16 clients with bodies of 262 KB, upstream takes 20 ms",
            ),
            (0, "fairness_0ms", "small calls beside 16 clients with bodies of 262 KB (saturated)"),
        ],
    ),
    (
        Setup::TwoWorkers,
        [
            (
                20_000,
                "fairness_two_20ms",
                "two workers: small calls beside 16 clients with bodies of 262 KB, upstream takes 20 ms",
            ),
            (
                0,
                "fairness_two_0ms",
                "two workers: small calls beside 16 clients with bodies of 262 KB (saturated)",
            ),
        ],
    ),
];

/// (API of the small call, name of its p99, name of that as a multiple of a quiet server's)
const SMALL: [(Api, &str, &str); 2] = [
    (Api::Health, "/healthz p99", "/healthz p99, times quiet"),
    (Api::Chat, "small call p99", "small call p99, times quiet"),
];

const BOUNDS: Bounds = Some((Bound::AtMost(3.0), Bound::AtMost(1.5)));

const LARGE: Body = Body::History { bytes: 262_000, backslashes: Backslashes::Usual };
const LARGE_CLIENTS: u64 = 16;

/// Wait before the next small call, so that these calls are no load themselves.
const PAUSE_US: u64 = 1_000;

/// Time for which the load outlasts the calls beside it.
const MARGIN_MS: u64 = 200;

/// Appends rows for one worker and for two.
pub fn measure(bench: &Bench, report: &mut Report) -> io::Result<()> {
    for (setup, loads) in SETUPS {
        let nginx = servers::start_nginx(&bench.nginx, setup, &bench.upstream.address)?;
        let ai_proxy = servers::start_ai_proxy(setup, &bench.upstream.address)?;
        let mut rows = loads.map(|(_, key, title)| rows(key, title));
        eprintln!("bench: {}", loads[0].2);
        for _ in 0..bench.rounds {
            for (contender, server) in [(Contender::Nginx, &nginx), (Contender::AiProxy, &ai_proxy)] {
                let quiet = small_calls(bench, server, report)?;
                for ((latency_us, ..), rows) in loads.into_iter().zip(&mut rows) {
                    let loaded = beside_large(bench, server, latency_us, report)?;
                    for (rows, (quiet, loaded)) in rows.chunks_mut(2).zip(quiet.iter().zip(loaded)) {
                        rows[0].push(contender, loaded);
                        rows[1].push(contender, loaded / quiet);
                    }
                }
            }
        }
        report.rows.extend(rows.into_iter().flatten());
    }
    Ok(())
}

/// Two for each small call: its p99, and that as a multiple of the quiet server's.
fn rows(key: &'static str, title: &'static str) -> Vec<Row> {
    let of_call =
        |(_, p99, times)| [Row::new(key, title, p99, "ms", None), Row::new(key, title, times, "x", BOUNDS)];
    SMALL.into_iter().flat_map(of_call).collect()
}

/// p99 in milliseconds of each small call, with no other load from here.
fn small_calls(bench: &Bench, server: &Server, report: &mut Report) -> io::Result<Vec<f64>> {
    let specs = SMALL.map(|(api, ..)| Spec { clients: 1, api, pause_us: PAUSE_US, ..spec(bench, server) });
    let outcomes = run_together(&specs, report)?;
    Ok(outcomes.iter().map(|outcome| outcome["latency_p99_us"].as_f64().unwrap_or(f64::NAN) / 1e3).collect())
}

/// p99 of each small call beside the large bodies.
fn beside_large(
    bench: &Bench,
    server: &Server,
    latency_us: u64,
    report: &mut Report,
) -> io::Result<Vec<f64>> {
    let own = spec(bench, server);
    let large =
        Spec { clients: LARGE_CLIENTS, latency_us, body: LARGE, window_ms: own.window_ms + MARGIN_MS, ..own };
    thread::scope(|scope| {
        let load = scope.spawn(|| servers::run_load(&large));
        let calls = small_calls(bench, server, report);
        let outcome = load.join().unwrap_or_else(|_| Err(io::Error::other("the load died")))?;
        keep_errors(&large, &outcome, report);
        calls
    })
}

fn spec(bench: &Bench, server: &Server) -> Spec {
    Spec {
        address: server.address.clone(),
        pid: server.guard.pid(),
        tree: server.tree,
        upstream_pid: bench.upstream.guard.pid(),
        model: server.model.to_owned(),
        warmup_ms: bench.warmup_ms,
        window_ms: bench.window_ms,
        ..Spec::default()
    }
}

/// The outcomes of load runs at the same time.
fn run_together(specs: &[Spec], report: &mut Report) -> io::Result<Vec<Value>> {
    let outcomes: Vec<io::Result<Value>> = thread::scope(|scope| {
        let runs: Vec<_> = specs.iter().map(|spec| scope.spawn(|| servers::run_load(spec))).collect();
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|_| Err(io::Error::other("a load died"))))
            .collect()
    });
    let outcomes = outcomes.into_iter().collect::<io::Result<Vec<Value>>>()?;
    specs.iter().zip(&outcomes).for_each(|(spec, outcome)| keep_errors(spec, outcome, report));
    Ok(outcomes)
}
