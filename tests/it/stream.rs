//! Streams without faults: each event as the provider sends it, with nothing added or lost.

use serde_json::json;
use std::time::Duration;

use crate::support::WITHIN_A_SECOND;
use crate::support::calls::{
    DONE, TOKEN, ask, ask_streamed, assert_error, authorized, completion, event, get, media_type,
};
use crate::support::client::{End, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    let events: Vec<String> = (0..10).map(|n| event(&n.to_string())).collect();
    let script = events.iter().fold(Script::sse(), |script, event| script.chunk(event).wait(&gate));
    upstream.chat(script.chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.status, 200);
    for sent in &events {
        // If an event were held back, this would hang: the gate holds the upstream.
        assert_eq!(stream.next_event().as_ref(), Some(sent));
        gate.open();
    }
    assert_eq!(stream.events(), [DONE]);
    assert_eq!(stream.end(), End::FinalChunk);
    assert_eq!(client.call(get("/healthz")).status, 200, "and the connection is kept");
}

#[test]
fn each_event_arrives_as_one_piece() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    // Every event comes in two chunks; the client may see halves, but in the end exactly the sent bytes.
    let (a, b) = (event("first"), event("second"));
    let (a1, a2) = a.split_at(9);
    upstream.chat(Script::sse().chunk(a1).chunk(a2).wait(&gate).chunk(&b).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(a));
    gate.open();
    assert_eq!(stream.events(), [b, DONE.to_owned()]);
}

#[test]
fn headers_keep_buffers_away() {
    let (upstream, proxy) = start(json!({}));
    let own = [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "yes"),
        ("X-Request-Id", "from-upstream"),
        ("Set-Cookie", "a=b"),
    ];
    upstream.chat(Script::sse().chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!(response.head.all("content-type"), ["text/event-stream"]);
    assert_eq!(response.head.all("cache-control"), ["no-cache"]);
    assert_eq!(response.head.all("x-accel-buffering"), ["no"]);
    assert_eq!(response.head.all("transfer-encoding"), ["chunked"]);
    assert_eq!(response.head.all("x-ai-proxy-provider"), ["p1"]);
    assert!(response.header("x-request-id").is_some());
    assert!(response.header("content-length").is_none());

    upstream.chat(Script::chunked(200, &own).chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!(response.head.all("content-type"), ["text/event-stream; charset=utf-8"]);
    assert_eq!(response.head.all("cache-control"), ["no-store"], "the upstream's own stays");
    assert_eq!(response.head.all("x-accel-buffering"), ["yes"]);
    assert_eq!(response.head.all("x-request-id"), ["from-upstream"]);
    assert!(response.head.all("set-cookie").is_empty());
}

#[test]
fn bytes_are_not_touched() {
    let (upstream, proxy) = start(json!({}));
    for text in [
        "data: a\r\n\r\ndata: b\r\n\r\ndata: [DONE]\r\n\r\n",
        "\n\n: OPENROUTER PROCESSING\n\nevent: x\nid: 7\nretry: 5\ndata: a\ndata: b\n\ndata:[DONE]\n\n",
        "data: {\"t\":\"你好 \u{1f600}\"}\n\ndata: [DONE]\n\n",
        "data: no blank line at the end",
        "data: a\rdata: b\r\r",
        ": keep-alive\n\n",
    ] {
        for size in [1, 7, 1000] {
            let chunked = text.as_bytes().chunks(size).fold(Script::sse(), Script::chunk);
            upstream.chat(chunked.end());
            let response = proxy.call(ask_streamed("p1/m"));
            assert_eq!((response.text().as_str(), response.end), (text, End::FinalChunk), "by {size}");
        }
    }
}

#[test]
fn done_is_neither_added_nor_removed() {
    let (upstream, proxy) = start(json!({}));
    let events = [event("a"), event("b")].concat();
    upstream.chat(Script::sse().chunk(&events).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (events.clone(), End::FinalChunk));

    let with_done = format!("{events}{DONE}");
    upstream.chat(Script::sse().chunk(&with_done).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (with_done, End::FinalChunk));
}

#[test]
fn a_stream_of_known_length_ends_cleanly() {
    let (upstream, proxy) = start(json!({}));
    let events = [event("a"), event("b")].concat();
    upstream.chat(Script::whole(200, &[("Content-Type", "text/event-stream")], &events));
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!(response.text(), events);
    assert_ne!(response.end, End::Cut);
}

#[test]
fn a_close_delimited_stream_ends_cleanly_with_done() {
    let (upstream, proxy) = start(json!({}));
    let events = [event("a"), DONE.to_owned()].concat();
    upstream.chat(Script::sse_until_close().send(&events).then(Step::Fin));
    let mut client = proxy.client();
    let response = client.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (events, End::FinalChunk));
    assert_eq!(client.call(get("/healthz")).status, 200);
}

