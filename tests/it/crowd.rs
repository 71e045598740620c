//! Crowds of idle, slow and stalled clients: ordinary requests keep their latency, measured against the quiet server in
//! the same run.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::calls::{ask, ask_streamed, chat, completion, event, get};
use crate::support::client::{Client, timed};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

/// How much longer the median may take in a crowd: a factor, plus the noise of two busy processors.
const FACTOR: u32 = 5;
const NOISE: Duration = Duration::from_millis(10);
/// Descriptors for the tests that run at the same time.
const OTHERS: u64 = 3000;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let changes = with(json!({"max_clients": 12_000, "client_timeout": 60, "log_level": "ERROR"}), changes);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// The median time of a relayed request on a kept connection, and of one on a connection of its own.
fn medians(proxy: &Proxy) -> [Duration; 2] {
    let mut client = proxy.client();
    let kept = (0..100).map(|_| timed(|| assert_eq!(client.call(ask("p1/m")).status, 200)).0);
    let kept: Vec<Duration> = kept.collect();
    let fresh = (0..50).map(|_| timed(|| assert_eq!(proxy.call(ask("p1/m")).status, 200)).0);
    [kept, fresh.collect()].map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

fn assert_no_slower(proxy: &Proxy, quiet: [Duration; 2], crowd: &str) {
    let now = medians(proxy);
    for (before, now) in quiet.into_iter().zip(now) {
        assert!(now < before * FACTOR + NOISE, "{crowd}: {now:?}, {before:?} in the quiet");
    }
}

/// As many clients as the issue asks for, or as the hard limit of open files allows.
fn crowd_of(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("raised");
    let count = wanted.min(hard.saturating_sub(OTHERS));
    assert!(count >= wanted / 10, "a hard limit of {hard} open files leaves too few for a crowd");
    count
}

#[test]
fn ten_thousand_idle_connections() {
    let (_upstream, proxy) = start(json!({}));
    let quiet = medians(&proxy);
    let before = proxy.resident();
    let count = crowd_of(10_000);
    let mut crowd: Vec<Client> = (0..count).map(|_| proxy.client()).collect();
    for client in crowd.iter_mut().step_by(10) {
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
    assert_no_slower(&proxy, quiet, "idle clients");
    let each = proxy.resident().saturating_sub(before) / crowd.len();
    assert!(each < 2048, "{each} bytes for each of {count} idle clients");
    // An idle client keeps its connection: a request on the last one succeeds.
    assert_eq!(crowd.pop().expect("a client").call(get("/healthz")).status, 200);
}

#[test]
fn a_thousand_that_drip() {
    let (_upstream, proxy) = start(json!({}));
    let quiet = medians(&proxy);
    crowd_of(1_000);
    let body = chat("x".repeat(4096));
    let head = get(&format!("/{}", "a".repeat(4096)));
    let mut crowd: Vec<(Client, &[u8])> = (0..1_000)
        .map(|number| match number % 2 {
            0 => (proxy.client(), &head[..]),
            _ => (proxy.client(), &body[..]),
        })
        .collect();
    // Clients that drip a body send their heads at once.
    for (client, rest) in crowd.iter_mut().skip(1).step_by(2) {
        let start = rest.len() - 4096;
        client.send(&rest[..start]);
        *rest = &rest[start..];
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (client, rest) in &mut crowd {
                    let (byte, left) = rest.split_at(1);
                    client.send(byte);
                    *rest = left;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_no_slower(&proxy, quiet, "drips");
        }));
        over.store(true, Ordering::Relaxed);
        assert!(outcome.is_ok(), "see above");
    });
}

#[test]
fn a_hundred_that_do_not_read() {
    // Requests wait for a permit as long as the machine needs for large responses: only those that succeed
    // are measured.
    let changes = json!({"max_connections": 40, "max_stream_size": 100_000_000, "queue_timeout": 60});
    let (upstream, proxy) = start(changes);
    let quiet = medians(&proxy);
    let respond = |request: &crate::support::upstream::Request| {
        if !request.text().contains("large") {
            return Script::json(200, &completion("hello"));
        }
        if request.text().contains("stream") {
            let line = event(&"x".repeat(50_000));
            let chunk = format!("{:x}\r\n{line}\r\n", line.len());
            return Script::sse().then(Step::Flood(chunk.into_bytes()));
        }
        Script::whole(200, &[("Content-Type", "application/json")], "x".repeat(500_000))
    };
    upstream.handle("/v1/chat/completions", respond);
    let whole = chat(r#"{"model":"p1/m","user":"large"}"#);
    let streamed = chat(r#"{"model":"p1/m","user":"large","stream":true}"#);
    let mut crowd: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        // A stream holds its permit until `client_timeout` is over; a buffered response does not.
        client.send(if number % 10 == 0 { &streamed } else { &whole });
    }
    upstream.wait_requests(100 + 300 / 2);
    // Only the streams are left.
    eventually("buffered responses are on their way", || {
        proxy.get("/metrics").text().contains("\nai_proxy_requests_in_flight 10\n").then_some(())
    });
    assert_no_slower(&proxy, quiet, "clients that do not read");
    drop(crowd);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    }
}
