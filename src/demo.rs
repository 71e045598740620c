//! The built-in provider of `ai-proxy demo`: a small OpenAI-compatible server on our own front, so that the whole way
//! of a request is the real one.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{Config, load};
use crate::front::{
    Admission, Bound, Done, Fields, Handled, Head, Lane, Limits, Listen, Notice, Peer, Rejection, Request,
    Responder, Response, Running, Service, Settings,
};
use std::time::{Duration, Instant};

/// The token of the demo.
pub const TOKEN: &str = "sk-demo";
/// The port it listens on unless `--port` names another.
pub const DEFAULT_PORT: u16 = 8001;
/// The key between the proxy and its demo provider.
const KEY: &str = "sk-demo-provider-key";

/// Starts the provider on a free loopback port.
///
/// # Errors
/// No port or thread is to be had.
pub fn start_provider() -> io::Result<(Running, String)> {
    let bound = Bound::new(&Listen::Tcp("127.0.0.1".to_owned(), 0))?;
    let url = bound.names().into_iter().next().unwrap_or_default();
    let running = bound.serve(
        Arc::new(Provider),
        Settings { workers: 1, max_connections: 100, max_clients: 1000 },
        Arc::default(),
    )?;
    Ok((running, format!("{url}/v1")))
}

/// The configuration of the demo: that provider, one token, no file.
pub fn config(provider_url: &str, port: u16) -> Result<Config, load::Problems> {
    let document = json!({
        "host": "127.0.0.1",
        "port": port,
        "language": "en",
        "log_level": "INFO",
        "log_file": null,
        "providers": [format!("demo|{provider_url}|{KEY}")],
        "tokens": [format!("demo|{TOKEN}")],
    });
    load::from_text(&document.to_string(), &|_| None)
}

/// What to type to see it work.
pub fn greeting(url: &str) -> String {
    format!(
        "Try it:\n\n  curl {url}/v1/chat/completions -H 'Authorization: Bearer {TOKEN}' -H 'Content-Type: application/json' \
         -d '{{\"model\":\"demo/echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\n\
         With \"stream\":true the response comes word by word (add -N to curl). Ctrl-C ends the demo.\n"
    )
}

struct Provider;

impl Service for Provider {
    type RequestContext = ();

    fn limits(&self) -> Limits {
        Limits {
            max_body: 32 * 1024 * 1024,
            client_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            queue_timeout: Duration::from_secs(5),
        }
    }

    fn admit(&self, head: &mut Head, _: Peer) -> Admission<()> {
        let authorized = head.field("authorization") == Some(format!("Bearer {KEY}").as_bytes());
        match (authorized, head.method(), head.path()) {
            (false, _, _) => Admission::Respond(error(401, "wrong key")),
            (true, "GET", "/v1/models") => Admission::Respond(document(200, &models())),
            (true, "POST", "/v1/chat/completions") => Admission::Run(Lane::Worker, ()),
            _ => Admission::Respond(error(404, "the demo serves chat completions and its model list")),
        }
    }

    fn is_quick(&self, _: &Request<()>) -> bool {
        false
    }

    fn handle(&self, request: Box<Request<()>>, responder: Responder) -> Handled {
        let Ok(call) = serde_json::from_slice::<Value>(&request.body) else {
            return responder.send(error(400, "the body is not JSON")).into();
        };
        if call["model"] != "echo" {
            return responder.send(error(404, "the demo has one model: echo")).into();
        }
        let said = last_words(&call);
        if call["stream"] == true {
            let include_usage = call["stream_options"]["include_usage"] == true;
            return stream(&said, include_usage, responder).into();
        }
        responder.send(document(200, &completion(&said))).into()
    }

    fn reject(&self, rejection: Rejection, _: Option<&Head>) -> Response {
        error(if rejection == Rejection::Overloaded { 503 } else { 400 }, "refused")
    }

    fn notice(&self, notice: Notice) {
        log::warn!("demo provider: {notice:?}");
    }
}

fn document(status: u16, document: &Value) -> Response {
    let mut fields = Fields::default();
    fields.push("content-type", "application/json");
    Response { status, fields, body: document.to_string().into_bytes().into() }
}

fn error(status: u16, message: &str) -> Response {
    document(
        status,
        &json!({ "error": { "message": message, "type": "demo_error", "param": null, "code": status } }),
    )
}

fn models() -> Value {
    json!({ "object": "list", "data": [{ "id": "echo", "object": "model", "created": CREATED, "owned_by": "ai-proxy" }] })
}

/// When the demo's model came into being, Unix time; a fixed one keeps its responses the same.
const CREATED: i64 = 1_763_683_200;

/// What the last message of the user says; parts of text are joined.
fn last_words(call: &Value) -> String {
    let messages = call["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    match messages.last().map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn usage(said: &str) -> Value {
    let words = said.split_whitespace().count();
    json!({ "prompt_tokens": words, "completion_tokens": words, "total_tokens": words * 2 })
}

fn completion(said: &str) -> Value {
    json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": CREATED,
        "model": "echo",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": said },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(said),
    })
}

fn chunk(delta: &Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "echo",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    })
}

/// One event a word, with a breath between them so that a person can see them come.
fn stream(said: &str, include_usage: bool, mut responder: Responder) -> Done {
    let mut fields = Fields::default();
    fields.push("content-type", "text/event-stream");
    responder.begin(200, &fields, None);
    let mut events = vec![chunk(&json!({ "role": "assistant", "content": "" }), None)];
    events.extend(said.split_inclusive(' ').map(|word| chunk(&json!({ "content": word }), None)));
    events.push(chunk(&json!({}), Some("stop")));
    if include_usage {
        let mut last = chunk(&json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage(said);
        events.push(last);
    }
    for event in events {
        responder.push(format!("data: {event}\n\n").as_bytes());
        if responder.flush(Instant::now()).is_err() {
            return responder.abort();
        }
        std::thread::sleep(BREATH);
    }
    responder.push(b"data: [DONE]\n\n");
    responder.finish()
}

/// Between two words.
const BREATH: Duration = Duration::from_millis(30);
