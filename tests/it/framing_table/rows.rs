//! The rows. A new row has a name, its bytes, its responses, and whether the connection stays open.

use ai_proxy::limits::MAX_EMPTY_LINES;

use crate::support::calls::TOKEN;

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
        request_lines(),
        targets(),
        hosts(),
        fields(),
        lengths(),
        codings(),
        length_against_coding(),
        chunk_sizes(),
        chunk_ends(),
        trailers(),
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

fn request_lines() -> Vec<Row> {
    let bad = [
        ("two spaces before the target", "GET  / HTTP/1.1"),
        ("two spaces before the version", "GET /  HTTP/1.1"),
        ("a space behind the version", "GET / HTTP/1.1 "),
        ("a space before the method", " GET / HTTP/1.1"),
        ("a tab before the method", "\tGET / HTTP/1.1"),
        ("tabs for spaces", "GET\t/\tHTTP/1.1"),
        ("a form feed for a space", "GET\x0c/ HTTP/1.1"),
        ("a vertical tab behind the target", "GET /\x0b HTTP/1.1"),
        ("a space in the target", "GET /a b HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("an empty target", "GET  HTTP/1.1"),
        ("a method alone", "GET"),
        ("HTTP/0.9, with fields", "GET /"),
        ("HTTP/0.9, a space behind", "GET / "),
        ("a method with a bad byte", "G@T / HTTP/1.1"),
        ("a method with a colon", "GET: / HTTP/1.1"),
        ("a method of two lines", "GET\r\n / HTTP/1.1"),
        ("a method that is not ASCII", "G\u{c9}T / HTTP/1.1"),
        ("a quoted method", "\"GET\" / HTTP/1.1"),
        ("a version in lower case", "GET / http/1.1"),
        ("a version in mixed case", "GET / HtTP/1.1"),
        ("a version with a zero ahead", "GET / HTTP/01.1"),
        ("a minor version of two digits", "GET / HTTP/1.10"),
        ("a version without its minor", "GET / HTTP/1"),
        ("a version with nothing behind the point", "GET / HTTP/1."),
        ("a version with a comma", "GET / HTTP/1,1"),
        ("a version with a sign", "GET / HTTP/+1.1"),
        ("a version with a letter behind", "GET / HTTP/1.1x"),
        ("a version of another protocol", "GET / HTTPS/1.1"),
        ("a version without its slash", "GET / HTTP 1.1"),
        ("a status line", "HTTP/1.1 200 OK"),
        ("a header line first", "Host: y"),
        ("a colon first", ": y"),
    ];
    let late = [
        ("HTTP/2.0", "GET / HTTP/2.0"),
        ("HTTP/3.0", "GET / HTTP/3.0"),
        ("HTTP/0.9 by name", "GET / HTTP/0.9"),
        ("HTTP/9.9", "GET / HTTP/9.9"),
        ("HTTP/0.0", "GET / HTTP/0.0"),
    ];
    let with_host = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    let method_not_allowed = (405, "method_not_allowed");
    let mut rows: Vec<Row> =
        bad.into_iter().map(|(name, line)| refused(name, with_host(line), BAD)).collect();
    rows.extend(
        late.into_iter().map(|(name, line)| refused(name, with_host(line), (505, "version_not_supported"))),
    );
    rows.extend([
        refused("HTTP/0.9, nothing behind", "GET /\r\n\r\n", BAD),
        accepted("a later minor version", with_host("GET /healthz HTTP/1.9"), 200),
        row("a method in lower case", with_host("get / HTTP/1.1"), &[method_not_allowed], Fate::Kept, 0),
        row("an unknown method", with_host("BREW / HTTP/1.1"), &[method_not_allowed], Fate::Kept, 0),
        row("TRACE", with_host("TRACE /healthz HTTP/1.1"), &[method_not_allowed], Fate::Kept, 0),
        row("HTTP/1.0 without a host", "GET /healthz HTTP/1.0\r\n\r\n", &[(200, "")], Fate::Closed, 0),
        row(
            "HTTP/1.0 that wants to be kept",
            "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            &[(200, "")],
            Fate::Kept,
            0,
        ),
        refused("bare LF behind the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n", BAD),
        refused("bare LF everywhere", "GET / HTTP/1.1\nHost: x\n\n", BAD),
        refused("bare CR behind the request line", "GET / HTTP/1.1\rHost: x\r\n\r\n", BAD),
        refused("CR CR LF behind the request line", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", BAD),
        refused("LF CR behind the request line", "GET / HTTP/1.1\n\rHost: x\r\n\r\n", BAD),
        refused("NUL in the method", "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n", BAD),
        refused("NUL behind the version", "GET / HTTP/1.1\0\r\nHost: x\r\n\r\n", BAD),
    ]);
    rows
}

fn targets() -> Vec<Row> {
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut rows = Vec::new();
    for (name, target) in [
        ("an absolute target", "http://x/healthz"),
        ("an absolute target of another host", "http://elsewhere.test:81/healthz"),
        ("an absolute target, scheme in capitals", "HTTPS://x/healthz"),
        ("an absolute target without a path", "http://x"),
        ("an absolute target without a path, with a query", "http://x?a=b"),
        ("an absolute target over IPv6", "http://[::1]:80/healthz"),
        ("a query", "/healthz?a=b?c#".trim_end_matches('#')),
        ("an empty query", "/healthz?"),
    ] {
        rows.push(accepted(name, request(target), 200));
    }
    for (name, target) in [
        ("a fragment", "/healthz#x"),
        ("a fragment in an absolute target", "http://x/healthz#x"),
        ("a target that is not ASCII", "/\u{e9}"),
        ("a control character in the target", "/\x01"),
        ("DEL in the target", "/\x7f"),
        ("NUL in the target", "/\0"),
        ("a relative target", "healthz"),
        ("a relative target with dots", "../healthz"),
        ("a backslash for a slash", "\\healthz"),
        ("an authority as target", "x:80"),
        ("an unknown scheme", "ftp://x/healthz"),
        ("a file", "file:///etc/passwd"),
        ("a scheme alone", "http://"),
        ("a scheme without an authority", "http:///healthz"),
        ("a scheme with one slash", "http:/healthz"),
        ("user information in the target", "http://user:secret@x/healthz"),
        ("a bad port in the target", "http://x:port/healthz"),
        ("two ports in the target", "http://x:80:80/healthz"),
        ("an asterisk with GET", "*"),
        ("an asterisk and more", "*/healthz"),
    ] {
        rows.push(refused(name, request(target), BAD));
    }
    for (name, target) in [
        ("two slashes", "//healthz"),
        ("dots in the path", "/./healthz"),
        ("dots that lead up", "/v1/../healthz"),
        ("encoded dots", "/%2e%2e/healthz"),
        ("an encoded path", "/%68ealthz"),
        ("an encoded NUL", "/healthz%00"),
        ("encoded line ends", "/%0d%0aX:%20y"),
        ("a path parameter", "/healthz;a=b"),
    ] {
        rows.push(row(name, request(target), &[NOT_FOUND], Fate::Kept, 0));
    }
    let options = "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n";
    rows.push(row("an asterisk with OPTIONS", options, &[NOT_FOUND], Fate::Kept, 0));
    rows.push(refused("CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", BAD));
    rows.push(refused("CONNECT in absolute form of no scheme", "CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", BAD));
    rows
}

fn hosts() -> Vec<Row> {
    let request = |lines: &str| format!("GET /healthz HTTP/1.1\r\n{lines}X-A: b\r\n\r\n");
    let mut rows: Vec<Row> = [
        ("no Host", ""),
        ("no Host beside an absolute target's likeness", "X-Host: x\r\n"),
        ("two Hosts", "Host: x\r\nHost: y\r\n"),
        ("the same Host twice", "Host: x\r\nHost: x\r\n"),
        ("two Hosts, one in lower case", "Host: x\r\nhost: y\r\n"),
        ("an empty Host", "Host:\r\n"),
        ("a Host of white space", "Host: \t \r\n"),
        ("a Host with user information", "Host: user@x\r\n"),
        ("a Host with a path", "Host: x/healthz\r\n"),
        ("a Host with a scheme", "Host: http://x\r\n"),
        ("a Host with a backslash", "Host: x\\y\r\n"),
        ("a Host with a query", "Host: x?y\r\n"),
        ("a Host with a fragment", "Host: x#y\r\n"),
        ("a Host with a space", "Host: x y\r\n"),
        ("a list of Hosts", "Host: x, y\r\n"),
        ("a Host with a named port", "Host: x:http\r\n"),
        ("a Host with a signed port", "Host: x:-1\r\n"),
        ("a Host with a port of six digits", "Host: x:100000\r\n"),
        ("a Host with a port above 65535", "Host: x:65536\r\n"),
        ("a Host with two ports", "Host: x:80:80\r\n"),
        ("a Host that is a port", "Host: :80\r\n"),
        ("a Host of half a bracket", "Host: [::1\r\n"),
        ("a Host behind a bracket", "Host: [::1]x\r\n"),
        ("a Host of empty brackets", "Host: []\r\n"),
        ("a Host of IPv6 without brackets", "Host: ::1\r\n"),
        ("a Host with a broken escape", "Host: x%zz\r\n"),
        ("a Host that is not ASCII", "Host: \u{e9}\r\n"),
        ("a Host with NUL", "Host: x\0\r\n"),
        ("a Host before a space and a colon", "Host : x\r\n"),
        ("a folded Host", "Host:\r\n x\r\n"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, request(lines), BAD))
    .collect();
    for (name, lines) in [
        ("a Host with a port", "Host: x:8080\r\n"),
        ("a Host with an empty port", "Host: x:\r\n"),
        ("a Host of IPv6", "Host: [::1]:8080\r\n"),
        ("a Host within tabs", "Host:\tx\t\r\n"),
        ("a Host in capitals, last", "X-B: c\r\nHOST: X\r\n"),
    ] {
        rows.push(accepted(name, request(lines), 200));
    }
    let two = "GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n";
    rows.push(refused("two Hosts in HTTP/1.0", two, BAD));
    rows
}

fn fields() -> Vec<Row> {
    let request = |lines: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
    let mut rows: Vec<Row> = [
        ("a space before the colon", "X-A : b"),
        ("a tab before the colon", "X-A\t: b"),
        ("no colon", "X-A"),
        ("no name", ": b"),
        ("a name of white space", " : b"),
        ("obs-fold by a space", "X-A: b\r\n c"),
        ("obs-fold by a tab", "X-A: b\r\n\tc"),
        ("obs-fold that hides a length", "X-A: b\r\n Content-Length: 5"),
        ("obs-fold of nothing", "X-A: b\r\n "),
        ("a name with a space", "X A: b"),
        ("a name with a slash", "X/A: b"),
        ("a name with brackets", "X(A): b"),
        ("a name in quotes", "\"X-A\": b"),
        ("a name that is not ASCII", "X-\u{e9}: b"),
        ("a name with NUL", "X\0A: b"),
        ("a name with a control character", "X\x01A: b"),
        ("a name with DEL", "X\x7fA: b"),
        ("a value with NUL", "X-A: b\0c"),
        ("a value with a control character", "X-A: b\x01c"),
        ("a value with a vertical tab", "X-A: b\x0bc"),
        ("a value with DEL", "X-A: b\x7fc"),
        ("a value with ESC", "X-A: \x1b[31m"),
        ("a value with a bare CR", "X-A: b\rX-B: c"),
        ("a value that ends in CR", "X-A: b\r"),
        ("a value with a bare LF", "X-A: b\nX-B: c"),
        ("a value with LF CR", "X-A: b\n\rX-B: c"),
        ("LF LF for the blank line", "X-A: b\n\nGET /?x HTTP/1.1\r\nHost: x"),
        ("CR CR LF for the blank line", "X-A: b\r\n\r"),
        ("a second request line", "GET / HTTP/1.1"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, request(lines), BAD))
    .collect();
    let first_folded = "GET /healthz HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n";
    rows.push(refused("obs-fold before the first field", first_folded, BAD));
    for (name, lines) in [
        ("every tchar in a name", "!#$%&'*+-.^_`|~09azAZ: b"),
        ("an empty value", "X-A:"),
        ("a value of white space", "X-A: \t "),
        ("a value that is not ASCII", "X-A: \u{e9}"),
        ("a value with colons", "X-A: b: c:"),
        ("a value with a tab", "X-A: b\tc"),
    ] {
        rows.push(accepted(name, request(lines), 200));
    }
    rows
}

fn lengths() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("two lengths", "Content-Length: 16\r\nContent-Length: 17"),
        ("two lengths, the second 0", "Content-Length: 16\r\nContent-Length: 0"),
        ("three lengths, the last another", "Content-Length: 16\r\nContent-Length: 16\r\nContent-Length: 1"),
        ("two lengths in two cases", "content-length: 16\r\nCONTENT-LENGTH: 5"),
        ("a list of lengths", "Content-Length: 16, 17"),
        ("a list of the same length", "Content-Length: 16, 16"),
        ("a list with an empty member", "Content-Length: 16,"),
        ("a positive length", "Content-Length: +16"),
        ("a negative length", "Content-Length: -16"),
        ("minus nought", "Content-Length: -0"),
        ("a hexadecimal length", "Content-Length: 0x10"),
        ("an octal length", "Content-Length: 0o20"),
        ("a length with a point", "Content-Length: 16.0"),
        ("a length with an exponent", "Content-Length: 16e0"),
        ("a length with an underscore", "Content-Length: 1_6"),
        ("a length with a space", "Content-Length: 1 6"),
        ("a length with a unit", "Content-Length: 16b"),
        ("a length in quotes", "Content-Length: \"16\""),
        ("a length with a parameter", "Content-Length: 16;q=1"),
        ("an empty length", "Content-Length:"),
        ("a length in full-width digits", "Content-Length: \u{ff11}\u{ff16}"),
        ("a length in Arabic digits", "Content-Length: \u{661}\u{666}"),
        ("a space between name and colon", "Content-Length : 16"),
        ("a vertical tab before a length", "Content-Length:\x0b16"),
        ("a folded length", "Content-Length:\r\n 16"),
        ("a length with a bare CR", "Content-Length: 16\r7"),
        ("a length with NUL", "Content-Length: 16\0"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, chat(lines, BODY), BAD))
    .collect();
    for length in [
        "100001",
        "4294967296",
        "4294967312",
        "100000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551632",
        "340282366920938463463374607431768211472",
    ] {
        let lines = format!("Content-Length: {length}");
        rows.push(refused(&format!("a length of {length}"), chat(&lines, BODY), (413, "body_too_large")));
    }
    for (name, lines) in [
        ("a length", "Content-Length: 16"),
        ("the same length twice", "Content-Length: 16\r\nContent-Length: 16"),
        ("a length with zeros ahead", "Content-Length: 00000000000000000000000016"),
        ("a length within white space", "Content-Length: \t16 \t"),
    ] {
        rows.push(relayed(name, chat(lines, BODY)));
    }
    let empty = (400, "invalid_json");
    rows.push(row("no length", chat("X-A: b", ""), &[empty], Fate::Kept, 0));
    rows.push(row("a length of 0", chat("Content-Length: 0", ""), &[empty], Fate::Kept, 0));
    // A length that is too small: the rest of the body is no request.
    let short = chat("Content-Length: 15", BODY);
    rows.push(row("a length that is too small", short, &[empty, BAD], Fate::Closed, 0));
    rows
}

