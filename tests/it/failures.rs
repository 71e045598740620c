//! A provider that fails before a buffered response: each way of failing has its own status.

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::support::calls::{KEY, ask, assert_error, chat, completion, get};
use crate::support::client::{End, timed};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;
use crate::support::{DEADLINE, WITHIN_A_SECOND};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let changes = with(json!({"max_retries": 0}), changes);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

#[test]
fn a_refused_connection_is_502() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let providers = json!([
        format!("gone|http://{port}/v1|{KEY}"),
        format!("nameless|http://no-such-host.invalid/v1|{KEY}"),
        format!("plain|https://{port}/v1|{KEY}"),
    ]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    for id in ["gone/m", "nameless/m", "plain/m"] {
        let response = proxy.call(ask(id));
        assert_error(&response, 502, "upstream_unreachable");
    }
}

#[test]
fn no_tls_is_502() {
    let upstream = Upstream::new(&["m"]);
    let url = upstream.url().replace("http://", "https://");
    let providers = json!([format!("p1|{url}|{KEY}")]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers, "non_stream_timeout": 2})));
    // The scripted upstream never responds to a TLS hello; a closed or silent handshake are both failures.
    let response = proxy.call(ask("p1/m"));
    assert!(matches!(response.status, 502 | 504), "{}", response.text());
}

#[test]
fn a_cut_off_body_is_502() {
    let (upstream, proxy) = start(json!({}));
    let length = format!("{HEAD}Content-Length: 100\r\n\r\n");
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for script in [
        Script::raw(&length).then(Step::Fin),
        Script::raw(&length).send("{\"half\":").then(Step::Fin),
        Script::raw(&length).send("{\"half\":").then(Step::Reset),
        Script::raw(&chunked).chunk("{\"half\":").then(Step::Fin),
        Script::raw(&chunked).chunk("{\"half\":").then(Step::Reset),
        Script::raw(&chunked).send("10\r\n{\"half").then(Step::Fin),
        Script::raw(&chunked).send("zz\r\n{}").then(Step::Fin),
    ] {
        upstream.chat(script);
        assert_error(&proxy.call(ask("p1/m")), 502, "upstream_broken");
    }
}

#[test]
fn malformed_response_is_502() {
    let (upstream, proxy) = start(json!({}));
    for bytes in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nX-A: b",
        "\r\n\r\n\r\n",
    ] {
        upstream.chat(Script::raw(bytes).then(Step::Fin));
        let response = proxy.call(ask("p1/m"));
        assert_eq!(response.status, 502, "{bytes:?}: {}", response.text());
        assert_error(&response, 502, "upstream_broken");
    }
}

#[test]
fn closing_before_the_status_line_is_502() {
    let (upstream, proxy) = start(json!({}));
    for step in [Step::Fin, Step::Reset] {
        upstream.chat(Script::default().then(step));
        let response = proxy.call(ask("p1/m"));
        // No response or a cut one: both are allowed here.
        match response.json()["error"]["reason"].as_str() {
            Some("upstream_unreachable") => assert_error(&response, 502, "upstream_unreachable"),
            _ => assert_error(&response, 502, "upstream_broken"),
        };
    }
}

#[test]
fn an_endless_head_is_502() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 10}));
    let more = "X-More: and more\r\n".repeat(1000);
    upstream.chat(Script::raw("HTTP/1.1 200 OK\r\n").then(Step::Flood(more.into_bytes())));
    assert_error(&proxy.call(ask("p1/m")), 502, "upstream_broken");
}

#[test]
fn body_until_close_is_complete() {
    let (upstream, proxy) = start(json!({}));
    upstream.chat(Script::raw(format!("{HEAD}\r\n")).send("{\"a\": 1}").then(Step::Fin));
    let mut client = proxy.client();
    let response = client.call(ask("p1/m"));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"a\": 1}"));
    assert_ne!(response.end, End::Cut);
    assert_eq!(client.call(get("/healthz")).status, 200);
}

