//! What clients and providers cannot make the proxy hold: memory follows what is there, not what is claimed.

use serde_json::json;

use crate::support::calls::{ask_streamed, bare, event, get};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::{Reply, Step};
use crate::support::upstream::Upstream;

const MIB: usize = 1024 * 1024;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

#[test]
fn a_claim_reserves_nothing() {
    let (_upstream, proxy) = start(json!({"client_timeout": 60}));
    let before = proxy.resident();
    let token = format!("Bearer {}", crate::support::calls::TOKEN);
    let headers = [("Authorization", token.as_str()), ("Content-Length", "33000000")];
    let mut head = bare("POST", "/v1/chat/completions", &headers);
    head.extend_from_slice(b"{\"model\":");
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&head);
    }
    // An answer on a later connection: what came before has been read.
    assert_eq!(proxy.get("/healthz").status, 200);
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 40 * MIB, "{} MiB for 100 claims of 33 MB", grown / MIB);
}

#[test]
fn a_stream_nobody_reads_is_not_collected() {
    let (upstream, proxy) = start(json!({"client_timeout": 3, "max_response_size": 2_000_000_000}));
    let line = event(&"x".repeat(50_000));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    upstream.chat(Reply::sse().then(Step::Flood(chunk.into_bytes())));
    let before = proxy.resident();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
    }
    let seen = upstream.wait_requests(5);
    let mut most = before;
    eventually("the proxy gives them up", || {
        most = most.max(proxy.resident());
        seen.iter().all(|request| upstream.is_closed(request.connection)).then_some(())
    });
    let grown = most - before;
    assert!(grown < 30 * MIB, "{} MiB for five streams nobody read", grown / MIB);
}

#[test]
fn answers_nobody_reads_are_not_collected() {
    let (_upstream, proxy) = start(json!({"client_timeout": 2}));
    let before = proxy.resident();
    let requests = get("/").repeat(1000);
    let mut client = proxy.client();
    let mut sent = 0;
    // Until the proxy stops taking requests, and then closes.
    while sent < 200 * MIB && client.try_send(&requests).is_ok() {
        sent += requests.len();
    }
    assert!(sent < 200 * MIB, "it takes requests without end whose answers nobody reads");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 30 * MIB, "{} MiB after {} MiB of requests", grown / MIB, sent / MIB);
    assert_eq!(proxy.get("/healthz").status, 200);
}
