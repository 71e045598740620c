//! The table of `docs/models.md`, "Replicas and retries": each way of failing, with one replica and with
//! another that is available.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;

use crate::support::calls::{
    DONE, KEY, TOKEN, ask, ask_streamed, assert_error_body, completion, event, get, post,
};
use crate::support::client::{End, HEARTBEAT, Response, timed};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::tls::Tls;
use crate::support::upstream::Upstream;

const FIRST_KEY: &str = "pk-first-key-1234567-kxj";

/// The client's view.
enum Seen {
    /// A status and a reason of the proxy.
    Error(u16, &'static str),
    /// The provider's own response.
    Own(u16),
    /// The other replica's response.
    Other,
}

/// The first replica's behaviour; the client's view without and with another replica.
struct Row(&'static str, Script, Seen, Seen);

fn good() -> Upstream {
    let upstream = Upstream::new(&["m"]);
    upstream.handle("/v1/chat/completions", |request| {
        if request.text().contains("\"stream\":true") {
            Script::sse().chunk(event("other")).chunk(DONE).end()
        } else {
            Script::json(200, &completion("other"))
        }
    });
    upstream
}

fn own(status: u16) -> Value {
    json!({"error": {"message": "scripted", "type": "scripted", "n": status}})
}

fn response(status: u16) -> Script {
    Script::json(status, &own(status))
}

/// Short limits: their length is no part of the table.
fn limits() -> Value {
    json!({"non_stream_timeout": 2, "stream_timeout": 2, "attempt_timeout": 0.5, "max_response_size": 5000})
}

fn check(what: &str, response: &Response, seen: &Seen, streamed: bool) {
    let text = response.text();
    match seen {
        Seen::Error(status, reason) => {
            assert_eq!(response.status, *status, "{what}: {text}");
            assert_error_body(&text, *status, reason);
        }
        Seen::Own(status) => {
            let is_own = text == own(*status).to_string().as_str()
                || response.json()["error"]["message"] == "scripted";
            assert!(response.status == *status && is_own, "{what}: {} {text}", response.status);
        }
        Seen::Other if streamed => {
            assert_eq!((response.status, text), (200, event("other") + DONE), "{what}");
        }
        Seen::Other => assert_eq!(response.json(), completion("other"), "{what}"),
    }
}

/// Each row has a proxy of its own: one failure must not affect the next.
fn hold(rows: Vec<Row>, streamed: bool) {
    let other = good();
    for Row(what, script, alone, beside) in rows {
        let bad = Upstream::new(&["m"]);
        bad.chat(script);
        for (named, seen) in [(vec![("p1", &bad)], alone), (vec![("p1", &bad), ("p1", &other)], beside)] {
            let proxy = Proxy::start(&with(config(&named), limits()));
            let request = if streamed { ask_streamed("p1/m") } else { ask("p1/m") };
            check(what, &proxy.call(request), &seen, streamed);
        }
        // Once for each, and once more where the first request was on a kept connection that closed without a
        // byte.
        let asked = bad.requests().len();
        assert!((2..=4).contains(&asked), "{what}: asked {asked} times");
    }
}

#[test]
fn buffered_responses() {
    use Seen::{Error, Other, Own};
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let cut = || Script::raw(format!("{head}Content-Length: 100\r\n\r\n{{\"half\":"));
    let mut rows = vec![
        Row("closed", Script::default().then(Step::Fin), Error(502, "upstream_broken"), Other),
        Row("reset", Script::default().then(Step::Reset), Error(502, "upstream_broken"), Other),
        Row("no HTTP", Script::raw("SSH-2.0-x\r\n").then(Step::Fin), Error(502, "upstream_broken"), Other),
        Row("cut off", cut().then(Step::Fin), Error(502, "upstream_broken"), Other),
        Row("killed amid its response", cut().then(Step::Reset), Error(502, "upstream_broken"), Other),
        Row("silent", Script::default().then(Step::Silence), Error(504, "upstream_timeout"), Other),
        Row(
            "too large",
            Script::json(200, &json!({"x": "x".repeat(6000)})),
            Error(502, "response_too_large"),
            Error(502, "response_too_large"),
        ),
        Row("success that says no", response(200), Own(200), Other),
        Row(
            "a redirect",
            Script::whole(307, &[("Location", "http://127.0.0.1:1/")], ""),
            Error(502, "upstream_redirect"),
            Other,
        ),
        Row(
            "compressed",
            Script::whole(200, &[("Content-Encoding", "gzip")], "zip"),
            Error(502, "upstream_encoding"),
            Other,
        ),
    ];
    for status in [401, 402, 403, 408, 429, 500, 502, 503, 504, 520, 529] {
        rows.push(Row("a response worth another attempt", response(status), Own(status), Other));
    }
    for status in [400, 404, 409, 413, 422, 501] {
        rows.push(Row("a response to the request itself", response(status), Own(status), Own(status)));
    }
    hold(rows, false);
}

#[test]
fn streams() {
    use Seen::{Error, Other, Own};
    let first = |data: &str| Script::sse().chunk(data).chunk(event("more")).chunk(DONE).end();
    let no = |code: Value| {
        let no = json!({"error": {"message": "scripted", "code": code}});
        first(&format!("data: {no}\n\n"))
    };
    let anthropic = r#"{"type":"error","error":{"type":"overloaded_error","message":"scripted"}}"#;
    let openrouter = r#"{"id":"x","error":{"code":503,"message":"scripted"},"choices":[{"delta":{}}]}"#;
    hold(
        vec![
            Row("closed", Script::default().then(Step::Fin), Error(502, "upstream_broken"), Other),
            Row("no event", Script::sse().then(Step::Reset), Error(502, "upstream_broken"), Other),
            Row(
                "half an event",
                Script::sse().chunk("data: {\"ha").then(Step::Reset),
                Error(502, "upstream_broken"),
                Other,
            ),
            Row("silent", Script::default().then(Step::Silence), Error(504, "upstream_timeout"), Other),
            Row(
                "silent behind its head",
                Script::sse().then(Step::Silence),
                Error(504, "upstream_timeout"),
                Other,
            ),
            Row("429", response(429), Own(429), Other),
            Row("400", response(400), Own(400), Own(400)),
            Row("a first event that says 429", no(json!(429)), Own(429), Other),
            Row("a first event that says 503", no(json!(503)), Own(503), Other),
            Row("a first event that says 504", no(json!("504")), Own(504), Other),
            Row("a first event that says no", no(Value::Null), Own(502), Other),
            Row("a first event that says 400", no(json!(400)), Own(400), Own(400)),
            Row("Anthropic's", first(&format!("event: error\ndata: {anthropic}\n\n")), Own(529), Other),
            Row(
                "OpenRouter's",
                first(&format!(": OPENROUTER PROCESSING\n\ndata: {openrouter}\n\n")),
                Own(503),
                Other,
            ),
        ],
        true,
    );
}

#[test]
fn unreachable_is_tried_again_and_elsewhere() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let secured = good();
    // Its certificate has an unknown issuer.
    let tls = Tls::new(&secured, "server.pem");
    let other = good();
    for (what, url) in [
        ("gone", format!("http://{port}/v1")),
        ("without an address", "http://no-such-host.invalid/v1".to_owned()),
        ("not to be trusted", tls.url("localhost")),
    ] {
        let gone = format!("p1|{url}|{KEY}");
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": [gone]})));
        check(what, &proxy.call(ask("p1/m")), &Seen::Error(502, "upstream_unreachable"), false);
        let streamed = proxy.call(ask_streamed("p1/m"));
        check(what, &streamed, &Seen::Error(502, "upstream_unreachable"), true);
        proxy.log_line(&["attempt=3", "provider=p1", "replica=1", "Unreachable"]);

        let both = json!({"providers": [gone, format!("p1|{}|{KEY}", other.url())]});
        let proxy = Proxy::start(&with(config(&[]), both));
        for _ in 0..4 {
            check(what, &proxy.call(ask("p1/m")), &Seen::Other, false);
            check(what, &proxy.call(ask_streamed("p1/m")), &Seen::Other, true);
        }
        proxy.log_line(&["attempt=1", "provider=p1", "replica=1", "cooldown=10s", "Unreachable"]);
    }
    assert!(secured.requests().is_empty(), "a key must not leave for who is not trusted");
}

#[test]
fn nothing_is_sent_twice_once_a_byte_has_left() {
    let (bad, other) = (Upstream::new(&["m"]), good());
    let proxy = Proxy::start(&with(
        config(&[("p1", &bad), ("p1", &other)]),
        json!({"stream_heartbeat": 0.3, "attempt_timeout": 5, "stream_timeout": 1}),
    ));
    bad.chat(Script::sse().chunk(event("half")).then(Step::Reset));
    let response = proxy.call(ask_streamed("p1/m"));
    assert!(response.text().starts_with(&event("half")) && response.end == End::Cut, "{}", response.text());
    // A heartbeat is a byte too.
    bad.chat(Script::default().then(Step::Silence));
    let response = proxy.call(ask_streamed("p1/m"));
    assert!(response.text().starts_with(HEARTBEAT) && response.end == End::Cut, "{}", response.text());
    assert!(other.requests().is_empty());
}

#[test]
fn comments_are_held_back_while_another_replica_is_available_and_no_longer() {
    let (slow, other) = (Upstream::new(&["m"]), good());
    slow.chat(Script::sse().chunk(": PROCESSING\n\n").then(Step::Silence));
    let changes = json!({"stream_heartbeat": 5, "attempt_timeout": 0.5});
    let proxy = Proxy::start(&with(config(&[("p1", &slow), ("p1", &other)]), changes.clone()));
    check("comments alone", &proxy.call(ask_streamed("p1/m")), &Seen::Other, true);

    let alone = Proxy::start(&with(config(&[("p1", &slow)]), changes));
    let mut client = alone.client();
    client.send(ask_streamed("p1/m"));
    let (took, first) = timed(|| client.streamed().next_event());
    assert_eq!(first.as_deref(), Some(": PROCESSING\n\n"));
    assert!(took < Duration::from_secs(4), "not held until the heartbeat: {took:?}");
}

#[test]
fn slow_response_has_the_total_time_by_default() {
    let (slow, other) = (Upstream::new(&["m"]), good());
    let limits = json!({"non_stream_timeout": 4, "stream_timeout": 4, "stream_heartbeat": 0});
    let targets = json!({"models": {"v": ["p1/m", "p2/m", "p1/n"]}});
    let proxy = Proxy::start(&with(with(config(&[("p1", &slow), ("p2", &other)]), limits), targets));
    // More than two thirds of the time.
    let pause = || Script::default().then(Step::Pause(Duration::from_millis(3000)));
    let body = completion("slow").to_string();
    let length = body.len();
    slow.chat(pause().send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")));
    assert_eq!(proxy.call(ask("v")).json(), completion("slow"));
    let Script(stream) = Script::sse().chunk(event("slow")).chunk(DONE).end();
    slow.chat(stream.into_iter().fold(pause(), Script::then));
    assert_eq!(proxy.call(ask_streamed("v")).text(), event("slow") + DONE);
    assert_eq!((slow.requests().len(), other.requests().len()), (2, 0), "nobody was asked twice");
}

#[test]
fn response_over_the_total_time_is_504_that_no_sdk_repeats() {
    let (slow, other) = (Upstream::new(&["m"]), good());
    slow.chat(Script::default().then(Step::Silence));
    let limits = json!({"non_stream_timeout": 0.5, "stream_timeout": 0.5, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(config(&[("p1", &slow), ("p1", &other)]), limits));
    for call in [ask("p1/m"), ask_streamed("p1/m")] {
        let response = proxy.call(call);
        check("silent", &response, &Seen::Error(504, "upstream_timeout"), false);
        assert_eq!(response.header("x-should-retry"), Some("false"));
    }
    assert_eq!((slow.requests().len(), other.requests().len()), (2, 0));
}

#[test]
fn key_refused_with_400_is_in_cooldown_as_with_401() {
    let xai = json!({"code": "Client specified an invalid argument",
        "error": "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai."});
    let (bad, other) = (Upstream::new(&["m"]), good());
    bad.chat(Script::json(400, &xai));
    let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &other)]));
    for _ in 0..3 {
        check("refused key", &proxy.call(ask("p1/m")), &Seen::Other, false);
    }
    assert_eq!(bad.requests().len(), 1);
    proxy.log_line(&["WARNING", "replica=1", "cooldown=300s", "HTTP 400"]);
    let alone = Proxy::start(&config(&[("p1", &bad)]));
    let response = alone.call(ask("p1/m")).json();
    assert_eq!(response["code"], xai["code"], "as the provider has it");
    let key = "provider p1 refused the key that ai-proxy has for it (your token is valid): Incorrect API key provided: xa***.";
    assert!(response["error"].as_str().is_some_and(|error| error.starts_with(key)), "{response}");
    // The error's own word says it as well as its message.
    bad.chat(Script::json(400, &json!({"error": {"message": "no", "code": "invalid_api_key"}})));
    let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &other)]));
    check("refused key", &proxy.call(ask("p1/m")), &Seen::Other, false);
    proxy.log_line(&["WARNING", "replica=1", "cooldown=300s", "HTTP 400 invalid_api_key"]);
}

