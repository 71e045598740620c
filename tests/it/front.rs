//! HTTP/1.1 as it should be: connections kept, requests in a row, HEAD, chunked bodies, 100-continue.

use regex::Regex;
use serde_json::json;
use std::time::Duration;

use crate::support::calls::{TOKEN, ask, assert_error, bare, chat, completion, get, media_type, post};
use crate::support::client::{Client, End};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

const BODY: &str = r#"{"model":"p1/m"}"#;

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    (upstream, proxy)
}

/// Head of a chat request whose body is framed by `framing`.
fn chat_head(framing: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n"
    )
}

#[test]
fn keeps_the_connection() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.call(get("/healthz"));
        assert_eq!((response.status, response.end), (200, End::Length));
        assert_eq!(response.text(), r#"{"status":"ok"}"#);
        assert_eq!(client.call(ask("p1/m")).status, 200);
        assert_error(&client.call(chat("{}")), 400, "missing_model");
    }
}

#[test]
fn pipeline_gets_responses_in_order() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    client.send([get("/healthz"), get("/nowhere"), get("/")].concat());
    assert_eq!(client.response().text(), r#"{"status":"ok"}"#);
    assert_eq!(client.response().status, 404);
    assert_eq!(client.response().json()["name"], "ai-proxy");
}

#[test]
fn pipeline_gets_responses_in_order_when_the_first_is_slow() {
    let (upstream, proxy) = start();
    let gate = Gate::new();
    upstream.chat(Script::default().wait(&gate).send(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"slow\": true}",
    ));
    let mut client = proxy.client();
    client.send([ask("p1/m"), get("/healthz"), ask("p1/m")].concat());
    upstream.wait_requests(1);
    assert!(client.is_silent_for(Duration::from_millis(100)));
    gate.open_for(2);
    assert_eq!(client.response().text(), "{\"slow\": true}");
    assert_eq!(client.response().text(), r#"{"status":"ok"}"#);
    assert_eq!(client.response().text(), "{\"slow\": true}");
}

#[test]
fn head_gets_the_response_of_get_without_a_body() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    for target in ["/", "/health", "/healthz", "/v1/models", "/v1/models/p1/m", "/v1/models/p1%2Fm"] {
        let whole = client.call(get(target));
        let head = client.call(bare("HEAD", target, &[]));
        assert_eq!((whole.status, head.status), (200, 200), "{target}");
        assert_eq!(whole.body.len(), head.head.content_length().expect("length"), "{target}");
        let stable = |headers: &[(String, String)]| -> Vec<(String, String)> {
            let changes = |name: &str| name == "x-request-id" || name == "date";
            headers.iter().filter(|(name, _)| !changes(name)).cloned().collect()
        };
        assert_eq!(stable(&whole.head.headers), stable(&head.head.headers), "{target}");
    }
    assert_eq!(client.call(bare("HEAD", "/nowhere", &[])).status, 404);
    assert_eq!(client.call(get("/healthz")).status, 200);
}

#[test]
fn says_continue_before_the_body() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    let framing = format!("Content-Length: {}\r\nExpect: 100-Continue", BODY.len());
    client.send(chat_head(&framing));
    let interim = client.response();
    assert_eq!((interim.status, interim.end), (100, End::NoBody));
    assert!(upstream.requests().is_empty(), "nothing to relay yet");
    assert_eq!(client.call(BODY).status, 200);
    assert_eq!(upstream.last().head.get("expect"), None);
    assert_eq!(client.call(get("/healthz")).status, 200);
}

#[test]
fn does_not_ask_for_a_body_it_will_refuse() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    client.send(chat_head("Content-Length: 99999999999\r\nExpect: 100-continue"));
    assert_error(&client.response(), 413, "body_too_large");
}

#[test]
fn refuses_an_unknown_expectation() {
    let (_upstream, proxy) = start();
    let response = proxy.call(post("/v1/chat/completions", &[("Expect", "a-miracle")], BODY));
    assert_error(&response, 417, "expectation_failed");
}

