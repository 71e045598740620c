//! Errors in the form of Anthropic's API.

use std::borrow::Cow;

use serde::Serialize;

use crate::dialect::chat_request::Attached;
use crate::dialect::output::Output;
use crate::dialect::reported::Reported;

/// An error in Anthropic's form.
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
    /// Our own reason: stable and more specific than the type. SDKs ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Error<'a> {
    /// The error for that status.
    pub fn new(status: u16, message: &'a str, reason: Option<&'a str>, request_id: &'a str) -> Self {
        let error = Facts { kind: kind(status), message, reason };
        Self { kind: "error", error, request_id }
    }
}

/// The type for a status, as documented by Anthropic; else that of the status's class.
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

/// An agent that reads these words continues without its attachments: Anthropic's own errors about
/// attachments end with them.
const REFUSED_PDF: &str = "The PDF specified was not valid.";
const REFUSED_IMAGE: &str = "Could not process image.";

/// End of the error for a provider that refuses a request with these attachments. Text-only providers use any
/// words for that; an agent that does not know them sends the attachment again with every later request.
fn ending(status: u16, message: &str, attached: Attached) -> &'static str {
    // A request that is too long is refused for its length.
    let is_long = ["context", "token"].iter().any(|word| message.contains(word));
    match (status, attached) {
        (400 | 415 | 422, Attached { image: true, pdf })
            if !is_long && (!pdf || message.contains("image")) =>
        {
            REFUSED_IMAGE
        }
        (400 | 415 | 422, Attached { pdf: true, .. }) if !is_long => REFUSED_PDF,
        _ => "",
    }
}

/// A provider's error in OpenAI's format or any other JSON, in Anthropic's form. `attached`: the attachments
/// of the request.
pub fn translate(status: u16, body: &[u8], request_id: &str, attached: Attached) -> Vec<u8> {
    let Reported { message, code } = Reported::of(body);
    let message = match ending(status, &message, attached) {
        "" => message,
        ending if message.trim().is_empty() => Cow::Borrowed(ending),
        ending => Cow::Owned([message.trim_end_matches('.'), ". ", ending].concat()),
    };
    let mut out = Output::with_capacity(usize::MAX, message.len() + ROOM);
    // Strings always serialize.
    let _ = serde_json::to_writer(&mut out, &Error::new(status, &message, code.as_deref(), request_id));
    out.into_bytes().unwrap_or_default()
}

/// Bytes besides the text of an error.
const ROOM: usize = 512;
