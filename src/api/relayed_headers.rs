//! Which header fields pass, either way.

use std::borrow::Cow;

use ureq::http::{HeaderMap, HeaderValue, header};

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

/// The fields of a client's request that a provider gets, but for those that are `kept_back` by name; it can find the request
/// in its own log by the id that is in ours.
pub fn of_request(head: &Head, envelope: &Envelope, kept_back: &dyn Fn(&str) -> bool) -> Fields {
    let named =
        named_in(head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("connection")).map(|(_, v)| v));
    let mut fields = Fields::default();
    for (name, value) in head.fields() {
        // A CGI or WSGI provider reads `_` as `-`: `Content_Length` would be a second `Content-Length` to it.
        let read = if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
        let is_replaced = read.eq_ignore_ascii_case(X_REQUEST_ID.as_str()) || kept_back(&read);
        let is_named = named.iter().any(|other| other.eq_ignore_ascii_case(name));
        if is_forwarded(&read) && !is_replaced && !is_named {
            fields.push(name, value);
        }
    }
    if !kept_back(X_REQUEST_ID.as_str()) {
        fields.push(X_REQUEST_ID.as_str(), &envelope.id);
    }
    fields
}

fn is_forwarded(name: &str) -> bool {
    let is = |other: &&str| other.eq_ignore_ascii_case(name);
    let forwarded_for = "x-forwarded-";
    !HOP_BY_HOP.iter().any(is)
        && !NOT_FORWARDED.iter().any(is)
        && !name.get(..forwarded_for.len()).is_some_and(|start| start.eq_ignore_ascii_case(forwarded_for))
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
