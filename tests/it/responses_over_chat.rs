//! The Responses API for providers that support only chat completions: translated in both directions, because
//! of the config, the host, or the provider's response to the first call.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::calls::{DONE, KEY, TOKEN, assert_error, authorized, bare, completion};
use crate::support::client::{End, Response};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const RESPONSES: &str = "/v1/responses";
const CHAT: &str = "/v1/chat/completions";

/// An upstream as the provider `p`, configured with `api`.
fn start(api: &str, changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let provider = json!({"name": "p", "url": upstream.url(), "key": KEY, "responses": api});
    let changes = with(json!({"providers": [provider], "max_retries": 0}), changes);
    let proxy = Proxy::start(&with(config(&[]), changes));
    (upstream, proxy)
}

fn ask(changes: Value) -> Vec<u8> {
    authorized(RESPONSES, with(json!({"model": "p/m", "input": "hi"}), changes).to_string())
}

fn stored(method: &str, target: &str) -> Vec<u8> {
    let token = format!("Bearer {TOKEN}");
    bare(method, target, &[("Authorization", token.as_str()), ("Content-Length", "0")])
}

/// The paths that the upstream was called at.
fn paths(upstream: &Upstream) -> Vec<String> {
    upstream.requests().iter().map(|request| request.path().to_owned()).collect()
}

/// The events' names, and the data of the last.
fn events(text: &str) -> (Vec<String>, Value) {
    let names = text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect();
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).expect("an event");
    (names, serde_json::from_str(last).expect("JSON"))
}

fn chunk(delta: &Value) -> String {
    format!("data: {}\n\n", json!({"id": "c", "choices": [{"index": 0, "delta": delta}]}))
}

fn finish(reason: &str) -> String {
    let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
    format!("data: {last}\n\ndata: {usage}\n\n{DONE}")
}

fn assert_says(response: &Response, text: &str) {
    let body = response.json();
    assert_eq!((response.status, &body["object"]), (200, &json!("response")), "{body}");
    assert_eq!(body["output"][0]["content"][0]["text"], text, "{body}");
}