#[test]
fn hanging_replica_leaves_time_for_another_by_attempt_timeout() {
    let (bad, other) = (Upstream::new(&["m"]), good());
    bad.chat(Script::default().then(Step::Silence));
    let limits = json!({"non_stream_timeout": 3, "stream_heartbeat": 3, "attempt_timeout": 0.5});
    let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p1", &other)]), limits));
    check("silent", &proxy.call(ask("p1/m")), &Seen::Other, false);
    check("silent", &proxy.call(ask_streamed("p1/m")), &Seen::Other, true);
    // The third failure in a row: the replica is in cooldown.
    check("silent", &proxy.call(ask("p1/m")), &Seen::Other, false);
    let (took, response) = timed(|| proxy.call(ask("p1/m")));
    check("put aside", &response, &Seen::Other, false);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(bad.requests().len(), 3);
}

#[test]
fn slow_replica_has_all_the_time_when_the_other_is_in_cooldown() {
    let (slow, bad) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let body = completion("slow").to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    slow.chat(Script::default().then(Step::Pause(Duration::from_millis(1200))).send(response));
    bad.chat(self::response(401));
    let limits = json!({"non_stream_timeout": 8, "attempt_timeout": 0.4});
    let proxy = Proxy::start(&with(config(&[("p1", &bad), ("p1", &slow)]), limits));
    for _ in 0..2 {
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("slow"));
    }
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn replica_with_a_refused_key_is_in_cooldown_and_alone_still_asked() {
    let (bad, other) = (Upstream::new(&["m"]), good());
    bad.chat(response(401));
    let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &other)]));
    for _ in 0..5 {
        check("refused key", &proxy.call(ask("p1/m")), &Seen::Other, false);
    }
    assert_eq!(bad.requests().len(), 1);
    proxy.log_line(&["WARNING", "replica=1", "cooldown=300s", "HTTP 401"]);

    let alone = Proxy::start(&config(&[("p1", &bad)]));
    for _ in 0..5 {
        check("refused key", &alone.call(ask("p1/m")), &Seen::Own(401), false);
    }
    bad.chat(Script::json(200, &completion("well again")));
    assert_eq!(alone.call(ask("p1/m")).json(), completion("well again"));
}

