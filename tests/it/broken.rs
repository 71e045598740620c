//! Broken streams: the client always sees an error event and no clean end.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::WITHIN_A_SECOND;
use crate::support::calls::{
    DONE, KEY, ask, ask_streamed, assert_error, assert_error_data, assert_error_event, authorized,
    completion, event,
};
use crate::support::client::{End, Streamed, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let changes = with(json!({"max_retries": 0, "stream_heartbeat": 0}), changes);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// The rest of a stream is one error event without a clean end.
pub fn assert_breaks(stream: &mut Streamed<'_>, status: u16, reason: &str) {
    let event = stream.next_real_event();
    assert_error_event(event.as_ref(), status, reason);
    assert_eq!(stream.next_event(), None, "nothing follows the error");
    assert_eq!(stream.end(), End::Cut, "never a clean end");
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error() {
    let (upstream, proxy) = start(json!({}));
    for step in [Step::Fin, Step::Reset] {
        let gate = Gate::new();
        upstream.chat(Script::sse().chunk(event("a")).wait(&gate).then(step));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        gate.open();
        assert_breaks(&mut stream, 502, "upstream_broken");
        assert!(client.is_closed());
    }
}

#[test]
fn a_stream_that_breaks_after_done_is_broken_all_the_same_or_over() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::sse().chunk(event("a")).chunk(DONE).then(Step::Fin));
    let response = proxy.call(ask_streamed("p1/m"));
    let text = response.text();
    let rest = text.strip_prefix(&(event("a") + DONE)).expect("all that was sent");
    // All events came. The missing last chunk may be reported by a complete error event, or not at all.
    match response.end {
        End::FinalChunk => assert_eq!(rest, ""),
        _ => drop(assert_error_event(Some(&rest.to_owned()), 502, "upstream_broken")),
    }
}

#[test]
fn an_error_event_stands_apart_from_half_an_event() {
    let (upstream, proxy) = start(json!({}));
    // The last event is too long to be held back until it is complete.
    let long = format!("data: {{\"half\":\"{}", "x".repeat(200_000));
    for half in ["data: {\"half", "data: {\"half\":1}\n", "data: {\"half\":1}\r\n", ": half a comment", &long]
    {
        upstream.chat(Script::sse().chunk(event("a")).chunk(half).then(Step::Fin));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!(response.end, End::Cut);
        let text = response.text();
        // The blank line before it makes the error an event of its own for a parser.
        let (before, data) = text.rsplit_once("data: ").expect("an error event");
        assert!(before.ends_with("\n\n"), "no blank line before {data:?}");
        assert_error_data(data.trim_end(), 502, "upstream_broken");
        assert!(data.ends_with("\n\n"), "{data:?}");
    }
}

#[test]
fn a_close_delimited_stream_without_done_is_broken() {
    let (upstream, proxy) = start(json!({}));
    for text in [event("a"), event("[DONE]"), format!("data: [DONE] not quite\n\n{}", event("b"))] {
        upstream.chat(Script::sse_until_close().send(&text).then(Step::Fin));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        let count = text.matches("\n\n").count();
        let seen: String = (0..count).filter_map(|_| stream.next_event()).collect();
        assert_eq!(seen, text);
        assert_breaks(&mut stream, 502, "upstream_broken");
    }
}

#[test]
fn close_delimited_stream_with_done_is_complete_however_it_is_closed() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    let script = Script::sse_until_close().send(event("a")).send(DONE);
    upstream.chat(script.wait(&gate).then(Step::Reset));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!([stream.next_event(), stream.next_event()], [Some(event("a")), Some(DONE.to_owned())]);
    gate.open();
    assert_eq!(stream.events(), [""; 0]);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn malformed_chunks_break_a_stream() {
    let (upstream, proxy) = start(json!({}));
    for garbage in ["zz\r\n", "-5\r\ndata\r\n", "fffffffffffffffff\r\n"] {
        let gate = Gate::new();
        upstream.chat(Script::sse().chunk(event("a")).wait(&gate).send(garbage).then(Step::Fin));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        gate.open();
        assert_breaks(&mut stream, 502, "upstream_broken");
    }
}

#[test]
fn a_silent_stream_times_out() {
    let (upstream, proxy) = start(json!({"stream_timeout": 0.6}));
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    let (took, ()) = timed(|| assert_breaks(&mut stream, 504, "upstream_timeout"));
    assert!(took > Duration::from_millis(300) && took < WITHIN_A_SECOND, "{took:?}");
    upstream.wait_closed(upstream.last().connection);
}

