//! A new config while serving: by SIGHUP and by call, applied as a whole or not at all.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::calls::{
    DONE, KEY, TOKEN, ask, ask_streamed, assert_error, bare, completion, event, post,
};
use crate::support::client::{End, Response};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

const NEW_TOKEN: &str = "sk-another-token-999999";
const BODY: &str = r#"{"model":"p1/m"}"#;

fn start(changes: Value) -> (Upstream, Proxy, Value) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let config = with(config(&[("p1", &upstream)]), changes);
    let proxy = Proxy::start(&config);
    (upstream, proxy, config)
}

fn reload(proxy: &Proxy, headers: &[(&str, &str)]) -> Response {
    proxy.call(post("/v1/reload", headers, ""))
}

fn chat_with(proxy: &Proxy, token: &str) -> u16 {
    proxy.call(post("/v1/chat/completions", &[("X-Api-Key", token)], BODY)).status
}

#[test]
fn sighup_applies_the_new_config() {
    let (_upstream, proxy, config) = start(json!({}));
    assert_eq!((chat_with(&proxy, TOKEN), chat_with(&proxy, NEW_TOKEN)), (200, 401));
    proxy.write_config(&with(config, json!({"tokens": [format!("new|{NEW_TOKEN}")]})));
    assert_eq!(chat_with(&proxy, TOKEN), 200, "a file alone changes nothing");
    proxy.signal(Signal::HUP);
    eventually("the new token works", || (chat_with(&proxy, NEW_TOKEN) == 200).then_some(()));
    assert_eq!(chat_with(&proxy, TOKEN), 401, "the removed token fails");
}

#[test]
fn a_call_applies_the_new_config() {
    let (_one, proxy, config) = start(json!({"language": "zh"}));
    let two = Upstream::new(&["n"]);
    two.chat(Script::json(200, &completion("from two")));
    let mut providers = config["providers"].clone();
    let more = format!("p2|{}|{KEY}", two.url());
    providers.as_array_mut().expect("array").push(json!(more));
    proxy.write_config(&with(config, json!({"providers": providers, "max_retries": 0})));
    let response = reload(&proxy, &[]);
    assert_eq!(response.status, 200, "{}", response.text());
    let expected = json!({"message": "配置重新加载成功", "providers_count": 2, "restart_required": []});
    assert_eq!(response.json(), expected);
    assert_eq!(proxy.call(ask("p2/n")).json(), completion("from two"));
    eventually("the new provider is listed", || {
        proxy.get("/v1/models").text().contains("p2/n").then_some(())
    });
    eventually("the new provider is checked", || {
        (proxy.get("/health").json()["providers"]["p2"] == true).then_some(())
    });
}

#[test]
fn a_removed_provider_is_gone() {
    let (_one, proxy, config) = start(json!({}));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let two = Upstream::new(&["n"]);
    proxy.write_config(&with(config, json!({"providers": [format!("p2|{}|{KEY}", two.url())]})));
    assert_eq!(reload(&proxy, &[]).json()["providers_count"], 1);
    assert_error(&proxy.call(ask("p1/m")), 404, "model_not_found");
    eventually("only the new one is listed", || {
        let list = proxy.get("/v1/models").text();
        (list.contains("p2/n") && !list.contains("p1/m")).then_some(())
    });
    let health = proxy.get("/health").json();
    assert_eq!(health["providers"].as_object().map(serde_json::Map::len), Some(1), "{health}");
}

#[test]
fn a_late_list_of_a_removed_provider_changes_nothing() {
    let (one, proxy, config) = start(json!({"health_interval": 1, "models_interval": 1}));
    assert!(proxy.get("/v1/models").text().contains("p1/m"));
    let gate = Gate::new();
    let held = gate.clone();
    let list = crate::support::upstream::model_list(&["m"]).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
    one.handle("/v1/models", move |_| Script::default().wait(&held).send(&head).send(&list));
    let before = one.list_requests().len();
    eventually("a check is under way", || (one.list_requests().len() > before).then_some(()));

    let two = Upstream::new(&["n"]);
    // Nothing is due for long from here on: an effect of the late response would stay.
    let changes = json!({"providers": [format!("p2|{}|{KEY}", two.url())], "health_interval": 600,
        "models_interval": 600});
    proxy.write_config(&with(config, changes));
    assert_eq!(reload(&proxy, &[]).status, 200);
    eventually("the new provider is listed", || {
        proxy.get("/v1/models").text().contains("p2/n").then_some(())
    });
    gate.open_for(10);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let list = proxy.get("/v1/models").text();
    assert!(list.contains("p2/n") && !list.contains("p1/m"), "{list}");
}