#[test]
fn other_ways_to_end_a_body_are_understood() {
    let (upstream, proxy) = start(json!({}));
    let coded = "Transfer-Encoding: Chunked\r\n\r\n";
    for bytes in [
        "HTTP/1.0 200 OK\r\n\r\n{\"a\": 1}".to_owned(),
        format!("{HEAD}{coded}4;x=y\r\n{{\"a\"\r\n0004\r\n: 1}}\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        format!("{HEAD}{coded}8 \r\n{{\"a\": 1}}\r\n000\r\n\r\n"),
    ] {
        upstream.chat(Script::raw(&bytes).then(Step::Fin));
        let response = proxy.call(ask("p1/m"));
        assert_eq!((response.status, response.text().as_str()), (200, "{\"a\": 1}"), "{bytes:?}");
        assert!(response.head.all("x-trailer").is_empty());
    }
}

#[test]
fn response_over_the_limit_is_502() {
    let (upstream, proxy) = start(json!({"max_response_size": 10_000}));
    let exact = format!("{{\"x\":\"{}\"}}", "a".repeat(10_000 - 8));
    upstream.chat(Script::whole(200, &[("Content-Type", "application/json")], &exact));
    let response = proxy.call(ask("p1/m"));
    assert_eq!((response.status, response.body.len()), (200, 10_000));

    let over = format!("{{\"x\":\"{}\"}}", "a".repeat(10_000 - 7));
    let headers = [("Content-Type", "application/json")];
    let chunked =
        |body: &str| body.as_bytes().chunks(999).fold(Script::chunked(200, &headers), Script::chunk);
    for script in [
        Script::whole(200, &headers, &over),
        Script::raw(format!("{HEAD}Content-Length: 99999999999999\r\n\r\n{{")),
        chunked(&over).end(),
        Script::raw(format!("{HEAD}\r\n")).send(&over).then(Step::Fin),
        Script::raw(format!("{HEAD}\r\n")).then(Step::Flood(b"x".repeat(10_000))),
        Script::whole(500, &[("Content-Type", "text/html")], "x".repeat(3_000_000)),
    ] {
        let wrapped = matches!(&script.0[..], [Step::Send(bytes)] if bytes.starts_with(b"HTTP/1.1 500"));
        upstream.chat(script);
        let response = proxy.call(ask("p1/m"));
        if wrapped && response.status == 500 {
            // Only 2 KiB of such a text are needed: the rest may stay unread.
            continue;
        }
        assert_error(&response, 502, "response_too_large");
    }
}

#[test]
fn a_silent_upstream_is_504() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 0.6}));
    for script in [
        Script::default(),
        Script::raw("HTTP/1.1 200 OK\r\nContent-"),
        Script::raw(format!("{HEAD}Content-Length: 100\r\n\r\n{{\"half\":")),
        Script::raw(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")),
    ] {
        upstream.chat(script.then(Step::Silence));
        let (took, response) = timed(|| proxy.call(ask("p1/m")));
        assert_error(&response, 504, "upstream_timeout");
        assert!(took > Duration::from_millis(400) && took < WITHIN_A_SECOND, "{took:?}");
        upstream.wait_closed(upstream.last().connection);
    }
}

#[test]
fn a_dripping_upstream_is_504() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 0.6}));
    let heads = [String::from("HTTP/1.1 200 OK\r\nX-Drip: "), format!("{HEAD}Content-Length: 1000\r\n\r\n")];
    for head in heads {
        let drip = (0..100).fold(Script::raw(head), |script, _| {
            script.send("x").then(Step::Pause(Duration::from_millis(50)))
        });
        upstream.chat(drip);
        let (took, response) = timed(|| proxy.call(ask("p1/m")));
        assert_error(&response, 504, "upstream_timeout");
        assert!(took < WITHIN_A_SECOND, "{took:?}");
    }
}

