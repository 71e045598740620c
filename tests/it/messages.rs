//! Anthropic's format: relayed unchanged to a provider that supports it, translated for others, with the
//! proxy's own errors in Anthropic's shape.

use serde_json::{Value, json};

use crate::support::calls::{DONE, KEY, TOKEN, authorized, completion, post};
use crate::support::client::{End, HEARTBEAT, Response, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, behind_a_dead_native, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const MESSAGES: &str = "/v1/messages";

/// An upstream that supports both formats at one URL as the provider `both`, and only OpenAI's as `plain`.
fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let both = json!({"name": "both", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY});
    let plain = json!({"name": "plain", "url": upstream.url(), "key": KEY});
    let changes = with(json!({"providers": [both, plain], "max_retries": 0}), changes);
    let proxy = Proxy::start(&with(config(&[]), changes));
    (upstream, proxy)
}

fn message(text: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 3, "output_tokens": 5}
    })
}

fn say(model: &str, stream: bool) -> Vec<u8> {
    let hi = json!([{"role": "user", "content": "hi"}]);
    authorized(
        MESSAGES,
        json!({"model": model, "max_tokens": 9, "stream": stream, "messages": hi}).to_string(),
    )
}

/// Checks that an error of the proxy has Anthropic's shape.
fn assert_error(response: &Response, status: u16, kind: &str, reason: &str) {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let id = response.header("request-id").expect("request-id");
    assert_eq!(response.header("x-request-id"), Some(id));
    assert_error_body(&text, kind, reason, id);
}

fn assert_error_body(text: &str, kind: &str, reason: &str, id: &str) {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let said = body["error"]["message"].as_str().expect("a message");
    let error = json!({"type": kind, "message": said, "reason": reason});
    assert_eq!(body, json!({"type": "error", "error": error, "request_id": id}));
    assert!(!said.is_empty());
}

#[test]
fn body_query_and_response_pass_as_they_are_and_the_key_goes_where_anthropic_wants_it() {
    let (upstream, proxy) = start(json!({}));
    let message = "{ \"id\" : \"msg_1\",\"x\":1.0e0 }";
    upstream.respond(MESSAGES, Script::whole(200, &[("Content-Type", "application/json")], message));
    let body =
        "{ \"max_tokens\":1 ,\"model\" :\"both/m\",\"messages\":[{\"model\":\"both/m\"}],\"z\":1.0e0 }";
    let bearer = format!("Bearer {TOKEN}");
    for token in [("X-Api-Key", TOKEN), ("Authorization", bearer.as_str())] {
        let response = proxy.call(post("/v1/messages?beta=true", &[token], body));
        assert_eq!((response.status, response.text().as_str()), (200, message));
        let sent = upstream.last();
        assert_eq!(sent.target, "/v1/messages?beta=true");
        assert_eq!(sent.text(), body.replacen("\"both/m\"", "\"m\"", 1));
        assert_eq!(sent.head.all("x-api-key"), [KEY]);
        assert_eq!(sent.head.get("authorization"), None);
        assert_eq!(sent.head.all("anthropic-version"), ["2023-06-01"]);
    }
    let named = [("X-Api-Key", TOKEN), ("Anthropic-Version", "2099-01-01"), ("Anthropic-Beta", "a,b")];
    proxy.call(post(MESSAGES, &named, body));
    assert_eq!(upstream.last().head.all("anthropic-version"), ["2099-01-01"]);
    assert_eq!(upstream.last().head.all("anthropic-beta"), ["a,b"]);
}

#[test]
fn tokens_are_counted_by_the_provider() {
    let (upstream, proxy) = start(json!({}));
    upstream.respond("/v1/messages/count_tokens", Script::json(200, &json!({"input_tokens": 7})));
    let body = r#"{"model":"both/m","messages":[{"role":"user","content":"hi"}]}"#;
    let response = proxy.call(authorized("/v1/messages/count_tokens", body));
    assert_eq!((response.status, response.json()), (200, json!({"input_tokens": 7})));
    assert_eq!(upstream.last().text(), body.replace("both/m", "m"));
}

