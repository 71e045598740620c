//! Errors as Anthropic's API has them.

use serde::Serialize;

use crate::dialect::output::Output;
use crate::dialect::reported::Reported;

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
    let Reported { message, code } = Reported::of(body);
    let mut out = Output::with_capacity(usize::MAX, message.len() + ROOM);
    // Strings always serialize.
    let _ = serde_json::to_writer(&mut out, &Error::new(status, &message, code.as_deref(), request_id));
    out.into_bytes().unwrap_or_default()
}

/// Bytes around the text of an error.
const ROOM: usize = 512;