#[test]
fn bad_config_changes_nothing_and_is_reported_in_full() {
    let (_upstream, proxy, config) = start(json!({}));
    let secret = "sk-not-to-be-shown-000";
    let bad = json!({
        "prot": 1, "language": "fr", "stream_timeout": -1, "supported_models": ["("],
        "tokens": [format!("new|{NEW_TOKEN}"), format!("no bar {secret}")],
    });
    proxy.write_config(&with(config.clone(), bad));
    let response = reload(&proxy, &[]);
    assert_eq!(response.status, 422, "{}", response.text());
    let message = response.json()["error"]["message"].as_str().expect("message").to_owned();
    for part in ["prot", "port", "fr", "stream_timeout", "supported_models", "tokens"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!response.text().contains(secret) && !response.text().contains(KEY));
    assert_eq!((chat_with(&proxy, TOKEN), chat_with(&proxy, NEW_TOKEN)), (200, 401));

    for text in ["{", "", "[]", &with(config, json!({"providers": []})).to_string()] {
        std::fs::write(proxy.config_path(), text).expect("write");
        assert_eq!(reload(&proxy, &[]).status, 422, "{text}");
        assert_eq!(chat_with(&proxy, TOKEN), 200);
    }
    std::fs::remove_file(proxy.config_path()).expect("remove");
    assert_eq!(reload(&proxy, &[]).status, 422);
    let before = proxy.log().len();
    proxy.signal(Signal::HUP);
    eventually("the failure is logged", || (proxy.log()[before..].contains("config.json")).then_some(()));
    assert_eq!(chat_with(&proxy, TOKEN), 200);
}

#[test]
fn what_needs_a_restart_is_named() {
    let (_upstream, proxy, config) = start(json!({"max_connections": 10}));
    let changes = json!({"host": "127.0.0.2", "port": 1, "max_connections": 20, "max_clients": 30,
        "tokens": [format!("new|{NEW_TOKEN}")]});
    proxy.write_config(&with(config.clone(), changes));
    let response = reload(&proxy, &[]);
    assert_eq!(response.status, 200, "{}", response.text());
    let mut named: Vec<String> =
        serde_json::from_value(response.json()["restart_required"].clone()).expect("list");
    named.sort_unstable();
    assert_eq!(named, ["host", "max_clients", "max_connections", "port"]);
    assert_eq!(chat_with(&proxy, NEW_TOKEN), 200, "the rest applies");

    proxy.write_config(&config);
    assert_eq!(reload(&proxy, &[]).json()["restart_required"], json!([]), "back to what it runs with");
}

#[test]
fn limits_apply_to_the_next_request() {
    let (upstream, proxy, config) = start(json!({}));
    upstream.chat(Script::json(200, &completion(&"x".repeat(2000))));
    let mut client = proxy.client();
    assert_eq!(client.call(ask("p1/m")).status, 200);
    proxy.write_config(&with(
        config,
        json!({"max_response_size": 1000, "max_request_size": 500, "language": "zh"}),
    ));
    assert_eq!(reload(&proxy, &[]).status, 200);
    assert_error(&client.call(ask("p1/m")), 502, "response_too_large");
    let large = crate::support::calls::chat("x".repeat(501));
    assert_error(&client.call(large), 413, "body_too_large");
    let message = assert_error(&proxy.call(post("/v1/rerank", &[], BODY)), 401, "missing_token");
    assert_eq!(message, "未提供API token");
}

#[test]
fn a_request_keeps_the_config_it_began_with() {
    let (upstream, proxy, config) = start(json!({}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(event("b")).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    let two = Upstream::new(&["n"]);
    let changes =
        json!({"providers": [format!("p2|{}|{KEY}", two.url())], "tokens": [], "max_response_size": 10});
    proxy.write_config(&with(config, changes));
    assert_eq!(reload(&proxy, &[]).status, 200);
    gate.open();
    assert_eq!(stream.events(), [event("b"), DONE.to_owned()]);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn only_an_admin_may_reload() {
    let (_upstream, proxy, _config) = start(json!({}));
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(reload(&proxy, &[]).status, 200, "loopback");
    for header in [
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Forwarded-Host",
        "x-forwarded-proto",
        "X-FORWARDED-ANYTHING",
        "CF-Connecting-IP",
        "True-Client-IP",
    ] {
        let from = (header, "192.0.2.1");
        assert_error(&reload(&proxy, &[from]), 403, "forbidden");
        assert_error(&reload(&proxy, &[(header, "127.0.0.1")]), 403, "forbidden");
        let response = reload(&proxy, &[from, ("Authorization", &bearer)]);
        assert_eq!(response.status, 200, "any valid token");
        let response = reload(&proxy, &[from, ("X-Api-Key", NEW_TOKEN)]);
        assert!(matches!(response.status, 401 | 403), "{}", response.text());
    }
    assert_error(&proxy.call(bare("GET", "/v1/reload", &[])), 405, "method_not_allowed");
}

#[test]
fn many_reloads_under_load_fail_no_request() {
    let (_upstream, proxy, config) = start(json!({}));
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.client();
                    (0..50).all(|_| client.call(ask("p1/m")).status == 200)
                })
            })
            .collect();
        for round in 0..20 {
            proxy.write_config(&with(config.clone(), json!({"max_retries": round % 3})));
            if round % 2 == 0 {
                assert_eq!(reload(&proxy, &[]).status, 200);
            } else {
                proxy.signal(Signal::HUP);
            }
        }
        assert!(calls.into_iter().all(|call| call.join().expect("join")));
    });
}