#[test]
fn the_format_may_be_spoken_at_another_url() {
    let (one, other) = (Upstream::new(&["m"]), Upstream::new(&[]));
    one.chat(Script::json(200, &completion("one")));
    other.respond(MESSAGES, Script::json(200, &message("other")));
    let provider = json!({"name": "p", "url": one.url(), "anthropic_url": other.url(), "key": KEY});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider]})));
    assert_eq!(proxy.call(say("p/m", false)).json(), message("other"));
    let chat = proxy.call(authorized("/v1/chat/completions", r#"{"model":"p/m","messages":[]}"#));
    assert_eq!(chat.json(), completion("one"));
    assert_eq!(one.last().head.get("x-api-key"), None, "the key goes one way only");
}

#[test]
fn what_we_refuse_has_anthropics_shape() {
    let (_upstream, proxy) = start(json!({"max_request_size": 1000}));
    let call = |target: &str, body: &str| proxy.call(authorized(target, body));
    let none = proxy.call(post(MESSAGES, &[], "{}"));
    assert_error(&none, 401, "authentication_error", "missing_token");
    let wrong = proxy.call(post(MESSAGES, &[("x-api-key", "sk-wrong")], "{}"));
    assert_error(&wrong, 401, "authentication_error", "invalid_token");
    assert_error(&call(MESSAGES, "{"), 400, "invalid_request_error", "invalid_json");
    assert_error(&call(MESSAGES, "{}"), 400, "invalid_request_error", "missing_model");
    assert_error(&proxy.call(say("no/m", false)), 404, "not_found_error", "model_not_found");
    assert_error(&call(MESSAGES, &" ".repeat(1001)), 413, "request_too_large", "body_too_large");
    assert_error(&call("/v1/messages/batches", "{}"), 404, "not_found_error", "not_found");
    assert_error(&proxy.get(MESSAGES), 405, "invalid_request_error", "method_not_allowed");
    let elsewhere = call("/v1/messagesx", "{}").json();
    assert_eq!(elsewhere["error"]["type"], "http_error", "another path keeps the other shape");
}

#[test]
fn a_providers_fault_has_anthropics_shape_and_its_json_error_passes() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 1}));
    let html = [("Content-Type", "text/html")];
    upstream.respond(MESSAGES, Script::whole(529, &html, "<h1>busy</h1>"));
    let busy = proxy.call(say("both/m", false));
    assert_error(&busy, 529, "overloaded_error", "upstream_error");
    assert_eq!(busy.json()["error"]["message"], "<h1>busy</h1>");

    let own = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}});
    upstream.respond(MESSAGES, Script::json(429, &own));
    assert_eq!(proxy.call(say("both/m", false)).json(), own);

    upstream.respond(MESSAGES, Script::default().then(Step::Silence));
    assert_error(&proxy.call(say("both/m", false)), 504, "timeout_error", "upstream_timeout");
    upstream.respond(MESSAGES, Script::default().then(Step::Fin));
    assert_error(&proxy.call(say("both/m", false)), 502, "api_error", "upstream_broken");
}

#[test]
fn provider_request_id_is_sent_under_both_names() {
    let (upstream, proxy) = start(json!({}));
    let headers = [("Content-Type", "application/json"), ("Request-Id", "req_theirs")];
    upstream.respond(MESSAGES, Script::whole(200, &headers, message("a").to_string()));
    let response = proxy.call(say("both/m", false));
    assert_eq!(response.head.all("request-id"), ["req_theirs"]);
    assert_eq!(response.head.all("x-request-id"), ["req_theirs"]);
}

fn event(name: &str) -> String {
    format!("event: {name}\ndata: {{\"type\": \"{name}\"}}\n\n")
}

