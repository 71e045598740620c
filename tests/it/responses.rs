//! Stored responses: later calls about one go to the provider and key that made it.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::calls::{TOKEN, assert_error, authorized, bare, get};
use crate::support::client::{End, Response};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::{Request, Upstream};

const RESPONSES: &str = "/v1/responses";

/// A provider that makes only the response `id` and stores it. All its keys share its store.
fn store(id: &'static str) -> Upstream {
    let upstream = Upstream::new(&["m"]);
    let made = json!({"object": "response", "output": [{"id": "msg_1"}], "id": id});
    upstream.handle(RESPONSES, move |request| {
        if !request.text().contains("\"stream\":true") {
            return Script::json(200, &made);
        }
        let event =
            |kind: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{made}}}\n\n");
        Script::sse().chunk(event("response.created")).chunk(event("response.completed")).end()
    });
    upstream.respond(&format!("{RESPONSES}/{id}"), Script::json(200, &json!({"id": id, "from": id})));
    upstream.respond(
        &format!("{RESPONSES}/{id}/input_items"),
        Script::json(200, &json!({"data": [], "from": id})),
    );
    upstream.respond(&format!("{RESPONSES}/{id}/cancel"), Script::json(200, &json!({"status": "cancelled"})));
    upstream
}

fn call(proxy: &Proxy, method: &str, behind: &str) -> Response {
    let token = format!("Bearer {TOKEN}");
    proxy.call(bare(method, &format!("{RESPONSES}/{behind}"), &[("Authorization", &token)]))
}

fn create(proxy: &Proxy, body: &Value) -> Response {
    let response = proxy.call(authorized(RESPONSES, body.to_string()));
    assert_eq!((response.status, response.end != End::Cut), (200, true), "{}", response.text());
    response
}

fn calls(upstream: &Upstream) -> Vec<String> {
    upstream.requests().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
}

#[test]
fn every_later_call_goes_to_the_provider_that_made_it() {
    for streamed in [false, true] {
        let (first, second) = (store("resp_1"), store("resp_2"));
        let proxy = Proxy::start(&config(&[("p1", &first), ("p2", &second)]));
        create(&proxy, &json!({"model": "p2/m", "input": "hi", "stream": streamed}));
        assert_eq!(call(&proxy, "GET", "resp_2?include=a%20b").json()["from"], "resp_2");
        assert_eq!(call(&proxy, "GET", "resp_2/input_items?limit=2").json()["from"], "resp_2");
        assert_eq!(call(&proxy, "POST", "resp_2/cancel").json()["status"], "cancelled");
        assert_eq!(call(&proxy, "HEAD", "resp_2").status, 200);
        let response = call(&proxy, "DELETE", "resp_2");
        assert_eq!((response.status, response.header("x-ai-proxy-provider")), (200, Some("p2")));
        let expected = [
            "POST /v1/responses",
            "GET /v1/responses/resp_2?include=a%20b",
            "GET /v1/responses/resp_2/input_items?limit=2",
            "POST /v1/responses/resp_2/cancel",
            "GET /v1/responses/resp_2",
            "DELETE /v1/responses/resp_2",
        ];
        assert_eq!(calls(&second), expected);
        assert!(second.requests().iter().skip(1).all(|request| request.body.is_empty()));
        let key = format!("Bearer {}", crate::support::calls::KEY);
        assert!(second.requests().iter().all(|request| request.head.get("authorization") == Some(&key)));
        assert!(first.requests().is_empty(), "streamed: {streamed}");
        proxy.log_line(&["provider=p2", "model=p2/m", "status=200", "attempts=1"]);
    }
}

/// The bytes after the head of a request that usually has no body are its body, never the next request.
#[test]
fn a_body_is_announced_to_the_provider_whatever_the_method() {
    let upstream = store("resp_1");
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let hidden = "DELETE /v1/responses/resp_2 HTTP/1.1\r\nHost: provider.test\r\n\r\n";
    let (token, length) = (format!("Bearer {TOKEN}"), hidden.len().to_string());
    for method in ["GET", "DELETE", "HEAD"] {
        let fields = [("Authorization", token.as_str()), ("Content-Length", length.as_str())];
        let head = bare(method, "/v1/responses/resp_1", &fields);
        let response = proxy.call([&head[..], hidden.as_bytes()].concat());
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(upstream.last().text(), hidden, "{method}");
    }
    // The response to the hidden request would arrive on the connection of the next call.
    assert_eq!(call(&proxy, "GET", "resp_1").json()["from"], "resp_1");
    let expected = ["GET", "DELETE", "GET", "GET"].map(|method| format!("{method} /v1/responses/resp_1"));
    assert_eq!(calls(&upstream), expected);
}

