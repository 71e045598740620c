//! The proxy's reports on its providers' health and its own.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::calls::{KEY, ask, completion, get, post};
use crate::support::client::timed;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::{Upstream, model_list};
use crate::support::{WITHIN_A_SECOND, eventually};

fn provider(models: &[&str]) -> Upstream {
    let upstream = Upstream::new(models);
    upstream.chat(Script::json(200, &completion("hello")));
    upstream
}

#[test]
fn health_tells_of_every_provider() {
    let (one, two) = (provider(&["a"]), provider(&["b"]));
    two.respond("/v1/models", Script::whole(401, &[], format!("bad key {KEY}")));
    let proxy = Proxy::start(&config(&[("p1", &one), ("p2", &two)]));
    let response = proxy.get("/health");
    assert_eq!(response.status, 200);
    let health = response.json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["providers"], json!({"p1": true, "p2": false}));
    assert_eq!((&health["healthy_providers"], &health["total_providers"]), (&json!(1), &json!(2)));
    let details = &health["details"];
    assert!(details["p1"]["latency_ms"].is_u64(), "{details}");
    assert!(details["p1"]["checked_at"].is_string(), "{details}");
    assert_eq!(details["p1"]["error"], Value::Null);
    assert!(details["p2"]["error"].is_string(), "{details}");
    assert!(!response.text().contains(KEY));
}

#[test]
fn health_lists_providers_in_the_order_of_the_config() {
    let upstream = provider(&["a"]);
    let names = ["zhipu", "groq", "p10", "p9", "Acme"];
    let proxy = Proxy::start(&config(&names.map(|name| (name, &upstream))));
    let text = proxy.get("/health").text();
    for member in ["\"providers\":{", "\"details\":{"] {
        let map = text.split(member).nth(1).unwrap_or_else(|| panic!("{member}: {text}"));
        let mut places: Vec<usize> = Vec::new();
        places.extend(names.iter().filter_map(|name| map.find(&format!("\"{name}\":"))));
        assert!(places.len() == names.len() && places.is_sorted(), "{member} {text}");
    }
}

/// After a boot the network may come up later than the proxy.
#[test]
fn failed_check_is_repeated_long_before_its_interval() {
    let upstream = provider(&["a"]);
    upstream.respond("/v1/models", Script::json(503, &json!({})));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"health_interval": 3600})));
    assert_eq!(proxy.get("/health").status, 503);
    upstream.list(&["a"]);
    eventually("healthy, with its models", || {
        let list = proxy.get("/v1/models").json();
        (proxy.get("/health").status == 200 && list["data"][0]["id"] == "p1/a").then_some(())
    });
}

#[test]
fn relayed_success_makes_a_provider_healthy_at_once() {
    let upstream = provider(&["a"]);
    upstream.respond("/v1/models", Script::json(503, &json!({})));
    // Checks after the first hang, so no check affects the result.
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    assert_eq!(proxy.get("/health").status, 503);
    upstream.respond("/v1/models", Script::default().then(Step::Silence));
    upstream.chat(Script::json(400, &json!({"error": {"message": "no"}})));
    assert_eq!(proxy.call(ask("p1/a")).status, 400);
    assert_eq!(proxy.get("/health").status, 503, "an error of the provider says nothing");
    upstream.chat(Script::json(200, &completion("hello")));
    assert_eq!(proxy.call(ask("p1/a")).status, 200);
    let health = proxy.get("/health");
    assert_eq!((health.status, &health.json()["details"]["p1"]["error"]), (200, &Value::Null));
}

#[test]
fn health_is_200_or_503() {
    let upstream = provider(&["a"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"health_interval": 1})));
    let health = proxy.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
    upstream.respond("/v1/models", Script::json(500, &json!({})));
    let health = eventually("unhealthy", || {
        let health = proxy.get("/health");
        (health.status == 503).then_some(health)
    });
    assert_eq!(health.json()["status"], "unhealthy");
    assert_eq!(health.json()["healthy_providers"], 0);
    assert_eq!(proxy.get("/healthz").status, 200, "alive all the same");
    upstream.list(&["a"]);
    eventually("healthy again", || (proxy.get("/health").status == 200).then_some(()));
}