#[test]
fn a_stream_passes_to_the_byte_and_ends_as_its_provider_ends_it() {
    let (upstream, proxy) = start(json!({}));
    let events = [event("message_start"), event("ping"), event("message_stop")].concat();
    let head = [("Content-Type", "text/event-stream")];
    for (script, end) in [
        (Script::chunked(200, &head).chunk(&events).end(), End::FinalChunk),
        (Script::sse_until_close().send(&events).then(Step::Fin), End::FinalChunk),
    ] {
        upstream.respond(MESSAGES, script);
        let response = proxy.call(say("both/m", true));
        assert_eq!((response.text(), response.end), (events.clone(), end));
    }
}

#[test]
fn a_stream_that_breaks_off_ends_with_anthropics_error_event_and_never_cleanly() {
    let (upstream, proxy) = start(json!({}));
    let begun = event("message_start");
    for script in
        [Script::sse().chunk(&begun).then(Step::Fin), Script::sse_until_close().send(&begun).then(Step::Fin)]
    {
        upstream.respond(MESSAGES, script);
        let response = proxy.call(say("both/m", true));
        assert_eq!(response.end, End::Cut);
        let id = response.header("request-id").expect("request-id").to_owned();
        let text = response.text();
        let event = text.strip_prefix(&format!("{begun}event: error\ndata: ")).expect("an error event");
        let data = event.strip_suffix("\n\n").expect("a whole event");
        assert_error_body(data, "api_error", "upstream_broken", &id);
    }
}

/// That script, after the gate opens.
fn after(gate: &Gate, Script(steps): Script) -> Script {
    steps.into_iter().fold(Script::default().wait(gate), Script::then)
}

#[test]
fn silent_stream_is_kept_alive_with_comments() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = Gate::new();
    let late = Script::sse().chunk(event("message_stop")).end();
    upstream.respond(MESSAGES, after(&gate, late));
    let mut client = proxy.client();
    client.send(say("both/m", true));
    let mut stream = client.streamed();
    assert_eq!(stream.head.all("request-id"), stream.head.all("x-request-id"));
    for _ in 0..2 {
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    }
    gate.open();
    let rest = stream.events();
    assert_eq!(rest.last(), Some(&event("message_stop")));
    assert_eq!(stream.end(), End::FinalChunk);
}

/// The stream that a client gets when `script` begins after a heartbeat, and how it ends.
fn behind_a_heartbeat(model: &str, path: &str, script: Script) -> (String, End) {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = Gate::new();
    upstream.respond(path, after(&gate, script));
    let mut client = proxy.client();
    client.send(say(model, true));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    gate.open();
    let rest = stream.events().concat().replace(HEARTBEAT, "");
    (rest, stream.end())
}

#[test]
fn error_after_a_heartbeat_is_an_event() {
    let own = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}});
    for status in [200, 429] {
        let (rest, end) = behind_a_heartbeat("both/m", MESSAGES, Script::json(status, &own));
        assert_eq!((rest, end), (format!("event: error\ndata: {own}\n\n"), End::Cut));
    }
}

#[test]
fn buffered_response_after_a_heartbeat_is_not_passed_off_as_an_error() {
    let (rest, end) = behind_a_heartbeat("both/m", MESSAGES, Script::json(200, &message("hello")));
    assert!(rest.starts_with("event: error\n") && rest.contains("\"reason\":\"upstream_broken\""), "{rest}");
    assert!(!rest.contains("hello"), "{rest}");
    assert_eq!(end, End::Cut);
}

// ── a provider that supports only OpenAI's format ──

