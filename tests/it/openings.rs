//! The beginning of a stream: its label, events that only announce, an error, nothing; and unrequested
//! events.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::calls::{
    DONE, KEY, ask, ask_streamed, assert_error, authorized, completion, event, media_type,
};
use crate::support::client::{End, HEARTBEAT, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const CHAT: &str = "/v1/chat/completions";

/// A provider that supports both formats at its one URL.
fn provider(name: &str, upstream: &Upstream) -> Value {
    json!({"name": name, "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY})
}

fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let base = json!({"providers": [provider("p1", &upstream)], "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(with(config(&[]), base), changes));
    (upstream, proxy)
}

/// Two replicas of one provider.
fn start_two(changes: Value) -> (Upstream, Upstream, Proxy) {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    // The second gets a request after the first has failed.
    let base = json!({
        "providers": [provider("p1", &first), provider("p2", &second)], "stream_heartbeat": 0,
        "models": {"best": ["p1/m", "p2/m"]}
    });
    let proxy = Proxy::start(&with(with(config(&[]), base), changes));
    (first, second, proxy)
}

fn call(path: &str, model: &str, streamed: bool) -> Vec<u8> {
    let hi = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": model, "stream": streamed, "max_tokens": 9, "messages": hi});
    authorized(path, body.to_string())
}

fn typed(kind: &str, more: Value) -> String {
    let data = with(json!({"type": kind}), more);
    format!("event: {kind}\ndata: {data}\n\n")
}

fn chunk(delta: &Value) -> String {
    let data = json!({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    format!("data: {data}\n\n")
}

#[test]
fn events_under_any_label_are_relayed_at_once_and_read() {
    let (upstream, proxy) = start(json!({}));
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n";
    for label in [
        Some("text/plain"),
        Some("application/json"),
        Some("text/event-stream"),
        Some("application/octet-stream"),
        None,
    ] {
        let labels: Vec<_> = label.into_iter().map(|label| ("Content-Type", label)).collect();
        let gate = Gate::new();
        // The first bytes alone do not show the kind.
        let script = Script::chunked(200, &labels).chunk("\nda").then(Step::Pause(Duration::from_millis(50)));
        let first = event("a");
        upstream.chat(script.chunk(&first[2..]).wait(&gate).chunk(usage).chunk(DONE).end());
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.head.get("content-type").map(media_type), Some("text/event-stream"), "{label:?}");
        assert_eq!(stream.head.get("x-accel-buffering"), Some("no"));
        assert_eq!(stream.next_event(), Some(format!("\n{first}")), "{label:?}: held back");
        gate.open();
        assert_eq!(stream.events(), [usage, DONE]);
        assert_eq!(stream.end(), End::FinalChunk);
        proxy.log_line(&["stream=true", "status=200", "tokens=3+5"]);

        upstream.chat(Script::chunked(200, &labels).chunk(event("a")).then(Step::Fin));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!(response.end, End::Cut, "{label:?}");
        assert!(response.text().contains("\"reason\":\"upstream_broken\""), "{}", response.text());

        // All at once, by its length.
        let all = event("a") + DONE;
        upstream.chat(Script::whole(200, &labels, &all));
        assert_eq!(proxy.call(ask_streamed("p1/m")).text(), all, "{label:?}");
        let error = "data: {\"error\":{\"message\":\"no\",\"code\":429}}\n\n";
        upstream.chat(Script::whole(200, &labels, error));
        assert_eq!(proxy.call(ask_streamed("p1/m")).status, 429, "{label:?}");
    }
}

#[test]
fn events_under_another_label_pass_after_a_heartbeat() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    for label in ["text/plain", "application/json", "text/event-stream", "application/octet-stream"] {
        let gate = Gate::new();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {label}\r\nTransfer-Encoding: chunked\r\n\r\n");
        upstream.chat(Script::default().wait(&gate).send(head).chunk(event("a")).chunk(DONE).end());
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
        gate.open();
        assert_eq!(stream.next_real_event(), Some(event("a")), "{label}");
        assert_eq!(stream.next_real_event().as_deref(), Some(DONE));
        assert_eq!((stream.next_event(), stream.end()), (None, End::FinalChunk));
    }
}

/// A provider without a stream has responded all the same.
#[test]
fn response_document_after_a_heartbeat_is_the_terminal_event() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    for (status, is_event) in [("completed", true), ("incomplete", true), ("queued", false)] {
        let document =
            format!("{{\"id\":\"r\",\n\"object\":\"response\",\"status\":\"{status}\",\"output\":[]}}");
        let gate = Gate::new();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        upstream.respond(RESPONSES, Script::default().wait(&gate).send(head).chunk(&document).end());
        let mut client = proxy.client();
        client.send(call(RESPONSES, "p1/m", true));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
        gate.open();
        let event = stream.next_real_event().expect("an event");
        if is_event {
            let document = document.replace('\n', "");
            let data =
                format!("{{\"type\":\"response.{status}\",\"sequence_number\":0,\"response\":{document}}}");
            assert_eq!(event, format!("event: response.{status}\ndata: {data}\n\n"));
            assert_eq!((stream.next_event(), stream.end()), (None, End::FinalChunk));
        } else {
            assert!(event.contains("upstream_broken"), "{event}");
        }
    }
}

#[test]
fn completion_document_after_a_heartbeat_is_a_chunk_and_the_end() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let chat = json!({"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    let text = json!({"object": "text_completion", "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}]});
    let error = json!({"error": {"message": "no", "code": 429}, "choices": [{"finish_reason": "error"}]});
    let google = json!([{"error": {"message": "no", "code": 429, "status": "RESOURCE_EXHAUSTED"}}]);
    for (path, document, events, end) in [
        (CHAT, &chat, format!("data: {chunk}\n\n{DONE}"), End::FinalChunk),
        ("/v1/completions", &text, format!("data: {text}\n\n{DONE}"), End::FinalChunk),
        (CHAT, &error, format!("data: {error}\n\n"), End::Cut),
        (CHAT, &google, format!("data: {}\n\n", google[0]), End::Cut),
        ("/v1/images/generations", &json!({"data": []}), "data: {\"data\":[]}\n\n".to_owned(), End::Cut),
    ] {
        let gate = Gate::new();
        let written = serde_json::to_string_pretty(document).expect("JSON");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        upstream.respond(path, Script::default().wait(&gate).send(head).chunk(&written).end());
        let mut client = proxy.client();
        client.send(call(path, "p1/m", true));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
        gate.open();
        let rest = stream.events().concat().replace(HEARTBEAT, "");
        let data = |text: &str| -> Vec<Option<Value>> {
            text.split("data: ").skip(1).map(|data| serde_json::from_str(data.trim()).ok()).collect()
        };
        assert_eq!((data(&rest), stream.end()), (data(&events), end), "{path}: {rest}");
    }
    proxy.log_line(&["stream=true", "status=200", "tokens=3+5", "ttfb=0."]);
}

