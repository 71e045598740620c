//! A provider that supports only OpenAI's format: its errors, and what cannot be translated for it.

use serde_json::{Value, json};

use super::{MESSAGES, assert_error, chat_end, chat_event, kinds, message, say, start};
use crate::support::calls::{DONE, KEY, authorized, completion};
use crate::support::client::End;
use crate::support::proxy::{Proxy, behind_a_dead_native, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

#[test]
fn untranslatable_response_costs_one_attempt_and_no_cooldown() {
    let upstream = Upstream::new(&["m"]);
    let entry = |name: &str| json!({"name": name, "url": upstream.url(), "key": KEY});
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({"providers": [entry("one"), entry("two")], "models": {"best": ["one/m", "two/m"]}, "max_retries": 2}),
    ));
    let call = |name: &str| json!([{"id": "c", "function": {"name": name, "arguments": "[1]"}}]);
    let whole =
        |said: Value| Script::json(200, &json!({"choices": [{"message": said, "finish_reason": "stop"}]}));
    // More failures than put a replica in cooldown.
    for script in [
        whole(json!({"content": 5})),
        whole(json!({"tool_calls": call("f")})),
        whole(json!({"tool_calls": [{"id": "c"}]})),
        Script::json(200, &json!({"hello": "world"})),
        Script::sse().chunk(chat_event(&json!({"content": 5}))).chunk(chat_end()).end(),
    ] {
        let asked = upstream.requests().len();
        upstream.chat(script);
        assert_error(&proxy.call(say("best", false)), 502, "api_error", "upstream_broken");
        assert_eq!(upstream.requests().len(), asked + 1);
        proxy.log_line(&["attempt=1", "provider=one", "cooldown=-", "Untranslatable"]);
    }
    // A document that is no JSON counts as no response.
    upstream.chat(Script::whole(200, &[("Content-Type", "text/html")], "<h1>log in</h1>"));
    let asked = upstream.requests().len();
    assert_error(&proxy.call(say("best", false)), 502, "api_error", "upstream_broken");
    assert_eq!(upstream.requests().len(), asked + 2);
}

#[test]
fn error_after_a_role_alone_goes_to_another_target() {
    let (one, two) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({
            "providers": [
                {"name": "one", "url": one.url(), "key": KEY}, {"name": "two", "url": two.url(), "key": KEY}
            ],
            "models": {"best": ["one/m", "two/m"]}
        }),
    ));
    let role = chat_event(&json!({"role": "assistant", "content": ""}));
    let error = format!("data: {}\n\n", json!({"error": {"message": "busy", "code": 503}}));
    for script in [
        Script::sse().chunk(&role).chunk(&error).end(),
        Script::sse().chunk(&role).then(Step::Fin),
        Script::sse().end(),
        Script::sse().chunk(DONE).end(),
    ] {
        one.chat(script);
        two.chat(
            Script::sse().chunk(&role).chunk(chat_event(&json!({"content": "two"}))).chunk(chat_end()).end(),
        );
        let response = proxy.call(say("best", true));
        let text = response.text();
        assert!(text.contains("\"text\":\"two\"") && text.matches("message_start").count() == 2, "{text}");
        assert_eq!(response.header("x-ai-proxy-provider"), Some("two"));
        assert_eq!(response.end, End::FinalChunk);
    }
}

#[test]
fn translated_response_over_max_response_size_is_said_to_be() {
    let (upstream, proxy) = start(json!({"max_response_size": 6_000}));
    let call = json!({"function": {"name": "f"}});
    let said = json!({"tool_calls": vec![call; 120]});
    let completion = json!({"choices": [{"message": said, "finish_reason": "tool_calls"}]});
    assert!(completion.to_string().len() < 6_000);
    upstream.chat(Script::json(200, &completion));
    for stream in [false, true] {
        assert_error(&proxy.call(say("plain/m", stream)), 502, "api_error", "response_too_large");
    }
}

