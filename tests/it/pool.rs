//! Idle connections to providers: reused, few, and closed in time.

use serde_json::json;
use std::collections::HashSet;
use std::sync::Mutex;

use ai_proxy::limits::UPSTREAM_READ_BUFFER;

use crate::support::calls::{DONE, ask, ask_streamed, completion, event};
use crate::support::client::End;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    // The first check is over: nothing but the tests' own calls uses the pool now.
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

#[test]
fn connections_are_used_again() {
    let (upstream, proxy) = start(json!({}));
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.call(ask("p1/m")).status, 200);
    }
    let mut connections: Vec<usize> = upstream.requests().iter().map(|r| r.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

#[test]
fn a_stale_connection_fails_no_request() {
    let (upstream, proxy) = start(json!({}));
    let script = Script::json(200, &completion("hello"));
    upstream.chat(script.then(Step::IdleClose(std::time::Duration::from_millis(50))));
    let mut client = proxy.client();
    for pause in (0..30).map(|n| 40 + n % 5 * 5) {
        let response = client.call(ask("p1/m"));
        assert_eq!(response.status, 200, "{}", response.text());
        std::thread::sleep(std::time::Duration::from_millis(pause));
    }
    assert_eq!(upstream.requests().len(), 30, "each request arrived once");
}

#[test]
fn a_connection_that_dies_as_it_is_used_again_fails_no_request() {
    for step in [Step::Fin, Step::Reset] {
        let (upstream, proxy) = start(json!({"max_retries": 0}));
        let used = Mutex::new(HashSet::new());
        // Open while idle, closed at its second request: no look at the socket beforehand shows that.
        upstream.handle("/v1/chat/completions", move |request| {
            if used.lock().expect("set").insert(request.connection) {
                Script::json(200, &completion("hello"))
            } else {
                Script::default().then(step.clone())
            }
        });
        for request in [ask("p1/m"), ask("p1/m"), ask_streamed("p1/m"), ask("p1/m")] {
            let response = proxy.call(request);
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let (upstream, proxy) = start(json!({"keepalive_expiry": 0.5}));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    // No further request triggers it: the time alone must.
    upstream.wait_closed(upstream.last().connection);
}

#[test]
fn no_more_than_asked_for_are_kept() {
    let (upstream, proxy) = start(json!({"max_keepalive_connections": 2}));
    let gate = Gate::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Script::default().wait(&gate).send(head));
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    let seen = upstream.wait_requests(6);
    gate.open_for(6);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    eventually("four of six are closed", || {
        let closed = seen.iter().filter(|request| upstream.is_closed(request.connection)).count();
        (closed >= 4).then_some(())
    });
}

#[test]
fn streams_and_errors_give_their_connections_back() {
    let (upstream, proxy) = start(json!({"max_retries": 0}));
    let seen = |script: Script| {
        upstream.chat(script);
        let response = proxy.call(ask_streamed("p1/m"));
        assert_ne!(response.end, End::Cut);
        upstream.last().connection
    };
    let stream = || Script::sse().chunk(event("a")).chunk(DONE).end();
    let first = seen(stream());
    assert_eq!(seen(stream()), first, "after a stream");
    assert_eq!(seen(Script::json(400, &json!({"error": {}}))), first);
    assert_eq!(seen(Script::whole(500, &[], "plain")), first, "after an error");
    assert_eq!(seen(Script::raw("HTTP/1.1 204 No Content\r\n\r\n")), first, "after an error");
    assert_eq!(seen(stream()), first, "after no content");
}

#[test]
fn what_is_to_be_closed_is_not_used_again() {
    let (upstream, proxy) = start(json!({}));
    let seen = |script: Script| {
        upstream.chat(script);
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
        upstream.last().connection
    };
    let closing = Script::whole(200, &[("Connection", "close")], "{}");
    // The provider keeps it open all the same: its announcement counts.
    let first = seen(closing.clone());
    let second = seen(closing);
    assert_ne!(first, second);
    let old = seen(Script::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
    assert_ne!(seen(Script::json(200, &json!({}))), old, "1.0 closes unless it says otherwise");
}

#[test]
fn a_request_that_may_have_run_does_not_run_twice() {
    let (upstream, proxy) = start(json!({"max_keepalive_connections": 0, "max_retries": 0}));
    for (round, step) in [Step::Fin, Step::Reset].into_iter().enumerate() {
        upstream.chat(Script::default().then(step));
        assert_eq!(proxy.call(ask("p1/m")).status, 502);
        assert_eq!(upstream.requests().len(), round + 1, "a new connection is no stale one");
    }
}

/// epoll reports each arrival once: it never repeats bytes that the last read left behind.
#[test]
fn bytes_after_a_response_are_never_the_response_to_another_request() {
    let (upstream, proxy) = start(json!({"max_retries": 0}));
    let stray = Script::json(200, &completion("stray"));
    let Some(Step::Send(stray)) = stray.0.first() else { unreachable!("it is sent at once") };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    // The response ends exactly at a read buffer's end, or one byte beside it.
    for whole in [UPSTREAM_READ_BUFFER - 1, UPSTREAM_READ_BUFFER, UPSTREAM_READ_BUFFER + 1] {
        let length = whole - head.len() - "16000\r\n\r\n".len();
        let body = completion("own").to_string();
        let body = format!("{body}{}", " ".repeat(length - body.len()));
        let response = format!("{head}{length}\r\n\r\n{body}");
        assert_eq!(response.len(), whole);
        upstream.chat(Script::raw([response.as_bytes(), stray].concat()));
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("own"), "{whole}");
        upstream.chat(Script::json(200, &completion("next")));
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("next"), "{whole}");
    }
}
