//! Malformed requests: one exact answer for each, and no second reading of what follows.

use crate::support::calls::{TOKEN, assert_error, chat, completion, get};
use crate::support::client::Response;
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::Reply;
use crate::support::upstream::Upstream;

use serde_json::json;

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Reply::json(200, &completion("hello")));
    let config = with(config(&[("p1", &upstream)]), json!({"max_request_size": 100_000}));
    let proxy = Proxy::start(&config);
    (upstream, proxy)
}

/// Sends `request` with a whole second one behind it, reads the answer, and holds the proxy to
/// closing without a second answer: whatever comes after a framing error must not be taken for a request.
fn refused(proxy: &Proxy, request: &str) -> Response {
    let mut client = proxy.client();
    client.send([request.as_bytes(), &get("/healthz")].concat());
    let response = client.response();
    assert!(client.is_closed());
    assert_eq!(response.header("connection"), Some("close"), "{request:?}");
    response
}

/// A chat request with these header lines and this after them.
fn framed(lines: &str, rest: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{lines}\r\n\r\n{rest}"
    )
}

#[test]
fn refuses_contradictory_framing() {
    let (upstream, proxy) = start();
    let body = r#"{"model":"p1/m"}"#;
    for lines in [
        "Content-Length: 16\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 16",
        "Content-Length: 16\r\nContent-Length: 17",
        "Content-Length: 16, 17",
        "Content-Length: +16",
        "Content-Length: -16",
        "Content-Length: 0x10",
        "Content-Length: 16a",
        "Content-Length: 1 6",
        "Content-Length:",
        "Content-Length: \u{ff11}6",
        "Transfer-Encoding : chunked",
        "Content-Length : 16",
    ] {
        let response = refused(&proxy, &framed(lines, body));
        assert_error(&response, 400, "bad_request");
    }
    assert!(upstream.requests().is_empty(), "none of them was relayed");
}

#[test]
fn refuses_a_length_that_no_integer_holds() {
    let (_upstream, proxy) = start();
    for length in ["18446744073709551616", "99999999999999999999999999"] {
        let response = refused(&proxy, &framed(&format!("Content-Length: {length}"), ""));
        match response.status {
            413 => assert_error(&response, 413, "body_too_large"),
            _ => assert_error(&response, 400, "bad_request"),
        };
    }
}

#[test]
fn survives_a_length_it_could_never_hold() {
    let (_upstream, proxy) = start();
    // What ended a process built on another listener.
    for lines in ["Content-Length: 100000000000000", "Content-Length: 18446744073709551615"] {
        let response = refused(&proxy, &framed(lines, ""));
        assert_error(&response, 413, "body_too_large");
        assert_eq!(proxy.get("/healthz").status, 200);
    }
}

#[test]
fn refuses_malformed_heads() {
    let (_upstream, proxy) = start();
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\tc\r\n\r\n",
        "GET / HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX\0A: b\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\u{7f}c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\n",
        "GET / HTTP/1.1\r\rHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nX-A: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3} TLS to a plain port\r\n\r\n",
    ] {
        let response = refused(&proxy, request);
        assert_eq!(response.status, 400, "{request:?}");
        assert_error(&response, 400, "bad_request");
    }
}

#[test]
fn refuses_malformed_chunks() {
    let (upstream, proxy) = start();
    for body in [
        "zz\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "-10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "+10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "0x10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}\n0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}X\n0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}\rX0\r\n\r\n",
        "10\rX{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}\r\n0\r\nX: y\rX\r\n\r\n",
        "f\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10 \r\n\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10;a\rb\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10000000000000000\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n",
        "10\r\n{\"model\":\"p1/m\"}\r\n0\r\nnot a trailer\r\n\r\n",
    ] {
        let response = refused(&proxy, &framed("Transfer-Encoding: chunked", body));
        // A size that overflows may as well count as too large a body.
        if body.starts_with("1000000") && response.status == 413 {
            continue;
        }
        assert_eq!(response.status, 400, "{body:?}");
        assert_error(&response, 400, "bad_request");
    }
    assert!(upstream.requests().is_empty(), "none of them was relayed");
}

#[test]
fn bounds_what_surrounds_chunks() {
    let (_upstream, proxy) = start();
    let extension = format!("10;{}\r\n", "x".repeat(200_000));
    let trailer = format!("0\r\n{}\r\n", "X-Trailer: x\r\n".repeat(20_000));
    for body in [extension, trailer] {
        let mut client = proxy.client();
        // The proxy may have answered and closed before all is sent.
        drop(client.try_send(framed("Transfer-Encoding: chunked", &body)));
        let response = client.response();
        assert!(matches!(response.status, 400 | 413 | 431), "{}", response.text());
    }
}