#[test]
fn buffered_call_is_translated_there_and_back() {
    let (upstream, proxy) = start("chat", json!({}));
    upstream.chat(Script::json(200, &completion("hello")));
    let response = proxy.call(ask(json!({"instructions": "Be brief.", "max_output_tokens": 9})));
    assert_says(&response, "hello");
    let body = response.json();
    assert_eq!((&body["status"], &body["model"]), (&json!("completed"), &json!("p/m")));
    assert_eq!((&body["instructions"], &body["store"]), (&json!("Be brief."), &json!(false)));
    assert_eq!((&body["usage"]["input_tokens"], &body["usage"]["output_tokens"]), (&json!(3), &json!(5)));
    let sent = upstream.last();
    assert_eq!((sent.target.as_str(), upstream.requests().len()), (CHAT, 1));
    let messages = r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}]"#;
    assert_eq!(sent.text(), format!(r#"{{"model":"m","max_tokens":9,"messages":{messages}}}"#));
    proxy.log_line(&["provider=p", "model=p/m", "status=200", "tokens=3+5", "attempts=1"]);
}

#[test]
fn streamed_call_is_translated_event_by_event() {
    let (upstream, proxy) = start("chat", json!({}));
    let said = chunk(&json!({"role": "assistant", "content": "a"})) + &chunk(&json!({"content": "b"}));
    upstream.chat(Script::sse().chunk(said).chunk(finish("stop")).end());
    let response = proxy.call(ask(json!({"stream": true})));
    assert_eq!((response.status, response.end), (200, End::FinalChunk));
    let (names, last) = events(&response.text());
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, expected);
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "ab");
    assert!(upstream.last().text().ends_with(r#""stream":true,"stream_options":{"include_usage":true}}"#));
    proxy.log_line(&["stream=true", "status=200", "tokens=3+5", "attempts=1"]);
}

#[test]
fn stream_that_breaks_off_ends_in_an_error_and_not_cleanly() {
    let (upstream, proxy) = start("chat", json!({}));
    upstream.chat(Script::sse().chunk(chunk(&json!({"content": "a"}))).then(Step::Fin));
    let response = proxy.call(ask(json!({"stream": true})));
    assert_eq!((response.status, response.end), (200, End::Cut));
    let (names, last) = events(&response.text());
    assert_eq!((names.last().map(String::as_str), &last["type"]), (Some("error"), &json!("error")));
    assert_eq!(last["reason"], "upstream_broken");
    assert_eq!(last["sequence_number"], names.len() - 1, "{names:?}");
    assert!(!names.contains(&"response.completed".to_owned()), "{names:?}");
}

#[test]
fn error_of_the_provider_passes_before_and_within_a_stream() {
    let (upstream, proxy) = start("chat", json!({}));
    let error = json!({"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}});
    upstream.chat(Script::json(400, &error));
    for stream in [false, true] {
        let response = proxy.call(ask(json!({"stream": stream})));
        assert_eq!((response.status, response.json()), (400, error.clone()));
    }
    upstream.chat(Script::json(403, &json!({"error": "no \"gpt\" for this key"})));
    let refused = proxy.call(ask(json!({}))).json()["error"].clone();
    assert_eq!(refused, "provider p refused the call (your token is valid): no \"gpt\" for this key");
    let within = chunk(&json!({"content": "a"})) + &format!("data: {error}\n\n");
    upstream.chat(Script::sse().chunk(within).end());
    let (_, last) = events(&proxy.call(ask(json!({"stream": true}))).text());
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["error"]["code"], "context_length_exceeded");
}

#[test]
fn custom_tool_comes_back_as_the_custom_call_it_was() {
    let (upstream, proxy) = start("chat", json!({}));
    let patch = "*** Begin Patch\n+\"x\"\n*** End Patch";
    let arguments = json!({"input": patch}).to_string();
    let call = json!([{"index": 0, "id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": arguments}}]);
    let tools = json!([{"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}]);

    let message = json!({"role": "assistant", "content": null, "tool_calls": call});
    upstream
        .chat(Script::json(200, &json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]})));
    let whole = proxy.call(ask(json!({"tools": tools}))).json();
    upstream.chat(Script::sse().chunk(chunk(&json!({"tool_calls": call}))).chunk(finish("tool_calls")).end());
    let (names, last) = events(&proxy.call(ask(json!({"tools": tools, "stream": true}))).text());
    assert!(names.contains(&"response.custom_tool_call_input.delta".to_owned()), "{names:?}");
    for item in [&whole["output"][0], &last["response"]["output"][0]] {
        assert_eq!((&item["type"], &item["name"]), (&json!("custom_tool_call"), &json!("apply_patch")));
        assert_eq!((&item["call_id"], &item["input"]), (&json!("c1"), &json!(patch)));
    }

    upstream.chat(Script::json(200, &completion("done")));
    let history = json!([
        {"role": "user", "content": "edit"},
        whole["output"][0],
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Success"}
    ]);
    assert_says(&proxy.call(ask(json!({"tools": tools, "input": history}))), "done");
    let sent: Value = serde_json::from_str(&upstream.last().text()).expect("JSON");
    assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["arguments"], arguments);
    assert_eq!(sent["messages"][2], json!({"role": "tool", "tool_call_id": "c1", "content": "Success"}));
}

#[test]
fn tool_of_a_namespace_comes_back_in_it() {
    let (upstream, proxy) = start("chat", json!({}));
    let call =
        json!([{"id": "c1", "type": "function", "function": {"name": "mcp__demo__add", "arguments": "{}"}}]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": call});
    upstream
        .chat(Script::json(200, &json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]})));
    let add = json!({"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}});
    let tools = json!([{"type": "namespace", "name": "mcp__demo", "description": "d", "tools": [add]}]);
    let item = proxy.call(ask(json!({"tools": tools}))).json()["output"][0].clone();
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("add")));
    assert_eq!(item["namespace"], "mcp__demo");
}

#[test]
fn image_reaches_the_provider() {
    let (upstream, proxy) = start("chat", json!({}));
    upstream.chat(Script::json(200, &completion("a cat")));
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"});
    let content = json!([{"type": "input_text", "text": "what?"}, image]);
    assert_says(&proxy.call(ask(json!({"input": [{"role": "user", "content": content}]}))), "a cat");
    let sent: Value = serde_json::from_str(&upstream.last().text()).expect("JSON");
    assert_eq!(sent["messages"][0]["content"][1]["image_url"]["url"], "data:image/png;base64,AA==");
}

