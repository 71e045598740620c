//! Other responses than chat: sound as it arrives, pictures and vectors byte for byte.

use serde_json::json;
use std::time::Duration;

use crate::support::calls::{assert_error, authorized};
use crate::support::client::{End, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const SPEECH: &str = "/v1/audio/speech";
const MP3: [(&str, &str); 1] = [("Content-Type", "audio/mpeg")];
const MIB: usize = 1024 * 1024;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

fn speak() -> Vec<u8> {
    authorized(SPEECH, r#"{"model":"p1/m","voice":"alloy","input":"hello"}"#)
}

/// The head of a response of sound, `length` bytes announced.
fn announced(length: usize) -> Script {
    Script::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: {length}\r\n\r\n"))
}

#[test]
fn sound_arrives_before_its_end() {
    let (upstream, proxy) = start(json!({}));
    let mut client = proxy.client();
    for known in [true, false] {
        let gate = Gate::new();
        upstream.respond(
            SPEECH,
            match known {
                true => announced(10).send("first").wait(&gate).send(" last"),
                false => Script::chunked(200, &MP3).chunk("first").wait(&gate).chunk(" last").end(),
            },
        );
        client.send(speak());
        let mut response = client.streamed();
        assert_eq!((response.status, response.head.get("content-type")), (200, Some("audio/mpeg")));
        assert_eq!(response.head.get("x-ai-proxy-provider"), Some("p1"));
        assert_eq!(response.head.content_length(), known.then_some(10), "a length that is known is told");
        assert_eq!(response.next_data().as_deref(), Some(&b"first"[..]));
        gate.open();
        assert_eq!(response.next_data().as_deref(), Some(&b" last"[..]));
        assert_eq!(response.next_data(), None);
        assert_eq!(response.end(), if known { End::Length } else { End::FinalChunk });
    }
    proxy.log_line(&["status=200", "bytes=10"]);
}

#[test]
fn sound_that_breaks_off_never_ends_cleanly() {
    let (upstream, proxy) = start(json!({"stream_timeout": 1, "max_stream_size": 1000}));
    let large = vec![7; 2000];
    for (script, kept) in [
        (announced(10).send("first").then(Step::Fin), 5),
        (announced(10).send("first").then(Step::Reset), 5),
        (announced(10).send("first").then(Step::Silence), 5),
        (Script::chunked(200, &MP3).chunk("first").then(Step::Fin), 5),
        (Script::chunked(200, &MP3).chunk("first").then(Step::Silence), 5),
        (Script::chunked(200, &MP3).chunk(&large).end(), 1000),
    ] {
        upstream.respond(SPEECH, script);
        let response = proxy.call(speak());
        assert_eq!((response.status, response.end), (200, End::Cut));
        // A reset may overtake earlier bytes.
        assert!(response.body.len() == kept || response.body.is_empty(), "{}", response.text());
    }
    upstream.respond(SPEECH, announced(2000).send(&large));
    assert_error(&proxy.call(speak()), 502, "response_too_large");
    upstream.respond(SPEECH, announced(10).then(Step::Fin));
    assert_error(&proxy.call(speak()), 502, "upstream_broken");
}

#[test]
fn another_provider_speaks_where_the_first_fell_silent_before_a_byte() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    first.respond(SPEECH, announced(10).then(Step::Fin));
    second.respond(SPEECH, Script::whole(200, &MP3, "hello"));
    let models = json!({"models": {"voice": ["p1/m", "p2/m"]}});
    let proxy = Proxy::start(&with(config(&[("p1", &first), ("p2", &second)]), models));
    let response = proxy.call(authorized(SPEECH, r#"{"model":"voice"}"#));
    assert_eq!((response.text().as_str(), response.header("x-ai-proxy-provider")), ("hello", Some("p2")));
    assert_eq!(first.requests().len(), 1);
}

#[test]
fn long_sound_outlives_the_limit_for_buffered_responses() {
    let (upstream, proxy) = start(json!({"non_stream_timeout": 0.5, "stream_timeout": 10}));
    let drips =
        (0..8).fold(announced(8), |script, _| script.send("x").then(Step::Pause(Duration::from_millis(150))));
    upstream.respond(SPEECH, drips);
    let response = proxy.call(speak());
    assert_eq!((response.text().as_str(), response.end), ("xxxxxxxx", End::Length));
    // Up to its head it is a response like any other.
    upstream.respond(SPEECH, Script::default().then(Step::Silence));
    let (took, response) = timed(|| proxy.call(speak()));
    assert_error(&response, 504, "upstream_timeout");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_old_client_gets_the_length_too() {
    let (upstream, proxy) = start(json!({}));
    upstream.respond(SPEECH, Script::whole(200, &MP3, "hello"));
    let old = String::from_utf8(speak()).expect("text").replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n");
    let response = proxy.call(old);
    assert_eq!((response.text().as_str(), response.end), ("hello", End::Length));
}

#[test]
fn sound_is_not_collected() {
    let (upstream, proxy) = start(json!({"max_stream_size": 100 * MIB}));
    upstream.respond(SPEECH, Script::whole(200, &MP3, b"hello"));
    assert_eq!(proxy.call(speak()).status, 200);
    let before = proxy.resident();
    let sound: Vec<u8> =
        (0..40 * MIB).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap_or(0)).collect();
    upstream.respond(SPEECH, Script::whole(200, &MP3, &sound));
    let response = proxy.call(speak());
    assert!(response.end == End::Length && response.body == sound);
    let grown = proxy.most_resident().saturating_sub(before);
    assert!(grown < 4 * MIB, "{} KiB for {} MiB of sound", grown / 1024, sound.len() / MIB);
}

#[test]
fn documents_pass_to_the_byte_however_large() {
    let (upstream, proxy) = start(json!({}));
    let picture: String = (0..9 * MIB).map(|at| char::from(b"AZaz09+/"[(at * 7 + at / 97) % 8])).collect();
    let floats: Vec<String> = (0..200_000).map(|at| format!("{}.{:07}e-0{}", at % 3, at, at % 9)).collect();
    for (path, document) in [
        ("/images/generations", format!("{{\"created\":1,\"data\":[{{\"b64_json\":\"{picture}\"}}]}}")),
        ("/embeddings", format!("{{ \"data\" :\n[{{\"embedding\":[{}]}}] }}\r\n", floats.join(", "))),
        ("/embeddings", format!("{{\"data\":[{{\"embedding\":\"{}\"}}]}}", &picture[..100_000])),
        (
            "/rerank",
            r#"{"results":[{"index":1,"relevance_score":0.10000000000000000001}],"x":"\u4f60\/"}"#.to_owned(),
        ),
        ("/moderations", r#"{"results":[{"category_scores":{"hate":1.2e-05,"hate":1E-5}}]}"#.to_owned()),
    ] {
        upstream.respond(
            &format!("/v1{path}"),
            Script::whole(200, &[("Content-Type", "application/json")], &document),
        );
        let sent = r#"{"model":"p1/m","encoding_format":"base64","input":["\u4f60", 1.0]}"#;
        let response = proxy.call(authorized(&format!("/v1{path}"), sent));
        assert_eq!((response.status, response.end), (200, End::Length), "{path}");
        assert!(response.body == document.as_bytes(), "{path}");
        assert_eq!(upstream.last().text(), sent.replace("p1/m", "m"));
    }
}
