//! Response heads that make a response unusable whatever its body says: redirects, and unrequested content codings.

use super::{Failure, Fault, Headers};
use crate::limits::MAX_LOCATION;

/// Content codings that change the bytes (IANA's registry, and the older names). Other values in use, `identity` or `utf-8`, do not.
const CODINGS: &[&str] = &["gzip", "br", "zstd", "deflate", "compress", "x-gzip", "x-compress", "dcb", "dcz"];

/// Why a response with that head is unusable; `None`: it is usable. An error status keeps its meaning in any coding of its body.
pub fn failure_of(status: u16, headers: &Headers) -> Option<Failure> {
    match status {
        // 304 is no redirect: the client has made a conditional request.
        304 | 400.. => None,
        300..400 => {
            let place = headers.get("location").map(shown);
            let place = place.map(|place| format!(" to {place}")).unwrap_or_default();
            Some(Failure { fault: Fault::Redirected, detail: format!("HTTP {status}{place}") })
        }
        _ => coding(headers).map(|coding| Failure {
            fault: Fault::Coded(coding),
            detail: format!("Content-Encoding: {coding}, though identity was asked for"),
        }),
    }
}

/// The content coding of a body that has one.
pub fn coding(headers: &Headers) -> Option<&'static str> {
    let values = headers.get_all("content-encoding");
    let mut named = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    named.find_map(|name| CODINGS.iter().find(|coding| coding.as_bytes().eq_ignore_ascii_case(name)).copied())
}

/// The target of a redirect without its parts that may be secret: user and password, query, fragment.
fn shown(location: &[u8]) -> String {
    let end = location.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(location.len());
    let place = String::from_utf8_lossy(&location[..end.min(MAX_LOCATION)]).into_owned();
    let authority = place.find("//").map_or(0, |at| at + 2);
    let path = place[authority..].find('/').map_or(place.len(), |at| authority + at);
    match place[authority..path].rfind('@') {
        Some(at) if authority > 0 => format!("{}***{}", &place[..authority], &place[authority + at..]),
        _ => place,
    }
}

#[cfg(test)]
mod tests {
    use super::failure_of;
    use crate::upstream::{Fault, Headers};

    fn failure(status: u16, fields: &[(&'static str, &'static str)]) -> Option<(Fault, String)> {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(name, value.as_bytes());
        }
        failure_of(status, &headers).map(|failure| (failure.fault, failure.detail))
    }

    #[test]
    fn failure_of_a_redirect_tells_where_to_without_credentials() {
        for (location, shown) in [
            ("https://b.example/v1/chat?key=secret#x", "HTTP 307 to https://b.example/v1/chat"),
            ("https://user:secret@b.example:8443/v1", "HTTP 307 to https://***@b.example:8443/v1"),
            ("//secret@b.example", "HTTP 307 to //***@b.example"),
            ("/v1/@me", "HTTP 307 to /v1/@me"),
            ("https://b.example/@me", "HTTP 307 to https://b.example/@me"),
            ("", "HTTP 307 to "),
        ] {
            assert_eq!(failure(307, &[("location", location)]), Some((Fault::Redirected, shown.to_owned())));
        }
        for status in [300, 301, 302, 303, 308, 399] {
            assert_eq!(failure(status, &[]), Some((Fault::Redirected, format!("HTTP {status}"))));
        }
        for status in [200, 201, 304, 400, 500] {
            assert_eq!(failure(status, &[("location", "/x")]), None, "{status}");
        }
    }

    #[test]
    fn failure_of_a_coded_success_names_the_coding() {
        for (value, coding) in
            [("gzip", "gzip"), ("BR", "br"), ("identity, zstd", "zstd"), ("x-gzip", "x-gzip")]
        {
            let fault = failure(200, &[("content-encoding", value)]).map(|(fault, _)| fault);
            assert_eq!(fault, Some(Fault::Coded(coding)), "{value}");
            assert_eq!(failure(429, &[("content-encoding", value)]), None, "{value}");
        }
        for value in ["", "identity", "utf-8", "none", "aws-chunked"] {
            assert_eq!(failure(200, &[("content-encoding", value)]), None, "{value}");
        }
    }
}