#[test]
fn replica_without_funds_is_in_cooldown_and_a_busy_one_for_as_long_as_it_says() {
    for (fields, body, cooldown) in [
        (vec![], json!({"error": {"code": "insufficient_quota", "message": "pay"}}), "cooldown=300s"),
        (vec![("Retry-After", "40")], json!({"error": {"code": "rate_limit_exceeded"}}), "cooldown=40s"),
        (vec![("retry-after-ms", "7000"), ("Retry-After", "9")], json!({}), "cooldown=7s"),
        (vec![], json!({}), "cooldown=-"),
    ] {
        let (bad, other) = (Upstream::new(&["m"]), good());
        let fields = [vec![("Content-Type", "application/json")], fields].concat();
        bad.chat(Script::whole(429, &fields, body.to_string()));
        let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &other)]));
        check("429", &proxy.call(ask("p1/m")), &Seen::Other, false);
        proxy.log_line(&["attempt=1", "replica=1", cooldown, "HTTP 429"]);
    }
}

#[test]
fn health_tells_what_requests_have_met() {
    let (bad, other) = (Upstream::new(&["m"]), good());
    bad.chat(Script::json(401, &json!({"error": {"message": KEY, "code": "invalid_api_key"}})));
    let proxy = Proxy::start(&config(&[("p1", &bad), ("p1", &other), ("p2", &other)]));
    let before = proxy.get("/health").json();
    assert_eq!(before["details"]["p1"]["error"], Value::Null);
    assert_eq!(before["details"]["p1"]["cooling_until"], Value::Null);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);

    let health = proxy.get("/health");
    let (text, health) = (health.text(), health.json());
    assert!(!text.contains(KEY), "{text}");
    assert_eq!(
        (&health["status"], &health["providers"]["p1"]),
        (&json!("healthy"), &json!(true)),
        "by its checks"
    );
    let details = &health["details"]["p1"];
    let error = details["error"].as_str().expect("an error");
    assert!(
        error.starts_with("replica 1: request failed at 20") && error.contains("HTTP 401 invalid_api_key")
    );
    assert!(details["cooling_until"].as_str().is_some_and(|until| until.starts_with("20")), "{details}");
    assert_eq!(details["replicas"][0]["replica"], 1);
    assert_eq!(details["replicas"][0]["cooling_until"], details["cooling_until"]);
    assert_eq!(details["replicas"][1]["error"], Value::Null);
    assert_eq!(
        health["details"]["p2"].as_object().map(|detail| detail.contains_key("replicas")),
        Some(false)
    );

    // A replica that succeeds again shows no failure.
    let lone = Proxy::start(&config(&[("p1", &bad)]));
    assert_eq!(lone.call(ask("p1/m")).status, 401);
    assert!(lone.get("/health").json()["details"]["p1"]["error"].is_string());
    bad.chat(Script::json(200, &completion("well")));
    assert_eq!(lone.call(ask("p1/m")).status, 200);
    eventually("a clean bill", || {
        (lone.get("/health").json()["details"]["p1"]["error"] == Value::Null).then_some(())
    });
}

