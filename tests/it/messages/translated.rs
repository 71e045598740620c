//! A provider that supports only OpenAI's format: calls that it takes.

use serde_json::{Value, json};

use super::{MESSAGES, behind_a_heartbeat, chat_end, chat_event, kinds, message, say, start};
use crate::support::calls::{DONE, KEY, TOKEN, authorized, completion, post};
use crate::support::client::{End, HEARTBEAT, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

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