#[test]
fn the_log_moves_with_the_config() {
    let (_upstream, proxy, config) = start(json!({"log_file": "one.log"}));
    let count = |name: &str| {
        let text = std::fs::read_to_string(proxy.directory.join(name)).unwrap_or_default();
        text.matches("耗时:").count()
    };
    assert_eq!(chat_with(&proxy, TOKEN), 200);
    // A line is written after its response.
    eventually("a line in the old log", || (count("one.log") == 1).then_some(()));
    proxy.write_config(&with(config.clone(), json!({"log_file": "two.log"})));
    assert_eq!(reload(&proxy, &[]).status, 200);
    assert_eq!(chat_with(&proxy, TOKEN), 200);
    eventually("a line in the new log", || (count("two.log") == 1).then_some(()));
    assert_eq!(count("one.log"), 1);

    proxy.write_config(&with(config, json!({"log_file": "two.log", "log_level": "ERROR"})));
    assert_eq!(reload(&proxy, &[]).status, 200);
    assert_eq!(chat_with(&proxy, TOKEN), 200);
    assert_eq!(chat_with(&proxy, "sk-nobody-has-this"), 401);
    assert_eq!(count("two.log"), 1, "below the new level");
}

#[test]
fn pool_limits_apply_too() {
    let (upstream, proxy, config) = start(json!({}));
    // The first check, which uses the pool as well, is over.
    assert_eq!(proxy.get("/health").status, 200);
    for _ in 0..2 {
        assert_eq!(chat_with(&proxy, TOKEN), 200);
    }
    proxy.write_config(&with(config, json!({"max_keepalive_connections": 0})));
    assert_eq!(reload(&proxy, &[]).status, 200);
    for _ in 0..3 {
        assert_eq!(chat_with(&proxy, TOKEN), 200);
    }
    let seen: Vec<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(seen[0], seen[1], "kept before");
    assert!(seen[2] != seen[3] && seen[3] != seen[4], "not kept after: {seen:?}");
}

#[test]
fn a_log_file_that_cannot_be_opened_stops_nothing() {
    let (_upstream, proxy, config) = start(json!({"log_file": "one.log"}));
    let path = "no/such/directory/two.log";
    proxy.write_config(&with(config, json!({"log_file": path, "tokens": [format!("new|{NEW_TOKEN}")]})));
    let response = reload(&proxy, &[]);
    // Refused as a whole or applied without a file, but never half of it.
    let works = match response.status {
        200 => NEW_TOKEN,
        422 => TOKEN,
        other => panic!("{other}: {}", response.text()),
    };
    assert_eq!(chat_with(&proxy, works), 200);
    proxy.log_line(&[path]);
}

/// Rotating a key has no side effects: no balancer removes the proxy, and no model is missing.
#[test]
fn what_was_known_of_a_provider_counts_until_it_is_checked_with_its_new_key() {
    let (upstream, proxy, config) = start(json!({}));
    assert_eq!((proxy.get("/health").status, proxy.call(ask("m")).status), (200, 200));
    let gate = Gate::new();
    let refused = Script::json(401, &json!({"error": {"message": "a wrong key"}}));
    upstream.respond("/v1/models", Script([Script::default().wait(&gate).0, refused.0].concat()));
    let rotated = format!("p1|{}|pk-new-key-0123456789", upstream.url());
    proxy.write_config(&with(config, json!({"providers": [rotated]})));
    assert_eq!(reload(&proxy, &[]).status, 200);
    assert_eq!((proxy.get("/health").status, proxy.call(ask("m")).status), (200, 200));
    assert!(proxy.get("/v1/models").text().contains("p1/m"));
    gate.open_for(5);
    eventually("the new key is checked", || (proxy.get("/health").status == 503).then_some(()));
}