#[test]
fn reads_chunked_bodies() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    for body in [
        "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "1\r\n{\r\n00f\r\n\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "A\r\n{\"model\":\"\r\n6;name=value\r\np1/m\"}\r\n000\r\nTrailer-Field: x\r\n\r\n",
    ] {
        let response = client.call(chat_head("Transfer-Encoding: chunked") + body);
        assert_eq!(response.status, 200, "{body:?}: {}", response.text());
        let seen = upstream.last();
        assert_eq!(seen.text(), r#"{"model":"m"}"#);
        assert_eq!(seen.head.content_length(), Some(13));
        assert_eq!(seen.head.all("trailer-field"), Vec::<&str>::new());
    }
}

#[test]
fn closes_when_asked() {
    let (_upstream, proxy) = start();
    for request in
        [bare("GET", "/healthz", &[("Connection", "close")]), bare("GET", "/", &[("Connection", "x, Close")])]
    {
        let mut client = proxy.client();
        let response = client.call(request);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
}

#[test]
fn serves_http_1_0() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    let response = client.call("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"status":"ok"}"#));
    assert!(client.is_closed(), "1.0 closes unless asked to keep");

    let mut client = proxy.client();
    let keep = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let response = client.call(keep);
    if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")) {
        assert_eq!(client.call(keep).status, 200);
    } else {
        assert!(client.is_closed(), "keeping a 1.0 connection is optional, saying nothing is not");
    }
}

#[test]
fn takes_a_request_split_anywhere() {
    let (upstream, proxy) = start();
    let whole = chat_head("Content-Length: 16") + BODY;
    let chunked = chat_head("Transfer-Encoding: chunked") + "9\r\n{\"model\":\r\n7\r\n\"p1/m\"}\r\n0\r\n\r\n";
    let mut client = proxy.client();
    let mut calls = 0;
    for request in [whole, chunked] {
        for split in 1..request.len() {
            client.send(&request[..split]);
            // Long enough for most pieces to be read apart; the result does not depend on it.
            std::thread::sleep(Duration::from_millis(1));
            let response = client.call(&request[split..]);
            assert_eq!(response.status, 200, "split at {split}: {}", response.text());
            calls += 1;
        }
    }
    let seen = upstream.requests();
    assert_eq!(seen.len(), calls);
    assert!(seen.iter().all(|request| request.body == br#"{"model":"m"}"#));
}

#[test]
fn takes_a_request_byte_by_byte() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    for byte in ask("p1/m") {
        client.send([byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn skips_an_empty_line_before_a_request() {
    let (_upstream, proxy) = start();
    // RFC 9112 section 2.2: at least one, for the sake of old clients.
    assert_eq!(proxy.call("\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

#[test]
fn takes_an_absolute_target() {
    let (_upstream, proxy) = start();
    // RFC 9112 section 3.2.2: a server must accept it.
    let response = proxy.call("GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(response.text(), r#"{"status":"ok"}"#);
}

#[test]
fn says_which_methods_a_path_takes() {
    let (_upstream, proxy) = start();
    let token = format!("Bearer {TOKEN}");
    let authorization = [("Authorization", token.as_str())];
    for (method, target, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/healthz", "GET"),
        ("GET", "/v1/reload", "POST"),
    ] {
        let response = proxy.call(bare(method, target, &authorization));
        assert_error(&response, 405, "method_not_allowed");
        let allow = response.header("allow").expect("Allow");
        assert!(allow.split(',').any(|word| word.trim() == allowed), "{target}: {allow}");
        let head = allow.split(',').any(|word| word.trim() == "HEAD");
        assert_eq!(head, allowed == "GET", "HEAD goes with GET: {allow}");
    }
    for target in ["/nowhere", "/v1", "/v1/chat", "/v1/chat/completions/x", "//", "/healthz/"] {
        assert_error(&proxy.call(bare("GET", target, &authorization)), 404, "not_found");
    }
}

#[test]
fn listens_on_every_address_of_a_name() {
    let upstream = Upstream::new(&["m"]);
    let mut config = config(&[("p1", &upstream)]);
    config["host"] = "localhost".into();
    let proxy = Proxy::start(&config);
    let address = proxy.address();
    assert!(address.ip().is_loopback(), "{address}");
    for bound in &proxy.bound {
        let address = bound.strip_prefix("http://").expect("URL").parse().expect("address");
        let response = Client::connect(address).call(get("/healthz"));
        assert_eq!(response.status, 200, "{bound}");
        assert_eq!(response.header("content-type").map(media_type), Some("application/json"));
    }
}

#[test]
fn a_body_where_none_is_needed_is_no_request() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    let inner = String::from_utf8(ask("p1/m")).expect("text");
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let head =
            format!("{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", inner.len());
        let response = client.call(head + &inner);
        assert_eq!(response.status, if matches!(method, "GET" | "HEAD") { 200 } else { 405 });
        let chunks = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
        let head = format!("{method} /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let response = client.call(head + &chunks);
        assert_eq!(response.status, if matches!(method, "GET" | "HEAD") { 200 } else { 405 });
        assert_eq!(client.call(get("/?x=1")).json()["name"], "ai-proxy", "in step after {method}");
    }
    assert!(upstream.requests().is_empty(), "what stood in a body was taken for a request");
}

#[test]
fn every_response_is_dated() {
    let (upstream, proxy) = start();
    upstream.chat(Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
    // RFC 9110 section 6.6.1.
    let format =
        Regex::new(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT$")
            .expect("regex");
    for request in [get("/healthz"), get("/nowhere"), ask("p1/m"), b"nonsense\r\n\r\n".to_vec()] {
        let response = proxy.call(request);
        let date = response.header("date").unwrap_or_default();
        assert!(format.is_match(date), "{}: {date:?}", response.status);
    }
}

#[test]
fn listens_on_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("no IPv6 here: nothing was tested");
        return;
    }
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"host": "::1"})));
    assert!(proxy.address().is_ipv6(), "{:?}", proxy.bound);
    assert_eq!(proxy.get("/healthz").status, 200);
}

#[test]
fn long_pipeline_gets_responses() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    let mut requests = Vec::new();
    for _ in 0..100 {
        requests.extend([get("/healthz"), ask("p1/m"), get("/nowhere")].concat());
    }
    client.send(requests);
    for _ in 0..100 {
        assert_eq!(client.response().text(), r#"{"status":"ok"}"#);
        assert_eq!(client.response().json(), completion("hello"));
        assert_eq!(client.response().status, 404);
    }
    assert_eq!(upstream.requests().len(), 100);
}
