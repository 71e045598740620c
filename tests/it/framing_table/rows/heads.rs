//! Request lines and header fields.

use super::{BAD, Fate, NOT_FOUND, Row, accepted, refused, row};

pub fn request_lines() -> Vec<Row> {
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

pub fn targets() -> Vec<Row> {
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

pub fn hosts() -> Vec<Row> {
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

pub fn fields() -> Vec<Row> {
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
