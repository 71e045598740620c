//! Callers: where the token is read from, the response without one, and the id of every response.

use serde_json::json;

use crate::support::calls::{TOKEN, ask, assert_error, bare, chat, completion, get, post};
use crate::support::client::Response;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const BODY: &str = r#"{"model":"p1/m"}"#;
const CHAT: &str = "/v1/chat/completions";

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

fn assert_refused(response: &Response, reason: &str, message: Option<&str>) {
    let seen = assert_error(response, 401, reason);
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    match message {
        Some(message) => assert_eq!(seen, message),
        None => assert!(seen.is_ascii(), "an English message: {seen}"),
    }
}

#[test]
fn refusal_says_how_a_token_is_sent() {
    let (_upstream, proxy) = start(json!({}));
    let how = "as Authorization: Bearer TOKEN or x-api-key: TOKEN";
    let missing = assert_error(&proxy.call(post(CHAT, &[], BODY)), 401, "missing_token");
    assert_eq!(missing, format!("no API token was provided: send one {how}"));
    let from_elsewhere = [("X-Forwarded-For", "192.0.2.1")];
    for path in ["/v1/status", "/metrics"] {
        let forbidden = assert_error(&proxy.call(bare("GET", path, &from_elsewhere)), 403, "forbidden");
        assert_eq!(forbidden, format!("not allowed: send a valid token {how}"));
    }
}

#[test]
fn refuses_in_chinese() {
    let (upstream, proxy) = start(json!({"language": "zh"}));
    assert_refused(&proxy.call(post(CHAT, &[], BODY)), "missing_token", Some("未提供API token"));
    let wrong = [("Authorization", "Bearer sk-wrong-token-000000")];
    assert_refused(&proxy.call(post(CHAT, &wrong, BODY)), "invalid_token", Some("无效的API token"));
    assert!(upstream.requests().is_empty());
}

#[test]
fn refuses_in_english() {
    let (upstream, proxy) = start(json!({"language": "en"}));
    assert_refused(&proxy.call(post(CHAT, &[], BODY)), "missing_token", None);
    let wrong = [("Authorization", "Bearer sk-wrong-token-000000")];
    assert_refused(&proxy.call(post(CHAT, &wrong, BODY)), "invalid_token", None);
    assert!(upstream.requests().is_empty());
}

#[test]
fn the_default_language_is_chinese() {
    let upstream = Upstream::new(&["m"]);
    let mut config = config(&[("p1", &upstream)]);
    config.as_object_mut().expect("object").remove("language");
    let proxy = Proxy::start(&config);
    assert_refused(&proxy.call(post(CHAT, &[], BODY)), "missing_token", Some("未提供API token"));
}

#[test]
fn takes_a_token_from_each_header() {
    let (_upstream, proxy) = start(json!({}));
    for (name, prefix) in [
        ("Authorization", "Bearer "),
        ("authorization", "bearer "),
        ("AUTHORIZATION", "BEARER "),
        ("Authorization", "bEaReR "),
        ("X-Api-Key", ""),
        ("x-api-key", ""),
        ("Api-Key", ""),
    ] {
        let value = format!("{prefix}{TOKEN}");
        let response = proxy.call(post(CHAT, &[(name, &value)], BODY));
        assert_eq!(response.status, 200, "{name}: {value}");
    }
}

#[test]
fn the_first_header_present_counts() {
    let (_upstream, proxy) = start(json!({}));
    let right = format!("Bearer {TOKEN}");
    let (right, wrong) = (right.as_str(), "Bearer sk-wrong-token-000000");
    for (headers, status) in [
        ([("Authorization", wrong), ("X-Api-Key", TOKEN)], 401),
        ([("X-Api-Key", TOKEN), ("Authorization", wrong)], 401),
        ([("X-Api-Key", "nonsense"), ("Authorization", right)], 200),
        ([("X-Api-Key", "nonsense"), ("Api-Key", TOKEN)], 401),
        ([("Api-Key", "nonsense"), ("X-Api-Key", TOKEN)], 200),
        ([("Api-Key", "nonsense"), ("Authorization", right)], 200),
    ] {
        let response = proxy.call(post(CHAT, &headers, BODY));
        assert_eq!(response.status, status, "{headers:?}");
    }
}