#[test]
fn earlier_response_is_relayed_under_its_own_name_and_without_its_own_key() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let quoted = json!({"error": {"message": format!("no room for key {FIRST_KEY}")}}).to_string();
    let fields = [("Content-Type", "application/json"), ("X-Request-Id", "up-1")];
    first.chat(Script::whole(503, &fields, quoted));
    let second_fields = [("Content-Type", "text/event-stream"), ("X-Request-Id", "up-2")];
    second.chat(Script::chunked(200, &second_fields).then(Step::Reset));
    let providers = json!([format!("p1|{}|{FIRST_KEY}", first.url()), format!("p2|{}|{KEY}", second.url())]);
    let changes = json!({"providers": providers, "models": {"best": ["p1/m", "p2/m"]}});
    let proxy = Proxy::start(&with(config(&[]), changes));
    let response = proxy.call(ask_streamed("best"));
    assert_eq!((response.status, second.requests().len()), (503, 1), "{}", response.text());
    assert!(!response.text().contains(FIRST_KEY), "{}", response.text());
    assert_eq!(response.header("x-ai-proxy-provider"), Some("p1"));
    assert_eq!(response.header("x-request-id"), Some("up-1"));
    proxy.log_line(&["provider=p1", "model=best", "status=503", "attempts=2", "upstream_id=up-1"]);
}

