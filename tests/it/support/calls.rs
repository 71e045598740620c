//! Requests as bytes, and checks of error responses.

use serde_json::{Value, json};

use super::client::Response;

/// A token the tests' config allows.
pub const TOKEN: &str = "sk-client-token-0123456-zqj";
/// The key the proxy has for its providers.
pub const KEY: &str = "pk-provider-key-9876543-vwq";

/// A request without a body.
pub fn bare(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: proxy.test\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

pub fn get(target: &str) -> Vec<u8> {
    bare("GET", target, &[])
}

/// A POST with `Content-Length` and only the headers given.
pub fn post(target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len().to_string();
    let mut all = vec![("Content-Length", length.as_str())];
    all.extend_from_slice(headers);
    let mut bytes = bare("POST", target, &all);
    bytes.extend_from_slice(body.as_ref());
    bytes
}

/// A POST with the right token.
pub fn authorized(target: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    post(target, &headers, body)
}

/// A chat request with the right token and this body.
pub fn chat(body: impl AsRef<[u8]>) -> Vec<u8> {
    authorized("/v1/chat/completions", body)
}

/// A chat request for `model`, not streamed.
pub fn ask(model: &str) -> Vec<u8> {
    chat(json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string())
}

/// A chat request for `model`, streamed.
pub fn ask_streamed(model: &str) -> Vec<u8> {
    chat(json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hi"}]}).to_string())
}

/// A complete chat response that says `text`.
pub fn completion(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    })
}

/// One event of a streamed chat that says `text`.
pub fn event(text: &str) -> String {
    let data = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {data}\n\n")
}

/// The event that ends a stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// Checks everything that holds for all errors: shape, status, reason, and the header fields of the proxy's
/// own errors. Returns the message.
pub fn assert_error(response: &Response, status: u16, reason: &str) -> String {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.header("content-type").map(media_type), Some("application/json"), "{text}");
    let message = assert_error_body(&text, status, reason);
    assert!(
        response.header("x-request-id").is_some_and(|id| !id.is_empty()),
        "x-request-id goes with every response: {:?}",
        response.head.headers
    );
    // For a broken response a retry may or may not help.
    if reason != "upstream_broken" {
        assert_eq!(
            response.header("x-should-retry"),
            expected_should_retry(status, reason),
            "x-should-retry on {status} {reason}"
        );
    }
    message
}

/// Checks the shape of an HTTP error's body. Returns its message.
pub fn assert_error_body(text: &str, status: u16, reason: &str) -> String {
    assert_error_of_type(text, status, reason, "http_error")
}

/// Checks the shape of an error event's data in a chat. Returns its message.
pub fn assert_error_data(text: &str, status: u16, reason: &str) -> String {
    assert_error_of_type(text, status, reason, "server_error")
}

fn assert_error_of_type(text: &str, status: u16, reason: &str, kind: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let error = body["error"].as_object().expect("error object");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{text}");
    let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "reason", "type"], "{text}");
    assert_eq!(error["code"], status, "{text}");
    assert_eq!(error["reason"], reason, "{text}");
    assert_eq!(error["type"], kind, "{text}");
    assert_eq!(error["param"], Value::Null, "{text}");
    let message = error["message"].as_str().expect("message").to_owned();
    assert!(!message.is_empty(), "{text}");
    message
}

/// Checks that an event of a stream is `data: {"error":{…}}`.
pub fn assert_error_event(event: Option<&String>, status: u16, reason: &str) -> String {
    let event = event.expect("an error event");
    let data = event
        .strip_prefix("data: ")
        .and_then(|rest| rest.strip_suffix("\n\n"))
        .unwrap_or_else(|| panic!("not one data line: {event:?}"));
    assert_error_data(data, status, reason)
}

/// Errors that a retry cannot change say so; unreachable, late or overloaded ones never do.
fn expected_should_retry(status: u16, reason: &str) -> Option<&'static str> {
    match (status, reason) {
        (408 | 429 | 503, _) | (_, "upstream_unreachable") => None,
        _ => Some("false"),
    }
}

/// A provider's error without the words ahead of its message that say whose key or call was refused.
pub fn without_clearing_words(text: &str) -> String {
    const END: &str = " (your token is valid): ";
    match (text.find("provider "), text.find(END)) {
        (Some(start), Some(end)) if start < end => [&text[..start], &text[end + END.len()..]].concat(),
        _ => text.to_owned(),
    }
}

/// A content type without its parameters.
pub fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}
