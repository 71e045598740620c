//! Recorded requests of coding agents to `/v1/messages`, sent to providers that support only OpenAI's format.

use serde_json::{Value, json};

use crate::support::calls::{KEY, authorized, completion};
use crate::support::eventually;
use crate::support::proxy::{Proxy, behind_a_dead_native, config, with};
use crate::support::script::{Script, Step};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Upstream;

const MESSAGES: &str = "/v1/messages";

fn say() -> Vec<u8> {
    let messages = json!([{"role": "user", "content": "hi"}]);
    authorized(MESSAGES, json!({"model": "p/m", "max_tokens": 9, "messages": messages}).to_string())
}

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
    let proxy = Proxy::start(&behind_a_dead_native(&upstream));
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

/// Two providers of one upstream: `native` supports both formats, `plain` only OpenAI's; `best` tries
/// `native`, then `plain`.
fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let native =
        json!({"name": "native", "url": upstream.url(), "anthropic_url": upstream.url(), "key": KEY});
    let plain = json!({"name": "plain", "url": upstream.url(), "key": KEY});
    let models = json!({"best": ["native/m", "plain/m"]});
    let proxy = Proxy::start(&with(
        config(&[]),
        json!({"providers": [native, plain], "models": models, "max_retries": 1}),
    ));
    (upstream, proxy)
}

const COUNT: &str = "/v1/messages/count_tokens";

#[test]
fn tokens_are_estimated_where_the_provider_cannot_count() {
    let (upstream, proxy) = start();
    let body = r#"{"model":"plain/m","messages":[{"role":"user","content":"hi"}]}"#;
    let response = proxy.call(authorized(COUNT, body));
    let expected = json!({"input_tokens": body.len().div_ceil(4), "estimated": true});
    assert_eq!((response.status, response.json()), (200, expected));
    assert_eq!(response.header("x-ai-proxy-provider"), Some("plain"));
    assert_eq!(upstream.requests().len(), 0);
    proxy.log_line(&["provider=plain", "model=plain/m", "status=200", "tokens=-", "attempts=0"]);
}

#[test]
fn tokens_are_counted_by_a_native_target_and_estimated_where_it_is_down() {
    let (upstream, proxy) = start();
    let body = r#"{"model":"best","messages":[{"role":"user","content":"hi"}]}"#;
    upstream.respond(COUNT, Script::json(200, &json!({"input_tokens": 7})));
    assert_eq!(proxy.call(authorized(COUNT, body)).json(), json!({"input_tokens": 7}));
    let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}});
    upstream.respond(COUNT, Script::json(400, &error));
    assert_eq!(proxy.call(authorized(COUNT, body)).json(), error);
    upstream.respond(COUNT, Script::default().then(Step::Fin));
    let response = proxy.call(authorized(COUNT, body));
    assert_eq!((response.status, &response.json()["estimated"]), (200, &json!(true)));
}

