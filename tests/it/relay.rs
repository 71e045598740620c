//! Requests to the provider: the exact body, the right path, the right key, and refusals before that.

use serde_json::json;

use crate::support::calls::{KEY, TOKEN, assert_error, authorized, chat, completion, post};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

/// Every relayed path of JSON requests, behind `/v1` or a provider's URL.
pub const PATHS: [&str; 8] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/moderations",
    "/images/generations",
    "/audio/speech",
    "/rerank",
];

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    (upstream, proxy)
}

#[test]
fn only_the_model_changes() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    for body in [
        r#"{"model":"p1/m"}"#,
        "{ \n\t\"stream\" : false ,\r\n  \"model\"\t:\n \"p1/m\" , \"n\":1 }\r\n ",
        r#"{"z":1,"a":2,"model":"p1/m","b":3}"#,
        r#"{"temperature":0.1,"model":"p1/m","temperature":0.2,"temperature":0.1}"#,
        r#"{"seed":12345678901234567890123,"x":1.0000000000000000000001,"y":1E+400,"z":-0.0,"model":"p1/m"}"#,
        r#"{"c":"\u4f60\ud83d\ude00\/\"\\\b 你好 \u0000 \u007f","model":"p1/m"}"#,
        r#"{"c":"lone \ud800","model":"p1/m"}"#,
        r#"{"messages":[{"model":"p1/x","content":"{\"model\":\"p1/x\"}"}],"model":"p1/m","tools":{"model":"p1/x"}}"#,
        r#"{"modell":"p1/x","model ":"p1/x","model":"p1/m"}"#,
        r#"{"":{"":[[],{},null,true]},"model":"p1/m"}"#,
    ] {
        let response = client.call(chat(body));
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        assert_eq!(upstream.last().text(), body.replace("\"p1/m\"", "\"m\""));
    }
}

