//! A provider that quotes our key: the key reaches neither a client nor the log, on any path of its bytes.

use std::time::Duration;

use serde_json::json;

use crate::support::calls::{DONE, KEY, ask, ask_streamed, authorized};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const HTML: &[(&str, &str)] = &[("Content-Type", "text/html")];

/// Spellings of the key that providers use.
fn writings() -> [String; 6] {
    [
        KEY.to_owned(),
        KEY.replace('-', "\\u002d"),
        KEY.replace('-', "\\\\u002D"),
        KEY.replace('-', "%2d"),
        KEY.replace('-', "&#45;"),
        KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
    ]
}

/// No part of the key is in `text`, except what [`ai_proxy::config::Secret`] shows; the text around it is.
fn assert_hidden(what: &str, text: &str) {
    for written in writings() {
        assert!(!text.contains(&written), "{what}: {written} in {text}");
    }
    assert!(!text.contains(&KEY[3..12]) && !text.contains("9876543"), "{what}: {text}");
}

#[test]
fn quoted_key_is_masked_in_every_body_of_every_status_and_size() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_retries": 0})));
    let filler = "x ".repeat(9_000);
    for written in writings() {
        for status in [200, 401, 500] {
            for (fields, body) in [
                (JSON, format!(r#"{{"error":{{"message":"bad: {written}."}}}}"#)),
                (JSON, format!(r#"{{"error":{{"message":"{filler}bad: {written}."}}}}"#)),
                (JSON, format!(r#"{{"choices":[{{"message":{{"content":"bad: {written}."}}}}]}}"#)),
                (JSON, format!(r#"{{"choices":["{filler}{filler}","bad: {written}."]}}"#)),
                (HTML, format!("<p>bad: {written}.</p>")),
                (HTML, format!("<p>{filler}</p>bad: {written}.")),
                (&[("Content-Type", "text/plain")], format!("bad: {written}.")),
            ] {
                upstream.chat(Script::whole(status, fields, &body));
                let response = proxy.call(ask("p1/m"));
                assert_eq!(response.status, status);
                let text = response.text();
                assert_hidden(&body[..body.len().min(100)], &text);
                // A wrapped text is cut where it is long.
                let is_cut = status >= 400 && text.contains("upstream_error");
                assert!(text.contains("bad: pk-***wq.") || is_cut, "{status} {text}");
            }
        }
    }
    assert_hidden("the log", &proxy.log());
}

#[test]
fn quoted_key_in_a_field_drops_the_field_and_is_no_id() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    for written in writings() {
        for status in [200, 400, 503] {
            let names = ["X-Request-Id", "Request-Id", "X-Debug", "Server", "Link", "Location"];
            let value = format!("x/{written}");
            let fields: Vec<(&str, &str)> =
                names.iter().map(|name| (*name, &*value)).chain(JSON.to_owned()).collect();
            upstream.chat(Script::whole(status, &fields, "{}"));
            let response = proxy.call(ask("p1/m"));
            assert_eq!(response.status, status);
            assert_hidden("fields", &String::from_utf8_lossy(&response.head.raw));
            assert!(response.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
        }
    }
    assert_hidden("the log", &proxy.log());
}

#[test]
fn quoted_key_is_masked_in_sound_and_pictures_without_a_change_of_length() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let noise = "\u{0}\u{1}pk-provider-\\u002d%".repeat(5000);
    let fields = [("Content-Type", "audio/mpeg")];
    for written in writings() {
        let body = format!("{noise}{written}{noise}");
        for size in [1, 7, 8191, body.len()] {
            // Only a few pieces, at any size of a piece.
            let (start, rest) = body.split_at(noise.len() + 9 - size.min(5));
            let (middle, end) = rest.split_at(size.min(rest.len()));
            let chunked = [start, middle, end].into_iter().filter(|piece| !piece.is_empty());
            let chunked = chunked.fold(Script::chunked(200, &fields), Script::chunk).end();
            for script in [Script::whole(200, &fields, &body), chunked] {
                upstream.respond("/v1/audio/speech", script);
                let response = proxy.call(authorized("/v1/audio/speech", r#"{"model":"p1/m","input":"x"}"#));
                let expected = format!("{noise}{}{noise}", "*".repeat(written.len()));
                assert!(response.status == 200 && response.text() == expected, "{size} {written}");
            }
        }
    }
}

#[test]
fn quoted_key_is_masked_in_translations() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let call = || {
        authorized(
            "/v1/messages",
            r#"{"model":"p1/m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
        )
    };
    for written in writings() {
        for (status, body) in [
            (
                200,
                format!(
                    r#"{{"choices":[{{"message":{{"role":"assistant","content":"bad: {written}."}},"finish_reason":"stop"}}]}}"#
                ),
            ),
            (401, format!(r#"{{"error":{{"message":"bad: {written}."}}}}"#)),
            (502, format!("<p>bad: {written}.</p>")),
        ] {
            upstream.chat(Script::whole(status, JSON, &body));
            let response = proxy.call(call());
            assert_eq!(response.status, status, "{}", response.text());
            assert_hidden(&body, &response.text());
            assert!(response.text().contains("bad: pk-***wq."), "{}", response.text());
        }
    }
}

#[test]
fn quoted_key_is_masked_after_a_heartbeat() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"stream_heartbeat": 0.1})));
    for (status, fields, body) in [
        (200, JSON, format!(r#"{{"choices":["bad: {KEY}."]}}"#)),
        (401, JSON, format!(r#"{{"error":{{"message":"bad: {KEY}."}}}}"#)),
        (500, HTML, format!("<p>bad: {KEY}.</p>")),
    ] {
        let pause = Step::Pause(Duration::from_millis(400));
        let Script(steps) = Script::whole(status, fields, &body);
        upstream.chat(steps.into_iter().fold(Script::default().then(pause), Script::then));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_hidden(&body, &response.text());
        assert!(response.text().contains("bad: pk-***wq."), "{}", response.text());
    }
}

#[test]
fn quoted_key_is_masked_in_model_lists_and_their_errors() {
    for body in [format!(r#"{{"data":[{{"id":"m-{KEY}","owned_by":"{KEY}"}}]}}"#), format!(r#""{KEY}""#)] {
        let upstream = Upstream::new(&["m"]);
        upstream.respond("/v1/models", Script::whole(200, JSON, &body));
        let proxy = Proxy::start(&config(&[("p1", &upstream)]));
        for target in ["/health", "/v1/models", "/v1/status"] {
            let request =
                crate::support::calls::bare("GET", target, &[("X-Api-Key", crate::support::calls::TOKEN)]);
            assert_hidden(target, &proxy.call(request).text());
        }
        assert_hidden("the log", &proxy.log());
    }
}

/// A stream in pieces of chunks that ends by its closing chunk, with the key in a trailer and in a chunk's extension.
fn streamed_as_events(pieces: &[&str]) -> Script {
    let fields = [("Content-Type", "text/event-stream"), ("Trailer", "x-debug")];
    let start = Script::chunked(200, &fields);
    let body = pieces.iter().filter(|piece| !piece.is_empty()).fold(start, Script::chunk);
    body.send(format!("0;x={KEY}\r\nX-Debug: {KEY}\r\n\r\n"))
}

#[test]
fn quoted_key_is_masked_in_every_event_that_is_no_ordinary_content() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_retries": 0})));
    let large = "x".repeat(100_000);
    for written in writings() {
        for event in [
            // Errors: small, large with the key before and after the word, and beside content.
            format!(r#"data: {{"error":{{"message":"bad: {written}."}}}}"#),
            format!(r#"data: {{"detail":"bad: {written}.","x":"{large}","error":{{"code":1}}}}"#),
            format!(r#"data: {{"error":{{"code":1}},"x":"{large}","detail":"bad: {written}."}}"#),
            format!("event: error\ndata: bad: {written}."),
            format!(r#"data: {{"choices":[{{"delta":{{"content":"no error: bad: {written}."}}}}]}}"#),
            // Large events, with the key at any place.
            format!(r#"data: {{"x":"bad: {written}.{}"}}"#, "x".repeat(66_000)),
            format!(r#"data: {{"x":"bad: {written}.{large}"}}"#),
            format!(r#"data: {{"x":"{large}bad: {written}.{large}"}}"#),
            format!(r#"data: {{"x":"{large}bad: {written}."}}"#),
            // Lines beside the data.
            format!(": bad: {written}."),
            format!("event: bad: {written}.\ndata: {{}}"),
            format!("id: bad: {written}.\ndata: {{}}"),
            format!("data: {{}}\nretry: bad: {written}."),
        ] {
            for lead in ["", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"] {
                upstream.chat(streamed_as_events(&[lead, &event, "\n\n", DONE]));
                let text = proxy.call(ask_streamed("p1/m")).text();
                let what = &event[..event.len().min(60)];
                assert_hidden(what, &text);
                assert!(text.contains("bad: pk-***wq."), "{what}: {}", &text[..text.len().min(300)]);
            }
        }
    }
    assert_hidden("the log", &proxy.log());
}

#[test]
fn quoted_key_in_a_large_event_is_masked_wherever_it_is_cut() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let start = format!("data: {{\"x\":\"{}bad: ", "x".repeat(100_000));
    let pause = || Step::Pause(Duration::from_millis(3));
    for written in [KEY.to_owned(), KEY.replace('-', "\\u002d")] {
        for cut in (1..written.len()).step_by(3) {
            let (before, behind) = written.split_at(cut);
            let script = Script::sse().chunk(&start).then(pause()).chunk(before).then(pause());
            upstream.chat(script.chunk([behind, ".\"}\n\n", DONE].concat()).end());
            let text = proxy.call(ask_streamed("p1/m")).text();
            assert_hidden("a large event", &text);
            assert!(text.ends_with("bad: pk-***wq.\"}\n\ndata: [DONE]\n\n"), "{cut}");
        }
    }
}

/// The error for an unreadable list may quote a word of it, and a short key is one.
#[test]
fn short_key_is_masked_in_what_is_wrong_with_a_model_list() {
    let upstream = Upstream::new(&["m"]);
    upstream.respond("/v1/models", Script::whole(200, JSON, r#""lm-secret-1""#));
    let provider = json!({"name": "p1", "url": upstream.url(), "key": "lm-secret-1"});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"providers": [provider]})));
    proxy.get("/v1/models");
    let line = proxy.log_line(&["p1", "***"]);
    assert!(line.contains("WARNING") && !line.contains("lm-secret-1"), "{line}");
}

#[test]
fn quoted_key_is_masked_where_a_stream_breaks_off() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    for written in writings() {
        for last in [
            format!(": bad: {written}."),
            format!("data: bad: {written}."),
            format!("event: error\ndata: bad: {written}."),
            format!("{{\"error\":\"bad: {written}.\"}}"),
        ] {
            let content = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
            upstream.chat(streamed_as_events(&[content, &last]));
            let text = proxy.call(ask_streamed("p1/m")).text();
            assert_hidden(&last, &text);
            assert!(text.contains("bad: pk-***wq."), "{last}: {text}");
        }
    }
}

/// A document from unrequested events: the key may be split over several of them.
#[test]
fn quoted_key_is_masked_in_an_assembled_document() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_retries": 0})));
    for written in writings() {
        let delta = |text: &str| {
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
        };
        let (before, behind) = written.split_at(if written.starts_with("pk") { 2 } else { 12 });
        for events in [
            delta(&format!("bad: {written}.")),
            delta(&format!("bad: {before}")) + &delta(&format!("{behind}.")),
            format!("data: {{\"error\":\"bad: {written}.\"}}\n\n"),
        ] {
            upstream.chat(streamed_as_events(&[&events, DONE]));
            let text = proxy.call(ask("p1/m")).text();
            assert_hidden(&events, &text);
            assert!(text.contains("bad: pk-***wq."), "{events}: {text}");
        }
    }
}

#[test]
fn quoted_key_in_a_status_line_an_interim_response_and_a_name_goes_nowhere() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_retries": 0})));
    for status in [200, 401, 500] {
        let interim = format!("HTTP/1.1 103 {KEY}\r\nLink: {KEY}\r\n\r\n");
        let fields = format!("{KEY}: x\r\nX-Good: y\r\nContent-Length: 2\r\n");
        upstream.chat(Script::raw(format!("{interim}HTTP/1.1 {status} {KEY}\r\n{fields}\r\n{{}}")));
        let response = proxy.call(ask("p1/m"));
        assert_eq!((response.status, response.header("x-good")), (status, Some("y")));
        assert_hidden("the head", &String::from_utf8_lossy(&response.head.raw));
    }
    for broken in [format!("HTTP/1.1 {KEY}\r\n\r\n"), format!("{KEY}\r\n\r\n")] {
        upstream.chat(Script::raw(broken));
        assert_hidden("no head", &proxy.call(ask("p1/m")).text());
    }
    assert_hidden("the log", &proxy.log());
}

#[test]
fn quoted_key_is_masked_on_every_relayed_path() {
    let upstream = Upstream::new(&["m"]);
    let provider = json!({"name": "p1", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY});
    let changes = json!({"providers": [provider], "max_retries": 0});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    let error = |written: &str| format!(r#"{{"error":{{"message":"bad: {written}."}}}}"#);
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let large = "x".repeat(100_000);
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/audio/transcriptions",
        "/v1/rerank",
        "/v1/messages",
        "/v1/messages/count_tokens",
    ] {
        for written in &writings()[..2] {
            let error = error(written);
            for (streamed, script) in [
                (false, Script::whole(200, JSON, format!(r#"{{"text":"bad: {written}."}}"#))),
                (false, Script::whole(400, JSON, &error)),
                (true, Script::whole(200, JSON, &error)),
                (true, streamed_as_events(&[content, "data: ", &error, "\n\n"])),
                (true, streamed_as_events(&[content, ": bad: ", written, ".\n\n", DONE])),
                (true, streamed_as_events(&["data: {\"x\":\"bad: ", written, ".", &large, "\"}\n\n", DONE])),
            ] {
                upstream.respond(path, script);
                let body = json!({"model": "p1/m", "stream": streamed, "max_tokens": 9, "messages": []});
                let text = proxy.call(authorized(path, body.to_string())).text();
                assert_hidden(path, &text);
                assert!(text.contains("bad: pk-***wq."), "{path}: {}", &text[..text.len().min(300)]);
            }
        }
    }
    for written in writings() {
        upstream.respond("/v1/responses/resp_1", Script::whole(200, JSON, error(&written)));
        let token = [("X-Api-Key", crate::support::calls::TOKEN)];
        let response = proxy.call(crate::support::calls::bare("GET", "/v1/responses/resp_1", &token));
        assert_hidden("a stored response", &response.text());
        assert!(response.text().contains("bad: pk-***wq."), "{}", response.text());
    }
    assert_hidden("the log", &proxy.log());
}
