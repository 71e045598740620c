//! Limits of tokens: the requests that pass, the header fields, and the counts that survive the process.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::thread;

use crate::support::calls::{
    DONE, TOKEN, ask, ask_streamed, assert_error, authorized, chat, completion, event,
};
use crate::support::client::Response;
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

/// A proxy whose only token has these limits. Each call uses 8 tokens.
fn limited(limits: Value) -> (Upstream, Value) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let token = with(json!({"name": "tester", "token": TOKEN}), limits);
    let config = with(config(&[("p1", &upstream)]), json!({"tokens": [token]}));
    (upstream, config)
}

fn standing(response: &Response) -> [Option<&str>; 3] {
    ["limit", "remaining", "reset"].map(|what| response.header(&format!("x-ratelimit-{what}-requests")))
}

#[test]
fn refused_call_counts_in_its_tokens_rate() {
    let (upstream, config) = limited(json!({"rpm": 6, "max_parallel": 1, "models": ["^p1/m$"]}));
    let proxy = Proxy::start(&config);
    for (left, (call, status, reason)) in [
        (ask("p1/"), 404, "model_not_found"),
        (ask("p1/secret"), 404, "model_not_found"),
        (chat("{"), 400, "invalid_json"),
        (chat("{}"), 400, "missing_model"),
        (chat(r#"{"model":"a","model":"a"}"#), 400, "invalid_model"),
        (authorized("/v1/audio/translations", "no form"), 400, "invalid_json"),
    ]
    .into_iter()
    .enumerate()
    .map(|(done, call)| (5 - done, call))
    {
        let refused = proxy.call(call);
        assert_error(&refused, status, reason);
        assert_eq!(standing(&refused)[..2], [Some("6"), Some(&*left.to_string())]);
    }
    for call in [ask("p1/m"), chat("{")] {
        assert_error(&proxy.call(call), 429, "rate_limited");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn rate_stands_in_every_response_and_a_refusal_costs_nothing() {
    let (upstream, config) = limited(json!({"rpm": 2}));
    let proxy = Proxy::start(&with(config, json!({"cors_origins": ["https://a.example"]})));
    upstream.chat(Script::whole(
        200,
        &[("Content-Type", "application/json"), ("X-RateLimit-Limit-Requests", "9999")],
        completion("hello").to_string(),
    ));
    let first = proxy.call(ask("p1/m"));
    assert_eq!(first.head.all("x-ratelimit-limit-requests"), ["2"], "the caller's, not the key's");
    assert_eq!(standing(&first), [Some("2"), Some("1"), Some("30s")]);
    upstream.chat(Script::sse().chunk(event("hi")).chunk(DONE).end());
    let second = proxy.call(ask_streamed("p1/m"));
    assert_eq!(standing(&second)[..2], [Some("2"), Some("0")]);
    for _ in 0..3 {
        let third = proxy.call(ask("p1/m"));
        let message = assert_error(&third, 429, "rate_limited");
        assert!(message.contains("2 a minute"), "{message}");
        assert_eq!(standing(&third)[..2], [Some("2"), Some("0")]);
        let wait: u64 = third.header("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(upstream.requests().len(), 2);

    let (_upstream, config) = limited(json!({"max_parallel": 2}));
    assert_eq!(standing(&Proxy::start(&config).call(ask("p1/m"))), [None; 3], "no rate");
}

#[test]
fn of_many_at_once_just_as_many_are_let_in() {
    let (upstream, config) = limited(json!({"rpm": 10}));
    let proxy = Proxy::start(&config);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let calls: Vec<_> = (0..30).map(|_| scope.spawn(|| proxy.call(ask("p1/m")).status)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    });
    let let_in = statuses.iter().filter(|status| **status == 200).count();
    // Ten at once, and one more for each six seconds that this took.
    assert!((10..13).contains(&let_in), "{statuses:?}");
    assert_eq!(upstream.requests().len(), let_in);
}

#[test]
fn permit_is_released_before_the_response_arrives() {
    let (upstream, config) = limited(json!({"max_parallel": 1}));
    let proxy = Proxy::start(&config);
    upstream.handle("/v1/chat/completions", |request| {
        if request.text().contains("\"stream\":true") {
            Script::sse().chunk(event("hi")).chunk(DONE).end()
        } else {
            Script::json(200, &completion("hello"))
        }
    });
    for turn in 0..100 {
        let request = if turn % 2 == 0 { ask("p1/m") } else { ask_streamed("p1/m") };
        // Each on a connection of its own, so that another worker handles it.
        let response = proxy.call(request);
        assert_eq!(response.status, 200, "{turn}: {}", response.text());
    }
}

#[test]
fn permit_is_released_when_the_client_leaves_or_the_provider_fails() {
    let (upstream, config) = limited(json!({"max_parallel": 1}));
    let proxy = Proxy::start(&with(config, json!({"max_retries": 0, "non_stream_timeout": 0.5})));
    for step in [Step::Fin, Step::Reset, Step::Silence] {
        upstream.chat(Script::default().then(step));
        assert!(proxy.call(ask("p1/m")).status >= 500);
    }
    upstream.chat(Script::sse().chunk(event("hi")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    assert_eq!(client.streamed().next_event(), Some(event("hi")));
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");
    client.leave();
    upstream.chat(Script::json(200, &completion("hello")));
    eventually("the place", || (proxy.call(ask("p1/m")).status == 200).then_some(()));
}

#[test]
fn tokens_of_a_day_are_counted_as_the_provider_reports_them() {
    let (upstream, config) = limited(json!({"tokens_per_day": 20}));
    let proxy = Proxy::start(&with(config, json!({"log_level": "WARNING"})));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}});
    upstream.chat(Script::sse().chunk(event("hi")).chunk(format!("data: {usage}\n\n")).chunk(DONE).end());
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    let refused = proxy.call(ask("p1/m"));
    let message = assert_error(&refused, 429, "rate_limited");
    assert!(message.contains("20 tokens for today"), "{message}");
    let wait: i64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
    let midnight = 86_400 - jiff::Timestamp::now().as_second() % 86_400;
    assert!((wait - midnight).abs() < 30, "{wait} s, midnight UTC is in {midnight} s");
    assert_eq!(upstream.requests().len(), 2);
}

/// Serves with a state file in `directory`.
fn start_in(directory: TempDir, config: &Value) -> Proxy {
    let config = with(config.clone(), json!({"state_file": "state.json"}));
    Proxy::start_in(directory, &config, |_| {})
}

#[test]
fn the_days_count_outlives_a_restart_and_a_reload() {
    let (_upstream, config) = limited(json!({"tokens_per_day": 10}));
    let mut proxy = start_in(TempDir::new(), &config);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    assert_eq!(proxy.call(ask("p1/m")).status, 200, "8 of 10 were used");
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let text = std::fs::read_to_string(proxy.directory.join("state.json")).expect("the state file");
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(state["tokens"], json!([{"name": "tester", "day": today, "tokens": 16}]));
    assert!(!text.contains(TOKEN), "names, no secrets");
    assert!(!proxy.directory.join("state.json.new").exists());

    let directory = std::mem::replace(&mut proxy.directory, TempDir::new());
    let proxy = start_in(directory, &config);
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");
    proxy.write_config(&with(config, json!({"state_file": "state.json", "max_retries": 1})));
    proxy.signal(Signal::HUP);
    proxy.log_line(&["configuration reloaded"]);
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");
}

#[test]
fn the_days_count_outlives_a_crash_but_for_the_last_seconds() {
    let (_upstream, config) = limited(json!({"tokens_per_day": 5}));
    let proxy = start_in(TempDir::new(), &config);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let path = proxy.directory.join("state.json");
    eventually("the state file", || {
        std::fs::read_to_string(&path).ok().filter(|text| text.contains("\"tokens\": 8"))
    });
    let proxy = start_in(proxy.kill(), &config);
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");
}

#[test]
fn a_state_file_that_cannot_be_used_is_named_and_stops_nothing() {
    let (_upstream, config) = limited(json!({"tokens_per_day": 10}));
    for text in ["", "{", "[]", "null", "{\"version\": 2, \"tokens\": []}", "{\"version\": 1}", "\u{0}\u{1}"]
    {
        let directory = TempDir::new();
        std::fs::write(directory.join("state.json"), text).expect("write");
        let mut proxy = start_in(directory, &config);
        proxy.log_line(&["ERROR", "state.json", "begin at zero"]);
        assert_eq!(proxy.call(ask("p1/m")).status, 200, "{text:?}");
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.wait().code(), Some(0));
        let written = std::fs::read_to_string(proxy.directory.join("state.json")).expect("the state file");
        assert!(written.contains("\"tokens\": 8"), "a good one takes its place: {written}");
    }
    // An odd row does not drop the others.
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let directory = TempDir::new();
    let rows = json!([
        {"name": "gone", "day": today, "tokens": 1}, {"name": "tester", "day": today, "tokens": 10},
        {"name": "tester", "day": "soon", "tokens": 0},
    ]);
    std::fs::write(directory.join("state.json"), json!({"version": 1, "tokens": rows}).to_string())
        .expect("write");
    let proxy = start_in(directory, &config);
    assert_error(&proxy.call(ask("p1/m")), 429, "rate_limited");

    let elsewhere = with(config, json!({"state_file": "no/such/directory/state.json"}));
    let mut proxy = Proxy::start(&elsewhere);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    proxy.log_line(&["ERROR", "no/such/directory/state.json", "No such file"]);
}

#[test]
fn responses_and_refusals_show_the_day() {
    let (upstream, config) = limited(json!({"tokens_per_day": 10}));
    let proxy = Proxy::start(&config);
    let day = |response: &Response| {
        let [limit, remaining, reset] = ["limit", "remaining", "reset"].map(|what| {
            let all = response.head.all(&format!("x-ratelimit-{what}-tokens"));
            assert_eq!(all.len(), 1, "the caller's, not the key's: {all:?}");
            all[0].to_owned()
        });
        assert!(reset.ends_with('s'), "{reset}");
        (limit, remaining)
    };
    let fields = [("Content-Type", "application/json"), ("X-RateLimit-Remaining-Tokens", "9999")];
    for remaining in ["10", "2"] {
        upstream.chat(Script::whole(200, &fields, completion("hello").to_string()));
        assert_eq!(day(&proxy.call(ask("p1/m"))), ("10".to_owned(), remaining.to_owned()));
    }
    let refused = proxy.call(ask("p1/m"));
    assert_error(&refused, 429, "rate_limited");
    assert_eq!(day(&refused), ("10".to_owned(), "0".to_owned()));
}

#[test]
fn status_shows_what_each_token_has_used_of_its_limits() {
    let (upstream, config) = limited(json!({"tokens_per_day": 1000, "rpm": 60, "max_parallel": 3}));
    let plain = json!({"name": "plain", "token": "sk-without-limits-0123456789"});
    let tokens = json!([config["tokens"][0].clone(), plain]);
    let proxy = Proxy::start(&with(config, json!({"tokens": tokens})));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    upstream.chat(Script::sse().chunk(event("hi")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    assert_eq!(client.streamed().next_event(), Some(event("hi")));
    let status = proxy.get("/v1/status");
    let tokens = &status.json()["tokens"];
    let [rpm, parallel, day] = ["rpm", "max_parallel", "tokens_per_day"].map(|limit| &tokens[0][limit]);
    assert_eq!((&rpm["used"], &rpm["limit"]), (&json!(2), &json!(60)));
    assert!(rpm["reset_seconds"].as_u64().is_some_and(|seconds| (1..=2).contains(&seconds)), "{rpm}");
    assert_eq!(parallel, &json!({"used": 1, "limit": 3, "reset_seconds": null}));
    assert_eq!((&day["used"], &day["limit"]), (&json!(8), &json!(1000)));
    let midnight = 86_400 - jiff::Timestamp::now().as_second() % 86_400;
    assert!(day["reset_seconds"].as_i64().is_some_and(|seconds| (seconds - midnight).abs() < 30), "{day}");
    let none = json!({"name": "plain", "rpm": null, "max_parallel": null, "tokens_per_day": null});
    assert_eq!(tokens[1], none);
    assert!(!status.text().contains(TOKEN), "names, no secrets");
}