#[test]
fn a_slow_upload_is_not_the_providers_time() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 1}));
    upstream.chat(Script::json(200, &completion("hello")));
    let request = ask("p1/m");
    let mut client = proxy.client();
    client.send(&request[..request.len() - 1]);
    std::thread::sleep(Duration::from_millis(1300));
    let response = client.call(&request[request.len() - 1..]);
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn an_upstream_that_does_not_read_is_504() {
    // Accepts and never reads: only the sockets' buffers take the request.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/v1", listener.local_addr().expect("address"));
    let changes = json!({"providers": [format!("p1|{url}|{KEY}")], "non_stream_timeout": 1,
        "stream_timeout": 1, "max_retries": 0, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(config(&[]), changes));
    let filler = "x".repeat(20_000_000);
    for stream in [false, true] {
        let body = json!({"model": "p1/m", "stream": stream, "x": filler}).to_string();
        let response = proxy.call(chat(body));
        assert_error(&response, 504, "upstream_timeout");
    }
}

#[test]
fn early_response_is_read_while_the_body_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/v1", listener.local_addr().expect("address"));
    let changes =
        json!({"providers": [format!("p1|{url}|{KEY}")], "non_stream_timeout": 5, "max_retries": 0});
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let response = "HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n\
                          Content-Length: 11\r\n\r\n{\"no\": 413}";
            drop(stream.write_all(response.as_bytes()));
            kept.push(stream);
        }
    });
    let proxy = Proxy::start(&with(config(&[]), changes));
    let body = json!({"model": "p1/m", "x": "x".repeat(20_000_000)}).to_string();
    let response = proxy.call(chat(body));
    assert_eq!((response.status, response.text().as_str()), (413, "{\"no\": 413}"));
}

#[test]
fn provider_that_refuses_a_body_early_and_reads_on_finds_no_gap_in_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/v1", listener.local_addr().expect("address"));
    let changes =
        json!({"providers": [format!("p1|{url}|{KEY}")], "non_stream_timeout": 20, "max_retries": 0});
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("accept"), sender.clone());
            std::thread::spawn(move || {
                let response = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}";
                drop(stream.write_all(response.as_bytes()));
                // The connection may end with a reset, or not at all.
                stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
                let mut request = Vec::new();
                drop(stream.read_to_end(&mut request));
                if request.starts_with(b"POST") {
                    drop(sender.send(request));
                }
            });
        }
    });
    let proxy = Proxy::start(&with(config(&[]), changes));
    let filler: String = (0..1_000_000).map(|n| format!("{n:09} ")).collect();
    let body = json!({"model": "p1/m", "x": filler}).to_string();
    assert_eq!(proxy.call(chat(&body)).status, 413);
    let request = received.recv_timeout(Duration::from_secs(20)).expect("a request");
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(body.replace("p1/m", "m").as_bytes().starts_with(&request[head..]));
}

#[test]
fn next_request_succeeds_after_any_failure() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 0.3, "max_connections": 1}));
    let mut client = proxy.client();
    for step in [Step::Fin, Step::Reset, Step::Silence] {
        upstream.chat(Script::raw(format!("{HEAD}Content-Length: 100\r\n\r\n{{")).then(step));
        assert!(client.call(ask("p1/m")).status >= 500);
        upstream.chat(Script::json(200, &completion("hello")));
        assert_eq!(client.call(ask("p1/m")).status, 200, "on the same connection, by the same worker");
    }
}

#[test]
fn excess_bytes_of_an_upstream_reach_no_client() {
    let (upstream, proxy) = start(json!({}));
    // An unrequested second response must not become the response to the next request (response splitting).
    let body = completion("first").to_string();
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    upstream.chat(Script::raw(format!("{HEAD}Content-Length: {}\r\n\r\n{body}{poison}", body.len())));
    let mut client = proxy.client();
    for _ in 0..5 {
        let response = client.call(ask("p1/m"));
        assert_ne!(response.text(), "poison");
    }
}

#[test]
fn a_client_that_leaves_frees_the_upstream() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "non_stream_timeout": 60}));
    for (round, script) in [
        Script::default(),
        Script::raw("HTTP/1.1 200 OK\r\n"),
        Script::raw(format!("{HEAD}Content-Length: 100\r\n\r\n{{")),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.chat(script.then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask("p1/m"));
        let seen = upstream.wait_requests(2 * round + 1);
        client.leave();
        let (took, ()) = timed(|| upstream.wait_closed(seen[2 * round].connection));
        assert!(took < WITHIN_A_SECOND, "{took:?}");
        upstream.chat(Script::json(200, &completion("hello")));
        let (took, response) = timed(|| proxy.call(ask("p1/m")));
        assert!(response.status == 200 && took < DEADLINE / 4, "the only worker is free again");
    }
}