#[test]
fn events_under_another_label_are_translated_too() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for label in ["text/plain", "application/json"] {
        let script = Script::chunked(200, &[("Content-Type", label)]);
        upstream.chat(script.chunk(event("hello")).chunk(finish).chunk(DONE).end());
        let response = proxy.call(call(MESSAGES, "p1/m", true));
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let text = response.text();
        assert!(text.contains("\"text\":\"hello\"") && text.contains("event: message_stop"), "{text}");
    }
}

#[test]
fn document_for_a_stream_stays_what_it_is() {
    let (upstream, proxy) = start(json!({"max_stream_size": 1_000_000, "max_response_size": 1000}));
    for (label, body) in [
        ("application/json", completion("hello").to_string()),
        ("text/plain", "database: 7".to_owned()),
        ("text/html", "<h1>data: hello</h1>".to_owned()),
    ] {
        for script in [
            Script::whole(200, &[("Content-Type", label)], &body),
            body.as_bytes()
                .chunks(1)
                .fold(Script::chunked(200, &[("Content-Type", label)]), Script::chunk)
                .end(),
        ] {
            upstream.chat(script);
            let response = proxy.call(ask_streamed("p1/m"));
            assert_eq!((response.status, response.text()), (200, body.clone()));
            assert_eq!(response.header("content-type"), Some(label));
        }
    }
    upstream.chat(Script::json(200, &completion(&"x".repeat(2000))));
    assert_error(&proxy.call(ask_streamed("p1/m")), 502, "response_too_large");
}

