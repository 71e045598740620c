//! An error inside a stream, in the format of the client's API. The HTTP status has left already, so clients decide by the
//! `type` of the error whether to retry.

use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;
use super::response_context::ResponseContext;
use super::to_json;
use crate::config::Format;
use crate::dialect::anthropic;
use crate::upstream::refusal::first_element;

/// The event that ends a stream with an error of ours. `sequence`: the number of the event in the Responses API.
pub fn of(error: &ApiError, context: &ResponseContext, sequence: u64) -> Vec<u8> {
    let status = error.status();
    let message = error.words(context.language);
    let reason = Some(error.reason());
    match (context.format, context.is_responses) {
        (Format::Anthropic, _) => anthropic::error::event(&error.body(context)),
        (Format::OpenAi, true) => {
            let code = Some(code(status));
            named(&ResponseError { kind: "error", code, message: &message, param: None, sequence, reason })
        }
        (Format::OpenAi, false) => plain(&error.body_of_kind(context, kind(status))),
    }
}

/// A provider's error document, JSON on one line, as an event.
pub fn of_document(document: &[u8], context: &ResponseContext) -> Vec<u8> {
    match (context.format, context.is_responses) {
        (Format::Anthropic, _) => anthropic::error::event(document),
        (Format::OpenAi, true) => response_error(document),
        (Format::OpenAi, false) => {
            // Google puts its errors into an array, which no client recognizes as an error.
            let element = std::str::from_utf8(document).ok().and_then(first_element);
            plain(element.map_or(document, str::as_bytes))
        }
    }
}

/// The error event of the Responses API.
#[derive(Serialize)]
struct ResponseError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: Option<&'a str>,
    message: &'a str,
    param: Option<&'a str>,
    #[serde(rename = "sequence_number")]
    sequence: u64,
    /// Our own member: stable and finer than the code. The SDKs ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn response_error(document: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let document = document.get(0).unwrap_or(&document);
    let error = document.get("error").unwrap_or(document);
    let text = |name: &str| error[name].as_str();
    let message = text("message").or_else(|| error.as_str()).unwrap_or("error");
    let code = text("code").or_else(|| text("type")).filter(|code| !code.is_empty());
    let (kind, param, reason) = ("error", text("param"), None);
    named(&ResponseError { kind, code, message, param, sequence: 0, reason })
}

fn named(error: &ResponseError<'_>) -> Vec<u8> {
    [b"event: error\ndata: ", &to_json(error)[..], b"\n\n"].concat()
}

fn plain(document: &[u8]) -> Vec<u8> {
    [b"data: ", document, b"\n\n"].concat()
}

/// OpenAI's `type` for a status.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// The code of the Responses API for a status.
fn code(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_prompt",
    }
}

#[cfg(test)]
mod tests {
    use super::response_error;

    #[test]
    fn provider_error_document_becomes_response_error_event() {
        for (document, expected) in [
            (
                r#"{"error":{"message":"slow","type":"requests","code":"rate_limit_exceeded","param":"x"}}"#,
                r#""code":"rate_limit_exceeded","message":"slow","param":"x""#,
            ),
            (
                r#"[{"error":{"message":"no","code":429,"type":"t"}}]"#,
                r#""code":"t","message":"no","param":null"#,
            ),
            (r#"{"error":"plain"}"#, r#""code":null,"message":"plain","param":null"#),
            ("7", r#""code":null,"message":"error","param":null"#),
        ] {
            let event = String::from_utf8(response_error(document.as_bytes())).expect("UTF-8");
            let whole =
                format!("event: error\ndata: {{\"type\":\"error\",{expected},\"sequence_number\":0}}\n\n");
            assert_eq!(event, whole);
        }
    }
}