#[test]
fn an_openai_error_becomes_anthropics() {
    let (upstream, proxy) = start(json!({}));
    let error = |code: Value| json!({"error": {"message": format!("no: {KEY}"), "type": "t", "code": code}});
    let limit = [("Content-Type", "application/json"), ("Retry-After", "7")];
    upstream.chat(Script::whole(429, &limit, error(json!("rate_limit_exceeded")).to_string()));
    let response = proxy.call(say("plain/m", false));
    assert_error(&response, 429, "rate_limit_error", "rate_limit_exceeded");
    assert!(!response.text().contains(KEY), "the key is masked");
    assert_eq!(response.header("retry-after"), Some("7"));
    // OpenRouter sends errors with status 200.
    upstream.chat(Script::json(200, &error(json!(402))));
    let response = proxy.call(say("plain/m", false));
    assert_eq!((response.status, response.json()["error"]["type"].clone()), (402, json!("billing_error")));
    upstream.chat(Script::whole(502, &[("Content-Type", "text/html")], "<h1>bad</h1>"));
    assert_error(&proxy.call(say("plain/m", true)), 502, "api_error", "upstream_error");
    upstream.chat(Script::json(200, &json!({"hello": "world"})));
    assert_error(&proxy.call(say("plain/m", false)), 502, "api_error", "upstream_broken");
}

#[test]
fn a_refused_key_becomes_anthropics_error_that_clears_the_token() {
    let (upstream, proxy) = start(json!({}));
    let error = json!({"error": {"message": "Incorrect API key", "type": "t", "code": "invalid_api_key"}})
        .to_string();
    for (kind, body) in [("application/json", error.as_str()), ("text/plain", "Incorrect API key")] {
        upstream.chat(Script::whole(401, &[("Content-Type", kind)], body));
        for stream in [false, true] {
            let response = proxy.call(say("plain/m", stream));
            let message = response.json()["error"]["message"].clone();
            let words = "provider plain refused the key that ai-proxy has for it (your token is valid): Incorrect API key";
            assert_eq!((response.status, message.as_str()), (401, Some(words)), "{kind}");
        }
    }
}

#[test]
fn what_cannot_be_translated_is_refused_by_name_or_left_to_a_provider_that_speaks_it() {
    let virtual_model = json!({"best": ["plain/m", "both/m"]});
    let (upstream, proxy) = start(json!({"models": virtual_model}));
    upstream.respond(MESSAGES, Script::json(200, &message("native")));
    upstream.chat(Script::json(200, &completion("translated")));
    let call = |model: &str, more: &str| {
        let hi = r#"[{"role":"user","content":"hi"}]"#;
        let body = format!(r#"{{"model":"{model}","max_tokens":9,"messages":{hi}{more}}}"#);
        proxy.call(authorized(MESSAGES, body))
    };
    let refused = call("plain/m", r#","top_k":5"#);
    assert_error(&refused, 400, "invalid_request_error", "unsupported_parameter");
    assert!(refused.json()["error"]["message"].as_str().expect("text").contains("top_k"));
    let invalid = call("plain/m", r#","temperature":"hot""#);
    assert_error(&invalid, 400, "invalid_request_error", "invalid_parameter");
    assert_eq!(upstream.requests().len(), 0, "nothing of it was sent");
    assert_eq!(call("best", "").json()["content"][0]["text"], "translated");
    assert_eq!(call("best", r#","top_k":5"#).json()["content"][0]["text"], "native");
    // The other way round: one provider lacks what the other has, each in its own format.
    upstream.chat(Script::json(503, &json!({"error": {"message": "busy"}})));
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({
            "providers": [
                {"name": "plain", "url": upstream.url(), "key": KEY},
                {"name": "both", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY}
            ],
            "models": {"best": ["plain/m", "both/m"]}
        }),
    ));
    assert_eq!(proxy.call(say("best", false)).json()["content"][0]["text"], "native");
}

#[test]
fn translation_refused_with_native_targets_down_is_the_400_that_names_the_field() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("translated")));
    let proxy = Proxy::start(&behind_a_dead_native(&upstream));
    assert_eq!(proxy.call(say("best", false)).json()["content"][0]["text"], "translated");
    let asked = upstream.requests().len();
    let hi = json!([{"role": "user", "content": "hi"}]);
    for stream in [false, true] {
        let body = json!({"model": "best", "max_tokens": 9, "stream": stream, "top_k": 5, "messages": hi})
            .to_string();
        let refused = proxy.call(authorized(MESSAGES, body));
        assert_error(&refused, 400, "invalid_request_error", "unsupported_parameter");
        assert!(refused.text().contains("top_k"), "{}", refused.text());
    }
    assert_eq!(upstream.requests().len(), asked, "nothing of it was sent");
}