fn chat_event(delta: &Value) -> String {
    let chunk = json!({"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

fn chat_end() -> String {
    let finish = json!({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    format!("data: {finish}\n\ndata: {usage}\n\n{DONE}")
}

/// The `type` of each event except `ping`, and the data of the last.
fn kinds(text: &str) -> (Vec<String>, Value) {
    let events: Vec<Value> = text
        .split("\n\n")
        .filter(|event| !event.is_empty() && !event.contains("\"ping\""))
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect();
    let kind = |event: &Value| event["type"].as_str().expect("a type").to_owned();
    (events.iter().map(kind).collect(), events.last().cloned().expect("an event"))
}

#[test]
fn a_call_is_translated_there_and_back() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::json(200, &completion("hello")));
    let call = json!({"model": "plain/m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let headers = [
        ("x-api-key", TOKEN),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "x"),
        ("x-own", "stays"),
    ];
    let response = proxy.call(post("/v1/messages?beta=true", &headers, call.to_string()));
    let expected = json!({
        "id": "chatcmpl-1", "type": "message", "role": "assistant", "model": "plain/m",
        "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {
            "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5
        }
    });
    assert_eq!((response.status, response.json()), (200, expected));
    assert_eq!(response.header("x-ai-proxy-provider"), Some("plain"));
    let sent = upstream.last();
    assert_eq!(sent.target, "/v1/chat/completions");
    assert_eq!(sent.text(), r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#);
    assert_eq!(sent.head.get("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(sent.head.get("x-own"), Some("stays"));
    for gone in ["x-api-key", "anthropic-version", "anthropic-beta"] {
        assert_eq!(sent.head.get(gone), None, "{gone}");
    }
    proxy.log_line(&["provider=plain", "model=plain/m", "status=200", "tokens=3+5"]);
}

#[test]
fn a_stream_is_translated_event_by_event() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = Gate::new();
    let said = chat_event(&json!({"role": "assistant", "content": "a"}));
    upstream.chat(Script::sse().chunk(said).wait(&gate).chunk(chat_end()).end());
    let mut client = proxy.client();
    client.send(say("plain/m", true));
    let mut stream = client.streamed();
    assert_eq!(stream.head.get("content-type"), Some("text/event-stream"));
    let mut begun = String::new();
    for _ in 0..3 {
        begun += &stream.next_event().expect("an event");
    }
    let (names, first) = kinds(&begun);
    assert_eq!(names, ["message_start", "content_block_start", "content_block_delta"]);
    assert_eq!(first["delta"]["text"], "a");
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT), "the provider is silent");
    gate.open();
    let (names, _) = kinds(&stream.events().concat());
    assert_eq!(names, ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(stream.end(), End::FinalChunk);
    assert!(upstream.last().text().ends_with(r#""stream":true,"stream_options":{"include_usage":true}}"#));
    proxy.log_line(&["provider=plain", "stream=true", "tokens=3+5"]);
}

#[test]
fn translated_stream_is_asked_for_its_usage_unless_the_provider_refuses() {
    for (option, asks) in [("auto", true), ("always", true), ("never", false)] {
        let upstream = Upstream::new(&["m"]);
        let provider = json!({"name": "plain", "url": upstream.url(), "key": KEY, "stream_usage": option});
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider]})));
        upstream.chat(Script::sse().chunk(chat_event(&json!({"content": "a"}))).chunk(chat_end()).end());
        assert_eq!(proxy.call(say("plain/m", true)).status, 200);
        let end = if asks { r#","stream_options":{"include_usage":true}}"# } else { "}" };
        let sent = upstream.last().text();
        assert!(sent.ends_with(&format!(r#""stream":true{end}"#)), "{option}: {sent}");
    }
}

#[test]
fn a_translated_stream_that_breaks_off_never_ends_cleanly() {
    let (upstream, proxy) = start(json!({}));
    let said = chat_event(&json!({"content": "a"}));
    for script in [
        Script::sse().chunk(&said).then(Step::Fin),
        Script::sse().chunk(&said).then(Step::Reset),
        Script::sse().chunk(&said).end(),
        Script::sse().chunk(&said).chunk("data: <html>\n\n").end(),
        Script::sse_until_close().send(&said).then(Step::Fin),
    ] {
        upstream.chat(script);
        let response = proxy.call(say("plain/m", true));
        assert_eq!((response.status, response.end), (200, End::Cut));
        let (names, last) = kinds(&response.text());
        assert_eq!(names.last().map(String::as_str), Some("error"));
        assert!(!names.contains(&"message_stop".to_owned()), "{names:?}");
        assert_eq!(last["error"]["reason"], "upstream_broken");
    }
}

#[test]
fn translated_stream_with_done_or_a_reason_is_complete() {
    let (upstream, proxy) = start(json!({}));
    let said = chat_event(&json!({"content": "a"}));
    let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for script in [
        Script::sse().chunk(&said).chunk(DONE).end(),
        Script::sse().chunk(&said).chunk(finish).end(),
        Script::sse_until_close().send(&said).send(finish).then(Step::Fin),
        Script::sse_until_close().send(&said).send(DONE).then(Step::Fin),
        Script::sse_until_close().send(&said).send(chat_end()).then(Step::Fin),
    ] {
        upstream.chat(script);
        let response = proxy.call(say("plain/m", true));
        assert_eq!(response.end, End::FinalChunk);
        let text = response.text();
        assert!(text.contains("\"stop_reason\":\"end_turn\""), "{text}");
        assert_eq!(kinds(&text).1, json!({"type": "message_stop"}));
    }
}

#[test]
fn untranslatable_response_costs_one_attempt_and_no_cooldown() {
    let upstream = Upstream::new(&["m"]);
    let entry = |name: &str| json!({"name": name, "url": upstream.url(), "key": KEY});
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({"providers": [entry("one"), entry("two")], "models": {"best": ["one/m", "two/m"]}, "max_retries": 2}),
    ));
    let call = |name: &str| json!([{"id": "c", "function": {"name": name, "arguments": "[1]"}}]);
    let whole =
        |said: Value| Script::json(200, &json!({"choices": [{"message": said, "finish_reason": "stop"}]}));
    // More failures than put a replica in cooldown.
    for script in [
        whole(json!({"content": 5})),
        whole(json!({"tool_calls": call("f")})),
        whole(json!({"tool_calls": [{"id": "c"}]})),
        Script::json(200, &json!({"hello": "world"})),
        Script::sse().chunk(chat_event(&json!({"content": 5}))).chunk(chat_end()).end(),
    ] {
        let asked = upstream.requests().len();
        upstream.chat(script);
        assert_error(&proxy.call(say("best", false)), 502, "api_error", "upstream_broken");
        assert_eq!(upstream.requests().len(), asked + 1);
        proxy.log_line(&["attempt=1", "provider=one", "cooldown=-", "Untranslatable"]);
    }
    // A document that is no JSON counts as no response.
    upstream.chat(Script::whole(200, &[("Content-Type", "text/html")], "<h1>log in</h1>"));
    let asked = upstream.requests().len();
    assert_error(&proxy.call(say("best", false)), 502, "api_error", "upstream_broken");
    assert_eq!(upstream.requests().len(), asked + 2);
}

#[test]
fn error_after_a_role_alone_goes_to_another_target() {
    let (one, two) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({
            "providers": [
                {"name": "one", "url": one.url(), "key": KEY}, {"name": "two", "url": two.url(), "key": KEY}
            ],
            "models": {"best": ["one/m", "two/m"]}
        }),
    ));
    let role = chat_event(&json!({"role": "assistant", "content": ""}));
    let error = format!("data: {}\n\n", json!({"error": {"message": "busy", "code": 503}}));
    for script in [
        Script::sse().chunk(&role).chunk(&error).end(),
        Script::sse().chunk(&role).then(Step::Fin),
        Script::sse().end(),
        Script::sse().chunk(DONE).end(),
    ] {
        one.chat(script);
        two.chat(
            Script::sse().chunk(&role).chunk(chat_event(&json!({"content": "two"}))).chunk(chat_end()).end(),
        );
        let response = proxy.call(say("best", true));
        let text = response.text();
        assert!(text.contains("\"text\":\"two\"") && text.matches("message_start").count() == 2, "{text}");
        assert_eq!(response.header("x-ai-proxy-provider"), Some("two"));
        assert_eq!(response.end, End::FinalChunk);
    }
}