#[test]
fn an_unreachable_provider_is_unhealthy() {
    let upstream = provider(&["a"]);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let providers = json!([format!("p1|{}|{KEY}", upstream.url()), format!("gone|http://{port}/v1|{KEY}")]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let health = proxy.get("/health").json();
    assert_eq!(health["providers"], json!({"gone": false, "p1": true}));
    assert_eq!(proxy.get("/v1/models").json()["data"][0]["id"], "p1/a");
}

#[test]
fn health_and_models_wait_for_the_first_round_and_ask_no_more() {
    let upstream = provider(&["a"]);
    let gate = Gate::new();
    let held = gate.clone();
    upstream.handle("/v1/models", move |_| {
        let list = model_list(&["a"]).to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        Script::default().wait(&held).send(format!("{head}Content-Length: {}\r\n\r\n{list}", list.len()))
    });
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let (mut health, mut models) = (proxy.client(), proxy.client());
    health.send(get("/health"));
    models.send(get("/v1/models"));
    assert!(health.is_silent_for(Duration::from_millis(200)));
    assert!(models.is_silent_for(Duration::from_millis(200)));
    assert_eq!(proxy.get("/healthz").status, 200, "liveness waits for nobody");
    gate.open_for(100);
    assert_eq!(health.response().json()["status"], "healthy");
    assert_eq!(models.response().json()["data"][0]["id"], "p1/a");

    for _ in 0..10 {
        assert_eq!(proxy.get("/health").status, 200);
        assert_eq!(proxy.get("/v1/models").status, 200);
    }
    // At most one for the health and one for the list, however many clients ask.
    let asked = upstream.list_requests().len();
    assert!(asked <= 2, "{asked} calls within one interval");
}

#[test]
fn providers_are_asked_side_by_side() {
    let (one, two) = (provider(&["a"]), provider(&["b"]));
    let gate = Gate::new();
    for upstream in [&one, &two] {
        let held = gate.clone();
        upstream.handle("/v1/models", move |_| Script::default().wait(&held));
    }
    let _proxy = Proxy::start(&config(&[("p1", &one), ("p2", &two)]));
    // Neither responds, yet both are asked.
    for upstream in [&one, &two] {
        eventually("asked", || (!upstream.list_requests().is_empty()).then_some(()));
    }
}

#[test]
fn the_front_page_names_the_endpoints() {
    let upstream = provider(&["a"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let page = proxy.get("/");
    assert_eq!(page.status, 200);
    let page = page.json();
    assert_eq!(page["name"], "ai-proxy");
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    let endpoints = page["endpoints"].to_string();
    for path in ["/health", "/v1/models", "/v1/chat/completions", "/v1/reload"] {
        assert!(endpoints.contains(path), "{endpoints}");
    }
}

#[test]
fn a_hanging_provider_is_given_up() {
    let (one, two) = (provider(&["a"]), provider(&["b"]));
    two.respond("/v1/models", Script::default().then(Step::Silence));
    let changes = json!({"non_stream_timeout": 1});
    let proxy = Proxy::start(&with(config(&[("p1", &one), ("p2", &two)]), changes));
    let (took, health) = timed(|| proxy.get("/health"));
    assert_eq!(health.json()["providers"], json!({"p1": true, "p2": false}));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(health.json()["details"]["p2"]["error"].is_string());
    let (took, list) = timed(|| proxy.get("/v1/models"));
    assert!(list.text().contains("p1/a") && took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn after_the_first_round_no_request_waits() {
    let (one, two) = (provider(&["a"]), provider(&["b"]));
    two.respond("/v1/models", Script::default().then(Step::Silence));
    let before = config(&[("p1", &one)]);
    let proxy = Proxy::start(&before);
    assert_eq!(proxy.get("/health").status, 200);
    proxy.write_config(&with(
        before,
        json!({"providers": config(&[("p1", &one), ("p2", &two)])["providers"]}),
    ));
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
    // The known health is returned at once, before the new provider responds.
    for target in ["/v1/models", "/v1/models/p1/a", "/health"] {
        let (took, response) = timed(|| proxy.get(target));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        assert!(took < WITHIN_A_SECOND, "{target} took {took:?}");
    }
}

#[test]
fn redirected_check_is_unhealthy_and_says_to_look_at_the_base_url() {
    let upstream = Upstream::new(&["m"]);
    let location = format!("https://user:{KEY}@elsewhere.test/v1/models?key={KEY}");
    upstream.respond("/v1/models", Script::whole(307, &[("Location", &location)], ""));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"language": "en"})));
    let error = proxy.get("/health").json()["details"]["p1"]["error"].as_str().map(str::to_owned);
    let found = "HTTP 307 to https://***@elsewhere.test/v1/models (check the base URL)";
    let expected = format!("{found} (GET {}/models)", upstream.url());
    assert_eq!(error, Some(expected.clone()));
    proxy.log_line(&["WARNING", &expected]);
}

#[test]
fn failed_check_names_the_url_that_was_asked_without_a_key() {
    let upstream = Upstream::new(&["m"]);
    let path = format!("/{KEY}/v1");
    let url = format!("http://{}{path}", upstream.address());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let providers = json!([format!("p1|{url}|{KEY}"), format!("p2|http://{closed}/v1|{KEY}")]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let details = proxy.get("/health").json()["details"].clone();
    let masked = format!("{}***{}", &KEY[..3], &KEY[KEY.len() - 2..]);
    let shown = format!("HTTP 404 (GET http://{}/{masked}/v1/models)", upstream.address());
    assert_eq!(details["p1"]["error"], shown);
    let refused = details["p2"]["error"].as_str().expect("an error");
    assert!(refused.ends_with(&format!(" (GET http://{closed}/v1/models)")), "{refused}");
    proxy.log_line(&["WARNING", "p2", &format!("(GET http://{closed}/v1/models)")]);
}

#[test]
fn check_whose_response_is_incomplete_or_too_large_says_so() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let list = model_list(&["m"]).to_string();
    let padded = |bytes: usize| format!("{head}X-Padding: {}\r\n", "x".repeat(bytes));
    let complete = |head: &str| format!("{head}Content-Length: {}\r\n\r\n{list}", list.len());
    for (script, error) in [
        (Script::raw(complete(&padded(60_000))), None),
        (Script::raw(format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", complete(head))), None),
        (Script::raw(format!("{head}\r\n{list}")).then(Step::Fin), None),
        (Script::chunked(200, &[]).chunk(&list).end(), None),
        (Script::raw(complete(&padded(65_536))), Some("a head of more than 65536 bytes")),
        (Script::raw("").then(Step::Fin), Some("io: unexpected end of file")),
        (Script::raw(head).then(Step::Fin), Some("io: unexpected end of file")),
        (
            Script::raw(format!("{head}Content-Length: 1000\r\n\r\n{list}")).then(Step::Fin),
            Some("io: unexpected end of file"),
        ),
        (Script::chunked(200, &[]).chunk(&list).then(Step::Fin), Some("io: unexpected end of file")),
        (Script::raw(format!("{head}Content-Length: 8388609\r\n\r\n")), Some("more than 8388608 bytes")),
        (
            Script::raw(format!("{head}\r\n")).then(Step::Flood(vec![b' '; 65_536])),
            Some("more than 8388608 bytes"),
        ),
        (Script::raw(head).then(Step::Silence), Some("io: timed out")),
        (Script::raw(complete(head).replace(&list, "")).then(Step::Silence), Some("io: timed out")),
        (Script::raw("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), Some("HTTP 500")),
    ] {
        let upstream = Upstream::new(&["m"]);
        upstream.respond("/v1/models", script.clone());
        let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"non_stream_timeout": 1})));
        let details = proxy.get("/health").json()["details"]["p1"].clone();
        let error = error.map(|error| format!("{error} (GET {}/models)", upstream.url()));
        assert_eq!(details["error"].as_str(), error.as_deref(), "{details}");
    }
}

#[test]
fn check_of_a_dripping_provider_ends_at_its_deadline() {
    let upstream = Upstream::new(&["m"]);
    let head = Script::raw("HTTP/1.1 200 OK\r\nX-Padding: ");
    let drip = |script: Script, _| script.then(Step::Pause(Duration::from_millis(50))).send("x");
    upstream.respond("/v1/models", (0..200).fold(head, drip));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"non_stream_timeout": 1})));
    let (took, health) = timed(|| proxy.get("/health"));
    let expected = format!("io: timed out (GET {}/models)", upstream.url());
    assert_eq!(health.json()["details"]["p1"]["error"], expected);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