#[test]
fn failing_native_target_leaves_the_400_that_names_the_field_unless_it_asks_to_wait() {
    let (native, plain) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let first = json!({"name": "native", "url": native.url(), "anthropic_url": native.url(), "key": KEY, "responses": "native"});
    let second = json!({"name": "plain", "url": plain.url(), "key": KEY, "responses": "chat"});
    let models = json!({"best": ["native/m", "plain/m"]});
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "theirs"}});
    let hi = json!([{"role": "user", "content": "hi"}]);
    for (status, headers, expected) in [
        (500, None, 400),
        (503, None, 400),
        (529, None, 400),
        (401, None, 400),
        (429, None, 429),
        (503, Some(("Retry-After", "30")), 503),
        (422, None, 422),
    ] {
        // New each time: a failure puts the replica in cooldown.
        let changes = json!({"providers": [first, second], "models": models});
        let proxy = Proxy::start(&with(config(&[]), changes));
        for (path, body) in [
            (MESSAGES, json!({"model": "best", "max_tokens": 9, "top_k": 5, "messages": hi})),
            ("/v1/responses", json!({"model": "best", "input": "hi", "top_logprobs": 5})),
        ] {
            let fields: Vec<_> = headers.into_iter().chain([("Content-Type", "application/json")]).collect();
            native.respond(path, Script::whole(status, &fields, error.to_string()));
            let response = proxy.call(authorized(path, body.to_string()));
            assert_eq!(response.status, expected, "{status} {path}: {}", response.text());
            let names_it = ["top_k", "top_logprobs"].iter().any(|field| response.text().contains(field));
            assert_eq!(names_it, expected == 400, "{status} {path}: {}", response.text());
        }
    }
    assert!(plain.requests().is_empty());
}

#[test]
fn translated_request_over_max_request_size_is_413() {
    let (upstream, proxy) = start(json!({"max_request_size": 20_000}));
    let tools = vec![json!({"name": "f", "input_schema": {}}); 400];
    let hi = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "plain/m", "max_tokens": 9, "messages": hi, "tools": tools}).to_string();
    assert!(body.len() < 20_000);
    let refused = proxy.call(authorized(MESSAGES, body));
    assert_error(&refused, 413, "request_too_large", "body_too_large");
    assert_eq!(upstream.requests().len(), 0, "nothing of it was sent");
}

#[test]
fn an_error_in_a_translated_stream_is_a_status_at_its_beginning_and_an_event_behind_it() {
    let (upstream, proxy) = start(json!({}));
    let error = format!("data: {}\n\n", json!({"error": {"message": "no", "code": 429}}));
    upstream.chat(Script::sse().chunk(": wait\n\n").chunk(&error).chunk(DONE).end());
    let response = proxy.call(say("plain/m", true));
    assert_eq!(response.status, 429, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["error"], json!({"type": "rate_limit_error", "message": "no"}));

    let said = chat_event(&json!({"content": "a"}));
    upstream.chat(Script::sse().chunk(&said).chunk(&error).chunk(&said).chunk(DONE).end());
    let response = proxy.call(say("plain/m", true));
    let (names, last) = kinds(&response.text());
    assert_eq!((response.status, names.len()), (200, 4), "{names:?}");
    assert_eq!(last["error"], json!({"type": "rate_limit_error", "message": "no"}));
}
