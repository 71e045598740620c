//! The comment that keeps a silent stream alive: between events, never inside one, and never as a sign of life.

use serde_json::json;
use std::time::Duration;

use crate::broken::assert_breaks;
use crate::support::calls::{DONE, ask, ask_streamed, event};
use crate::support::client::{End, HEARTBEAT};
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

#[test]
fn a_heartbeat_fills_silence_between_events() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.3}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(event("b")).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    for _ in 0..3 {
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    }
    gate.open();
    assert_eq!(stream.next_real_event(), Some(event("b")));
    assert_eq!(stream.next_real_event().as_deref(), Some(DONE));
    assert_eq!(stream.next_event(), None);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn a_heartbeat_never_cuts_an_event() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    // A short event, and one too long to be held back until it is complete.
    for (separator, filler) in [("\n", 1), ("\r\n", 1), ("\n", 200_000), ("\r\n", 200_000)] {
        // The pauses stand inside the event, one between its last line's end and the blank line.
        let pause = || Step::Pause(Duration::from_millis(700));
        let line = format!("data: {{\"text\":\"{}\"}}", "w".repeat(filler));
        let cut = line.len() - 2;
        upstream.chat(
            Script::sse()
                .chunk(&line[..cut])
                .then(pause())
                .chunk(&line[cut..])
                .then(pause())
                .chunk(separator)
                .then(pause())
                .chunk(separator)
                .chunk(DONE)
                .end(),
        );
        let response = proxy.call(ask_streamed("p1/m"));
        let text = response.text();
        let whole = format!("{line}{separator}{separator}");
        assert!(text.contains(&whole), "cut: {} bytes by {separator:?}", text.len());
        let rest = text.replacen(&whole, "", 1).replacen(DONE, "", 1);
        assert_eq!(rest.replace(HEARTBEAT, ""), "");
        assert_eq!(response.end, End::FinalChunk);
    }
}

#[test]
fn a_heartbeat_commits_a_stream_that_has_not_begun() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.3}));
    let gate = Gate::new();
    let script = Script::default().wait(&gate);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.chat(script.send(head).chunk(event("a")).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!((stream.status, stream.head.get("content-type")), (200, Some("text/event-stream")));
    assert_eq!(stream.head.get("x-accel-buffering"), Some("no"));
    for _ in 0..2 {
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    }
    gate.open();
    assert_eq!(stream.next_real_event(), Some(event("a")));
    assert_eq!(stream.next_real_event().as_deref(), Some(DONE));
    assert_eq!(stream.next_event(), None);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn a_failure_after_a_heartbeat_is_an_error_event() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.3}));
    let json_error = "HTTP/1.1 429 Slow\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{\"error\":{\"message\":\"scripted\"}}";
    for step in [Step::Send(json_error.into()), Step::Fin, Step::Reset] {
        let gate = Gate::new();
        let refused = matches!(step, Step::Send(_));
        upstream.chat(Script::default().wait(&gate).then(step).then(Step::Fin));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.status, 200);
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
        gate.open();
        let error = stream.next_real_event().expect("an error event");
        let data = error.strip_prefix("data: ").expect("a data line").trim_end();
        let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert!(value["error"]["message"].is_string(), "{error}");
        if refused {
            assert!(error.contains("scripted") || value["error"]["code"] == 429, "{error}");
        }
        assert_eq!(stream.next_event(), None);
        assert_eq!(stream.end(), End::Cut);
    }
}

#[test]
fn no_heartbeat_when_off_or_not_streamed() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0}));
    let pause = Step::Pause(Duration::from_millis(700));
    upstream.chat(Script::sse().chunk(event("a")).then(pause.clone()).chunk(DONE).end());
    assert_eq!(proxy.call(ask_streamed("p1/m")).text(), event("a") + DONE);

    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    upstream.chat(Script::default().then(pause.clone()).send(head).then(pause).send("{\"a\": 12}"));
    let response = proxy.call(ask("p1/m"));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"a\": 12}"));
}

#[test]
fn a_heartbeat_is_no_sign_of_life() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2, "stream_timeout": 1.2}));
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    assert_breaks(&mut stream, 504, "upstream_timeout");
}
