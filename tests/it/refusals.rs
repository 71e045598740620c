//! Whose request a line of the log is about: of those that no handler sees, and of those that are relayed, also behind a trusted proxy.

use regex::Regex;
use serde_json::{Value, json};

use crate::support::calls::{DONE, TOKEN, assert_error, bare, completion, event, post};
use crate::support::client::Client;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"p1/m"}"#;

fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.handle(CHAT, |_| Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// The words of a line of text, without its time.
fn words(line: &str) -> String {
    let volatile = Regex::new(r"^\S+ \S+ |req_[0-9a-f]+").expect("regex");
    volatile.replace_all(line, "").into_owned()
}

#[test]
fn request_refused_by_the_front_has_a_line_with_its_client_and_what_is_known_of_it() {
    let (_upstream, proxy) = start(json!({"client_timeout": 0.5, "max_request_size": 1000}));
    let post = format!("POST {CHAT} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {TOKEN}\r\n");
    let chat = format!("method=POST path={CHAT}");
    let unknown = "method=- path=-";
    for (request, status, reason, asked, detail) in [
        (
            "\x16\x03\x01\x02\x00\x01".to_owned(),
            400,
            "bad_request",
            unknown,
            r#""TLS on a port of plain HTTP""#,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bad_request", unknown, r#""bare LF""#),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request", unknown, "Host"),
        (format!("{post}Content-Length: 1001\r\n\r\n"), 413, "body_too_large", &*chat, "-"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n3e9\r\n"), 413, "body_too_large", &chat, "-"),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
            400,
            "bad_request",
            &chat,
            r#""chunk size""#,
        ),
        (format!("{post}Content-Length: 9\r\n\r\n{{"), 408, "client_timeout", &chat, "-"),
        ("GET / HT".to_owned(), 408, "client_timeout", unknown, "-"),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000)), 414, "uri_too_long", unknown, "-"),
        (format!("{post}Expect: much\r\n\r\n"), 417, "expectation_failed", unknown, "-"),
        (format!("{post}A: {}\r\n\r\n", "a".repeat(40_000)), 431, "head_too_large", unknown, "-"),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 501, "not_implemented", unknown, "-"),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505, "version_not_supported", unknown, "-"),
    ] {
        let mut client = proxy.client();
        client.send(&request);
        let message = assert_error(&client.response(), status, reason);
        assert_eq!(message.contains("plain HTTP"), request.starts_with('\x16'), "{message}");
        let parts = [format!("{status} {reason} client="), format!("detail={detail} ")];
        let line = proxy.log_line(&[&parts[0], &parts[1], asked]);
        let level = if status < 500 { "WARNING" } else { "ERROR" };
        let expected = format!(
            "{level} {status} {reason} client=127.0.0.1 {asked} request_id= detail={detail} left_out=0"
        );
        assert_eq!(words(&line), expected);
    }
}

#[test]
fn tls_handshake_whose_first_byte_comes_alone_is_recognized() {
    let (_upstream, proxy) = start(json!({"language": "zh"}));
    let mut client = proxy.client();
    client.send("\x16");
    assert!(client.is_silent_for(std::time::Duration::from_millis(50)));
    client.send("\x03\x01");
    let message = assert_error(&client.response(), 400, "bad_request");
    assert_eq!(message, "此端口使用 HTTP，不使用 TLS (https://)");
    let mut other = proxy.client();
    other.send("\x16\x02");
    assert!(assert_error(&other.response(), 400, "bad_request").ends_with("no method"));
}

#[test]
fn client_over_the_limit_of_clients_has_a_line() {
    let (_upstream, proxy) = start(json!({"max_clients": 1}));
    let mut held = proxy.client();
    assert_eq!(held.call(bare("GET", "/healthz", &[])).status, 200);
    let message = assert_error(&proxy.client().response(), 503, "overloaded");
    assert_eq!(message, "the server is busy (max_clients is reached), try again later");
    let line = proxy.log_line(&["503 overloaded"]);
    assert_eq!(
        words(&line),
        "ERROR 503 overloaded client=127.0.0.1 method=- path=- request_id= detail=max_clients left_out=0"
    );
}

