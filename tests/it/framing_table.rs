//! A table of raw requests, each with its one correct response. No row gets a hidden request handled or
//! relayed, and the next client's request succeeds. Ideas: RFC 9112 section 11, h1spec, http-garden,
//! PortSwigger's lists.

pub mod rows;

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::calls::{TOKEN, assert_error, completion, get};
use crate::support::client::{Client, End};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;
use rows::{BODY, Fate, Row};

/// A request that no row may get handled or relayed.
const SMUGGLED: &str = r#"{"model":"p1/smuggled"}"#;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let changes = with(json!({"max_request_size": 100_000, "max_retries": 0}), changes);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// A whole chat request at a place where only a second reading of the bytes before it would find it.
fn smuggled() -> Vec<u8> {
    let length = SMUGGLED.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {length}\r\n\r\n{SMUGGLED}"
    )
    .into_bytes()
}

#[test]
fn every_row_gets_its_response_and_nothing_else() {
    let rows = rows::all();
    assert!(rows.len() >= 120, "{} rows", rows.len());
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "a name stands there twice");
    let (upstream, proxy) = start(json!({}));
    let mut relayed = 0;
    for row in &rows {
        let was_running = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exchange(&proxy, row)));
        assert!(was_running.is_ok(), "in the row {:?}: {:?}", row.name, String::from_utf8_lossy(&row.bytes));
        relayed += row.relayed;
        let seen = upstream.requests();
        assert_eq!(seen.len(), relayed, "relayed after {:?}", row.name);
        assert!(seen.iter().all(|request| request.body == br#"{"model":"m"}"#), "after {:?}", row.name);
        assert_eq!(proxy.get("/healthz").text(), r#"{"status":"ok"}"#, "after {:?}", row.name);
    }
}

/// Sends a row, and checks the number and kind of its responses.
fn exchange(proxy: &Proxy, row: &Row) {
    let mut client = proxy.client();
    // After an error the proxy must not look for a request; it may close before everything is sent.
    let tail = if row.fate == Fate::Closed { smuggled() } else { get("/?in-step") };
    drop(client.try_send([row.bytes.clone(), tail].concat()));
    for &(status, reason) in &row.responses {
        let response = client.response();
        assert_eq!(response.status, status, "{}", response.text());
        if status >= 400 {
            assert_error(&response, status, reason);
        }
        assert_ne!(response.end, End::Cut);
    }
    if row.fate == Fate::Kept {
        assert_eq!(client.response().json()["name"], "ai-proxy", "out of step");
        client.end_sending();
    }
    assert!(client.is_closed());
}

/// A truncated request is no request: it is never relayed, and a client that waits for a response learns why.
#[test]
fn no_truncation_is_a_request() {
    let (upstream, proxy) = start(json!({}));
    let lengthy = rows::chat("Content-Length: 16", BODY);
    let chunked =
        rows::chat("Transfer-Encoding: chunked", "10;a=b\r\n{\"model\":\"p1/m\"}\r\n0\r\nT: v\r\n\r\n");
    for request in [lengthy, chunked] {
        for end in 0..request.len() {
            let mut client = proxy.client();
            client.send(&request[..end]);
            client.end_sending();
            if end > 0 {
                assert_error(&client.response(), 400, "bad_request");
            }
            assert!(client.is_closed(), "cut at {end}");
        }
    }
    assert!(upstream.requests().is_empty(), "a part of a request was relayed");
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// The same with a client that stays: at each cut the proxy waits, responds that it waited too long, and
/// closes.
#[test]
fn a_truncation_that_stays_open_is_408_at_every_byte() {
    let (upstream, proxy) = start(json!({"client_timeout": 1, "idle_timeout": 1}));
    let request = rows::chat("Transfer-Encoding: chunked", "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n");
    let mut waiting: Vec<(usize, Client)> = Vec::new();
    for end in 0..request.len() {
        let mut client = proxy.client();
        client.send(&request[..end]);
        waiting.push((end, client));
    }
    for (end, mut client) in waiting {
        if end > 0 {
            assert_error(&client.response(), 408, "client_timeout");
        }
        assert!(client.is_closed(), "cut at {end}");
    }
    assert!(upstream.requests().is_empty(), "a part of a request was relayed");
    assert_eq!(proxy.get("/healthz").status, 200);
}
