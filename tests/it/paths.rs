//! Variants of paths that clients use, WebSocket upgrades, and compressed bodies.

use serde_json::json;

use crate::support::calls::{TOKEN, assert_error, authorized, bare, completion, post};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

const BODY: &str = r#"{"model":"p1/m"}"#;

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m", "x/y"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({})));
    (upstream, proxy)
}

/// Spellings of a path after a client's base URL.
fn variants(path: &str) -> [String; 6] {
    let doubled = path.replace('/', "//");
    [
        path.to_owned(),
        format!("/v1/v1{path}"),
        format!("//v1{path}"),
        format!("/v1/{path}"),
        format!("/v1{path}/"),
        format!("/v1{doubled}//"),
    ]
}

#[test]
fn path_that_a_client_means_is_relayed_as_the_canonical_one() {
    let (upstream, proxy) = start();
    for path in crate::relay::PATHS {
        upstream.respond(&format!("/v1{path}"), Script::json(200, &completion("hello")));
        for variant in variants(path) {
            let response = proxy.call(authorized(&format!("{variant}?a=%2F/&b=//"), BODY));
            assert_eq!(response.status, 200, "{variant}: {}", response.text());
            assert_eq!(upstream.last().target, format!("/v1{path}?a=%2F/&b=//"), "{variant}");
        }
    }
}

#[test]
fn path_with_an_id_is_understood_likewise() {
    let (upstream, proxy) = start();
    for target in variants("/models") {
        assert_eq!(proxy.get(&target).json()["object"], "list", "{target}");
    }
    for target in variants("/models/p1/m").iter().chain(&variants("/models/p1%2Fm")) {
        assert_eq!(proxy.get(target).json()["id"], "p1/m", "{target}");
    }
    upstream.respond("/v1/responses/resp_1", Script::json(200, &json!({"id": "resp_1"})));
    for target in variants("/responses/resp_1") {
        let response = proxy.call(bare("GET", &format!("{target}?x=1"), &[("X-Api-Key", TOKEN)]));
        assert_eq!(response.json()["id"], "resp_1", "{target}");
        assert_eq!(upstream.last().target, "/v1/responses/resp_1?x=1");
    }
}

#[test]
fn path_of_anthropics_api_gets_its_own_errors() {
    let (_upstream, proxy) = start();
    for target in variants("/messages") {
        let response = proxy.call(post(&target, &[], BODY));
        assert_eq!((response.status, &response.json()["type"]), (401, &json!("error")), "{target}");
    }
}

#[test]
fn path_of_an_operators_call_is_taken_as_it_is() {
    let (_upstream, proxy) = start();
    for (method, path) in
        [("GET", "/v1/status"), ("POST", "/v1/reload"), ("GET", "/metrics"), ("GET", "/healthz")]
    {
        assert_eq!(proxy.call(bare(method, path, &[])).status, 200, "{path}");
        for target in variants(path.trim_start_matches("/v1")) {
            if target != path {
                assert_error(&proxy.call(bare(method, &target, &[])), 404, "not_found");
            }
        }
    }
}

#[test]
fn unknown_path_stands_in_the_error_as_it_was_sent() {
    let (_upstream, proxy) = start();
    for target in
        ["/v1", "//", "/v2/chat/completions", "/v1/chat/../models", "/v1/chat/completions/x", "/v1/./models"]
    {
        let message = assert_error(&proxy.call(authorized(target, BODY)), 404, "not_found");
        assert!(message.contains(target), "{target}: {message}");
    }
    assert_error(&proxy.call(bare("GET", "/chat/completions/", &[])), 405, "method_not_allowed");
    for target in ["/v2/chat/completions", "/openai/chat/completions/", "/v1/chat/completion"] {
        let message = assert_error(&proxy.call(authorized(target, BODY)), 404, "not_found");
        assert!(
            message.ends_with("/v1/chat/completions?") || message.ends_with("/v1/chat/completions？"),
            "{message}"
        );
    }
}

#[test]
fn websocket_upgrade_is_refused_with_what_to_use() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    for target in
        ["/v1/responses", "/responses", "/v1/realtime?model=p1/m", "/v1/chat/completions", "/nowhere"]
    {
        for upgrade in ["websocket", "h2c, WebSocket"] {
            let fields = [("Connection", "Upgrade"), ("Upgrade", upgrade), ("Sec-WebSocket-Version", "13")];
            let response = client.call(bare("GET", target, &fields));
            assert_error(&response, 426, "upgrade_required");
            assert_eq!(response.header("upgrade"), Some("HTTP/1.1"));
            assert_eq!(response.header("connection"), Some("upgrade"));
        }
    }
    // Another protocol is only an offer, which may be ignored.
    let fields = [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("X-Api-Key", TOKEN)];
    assert_eq!(client.call(bare("GET", "/v1/models", &fields)).status, 200);
    assert_eq!(client.call(post("/v1/chat/completions", &fields, BODY)).status, 200);
    assert_eq!(upstream.requests().len(), 1);
    // RFC 9110 section 7.8.
    assert_eq!(proxy.call("GET /healthz HTTP/1.0\r\nUpgrade: websocket\r\n\r\n").status, 200);
}

#[test]
fn compressed_body_is_refused_on_every_relayed_path() {
    let (upstream, proxy) = start();
    let forms = crate::forms::PATHS.iter();
    for path in crate::relay::PATHS.iter().chain(forms).chain(&["/responses/resp_1/cancel"]) {
        for coding in ["gzip", "zstd", "identity, br", "x-anything"] {
            let fields = [("X-Api-Key", TOKEN), ("Content-Encoding", coding)];
            let response = proxy.call(post(&format!("/v1{path}"), &fields, "\x1f\u{8b}\x08"));
            assert_error(&response, 415, "unsupported_encoding");
            assert_eq!(response.header("accept-encoding"), Some("identity"));
        }
    }
    let fields = [("Content-Encoding", "gzip")];
    assert_error(&proxy.call(post("/v1/chat/completions", &fields, "x")), 401, "missing_token");
    let fields = [("X-Api-Key", TOKEN), ("Content-Encoding", "Identity,")];
    assert_eq!(proxy.call(post("/v1/chat/completions", &fields, BODY)).status, 200);
    assert_eq!(upstream.requests().len(), 1);
}