#[test]
fn a_stream_that_never_begins_is_504() {
    let (upstream, proxy) = start(json!({"stream_timeout": 0.6}));
    for script in [Script::default(), Script::raw("HTTP/1.1 200 OK\r\n"), Script::sse()] {
        upstream.chat(script.then(Step::Silence));
        let (took, response) = timed(|| proxy.call(ask_streamed("p1/m")));
        assert_error(&response, 504, "upstream_timeout");
        assert!(took > Duration::from_millis(300) && took < WITHIN_A_SECOND, "{took:?}");
    }
}

#[test]
fn only_silence_counts_for_the_stream_timeout() {
    let (upstream, proxy) = start(json!({"stream_timeout": 5}));
    let script = (0..8).fold(Script::sse(), |script, _| {
        script.then(Step::Pause(Duration::from_millis(700))).chunk(event("tick"))
    });
    upstream.chat(script.chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!(response.end, End::FinalChunk, "{}", response.text());
}

#[test]
fn a_stream_over_the_limit_is_broken_off() {
    let (upstream, proxy) = start(json!({"max_stream_size": 5000}));
    let line = event(&"x".repeat(400));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    upstream.chat(Script::sse().then(Step::Flood(chunk.into_bytes())));
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.status, response.end), (200, End::Cut));
    let text = response.text();
    let (before, data) = text.rsplit_once("data: ").expect("an error event");
    assert_error_data(data.trim_end(), 502, "response_too_large");
    assert!(before.len() <= 5002, "{} bytes relayed", before.len());
    assert!(before.starts_with(&line) && before.ends_with("\n\n"), "{before:?}");
    upstream.wait_closed(upstream.last().connection);
}

#[test]
fn stream_just_at_the_limit_is_complete() {
    let (upstream, proxy) = start(json!({"max_stream_size": 5000}));
    let line = event("");
    let text = event(&"x".repeat(5000 - line.len() - DONE.len())) + DONE;
    assert_eq!(text.len(), 5000);
    let script = text.as_bytes().chunks(700).fold(Script::sse(), Script::chunk);
    upstream.chat(script.end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (text, End::FinalChunk));
}

#[test]
fn an_http_1_0_client_gets_the_error_event_too() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Fin));
    let request = String::from_utf8(ask_streamed("p1/m")).expect("text");
    let response = proxy.call(request.replacen("HTTP/1.1", "HTTP/1.0", 1));
    assert_eq!(response.end, End::Closed);
    let text = response.text();
    let error = text.strip_prefix(&event("a")).expect("the event").to_owned();
    assert_error_event(Some(&error), 502, "upstream_broken");
}

#[test]
fn the_worker_and_the_pool_survive_broken_streams() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "max_stream_size": 5000}));
    let chunk = format!("{:x}\r\n{}\r\n", event("x").len(), event("x"));
    for step in [Step::Fin, Step::Reset, Step::Flood(chunk.into_bytes())] {
        upstream.chat(Script::sse().chunk(event("a")).then(step));
        assert_eq!(proxy.call(ask_streamed("p1/m")).end, End::Cut);
        upstream.chat(Script::json(200, &completion("hello")));
        assert_eq!(proxy.call(ask_streamed("p1/m")).json(), completion("hello"));
    }
}

/// A call of each API: its path, and an event that is not terminal.
fn apis() -> [(&'static str, &'static str, String); 6] {
    let typed = |kind: &str| format!("data: {{\"type\":\"{kind}\",\"sequence_number\":6}}\n\n");
    [
        ("chat", "/v1/chat/completions", event("a")),
        ("completions", "/v1/completions", "data: {\"choices\":[{\"text\":\"a\"}]}\n\n".to_owned()),
        ("responses", "/v1/responses", typed("response.output_text.delta")),
        ("messages", "/v1/messages", "data: {\"type\":\"content_block_delta\"}\n\n".to_owned()),
        ("images", "/v1/images/generations", typed("image_generation.partial_image")),
        ("speech", "/v1/audio/speech", typed("speech.audio.delta")),
    ]
}

