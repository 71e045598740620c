//! The cost of a call in its token's day: the provider's report wherever there is one, else an estimate.

use serde_json::{Value, json};

use crate::support::calls::{DONE, TOKEN, assert_error, authorized, bare, completion, event};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

/// A proxy whose only token has a limit of tokens a day.
fn start(tokens_per_day: u64) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let token = json!({"name": "tester", "token": TOKEN, "tokens_per_day": tokens_per_day});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"tokens": [token]})));
    (upstream, proxy)
}

/// A call to `path` with that response of the provider; its body.
fn call(proxy: &Proxy, upstream: &Upstream, path: &str, body: &Value, script: Script) -> String {
    upstream.respond(path, script);
    let response = proxy.call(authorized(path, body.to_string()));
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

fn quarter(bytes: usize) -> usize {
    bytes.div_ceil(4)
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn buffered_response_costs_what_is_reported_in_its_place_else_an_estimate() {
    let (upstream, proxy) = start(1_000_000_000);
    let asked = json!({"model": "p1/m", "messages": [{"role": "user", "content": "hi"}]});
    let input = quarter(asked.to_string().len());
    let said = "12345678";
    let echo: String = (0..20).map(|at| format!(r#","x{at}":{{"usage":{{"prompt_tokens":1}}}}"#)).collect();
    for (members, tokens) in [
        (r#","usage":{"prompt_tokens":71,"completion_tokens":2}"#.to_owned(), "71+2".to_owned()),
        (format!(r#"{echo},"usage":{{"prompt_tokens":72,"completion_tokens":2}}"#), "72+2".to_owned()),
        (format!(r#","usage":{{"prompt_tokens":73,"completion_tokens":2}}{echo}"#), "73+2".to_owned()),
        (r#","x_groq":{"usage":{"prompt_tokens":74,"completion_tokens":2}}"#.to_owned(), "74+2".to_owned()),
        (
            r#","usage":{"prompt_tokens":75,"completion_tokens":2,"total_tokens":354}"#.to_owned(),
            "75+279".to_owned(),
        ),
        (
            r#","usage":{"prompt_tokens":76,"completion_tokens":1000000.0}"#.to_owned(),
            "76+1000000".to_owned(),
        ),
        (
            r#","usage":{"prompt_tokens":77,"completion_tokens":"1000000"}"#.to_owned(),
            "77+1000000".to_owned(),
        ),
        (r#","usage":{"prompt_tokens":78,"completion_tokens":-5}"#.to_owned(), "~78+2".to_owned()),
        (r#","usage":{"prompt_tokens":1e30,"completion_tokens":79}"#.to_owned(), format!("~{input}+79")),
        (r#","usage":{"prompt_tokens":80}"#.to_owned(), "~80+2".to_owned()),
        (echo.clone(), format!("~{input}+2")),
    ] {
        let body =
            format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{said}"}}}}]{members}}}"#);
        let script = Script::whole(200, &[("Content-Type", "application/json")], &body);
        assert_eq!(call(&proxy, &upstream, CHAT, &asked, script), body);
        proxy.log_line(&[&format!(" tokens={tokens} ")]);
    }
}

#[test]
fn every_api_costs_something() {
    let (upstream, proxy) = start(1_000_000_000);
    let usage = |counts: Value| json!({"data": [], "usage": counts});
    for (path, body, tokens) in [
        ("/v1/embeddings", usage(json!({"prompt_tokens": 61, "total_tokens": 61})), "61+0"),
        (
            "/v1/rerank",
            json!({"results": [], "meta": {"billed_units": {"input_tokens": 62, "output_tokens": 1}}}),
            "62+1",
        ),
        ("/v1/rerank", usage(json!({"total_tokens": 63})), "63+0"),
        (
            "/v1/images/generations",
            usage(json!({"input_tokens": 64, "output_tokens": 4160, "total_tokens": 4224})),
            "64+4160",
        ),
        ("/v1/images/generations", json!({"data": [{"url": "https://a.example/1.png"}]}), "~8+1000"),
        ("/v1/responses", usage(json!({"input_tokens": 65, "output_tokens": 3, "total_tokens": 68})), "65+3"),
        ("/v1/responses", json!({"output": [{"content": [{"text": "1234"}]}]}), "~8+1"),
        ("/v1/completions", json!({"choices": [{"text": "12345"}]}), "~8+2"),
        ("/v1/moderations", json!({"results": [{"flagged": false}]}), "~8+0"),
    ] {
        let asked = json!({"model": "p1/m", "input": "hi"});
        call(&proxy, &upstream, path, &asked, Script::json(200, &body));
        proxy.log_line(&[&format!(" tokens={tokens} ")]);
    }
    let sound = Script::whole(200, &[("Content-Type", "audio/mpeg")], vec![0; 5000]);
    call(&proxy, &upstream, "/v1/audio/speech", &json!({"model": "p1/m", "input": "hi"}), sound);
    proxy.log_line(&[" tokens=~8+5 "]);
}

#[test]
fn stream_without_usage_costs_an_estimate_of_its_text() {
    let (upstream, proxy) = start(1_000_000_000);
    let asked = json!({"model": "p1/m", "stream": true, "messages": []});
    let input = quarter(asked.to_string().len());
    let text: Vec<String> = (0..50).map(|_| event("1234")).collect();
    let script = || text.iter().fold(Script::sse(), Script::chunk);
    call(&proxy, &upstream, CHAT, &asked, script().chunk(DONE).end());
    proxy.log_line(&["stream=true", &format!(" tokens=~{input}+50 ")]);
    let groq =
        "data: {\"choices\":[],\"x_groq\":{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":51}}}\n\n";
    call(&proxy, &upstream, CHAT, &asked, script().chunk(groq).chunk(DONE).end());
    proxy.log_line(&["stream=true", " tokens=9+51 "]);
    let delta = |text: &str| format!("event: response.output_text.delta\ndata: {{\"delta\":\"{text}\"}}\n\n");
    let last = "event: response.completed\ndata: {\"response\":{\"output\":[{\"content\":[{\"text\":\"12341234\"}]}]}}\n\n";
    let asked = json!({"model": "p1/m", "stream": true, "input": "hello"});
    let input = quarter(asked.to_string().len());
    let script = Script::sse().chunk(delta("1234")).chunk(delta("1234")).chunk(last).end();
    call(&proxy, &upstream, "/v1/responses", &asked, script);
    proxy.log_line(&["stream=true", &format!(" tokens=~{input}+2 ")]);
}

#[test]
fn client_that_leaves_costs_its_prompt_and_the_response_so_far() {
    let (upstream, proxy) = start(1_000_000_000);
    let asked = json!({"model": "p1/m", "stream": true, "messages": []});
    let input = quarter(asked.to_string().len());
    let started = json!({"message": {"usage": {"input_tokens": 81, "output_tokens": 1}}});
    for (first, tokens) in
        [(String::new(), format!("~{input}+21")), (format!("data: {started}\n\n"), "~81+21".to_owned())]
    {
        let script =
            (0..20).fold(Script::sse().chunk(first + &event("")), |script, _| script.chunk(event("1234")));
        upstream.chat(script.chunk(event("last")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(authorized(CHAT, asked.to_string()));
        let mut stream = client.streamed();
        while stream.next_event().expect("an event") != event("1234") {}
        for _ in 1..20 {
            assert_eq!(stream.next_event(), Some(event("1234")));
        }
        assert_eq!(stream.next_event(), Some(event("last")));
        client.leave();
        proxy.log_line(&["stream=true", &format!(" tokens={tokens} ")]);
    }
    let asked = json!({"model": "p1/m", "messages": [], "user": "someone"});
    upstream.chat(Script::default().then(Step::Silence));
    upstream.forget();
    let mut client = proxy.client();
    client.send(authorized(CHAT, asked.to_string()));
    upstream.wait_requests(1);
    client.leave();
    proxy.log_line(&["status=499", &format!(" tokens=~{}+0 ", quarter(asked.to_string().len()))]);
}

#[test]
fn day_that_estimates_have_used_up_is_over() {
    let (upstream, proxy) = start(10);
    let asked = json!({"model": "p1/m", "stream": true, "messages": []});
    call(&proxy, &upstream, CHAT, &asked, Script::sse().chunk(event("hi")).chunk(DONE).end());
    assert_error(&proxy.call(authorized(CHAT, asked.to_string())), 429, "rate_limited");
}

#[test]
fn errors_and_counted_prompts_cost_nothing() {
    let (upstream, proxy) = start(1);
    upstream.chat(Script::json(400, &json!({"error": {"message": "no"}})));
    for _ in 0..2 {
        let asked = json!({"model": "p1/m", "messages": []}).to_string();
        assert_eq!(proxy.call(authorized(CHAT, asked)).status, 400);
    }
    let asked = json!({"model": "p1/m", "input": "hi"});
    for _ in 0..2 {
        call(
            &proxy,
            &upstream,
            "/v1/responses/input_tokens",
            &asked,
            Script::json(200, &json!({"input_tokens": 9})),
        );
    }
    proxy.log_line(&["status=200", " tokens=- "]);
}

#[test]
fn metrics_and_the_json_log_tell_estimates_from_reports() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"log_format": "json"})));
    let asked = json!({"model": "p1/m", "messages": []});
    call(&proxy, &upstream, CHAT, &asked, Script::json(200, &completion("hi")));
    proxy.log_line(&[r#""prompt_tokens":3,"completion_tokens":5,"tokens_estimated":false,"#]);
    let mut body = completion("12345678");
    body["usage"] = json!({"prompt_tokens": 4});
    call(&proxy, &upstream, CHAT, &asked, Script::json(200, &body));
    proxy.log_line(&[r#""prompt_tokens":4,"completion_tokens":2,"tokens_estimated":true,"#]);
    let labels = r#"{provider="p1",model="m",token="tester",kind="#;
    for line in [
        format!("ai_proxy_tokens_total{labels}\"prompt\"}} 7\n"),
        format!("ai_proxy_tokens_total{labels}\"completion\"}} 5\n"),
        format!("ai_proxy_tokens_estimated_total{labels}\"completion\"}} 2\n"),
    ] {
        eventually(&line, || proxy.get("/metrics").text().contains(&line).then_some(()));
    }
}

#[test]
fn stream_is_asked_for_its_usage_and_the_client_sees_no_difference() {
    let upstream = Upstream::new(&["m"]);
    let limited = json!({"name": "limited", "token": TOKEN, "tokens_per_day": 1_000_000});
    let free = json!({"name": "free", "token": TOKEN});
    let added = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":2}}\n\n";
    let null = "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":null}\n\n";
    for (token, option, path, adds) in [
        (&limited, "auto", CHAT, true),
        (&limited, "auto", "/v1/completions", true),
        (&limited, "never", CHAT, false),
        (&free, "auto", CHAT, false),
        (&free, "always", CHAT, true),
        (&limited, "always", "/v1/responses", false),
    ] {
        let provider = json!({"name": "p1", "url": upstream.url(), "key": "k", "stream_usage": option});
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider], "tokens": [token]})));
        for (options, asks) in [
            ("", false),
            (",\"stream_options\": {\"include_usage\": false}", false),
            (",\"stream_options\": {\"include_usage\": true}", true),
        ] {
            let body = format!("{{\"model\": \"p1/m\", \"stream\": true{options}}}");
            // All in one piece, and each in its own.
            for pieces in [
                vec![event("a") + null + added + DONE],
                vec![event("a") + null, added.to_owned(), DONE.to_owned()],
            ] {
                let script = pieces.iter().fold(Script::sse(), Script::chunk).end();
                upstream.respond(path, script);
                let response = proxy.call(authorized(path, &body));
                let all = event("a") + null + if adds && !asks { "" } else { added } + DONE;
                assert_eq!(response.text(), all, "{option} {path} {options}");
                let sent = upstream.last().text().replace("\"m\"", "\"p1/m\"");
                let expected = match (adds && !asks, options) {
                    (true, "") => body.replacen('{', "{\"stream_options\":{\"include_usage\":true},", 1),
                    (true, _) => body.replace("false", "true"),
                    (false, _) => body.clone(),
                };
                assert_eq!(sent, expected, "{option} {path}");
            }
            proxy.log_line(&["stream=true", " tokens=40+2 "]);
        }
    }
}

#[test]
fn background_response_is_charged_once_when_it_is_fetched() {
    let upstream = Upstream::new(&["m"]);
    let token = json!({"name": "tester", "token": TOKEN, "tokens_per_day": 1000});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"tokens": [token]})));
    let response = |status: &str, usage: Value| json!({"id": "resp_1", "status": status, "background": true, "usage": usage});
    let create = json!({"model": "p1/m", "input": "hi", "background": true});
    let used = || {
        let status = proxy.get("/v1/status").json();
        status["tokens"][0]["tokens_per_day"]["used"].as_u64().expect("a number")
    };
    let fetch = |script: Script, method: &str, behind: &str| {
        upstream.respond(
            &format!("/v1/responses/resp_1{}", behind.split('?').next().unwrap_or_default()),
            script,
        );
        let bearer = format!("Bearer {TOKEN}");
        let target = format!("/v1/responses/resp_1{behind}");
        let fields = [("Authorization", bearer.as_str()), ("Content-Length", "0")];
        assert_eq!(proxy.call(bare(method, &target, &fields)).status, 200);
    };
    call(&proxy, &upstream, "/v1/responses", &create, Script::json(200, &response("queued", Value::Null)));
    fetch(Script::json(200, &response("in_progress", Value::Null)), "GET", "");
    assert_eq!(used(), 0);
    let usage = json!({"input_tokens": 30, "output_tokens": 12, "total_tokens": 42});
    let done = response("completed", usage.clone());
    for _ in 0..3 {
        fetch(Script::json(200, &done), "GET", "");
        fetch(Script::json(200, &done), "POST", "/cancel");
        fetch(Script::json(200, &json!({"data": [], "usage": usage})), "GET", "/input_items");
    }
    let stream = format!("data: {{\"type\":\"response.completed\",\"response\":{done}}}\n\n");
    fetch(Script::sse().chunk(&stream).end(), "GET", "?stream=true");
    assert_eq!(used(), 42);
    proxy.log_line(&[" tokens=30+12 "]);

    // A response that was not made in the background was charged when it was made.
    let mut other = done.clone();
    other["background"] = json!(false);
    upstream.respond("/v1/responses/resp_2", Script::json(200, &other));
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(proxy.call(bare("GET", "/v1/responses/resp_2", &[("Authorization", &bearer)])).status, 200);
    assert_eq!(used(), 42);

    // The same for a streamed one.
    let plain = json!({"model": "p1/m", "input": "hi"});
    other["id"] = json!("resp_6");
    call(&proxy, &upstream, "/v1/responses", &plain, Script::json(200, &other));
    assert_eq!(used(), 84);
    upstream.respond("/v1/responses/resp_6", Script::sse().chunk(&stream).end());
    let target = "/v1/responses/resp_6?stream=true";
    assert_eq!(proxy.call(bare("GET", target, &[("Authorization", &bearer)])).status, 200);
    assert_eq!(used(), 84);

    // Made by a call that this process has not seen, and streamed.
    for (id, script, charged) in
        [("resp_3", Script::json(200, &done), 126), ("resp_4", Script::sse().chunk(&stream).end(), 168)]
    {
        upstream.respond(&format!("/v1/responses/{id}"), script);
        for _ in 0..2 {
            let target = format!("/v1/responses/{id}?stream=true");
            assert_eq!(proxy.call(bare("GET", &target, &[("Authorization", &bearer)])).status, 200);
        }
        assert_eq!(used(), charged, "{id}");
    }

    // The client left during the stream: the rest is charged when the response is fetched.
    let begun =
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_5\"}}\n\n";
    let delta = "event: response.output_text.delta\ndata: {\"delta\":\"12345678\"}\n\n";
    upstream.respond("/v1/responses", Script::sse().chunk(begun).chunk(delta).then(Step::Silence));
    let create = json!({"model": "p1/m", "input": "hi", "background": true, "stream": true}).to_string();
    let mut client = proxy.client();
    client.send(authorized("/v1/responses", &create));
    let mut streamed = client.streamed();
    while streamed.next_event().expect("an event") != delta {}
    client.leave();
    let estimate = quarter(create.len()) as u64 + 2;
    eventually("the charge", || (used() == 168 + estimate).then_some(()));
    upstream.respond("/v1/responses/resp_5", Script::json(200, &done));
    assert_eq!(proxy.call(bare("GET", "/v1/responses/resp_5", &[("Authorization", &bearer)])).status, 200);
    assert_eq!(used(), 168 + 42);
}