#[test]
fn done_counts_without_its_blank_line() {
    let (upstream, proxy) = start(json!({}));
    for end in ["data: [DONE]\n", "data: [DONE]", "data: [DONE]\r\n", "data: [DONE]\r\n\r\n"] {
        let text = event("a") + end;
        upstream.chat(Script::sse_until_close().send(&text).then(Step::Fin));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!((response.text(), response.end), (text, End::FinalChunk), "{end:?}");
    }
}

#[test]
fn a_client_that_leaves_after_asking_for_more_is_gone_too() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0}));
    let took = proxy.leave_a_stream(&upstream, &[get("/healthz"), get("/healthz")].concat());
    assert!(took < WITHIN_A_SECOND, "{took:?}");
}

#[test]
fn an_http_1_0_client_reads_until_close() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut client = proxy.client();
    let request = String::from_utf8(ask_streamed("p1/m")).expect("text");
    client.send(request.replacen("HTTP/1.1", "HTTP/1.0", 1));
    let mut stream = client.streamed();
    assert_eq!(stream.status, 200);
    assert!(stream.head.get("transfer-encoding").is_none());
    assert!(stream.head.get("content-length").is_none());
    assert_eq!(stream.next_event(), Some(event("a")));
    gate.open();
    assert_eq!(stream.events(), [DONE]);
    assert_eq!(stream.end(), End::Closed);
}

#[test]
fn stream_request_with_a_buffered_response_is_complete() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::json(200, &completion("not streamed")));
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.status, response.json()), (200, completion("not streamed")));
    assert_eq!(response.header("content-type").map(media_type), Some("application/json"));
}

#[test]
fn an_error_before_the_first_byte_has_its_status() {
    let (upstream, proxy) = start(json!({"max_retries": 0}));
    let body = json!({"error": {"message": "scripted"}});
    for status in [400, 401, 429, 500, 503] {
        upstream.chat(Script::json(status, &body));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!((response.status, response.json()), (status, body.clone()));
    }
    upstream.chat(Script::whole(500, &[("Content-Type", "text/plain")], "plain"));
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.status, &response.json()["error"]["code"]), (500, &json!(500)));
    for step in [Step::Fin, Step::Reset] {
        upstream.chat(Script::default().then(step.clone()));
        assert_eq!(proxy.call(ask_streamed("p1/m")).status, 502);
        // The head alone does not commit to a response.
        upstream.chat(Script::sse().then(step));
        assert_error(&proxy.call(ask_streamed("p1/m")), 502, "upstream_broken");
    }
}

#[test]
fn other_paths_stream_too() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    let first = "event: response.created\ndata: {}\n\n";
    let last = "event: response.completed\ndata: {}\n\n";
    upstream.respond("/v1/responses", Script::sse().chunk(first).wait(&gate).chunk(last).end());
    let mut client = proxy.client();
    client.send(authorized("/v1/responses", r#"{"model":"p1/m","stream":true}"#));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event().as_deref(), Some(first));
    gate.open();
    assert_eq!(stream.events(), [last]);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn long_stream_outlives_the_limit_for_buffered_responses() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 0.5, "stream_timeout": 10}));
    let events: Vec<String> = (0..8).map(|n| event(&n.to_string())).collect();
    let script = events.iter().fold(Script::sse(), |script, event| {
        script.chunk(event).then(Step::Pause(Duration::from_millis(150)))
    });
    upstream.chat(script.chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert_eq!((response.text(), response.end), (events.concat() + DONE, End::FinalChunk));
}

#[test]
fn a_large_event_passes() {
    let (upstream, proxy) = start(json!({}));
    let large = event(&"好".repeat(300_000));
    let script = large.as_bytes().chunks(5000).fold(Script::sse(), Script::chunk);
    upstream.chat(script.chunk(DONE).end());
    let response = proxy.call(ask_streamed("p1/m"));
    assert!(response.text() == large + DONE && response.end == End::FinalChunk);
}