#[test]
fn translated_response_over_max_response_size_is_said_to_be() {
    let (upstream, proxy) = start(json!({"max_response_size": 6_000}));
    let call = json!({"function": {"name": "f"}});
    let said = json!({"tool_calls": vec![call; 120]});
    let completion = json!({"choices": [{"message": said, "finish_reason": "tool_calls"}]});
    assert!(completion.to_string().len() < 6_000);
    upstream.chat(Script::json(200, &completion));
    for stream in [false, true] {
        assert_error(&proxy.call(say("plain/m", stream)), 502, "api_error", "response_too_large");
    }
}

#[test]
fn a_translated_stream_has_the_bounds_of_any() {
    let (upstream, proxy) = start(json!({"max_stream_size": 3_000_000}));
    // An event without end, and events without end.
    let head = Script::sse().chunk(chat_event(&json!({"content": "a"})));
    for (lead, flood, reason) in [
        ("data: ", "x".repeat(1000), "upstream_broken"),
        ("", chat_event(&json!({"content": "x".repeat(1000)})), "response_too_large"),
    ] {
        let lead = if lead.is_empty() { String::new() } else { format!("{:x}\r\n{lead}\r\n", lead.len()) };
        let chunk = format!("{:x}\r\n{flood}\r\n", flood.len());
        upstream.chat(head.clone().send(lead).then(Step::Flood(chunk.into_bytes())));
        let response = proxy.call(say("plain/m", true));
        assert_eq!(response.end, End::Cut);
        assert_eq!(kinds(&response.text()).1["error"]["reason"], reason);
    }
}