#[test]
fn refuses_unknown_transfer_codings() {
    let (_upstream, proxy) = start();
    for coding in ["gzip, chunked", "brotli", "identity", "xchunked", "chunkedx"] {
        let response = refused(&proxy, &framed(&format!("Transfer-Encoding: {coding}"), "0\r\n\r\n"));
        assert_error(&response, 501, "not_implemented");
    }
}

#[test]
fn refuses_a_coding_that_is_not_chunked_once() {
    let (upstream, proxy) = start();
    for lines in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding:",
    ] {
        let response = refused(&proxy, &framed(lines, "0\r\n\r\n"));
        // Malformed or unknown: RFC 9112 section 6.1 allows either reading, but never a third.
        match response.status {
            501 => assert_error(&response, 501, "not_implemented"),
            _ => assert_error(&response, 400, "bad_request"),
        };
    }
    assert!(upstream.requests().is_empty(), "none of them was relayed");
}

#[test]
fn refuses_a_transfer_coding_in_http_1_0() {
    let (_upstream, proxy) = start();
    // RFC 9112 section 6.1: the framing of such a message is faulty.
    let request = framed("Transfer-Encoding: chunked", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    assert_error(&refused(&proxy, &request), 400, "bad_request");
}

#[test]
fn refuses_other_versions() {
    let (_upstream, proxy) = start();
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9"] {
        let response = refused(&proxy, &format!("GET / {version}\r\nHost: x\r\n\r\n"));
        assert_error(&response, 505, "version_not_supported");
    }
    let preface = refused(&proxy, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_error(&preface, 505, "version_not_supported");
}

#[test]
fn bounds_the_target() {
    let (_upstream, proxy) = start();
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert_error(&proxy.get(&target(8192)), 404, "not_found");
    for length in [8193, 20_000, 100_000] {
        let mut client = proxy.client();
        drop(client.try_send(get(&target(length))));
        assert_error(&client.response(), 414, "uri_too_long");
    }
}

#[test]
fn bounds_the_head() {
    let (_upstream, proxy) = start();
    let head_of = |length: usize| {
        let start = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ";
        let filler = "a".repeat(length - start.len() - 4);
        format!("{start}{filler}\r\n\r\n")
    };
    assert_eq!(proxy.call(head_of(32 * 1024)).status, 200);
    for length in [32 * 1024 + 1, 40_000, 200_000] {
        let mut client = proxy.client();
        drop(client.try_send(head_of(length)));
        assert_error(&client.response(), 431, "head_too_large");
    }
}

#[test]
fn bounds_the_number_of_headers() {
    let (_upstream, proxy) = start();
    let headers = |count: usize| {
        let more = "X-A: b\r\n".repeat(count - 1);
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{more}\r\n")
    };
    assert_eq!(proxy.call(headers(100)).status, 200);
    assert_error(&proxy.call(headers(101)), 431, "head_too_large");
}

#[test]
fn bounds_the_body() {
    let (upstream, proxy) = start();
    let body_of = |length: usize| {
        let start = r#"{"model":"p1/m","x":""#;
        format!("{start}{}\"}}", "a".repeat(length - start.len() - 2))
    };
    assert_eq!(proxy.call(chat(body_of(100_000))).status, 200);
    assert_eq!(upstream.last().body.len(), 100_000 - "p1/".len());
    assert_error(&proxy.call(chat(body_of(100_001))), 413, "body_too_large");

    let body = body_of(100_001);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut client = proxy.client();
    drop(client.try_send(framed("Transfer-Encoding: chunked", &chunked)));
    assert_error(&client.response(), 413, "body_too_large");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn drains_a_small_refused_body_and_goes_on() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    let without_token = chat("x".repeat(10_000));
    let without_token = String::from_utf8(without_token).expect("text").replace("Authorization", "X-Nothing");
    for _ in 0..3 {
        assert_error(&client.call(&without_token), 401, "missing_token");
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
}

#[test]
fn drains_a_body_over_the_limit_and_goes_on() {
    let upstream = Upstream::new(&["m"]);
    let config = with(config(&[("p1", &upstream)]), json!({"max_request_size": 1000}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.client();
    let body = "x".repeat(10_000);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for request in [framed("Content-Length: 10000", &body), framed("Transfer-Encoding: chunked", &chunked)] {
        assert_error(&client.call(&request), 413, "body_too_large");
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
}

#[test]
fn an_answer_to_a_large_refused_body_can_be_read() {
    let (_upstream, proxy) = start();
    for _ in 0..5 {
        let mut client = proxy.client();
        // All of it is sent before the answer is read; a plain close would reset the answer away.
        drop(client.try_send(chat("x".repeat(400_000))));
        assert_error(&client.response(), 413, "body_too_large");
        assert!(client.is_closed());
    }
}

#[test]
fn answers_before_a_large_refused_body_is_sent() {
    let (_upstream, proxy) = start();
    let mut client = proxy.client();
    client.send(framed("Content-Length: 50000000", "{"));
    let response = client.response();
    assert_error(&response, 413, "body_too_large");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.is_closed());
}
