//! Which header fields pass, either way.

use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::envelope::{Envelope, X_REQUEST_ID};
use crate::config::HOP_BY_HOP;
use crate::front::{Fields, Head};

/// Fields of a request that are ours, not the provider's: framing, the client's credentials, where it came from.
const NOT_FORWARDED: &[&str] = &[
    "host",
    "content-length",
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "accept-encoding",
    "expect",
    "forwarded",
    "x-real-ip",
];

/// Places for what most clients send and what is added, so that the map need not grow.
const ROOM: usize = 24;

/// The fields of a client's request that a provider gets; it can find the request in its own log by the id that is in ours.
pub fn of_request(head: &Head, envelope: &Envelope) -> HeaderMap {
    let named =
        named_in(head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("connection")).map(|(_, v)| v));
    let mut headers = HeaderMap::with_capacity(ROOM);
    for (name, value) in head.fields() {
        // Names and values were checked by the same grammar when the head was parsed.
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let text = name.as_str();
        // A CGI or WSGI provider reads `_` as `-`: `Content_Length` would be a second `Content-Length` to it.
        let passes = match text.contains('_') {
            true => is_forwarded(&text.replace('_', "-")),
            false => is_forwarded(text),
        };
        if passes
            && !named.iter().any(|other| other == text)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(name, value);
        }
    }
    if !envelope.id_is_clients
        && let Ok(id) = HeaderValue::from_str(&envelope.id)
    {
        headers.insert(X_REQUEST_ID, id);
    }
    headers
}

fn is_forwarded(name: &str) -> bool {
    !HOP_BY_HOP.contains(&name) && !NOT_FORWARDED.contains(&name) && !name.starts_with("x-forwarded-")
}

/// The fields of a provider's answer that a client gets, but for those that are `kept_back` by name or value.
/// `Content-Length` is the front's to say; the request's id is [`super::envelope::Envelope`]'s.
pub fn of_answer(headers: &HeaderMap, kept_back: impl Fn(&str, &[u8]) -> bool) -> Fields {
    let named = named_in(headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes));
    let mut fields = Fields::default();
    for (name, value) in headers {
        let text = name.as_str();
        let passes = !HOP_BY_HOP.contains(&text)
            && !matches!(text, "content-length" | "set-cookie" | "x-request-id" | "x-ai-proxy-provider")
            && !text.starts_with("access-control-")
            && !kept_back(text, value.as_bytes())
            && !named.iter().any(|other| other == text);
        if passes {
            fields.push(text, value.as_bytes());
        }
    }
    fields
}

/// The names that `Connection` fields list, in lower case.
fn named_in<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect()
}