#[test]
fn call_without_end_in_a_translated_stream_counts_against_max_memory() {
    let (upstream, proxy) = start(json!({"max_memory": 32 * 1024 * 1024}));
    let call = |function: Value| chat_event(&json!({"tool_calls": [{"index": 0, "function": function}]}));
    let more = call(json!({"arguments": "x".repeat(4000)}));
    let flood = format!("{:x}\r\n{more}\r\n", more.len());
    let begun = call(json!({"name": "f", "arguments": "{\"a\":\""}));
    upstream.chat(Script::sse().chunk(begun).then(Step::Flood(flood.into_bytes())));
    let response = proxy.call(say("plain/m", true));
    assert_eq!(response.end, End::Cut);
    // `max_response_size` is more than the budget has room for.
    let text = response.text();
    assert_eq!(kinds(&text).1["error"]["reason"], "overloaded");
    assert!(text.len() < 8 * 1024 * 1024, "{}", text.len());
}

#[test]
fn a_provider_that_does_not_stream_is_streamed_for() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::json(200, &completion("hello")));
    let response = proxy.call(say("plain/m", true));
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let (names, last) = kinds(&response.text());
    assert_eq!((names.len(), last), (6, json!({"type": "message_stop"})));
}

#[test]
fn it_is_streamed_for_behind_a_heartbeat_too() {
    let (rest, end) =
        behind_a_heartbeat("plain/m", "/v1/chat/completions", Script::json(200, &completion("hello")));
    let (names, last) = kinds(&rest);
    assert_eq!((names.len(), last), (6, json!({"type": "message_stop"})));
    assert!(rest.contains("\"text\":\"hello\""), "{rest}");
    assert_eq!(end, End::FinalChunk);
}

#[test]
fn an_openai_error_becomes_anthropics() {
    let (upstream, proxy) = start(json!({}));
    let error = |code: Value| json!({"error": {"message": format!("no: {KEY}"), "type": "t", "code": code}});
    let limit = [("Content-Type", "application/json"), ("Retry-After", "7")];
    upstream.chat(Script::whole(429, &limit, error(json!("rate_limit_exceeded")).to_string()));
    let response = proxy.call(say("plain/m", false));
    assert_error(&response, 429, "rate_limit_error", "rate_limit_exceeded");
    assert!(!response.text().contains(KEY), "the key is masked");
    assert_eq!(response.header("retry-after"), Some("7"));
    // OpenRouter sends errors with status 200.
    upstream.chat(Script::json(200, &error(json!(402))));
    let response = proxy.call(say("plain/m", false));
    assert_eq!((response.status, response.json()["error"]["type"].clone()), (402, json!("billing_error")));
    upstream.chat(Script::whole(502, &[("Content-Type", "text/html")], "<h1>bad</h1>"));
    assert_error(&proxy.call(say("plain/m", true)), 502, "api_error", "upstream_error");
    upstream.chat(Script::json(200, &json!({"hello": "world"})));
    assert_error(&proxy.call(say("plain/m", false)), 502, "api_error", "upstream_broken");
}