fn start_for_all_apis(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let provider = json!({"name": "p1", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY});
    let base = json!({"providers": [provider], "max_retries": 0, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(with(config(&[]), base), changes));
    (upstream, proxy)
}

#[test]
fn error_event_speaks_the_words_of_its_api() {
    let (upstream, proxy) = start_for_all_apis(json!({}));
    for (api, path, begun) in apis() {
        upstream.respond(path, Script::sse().chunk(&begun).then(Step::Fin));
        let response = proxy.call(authorized(path, r#"{"model":"p1/m","stream":true}"#));
        assert_eq!((response.status, response.end), (200, End::Cut), "{api}");
        let text = response.text();
        let event = text.strip_prefix(&begun).and_then(|event| event.strip_suffix("\n\n")).expect("an event");
        let (name, data) = event.rsplit_once("data: ").expect("data");
        let value: Value = serde_json::from_str(data).expect("JSON");
        let (error, kind) = match api {
            "responses" => {
                assert_eq!(value["code"], "server_error");
                assert_eq!((&value["param"], &value["sequence_number"]), (&Value::Null, &json!(7)));
                (&value, "error")
            }
            "messages" => (&value["error"], "api_error"),
            _ => (&value["error"], "server_error"),
        };
        assert_eq!((&error["type"], &error["reason"]), (&json!(kind), &json!("upstream_broken")), "{event}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{event}");
        let is_named = matches!(api, "responses" | "messages");
        assert_eq!(name, if is_named { "event: error\n" } else { "" }, "{event}");
    }
}

#[test]
fn terminal_event_of_each_api_completes_a_closed_stream() {
    let (upstream, proxy) = start_for_all_apis(json!({}));
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    let finished = finish.to_owned() + usage;
    for (api, path, begun) in apis() {
        let lasts: &[&str] = match api {
            "chat" | "completions" => &[DONE, finish, &finished],
            "responses" => &[
                "data: {\"response\":{},\"type\":\"response.completed\"}\n\n",
                "data: {\"type\":\"response.incomplete\"}\n\n",
                "event: response.failed\ndata: {}\n\n",
            ],
            "messages" => &["data: {\"type\": \"message_stop\"}\n\n"],
            "images" => &["data: {\"type\":\"image_generation.completed\"}\n\n"],
            _ => &[
                "data: {\"type\":\"speech.audio.done\"}\n\n",
                "data: {\"type\":\"transcript.text.done\"}\n\n",
            ],
        };
        let call = authorized(path, r#"{"model":"p1/m","stream":true}"#);
        for last in lasts {
            let whole = begun.clone() + last;
            upstream.respond(path, Script::sse_until_close().send(&whole).then(Step::Fin));
            let response = proxy.call(&call);
            assert_eq!((response.text(), response.end), (whole.clone(), End::FinalChunk), "{api}");
            // A cut terminal event counts for nothing.
            let cut = &whole[..whole.len() - 4];
            upstream.respond(path, Script::sse_until_close().send(cut).then(Step::Fin));
            let response = proxy.call(&call);
            assert_eq!(response.end, End::Cut, "{api} {cut}");
        }
        upstream.respond(path, Script::sse_until_close().send(&begun).then(Step::Fin));
        assert_eq!(proxy.call(&call).end, End::Cut, "{api}");
    }
}

#[test]
fn stream_is_bounded_by_its_own_limit_which_the_error_names() {
    let (upstream, proxy) = start(json!({"max_response_size": 1000, "language": "en"}));
    let large = event(&"x".repeat(5000));
    upstream.chat(Script::sse().chunk(&large).chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (large.clone() + DONE, End::FinalChunk));
    upstream.chat(Script::json(200, &completion(&"x".repeat(2000))));
    let message = assert_error(&proxy.call(ask("p1/m")), 502, "response_too_large");
    assert!(message.contains("1000") && message.contains("max_response_size"), "{message}");

    let (upstream, proxy) = start(json!({"max_stream_size": 2000, "language": "en"}));
    upstream.chat(Script::sse().chunk(event("a")).chunk(&large).end());
    let text = proxy.call(ask_streamed("p1/m")).text();
    let data = text.rsplit_once("data: ").expect("an error event").1;
    let message = assert_error_data(data.trim_end(), 502, "response_too_large");
    assert!(message.contains("2000") && message.contains("max_stream_size"), "{message}");
    upstream.respond("/v1/audio/speech", Script::whole(200, &[("Content-Type", "audio/mpeg")], &large));
    let response = proxy.call(authorized("/v1/audio/speech", r#"{"model":"p1/m"}"#));
    let message = assert_error(&response, 502, "response_too_large");
    assert!(message.contains("max_stream_size"), "{message}");
}

#[test]
fn empty_error_beside_a_good_response_is_no_error() {
    let (upstream, proxy) = start(json!({}));
    for error in [json!(""), json!(false), json!(0), json!({}), json!([]), json!(null)] {
        let whole = with(completion("hello"), json!({"error": error}));
        upstream.chat(Script::json(200, &whole));
        assert_eq!(proxy.call(ask("p1/m")).json(), whole);
        let chunk = json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "error": error});
        let events = format!("data: {chunk}\n\n{DONE}");
        upstream.chat(Script::sse().chunk(&events).end());
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!((response.status, response.text(), response.end), (200, events, End::FinalChunk));
    }
    assert!(!proxy.log().contains("cooldown="), "no attempt failed");
}
