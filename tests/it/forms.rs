//! Multipart forms: the `model` part changes, every other byte of the form passes.

use serde_json::json;

use crate::support::calls::{DONE, TOKEN, assert_error, authorized, event, post};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

/// Every relayed path of forms, behind `/v1` or a provider's URL.
pub const PATHS: [&str; 4] =
    ["/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations"];
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const KIND: &str = "multipart/form-data; boundary=\"-- a'boundary\"";
const MIB: usize = 1024 * 1024;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// A form as a client writes it, with a file that looks like a form itself.
fn form(model: &str, file: &[u8], more: &str) -> Vec<u8> {
    [
        &b"---- a'boundary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\xe4\xbd\xa0 \\\"x\\\".wav\"\r\n"[..],
        b"Content-Type: audio/wav\r\n\r\n",
        file,
        b"\r\n---- a'boundary\r\ncontent-disposition:form-data;name=model\r\n\r\n",
        model.as_bytes(),
        more.as_bytes(),
        b"\r\n---- a'boundary--\r\n",
    ]
    .concat()
}

fn field(name: &str, value: &str) -> String {
    format!("\r\n---- a'boundary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}")
}

fn send(path: &str, kind: &str, form: &[u8]) -> Vec<u8> {
    post(path, &[("X-Api-Key", TOKEN), ("Content-Type", kind)], form)
}

#[test]
fn every_path_goes_to_its_twin_with_its_own_bytes() {
    let (upstream, proxy) = start(json!({}));
    let every_byte: Vec<u8> =
        (0..=255).cycle().take(5000).chain(*b"\r\n\r\nname=\"model\"\r\n\r\np1/m\r\n").collect();
    let mut client = proxy.client();
    for path in PATHS {
        upstream.respond(&format!("/v1{path}"), Script::json(200, &json!({"path": path})));
        let response = client.call(send(&format!("/v1{path}?x=1"), KIND, &form("p1/m", &every_byte, "")));
        assert_eq!(response.json(), json!({"path": path}), "{path}");
        let seen = upstream.last();
        assert_eq!(seen.target, format!("/v1{path}?x=1"));
        assert!(seen.body == form("m", &every_byte, ""), "{path}");
        assert_eq!(seen.head.get("content-type"), Some(KIND));
        assert_eq!(seen.head.content_length(), Some(seen.body.len()));
    }
}

#[test]
fn every_path_takes_its_form_as_json() {
    let (upstream, proxy) = start(json!({}));
    let body = r#"{"model":"p1/m", "prompt":"a hat", "images":[{"image_url":"data:image/png;base64,AA=="}]}"#;
    for path in PATHS {
        upstream.respond(&format!("/v1{path}"), Script::json(200, &json!({"path": path})));
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            let response = proxy.call(send(&format!("/v1{path}"), kind, body.as_bytes()));
            assert_eq!(response.json(), json!({"path": path}), "{path}");
            assert_eq!(upstream.last().text(), body.replace("p1/m", "m"));
            assert_eq!(upstream.last().head.get("content-type"), Some(kind));
        }
        let repeated = send(&format!("/v1{path}"), "application/json", br#"{"model":"p1/m","model":"p1/m"}"#);
        assert_error(&proxy.call(repeated), 400, "invalid_model");
    }
}

#[test]
fn a_streamed_transcription_is_relayed_event_by_event() {
    let (upstream, proxy) = start(json!({"stream_heartbeat": 0.2}));
    let gate = crate::support::gate::Gate::new();
    upstream.respond(TRANSCRIPTIONS, Script::sse().wait(&gate).chunk(event("hello")).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(send(TRANSCRIPTIONS, KIND, &form("p1/m", b"RIFF", &field("stream", "true"))));
    let mut response = client.streamed();
    assert_eq!(
        response.next_event().as_deref(),
        Some(crate::support::client::HEARTBEAT),
        "a stream was asked for"
    );
    gate.open();
    assert_eq!(response.next_real_event(), Some(event("hello")));
    assert_eq!(response.next_real_event().as_deref(), Some(DONE));
}

#[test]
fn another_attempt_sends_the_whole_form_again() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    for upstream in [&first, &second] {
        upstream.respond(TRANSCRIPTIONS, Script::json(503, &json!({"error": {}})));
    }
    let models = json!({"models": {"best": ["p1/m", "p2/other"]}});
    let proxy = Proxy::start(&with(config(&[("p1", &first), ("p2", &second)]), models));
    let response = proxy.call(send(TRANSCRIPTIONS, KIND, &form("best", b"RIFF", "")));
    assert_eq!(response.status, 503);
    assert!(first.last().body == form("m", b"RIFF", ""));
    assert!(second.last().body == form("other", b"RIFF", ""));
}