#[test]
fn what_cannot_be_translated_is_refused_by_name_or_left_to_a_provider_that_speaks_it() {
    let virtual_model = json!({"best": ["plain/m", "both/m"]});
    let (upstream, proxy) = start(json!({"models": virtual_model}));
    upstream.respond(MESSAGES, Script::json(200, &message("native")));
    upstream.chat(Script::json(200, &completion("translated")));
    let call = |model: &str, more: &str| {
        let hi = r#"[{"role":"user","content":"hi"}]"#;
        let body = format!(r#"{{"model":"{model}","max_tokens":9,"messages":{hi}{more}}}"#);
        proxy.call(authorized(MESSAGES, body))
    };
    let refused = call("plain/m", r#","top_k":5"#);
    assert_error(&refused, 400, "invalid_request_error", "unsupported_parameter");
    assert!(refused.json()["error"]["message"].as_str().expect("text").contains("top_k"));
    let invalid = call("plain/m", r#","temperature":"hot""#);
    assert_error(&invalid, 400, "invalid_request_error", "invalid_parameter");
    assert_eq!(upstream.requests().len(), 0, "nothing of it was sent");
    assert_eq!(call("best", "").json()["content"][0]["text"], "translated");
    assert_eq!(call("best", r#","top_k":5"#).json()["content"][0]["text"], "native");
    // The other way round: one provider lacks what the other has, each in its own format.
    upstream.chat(Script::json(503, &json!({"error": {"message": "busy"}})));
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({
            "providers": [
                {"name": "plain", "url": upstream.url(), "key": KEY},
                {"name": "both", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY}
            ],
            "models": {"best": ["plain/m", "both/m"]}
        }),
    ));
    assert_eq!(proxy.call(say("best", false)).json()["content"][0]["text"], "native");
}

/// A history with this content of the assistant in its middle.
fn history(content: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"p/m","max_tokens":9,"messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","content":[{content}]}},{{"role":"user","content":"go"}}]}}"#
    );
    authorized(MESSAGES, body)
}