/// The client's id leads to the line of its request, whichever replicas failed before.
#[test]
fn response_has_no_id_of_an_attempt_that_failed() {
    let (first, second) = (Upstream::new(&["m"]), good());
    let fields = [("Content-Type", "application/json"), ("X-Request-Id", "up-1")];
    first.chat(Script::whole(503, &fields, own(503).to_string()));
    let providers = config(&[("p1", &first), ("p2", &second)]);
    let proxy = Proxy::start(&with(providers, json!({"models": {"best": ["p1/m", "p2/m"]}})));
    for call in [ask("best"), ask_streamed("best")] {
        let response = proxy.call(call);
        let id = response.header("x-request-id").expect("an id").to_owned();
        assert_eq!((response.status, id == "up-1"), (200, false), "{id}");
        proxy.log_line(&["attempts=2", &format!("request_id={id}"), "upstream_id=-", "耗时:"]);
    }
}

#[test]
fn an_error_under_a_status_of_success_quotes_no_key_either() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &json!({"error": {"message": format!("bad: {KEY}"), "code": 400}})));
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    for call in [ask("p1/m"), ask_streamed("p1/m")] {
        let response = proxy.call(call);
        assert_eq!(response.status, 200, "as it came");
        assert!(response.text().contains("bad: ") && !response.text().contains(KEY), "{}", response.text());
    }
}

