//! Slow clients, idle clients, too many clients, no free permit: every wait of the front ends.

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ai_proxy::limits;

use crate::support::calls::{DONE, ask, ask_streamed, assert_error, bare, chat, completion, event, get};
use crate::support::client::{Client, End, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;
use crate::support::{WITHIN_A_SECOND, eventually};

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// Sends `bytes` slowly for `length` (or until the proxy has closed) and reads the response.
fn drip(client: &mut Client, bytes: &mut dyn Iterator<Item = u8>, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        let Some(byte) = bytes.next() else { return };
        if client.try_send([byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_head_that_never_ends_is_408() {
    let (_upstream, proxy) = start(json!({"client_timeout": 0.5}));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n");
    let (took, response) = timed(|| client.response());
    assert_error(&response, 408, "client_timeout");
    assert!(client.is_closed());
    assert!(took > Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_head_that_drips_is_408() {
    let (_upstream, proxy) = start(json!({"client_timeout": 0.5}));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    drip(&mut client, &mut std::iter::repeat(b'a'), Duration::from_millis(1500));
    assert_error(&client.response(), 408, "client_timeout");
}

#[test]
fn a_second_head_that_never_ends_is_408() {
    let (_upstream, proxy) = start(json!({"client_timeout": 0.5}));
    let mut client = proxy.client();
    client.send([get("/healthz"), b"GET / HT".to_vec()].concat());
    assert_eq!(client.response().status, 200);
    assert_error(&client.response(), 408, "client_timeout");
    assert!(client.is_closed());
}

#[test]
fn a_body_that_never_ends_is_408() {
    let (upstream, proxy) = start(json!({"client_timeout": 0.5}));
    let request = ask("p1/m");
    let mut client = proxy.client();
    client.send(&request[..request.len() - 1]);
    assert_error(&client.response(), 408, "client_timeout");
    assert!(client.is_closed());
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_body_that_drips_is_408() {
    let (_upstream, proxy) = start(json!({"client_timeout": 0.5}));
    let request = chat("x".repeat(5000));
    let mut client = proxy.client();
    client.send(&request[..request.len() - 4000]);
    drip(&mut client, &mut std::iter::repeat(b'a'), Duration::from_millis(1500));
    assert_error(&client.response(), 408, "client_timeout");
}

#[test]
fn a_large_body_may_take_its_time() {
    let (upstream, proxy) = start(json!({"client_timeout": 2.5}));
    // Each 64 KiB has the whole time limit again: together they take longer than it.
    let body = format!(r#"{{"model":"p1/m","x":"{}"}}"#, "a".repeat(5 * 65_536));
    let request = chat(&body);
    let mut client = proxy.client();
    for piece in request.chunks(70_000) {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(600));
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.last().body.len(), body.len() - 3);
}

#[test]
fn slow_clients_hold_no_worker() {
    let (_upstream, proxy) = start(json!({"max_connections": 1, "client_timeout": 30}));
    let request = ask("p1/m");
    let mut slow: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        // Half of them stop in the head, half in the body.
        let sent = if number % 2 == 0 { 20 } else { request.len() - 2 };
        client.send(&request[..sent]);
    }
    for _ in 0..5 {
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
    }
}

#[test]
fn idle_connections_are_closed() {
    let (_upstream, proxy) = start(json!({"idle_timeout": 0.5, "client_timeout": 1}));
    let mut used = proxy.client();
    assert_eq!(used.call(get("/healthz")).status, 200);
    let mut relayed = proxy.client();
    assert_eq!(relayed.call(ask("p1/m")).status, 200);
    // It closes silently: no request was begun.
    assert!(used.is_closed());
    assert!(relayed.is_closed());
    let mut unused = proxy.client();
    unused.rest();
}

#[test]
fn empty_lines_do_not_keep_a_connection_open() {
    let (_upstream, proxy) = start(json!({"idle_timeout": 0.5, "client_timeout": 0.5}));
    let mut client = proxy.client();
    let mut pieces = ["\r\n", "\r", "\n", "\r\n\r\n"].into_iter().cycle();
    eventually("it is closed", || {
        let sent = client.try_send(pieces.next().unwrap_or_default());
        (sent.is_err() || !client.is_silent_for(Duration::from_millis(50))).then_some(())
    });
    // An empty line after a response, as old clients send it, does no harm.
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.call(get("/healthz")).status, 200);
        client.send("\r\n");
    }
}

#[test]
fn an_idle_timeout_spares_a_request_at_work() {
    let (upstream, proxy) = start(json!({"idle_timeout": 0.3, "client_timeout": 0.3}));
    upstream.chat(
        Script::default()
            .then(Step::Pause(Duration::from_millis(1200)))
            .send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
    );
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
}

#[test]
fn client_over_max_clients_gets_503() {
    let (_upstream, proxy) = start(json!({"max_clients": 3}));
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
    for _ in 0..5 {
        let mut late = proxy.client();
        drop(late.try_send(get("/healthz")));
        let response = late.response();
        assert_error(&response, 503, "overloaded");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert!(late.is_closed());
    }
    for client in &mut clients {
        assert_eq!(client.call(get("/healthz")).status, 200, "those inside are served on");
    }
    clients.pop().expect("a client").leave();
    eventually("a place for one more client", || (proxy.get("/healthz").status == 200).then_some(()));
}

#[test]
fn without_a_free_worker_a_request_is_refused_in_time() {
    let (upstream, proxy) = start(json!({"max_connections": 2, "queue_timeout": 0.5}));
    upstream.chat(Script::default().then(Step::Silence));
    let mut busy: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut busy {
        client.send(ask("p1/m"));
    }
    upstream.wait_requests(2);

    let mut client = proxy.client();
    let (took, response) = timed(|| client.call(ask("p1/m")));
    let message = assert_error(&response, 503, "overloaded");
    assert_eq!(message, "the server is busy (max_connections is reached), try again later");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(took > Duration::from_millis(300) && took < WITHIN_A_SECOND, "{took:?}");
    assert_eq!(upstream.requests().len(), 2, "it never reached the upstream");
    proxy.log_line(&[" ERROR ", "503", "detail=max_connections"]);

    for target in ["/healthz", "/v1/models", "/v1/models/p1/m", "/", "/health"] {
        let (took, response) = timed(|| client.call(get(target)));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        assert!(took < WITHIN_A_SECOND, "{target} took {took:?}");
    }
    let reload = client.call(bare("POST", "/v1/reload", &[("Content-Length", "0")]));
    assert_eq!(reload.status, 200, "{}", reload.text());
    assert_error(&client.call(get("/nowhere")), 404, "not_found");
}

#[test]
fn a_request_waits_for_the_next_free_worker() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "queue_timeout": 20}));
    let gate = Gate::new();
    upstream.chat(
        Script::default()
            .wait(&gate)
            .send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
    );
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    for done in 1..=4 {
        let seen = upstream.wait_requests(done);
        assert_eq!(seen.len(), done, "one at a time");
        gate.open();
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_client_that_stops_reading_is_let_go() {
    let (upstream, proxy) = start(json!({"client_timeout": 1, "max_stream_size": 1_000_000_000_u64}));
    let line = event(&"x".repeat(60_000));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    upstream.chat(Script::sse().then(Step::Flood(chunk.into_bytes())));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let seen = upstream.wait_requests(1);
    upstream.wait_closed(seen[0].connection);
    assert_eq!(proxy.get("/healthz").status, 200);
}

#[test]
fn client_that_reads_slowly_gets_all_of_its_response() {
    let (upstream, proxy) = start(json!({"client_timeout": 2}));
    // More than all socket buffers on the way.
    let body = "x".repeat(9_000_000) + "end";
    upstream.chat(Script::whole(200, &[("Content-Type", "application/json")], &body));
    let mut client = TcpStream::connect(proxy.address()).expect("connect");
    client.write_all(ask("p1/m").as_ref()).expect("asked");
    let (mut taken, mut piece) = (Vec::new(), vec![0; 25_000]);
    let slow_until = Instant::now() + Duration::from_secs(5);
    while !taken.ends_with(b"end") {
        match client.read(&mut piece).expect("more of the response") {
            0 => break,
            count => taken.extend_from_slice(&piece[..count]),
        }
        if Instant::now() < slow_until {
            std::thread::sleep(Duration::from_millis(250));
        }
    }
    assert!(taken.len() > body.len() && taken.ends_with(b"end"), "{} bytes", taken.len());
}

#[test]
fn time_a_client_takes_does_not_count_as_idle_time_of_its_provider() {
    let limits = json!({"client_timeout": 60, "stream_timeout": 1, "stream_heartbeat": 0, "max_stream_size": 50_000_000});
    let (upstream, proxy) = start(limits);
    let line = event(&"x".repeat(60_000));
    // More than all socket buffers on the way.
    let said = (0..400).fold(Script::sse(), |script, _| script.chunk(&line));
    upstream.chat(said.chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert!(stream.next_event().is_some());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stream.events().last().map(String::as_str), Some(DONE));
    assert_eq!(stream.end(), End::FinalChunk);
}

#[test]
fn buffered_response_no_client_reads_holds_its_worker_no_longer() {
    let (upstream, proxy) = start(json!({"client_timeout": 60, "max_connections": 1, "queue_timeout": 20}));
    upstream.chat(Script::whole(200, &[("Content-Type", "application/json")], "x".repeat(9_000_000)));
    let mut client = proxy.client();
    client.send(ask("p1/m"));
    upstream.wait_requests(1);
    upstream.chat(Script::json(200, &completion("hello")));
    // If the permit were held, it would be for `client_timeout`, far longer than the queue waits.
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
}

#[test]
fn a_queue_is_bounded_and_empties_at_once() {
    let changes = json!({"max_connections": 1, "queue_timeout": 4, "log_level": "CRITICAL"});
    let (upstream, proxy) = start(changes);
    assert_eq!(proxy.get("/health").status, 200);
    let gate = Gate::new();
    let response = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Script::default().wait(&gate).send(response));
    let mut busy = proxy.client();
    busy.send(ask("p1/m"));
    upstream.wait_requests(1);
    let mut crowd: Vec<Client> = (0..limits::MAX_QUEUE + 100).map(|_| proxy.client()).collect();
    let begun = Instant::now();
    for client in &mut crowd {
        client.send(ask("p1/m"));
    }
    let mut times = Vec::new();
    for (number, client) in crowd.iter_mut().enumerate() {
        if number % 100 == 0 {
            for target in ["/healthz", "/health", "/v1/models"] {
                let (took, response) = timed(|| proxy.get(target));
                assert_eq!(response.status, 200);
                assert!(took < WITHIN_A_SECOND, "{target} took {took:?}");
            }
        }
        let response = client.response();
        times.push(begun.elapsed());
        assert_error(&response, 503, "overloaded");
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    assert!(times[times.len() - 1] < Duration::from_secs(4) + WITHIN_A_SECOND * 2, "{times:?}");
    assert_eq!(upstream.requests().len(), 1, "none of them reached the upstream");
    gate.open_for(2);
    assert_eq!(busy.response().status, 200);
    let (took, response) = timed(|| crowd[0].call(ask("p1/m")));
    assert_eq!(response.status, 200);
    assert!(took < WITHIN_A_SECOND, "{took:?} after the load has gone");
}