fn codings() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("chunked, then gzip", "Transfer-Encoding: chunked, gzip"),
        ("chunked, then identity", "Transfer-Encoding: chunked, identity"),
        (
            "chunked, then identity on a line of its own",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        ("chunked, then an unknown one", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ("an empty coding", "Transfer-Encoding:"),
        ("a coding of commas", "Transfer-Encoding: ,,"),
        ("chunked in a list with empty members", "Transfer-Encoding: , chunked ,"),
        ("a space before the coding's colon", "Transfer-Encoding : chunked"),
        ("a tab before the coding's colon", "Transfer-Encoding\t: chunked"),
        ("a space before the coding's name", " Transfer-Encoding: chunked"),
        ("a vertical tab before the coding", "Transfer-Encoding: \x0bchunked"),
        ("a form feed behind the coding", "Transfer-Encoding: chunked\x0c"),
        ("NUL behind the coding", "Transfer-Encoding: chunked\0"),
        ("a folded coding", "Transfer-Encoding:\r\n chunked"),
        ("a folded coding by a tab", "Transfer-Encoding:\r\n\tchunked"),
        ("a bare LF before the coding", "X-A: b\nTransfer-Encoding: chunked"),
        ("a bare CR before the coding", "X-A: b\rTransfer-Encoding: chunked"),
        ("a coding without its colon", "Transfer-Encoding chunked"),
    ]
    .into_iter()
    .map(|(name, lines)| refused(name, chat(lines, CHUNKS), BAD))
    .collect();
    for (name, coding) in [
        ("xchunked", "xchunked"),
        ("chunkedx", "chunkedx"),
        ("chunk", "chunk"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("gzip, then chunked", "gzip, chunked"),
        ("identity, then chunked", "identity, chunked"),
        ("chunked with a parameter", "chunked;q=1"),
        ("chunked in quotes", "\"chunked\""),
        ("chunked behind a semicolon", ";chunked"),
        ("chunked and a word", "chunked x"),
        ("chunked behind a backslash", "\\chunked"),
        ("chunked by a Kelvin sign", "chun\u{212a}ed"),
    ] {
        let lines = format!("Transfer-Encoding: {coding}");
        rows.push(refused(name, chat(&lines, CHUNKS), UNKNOWN_CODING));
    }
    for (name, lines) in [
        ("chunked", "Transfer-Encoding: chunked"),
        ("chunked in capitals", "TRANSFER-ENCODING: CHUNKED"),
        ("chunked within tabs", "Transfer-Encoding:\tchunked\t"),
    ] {
        rows.push(relayed(name, chat(lines, CHUNKS)));
    }
    // Other names are other fields: the length counts, and the upstream gets no second framing.
    for (name, lines) in [
        ("a coding with an underscore", "Content-Length: 16\r\nTransfer_Encoding: chunked"),
        ("a coding with a letter ahead", "Content-Length: 16\r\nX-Transfer-Encoding: chunked"),
        ("TE is no coding", "Content-Length: 16\r\nTE: chunked"),
        ("a content coding is no coding", "Content-Length: 16\r\nContent-Encoding: identity"),
    ] {
        rows.push(relayed(name, chat(lines, BODY)));
    }
    let old = String::from_utf8(chat("Transfer-Encoding: chunked", CHUNKS)).expect("text");
    rows.push(refused("chunked in HTTP/1.0", old.replace("HTTP/1.1", "HTTP/1.0"), BAD));
    rows
}

fn length_against_coding() -> Vec<Row> {
    [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\nG"),
        ("TE.CL, length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0", CHUNKS),
        ("CL.TE, coding in capitals", "Content-Length: 6\r\nTRANSFER-ENCODING: CHUNKED", "0\r\n\r\nG"),
        ("CL.TE, unknown coding", "Content-Length: 16\r\nTransfer-Encoding: xchunked", BODY),
        ("CL.TE, identity", "Content-Length: 16\r\nTransfer-Encoding: identity", BODY),
        ("CL.TE, space before the colon", "Content-Length: 6\r\nTransfer-Encoding : chunked", "0\r\n\r\nG"),
        ("CL.TE, folded", "Content-Length: 6\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\nG"),
        ("CL.TE, empty coding", "Content-Length: 16\r\nTransfer-Encoding:", BODY),
        ("TE.TE", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow", "5c\r\nG"),
        ("CL.CL.TE", "Content-Length: 6\r\nContent-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
        ("CL.TE, the length too large", "Content-Length: 99999999999\r\nTransfer-Encoding: chunked", CHUNKS),
    ]
    .into_iter()
    .map(|(name, lines, rest)| refused(name, chat(lines, rest), BAD))
    .collect()
}

fn chunked(rest: &str) -> Vec<u8> {
    chat("Transfer-Encoding: chunked", rest)
}

fn chunk_sizes() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("a chunk size with a sign", "+10"),
        ("a negative chunk size", "-10"),
        ("a chunk size with its base", "0x10"),
        ("a chunk size with an h", "10h"),
        ("a space before a chunk size", " 10"),
        ("a tab before a chunk size", "\t10"),
        ("a space behind a chunk size", "10 "),
        ("a tab behind a chunk size", "10\t"),
        ("a chunk size with a space", "1 0"),
        ("a chunk size with an underscore", "1_0"),
        ("a chunk size in quotes", "\"10\""),
        ("an empty chunk size", ""),
        ("an extension without a size", ";a=b"),
        ("a chunk size of letters", "zz"),
        ("a chunk size with NUL", "10\0"),
        ("a chunk size with a bare CR", "10\r0"),
        ("a chunk size in full-width digits", "\u{ff11}\u{ff10}"),
        ("a chunk size of 17 digits", "FFFFFFFFFFFFFFFFF"),
        ("a chunk size that wraps round to 16", "10000000000000010"),
        ("a chunk size that wraps round to 0", "10000000000000000"),
        ("an extension without its semicolon", "10 a=b"),
        ("an extension with a bare LF in quotes", "10;a=\"b\nc\""),
        ("an extension with a bare CR", "10;a\rb"),
        ("an extension that ends in CR", "10;a\r"),
        ("an extension with NUL", "10;a=\0"),
        ("an extension with a control character", "10;a=\x01"),
    ]
    .into_iter()
    .map(|(name, line)| refused(name, chunked(&format!("{line}\r\n{BODY}\r\n0\r\n\r\n")), BAD))
    .collect();
    for (name, size) in [
        ("the largest chunk size", "FFFFFFFFFFFFFFFF"),
        ("the largest signed chunk size", "7fffffffffffffff"),
        ("a chunk size over 32 bits", "100000010"),
    ] {
        // A refusal when the size is read is fine as well: no byte of such a body can count.
        rows.push(refused(name, chunked(&format!("{size}\r\n{BODY}\r\n0\r\n\r\n")), (413, "body_too_large")));
    }
    let long = format!("10;{}\r\n{BODY}\r\n0\r\n\r\n", "x".repeat(2000));
    rows.push(refused("an extension of 2,000 bytes", chunked(&long), BAD));
    let huge = format!("10;{}", "x".repeat(200_000));
    rows.push(refused("an extension without an end", chunked(&huge), BAD));
    let zeros = format!("{}10\r\n{BODY}\r\n0\r\n\r\n", "0".repeat(1000));
    rows.push(refused("a chunk size with 1,000 zeros ahead", chunked(&zeros), BAD));
    for (name, line) in [
        ("a chunk size with zeros ahead", "000010"),
        ("an extension", "10;a"),
        ("an extension with a value", "10;a=b;c=\"d e\""),
        ("an extension within white space", "10 ; a = b"),
    ] {
        rows.push(relayed(name, chunked(&format!("{line}\r\n{BODY}\r\n0\r\n\r\n"))));
    }
    let capital =
        "A\r\n{\"model\":\"\r\na\r\np1/m\"}    \r\n00\r\n\r\n".replace("a\r\np1/m\"}    ", "6\r\np1/m\"}");
    rows.push(relayed("a chunk size in capitals, a last one of two digits", chunked(&capital)));
    rows
}

fn chunk_ends() -> Vec<Row> {
    [
        ("bare LF behind a chunk size (TERM.EXT)", "10\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind an extension (EXT.TERM)", "10;a\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare CR behind a chunk size", "10\r{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("CR CR LF behind a chunk size", "10\r\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind chunk data", "10\r\n{\"model\":\"p1/m\"}\n0\r\n\r\n"),
        ("bare CR behind chunk data", "10\r\n{\"model\":\"p1/m\"}\r0\r\n\r\n"),
        ("nothing behind chunk data", "10\r\n{\"model\":\"p1/m\"}0\r\n\r\n"),
        ("one byte over behind chunk data", "10\r\n{\"model\":\"p1/m\"}X\r\n0\r\n\r\n"),
        ("two bytes over for the line end (spill)", "10\r\n{\"model\":\"p1/m\"}XX0\r\n\r\n"),
        ("chunk data one byte short", "11\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("chunk data one byte long", "f\r\n{\"model\":\"p1/m\"}\r\n0\r\n\r\n"),
        ("bare LF behind the last chunk", "10\r\n{\"model\":\"p1/m\"}\r\n0\n\r\n"),
        ("bare LF for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\n"),
        ("LF LF for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\n\n"),
        ("CR and another byte for the end", "10\r\n{\"model\":\"p1/m\"}\r\n0\r\n\rX"),
        ("an empty line between chunks", "8\r\n{\"model\"\r\n\r\n8\r\n:\"p1/m\"}\r\n0\r\n\r\n"),
        ("a body that is not chunked", BODY),
    ]
    .into_iter()
    .map(|(name, rest)| refused(name, chunked(rest), BAD))
    .collect()
}

fn trailers() -> Vec<Row> {
    let ended = |trailers: &str| chunked(&format!("10\r\n{BODY}\r\n0\r\n{trailers}\r\n"));
    let mut rows: Vec<Row> = [
        ("a trailer without a colon", "X-A\r\n"),
        ("a trailer without a name", ": b\r\n"),
        ("a trailer with a space before its colon", "X-A : b\r\n"),
        ("a folded trailer", "X-A: b\r\n c\r\n"),
        ("a trailer with a bare LF", "X-A: b\nX-B: c\r\n"),
        ("a trailer with a bare CR", "X-A: b\rX-B: c\r\n"),
        ("a trailer with NUL", "X-A: b\0\r\n"),
        ("a trailer with DEL", "X-A: b\x7f\r\n"),
        ("a request line as trailer", "GET /?smuggled HTTP/1.1\r\n"),
    ]
    .into_iter()
    .map(|(name, trailers)| refused(name, ended(trailers), BAD))
    .collect();
    let many = "X-A: b\r\n".repeat(2000);
    rows.push(refused("trailers of 16,000 bytes", ended(&many), BAD));
    for (name, trailers) in [
        ("a trailer", "X-A: b\r\n"),
        ("a trailer that frames", "Content-Length: 500\r\nTransfer-Encoding: chunked\r\n"),
        ("a trailer that authorizes", "Authorization: Bearer other\r\nHost: elsewhere\r\n"),
        ("a trailer that closes", "Connection: close\r\n"),
    ] {
        rows.push(relayed(name, ended(trailers)));
    }
    rows
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