#[test]
fn thinking_without_a_signature_is_kept_from_a_native_provider_and_sent_to_a_translated_one() {
    let (upstream, proxy) = start();
    let ours = r#"{"type":"thinking","thinking":"ours","signature":""}"#;
    let theirs = r#"{"type":"thinking","thinking":"theirs","signature":"c2ln"}"#;
    let body = |model: &str, blocks: &[&str]| {
        let said = format!(r#"{{"role":"assistant","content":[{}]}}"#, blocks.join(", "));
        let (hi, go) = (r#"{"role":"user","content":"hi"}"#, r#"{"role":"user","content":"go on"}"#);
        format!(r#"{{"max_tokens":9,"model":"{model}","messages":[{hi}, {said}, {go}],"z":1.0e0}}"#)
    };
    let text = r#"{"type":"text","text":"a"}"#;
    upstream.respond(MESSAGES, Script::json(200, &json!({"type": "message"})));
    upstream.respond(COUNT, Script::json(200, &json!({"input_tokens": 7})));
    for path in [MESSAGES, COUNT] {
        for model in ["native/m", "best"] {
            proxy.call(authorized(path, body(model, &[ours, text, ours, theirs])));
            assert_eq!(upstream.last().text(), body("m", &[text, theirs]), "{path}");
        }
    }
    upstream.chat(Script::json(200, &completion("a")));
    proxy.call(authorized(MESSAGES, body("plain/m", &[ours, theirs, text]).replace(r#","z":1.0e0"#, "")));
    let sent: Value = serde_json::from_str(&upstream.last().text()).expect("JSON");
    assert_eq!(sent["messages"][1]["reasoning_content"], "ours", "{sent}");
}

/// A provider at that URL, whose host is where the tunnel leads.
fn behind(tunnel: &Tunnel, name: &str, url: &str) -> Value {
    let proxy = format!("http://{}", tunnel.address());
    json!({"name": name, "url": url, "key": KEY, "proxy": proxy, "models": ["m"], "responses": "chat"})
}

#[test]
fn failover_sends_each_provider_the_thoughts_that_it_takes() {
    let (upstream, tunnel) = (Upstream::new(&["m"]), Tunnel::new());
    tunnel.lead_to(upstream.address());
    let providers = json!([
        behind(&tunnel, "refuses", "http://api.mistral.ai/v1"),
        behind(&tunnel, "wants", "http://api.deepseek.com/v1"),
        behind(&tunnel, "takes", "http://any.example/v1"),
    ]);
    let models = json!({"best": ["refuses/m", "wants/m", "takes/m"]});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers, "models": models})));
    upstream.chat(Script::json(503, &json!({"error": {"message": "busy"}})));
    let said = json!([
        {"type": "thinking", "thinking": "theirs", "signature": "c2ln"},
        {"type": "thinking", "thinking": "ours", "signature": ""},
        {"type": "text", "text": "a"},
    ]);
    let thought = |text: &str, sealed: Value| {
        let content = json!([{"type": "reasoning_text", "text": text}]);
        json!({"type": "reasoning", "content": content, "summary": [], "encrypted_content": sealed})
    };
    let user = |text: &str| json!({"role": "user", "content": text});
    let messages = json!([user("hi"), {"role": "assistant", "content": said}, user("go on")]);
    let assistant = json!({"role": "assistant", "content": "a"});
    let items = json!([
        user("hi"),
        thought("theirs", json!("c2ln")),
        thought("ours", json!(null)),
        assistant,
        user("go on")
    ]);
    for (path, body) in [
        (MESSAGES, json!({"model": "best", "max_tokens": 9, "messages": messages})),
        ("/v1/responses", json!({"model": "best", "input": items})),
    ] {
        let before = upstream.requests().len();
        assert_eq!(proxy.call(authorized(path, body.to_string())).status, 503);
        let sent = upstream.requests().split_off(before);
        let thoughts = sent.iter().map(|request| {
            let body: Value = serde_json::from_str(&request.text()).expect("JSON");
            body["messages"][1]["reasoning_content"].clone()
        });
        let expected = [json!(null), json!("theirs\n\nours"), json!("ours")];
        assert_eq!(thoughts.collect::<Vec<_>>(), expected, "{path}");
    }
}

#[test]
fn provider_without_messages_is_found_out_and_the_same_call_is_translated() {
    for (refusal, url) in [(404, "auto"), (405, ""), (501, "")] {
        let upstream = Upstream::new(&["m"]);
        let url = if url.is_empty() { upstream.url() } else { url.to_owned() };
        let provider = json!({"name": "p", "url": upstream.url(), "anthropic_url": url, "key": KEY});
        let changes = json!({"providers": [provider], "models_interval": 1, "max_retries": 0});
        let proxy = Proxy::start(&with(config(&[]), changes));
        let api = || proxy.get("/v1/status").json()["providers"][0]["replicas"][0]["messages"].clone();
        let asked = |path: &str| upstream.requests().iter().filter(|request| request.path() == path).count();
        upstream.respond(MESSAGES, Script::whole(refusal, &[("Content-Type", "text/plain")], "no such page"));
        upstream.chat(Script::json(503, &json!({"error": {"message": "busy"}})));
        assert_eq!(proxy.call(say()).status, 503);
        assert_eq!((api(), asked(MESSAGES)), (json!("native"), 1), "nothing shows that it is the path");
        upstream.chat(Script::json(200, &completion("a")));
        for _ in 0..2 {
            assert_eq!(proxy.call(say()).json()["content"][0]["text"], "a");
        }
        assert_eq!((api(), asked(MESSAGES)), (json!("chat"), 2), "it is remembered");
        proxy.log_line(&["provider=p", "status=200", "attempts=1"]);
        eventually("it is asked again", || {
            proxy.call(say());
            (asked(MESSAGES) > 2).then_some(())
        });
    }
}

#[test]
fn refusal_of_a_model_or_by_a_provider_that_has_messages_is_about_the_call() {
    let (upstream, proxy) = start();
    let error =
        |message: &str| json!({"type": "error", "error": {"type": "not_found_error", "message": message}});
    let native = || authorized(MESSAGES, first_request("native/m").to_string());
    upstream.respond(MESSAGES, Script::json(404, &error("model: m")));
    assert_eq!(proxy.call(native()).json(), error("model: m"));
    upstream.respond(MESSAGES, Script::json(200, &json!({"type": "message"})));
    assert_eq!(proxy.call(native()).status, 200);
    upstream.respond(MESSAGES, Script::json(404, &error("no such file")));
    assert_eq!(proxy.call(native()).json(), error("no such file"));
    assert!(upstream.requests().iter().all(|request| request.path() == MESSAGES));
}

#[test]
fn tokens_are_estimated_where_a_native_provider_has_no_path_for_it() {
    let (upstream, proxy) = start();
    let body = r#"{"model":"native/m","messages":[{"role":"user","content":"hi"}]}"#;
    upstream.respond(MESSAGES, Script::json(200, &json!({"type": "message"})));
    proxy.call(authorized(MESSAGES, first_request("native/m").to_string()));
    for refusal in [404, 405, 501] {
        upstream.respond(COUNT, Script::whole(refusal, &[], "no such page"));
        let response = proxy.call(authorized(COUNT, body));
        assert_eq!((response.status, &response.json()["estimated"]), (200, &json!(true)));
        assert_eq!(response.header("x-ai-proxy-provider"), Some("native"));
    }
    let status = proxy.get("/v1/status").json();
    assert_eq!(status["providers"][0]["replicas"][0]["messages"], "native");
    let error = json!({"type": "error", "error": {"type": "not_found_error", "message": "model: m"}});
    upstream.respond(COUNT, Script::json(404, &error));
    assert_eq!(proxy.call(authorized(COUNT, body)).json(), error);
}

#[test]
fn calls_about_responses_are_estimated_or_refused_by_name_where_the_provider_lacks_them() {
    const INPUT: &str = "/v1/responses/input_tokens";
    const COMPACT: &str = "/v1/responses/compact";
    for api in ["chat", "auto", "native"] {
        let upstream = Upstream::new(&["m"]);
        let provider = json!({"name": "p", "url": upstream.url(), "key": KEY, "responses": api});
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider]})));
        for path in [INPUT, COMPACT] {
            upstream.respond(path, Script::whole(404, &[], "no such page"));
        }
        let body = r#"{"model":"p/m","input":"hi"}"#;
        let counted = proxy.call(authorized(INPUT, body));
        let tokens = body.len().div_ceil(4);
        let estimate = json!({"object": "response.input_tokens", "input_tokens": tokens, "estimated": true});
        assert_eq!((counted.status, counted.json()), (200, estimate), "{api}");
        let refused = proxy.call(authorized(COMPACT, body));
        let expected = if api == "native" { 404 } else { 400 };
        assert_eq!(refused.status, expected, "{api}: {}", refused.text());
        assert_eq!(refused.text().contains(COMPACT), api != "native", "{api}: {}", refused.text());
        let asked = if api == "chat" { 0 } else { 2 };
        assert_eq!(upstream.requests().len(), asked, "{api}");
        upstream.respond(INPUT, Script::json(200, &json!({"input_tokens": 7})));
        upstream.respond(COMPACT, Script::json(200, &json!({"object": "response.compaction"})));
        if api != "chat" {
            assert_eq!(proxy.call(authorized(INPUT, body)).json(), json!({"input_tokens": 7}));
            assert_eq!(proxy.call(authorized(COMPACT, body)).json()["object"], "response.compaction");
        }
    }
}

