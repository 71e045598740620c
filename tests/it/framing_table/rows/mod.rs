//! The rows. A new row has a name, its bytes, its responses, and whether the connection stays open.

use ai_proxy::limits::MAX_EMPTY_LINES;

use crate::support::calls::TOKEN;

mod bodies;
mod heads;

/// A body that is relayed as `{"model":"m"}`; 16 bytes, 0x10.
pub const BODY: &str = r#"{"model":"p1/m"}"#;
const CHUNKS: &str = "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n";

/// The connection after the responses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It takes the next request.
    Kept,
    /// It is closed without a further byte.
    Closed,
}

pub struct Row {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Status and reason of each; the reason is empty where there is none.
    pub responses: Vec<(u16, &'static str)>,
    pub fate: Fate,
    /// Requests that the upstream gets from it.
    pub relayed: usize,
}

/// One response and the end.
type End = (u16, &'static str);
const BAD: End = (400, "bad_request");
const UNKNOWN_CODING: End = (501, "not_implemented");
const NOT_FOUND: End = (404, "not_found");

/// A chat request with these header lines, followed by `rest`.
pub fn chat(lines: &str, rest: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{lines}\r\n\r\n{rest}"
    )
    .into_bytes()
}

fn row(name: &str, bytes: impl AsRef<[u8]>, responses: &[End], fate: Fate, relayed: usize) -> Row {
    Row {
        name: name.to_owned(),
        bytes: bytes.as_ref().to_vec(),
        responses: responses.to_vec(),
        fate,
        relayed,
    }
}

fn refused(name: &str, bytes: impl AsRef<[u8]>, end: End) -> Row {
    row(name, bytes, &[end], Fate::Closed, 0)
}

fn accepted(name: &str, bytes: impl AsRef<[u8]>, status: u16) -> Row {
    row(name, bytes, &[(status, "")], Fate::Kept, 0)
}

fn relayed(name: &str, bytes: impl AsRef<[u8]>) -> Row {
    row(name, bytes, &[(200, "")], Fate::Kept, 1)
}

pub fn all() -> Vec<Row> {
    [
        heads::request_lines(),
        heads::targets(),
        heads::hosts(),
        heads::fields(),
        bodies::lengths(),
        bodies::codings(),
        bodies::length_against_coding(),
        bodies::chunk_sizes(),
        bodies::chunk_ends(),
        bodies::trailers(),
        expectations(),
        connection_options(),
        other_protocols(),
        ahead(),
        limits(),
        bodies_where_none_is_due(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn expectations() -> Vec<Row> {
    let expecting = |value: &str| chat(&format!("Content-Length: 16\r\nExpect: {value}"), BODY);
    let mut rows: Vec<Row> = [
        ("an unknown expectation", "a-miracle"),
        ("a known expectation and another", "100-continue, x"),
        ("an expectation that resembles a known one", "100-continued"),
        ("an expectation with a parameter", "100-continue;q=1"),
        ("an expectation that is a status", "100"),
        ("an empty expectation", ""),
    ]
    .into_iter()
    .map(|(name, value)| refused(name, expecting(value), (417, "expectation_failed")))
    .collect();
    // The body is here already: no 100 is needed.
    rows.push(relayed("an expectation whose body is here", expecting("100-continue")));
    rows.push(relayed("an expectation in capitals", expecting("100-CONTINUE")));
    rows.push(accepted(
        "an expectation without a body",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        200,
    ));
    let unauthorized = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\
                        Expect: 100-continue\r\n\r\n";
    rows.push(refused("an expectation without a token", unauthorized, (401, "missing_token")));
    let old = String::from_utf8(expecting("a-miracle")).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    rows.push(row("an expectation in HTTP/1.0", old, &[(200, "")], Fate::Closed, 1));
    rows
}

fn connection_options() -> Vec<Row> {
    let with = |lines: &str| chat(&format!("Content-Length: 16\r\n{lines}"), BODY);
    vec![
        row("close", with("Connection: close"), &[(200, "")], Fate::Closed, 1),
        row("close among others, in capitals", with("Connection: x, CLOSE"), &[(200, "")], Fate::Closed, 1),
        row(
            "close on a second line",
            with("Connection: keep-alive\r\nConnection: close"),
            &[(200, "")],
            Fate::Closed,
            1,
        ),
        relayed("an option that names the framing", with("Connection: content-length, host")),
        relayed("an option that names the coding", with("Connection: transfer-encoding")),
        relayed(
            "an upgrade to h2c",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ"),
        ),
        relayed("an upgrade to a WebSocket", with("Connection: Upgrade\r\nUpgrade: websocket")),
        relayed("a proxy's connection option", with("Proxy-Connection: close")),
    ]
}

fn other_protocols() -> Vec<Row> {
    let hello: &[u8] =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x9a\x0d\x0a\x0d\x0a TLS to a plain port";
    vec![
        refused("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "version_not_supported")),
        refused("TLS ClientHello", hello, BAD),
        refused("SSL 2 ClientHello", b"\x80\x2e\x01\x00\x02\x00\x15", BAD),
        refused("SOCKS4", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", BAD),
        refused("SOCKS5", b"\x05\x01\x00", BAD),
        refused(
            "PROXY protocol 1",
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            BAD,
        ),
        refused("PROXY protocol 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", BAD),
        refused("RTSP", "DESCRIBE rtsp://x/y RTSP/1.0\r\nHost: x\r\n\r\n", BAD),
        refused("SIP", "INVITE sip:x SIP/2.0\r\nHost: x\r\n\r\n", BAD),
        refused("SMTP", "EHLO x\r\n\r\n", BAD),
        refused("SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n", BAD),
        refused("Redis", "*1\r\n$4\r\nPING\r\n", BAD),
        refused("JSON", "{\"model\":\"p1/m\"}\r\n\r\n", BAD),
        refused("a byte order mark", "\u{feff}GET / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        refused("zeros", [0; 64], BAD),
        refused("0xff", [0xff; 64], BAD),
    ]
}

fn ahead() -> Vec<Row> {
    let good = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut rows: Vec<Row> = [
        ("LF ahead", "\n"),
        ("CR ahead", "\r"),
        ("LF LF ahead", "\n\n"),
        ("CR CR LF ahead", "\r\r\n"),
        ("a space and an empty line ahead", " \r\n"),
        ("NUL ahead", "\0"),
        ("a chunk of size 0 ahead", "0\r\n\r\n"),
    ]
    .into_iter()
    .map(|(name, start)| refused(name, format!("{start}{good}"), BAD))
    .collect();
    rows.push(accepted("an empty line ahead", format!("\r\n{good}"), 200));
    rows.push(accepted("many empty lines ahead", format!("{}{good}", "\r\n".repeat(1000)), 200));
    rows.push(refused(
        "more empty lines ahead than are skipped",
        format!("{}{good}", "\r\n".repeat(MAX_EMPTY_LINES / 2 + 1)),
        BAD,
    ));
    rows.push(row(
        "an empty line between two requests",
        format!("{good}\r\n{good}"),
        &[(200, ""), (200, "")],
        Fate::Kept,
        0,
    ));
    rows.push(row(
        "an empty line behind a body",
        [chat("Content-Length: 16", BODY), b"\r\n".to_vec()].concat(),
        &[(200, "")],
        Fate::Kept,
        1,
    ));
    rows.push(row(
        "a good request, then a bad one",
        [chat("Content-Length: 16", BODY), b"GET / HTTP/1.1\nHost: x\n\n".to_vec()].concat(),
        &[(200, ""), BAD],
        Fate::Closed,
        1,
    ));
    rows
}

fn limits() -> Vec<Row> {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(length - 1));
    let head = |size: usize| {
        let start = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ";
        format!("{start}{}\r\n\r\n", "a".repeat(size - start.len() - 4))
    };
    let fields =
        |count: usize| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(count - 1));
    let (long_target, large_head) = ((414, "uri_too_long"), (431, "head_too_large"));
    vec![
        row("the longest target", target(8192), &[NOT_FOUND], Fate::Kept, 0),
        refused("a target of a byte more", target(8193), long_target),
        refused("a target of 100,000 bytes", target(100_000), long_target),
        refused("a method without an end", "A".repeat(50_000), long_target),
        accepted("the largest head", head(32 * 1024), 200),
        refused("a head of a byte more", head(32 * 1024 + 1), large_head),
        refused("a head of 200,000 bytes", head(200_000), large_head),
        accepted("100 fields", fields(100), 200),
        refused("101 fields", fields(101), large_head),
        refused("3,000 fields", fields(3000), large_head),
        refused(
            "a name without an end",
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "A".repeat(50_000)),
            large_head,
        ),
    ]
}

fn bodies_where_none_is_due() -> Vec<Row> {
    let inner = String::from_utf8(super::smuggled()).expect("text");
    let length = inner.len();
    let chunks = format!("{length:x}\r\n{inner}\r\n0\r\n\r\n");
    let request = |line: &str, framing: &str, body: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}")
    };
    let by_length = format!("Content-Length: {length}");
    let by_chunks = "Transfer-Encoding: chunked";
    vec![
        accepted("GET with a request as its body", request("GET /healthz", &by_length, &inner), 200),
        accepted("GET with a request in its chunks", request("GET /healthz", by_chunks, &chunks), 200),
        row(
            "an unknown path with a request as its body",
            request("POST /no", &by_length, &inner),
            &[NOT_FOUND],
            Fate::Kept,
            0,
        ),
        row(
            "an unknown path with a request in its chunks",
            request("POST /no", by_chunks, &chunks),
            &[NOT_FOUND],
            Fate::Kept,
            0,
        ),
        row(
            "no token, with a request as its body",
            request("POST /v1/chat/completions", &by_length, &inner),
            &[(401, "missing_token")],
            Fate::Kept,
            0,
        ),
        row(
            "an unknown path with broken chunks",
            request("POST /no", by_chunks, &format!("5\n{inner}")),
            &[NOT_FOUND],
            Fate::Closed,
            0,
        ),
        refused(
            "CL.0: an unknown path with a large body",
            request("POST /no", "Content-Length: 99999999", &inner),
            NOT_FOUND,
        ),
    ]
}