#[test]
fn repeated_credential_is_refused() {
    let (upstream, proxy) = start(json!({}));
    let right = format!("Bearer {TOKEN}");
    let right = right.as_str();
    for headers in [
        [("Authorization", right), ("Authorization", right)],
        [("Authorization", right), ("authorization", "Bearer sk-wrong-token-000000")],
        [("Authorization", "Basic eDp5"), ("Authorization", right)],
        [("X-Api-Key", TOKEN), ("x-api-key", TOKEN)],
        [("Api-Key", TOKEN), ("API-KEY", "other")],
    ] {
        let message = assert_error(&proxy.call(post(CHAT, &headers, BODY)), 400, "bad_request");
        assert!(!message.contains("sk-"), "{message}");
        for (method, path) in
            [("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/v1/status"), ("POST", "/v1/reload")]
        {
            assert_error(&proxy.call(bare(method, path, &headers)), 400, "bad_request");
        }
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_part_of_a_token_is_no_token() {
    let (_upstream, proxy) = start(json!({}));
    let longer = format!("{TOKEN}x");
    let upper = TOKEN.to_uppercase();
    for token in [&TOKEN[..TOKEN.len() - 1], &TOKEN[1..], &longer, &upper, "tester", "tester|x"] {
        let response = proxy.call(post(CHAT, &[("X-Api-Key", token)], BODY));
        assert_refused(&response, "invalid_token", None);
    }
    let twice = format!("Bearer {TOKEN} {TOKEN}");
    let response = proxy.call(post(CHAT, &[("Authorization", &twice)], BODY));
    assert_refused(&response, "invalid_token", None);
}

#[test]
fn every_relayed_path_wants_a_token() {
    let (upstream, proxy) = start(json!({}));
    for path in crate::relay::PATHS {
        let response = proxy.call(post(&format!("/v1{path}"), &[], BODY));
        assert_refused(&response, "missing_token", None);
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_token_for_the_model_list_is_optional_but_never_wrong() {
    let (_upstream, proxy) = start(json!({}));
    let right = format!("Bearer {TOKEN}");
    for target in ["/v1/models", "/v1/models/p1/m"] {
        assert_eq!(proxy.get(target).status, 200);
        let response = proxy.call(bare("GET", target, &[("Authorization", &right)]));
        assert_eq!(response.status, 200);
        for header in ["X-Api-Key", "Api-Key"] {
            let response = proxy.call(bare("GET", target, &[(header, "sk-wrong-token-000000")]));
            assert_refused(&response, "invalid_token", None);
        }
    }
    for target in ["/", "/health", "/healthz"] {
        let response = proxy.call(bare("GET", target, &[("X-Api-Key", "wrong")]));
        assert_eq!(response.status, 200, "{target} asks for no token");
    }
}

#[test]
fn without_tokens_everything_guarded_is_refused_with_a_warning() {
    let (_upstream, proxy) = start(json!({"tokens": []}));
    assert_refused(&proxy.call(post(CHAT, &[], BODY)), "missing_token", None);
    assert_refused(&proxy.call(ask("p1/m")), "invalid_token", None);
    assert_eq!(proxy.get("/v1/models").status, 200);
    proxy.log_line(&["WARN", "token"]);
}

#[test]
fn tokens_may_be_objects() {
    let object = json!({"name": "narrow", "token": "sk-narrow-token-12345", "models": ["^p1/m$"]});
    let (upstream, proxy) = start(json!({"tokens": [object, format!("wide|{TOKEN}")]}));
    upstream.list(&["m", "n"]);
    let narrow = |model: &str| {
        let body = json!({"model": model}).to_string();
        proxy.call(post(CHAT, &[("X-Api-Key", "sk-narrow-token-12345")], body))
    };
    assert_eq!(narrow("p1/m").status, 200);
    assert_error(&narrow("p1/n"), 404, "model_not_found");
    assert_eq!(proxy.call(ask("p1/n")).status, 200);
}

#[test]
fn a_token_has_its_rate_and_its_share() {
    let tokens = json!([
        {"name": "slow", "token": "sk-slow-token-123456", "rpm": 2},
        {"name": "lone", "token": "sk-lone-token-123456", "max_parallel": 1},
    ]);
    let (upstream, proxy) = start(json!({"tokens": tokens}));
    let call = |token: &str| post(CHAT, &[("X-Api-Key", token)], BODY);
    for status in [200, 200, 429] {
        assert_eq!(proxy.call(call("sk-slow-token-123456")).status, status);
    }
    let limited = proxy.call(call("sk-slow-token-123456"));
    assert_error(&limited, 429, "rate_limited");
    let wait: u64 = limited.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");

    upstream.chat(Script::default().then(crate::support::script::Step::Silence));
    let mut first = proxy.client();
    first.send(call("sk-lone-token-123456"));
    upstream.wait_requests(3);
    let second = proxy.call(call("sk-lone-token-123456"));
    assert_error(&second, 429, "rate_limited");
    assert!(second.header("retry-after").is_some());
}

#[test]
fn a_sane_request_id_comes_back() {
    let (_upstream, proxy) = start(json!({}));
    for id in ["abc", "req_01HXYZ-9.8", "0af7651916cd43dd8448eb211c80319c"] {
        let response = proxy.call(bare("GET", "/healthz", &[("X-Request-Id", id)]));
        assert_eq!(response.header("x-request-id"), Some(id));
        let refused = proxy.call(post(CHAT, &[("X-Request-Id", id)], BODY));
        assert_eq!(refused.header("x-request-id"), Some(id));
        let headers = [("X-Request-Id", id), ("X-Api-Key", TOKEN)];
        let relayed = proxy.call(post(CHAT, &headers, BODY));
        assert_eq!((relayed.status, relayed.header("x-request-id")), (200, Some(id)));
    }
}

#[test]
fn an_insane_request_id_is_replaced() {
    let (_upstream, proxy) = start(json!({}));
    let long = "a".repeat(4000);
    for id in [&long, "a b", "\"quoted\"", "<script>", "caf\u{e9}", "a\u{9b}2J", ""] {
        let response = proxy.call(bare("GET", "/healthz", &[("X-Request-Id", id)]));
        assert_eq!(response.status, 200, "{id:?}");
        let given = response.header("x-request-id").expect("x-request-id");
        assert_ne!(given, id);
        assert!((8..=64).contains(&given.len()), "{given:?}");
        assert!(given.bytes().all(|byte| byte.is_ascii_graphic()), "{given:?}");
    }
}

#[test]
fn every_response_has_an_id_of_its_own() {
    let (upstream, proxy) = start(json!({}));
    let responses = [
        proxy.get("/"),
        proxy.get("/healthz"),
        proxy.get("/nowhere"),
        proxy.call(ask("p1/m")),
        proxy.call(chat("{")),
        proxy.call("nonsense\r\n\r\n"),
        proxy.call(get("/v1/models")),
    ];
    let mut ids: Vec<&str> =
        responses.iter().map(|response| response.header("x-request-id").expect("x-request-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), responses.len());

    // Without a client's id the upstream's own id is used.
    let headers = [("Content-Type", "application/json"), ("X-Request-Id", "from-upstream")];
    upstream.chat(Script::whole(200, &headers, "{}"));
    assert_eq!(proxy.call(ask("p1/m")).header("x-request-id"), Some("from-upstream"));
    let both = [("X-Request-Id", "from-client"), ("X-Api-Key", TOKEN)];
    let response = proxy.call(post(CHAT, &both, BODY));
    assert_eq!(response.header("x-request-id"), Some("from-client"));
}

#[test]
fn a_token_may_be_known_by_its_hash_alone() {
    let hidden = "sk-hidden-token-0123456789";
    let hash: String =
        ai_proxy::config::sha256(hidden.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let tokens = json!([
        format!("tester|{TOKEN}"),
        {"name": "hidden", "token": format!("sha256:{hash}"), "rpm": 2},
    ]);
    let (upstream, proxy) = start(json!({"tokens": tokens}));
    let with_token =
        |token: &str| proxy.call(post(CHAT, &[("Authorization", &format!("Bearer {token}"))], BODY));
    assert_eq!(with_token(TOKEN).status, 200);
    assert_eq!(with_token(hidden).status, 200);
    let key = proxy.call(post(CHAT, &[("X-Api-Key", hidden)], BODY));
    assert_eq!(key.status, 200);
    assert_eq!(with_token(hidden).status, 429, "its limits hold");
    proxy.log_line(&["hidden", "耗时:"]);
    // The hash in the file is no token.
    for wrong in [hash.clone(), format!("sha256:{hash}"), hash.to_uppercase(), format!("{hidden}x")] {
        assert_refused(&with_token(&wrong), "invalid_token", None);
    }
    assert_eq!(upstream.requests().len(), 3);
    assert!(!proxy.log().contains(&hash[..8]) && !proxy.log().contains("sk-hidden"));
}

#[test]
fn what_is_no_hash_is_a_problem_that_shows_nothing_of_it() {
    let digits = "0123456789abcdef".repeat(4);
    let directory = TempDir::new();
    let path = directory.join("config.json");
    let check = |tokens: serde_json::Value| {
        let upstream = Upstream::new(&["m"]);
        let text = with(config(&[("p1", &upstream)]), json!({"tokens": tokens})).to_string();
        std::fs::write(&path, text).expect("write config");
        run(command(directory.path()).args(["check", "--config"]).arg(&path))
    };
    for bad in ["", &digits[2..], &format!("{digits}00"), &format!("{}zz", &digits[2..])] {
        let token = format!("sha256:{bad}");
        for (tokens, place) in [
            (json!([format!("x|{token}")]), "tokens[0].token: "),
            (json!([{"name": "x", "token": token}]), "tokens[0].token: "),
        ] {
            let checked = check(tokens);
            assert_eq!(checked.code, Some(2));
            let said = checked.output();
            assert!(said.contains(place) && said.contains("64 hexadecimal digits"), "{said}");
            assert!(!said.contains("123456"), "{said}");
        }
    }
    // A token and its hash count as the same token.
    let hash: String =
        ai_proxy::config::sha256(TOKEN.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let twice = check(json!([format!("a|{TOKEN}"), format!("b|SHA256:{hash}")]));
    assert!(
        twice.code == Some(2) && twice.output().contains("the same token as tokens[0]"),
        "{}",
        twice.output()
    );
    let good = check(json!([format!("b|sha256:{hash}")]));
    assert!(good.code == Some(0) && !good.output().contains(&hash[..6]), "{}", good.output());
}
