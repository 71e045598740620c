//! `/metrics`: the counts, their labels, and a response even with all permits taken.

use regex::Regex;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::support::calls::{
    DONE, TOKEN, ask, ask_streamed, assert_error, authorized, bare, chat, completion, event, get, post,
};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// All samples: the text before the value, and the value.
fn scrape(proxy: &Proxy) -> HashMap<String, f64> {
    let response = proxy.get("/metrics");
    assert_eq!(response.status, 200, "{}", response.text());
    let text = response.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<(String, f64)> = samples
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect();
    let by_name: HashMap<String, f64> = all.iter().cloned().collect();
    assert_eq!(by_name.len(), all.len(), "no sample twice: {text}");
    by_name
}

/// Waits until a sample has that value: a call is counted when its response has left.
fn wait_for(proxy: &Proxy, sample: &str, value: f64) {
    eventually(&format!("{sample} {value}"), || {
        let samples = scrape(proxy);
        (samples.get(sample).copied().unwrap_or(0.0) == value).then_some(())
    });
}

#[test]
fn the_format_is_the_one_prometheus_asks_for() {
    let (_upstream, proxy) = start(json!({}));
    proxy.call(ask("p1/m"));
    wait_for(&proxy, r#"ai_proxy_requests_total{provider="p1",model="m",status="200"}"#, 1.0);
    let response = proxy.get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    assert!(text.ends_with('\n'));
    let line = Regex::new(
        r#"^(# (HELP|TYPE) ai_proxy_[a-z_]+ .+|ai_proxy_[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? [0-9.]+)$"#,
    )
    .expect("regex");
    for found in text.lines() {
        assert!(line.is_match(found), "{found}");
    }
    for family in ai_proxy::metrics::FAMILIES.iter() {
        assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{}", family.name);
    }
    let head = proxy.call(bare("HEAD", "/metrics", &[]));
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn buffered_and_streamed_calls_are_counted_with_their_tokens() {
    let (upstream, proxy) = start(json!({}));
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":20}}\n\n";
    upstream.handle("/v1/chat/completions", move |request| {
        if request.text().contains(r#""stream":true"#) {
            return Script::sse().chunk(event("a")).chunk(usage).chunk(DONE).end();
        }
        Script::json(200, &completion("hello"))
    });
    assert_eq!(proxy.get("/health").status, 200, "the first check has ended");
    proxy.call(ask("p1/m"));
    proxy.call(ask_streamed("p1/m"));
    wait_for(&proxy, r#"ai_proxy_requests_total{provider="p1",model="m",status="200"}"#, 2.0);
    let samples = scrape(&proxy);
    let whole = completion("hello").to_string().len();
    let streamed = event("a").len() + usage.len() + DONE.len();
    for (sample, value) in [
        (r#"ai_proxy_tokens_total{provider="p1",model="m",token="tester",kind="prompt"}"#, 13.0),
        (r#"ai_proxy_tokens_total{provider="p1",model="m",token="tester",kind="completion"}"#, 25.0),
        (r#"ai_proxy_request_duration_seconds_count{provider="p1",stream="false"}"#, 1.0),
        (r#"ai_proxy_request_duration_seconds_bucket{provider="p1",stream="true",le="+Inf"}"#, 1.0),
        (r#"ai_proxy_time_to_first_byte_seconds_count{provider="p1"}"#, 2.0),
        (r#"ai_proxy_upstream_attempts_total{provider="p1",result="success"}"#, 2.0),
        (r#"ai_proxy_response_bytes_total{provider="p1"}"#, (whole + streamed) as f64),
        ("ai_proxy_requests_in_flight", 0.0),
        ("ai_proxy_queue_length", 0.0),
        (r#"ai_proxy_provider_healthy{provider="p1"}"#, 1.0),
        (r#"ai_proxy_config_reloads_total{result="success"}"#, 0.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    let build = format!(r#"ai_proxy_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(samples.get(&build), Some(&1.0));
}

#[test]
fn usage_of_every_endpoint_is_counted() {
    let (upstream, proxy) = start(json!({}));
    let nested = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":100,\"output_tokens\":200}}}\n\n";
    upstream.respond("/v1/responses", Script::sse().chunk(nested).end());
    upstream.respond(
        "/v1/embeddings",
        Script::json(200, &json!({"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}})),
    );
    upstream.respond(
        "/v1/completions",
        Script::json(200, &json!({"usage": {"prompt_tokens": 1, "completion_tokens": 2}})),
    );
    for path in ["/v1/responses", "/v1/embeddings", "/v1/completions"] {
        let body = json!({"model": "p1/m", "input": "x", "stream": path == "/v1/responses"});
        assert_eq!(proxy.call(authorized(path, body.to_string())).status, 200);
    }
    wait_for(&proxy, r#"ai_proxy_tokens_total{provider="p1",model="m",token="tester",kind="prompt"}"#, 108.0);
    wait_for(
        &proxy,
        r#"ai_proxy_tokens_total{provider="p1",model="m",token="tester",kind="completion"}"#,
        202.0,
    );
}

/// A provider's mistake neither wraps a counter nor uses up a token's day.
#[test]
fn count_beyond_belief_is_estimated_in_a_translated_stream_too() {
    let (upstream, proxy) = start(json!({}));
    let usage = json!({"prompt_tokens": u64::MAX, "completion_tokens": 5});
    let last = json!({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}], "usage": usage});
    upstream.chat(Script::sse().chunk(format!("data: {last}\n\n")).chunk(DONE).end());
    let message = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "p1/m", "max_tokens": 9, "stream": true, "messages": message});
    assert_eq!(proxy.call(authorized("/v1/messages", body.to_string())).status, 200);
    let estimate = body.to_string().len().div_ceil(4) as f64;
    wait_for(
        &proxy,
        r#"ai_proxy_tokens_estimated_total{provider="p1",model="m",token="tester",kind="prompt"}"#,
        estimate,
    );
    wait_for(
        &proxy,
        r#"ai_proxy_tokens_total{provider="p1",model="m",token="tester",kind="completion"}"#,
        5.0,
    );
}

#[test]
fn only_models_that_a_provider_took_become_labels() {
    let (upstream, proxy) = start(json!({}));
    upstream.handle("/v1/chat/completions", |request| {
        if request.text().contains(r#""model":"good"#) {
            return Script::json(200, &completion("hello"));
        }
        let status = if request.text().contains("under-200") { 200 } else { 404 };
        Script::json(status, &json!({"error": {"message": "no such model", "code": 404}}))
    });
    assert_eq!(proxy.call(ask("p1/made-up-under-200")).status, 200);
    for number in 0..5 {
        assert_eq!(proxy.call(ask(&format!("p1/made-up-{number}"))).status, 404);
    }
    assert_eq!(proxy.call(ask("p1/good")).status, 200);
    assert_eq!(proxy.call(ask("p1/good \" \\ \u{6a21}")).status, 200);
    assert_eq!(proxy.call(ask("p1/good\n\u{85}evil")).status, 200);
    wait_for(&proxy, r#"ai_proxy_requests_total{provider="p1",model="other",status="200"}"#, 2.0);
    let samples = scrape(&proxy);
    for (sample, value) in [
        (r#"ai_proxy_requests_total{provider="p1",model="other",status="404"}"#, 5.0),
        (r#"ai_proxy_requests_total{provider="p1",model="good",status="200"}"#, 1.0),
        (r#"ai_proxy_requests_total{provider="p1",model="good \" \\ 模",status="200"}"#, 1.0),
        (r#"ai_proxy_upstream_attempts_total{provider="p1",result="client_error"}"#, 6.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    assert!(samples.keys().all(|sample| !sample.contains("made-up") && !sample.contains("evil")));
}

#[test]
fn failed_attempts_are_counted_by_what_came_of_them() {
    let (upstream, proxy) = start(json!({"max_retries": 0, "stream_heartbeat": 0}));
    for (script, sample) in [
        (Script::json(429, &json!({"error": {}})), "rate_limited"),
        (Script::json(500, &json!({"error": {}})), "server_error"),
        (Script::default().then(Step::Fin), "broken"),
        (Script::sse().chunk(event("a")).then(Step::Reset), "broken"),
    ] {
        upstream.chat(script);
        proxy.call(ask_streamed("p1/m"));
        eventually(sample, || {
            let name = format!(r#"ai_proxy_upstream_attempts_total{{provider="p1",result="{sample}"}}"#);
            scrape(&proxy).get(&name).map(drop)
        });
    }
    wait_for(&proxy, r#"ai_proxy_upstream_attempts_total{provider="p1",result="broken"}"#, 2.0);
    wait_for(&proxy, r#"ai_proxy_rejected_total{reason="upstream_broken"}"#, 2.0);
    // The model was not accepted yet; the broken stream already had its 200.
    wait_for(&proxy, r#"ai_proxy_requests_total{provider="p1",model="other",status="502"}"#, 1.0);
    wait_for(&proxy, r#"ai_proxy_requests_total{provider="p1",model="m",status="200"}"#, 1.0);
}

#[test]
fn refusals_are_counted_wherever_they_are_made() {
    let (_upstream, proxy) = start(json!({"max_request_size": 1000}));
    proxy.call(post("/v1/chat/completions", &[], "{}"));
    proxy.call(post("/v1/chat/completions", &[("Authorization", "Bearer wrong")], "{}"));
    proxy.call(chat("not json"));
    proxy.call(ask("nowhere/m"));
    proxy.call(get("/nowhere"));
    proxy.call(get("/v1/models/nowhere"));
    proxy.call(bare("DELETE", "/health", &[]));
    proxy.call("GARBAGE\r\n\r\n");
    proxy.call(chat("x".repeat(1001)));
    for (reason, count) in [
        ("missing_token", 1.0),
        ("invalid_token", 1.0),
        ("invalid_json", 1.0),
        ("model_not_found", 2.0),
        ("not_found", 1.0),
        ("method_not_allowed", 1.0),
        ("bad_request", 1.0),
        ("body_too_large", 1.0),
    ] {
        wait_for(&proxy, &format!(r#"ai_proxy_rejected_total{{reason="{reason}"}}"#), count);
    }
}

#[test]
fn counters_survive_a_reload_and_reloads_are_counted() {
    let (upstream, proxy) = start(json!({}));
    proxy.call(ask("p1/m"));
    let sample = r#"ai_proxy_requests_total{provider="p1",model="m",status="200"}"#;
    wait_for(&proxy, sample, 1.0);
    proxy.write_config(&config(&[("p2", &upstream)]));
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
    proxy.write_config(&json!({}));
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 422);
    let samples = scrape(&proxy);
    assert_eq!(samples.get(sample), Some(&1.0));
    assert_eq!(samples.get(r#"ai_proxy_config_reloads_total{result="success"}"#), Some(&1.0));
    assert_eq!(samples.get(r#"ai_proxy_config_reloads_total{result="failure"}"#), Some(&1.0));
    assert!(!samples.contains_key(r#"ai_proxy_provider_healthy{provider="p1"}"#), "it is gone");
    wait_for(&proxy, r#"ai_proxy_provider_healthy{provider="p2"}"#, 1.0);
}

#[test]
fn metrics_respond_while_every_worker_is_busy_and_show_it() {
    let (upstream, proxy) = start(json!({"max_connections": 2, "queue_timeout": 60}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut clients: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
    }
    upstream.wait_requests(2);
    eventually("both workers busy and one request queued", || {
        let samples = scrape(&proxy);
        let is = |sample: &str, value: f64| samples.get(sample) == Some(&value);
        (is(r#"ai_proxy_workers{state="busy"}"#, 2.0)
            && is(r#"ai_proxy_workers{state="idle"}"#, 0.0)
            && is("ai_proxy_queue_length", 1.0)
            && is("ai_proxy_requests_in_flight", 2.0)
            && samples["ai_proxy_clients"] >= 4.0)
            .then_some(())
    });
    gate.open_for(3);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    wait_for(&proxy, r#"ai_proxy_workers{state="idle"}"#, 2.0);
}

#[test]
fn it_is_for_admins() {
    let (_upstream, proxy) = start(json!({}));
    let forwarded = ("X-Forwarded-For", "192.0.2.1");
    assert_error(&proxy.call(bare("GET", "/metrics", &[forwarded])), 403, "forbidden");
    let token = format!("Bearer {TOKEN}");
    assert_eq!(proxy.call(bare("GET", "/metrics", &[forwarded, ("Authorization", &token)])).status, 200);
}

/// Names of metrics in a text, without what a histogram's samples add to theirs.
fn named_in(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\bai_proxy_[a-z_]+").expect("regex");
    let plain = |found: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| found.strip_suffix(suffix));
        histogram.unwrap_or(found).to_owned()
    };
    name.find_iter(text).map(|found| plain(found.as_str())).collect()
}

#[test]
fn what_is_written_about_metrics_names_those_there_are() {
    let families = ai_proxy::metrics::FAMILIES.iter();
    let known: BTreeSet<String> = families.clone().map(|family| family.name.to_owned()).collect();
    let read = |file: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("read a document")
    };
    for file in ["docs/operations.md", "docs/operations.zh.md"] {
        let text = read(file);
        assert_eq!(named_in(&text), known, "{file}");
        for family in families.clone() {
            let labels = if family.labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", family.labels.join(","))
            };
            assert!(text.contains(&format!("| `{}{labels}` |", family.name)), "{file}: {}", family.name);
        }
    }
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")).expect("deploy") {
        let text = std::fs::read_to_string(file.expect("entry").path()).unwrap_or_default();
        assert!(named_in(&text).is_subset(&known), "{:?}", named_in(&text));
    }
}
