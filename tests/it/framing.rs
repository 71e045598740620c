//! Bodies over the limit, and the rest of a refused one.

use crate::framing_table::rows;
use crate::support::calls::{assert_error, chat, completion, get};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

use serde_json::json;

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let config = with(config(&[("p1", &upstream)]), json!({"max_request_size": 100_000}));
    let proxy = Proxy::start(&config);
    (upstream, proxy)
}

#[test]
fn bounds_the_body() {
    let (upstream, proxy) = start();
    let body_of = |length: usize| {
        let start = r#"{"model":"p1/m","x":""#;
        format!("{start}{}\"}}", "a".repeat(length - start.len() - 2))
    };
    assert_eq!(proxy.call(chat(body_of(100_000))).status, 200);
    assert_eq!(upstream.last().body.len(), 100_000 - "p1/".len());
    assert_error(&proxy.call(chat(body_of(100_001))), 413, "body_too_large");

    let body = body_of(100_001);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut client = proxy.client();
    drop(client.try_send(rows::chat("Transfer-Encoding: chunked", &chunked)));
    assert_error(&client.response(), 413, "body_too_large");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn small_refused_body_is_drained_and_the_connection_stays() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    let without_token = chat("x".repeat(10_000));
    let without_token = String::from_utf8(without_token).expect("text").replace("Authorization", "X-Nothing");
    for _ in 0..3 {
        assert_error(&client.call(&without_token), 401, "missing_token");
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
}

#[test]
fn body_over_the_limit_is_drained_and_the_connection_stays() {
    let upstream = Upstream::new(&["m"]);
    let config = with(config(&[("p1", &upstream)]), json!({"max_request_size": 1000}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.client();
    let body = "x".repeat(10_000);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for request in
        [rows::chat("Content-Length: 10000", &body), rows::chat("Transfer-Encoding: chunked", &chunked)]
    {
        assert_error(&client.call(&request), 413, "body_too_large");
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
}

#[test]
fn response_to_a_large_refused_body_can_be_read() {
    let (_upstream, proxy) = start();
    for _ in 0..5 {
        let mut client = proxy.client();
        // The client sends everything before it reads; a plain close would reset the connection and lose the
        // response.
        drop(client.try_send(chat("x".repeat(400_000))));
        assert_error(&client.response(), 413, "body_too_large");
        assert!(client.is_closed());
    }
}

#[test]
fn response_comes_before_a_large_refused_body_is_sent() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    client.send(rows::chat("Content-Length: 50000000", "{"));
    let response = client.response();
    assert_error(&response, 413, "body_too_large");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.is_closed());
}
