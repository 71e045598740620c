//! What coding agents send to `/v1/messages`, as they were recorded, to providers that speak OpenAI's format alone.

use serde_json::{Value, json};

use crate::support::calls::{KEY, authorized, completion};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

const MESSAGES: &str = "/v1/messages";

/// A first request of Claude Code 2.1, shortened.
fn first_request(model: &str) -> Value {
    json!({
        "model": model, "max_tokens": 32000, "stream": false,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.62b; cc_entrypoint=sdk-cli;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Write hello into hello.txt"}]},
            {"role": "system", "content": [{"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}}]}
        ],
        "tools": [
            {"name": "Write", "description": "Writes.", "input_schema": {"type": "object"}},
            {"name": "DeferredToolPlaceholder", "input_schema": {"type": "object"}, "defer_loading": true}
        ],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"}
    })
}

#[test]
fn first_request_of_claude_code_is_translated_where_the_native_provider_is_down() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("translated")));
    let closed = "http://127.0.0.1:1";
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({
            "providers": [
                {"name": "native", "url": closed, "anthropic_url": closed, "key": KEY},
                {"name": "plain", "url": upstream.url(), "key": KEY}
            ],
            "models": {"best": ["native/m", "plain/m"]}
        }),
    ));
    let response = proxy.call(authorized(MESSAGES, first_request("best").to_string()));
    assert_eq!(response.json()["content"][0]["text"], "translated", "{}", response.text());
    let sent: Value = serde_json::from_str(&upstream.last().text()).expect("JSON");
    let tool =
        |name: &str| sent["tools"].as_array().expect("tools").iter().any(|it| it["function"]["name"] == name);
    assert!(tool("Write") && tool("DeferredToolPlaceholder"), "{sent}");
    assert_eq!(sent["messages"][0], json!({"role": "system", "content": "You are an agent."}));
}

#[test]
fn attachment_refused_by_a_translated_provider_is_an_error_after_which_the_agent_recovers() {
    let upstream = Upstream::new(&["m"]);
    let provider = json!({"name": "plain", "url": upstream.url(), "key": KEY});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider]})));
    let pdf = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="});
    let image = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0="});
    let refused = json!({"error": {"message": "unknown variant, expected `text`"}}).to_string();
    for (kind, source, ending) in [
        ("document", pdf, " The PDF specified was not valid."),
        ("image", image, " Could not process image."),
    ] {
        let content = json!([{"type": kind, "source": source}]);
        for stream in [false, true] {
            let messages = json!([{"role": "user", "content": content}]);
            let body = json!({"model": "plain/m", "max_tokens": 9, "stream": stream, "messages": messages})
                .to_string();
            for (status, media_type, said) in
                [(400, "application/json", &*refused), (422, "text/plain", "expected `text`")]
            {
                let head = [("Content-Type", media_type)];
                upstream.chat(Script::whole(status, &head, said));
                let response = proxy.call(authorized(MESSAGES, body.clone()));
                let error = response.json()["error"].clone();
                assert_eq!((response.status, &error["type"]), (status, &json!("invalid_request_error")));
                let message = error["message"].as_str().expect("a message");
                assert!(message.ends_with(&format!("expected `text`.{ending}")), "{message}");
                assert_eq!(response.header("content-type"), Some("application/json"));
            }
            upstream.chat(Script::json(429, &json!({"error": {"message": "slow down"}})));
            let limited = proxy.call(authorized(MESSAGES, body));
            assert_eq!((limited.status, &limited.json()["error"]["message"]), (429, &json!("slow down")));
        }
    }
}