/// A body of one token, refused for any reason, must not take a replica from other tokens.
#[test]
fn failures_of_one_token_leave_the_replica_to_the_others_until_a_second_meets_one() {
    let other_token = "sk-another-token-7654321-wvx";
    let ask_as = |token: &str, model: &str| {
        let body = json!({"model": model, "messages": []}).to_string();
        post("/v1/chat/completions", &[("Authorization", &format!("Bearer {token}"))], body)
    };
    for (refusal, times) in [
        (response(401), 1),
        (response(402), 1),
        (response(403), 1),
        (Script::whole(429, &[("Retry-After", "60")], "{}"), 1),
        (response(429), 3),
        (response(500), 3),
        (Script::default().then(Step::Reset), 3),
        (Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").then(Step::Fin), 3),
        (Script::json(400, &json!({"error": "Incorrect API key provided"})), 1),
    ] {
        let (first, second) = (Upstream::new(&["m", "gated"]), good());
        first.handle("/v1/chat/completions", move |request| {
            let is_refused = request.text().contains("gated");
            if is_refused { refusal.clone() } else { Script::json(200, &completion("first")) }
        });
        let named = config(&[("p1", &first), ("p1", &second)]);
        let proxy =
            Proxy::start(&with(named, json!({"tokens": [format!("a|{TOKEN}"), format!("b|{other_token}")]})));
        let content = |token, model| {
            let response = proxy.call(ask_as(token, model));
            response.json()["choices"][0]["message"]["content"].as_str().map(str::to_owned)
        };
        let (of_first, of_second) = (Some("first".to_owned()), Some("other".to_owned()));
        (0..times).for_each(|_| assert_eq!(content(TOKEN, "p1/gated"), of_second));
        assert_eq!(content(TOKEN, "p1/m"), of_second, "it is in cooldown for the token that was refused");
        let status =
            |key: &str| proxy.call(get("/v1/status")).json()["providers"][0]["replicas"][0][key].clone();
        assert_eq!((status("cooling_token"), status("cooling_seconds").is_u64()), (json!("a"), true));
        assert_eq!(content(other_token, "p1/m"), of_first);
        assert_eq!(content(TOKEN, "p1/m"), of_first, "the other's success clears it");
        // The same refusal of a second token puts the replica in cooldown for all tokens.
        (0..times).for_each(|_| drop(content(TOKEN, "p1/gated")));
        content(other_token, "p1/gated");
        assert_eq!((content(other_token, "p1/m"), content(TOKEN, "p1/m")), (of_second.clone(), of_second));
        assert_eq!((status("cooling_token"), status("cooling_seconds").is_u64()), (Value::Null, true));
    }
}

/// A check with the same refusal confirms it.
#[test]
fn refused_key_of_which_the_check_knows_is_in_cooldown_for_every_token() {
    let (first, second) = (Upstream::new(&["m"]), good());
    first.handle("/v1/models", |_| response(401));
    first.chat(response(401));
    let named = config(&[("p1", &first), ("p1", &second)]);
    let tokens = json!({"tokens": [format!("a|{TOKEN}"), "b|sk-another-token-7654321-wvx"]});
    let proxy = Proxy::start(&with(named, tokens));
    proxy.call(get("/health"));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let replica = &proxy.call(get("/v1/status")).json()["providers"][0]["replicas"][0];
    assert_eq!((&replica["cooling_token"], replica["cooling_seconds"].is_u64()), (&Value::Null, true));
}