#[test]
fn native_replica_beside_one_for_chat_alone_gets_no_unsigned_thinking() {
    let (plain, native) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    plain.chat(Script::json(500, &json!({"error": {"message": "busy"}})));
    native.respond(MESSAGES, Script::json(200, &message("native")));
    let providers = json!([
        {"name": "p", "url": plain.url(), "key": KEY},
        {"name": "p", "url": native.url(), "anthropic_url": native.url(), "key": KEY}
    ]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let thinking = r#"{"type":"thinking","thinking":"t","signature":""},"#;
    for _ in 0..4 {
        let response = proxy.call(history(&format!(r#"{thinking}{{"type":"text","text":"a"}}"#)));
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert!(!plain.requests().is_empty() && !native.last().text().contains("signature"));
}

/// Every second block is cut out: the body leaves in that many pieces.
#[test]
fn body_of_many_pieces_is_sent_in_linear_time() {
    let native = Upstream::new(&["m"]);
    native.respond(MESSAGES, Script::json(200, &message("native")));
    let providers = json!([{"name": "p", "url": native.url(), "anthropic_url": native.url(), "key": KEY}]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let least = |cuts: usize| {
        let pair = r#"{"type":"thinking","thinking":"t","signature":""},{"type":"text","text":"a"},"#;
        let request = history(pair.repeat(cuts).trim_end_matches(','));
        let once = || {
            let (time, response) = timed(|| proxy.call(&request));
            assert_eq!(response.status, 200, "{}", response.text());
            time
        };
        (0..3).map(|_| once()).min().expect("three")
    };
    let (small, large) = (least(8_000), least(32_000));
    assert!(native.last().text().matches("text").count() >= 32_000);
    assert!(large < 10 * small, "four times as much took {small:?} and {large:?}");
}

#[test]
fn translation_refused_with_native_targets_down_is_the_400_that_names_the_field() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("translated")));
    let proxy = Proxy::start(&behind_a_dead_native(&upstream));
    assert_eq!(proxy.call(say("best", false)).json()["content"][0]["text"], "translated");
    let asked = upstream.requests().len();
    let hi = json!([{"role": "user", "content": "hi"}]);
    for stream in [false, true] {
        let body = json!({"model": "best", "max_tokens": 9, "stream": stream, "top_k": 5, "messages": hi})
            .to_string();
        let refused = proxy.call(authorized(MESSAGES, body));
        assert_error(&refused, 400, "invalid_request_error", "unsupported_parameter");
        assert!(refused.text().contains("top_k"), "{}", refused.text());
    }
    assert_eq!(upstream.requests().len(), asked, "nothing of it was sent");
}

#[test]
fn failing_native_target_leaves_the_400_that_names_the_field_unless_it_asks_to_wait() {
    let (native, plain) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let first = json!({"name": "native", "url": native.url(), "anthropic_url": native.url(), "key": KEY, "responses": "native"});
    let second = json!({"name": "plain", "url": plain.url(), "key": KEY, "responses": "chat"});
    let models = json!({"best": ["native/m", "plain/m"]});
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "theirs"}});
    let hi = json!([{"role": "user", "content": "hi"}]);
    for (status, headers, expected) in [
        (500, None, 400),
        (503, None, 400),
        (529, None, 400),
        (401, None, 400),
        (429, None, 429),
        (503, Some(("Retry-After", "30")), 503),
        (422, None, 422),
    ] {
        // New each time: a failure puts the replica in cooldown.
        let changes = json!({"providers": [first, second], "models": models});
        let proxy = Proxy::start(&with(config(&[]), changes));
        for (path, body) in [
            (MESSAGES, json!({"model": "best", "max_tokens": 9, "top_k": 5, "messages": hi})),
            ("/v1/responses", json!({"model": "best", "input": "hi", "top_logprobs": 5})),
        ] {
            let fields: Vec<_> = headers.into_iter().chain([("Content-Type", "application/json")]).collect();
            native.respond(path, Script::whole(status, &fields, error.to_string()));
            let response = proxy.call(authorized(path, body.to_string()));
            assert_eq!(response.status, expected, "{status} {path}: {}", response.text());
            let names_it = ["top_k", "top_logprobs"].iter().any(|field| response.text().contains(field));
            assert_eq!(names_it, expected == 400, "{status} {path}: {}", response.text());
        }
    }
    assert!(plain.requests().is_empty());
}

#[test]
fn translated_request_over_max_request_size_is_413() {
    let (upstream, proxy) = start(json!({"max_request_size": 20_000}));
    let tools = vec![json!({"name": "f", "input_schema": {}}); 400];
    let hi = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "plain/m", "max_tokens": 9, "messages": hi, "tools": tools}).to_string();
    assert!(body.len() < 20_000);
    let refused = proxy.call(authorized(MESSAGES, body));
    assert_error(&refused, 413, "request_too_large", "body_too_large");
    assert_eq!(upstream.requests().len(), 0, "nothing of it was sent");
}

#[test]
fn an_error_in_a_translated_stream_is_a_status_at_its_beginning_and_an_event_behind_it() {
    let (upstream, proxy) = start(json!({}));
    let error = format!("data: {}\n\n", json!({"error": {"message": "no", "code": 429}}));
    upstream.chat(Script::sse().chunk(": wait\n\n").chunk(&error).chunk(DONE).end());
    let response = proxy.call(say("plain/m", true));
    assert_eq!(response.status, 429, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["error"], json!({"type": "rate_limit_error", "message": "no"}));

    let said = chat_event(&json!({"content": "a"}));
    upstream.chat(Script::sse().chunk(&said).chunk(&error).chunk(&said).chunk(DONE).end());
    let response = proxy.call(say("plain/m", true));
    let (names, last) = kinds(&response.text());
    assert_eq!((response.status, names.len()), (200, 4), "{names:?}");
    assert_eq!(last["error"], json!({"type": "rate_limit_error", "message": "no"}));
}
