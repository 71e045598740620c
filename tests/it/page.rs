//! `GET /`: JSON for programs, a page for browsers; and `/v1/status`, the data of the page.

use serde_json::{Value, json};

use crate::support::calls::{DONE, KEY, TOKEN, ask_streamed, assert_error, bare, event, post};
use crate::support::client::Response;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

fn index(proxy: &Proxy, accept: &str) -> Response {
    proxy.call(bare("GET", "/", &[("Accept", accept)]))
}

#[test]
fn a_browser_gets_a_page_that_may_run_and_fetch_nothing_but_its_own() {
    let (_upstream, proxy) = start(json!({}));
    let page = index(&proxy, BROWSER);
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("vary"), Some("Accept"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    for part in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next());
    let nonce = nonce.expect("a nonce");
    assert!(nonce.len() >= 20, "{nonce}");
    assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    let again = index(&proxy, BROWSER).header("content-security-policy").expect("a policy").to_owned();
    assert_ne!(again, policy, "no nonce twice");
    let head = proxy.call(bare("HEAD", "/", &[("Accept", BROWSER)]));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("text/html; charset=utf-8"));
}

#[test]
fn everyone_else_gets_json() {
    let (_upstream, proxy) = start(json!({}));
    for accept in ["*/*", "application/json", "application/json, text/plain, */*", "text/html;q=0.1, */*"] {
        let response = index(&proxy, accept);
        assert_eq!(response.header("content-type"), Some("application/json"), "{accept}");
        assert_eq!(response.header("vary"), Some("Accept"), "{accept}");
        assert_eq!(response.json()["name"], "ai-proxy", "{accept}");
    }
    assert_eq!(proxy.get("/").json()["name"], "ai-proxy");
}

#[test]
fn the_status_tells_how_each_replica_stands_and_no_secret() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    upstream.wait_requests(1);
    let status = eventually("a check", || {
        let status = proxy.get("/v1/status").json();
        (status["providers"][0]["replicas"][0]["healthy"] == true).then_some(status)
    });
    let replica = &status["providers"][0]["replicas"][0];
    assert_eq!(status["providers"][0]["name"], "p1");
    assert_eq!(replica["url"], upstream.url());
    assert_eq!(replica["in_flight"], 1);
    assert_eq!(replica["cooling_seconds"], Value::Null);
    assert_eq!(replica["error"], Value::Null);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let lines: Vec<&str> =
        status["config"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    assert!(lines.iter().any(|line| line.contains("p1")) && lines.len() > 5, "{lines:?}");
    let text = status.to_string();
    assert!(!text.contains(KEY) && !text.contains(TOKEN), "{text}");
    gate.open();
    assert_eq!(client.response().status, 200);
}

#[test]
fn status_has_what_the_last_minutes_brought_and_the_last_errors() {
    let long = "x".repeat(300);
    let (upstream, proxy) = start(json!({"max_retries": 0, "models": {"fast": ["p1/m", "p1/n"]}}));
    upstream.chat(Script::sse().chunk(event("a")).chunk(DONE).end());
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    upstream.chat(Script::whole(500, &[("Content-Type", "application/json")], r#"{"error":"its words"}"#));
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 500);
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Fin));
    proxy.call(ask_streamed("fast"));
    assert_error(&proxy.call(ask_streamed("none/m")), 404, "model_not_found");
    assert_error(&proxy.call(ask_streamed(&long)), 400, "invalid_model");
    assert_error(
        &proxy.call(post("/v1/chat/completions", &[("X-Request-Id", "mine")], "{}")),
        401,
        "missing_token",
    );
    let status = eventually("the last call to be counted", || {
        let status = proxy.get("/v1/status").json();
        let is_whole = status["recent"]["requests"] == 3 && status["last_errors"][4].is_object();
        is_whole.then_some(status)
    });
    for recent in [&status["recent"], &status["providers"][0]["recent"]] {
        assert_eq!((&recent["requests"], &recent["failures"]), (&json!(3), &json!(1)));
        assert!(
            recent["p50_ms"].is_u64() && recent["p95_ms"].is_u64() && recent["first_byte_p50_ms"].is_u64()
        );
    }
    let target = |model: &str| json!({"provider": "p1", "model": model});
    assert_eq!(status["models"], json!([{"name": "fast", "targets": [target("m"), target("n")]}]));
    // A call is noted after its response has left: the next one may come first.
    let mut errors = status["last_errors"].as_array().expect("errors").clone();
    errors.sort_by_key(|error| error["status"].as_u64());
    let shown =
        |error: &Value| ["status", "reason", "provider", "model", "token"].map(|key| error[key].clone());
    let row = |status: u16,
               reason: Option<&str>,
               provider: Option<&str>,
               model: Option<&str>,
               token: Option<&str>| {
        [json!(status), json!(reason), json!(provider), json!(model), json!(token)]
    };
    let expected = [
        row(200, Some("upstream_broken"), Some("p1"), Some("fast"), Some("tester")),
        row(400, Some("invalid_model"), None, None, Some("tester")),
        row(401, Some("missing_token"), None, None, None),
        row(404, Some("model_not_found"), None, Some("none/m"), Some("tester")),
        row(500, None, Some("p1"), Some("p1/m"), Some("tester")),
    ];
    assert_eq!(errors.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(errors[2]["request_id"], "mine");
    assert!(errors[1]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{errors:?}");
    assert_eq!(status["history"]["interval_seconds"], 10);
    let text = status.to_string();
    assert!(!text.contains("its words") && !text.contains(KEY) && !text.contains(TOKEN), "{text}");
}

#[test]
fn status_lists_a_bounded_number_of_errors() {
    let (_upstream, proxy) = start(json!({}));
    for _ in 0..60 {
        assert_eq!(proxy.get("/nothing").status, 404);
    }
    let status = proxy.get("/v1/status").json();
    assert_eq!(status["last_errors"].as_array().map(Vec::len), Some(50));
}

#[test]
fn replica_in_cooldown_shows_for_how_long() {
    let (upstream, proxy) = start(json!({"max_retries": 0}));
    upstream.chat(Script::whole(429, &[("Content-Type", "application/json"), ("Retry-After", "100")], "{}"));
    proxy.call(ask_streamed("p1/m"));
    let replica = || proxy.get("/v1/status").json()["providers"][0]["replicas"][0].clone();
    let seconds = eventually("a cooldown", || replica()["cooling_seconds"].as_u64());
    assert!((50..=100).contains(&seconds), "{seconds}");
    assert_eq!(replica()["last_failure"], "HTTP 429");
}

#[test]
fn a_page_of_another_site_is_not_the_operator() {
    let (_upstream, proxy) = start(json!({"cors_origins": ["*"]}));
    let own = ("Origin", "http://proxy.test");
    assert_eq!(proxy.call(bare("GET", "/v1/status", &[own])).status, 200);
    for foreign in ["http://evil.example", "null", "http://proxy.test.evil.example", "file://"] {
        let origin = ("Origin", foreign);
        for path in ["/v1/status", "/metrics"] {
            assert_error(&proxy.call(bare("GET", path, &[origin])), 403, "forbidden");
        }
        assert_error(&proxy.call(post("/v1/reload", &[origin], "")), 403, "forbidden");
        let token = format!("Bearer {TOKEN}");
        assert_eq!(proxy.call(bare("GET", "/v1/status", &[origin, ("Authorization", &token)])).status, 200);
    }
}