#[test]
fn refusals_of_the_front_share_the_bound_of_their_reason() {
    let (_upstream, proxy) = start(json!({}));
    for _ in 0..30 {
        let mut client = proxy.client();
        client.send("\x16\x03\x01");
        client.response();
    }
    assert_eq!(proxy.get("/nowhere").status, 404);
    proxy.log_line(&["404 not_found"]);
    assert_eq!(proxy.log().matches("400 bad_request").count(), 20);
}

#[test]
fn request_line_names_the_client_and_the_endpoint() {
    let (upstream, proxy) = start(json!({"trusted_proxies": ["127.0.0.0/8"]}));
    upstream.handle("/v1/responses/resp_1/cancel", |_| Script::json(200, &json!({"id": "resp_1"})));
    let key = ("X-Api-Key", TOKEN);
    for (target, forwarded, client, endpoint) in [
        ("/v1/chat/completions", "203.0.113.7", "203.0.113.7", "/v1/chat/completions"),
        (
            "//v1/v1//chat/completions/?a=b",
            "192.0.2.1, ::ffff:203.0.113.8",
            "203.0.113.8",
            "/v1/chat/completions",
        ),
        ("/v1/responses/resp_1/cancel", "2001:db8::7", "2001:db8::7", "/v1/responses/{id}/cancel"),
        ("/v1/chat/completions", "none endpoint=/forged", "127.0.0.1", "/v1/chat/completions"),
    ] {
        proxy.call(post(target, &[key, ("X-Forwarded-For", forwarded)], BODY));
        let line = proxy.log_line(&[" INFO ", &format!("client={client} ")]);
        let part = format!(" token=tester client={client} endpoint={endpoint} reason=");
        assert!(line.contains(&part) && !line.contains("forged"), "{line}");
        assert_eq!(line.split(' ').rev().nth(2), Some("耗时:"), "{line}");
    }
}

#[test]
fn in_json_the_client_and_the_endpoint_are_fields() {
    let (_upstream, proxy) = start(json!({"log_format": "json", "log_level": "INFO"}));
    let object = |parts: &[&str]| -> Value { serde_json::from_str(&proxy.log_line(parts)).expect("JSON") };
    proxy.call(post(CHAT, &[("X-Api-Key", TOKEN), ("X-Forwarded-For", "203.0.113.7")], BODY));
    let call = object(&["\"duration\":"]);
    assert_eq!((&call["client"], &call["endpoint"]), (&json!("127.0.0.1"), &json!(CHAT)));
    proxy.client().call("\x16\x03\x01");
    let refusal = object(&["\"bad_request\""]);
    for (field, value) in [
        ("level", json!("WARNING")),
        ("status", json!(400)),
        ("client", json!("127.0.0.1")),
        ("method", Value::Null),
        ("path", Value::Null),
        ("detail", json!("TLS on a port of plain HTTP")),
        ("left_out", json!(0)),
    ] {
        assert_eq!(refusal[field], value, "{field}");
    }
}

#[test]
fn refusal_behind_a_trusted_proxy_names_the_client_that_it_forwards() {
    let (_upstream, proxy) = start(json!({"trusted_proxies": ["10.0.0.0/8", "::1", "127.0.0.1"]}));
    let guess = |forwarded: &str| {
        let fields = [("X-Api-Key", "sk-guess"), ("X-Forwarded-For", forwarded)];
        assert_error(&proxy.call(post(CHAT, &fields, BODY)), 401, "invalid_token");
    };
    guess("192.0.2.99, 203.0.113.7, 10.1.2.3");
    proxy.log_line(&["401 invalid_token client=203.0.113.7 method=POST"]);
    guess("127.0.0.1 method=GET");
    proxy.log_line(&["401 invalid_token client=127.0.0.1 method=POST"]);
    let large = [("X-Api-Key", TOKEN), ("X-Forwarded-For", "203.0.113.8"), ("Content-Length", "99999999999")];
    assert_eq!(proxy.call(bare("POST", CHAT, &large)).status, 413);
    proxy.log_line(&["413 body_too_large client=203.0.113.8 method=POST"]);
    assert!(!proxy.log().contains("192.0.2.99"));
}

