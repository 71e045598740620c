//! Errors as Anthropic's API has them.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::dialect::chat::text;
use crate::dialect::json::{elements, members};
use crate::dialect::output::Output;
use crate::limits::MAX_ERROR_TEXT;
use crate::text::beginning;

/// An error in Anthropic's shape.
#[derive(Debug, Serialize)]
pub struct Error<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: Facts<'a>,
    request_id: &'a str,
}

#[derive(Debug, Serialize)]
struct Facts<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
    /// Ours: stable and finer than the type. The SDKs pass over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Error<'a> {
    /// The error that goes with that status.
    pub fn new(status: u16, message: &'a str, reason: Option<&'a str>, request_id: &'a str) -> Self {
        let error = Facts { kind: kind(status), message, reason };
        Self { kind: "error", error, request_id }
    }
}

/// The type for a status, as Anthropic documents them; where it documents none, that of its class.
pub fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// An error as an event of a stream, from its JSON (on one line).
pub fn event(document: &[u8]) -> Vec<u8> {
    [b"event: error\ndata: ", document, b"\n\n"].concat()
}

/// An error of a provider that speaks OpenAI's format, or any other JSON, in Anthropic's shape.
pub fn translate(status: u16, body: &[u8], request_id: &str) -> Vec<u8> {
    let reported = serde_json::from_slice(body).map(Reported::of).unwrap_or_default();
    // A character that is cut stands behind what is kept.
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_TEXT + 1)]);
    let message = reported.message.filter(|message| !message.trim().is_empty());
    let message = message.as_deref().unwrap_or_else(|| beginning(&text, MAX_ERROR_TEXT));
    let code = reported.code.as_deref().filter(|code| !code.is_empty());
    let mut out = Output::with_capacity(usize::MAX, message.len() + ROOM);
    // Strings always serialize.
    let _ = serde_json::to_writer(&mut out, &Error::new(status, message, code, request_id));
    out.into_bytes().unwrap_or_default()
}

/// Bytes around the text of an error.
const ROOM: usize = 512;

/// What a provider tells of an error.
#[derive(Default)]
struct Reported<'a> {
    message: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
}

impl<'a> Reported<'a> {
    fn of(document: &'a RawValue) -> Self {
        // Gemini's layer answers with a list of one.
        let document = first(document).unwrap_or(document);
        let [error, outer, detail] = values(document, ["error", "message", "detail"]);
        let error = error.unwrap_or(document);
        let [inner, code] = values(error, ["message", "code"]);
        let message = [Some(error), inner, outer, detail].into_iter().flatten().find_map(text);
        Self { message, code: code.and_then(text) }
    }
}

/// The first element, where it is an array.
fn first(document: &RawValue) -> Option<&RawValue> {
    let mut first = None;
    // What is no array has none.
    let _ = elements(document, |_, element| {
        first = first.or(Some(element));
        Ok(())
    });
    first
}

/// The values of those members; none of what is no object.
fn values<'a, const N: usize>(object: &'a RawValue, names: [&str; N]) -> [Option<&'a RawValue>; N] {
    let mut values = [None; N];
    let _ = members(object, |key, value| {
        for (name, it) in names.iter().zip(&mut values) {
            *it = Some(value).filter(|_| *name == key).or(*it);
        }
        Ok(())
    });
    values
}