#[test]
fn what_continues_a_response_goes_to_the_key_that_made_it() {
    let upstream = Upstream::new(&["m"]);
    // Each key has a store of its own.
    let key_of =
        |request: &Request| request.head.get("authorization").unwrap_or_default().replace("Bearer ", "");
    upstream.handle(RESPONSES, move |request| {
        let key = key_of(request);
        match request.text().contains("previous_response_id") && !request.text().contains(&key) {
            true => Script::json(400, &json!({"error": {"code": "previous_response_not_found"}})),
            false => Script::json(200, &json!({"id": format!("resp_{key}")})),
        }
    });
    for key in ["key-number-one", "key-number-two", "key-number-three"] {
        upstream.handle(&format!("{RESPONSES}/resp_{key}"), move |request| {
            Script::json(if key_of(request) == key { 200 } else { 404 }, &json!({"key": key_of(request)}))
        });
    }
    let providers: Vec<String> = ["key-number-one", "key-number-two", "key-number-three"]
        .iter()
        .map(|key| format!("p1|{}|{key}", upstream.url()))
        .collect();
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers, "models": {"v": ["p1/m"]}})));
    let mut client = proxy.client();
    let mut previous = create(&proxy, &json!({"model": "p1/m"})).json()["id"].clone();
    for turn in 0..20 {
        // Other requests in between, so that another replica is the least busy.
        client.send(authorized(RESPONSES, r#"{"model":"p1/m"}"#));
        let model = if turn % 2 == 0 { "p1/m" } else { "v" };
        let next =
            create(&proxy, &json!({"model": model, "previous_response_id": previous})).json()["id"].clone();
        assert_eq!(next, previous, "the same key");
        assert_eq!(client.response().status, 200);
        previous = next;
    }
    let id = previous.as_str().expect("an id");
    assert_eq!(call(&proxy, "GET", id).json()["key"], id.replace("resp_", ""));
    assert_eq!(upstream.last().target, format!("{RESPONSES}/{id}"));

    // A second instance knows no owners, and finds each under whichever key has it.
    let other = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    assert_eq!(call(&other, "GET", id).json()["key"], id.replace("resp_", ""));
}

#[test]
fn after_a_restart_the_providers_are_asked_in_turn() {
    let (first, second, third) = (store("resp_1"), store("resp_2"), store("resp_3"));
    let proxy = Proxy::start(&config(&[("p1", &first), ("p2", &second), ("p3", &third)]));
    let response = call(&proxy, "GET", "resp_3");
    assert_eq!(
        (response.json()["from"].as_str(), response.header("x-ai-proxy-provider")),
        (Some("resp_3"), Some("p3"))
    );
    assert_eq!((calls(&first), calls(&second)), (calls(&third), calls(&third)));
    proxy.log_line(&["provider=p3", "model=-", "status=200", "attempts=3"]);
    assert!(
        !proxy.log().contains(" attempt="),
        "a provider that does not have it has not failed: {}",
        proxy.log()
    );
    // Then it is known.
    assert_eq!(call(&proxy, "POST", "resp_3/cancel").status, 200);
    assert_eq!((first.requests().len(), second.requests().len(), third.requests().len()), (1, 1, 2));
    assert_eq!(call(&proxy, "GET", "resp_none").status, 404, "nobody has it");
    // A deleted response is forgotten.
    assert_eq!(call(&proxy, "DELETE", "resp_3").status, 200);
    third.respond("/v1/responses/resp_3", Script::json(404, &json!({"error": {}})));
    let asked = first.requests().len();
    assert_eq!(call(&proxy, "GET", "resp_3").status, 404);
    assert_eq!(first.requests().len(), asked + 1);
}

#[test]
fn search_gives_the_most_telling_response() {
    let (first, second) = (store("resp_1"), store("resp_2"));
    let cancel = "/v1/responses/resp_x/cancel";
    for (one, other, status) in
        [(404, 400, 400), (400, 404, 400), (404, 500, 500), (401, 404, 401), (405, 404, 405)]
    {
        first.respond(cancel, Script::json(one, &json!({"error": {"status": one}})));
        second.respond(cancel, Script::json(other, &json!({"error": {"status": other}})));
        let proxy = Proxy::start(&config(&[("p1", &first), ("p2", &second)]));
        assert_eq!(call(&proxy, "POST", "resp_x/cancel").json()["error"]["status"], status, "{one} {other}");
    }
    // The unreachable provider may have it: a 404 would be wrong.
    let gone = "p2|http://127.0.0.1:9/v1|key".to_owned();
    let providers = json!({"providers": [format!("p1|{}|key", first.url()), gone]});
    let proxy = Proxy::start(&with(config(&[]), providers));
    assert_error(&call(&proxy, "GET", "resp_x"), 502, "upstream_unreachable");
}

#[test]
fn a_token_reaches_the_responses_of_its_own_providers_alone() {
    let (first, second) = (store("resp_1"), store("resp_2"));
    let tokens = json!({"tokens": [
        format!("all|{TOKEN}"), {"name": "some", "token": "sk-some-0123456789", "models": ["^p1/"]}]});
    let proxy = Proxy::start(&with(config(&[("p1", &first), ("p2", &second)]), tokens));
    assert_eq!(proxy.get("/health").status, 200);
    let some = |id: &str| {
        let target = format!("{RESPONSES}/{id}");
        proxy.call(bare("GET", &target, &[("Authorization", "Bearer sk-some-0123456789")]))
    };
    assert_eq!(some("resp_1").status, 200);
    assert_eq!(some("resp_2").status, 404);
    assert!(second.requests().is_empty(), "the other provider is not even asked");
    create(&proxy, &json!({"model": "p2/m"}));
    assert_error(&some("resp_2"), 404, "not_found");
    assert_eq!(call(&proxy, "GET", "resp_2").status, 200);
    assert_error(&proxy.call(bare("GET", "/v1/responses/resp_2", &[])), 401, "missing_token");
}

/// Finding the providers that may have a response compares every model of their lists; the worker leaves that
/// to a helper.
#[test]
fn search_for_a_response_among_many_models_delays_no_other_request() {
    let models: Vec<String> = (0..10_000).map(|number| format!("some-model-of-many-{number}")).collect();
    let upstream = Upstream::new(&models.iter().map(String::as_str).collect::<Vec<_>>());
    let patterns: Vec<String> = (0..20).map(|number| format!("other.*{number}$")).collect();
    let token = json!({"name": "some", "token": TOKEN, "models": patterns});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"tokens": [token]})));
    assert_eq!(proxy.get("/health").status, 200);
    let (mut looking, mut other) = (proxy.client(), proxy.client());
    assert_eq!(other.call(get("/healthz")).status, 200);
    let bearer = format!("Bearer {TOKEN}");
    looking.send(bare("GET", "/v1/responses/resp_1", &[("Authorization", &bearer)]));
    // The search has begun by then; if not, the test checks nothing and does not fail.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(other.call(get("/healthz")).status, 200);
    assert!(looking.is_silent_for(Duration::from_millis(1)), "it was looked for first");
    assert_error(&looking.response(), 404, "not_found");
}

