//! Anthropic's format: relayed unchanged to a provider that supports it, translated for others, with the
//! proxy's own errors in Anthropic's shape.

use serde_json::{Value, json};

use crate::support::calls::{DONE, KEY, authorized};
use crate::support::client::{End, HEARTBEAT, Response};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

mod native;
mod translated;
mod translated_errors;

const MESSAGES: &str = "/v1/messages";

/// An upstream that supports both formats at one URL as the provider `both`, and only OpenAI's as `plain`.
fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let both = json!({"name": "both", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY});
    let plain = json!({"name": "plain", "url": upstream.url(), "key": KEY});
    let changes = with(json!({"providers": [both, plain], "max_retries": 0}), changes);
    let proxy = Proxy::start(&with(config(&[]), changes));
    (upstream, proxy)
}

fn message(text: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 3, "output_tokens": 5}
    })
}

fn say(model: &str, stream: bool) -> Vec<u8> {
    let hi = json!([{"role": "user", "content": "hi"}]);
    authorized(
        MESSAGES,
        json!({"model": model, "max_tokens": 9, "stream": stream, "messages": hi}).to_string(),
    )
}

/// Checks that an error of the proxy has Anthropic's shape.
fn assert_error(response: &Response, status: u16, kind: &str, reason: &str) {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let id = response.header("request-id").expect("request-id");
    assert_eq!(response.header("x-request-id"), Some(id));
    assert_error_body(&text, kind, reason, id);
}

fn assert_error_body(text: &str, kind: &str, reason: &str, id: &str) {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let said = body["error"]["message"].as_str().expect("a message");
    let error = json!({"type": kind, "message": said, "reason": reason});
    assert_eq!(body, json!({"type": "error", "error": error, "request_id": id}));
    assert!(!said.is_empty());
}

/// That script, after the gate opens.
fn after(gate: &Gate, Script(steps): Script) -> Script {
    steps.into_iter().fold(Script::default().wait(gate), Script::then)
}

/// The stream that a client gets when `script` begins after a heartbeat, and how it ends.
fn behind_a_heartbeat(model: &str, path: &str, script: Script) -> (String, End) {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = Gate::new();
    upstream.respond(path, after(&gate, script));
    let mut client = proxy.client();
    client.send(say(model, true));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT));
    gate.open();
    let rest = stream.events().concat().replace(HEARTBEAT, "");
    (rest, stream.end())
}

fn chat_event(delta: &Value) -> String {
    let chunk = json!({"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

fn chat_end() -> String {
    let finish = json!({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    format!("data: {finish}\n\ndata: {usage}\n\n{DONE}")
}

/// The `type` of each event except `ping`, and the data of the last.
fn kinds(text: &str) -> (Vec<String>, Value) {
    let events: Vec<Value> = text
        .split("\n\n")
        .filter(|event| !event.is_empty() && !event.contains("\"ping\""))
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect();
    let kind = |event: &Value| event["type"].as_str().expect("a type").to_owned();
    (events.iter().map(kind).collect(), events.last().cloned().expect("an event"))
}