#[test]
fn the_key_and_value_of_model_may_be_escaped() {
    let (upstream, proxy) = start();
    for (body, sent) in [
        (r#"{"mod\u0065l":"p1/m"}"#, r#"{"mod\u0065l":"m"}"#),
        (r#"{"\u006d\u006f\u0064\u0065\u006c" : "p1\/m"}"#, r#"{"\u006d\u006f\u0064\u0065\u006c" : "m"}"#),
        (r#"{"model":"p1\u002fm"}"#, r#"{"model":"m"}"#),
        (r#"{"model":"\u0070\u0031/\u006d"}"#, r#"{"model":"m"}"#),
    ] {
        let response = proxy.call(chat(body));
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        assert_eq!(upstream.last().text(), sent);
    }
}

#[test]
fn model_repeated_or_in_another_case_is_refused() {
    let (upstream, proxy) = start();
    for members in [
        r#""model":"p1/m","model":"p1/m""#,
        r#""model":"p1/other","mod\u0065l":"p1/m""#,
        r#""model":"p1/m","Model":"p1/x""#,
        r#""\u004dodel":"p1/x","model":"p1/m""#,
        r#""model":"p1/m","MODEL":null"#,
        r#""Model":"p1/m""#,
    ] {
        let response = proxy.call(chat(format!("{{{members}}}")));
        assert_error(&response, 400, "invalid_model");
    }
    // 64 KiB that would have become 100 MB.
    let many = format!("{{{}\"model\":\"p1/{}\"}}", r#""model":1,"#.repeat(3180), "m".repeat(32_000));
    assert_error(&proxy.call(chat(many)), 400, "invalid_model");
    assert!(upstream.requests().is_empty());
}

#[test]
fn model_over_its_bound_is_refused() {
    let (upstream, proxy) = start();
    let named = |length: usize| json!({"model": format!("p1/{}", "m".repeat(length - 3))}).to_string();
    assert_eq!(proxy.call(chat(named(256))).status, 200);
    let message = assert_error(&proxy.call(chat(named(257))), 400, "invalid_model");
    assert!(message.contains("256"), "{message}");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn any_name_survives_as_json() {
    let (upstream, proxy) = start();
    for name in ["meta-llama/llama-3", "a\"b\\c", "模型", "a b", "tab\there", "x:free@1", "😀"] {
        let body = json!({"model": format!("p1/{name}"), "n": 1}).to_string();
        assert_eq!(proxy.call(chat(&body)).status, 200, "{name}");
        let sent: serde_json::Value = serde_json::from_slice(&upstream.last().body).expect("JSON");
        assert_eq!(sent, json!({"model": name, "n": 1}));
    }
}

#[test]
fn a_large_body_is_exact() {
    let (upstream, proxy) = start();
    let filler: String = (0..400_000).map(|n| format!("{n:07} \\n")).collect();
    let body = format!(r#"{{"x":"{filler}","model":"p1/m"}}"#);
    assert_eq!(proxy.call(chat(&body)).status, 200);
    assert!(upstream.last().body == body.replace("p1/m", "m").as_bytes());
}

#[test]
fn pipelined_large_bodies_are_exact_however_they_come() {
    let (upstream, proxy) = start();
    let bodies = [9_000, 1, 40_000, 7_300, 100_000].map(|lines| {
        let text: String = (0..lines).map(|n| format!("{n:07}\\n")).collect();
        format!(r#"{{"x":"{text}","model":"p1/m"}}"#)
    });
    let requests: Vec<u8> = bodies.iter().flat_map(chat).collect();
    for size in [50_021, 700_001] {
        upstream.forget();
        let mut client = proxy.client();
        requests.chunks(size).for_each(|piece| client.send(piece));
        for body in &bodies {
            assert_eq!(client.response().status, 200, "{} bytes", body.len());
        }
        let sent = upstream.requests();
        assert_eq!(sent.len(), bodies.len());
        for (sent, body) in sent.iter().zip(&bodies) {
            assert!(sent.body == body.replace("p1/m", "m").as_bytes(), "{} bytes", body.len());
        }
    }
}

#[test]
fn every_path_goes_to_its_twin() {
    let (upstream, proxy) = start();
    for path in PATHS {
        upstream.respond(&format!("/v1{path}"), Script::json(200, &json!({"path": path})));
        let response = proxy.call(authorized(&format!("/v1{path}"), r#"{"model":"p1/m","input":"x"}"#));
        assert_eq!(response.json(), json!({"path": path}), "{path}");
        assert_eq!(response.header("x-ai-proxy-provider"), Some("p1"));
        let seen = upstream.last();
        assert_eq!((seen.method.as_str(), seen.path()), ("POST", &*format!("/v1{path}")));
        assert_eq!(seen.text(), r#"{"model":"m","input":"x"}"#);
    }
}

#[test]
fn a_providers_url_may_end_anywhere() {
    let upstream = Upstream::new(&[]);
    let base = format!("http://{}", upstream.address());
    for (path, target) in [
        ("", "/embeddings"),
        ("/", "/embeddings"),
        ("/api/paas/v4", "/api/paas/v4/embeddings"),
        ("/v1/", "/v1/embeddings"),
    ] {
        upstream.respond(target, Script::json(200, &json!({"ok": true})));
        let providers = json!([format!("p1|{base}{path}|{KEY}")]);
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
        let response = proxy.call(authorized("/v1/embeddings", r#"{"model":"p1/m"}"#));
        assert_eq!(response.status, 200, "{path:?}: {}", response.text());
        assert_eq!(upstream.last().target, target);
    }
}

#[test]
fn query_strings_pass() {
    let (upstream, proxy) = start();
    let target = "/v1/chat/completions?api-version=2024-02-01&x=%20%2F&&y";
    assert_eq!(proxy.call(authorized(target, r#"{"model":"p1/m"}"#)).status, 200);
    assert_eq!(upstream.last().target, target);
}

#[test]
fn empty_body_is_named_whatever_the_api() {
    let (_upstream, proxy) = start();
    for path in PATHS.iter().chain(&["/messages"]) {
        for body in ["", " \r\n"] {
            let response = proxy.call(authorized(&format!("/v1{path}"), body));
            assert_eq!(response.status, 400, "{}", response.text());
            let error = &response.json()["error"];
            assert_eq!(
                (&error["message"], &error["reason"]),
                (&json!("the body is empty; send a JSON object"), &json!("invalid_json")),
                "{path}"
            );
        }
    }
}

#[test]
fn what_is_not_a_json_object_is_refused() {
    let (upstream, proxy) = start();
    let unclosed = format!("{{\"model\":\"p1/m\",\"x\":{}", "[".repeat(200_000));
    for body in [
        "",
        " ",
        "not json",
        "[]",
        "\"p1/m\"",
        "1",
        "null",
        "{",
        "{\"model\":\"p1/m\"",
        "{\"model\":\"p1/m\"} x",
        "{\"model\":\"p1/m\"}{}",
        "{\"model\":\"p1/m\",}",
        "{'model':'p1/m'}",
        "{\"model\":\"p1/m\",\"x\":01}",
        "{\"model\":\"p1/m\",\"x\":nul}",
        "{model:\"p1/m\"}",
        "[{\"model\":\"p1/m\"}]",
        &unclosed,
    ] {
        let message = assert_error(&proxy.call(chat(body)), 400, "invalid_json");
        if body.starts_with("{\"") && body.len() < 100 {
            assert!(message.bytes().any(|byte| byte.is_ascii_digit()), "says where: {message}");
        }
    }
    assert_error(&proxy.call(chat([b"{\"model\":\"p1/m\xff\"}".as_slice()].concat())), 400, "invalid_json");
    assert!(upstream.requests().is_empty());
}

#[test]
fn deep_nesting_harms_no_other_request() {
    let (upstream, proxy) = start();
    let depth = 200_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        for body in [
            format!(r#"{{"model":"p1/m","x":{open}1{close}}}"#),
            format!(r#"{{"x":{open}1{close},"model":"p1/m"}}"#),
            format!(r#"{{"model":{open}1{close}}}"#),
        ] {
            let response = proxy.call(chat(&body));
            // Refused, or relayed unchanged: a depth that is only skipped needs no limit.
            if response.status == 200 {
                assert!(upstream.last().body == body.replace("p1/m", "m").as_bytes());
            } else {
                assert_eq!(response.status, 400, "{}", response.text());
            }
            assert_eq!(proxy.get("/healthz").status, 200);
        }
    }
}

#[test]
fn a_model_is_needed() {
    let (upstream, proxy) = start();
    for body in ["{}", r#"{"messages":[{"model":"p1/m"}]}"#, r#"{"models":"p1/m"}"#] {
        assert_error(&proxy.call(chat(body)), 400, "missing_model");
    }
    for value in ["1", "null", "true", "\"\"", "[]", "{}", "[\"p1/m\"]", "{\"model\":\"p1/m\"}"] {
        let body = format!("{{\"model\":{value}}}");
        assert_error(&proxy.call(chat(body)), 400, "invalid_model");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_body_needs_no_content_type() {
    let (upstream, proxy) = start();
    let response = proxy.call(post("/v1/chat/completions", &[("X-Api-Key", TOKEN)], r#"{"model":"p1/m"}"#));
    assert_eq!(response.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn many_clients_each_get_their_own_response() {
    let (upstream, proxy) = start();
    upstream.handle("/v1/chat/completions", |request| {
        Script::whole(200, &[("Content-Type", "application/json")], &request.body)
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.client();
                for call in 0..25 {
                    let mark = format!("{thread}-{call}");
                    let body = json!({"model": "p1/m", "mark": mark}).to_string();
                    assert_eq!(client.call(chat(body)).json()["mark"], *mark);
                }
            });
        }
    });
    assert_eq!(upstream.requests().len(), 200);
}
