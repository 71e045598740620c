//! The merged model list, the models that can be called, and the pages about the proxy itself.

use serde_json::json;

use crate::support::calls::{KEY, TOKEN, ask, assert_error, bare, completion, event, get};
use crate::support::eventually;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

fn provider(models: &[&str]) -> Upstream {
    let upstream = Upstream::new(models);
    upstream.chat(Script::json(200, &completion("hello")));
    upstream
}

fn listed(proxy: &Proxy) -> Vec<String> {
    let response = proxy.get("/v1/models");
    assert_eq!(response.status, 200, "{}", response.text());
    let list = response.json();
    assert_eq!(list["object"], "list");
    let entries = list["data"].as_array().expect("data");
    for entry in entries {
        assert_eq!(entry["object"], "model", "{entry}");
        assert!(entry["owned_by"].is_string(), "{entry}");
    }
    entries.iter().map(|entry| entry["id"].as_str().expect("id").to_owned()).collect()
}

#[test]
fn lists_all_providers_sorted() {
    let (one, two) = (provider(&["z", "a"]), provider(&["m", "org/b"]));
    let proxy = Proxy::start(&config(&[("p2", &two), ("p1", &one)]));
    assert_eq!(listed(&proxy), ["p1/a", "p1/z", "p2/m", "p2/org/b"]);
    for upstream in [&one, &two] {
        let seen = upstream.list_requests();
        let key = format!("Bearer {KEY}");
        assert!(seen.iter().all(|r| r.head.get("authorization") == Some(&key)));
        assert!(seen.iter().all(|r| r.method == "GET" && r.target == "/v1/models"));
    }
}

#[test]
fn every_listed_model_can_be_retrieved_and_called() {
    let (one, two) = (provider(&["z", "a:free"]), provider(&["org/b", "模型"]));
    let proxy = Proxy::start(&config(&[("p1", &one), ("p2", &two)]));
    let ids = listed(&proxy);
    assert_eq!(ids.len(), 4);
    for id in ids {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let slashes = id.replace('/', "%2f");
        for form in [&encoded, &slashes, &id] {
            // A target is ASCII; what is not must be encoded.
            if !form.is_ascii() {
                continue;
            }
            let response = proxy.get(&format!("/v1/models/{form}"));
            assert_eq!(response.status, 200, "{form}: {}", response.text());
            assert_eq!(response.json()["id"], *id);
            assert_eq!(response.json()["object"], "model");
        }
        assert_eq!(proxy.call(ask(&id)).status, 200, "{id}");
    }
}

#[test]
fn unknown_models_are_404() {
    let upstream = provider(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"language": "zh"})));
    let message = assert_error(&proxy.get("/v1/models/p1/nope"), 404, "model_not_found");
    assert_eq!(message, "未找到模型: p1/nope");
    let message = assert_error(&proxy.call(ask("nope/m")), 404, "model_not_found");
    assert_eq!(message, "未找到模型: nope/m");
    for id in ["nope", "/m", "/", "P1/m"] {
        assert_error(&proxy.call(ask(id)), 404, "model_not_found");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn unknown_model_names_those_that_its_caller_may_mean() {
    let (one, two, three) = (provider(&["both"]), provider(&["both"]), provider(&["both"]));
    let tokens = json!([{"name": "t", "token": TOKEN, "models": ["^zhipu/", "^deepseek/"]}]);
    let config = config(&[("deepseek", &one), ("zhipu", &two), ("secret", &three)]);
    let proxy = Proxy::start(&with(config, json!({"tokens": tokens, "language": "en"})));
    assert_eq!(listed(&proxy).len(), 3);
    for (id, message) in [
        ("both", "model not found: both; write deepseek/both or zhipu/both"),
        ("zhpu/both", "model not found: zhpu/both; write zhipu/both"),
        ("Zhipu/x\n", "model not found: Zhipu/x\\u{a}; write zhipu/x\\u{a}"),
        ("secre/both", "model not found: secre/both"),
        ("zhipu/", "model not found: zhipu/"),
        ("other/both", "model not found: other/both"),
    ] {
        assert_eq!(assert_error(&proxy.call(ask(id)), 404, "model_not_found"), message);
    }
    let message = assert_error(&proxy.get("/v1/models/deepsek/both"), 404, "model_not_found");
    assert_eq!(message, "model not found: deepsek/both; write deepseek/both");
}

#[test]
fn model_without_provider_goes_to_the_only_one_that_lists_it() {
    let (one, two) = (provider(&["mine", "both"]), provider(&["yours", "both"]));
    let proxy = Proxy::start(&config(&[("p1", &one), ("p2", &two)]));
    assert_eq!(listed(&proxy).len(), 4);
    assert_eq!(proxy.call(ask("yours")).status, 200);
    assert_eq!(one.requests().len(), 0);
    assert!(two.last().text().contains(r#""model":"yours""#));
    assert_error(&proxy.call(ask("both")), 404, "model_not_found");
    assert_error(&proxy.call(ask("neither")), 404, "model_not_found");
}

#[test]
fn supported_models_narrow_what_is_listed_and_called() {
    let upstream = provider(&["gpt-4o", "gpt-3", "glm-4", "x-gpt-4o"]);
    let filter = json!({"supported_models": ["^p1/gpt-4", "GLM|glm"]});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), filter));
    assert_eq!(listed(&proxy), ["p1/glm-4", "p1/gpt-4o"]);
    assert_eq!(proxy.call(ask("p1/gpt-4o")).status, 200);
    assert_eq!(proxy.call(ask("gpt-4o")).status, 200);
    for id in ["p1/gpt-3", "p1/x-gpt-4o", "gpt-3"] {
        assert_error(&proxy.call(ask(id)), 404, "model_not_found");
    }
    assert_error(&proxy.get("/v1/models/p1/gpt-3"), 404, "model_not_found");
}