#[test]
fn provider_without_the_path_is_found_out_and_the_same_call_goes_on() {
    for (refusal, stream) in [(404, false), (404, true), (405, false), (501, true)] {
        let (upstream, proxy) = start("auto", json!({"models_interval": 1}));
        upstream
            .respond(RESPONSES, Script::whole(refusal, &[("Content-Type", "text/plain")], "no such page"));
        let said = Script::sse().chunk(chunk(&json!({"content": "a"}))).chunk(finish("stop")).end();
        upstream.chat(if stream { said } else { Script::json(200, &completion("a")) });
        let first = proxy.call(ask(json!({"stream": stream})));
        if stream {
            assert_eq!(events(&first.text()).1["type"], "response.completed");
        } else {
            assert_says(&first, "a");
        }
        assert_eq!(paths(&upstream), [RESPONSES, CHAT]);
        let log = proxy.log_line(&["provider=p", "status=200", "attempts=1"]);
        assert!(!log.contains("WARN"), "{log}");
        let status = proxy.get("/v1/status").json();
        assert_eq!(status["providers"][0]["replicas"][0]["responses"], "chat");
        proxy.call(ask(json!({"stream": stream})));
        assert_eq!(paths(&upstream), [RESPONSES, CHAT, CHAT], "it is remembered");
        eventually("it is asked again", || {
            proxy.call(ask(json!({"stream": stream})));
            std::thread::sleep(Duration::from_millis(100));
            (paths(&upstream).iter().filter(|path| *path == RESPONSES).count() > 1).then_some(())
        });
    }
}

#[test]
fn refusal_of_the_model_or_of_what_is_continued_is_no_missing_path() {
    let (upstream, proxy) = start("auto", json!({}));
    let error = json!({"error": {"message": "The model `m` does not exist", "code": "model_not_found"}});
    upstream.respond(RESPONSES, Script::json(404, &error));
    let response = proxy.call(ask(json!({})));
    assert_eq!((response.status, response.json()), (404, error));
    let error = json!({"error": {"message": "Previous response with id 'resp_1' not found."}});
    upstream.respond(RESPONSES, Script::json(404, &error));
    let response = proxy.call(ask(json!({"previous_response_id": "resp_1"})));
    assert_eq!((response.status, response.json()), (404, error));
    assert_eq!(paths(&upstream), [RESPONSES, RESPONSES]);
    assert_eq!(proxy.get("/v1/status").json()["providers"][0]["replicas"][0]["responses"], "native");
}

#[test]
fn native_provider_gets_every_call_as_it_came() {
    let (upstream, proxy) = start("native", json!({}));
    let response = proxy.call(ask(json!({})));
    assert_eq!((response.status, paths(&upstream)), (404, vec![RESPONSES.to_owned()]));
    let sent = upstream.last();
    assert_eq!(sent.text(), r#"{"input":"hi","model":"m"}"#);
}

#[test]
fn what_a_chat_has_no_place_for_is_refused_by_name() {
    for api in ["chat", "auto"] {
        let (upstream, proxy) = start(api, json!({}));
        upstream.chat(Script::json(200, &completion("a")));
        for (members, name) in [
            (json!({"background": true}), "background"),
            (json!({"conversation": "conv_1"}), "conversation"),
            (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), "input.0.type (item_reference)"),
            (json!({"tools": [{"type": "file_search"}]}), "tools.0.type (file_search)"),
            (json!({"tools": [{"type": "web_search"}]}), "tools.0.type (web_search)"),
        ] {
            let response = proxy.call(ask(members));
            let message = assert_error(&response, 400, "unsupported_parameter");
            assert!(message.contains(name), "{api}: {message}");
        }
        assert!(!paths(&upstream).contains(&CHAT.to_owned()));
    }
}

#[test]
fn nothing_is_stored_and_what_asks_for_it_is_refused_by_name() {
    let (upstream, proxy) = start("chat", json!({}));
    let previous = proxy.call(ask(json!({"previous_response_id": "resp_1"})));
    assert!(assert_error(&previous, 400, "unsupported_parameter").contains("previous_response_id"));
    for (method, target) in [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ] {
        let response = proxy.call(stored(method, target));
        let message = assert_error(&response, 400, "unsupported_parameter");
        assert!(message.contains("stored responses"), "{method} {target}: {message}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn call_goes_from_a_native_provider_that_is_down_to_a_translated_one() {
    let (native, plain) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let entry = |name: &str, upstream: &Upstream, api: &str| json!({"name": name, "url": upstream.url(), "key": KEY, "responses": api});
    let providers = json!([entry("native", &native, "native"), entry("plain", &plain, "chat")]);
    let models = json!({"best": ["native/m", "plain/m"], "worst": ["plain/m", "native/m"]});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers, "models": models})));
    native.respond(RESPONSES, Script::json(503, &json!({"error": {"message": "busy"}})));
    plain.chat(Script::json(200, &completion("plain")));
    let response = proxy.call(ask(json!({"model": "best"})));
    assert_says(&response, "plain");
    assert_eq!(response.header("x-ai-proxy-provider"), Some("plain"));

    // A call that cannot be translated skips providers that need the translation.
    let own = json!({"id": "resp_1", "object": "response", "status": "completed", "output": []});
    native.respond(RESPONSES, Script::json(200, &own));
    let hosted = json!([{"type": "file_search", "vector_store_ids": ["v"]}]);
    assert_eq!(proxy.call(ask(json!({"model": "worst", "tools": hosted}))).json(), own);
    native.respond(RESPONSES, Script::default().then(Step::Fin));
    let refused = proxy.call(ask(json!({"model": "worst", "tools": hosted})));
    assert!(assert_error(&refused, 400, "unsupported_parameter").contains("tools.0.type (file_search)"));
}

