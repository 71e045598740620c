//! A provider that supports Anthropic's format.

use serde_json::json;

use super::{MESSAGES, after, assert_error, assert_error_body, behind_a_heartbeat, message, say, start};
use crate::support::calls::{KEY, TOKEN, authorized, completion, post};
use crate::support::client::{End, HEARTBEAT};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

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

#[test]
fn error_after_a_heartbeat_is_an_event() {
    let own = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}});
    for status in [200, 429] {
        let (rest, end) = behind_a_heartbeat("both/m", MESSAGES, Script::json(status, &own));
        assert_eq!((rest, end), (format!("event: error\ndata: {own}\n\n"), End::Cut));
    }
}

#[test]
fn refused_key_after_a_heartbeat_is_an_event_that_clears_the_token() {
    let said =
        |text: &str| json!({"type": "error", "error": {"type": "authentication_error", "message": text}});
    let words =
        "provider both refused the key that ai-proxy has for it (your token is valid): invalid x-api-key";
    for status in [200, 401] {
        let script = Script::json(status, &said("invalid x-api-key"));
        let (rest, end) = behind_a_heartbeat("both/m", MESSAGES, script);
        assert_eq!((rest, end), (format!("event: error\ndata: {}\n\n", said(words)), End::Cut));
    }
}

#[test]
fn buffered_response_after_a_heartbeat_is_not_passed_off_as_an_error() {
    let (rest, end) = behind_a_heartbeat("both/m", MESSAGES, Script::json(200, &message("hello")));
    assert!(rest.starts_with("event: error\n") && rest.contains("\"reason\":\"upstream_broken\""), "{rest}");
    assert!(!rest.contains("hello"), "{rest}");
    assert_eq!(end, End::Cut);
}