#[test]
fn a_stored_stream_is_resumed() {
    let upstream = store("resp_1");
    let event = "event: response.completed\ndata: {\"type\":\"response.completed\"}\n\n";
    upstream.respond("/v1/responses/resp_1", Script::sse().chunk(event).end());
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let response = call(&proxy, "GET", "resp_1?stream=true&starting_after=5");
    assert_eq!((response.text().as_str(), response.end), (event, End::FinalChunk));
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(upstream.last().target, "/v1/responses/resp_1?stream=true&starting_after=5");
    proxy.log_line(&["stream=true", "status=200"]);
}

#[test]
fn only_ids_and_their_methods_are_relayed() {
    let upstream = store("resp_1");
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let long = "x".repeat(513);
    for id in ["..", ".", "%2e%2e", "a%2fb", "a/b", "a%00", "a%0d%0ab", "a\\b", "a/b/", "a//b", &long] {
        assert_error(&call(&proxy, "GET", id), 404, "not_found");
    }
    for (method, path, allow) in [
        ("PUT", "resp_1", "GET, HEAD, DELETE"),
        ("POST", "resp_1", "GET, HEAD, DELETE"),
        ("GET", "resp_1/cancel", "POST"),
        ("GET", "resp_1/cancel/", "POST"),
        ("GET", "resp_1//cancel", "POST"),
        ("GET", "", "POST"),
        ("DELETE", "resp_1/input_items", "GET, HEAD"),
        ("GET", "compact", "POST"),
        ("DELETE", "input_tokens", "POST"),
    ] {
        let response = call(&proxy, method, path);
        assert_error(&response, 405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some(allow));
    }
    assert!(upstream.requests().is_empty());
    upstream.respond("/v1/responses/resp_a%3D%3D", Script::json(200, &json!({})));
    assert_eq!(call(&proxy, "GET", "resp_a%3D%3D").status, 200, "an escape passes as it came");
}

#[test]
fn where_a_search_only_began_nothing_is_learnt() {
    let (first, second) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    for upstream in [&first, &second] {
        upstream.respond("/v1/responses/resp_1", Script::sse().then(Step::Reset));
    }
    let proxy = Proxy::start(&config(&[("p1", &first), ("p2", &second)]));
    let response = call(&proxy, "GET", "resp_1?stream=true");
    assert_eq!((response.status, response.header("x-ai-proxy-provider")), (502, Some("p1")));
    let event = "data: {\"type\":\"response.completed\"}\n\n";
    first.respond("/v1/responses/resp_1", Script::sse().chunk(event).end());
    second.respond("/v1/responses/resp_1", Script::json(404, &json!({"error": {"message": "none"}})));
    let response = call(&proxy, "GET", "resp_1?stream=true");
    assert_eq!((response.status, response.text().as_str()), (200, event));
}

#[test]
fn head_of_a_stored_stream_has_no_body() {
    let upstream = store("resp_1");
    let event = "data: {\"type\":\"response.completed\"}\n\n";
    upstream.respond("/v1/responses/resp_1", Script::sse().chunk(event).end());
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"stream_heartbeat": 0.05})));
    let token = format!("Bearer {TOKEN}");
    let mut client = proxy.client();
    let response =
        client.call(bare("HEAD", "/v1/responses/resp_1?stream=true", &[("Authorization", &token)]));
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(client.call(bare("GET", "/healthz", &[])).status, 200, "the connection is in step");
}