#[test]
fn a_providers_own_list_replaces_the_fetched_one() {
    let upstream = provider(&["fetched"]);
    let object = json!({"name": "p1", "url": upstream.url(), "key": KEY, "models": ["given", "org/given"]});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": [object]})));
    assert_eq!(listed(&proxy), ["p1/given", "p1/org/given"]);
    assert_eq!(proxy.call(ask("given")).status, 200);
    assert_error(&proxy.call(ask("fetched")), 404, "model_not_found");
}

#[test]
fn a_provider_without_a_list_hides_no_other() {
    let (one, two) = (provider(&["a"]), provider(&[]));
    for script in [
        Script::json(500, &json!({})),
        Script::whole(200, &[], "<html>"),
        Script::json(200, &json!({"data": [{"id": 7}, {"name": "x"}, "y", null, {"id": ""}]})),
        Script::json(200, &json!({"models": null})),
    ] {
        two.respond("/v1/models", script);
        let proxy = Proxy::start(&config(&[("p1", &one), ("p2", &two)]));
        assert_eq!(listed(&proxy), ["p1/a"]);
        // An unlisted model may still be called by its full name.
        assert_eq!(proxy.call(ask("p2/unlisted")).status, 200);
    }
}

/// A provider's description of a model is not its name in the list.
#[test]
fn odd_entries_of_a_list_cost_their_own_entry_alone() {
    let upstream = provider(&[]);
    let list = r#"{"data":[null,7,"x",[],{"name":"x"},{"id":null},{"id":"\ud800"},{"id":"x","id":3},
        {"id":"b","owned_by":"someone","created":5,"created":1700000000},{"id":"a","owned_by":{}},{"id":"a"}]}"#;
    upstream.respond("/v1/models", Script::whole(200, &[], list));
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let entry = |id: &str, created: u32| json!({"id": format!("p1/{id}"), "object": "model", "created": created, "owned_by": "p1"});
    let expected = json!({"object": "list", "data": [entry("a", 0), entry("b", 1_700_000_000)]});
    assert_eq!(proxy.get("/v1/models").json(), expected);
    assert_eq!(proxy.get("/v1/models/p1/b").json(), entry("b", 1_700_000_000));
}

