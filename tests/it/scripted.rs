//! The scripted upstream follows its script: a test is only as good as its upstream.

use std::time::Duration;

use crate::support::calls::{DONE, completion, event, post};
use crate::support::client::{Client, End};
use crate::support::gate::Gate;
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const CHAT: &str = "/v1/chat/completions";

#[test]
fn records_a_request_as_it_came() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let mut client = Client::connect(upstream.address());
    let request = post(&format!("{CHAT}?a=%20b"), &[("X-Odd", " spaced ")], "{ }");
    let response = client.call(&request);
    assert_eq!((response.status, response.end), (200, End::Length));
    assert_eq!(response.json(), completion("hello"));
    let seen = upstream.last();
    assert_eq!(seen.target, format!("{CHAT}?a=%20b"));
    assert_eq!((seen.path(), seen.method.as_str()), (CHAT, "POST"));
    assert_eq!([seen.head.raw, seen.body].concat(), request);
}

#[test]
fn reads_chunked_requests_and_keeps_the_connection() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let mut client = Client::connect(upstream.address());
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for body in ["3\r\n{ }\r\n0\r\n\r\n", "1\r\n{\r\n2\r\n }\r\n0\r\n\r\n"] {
        assert_eq!(client.call(format!("{head}{body}")).status, 200);
    }
    let seen = upstream.wait_requests(2);
    assert!(seen.iter().all(|r| r.body == b"{ }" && r.connection == 0));
}

#[test]
fn holds_an_event_until_its_gate_opens() {
    let upstream = Upstream::new(&["m"]);
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut client = Client::connect(upstream.address());
    client.send(post(CHAT, &[], "{}"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    gate.open();
    assert_eq!(stream.events(), [DONE]);
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn breaks_off_and_resets() {
    let upstream = Upstream::new(&["m"]);
    for (step, end) in [(Step::Fin, End::Cut), (Step::Reset, End::Cut)] {
        upstream.chat(Script::sse().chunk(event("a")).then(step));
        let mut client = Client::connect(upstream.address());
        assert_eq!(client.call(post(CHAT, &[], "{}")).end, end);
    }
    upstream.chat(Script::sse_until_close().send(event("a")).then(Step::Fin));
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.call(post(CHAT, &[], "{}")).end, End::Closed);
}

#[test]
fn client_that_leaves_silently_is_noticed() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::default().then(Step::Silence));
    let mut client = Client::connect(upstream.address());
    client.send(post(CHAT, &[], "{}"));
    let seen = upstream.wait_requests(1);
    assert!(!upstream.is_closed(seen[0].connection));
    client.leave();
    upstream.wait_closed(seen[0].connection);
}

#[test]
fn idle_connections_close_when_asked() {
    let upstream = Upstream::new(&["m"]);
    let script = Script::json(200, &completion("x"));
    upstream.chat(script.then(Step::IdleClose(Duration::from_millis(30))));
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.call(post(CHAT, &[], "{}")).status, 200);
    assert!(client.is_closed());
}