#[test]
fn what_came_with_the_beginning_waits_for_nothing_else() {
    let (upstream, proxy) = start(json!({}));
    let gate = Gate::new();
    // Another stream on the same worker.
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate));
    let mut neighbour = proxy.client();
    neighbour.send(ask_streamed("p1/m"));
    assert_eq!(neighbour.streamed().next_event(), Some(event("a")));
    // More than one turn relays, less than the read-ahead.
    let burst: String = (0..76).map(|_| event(&"x".repeat(1000 - event("").len()))).collect();
    upstream.chat(Script::sse().chunk(&burst).wait(&gate));
    let took = || {
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        timed(|| (0..76).for_each(|_| assert!(stream.next_event().is_some()))).0
    };
    let mut took: Vec<Duration> = (0..15).map(|_| took()).collect();
    took.sort();
    assert!(took[7] < Duration::from_millis(25), "{took:?}");
}

#[test]
fn many_streams_run_side_by_side() {
    let (upstream, proxy) = start(json!({"max_connections": 60}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut clients: Vec<_> = (0..50).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
    }
    upstream.wait_requests(50);
    let mut streams: Vec<_> = clients.iter_mut().map(|client| client.streamed()).collect();
    for stream in &mut streams {
        assert_eq!(stream.next_event(), Some(event("a")));
    }
    gate.open_for(50);
    for stream in &mut streams {
        assert_eq!(stream.events(), [DONE]);
        assert_eq!(stream.end(), End::FinalChunk);
    }
}

#[test]
fn stream_that_has_begun_holds_a_permit_but_no_thread() {
    const STREAMS: usize = 20;
    let (upstream, proxy) = start(json!({"max_connections": STREAMS, "queue_timeout": 0.5}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut clients: Vec<_> = (0..STREAMS).map(|_| proxy.client()).collect();
    let mut streams = Vec::new();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        streams.push(stream);
    }
    let workers = proxy.threads_named("helper");
    assert!(workers < STREAMS / 2, "{workers} helpers for {STREAMS} streams one after the other");
    assert_error(&proxy.call(ask("p1/m")), 503, "overloaded");
    gate.open_for(STREAMS);
    for stream in &mut streams {
        assert_eq!(stream.events(), [DONE]);
        assert_eq!(stream.end(), End::FinalChunk);
    }
    for client in &mut clients {
        assert_eq!(client.call(get("/healthz")).status, 200, "the connection lives on");
    }
}

#[test]
fn client_that_reads_nothing_delays_no_other() {
    let (upstream, proxy) = start(json!({"client_timeout": 20, "max_stream_size": 2_000_000_000}));
    let large = event(&"x".repeat(50_000));
    let flood = format!("{:x}\r\n{large}\r\n", large.len()).into_bytes();
    upstream.chat(Script::sse().then(Step::Flood(flood)));
    let mut stalled: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    stalled.iter_mut().for_each(|client| client.send(ask_streamed("p1/m")));
    upstream.wait_requests(3);
    upstream.chat(Script::sse().chunk(event("a")).chunk(event("b")).chunk(DONE).end());
    for _ in 0..50 {
        let (took, response) = timed(|| proxy.call(ask_streamed("p1/m")));
        assert_eq!(response.text(), event("a") + &event("b") + DONE);
        assert!(took < WITHIN_A_SECOND, "{took:?}");
    }
}

#[test]
fn a_client_that_leaves_closes_the_upstream() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "stream_heartbeat": 0}));
    let flood = event("on and on");
    let flood = format!("{:x}\r\n{flood}\r\n", flood.len()).into_bytes();
    let drip = (0..400).fold(Script::sse(), |script, _| {
        script.chunk(event("tick")).then(Step::Pause(Duration::from_millis(50)))
    });
    for (round, (script, started)) in [
        (Script::default().then(Step::Silence), false),
        (Script::sse().then(Step::Silence), false),
        (Script::sse().chunk(event("a")).then(Step::Silence), true),
        (Script::sse().chunk("data: half").then(Step::Silence), false),
        (drip, true),
        (Script::sse().then(Step::Flood(flood)), true),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.chat(script);
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        if started {
            assert!(client.streamed().next_event().is_some());
        }
        let connection = upstream.wait_requests(round + 1)[round].connection;
        client.leave();
        // The only permit must be free again, too: the next round needs it.
        let (took, ()) = timed(|| upstream.wait_closed(connection));
        assert!(took < WITHIN_A_SECOND, "round {round} took {took:?}");
    }
}

#[test]
fn a_token_never_travels_in_a_stream() {
    let (upstream, proxy) = start(json!({}));
    upstream.handle("/v1/chat/completions", |request| {
        Script::sse().chunk(format!("data: {:?}\n\n", request.head.headers)).chunk(DONE).end()
    });
    assert!(!proxy.call(ask_streamed("p1/m")).text().contains(TOKEN));
}
