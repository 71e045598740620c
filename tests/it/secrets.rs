//! A provider that quotes our key: it reaches neither a client nor the log, on whatever path its bytes leave.

use serde_json::json;

use crate::support::calls::{KEY, ask, ask_streamed, authorized};
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::Reply;
use crate::support::upstream::Upstream;

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const HTML: &[(&str, &str)] = &[("Content-Type", "text/html")];

/// The key as providers write it.
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

/// No piece of the key is there, but for what [`ai_proxy::config::Secret`] shows of it; what stands around it is.
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
                upstream.chat(Reply::whole(status, fields, &body));
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
            upstream.chat(Reply::whole(status, &fields, "{}"));
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
    let noise = "\u{0}\u{1}pk-provider-".repeat(5000);
    let body = format!("{noise}{KEY}{noise}");
    let fields = [("Content-Type", "audio/mpeg")];
    for size in [1, 7, 8191, body.len()] {
        // Few pieces, however small they are.
        let (start, rest) = body.split_at(noise.len() + 9 - size.min(5));
        let (middle, end) = rest.split_at(size.min(rest.len()));
        let chunked = [start, middle, end].into_iter().filter(|piece| !piece.is_empty());
        let chunked = chunked.fold(Reply::chunked(200, &fields), Reply::chunk).end();
        for reply in [Reply::whole(200, &fields, &body), chunked] {
            upstream.answer("/v1/audio/speech", reply);
            let response = proxy.call(authorized("/v1/audio/speech", r#"{"model":"p1/m","input":"x"}"#));
            let expected = format!("{noise}{}{noise}", "*".repeat(KEY.len()));
            assert!(response.status == 200 && response.text() == expected, "{size}");
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
            upstream.chat(Reply::whole(status, JSON, &body));
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
        let pause = crate::support::reply::Step::Pause(std::time::Duration::from_millis(400));
        let Reply(steps) = Reply::whole(status, fields, &body);
        upstream.chat(steps.into_iter().fold(Reply::default().then(pause), Reply::then));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_hidden(&body, &response.text());
        assert!(response.text().contains("bad: pk-***wq."), "{}", response.text());
    }
}

#[test]
fn quoted_key_is_masked_in_model_lists_and_their_errors() {
    for body in [format!(r#"{{"data":[{{"id":"m-{KEY}","owned_by":"{KEY}"}}]}}"#), format!(r#""{KEY}""#)] {
        let upstream = Upstream::new(&["m"]);
        upstream.answer("/v1/models", Reply::whole(200, JSON, &body));
        let proxy = Proxy::start(&config(&[("p1", &upstream)]));
        for target in ["/health", "/v1/models", "/v1/status"] {
            let request =
                crate::support::calls::bare("GET", target, &[("X-Api-Key", crate::support::calls::TOKEN)]);
            assert_hidden(target, &proxy.call(request).text());
        }
        assert_hidden("the log", &proxy.log());
    }
}