#[test]
fn what_is_no_good_form_is_refused() {
    let (upstream, proxy) = start(json!({}));
    let good = form("p1/m", b"RIFF", "");
    for (kind, body) in [
        ("text/plain", &br#"{"model":"p1/m"}"#[..]),
        ("multipart/form-data", &good),
        ("multipart/mixed; boundary=\"-- a'boundary\"", &good),
        ("multipart/form-data; boundary=other", &good),
        (KIND, &good[..good.len() - 10]),
        (KIND, b""),
    ] {
        let message = assert_error(&proxy.call(send(TRANSCRIPTIONS, kind, body)), 400, "bad_request");
        assert!(message.contains("multipart") || message.contains("Content-Type"), "{message}");
    }
    let twice = [("X-Api-Key", TOKEN), ("Content-Type", KIND), ("Content-Type", KIND)];
    assert_error(&proxy.call(post(TRANSCRIPTIONS, &twice, &good)), 400, "bad_request");
    assert_error(&proxy.call(post(TRANSCRIPTIONS, &twice[..1], &good)), 400, "bad_request");
    let nameless = String::from_utf8_lossy(&good).replace("name=model", "name=Model");
    assert_error(&proxy.call(send(TRANSCRIPTIONS, KIND, nameless.as_bytes())), 400, "invalid_model");
    let nameless = nameless.replace("name=Model", "name=models");
    assert_error(&proxy.call(send(TRANSCRIPTIONS, KIND, nameless.as_bytes())), 400, "missing_model");
    let long = form(&format!("p1/{}", "m".repeat(254)), b"RIFF", "");
    assert_error(&proxy.call(send(TRANSCRIPTIONS, KIND, &long)), 400, "invalid_model");
    assert_error(&proxy.call(send(TRANSCRIPTIONS, KIND, &form("", b"", ""))), 400, "invalid_model");
    assert_error(&proxy.call(send(TRANSCRIPTIONS, KIND, &form("p9/m", b"", ""))), 404, "model_not_found");
    assert_error(&proxy.call(authorized("/v1/embeddings", &good)), 400, "invalid_json");
    assert!(upstream.requests().is_empty());
}

#[test]
fn no_form_smuggles_a_model_past_a_token() {
    let tokens = json!({"tokens": [{"name": "t", "token": TOKEN, "models": ["^p1/m$"]}]});
    let (upstream, proxy) = start(tokens);
    upstream.respond(TRANSCRIPTIONS, Script::json(200, &json!({})));
    let other = field("model", "p1/secret");
    for more in
        [other.replace("\r\n--", "\n--"), other.replace("; name=\"model\"", "; name=x; name*=utf-8''model")]
    {
        let refused = proxy.call(send(TRANSCRIPTIONS, KIND, &form("p1/m", b"RIFF", &more)));
        assert_error(&refused, 400, "bad_request");
    }
    for (model, more) in [
        ("p1/m", other.clone()),
        ("p1/secret", field("model", "p1/m")),
        ("p1/m", field("Model", "secret")),
        ("p1/m", field("model", "p1/m").repeat(250)),
    ] {
        let refused = proxy.call(send(TRANSCRIPTIONS, KIND, &form(model, b"RIFF", &more)));
        assert_error(&refused, 400, "invalid_model");
    }
    assert_error(
        &proxy.call(send(TRANSCRIPTIONS, KIND, &form("p1/secret", b"RIFF", ""))),
        404,
        "model_not_found",
    );
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_large_file_is_held_once() {
    let (upstream, proxy) = start(json!({}));
    upstream.respond(TRANSCRIPTIONS, Script::json(200, &json!({"text": "hello"})));
    let file: Vec<u8> =
        (0..30 * MIB).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap_or(0)).collect();
    assert_eq!(proxy.call(send(TRANSCRIPTIONS, KIND, &form("p1/m", b"RIFF", ""))).status, 200);
    let before = proxy.resident();
    let response = proxy.call(send(TRANSCRIPTIONS, KIND, &form("p1/m", &file, "")));
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(upstream.last().body == form("m", &file, ""));
    let grown = proxy.most_resident().saturating_sub(before);
    assert!(grown < file.len() * 3 / 2, "{} MiB for a file of {} MiB", grown / MIB, file.len() / MIB);
}