/// Beginnings of each API that only announce, and an error of it.
fn beginnings() -> Vec<(&'static str, Vec<String>, String, u16)> {
    let failed =
        json!({"response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}}});
    vec![
        (
            RESPONSES,
            vec![
                typed("response.created", json!({"response": {"id": "r", "error": null}})),
                typed("response.in_progress", json!({"response": {"id": "r"}})),
            ],
            typed("response.failed", failed),
            429,
        ),
        (
            RESPONSES,
            vec![typed("response.queued", json!({}))],
            typed("error", json!({"code": "server_error", "message": "m", "param": null})),
            500,
        ),
        (
            CHAT,
            vec![": PROCESSING\n\n".to_owned(), chunk(&json!({"role": "assistant", "content": ""}))],
            "data: {\"error\":{\"message\":\"m\",\"code\":503}}\n\n".to_owned(),
            503,
        ),
        (
            MESSAGES,
            vec![typed("message_start", json!({"message": {"content": []}})), typed("ping", json!({}))],
            typed("error", json!({"error": {"type": "overloaded_error", "message": "m"}})),
            529,
        ),
    ]
}

#[test]
fn error_after_announcing_events_is_a_failed_attempt() {
    for (path, announced, error, status) in beginnings() {
        let (first, second, proxy) = start_two(json!({}));
        let begin = || {
            announced.iter().fold(Script::sse(), |script, event| {
                script.chunk(event).then(Step::Pause(Duration::from_millis(30)))
            })
        };
        first.respond(path, begin().chunk(&error).end());
        second.respond(path, Script::sse().chunk("data: {\"type\":\"hello\"}\n\n").chunk(DONE).end());
        let response = proxy.call(call(path, "best", true));
        assert_eq!(response.text(), "data: {\"type\":\"hello\"}\n\n".to_owned() + DONE, "{path}");
        assert_eq!(response.header("x-ai-proxy-provider"), Some("p2"));
        proxy.log_line(&["attempt=1", "provider=p1", &format!("HTTP {status}")]);
        assert_eq!((first.requests().len(), second.requests().len()), (1, 1));

        // If the last one fails without a response, the error is the response.
        second.respond(path, Script::sse().end());
        let response = proxy.call(call(path, "best", true));
        assert_eq!(response.status, status, "{path}: {}", response.text());
        let message = &response.json()["error"]["message"];
        assert_eq!(message, "m", "{}", response.text());

        // With a single replica nothing is held back.
        let (upstream, proxy) = start(json!({}));
        upstream.respond(path, begin().chunk(&error).end());
        let response = proxy.call(call(path, "p1/m", true));
        assert_eq!((response.status, response.text()), (200, announced.concat() + &error));
        proxy.log_line(&["attempt=1", "provider=p1", &format!("error {status}")]);
    }
}

#[test]
fn translated_beginning_is_held_back_too() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let models = json!({"models": {"best": ["p1/m", "p2/m"]}, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(config(&[("p1", &first), ("p2", &second)]), models));
    let role = chunk(&json!({"role": "assistant", "content": ""}));
    let error = "data: {\"error\":{\"message\":\"m\",\"code\":503}}\n\n";
    let pause = Step::Pause(Duration::from_millis(50));
    first.chat(Script::sse().chunk(&role).then(pause).chunk(error).end());
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    // It closes without `[DONE]`.
    second.chat(Script::sse_until_close().send(event("hello")).send(finish).then(Step::Fin));
    let response = proxy.call(call(MESSAGES, "best", true));
    assert_eq!((response.header("x-ai-proxy-provider"), response.end), (Some("p2"), End::FinalChunk));
    assert!(response.text().contains("\"text\":\"hello\""), "{}", response.text());
}

#[test]
fn announcing_events_leave_with_content_and_no_later_than_the_heartbeat() {
    let (first, _second, proxy) = start_two(json!({}));
    let (path, announced, ..) = beginnings().remove(0);
    let content = typed("response.output_text.delta", json!({"delta": "a"}));
    let script = announced.iter().fold(Script::sse(), Script::chunk).chunk(&content);
    first.respond(path, script.chunk(typed("response.completed", json!({}))).end());
    let response = proxy.call(call(path, "best", true));
    let whole = announced.concat() + &content + &typed("response.completed", json!({}));
    assert_eq!((response.text(), response.header("x-ai-proxy-provider")), (whole, Some("p1")));

    let (first, _second, proxy) = start_two(json!({"stream_heartbeat": 0.4}));
    let gate = Gate::new();
    let script = announced.iter().fold(Script::sse(), Script::chunk).wait(&gate);
    first.respond(path, script.chunk(&content).chunk(typed("response.completed", json!({}))).end());
    let mut client = proxy.client();
    client.send(call(path, "best", true));
    let (took, mut stream) = timed(|| client.streamed());
    assert!(took > Duration::from_millis(200), "held until the heartbeat: {took:?}");
    assert_eq!([stream.next_event(), stream.next_event()].map(Option::unwrap), announced[..]);
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    gate.open();
    assert_eq!(stream.next_real_event(), Some(content));
}

#[test]
fn provider_that_has_announced_does_not_hang() {
    let (first, second, proxy) = start_two(json!({"attempt_timeout": 0.3}));
    let (path, announced, ..) = beginnings().remove(0);
    let last = typed("response.completed", json!({}));
    let pause = Step::Pause(Duration::from_millis(1000));
    first.respond(path, Script::sse().chunk(&announced[0]).then(pause).chunk(&last).end());
    let response = proxy.call(call(path, "best", true));
    assert_eq!(response.text(), announced[0].clone() + &last);
    assert_eq!(second.requests().len(), 0);
}

#[test]
fn held_back_events_are_bounded() {
    let (first, _second, proxy) = start_two(json!({}));
    let ping = typed("ping", json!({"x": "x".repeat(1000)}));
    let gate = Gate::new();
    first.respond(MESSAGES, (0..100).fold(Script::sse(), |script, _| script.chunk(&ping)).wait(&gate));
    let mut client = proxy.client();
    client.send(call(MESSAGES, "best", true));
    assert_eq!(client.streamed().next_event(), Some(ping));
}

#[test]
fn stream_without_an_event_is_a_failed_attempt() {
    let role = chunk(&json!({"role": "assistant"}));
    for silent in [
        Script::sse().end(),
        Script::sse().chunk("\n\n").end(),
        Script::sse().chunk(": hi\n\n").end(),
        Script::sse().chunk(&role).end(),
        Script::sse_until_close().then(Step::Fin),
        Script::chunked(200, &[]).end(),
    ] {
        let (first, second, proxy) = start_two(json!({}));
        first.chat(silent);
        second.chat(Script::sse().chunk(event("a")).chunk(DONE).end());
        let response = proxy.call(ask_streamed("best"));
        assert_eq!((response.status, response.text()), (200, event("a") + DONE));
    }
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::sse().end());
    assert_error(&proxy.call(ask_streamed("p1/m")), 502, "upstream_broken");
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = Gate::new();
    upstream.chat(Script::sse().wait(&gate).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    gate.open();
    let event = stream.next_real_event().expect("an error event");
    assert!(event.contains("\"reason\":\"upstream_broken\""), "{event}");
    assert_eq!((stream.next_event(), stream.end()), (None, End::Cut));
}

#[test]
fn key_in_any_error_event_is_masked() {
    let escaped = KEY.replace('-', "\\u002d");
    for heartbeat in [0.0, 0.2] {
        let (upstream, proxy) = start(json!({"stream_heartbeat": heartbeat}));
        for key in [KEY, &escaped] {
            let large = "x".repeat(150_000);
            let errors = [
                format!("data: {{\"error\":{{\"message\":\"bad {key}\"}}}}\n\n"),
                format!("event: error\ndata: {{\"type\":\"error\",\"message\":\"bad {key}\"}}\n\n"),
                format!("data: {{\"error\":{{\"message\":\"{large} bad {key} {large}\"}}}}\n\n"),
            ];
            for (error, begun) in errors.iter().flat_map(|error| [(error, true), (error, false)]) {
                // A piece may end within the key.
                let at = error.find(key).expect("the key") + 5;
                let gate = Gate::new();
                let script = Script::default().wait(&gate).send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                );
                let script = if begun { script.chunk(event("a")) } else { script };
                let pause = Step::Pause(Duration::from_millis(30));
                upstream.chat(script.chunk(&error[..at]).then(pause).chunk(&error[at..]).chunk(DONE).end());
                let mut client = proxy.client();
                client.send(ask_streamed("p1/m"));
                if heartbeat == 0.0 {
                    gate.open();
                    let text = client.response().text();
                    assert!(text.contains("bad ") && !text.contains(key), "begun {begun}: {key}");
                    continue;
                }
                let mut stream = client.streamed();
                assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
                gate.open();
                let text = stream.events().concat();
                assert!(text.contains("bad ") && !text.contains(key), "behind a heartbeat: {key}");
            }
        }
    }
}

#[test]
fn event_that_only_speaks_of_an_error_stays_as_it_is() {
    let (upstream, proxy) = start(json!({}));
    let events = event("an \"error\" of mine") + &event(&"error".repeat(30_000)) + DONE;
    let script = events.as_bytes().chunks(5000).fold(Script::sse(), Script::chunk);
    upstream.chat(script.end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert!(response.text() == events && response.end == End::FinalChunk);
}

#[test]
fn unrequested_events_become_one_document() {
    let (upstream, proxy) = start(json!({}));
    let made = json!({"id": "r", "status": "completed", "output": []});
    let message = typed("message_start", json!({"message": {"id": "m", "type": "message", "content": []}}))
        + &typed("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}))
        + &typed(
            "content_block_delta",
            json!({"index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        )
        + &typed("message_stop", json!({}));
    let text = "data: {\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"hello\",\"finish_reason\":\"stop\"}]}\n\n";
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n";
    for (path, events, at, said) in [
        (CHAT, event("hel") + &event("lo") + finish + DONE, "/choices/0/message/content", json!("hello")),
        ("/v1/completions", text.to_owned(), "/choices/0/text", json!("hello")),
        (RESPONSES, typed("response.completed", json!({"response": made})), "", made.clone()),
        (MESSAGES, message, "/content/0/text", json!("hello")),
    ] {
        for label in ["text/event-stream", "application/json"] {
            let script = Script::chunked(200, &[("Content-Type", label)]);
            upstream.respond(path, script.chunk(&events).end());
            let response = proxy.call(call(path, "p1/m", false));
            assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
            assert_eq!(response.json().pointer(at), Some(&said), "{path}: {}", response.text());
        }
        // Events without their end make no document.
        let cut = &events[..events.len() / 2];
        upstream.respond(path, Script::sse().chunk(cut).end());
        assert_eq!(proxy.call(call(path, "p1/m", false)).status, 502, "{path}");
    }
    proxy.log_line(&["stream=false", "status=200", "tokens=3+5"]);
    let error = "data: {\"error\":{\"message\":\"no\",\"code\":429}}\n\n";
    upstream.chat(Script::sse().chunk(event("a")).chunk(error).end());
    let response = proxy.call(ask("p1/m"));
    assert_eq!((response.status, &response.json()["error"]["message"]), (429, &json!("no")));
    upstream.respond("/v1/images/generations", Script::sse().chunk("data: {\"type\":\"x\"}\n\n").end());
    let response = proxy.call(call("/v1/images/generations", "p1/m", false));
    assert_error(&response, 502, "upstream_broken");
    assert_eq!(response.header("x-should-retry"), Some("false"));

    let (upstream, proxy) = start(json!({"max_response_size": 2000}));
    upstream.chat(Script::sse().chunk(event(&"x".repeat(3000))).chunk(DONE).end());
    assert_error(&proxy.call(ask("p1/m")), 502, "response_too_large");
}

/// They are complete and paid for: the replica is fine, and no other gets the request.
#[test]
fn events_of_no_known_api_are_no_fault_of_the_replica() {
    let (first, second, proxy) = start_two(json!({}));
    let many: String =
        (0..2000).map(|index| format!("data: {{\"choices\":[{{\"index\":{index}}}]}}\n\n")).collect();
    for events in ["data: {\"candidates\":[]}\n\n".to_owned(), many + DONE] {
        for _ in 0..4 {
            first.chat(Script::sse().chunk(&events).end());
            let response = proxy.call(ask("best"));
            assert_error(&response, 502, "upstream_broken");
            assert_eq!(response.header("x-should-retry"), Some("false"));
        }
    }
    assert_eq!((first.requests().len(), second.requests().len()), (8, 0));
    proxy.log_line(&["stream=false", "status=502", "tokens=~"]);
}

#[test]
fn unrequested_events_are_translated() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    upstream.chat(Script::sse().chunk(event("hello")).chunk(finish).chunk(DONE).end());
    let response = proxy.call(call(MESSAGES, "p1/m", false));
    assert_eq!(response.json()["content"], json!([{"type": "text", "text": "hello"}]), "{}", response.text());
}

#[test]
fn speech_that_is_asked_for_as_events_passes_as_events() {
    let (upstream, proxy) = start(json!({}));
    let events =
        typed("speech.audio.delta", json!({"audio": "AA=="})) + &typed("speech.audio.done", json!({}));
    upstream.respond("/v1/audio/speech", Script::sse().chunk(&events).end());
    let body = r#"{"model":"p1/m","stream_format":"sse","input":"hi"}"#;
    let response = proxy.call(authorized("/v1/audio/speech", body));
    assert_eq!((response.text(), response.end), (events, End::FinalChunk));
}

#[test]
fn truncated_last_event_is_broken_however_the_stream_ends() {
    let (upstream, proxy) = start(json!({}));
    let cut = &event("b")[..20];
    for script in [
        Script::sse().chunk(event("a")).chunk(cut).end(),
        Script::sse_until_close().send(event("a")).send(cut).then(Step::Fin),
    ] {
        upstream.chat(script);
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!(response.end, End::Cut);
        let text = response.text();
        assert!(text.starts_with(&event("a")) && text.contains("upstream_broken"), "{text}");
    }
}