#[test]
fn skipped_provider_that_is_found_out_leaves_the_call_to_the_next() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let entry = |name: &str, upstream: &Upstream| json!({"name": name, "url": upstream.url(), "key": KEY});
    let providers = json!([entry("first", &first), entry("second", &second)]);
    let models = json!({"best": ["first/m", "second/m"]});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers, "models": models})));
    let own = json!({"id": "resp_1", "object": "response", "status": "completed", "output": []});
    second.respond(RESPONSES, Script::json(200, &own));
    let hosted = json!([{"type": "file_search", "vector_store_ids": ["v"]}]);
    assert_eq!(proxy.call(ask(json!({"model": "best", "tools": hosted}))).json(), own);
    assert_eq!((paths(&first), paths(&second)), (vec![RESPONSES.to_owned()], vec![RESPONSES.to_owned()]));
}

#[test]
fn refusal_by_a_provider_that_has_responses_is_about_the_call() {
    let (upstream, proxy) = start("auto", json!({}));
    let own = json!({"id": "resp_1", "object": "response", "status": "completed", "output": []});
    upstream.respond(RESPONSES, Script::json(200, &own));
    assert_eq!(proxy.call(ask(json!({}))).json(), own);
    let error = json!({"error": {"message": "Item with id 'rs_1' not found."}});
    upstream.respond(RESPONSES, Script::json(404, &error));
    let response = proxy.call(ask(json!({})));
    assert_eq!((response.status, response.json()), (404, error));
    assert_eq!(paths(&upstream), [RESPONSES, RESPONSES]);
}

#[test]
fn missing_path_is_believed_where_the_translated_call_succeeds() {
    let (upstream, proxy) = start("auto", json!({}));
    upstream.respond(RESPONSES, Script::whole(404, &[("Content-Type", "text/plain")], "no such page"));
    let error = json!({"error": {"message": "no such deployment", "code": "DeploymentNotFound"}});
    upstream.chat(Script::json(404, &error));
    for _ in 0..2 {
        let response = proxy.call(ask(json!({})));
        assert_eq!((response.status, response.json()), (404, error.clone()));
    }
    assert_eq!(paths(&upstream), [RESPONSES, CHAT, RESPONSES, CHAT]);
    upstream.chat(Script::json(200, &completion("a")));
    assert_says(&proxy.call(ask(json!({}))), "a");
    proxy.log_line(&["INFO", "provider supports only chat completions", "p, replica 1"]);
    assert_says(&proxy.call(ask(json!({}))), "a");
    assert_eq!(paths(&upstream)[4..], [RESPONSES, CHAT, CHAT]);
}

#[test]
fn call_that_one_replica_alone_carries_goes_there() {
    let (native, plain) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    let providers = json!([format!("p|{}|{KEY}", plain.url()), format!("p|{}|{KEY}", native.url())]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    let own = json!({"id": "resp_1", "object": "response", "status": "completed", "output": []});
    native.respond(RESPONSES, Script::json(200, &own));
    plain.respond(RESPONSES, Script::whole(404, &[("Content-Type", "text/plain")], "no such page"));
    plain.chat(Script::json(200, &completion("a")));
    assert_says(&proxy.call(ask(json!({}))), "a");
    assert_eq!(paths(&plain), [RESPONSES, CHAT]);
    for members in [json!({"conversation": "conv_1"}), json!({"previous_response_id": "resp_1"})] {
        assert_eq!(proxy.call(ask(members)).json(), own);
    }
    assert_eq!(
        (paths(&native), paths(&plain)),
        (vec![RESPONSES.to_owned(); 2], vec![RESPONSES.to_owned(), CHAT.to_owned()])
    );
}