/// Codex requires the member `models`, and keeps its built-in entries for models that are not in it.
#[test]
fn codex_gets_the_member_it_looks_for() {
    let upstream = provider(&["a"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let plain = proxy.get("/v1/models").json();
    assert_eq!(plain.get("models"), None);
    let mut codex = proxy.get("/v1/models?client_version=0.130.0").json();
    assert_eq!(codex["models"].take(), json!([]));
    assert_eq!(codex["data"], plain["data"]);
    assert_eq!(proxy.get("/v1/models?x=client_version").json(), plain);
}

#[test]
fn head_of_the_list_tells_its_length() {
    let names: Vec<String> = (0..1000).map(|number| format!("model-{number:0>40}")).collect();
    let upstream = provider(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let list = proxy.get("/v1/models");
    assert!(list.body.len() > ai_proxy::limits::COALESCE);
    let head = proxy.call(bare("HEAD", "/v1/models", &[]));
    assert_eq!(head.header("content-length"), Some(&*list.body.len().to_string()));
    // Two on one connection: the second follows the first to the byte.
    let mut client = proxy.client();
    client.send(get("/v1/models").repeat(2));
    assert_eq!((client.response().body, client.response().body), (list.body.clone(), list.body));
}

#[test]
fn new_models_appear() {
    let upstream = provider(&["a"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"models_interval": 1})));
    assert_eq!(listed(&proxy), ["p1/a"]);
    upstream.list(&["a", "b"]);
    eventually("the new model is listed", || (listed(&proxy) == ["p1/a", "p1/b"]).then_some(()));
    // A failed fetch keeps the known list.
    upstream.respond("/v1/models", Script::json(500, &json!({})));
    let before = upstream.list_requests().len();
    eventually("two more fetches", || (upstream.list_requests().len() >= before + 2).then_some(()));
    assert_eq!(listed(&proxy), ["p1/a", "p1/b"]);
}

#[test]
fn an_alias_names_a_model() {
    let upstream = provider(&["m"]);
    upstream.handle("/v1/chat/completions", |request| {
        if request.text().contains(r#""stream":true"#) {
            return Script::sse().chunk(event("x")).end();
        }
        Script::json(200, &completion("hello"))
    });
    let virtuals = json!({"models": {"fast": "p1/m"}});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), virtuals));
    assert_eq!(listed(&proxy), ["fast", "p1/m"]);
    let entry = proxy.get("/v1/models/fast").json();
    assert_eq!((&entry["id"], &entry["owned_by"]), (&json!("fast"), &json!("ai-proxy")));
    assert_eq!(proxy.call(ask("fast")).status, 200);
    assert!(upstream.last().text().contains(r#""model":"m""#));
}

#[test]
fn an_alias_of_an_alias_is_refused_by_name() {
    let upstream = provider(&["m"]);
    let models = json!({"fast": "p1/m", "faster": "fast", "best": ["p1/m", "faster"]});
    let directory = TempDir::new();
    let document = with(config(&[("p1", &upstream)]), json!({"models": models})).to_string();
    std::fs::write(directory.join("config.json"), document).expect("write config");
    for arguments in [&["check"][..], &[]] {
        let finished = run(command(directory.path()).args(arguments));
        assert_eq!(finished.code, Some(2), "{}", finished.output());
        for (place, target) in [("models.faster", "fast"), ("models.best[1]", "faster")] {
            let line =
                finished.stderr.lines().find(|line| line.starts_with(&format!("config.json: {place}: ")));
            let line = line.unwrap_or_else(|| panic!("{place}: {}", finished.output()));
            assert!(line.contains(&format!("\"{target}\" is itself a virtual model")), "{line}");
        }
        assert_eq!(finished.stderr.lines().count(), 2, "{}", finished.stderr);
    }
}

#[test]
fn odd_ids_are_404() {
    let upstream = provider(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    for id in
        ["%ff", "%zz", "%", "%2", "p1%00m", "%0d%0aX-Evil:%201", "p1%2F%2Fm", "p1/m%2F", "..%2f..", "p1/m%20"]
    {
        let response = proxy.get(&format!("/v1/models/{id}"));
        assert_error(&response, 404, "model_not_found");
    }
    assert_eq!(proxy.get("/v1/models/").json()["object"], "list");
    assert_eq!(proxy.get("/v1/models/p1/m?x=1").status, 200);
    assert_eq!(proxy.get("/v1/models?x=1").status, 200);
}

#[test]
fn a_provider_may_have_a_chinese_name() {
    let upstream = provider(&["glm-4"]);
    let proxy = Proxy::start(&config(&[("智谱", &upstream)]));
    assert_eq!(listed(&proxy), ["智谱/glm-4"]);
    let response = proxy.call(ask("智谱/glm-4"));
    assert_eq!((response.status, response.header("x-ai-proxy-provider")), (200, Some("智谱")));
    assert_eq!(proxy.get("/v1/models/%E6%99%BA%E8%B0%B1%2Fglm-4").json()["id"], "智谱/glm-4");
}

#[test]
fn a_listed_id_is_called_by_the_name_its_provider_gave_it() {
    let names = ["models/tuned", "m", "org/deep/er", "p1/m", "a:b@c"];
    let upstream = provider(&names);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let ids = listed(&proxy);
    assert_eq!(ids.len(), names.len(), "{ids:?}");
    for id in ids {
        assert_eq!(proxy.call(ask(&id)).status, 200, "{id}");
        let body: serde_json::Value = serde_json::from_slice(&upstream.last().body).expect("JSON");
        let called = body["model"].as_str().expect("model");
        assert!(names.contains(&called), "{id} was called as {called:?}, which it never listed");
    }
}

#[test]
fn id_over_its_bound_is_refused() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let get = |id: String| proxy.get(&format!("/v1/models/{id}"));
    assert_error(&get("m".repeat(256)), 404, "model_not_found");
    assert_error(&get("%6d".repeat(256)), 404, "model_not_found");
    assert_error(&get("m".repeat(257)), 400, "invalid_model");
    assert_error(&get("m".repeat(7000)), 400, "invalid_model");
}

#[test]
fn listed_model_that_no_client_could_name_is_left_out() {
    let ids = ["m".repeat(253), "n".repeat(254), "é".repeat(127)];
    let upstream = provider(&[&ids[0], &ids[1], &ids[2]]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    assert_eq!(listed(&proxy), [format!("p1/{}", ids[0])]);
    assert_eq!(proxy.call(ask(&format!("p1/{}", ids[0]))).status, 200);
    assert_error(&proxy.call(ask(&format!("p1/{}", ids[1]))), 400, "invalid_model");
}