#[test]
fn peer_that_is_no_trusted_proxy_names_no_other_client() {
    let (_upstream, proxy) = start(json!({"trusted_proxies": ["10.0.0.0/8", "unix"]}));
    let fields = [("X-Api-Key", "sk-guess"), ("X-Forwarded-For", "203.0.113.7")];
    assert_error(&proxy.call(post(CHAT, &fields, BODY)), 401, "invalid_token");
    proxy.log_line(&["401 invalid_token client=127.0.0.1 "]);
}

#[test]
fn trusted_proxy_makes_nobody_an_admin() {
    let (_upstream, proxy) = start(json!({"trusted_proxies": ["127.0.0.1"]}));
    for forwarded in ["127.0.0.1", "203.0.113.7", "::1", ""] {
        let fields = [("X-Forwarded-For", forwarded)];
        assert_error(&proxy.call(bare("GET", "/metrics", &fields)), 403, "forbidden");
        assert_error(&proxy.call(bare("POST", "/v1/reload", &fields)), 403, "forbidden");
    }
    assert_eq!(proxy.get("/metrics").status, 200);
}

#[test]
fn unix_socket_can_be_a_trusted_proxy() {
    for (trusted, client) in [(json!(["unix"]), "203.0.113.7"), (json!(["0.0.0.0/0", "::/0"]), "unix")] {
        let (upstream, directory) = (Upstream::new(&["m"]), TempDir::short());
        let host = format!("unix:{}", directory.join("s").display());
        let changes = json!({"host": host, "trusted_proxies": trusted});
        let proxy = Proxy::start_in(directory, &with(config(&[("p1", &upstream)]), changes), |_| {});
        let fields = [("X-Api-Key", "sk-guess"), ("X-Forwarded-For", "203.0.113.7")];
        let response = Client::connect_unix(&proxy.directory.join("s")).call(post(CHAT, &fields, BODY));
        assert_error(&response, 401, "invalid_token");
        proxy.log_line(&[&format!("401 invalid_token client={client} method=POST")]);
    }
}

#[test]
fn trusted_proxies_follow_a_reload() {
    let (upstream, proxy) = start(json!({}));
    let call = || proxy.call(post(CHAT, &[("X-Api-Key", TOKEN), ("X-Forwarded-For", "203.0.113.7")], BODY));
    assert_eq!(call().status, 200);
    proxy.log_line(&[" INFO ", "client=127.0.0.1"]);
    proxy.write_config(&with(config(&[("p1", &upstream)]), json!({"trusted_proxies": ["127.0.0.1"]})));
    let reloaded = proxy.call(post("/v1/reload", &[], ""));
    assert_eq!((reloaded.status, &reloaded.json()["restart_required"]), (200, &json!([])));
    assert_eq!(call().status, 200);
    proxy.log_line(&[" INFO ", "client=203.0.113.7"]);
}

#[test]
fn streamed_and_refused_calls_name_their_client() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::sse().chunk(event("a")).chunk(DONE).end());
    assert_eq!(
        proxy.call(post(CHAT, &[("X-Api-Key", TOKEN)], r#"{"model":"p1/m","stream":true}"#)).status,
        200
    );
    proxy.log_line(&["stream=true", &format!("client=127.0.0.1 endpoint={CHAT}")]);
    proxy.call(post(CHAT, &[("X-Api-Key", TOKEN)], "no JSON"));
    proxy.log_line(&["status=400", "client=127.0.0.1", "reason=invalid_json"]);
}
