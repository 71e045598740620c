//! Basic replicas and virtual models: the next attempt after a failed one.

use serde_json::json;
use std::time::Duration;

use crate::support::calls::{DONE, KEY, ask, ask_streamed, assert_error, completion, event};
use crate::support::client::End;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

fn responding(text: &str) -> Upstream {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion(text)));
    upstream
}

fn failing(status: u16) -> Upstream {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(status, &json!({"error": {"message": "scripted"}})));
    upstream
}

#[test]
fn the_next_model_of_a_virtual_one_is_tried() {
    for status in [401, 402, 403, 408, 429, 500, 502, 503, 504, 529] {
        let (bad, good) = (failing(status), responding("from two"));
        let virtuals = json!({"models": {"best": ["p1/m", "p2/m"]}});
        let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p2", &good)]), virtuals));
        let response = proxy.call(ask("best"));
        assert_eq!(response.json(), completion("from two"));
        assert_eq!(response.header("x-ai-proxy-provider"), Some("p2"));
        assert_eq!(bad.requests().len(), 1);
    }
}

#[test]
fn what_a_retry_cannot_mend_is_not_retried() {
    for status in [400, 404, 409, 413, 422, 501] {
        let (bad, good) = (failing(status), responding("from two"));
        let virtuals = json!({"models": {"best": ["p1/m", "p2/m"]}});
        let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p2", &good)]), virtuals));
        assert_eq!(proxy.call(ask("best")).status, status);
        assert!(good.requests().is_empty());
    }
}

#[test]
fn a_replica_stands_in_for_another() {
    let (bad, good) = (responding("unused"), responding("from the other"));
    bad.chat(Script::default().then(Step::Reset));
    let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &good)]));
    for _ in 0..6 {
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("from the other"));
    }
}

#[test]
fn client_gets_the_last_response() {
    let (one, two) = (failing(500), failing(503));
    let virtuals = json!({"models": {"best": ["p1/m", "p2/m"]}});
    let proxy = Proxy::start(&with(config(&[("p1", &one), ("p2", &two)]), virtuals));
    let response = proxy.call(ask("best"));
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["error"]["message"], "scripted");
    assert_eq!(one.requests().len() + two.requests().len(), 2);
}

#[test]
fn max_retries_bounds_the_attempts() {
    let bad: Vec<Upstream> = (0..4).map(|_| failing(503)).collect();
    let named = [("p1", &bad[0]), ("p2", &bad[1]), ("p3", &bad[2]), ("p4", &bad[3])];
    for (retries, attempts) in [(0, 1), (2, 3)] {
        let before: usize = bad.iter().map(|upstream| upstream.requests().len()).sum();
        let changes = json!({
            "max_retries": retries,
            "models": {"best": ["p1/m", "p2/m", "p3/m", "p4/m"]},
        });
        let proxy = Proxy::start(&with(config(&named), changes));
        assert_eq!(proxy.call(ask("best")).status, 503);
        let after: usize = bad.iter().map(|upstream| upstream.requests().len()).sum();
        assert_eq!(after - before, attempts);
    }
}

#[test]
fn a_lone_replica_is_not_asked_twice_for_a_status() {
    let bad = failing(500);
    let proxy = Proxy::start(&config(&[("p1", &bad)]));
    assert_eq!(proxy.call(ask("p1/m")).status, 500);
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn a_refused_connection_falls_through_to_the_next() {
    let good = responding("from two");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let changes = json!({
        "providers": [format!("p1|http://{port}/v1|{KEY}"), format!("p2|{}|{KEY}", good.url())],
        "models": {"best": ["p1/m", "p2/m"]},
    });
    let proxy = Proxy::start(&with(config(&[]), changes));
    assert_eq!(proxy.call(ask("best")).json(), completion("from two"));
}

#[test]
fn a_stream_that_breaks_before_its_first_byte_goes_to_the_next() {
    for step in [Step::Fin, Step::Reset] {
        let (bad, good) = (responding("unused"), responding("unused"));
        bad.chat(Script::sse().then(step));
        good.chat(Script::sse().chunk(event("from two")).chunk(DONE).end());
        let virtuals = json!({"models": {"best": ["p1/m", "p2/m"]}});
        let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p2", &good)]), virtuals));
        let response = proxy.call(ask_streamed("best"));
        assert_eq!((response.status, response.text()), (200, event("from two") + DONE));
        assert_eq!(response.header("x-ai-proxy-provider"), Some("p2"));
    }
}

#[test]
fn a_stream_that_has_begun_goes_nowhere_else() {
    let (bad, good) = (responding("unused"), responding("unused"));
    bad.chat(Script::sse().chunk(event("half")).then(Step::Fin));
    let virtuals = json!({"models": {"best": ["p1/m", "p2/m"]}});
    let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p2", &good)]), virtuals));
    let response = proxy.call(ask_streamed("best"));
    assert!(response.text().starts_with(&event("half")) && response.end == End::Cut);
    assert!(good.requests().is_empty());
}

#[test]
fn one_time_limit_spans_all_attempts() {
    let slow: Vec<Upstream> = (0..4).map(|_| failing(503)).collect();
    for upstream in &slow {
        let response = "HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        upstream.chat(Script::default().then(Step::Pause(Duration::from_millis(900))).send(response));
    }
    let named = [("p1", &slow[0]), ("p2", &slow[1]), ("p3", &slow[2]), ("p4", &slow[3])];
    let changes = json!({
        "max_retries": 9, "non_stream_timeout": 1.5, "attempt_timeout": 1.5,
        "models": {"best": ["p1/m", "p2/m", "p3/m", "p4/m"]},
    });
    let proxy = Proxy::start(&with(config(&named), changes));
    // If each attempt had the total time, all four would respond.
    assert_error(&proxy.call(ask("best")), 504, "upstream_timeout");
    assert!(slow[3].requests().is_empty(), "the last is never reached");
}
