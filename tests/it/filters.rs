//! Model filters: nothing in a request leads a limited token to a model that its filter excludes.

use serde_json::json;

use crate::support::calls::{TOKEN, assert_error, authorized, chat, completion, post};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["small", "big"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

fn filtered() -> serde_json::Value {
    json!({
        "tokens": [{"name": "t", "token": TOKEN, "models": ["^p1/small", "^virtual$"]}],
        "models": {"virtual": "p1/@preset/own"},
    })
}

/// A body for `p1/small` with one more member.
fn small(member: &str) -> String {
    format!(r#"{{"model":"p1/small",{member}}}"#)
}

#[test]
fn member_that_chooses_an_excluded_model_is_refused_by_name() {
    let (upstream, proxy) = start(filtered());
    for (name, value) in [
        ("models", r#"["small","big"]"#),
        ("models", r#""big""#),
        ("fallbacks", r#"["big"]"#),
        ("fallbacks", r#"[{"model":"big"}]"#),
        ("fallbacks", r#"[{"small":["big"]}]"#),
        ("fallbacks", r#""default""#),
        ("preset", r#""any""#),
        ("route", r#""fallback""#),
        ("plugins", r#"[{"id":"fusion","analysis_models":["big"]}]"#),
        ("plugins", r#"[{"id":"auto-router"}]"#),
        ("tools", r#"[{"type":"image_generation","model":"big"}]"#),
        ("tools", r#"[{"type":"openrouter:advisor","parameters":{"model":"big"}}]"#),
        ("tools", r#"[{"type":"advisor_20260301","name":"advisor","model":"big"}]"#),
        ("extra_body", r#"{"model":"big"}"#),
        ("context_window_fallbacks", r#"[{"small":["big"]}]"#),
        ("deployment_id", r#""big""#),
        ("user_config", "{}"),
        ("providerOptions", r#"{"gateway":{"models":["big"]}}"#),
    ] {
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/messages"] {
            let response = proxy.call(authorized(path, small(&format!(r#""{name}":{value}"#))));
            let message = if path == "/v1/messages" {
                assert_eq!(response.status, 400, "{name}: {value}");
                response.text()
            } else {
                assert_error(&response, 400, "invalid_model")
            };
            assert!(message.contains(name), "{name}: {message}");
        }
    }
    // In any spelling of the key and at any place.
    for member in [
        r#""Models":["big"]"#,
        r#""model\u0073":["big"]"#,
        r#""modelſ":["big"]"#,
        r#""FallbacKs":["big"]"#,
        r#""models":["small"],"models":["big"]"#,
        r#""models":["small"],"MODELS":["small"]"#,
    ] {
        assert_error(&proxy.call(chat(small(member))), 400, "invalid_model");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn member_within_the_filter_passes_untouched() {
    let (upstream, proxy) = start(filtered());
    for member in [
        r#""models":["small","small-2"]"#,
        r#""fallbacks":[{"model":"small"}]"#,
        r#""fallbacks":null,"preset":null"#,
        r#""plugins":[{"id":"web"}]"#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"model":{"type":"string"}}}}}]"#,
        r#""extra_body":{"google":{"thinking_config":{"thinking_budget":1}}}"#,
        r#""messages":[{"role":"user","content":"x","models":["big"]}]"#,
    ] {
        let body = small(member);
        assert_eq!(proxy.call(chat(&body)).status, 200, "{member}");
        assert_eq!(upstream.last().text(), body.replace("p1/small", "small"));
    }
}

/// Each id is compared with every pattern, so neither their length nor their number may be up to the client.
#[test]
fn members_name_few_models_with_short_ids() {
    let (upstream, proxy) = start(filtered());
    let list = |entry: &str, count: usize| format!("[{}]", vec![entry; count].join(","));
    let tool = r#"{"type":"image_generation","model":"small"}"#;
    let plain = r#"{"type":"function","function":{"name":"f"}}"#;
    for (member, status) in [
        (format!(r#""models":{}"#, list("\"small\"", 16)), 200),
        (format!(r#""models":{}"#, list("\"small\"", 17)), 400),
        (format!(r#""models":["small{}"]"#, "x".repeat(251)), 200),
        (format!(r#""models":["small{}"]"#, "x".repeat(252)), 400),
        (format!(r#""tools":{}"#, list(tool, 16)), 200),
        (format!(r#""tools":{}"#, list(tool, 17)), 400),
        (format!(r#""tools":{}"#, list(plain, 200)), 200),
        (format!(r#""models":{},"tools":{}"#, list("\"small\"", 16), list(tool, 16)), 200),
    ] {
        let response = proxy.call(chat(small(&member)));
        assert_eq!(response.status, status, "{}", &member[..member.len().min(80)]);
    }
    assert_eq!(upstream.requests().len(), 5);
}

/// Several at once took every processor from the workers.
#[test]
fn costly_filters_are_evaluated_one_at_a_time_within_queue_timeout() {
    let costly: Vec<String> = (0..4).map(|number| format!("(a|x){{1,{}}}y", 990 + number)).collect();
    let tokens = json!([{"name": "t", "token": TOKEN, "models": costly}]);
    let (upstream, proxy) = start(json!({"tokens": tokens, "queue_timeout": 0.01}));
    let model = format!("p1/{}", "a".repeat(250));
    let call = || proxy.call(authorized("/v1/chat/completions", json!({"model": model}).to_string()));
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| call().status)).collect();
        calls.into_iter().map(|call| call.join().expect("joined")).collect()
    });
    statuses.sort_unstable();
    assert!(matches!(statuses[..], [404, .., 503]), "{statuses:?}");
    assert!(upstream.requests().is_empty());
    assert_error(&call(), 404, "model_not_found");
}

/// When each one held a thread while it waited, new connections waited for all of them.
#[test]
fn costly_filters_that_wait_hold_no_thread_that_connects() {
    const COSTLY: usize = 24;
    let costly: Vec<String> = (0..4).map(|number| format!("(a|x){{1,{}}}y", 990 + number)).collect();
    let tokens = json!([{"name": "t", "token": TOKEN, "models": costly}, "free|sk-free"]);
    let few_threads = json!({"tokens": tokens, "max_memory": 32 << 20, "queue_timeout": 60, "workers": 1});
    let (_upstream, proxy) = start(few_threads);
    let model = format!("p1/{}", "a".repeat(250));
    let mut clients: Vec<_> = (0..COSTLY).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(authorized("/v1/chat/completions", json!({"model": model}).to_string()));
    }
    let free = [("X-Api-Key", "sk-free"), ("Content-Type", "application/json")];
    let call = post("/v1/chat/completions", &free, json!({"model": "p1/small"}).to_string());
    assert_eq!(proxy.call(call).status, 200);
    let done = proxy.log().lines().filter(|line| line.contains("reason=model_not_found")).count();
    assert!(done < COSTLY / 2, "{done} costly ones had ended: {}", proxy.log());
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 404));
}

#[test]
fn model_id_that_leads_to_others_is_refused_unless_configured() {
    let (upstream, proxy) = start(filtered());
    for model in ["p1/small@preset/any", "p1/small,big", "p1/small, p1/big"] {
        let body = json!({"model": model}).to_string();
        assert_error(&proxy.call(chat(body)), 400, "invalid_model");
        let member = json!([model.trim_start_matches("p1/")]).to_string();
        assert_error(&proxy.call(chat(small(&format!(r#""models":{member}"#)))), 400, "invalid_model");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(proxy.call(chat(r#"{"model":"virtual"}"#)).status, 200);
    assert_eq!(upstream.last().text(), r#"{"model":"@preset/own"}"#);
}

#[test]
fn query_that_names_a_model_is_refused() {
    let (upstream, proxy) = start(filtered());
    for query in ["model=big", "x=1&MODEL=big", "m%6fdel=big"] {
        let target = format!("/v1/chat/completions?{query}");
        let call = authorized(&target, r#"{"model":"p1/small"}"#);
        let message = assert_error(&proxy.call(call), 400, "invalid_model");
        assert!(message.contains("?model="), "{message}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn part_that_chooses_a_model_is_refused() {
    let (upstream, proxy) = start(filtered());
    let target = "/v1/audio/transcriptions";
    upstream.respond(target, Script::json(200, &json!({"text": "hello"})));
    let send = |name: &str| {
        let part = |name: &str, value: &str| {
            format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let form = format!("{}{}--X--\r\n", part("model", "p1/small"), part(name, "[\"big\"]"));
        let headers = [("X-Api-Key", TOKEN), ("Content-Type", "multipart/form-data; boundary=X")];
        proxy.call(post(target, &headers, form))
    };
    for name in ["models", "Fallbacks", "preset", "extra_body"] {
        assert_error(&send(name), 400, "invalid_model");
    }
    assert_eq!(send("prompt").status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

/// `&model=big&` in a string is JSON to the proxy, and a form field to a provider that goes by
/// `Content-Type`.
#[test]
fn json_body_is_announced_as_json() {
    let (upstream, proxy) = start(filtered());
    let body = small(r#""x":"&model=big&""#);
    for (kind, expected) in [
        ("application/x-www-form-urlencoded", "application/json"),
        ("multipart/form-data; boundary=X", "application/json"),
        ("application/json; charset=utf-7", "application/json"),
        ("application/json; x=form", "application/json"),
        ("text/plain", "application/json"),
        ("application/json", "application/json"),
        ("application/json; charset=UTF-8", "application/json; charset=UTF-8"),
    ] {
        let headers = [("X-Api-Key", TOKEN), ("Content-Type", kind)];
        assert_eq!(proxy.call(post("/v1/chat/completions", &headers, &body)).status, 200, "{kind}");
        assert_eq!(upstream.last().head.all("content-type"), [expected], "{kind}");
    }
    let count = upstream.requests().len();
    for second in ["Content-Type", "Content_Type"] {
        let headers = [("X-Api-Key", TOKEN), ("Content-Type", "application/json"), (second, "x/form")];
        assert_error(&proxy.call(post("/v1/chat/completions", &headers, &body)), 400, "bad_request");
    }
    assert_eq!(upstream.requests().len(), count);
}

#[test]
fn supported_models_filter_what_every_token_may_reach() {
    let (upstream, proxy) = start(json!({"supported_models": ["^p1/small$"]}));
    assert_error(&proxy.call(chat(small(r#""models":["big"]"#))), 400, "invalid_model");
    assert_eq!(proxy.call(chat(small(r#""models":["small"]"#))).status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn everything_passes_where_no_filter_applies() {
    let (upstream, proxy) = start(json!({}));
    let body = small(r#""models":["big"],"preset":"x","tools":[{"type":"openrouter:fusion"}]"#);
    assert_eq!(proxy.call(authorized("/v1/chat/completions?model=big", &body)).status, 200);
    assert_eq!(upstream.last().text(), body.replace("p1/small", "small"));
    assert_eq!(proxy.call(chat(r#"{"model":"p1/small@preset/any"}"#)).status, 200);
}