#[test]
fn moderation_without_a_model_goes_to_the_one_provider_that_serves_it() {
    const MODERATIONS: &str = "/v1/moderations";
    let (one, other) = (Upstream::new(&["omni-moderation-latest"]), Upstream::new(&["m"]));
    for upstream in [&one, &other] {
        upstream.respond(MODERATIONS, Script::json(200, &json!({"results": []})));
    }
    let entry = |name: &str, upstream: &Upstream| json!({"name": name, "url": upstream.url(), "key": KEY});
    let started = |providers: Value| Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let both = started(json!([entry("one", &one), entry("other", &other)]));
    both.get("/v1/models");
    let body = r#" { "input": "x", "y": 1.0e0 }"#;
    let response = both.call(authorized(MODERATIONS, body));
    assert_eq!((response.status, response.header("x-ai-proxy-provider")), (200, Some("one")));
    let expected = r#" {"model":"omni-moderation-latest", "input": "x", "y": 1.0e0 }"#;
    assert_eq!(one.last().text(), expected);
    // A lone provider gets the call, whatever it lists.
    let lone = started(json!([entry("other", &other)]));
    assert_eq!(lone.call(authorized(MODERATIONS, body)).status, 200);
    assert_eq!(other.last().text(), expected);
    // With several providers the proxy does not guess.
    let several = started(json!([entry("one", &other), entry("other", &other)]));
    for (path, body) in
        [(MODERATIONS, body), (MODERATIONS, "{}"), (MODERATIONS, "{ }"), ("/v1/embeddings", body)]
    {
        let refused = several.call(authorized(path, body));
        assert_eq!(
            (refused.status, &refused.json()["error"]["reason"]),
            (400, &json!("missing_model")),
            "{body}"
        );
    }
    let filtered = Proxy::start(&with(
        config(&[]),
        json!({"providers": [entry("other", &other)], "supported_models": ["^other/m$"]}),
    ));
    assert_eq!(filtered.call(authorized(MODERATIONS, body)).status, 400);
}
