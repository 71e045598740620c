//! `ai-proxy check --probe`: each provider is asked for its models, and a table shows what came of it.

use regex::Regex;
use serde_json::{Value, json};

use crate::support::calls::{KEY, TOKEN};
use crate::support::proxy::{Finished, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::tls::{Tls, certificate};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::{Upstream, model_list};

fn probe(config: &Value, language: &str) -> Finished {
    let directory = TempDir::new();
    let config = with(config.clone(), json!({"language": language}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write config");
    run(command(directory.path()).args(["check", "--probe"]))
}

/// The rows of the table, each as its cells, with the time and the ports left out.
fn rows(finished: &Finished) -> Vec<Vec<String>> {
    let varying = Regex::new(r"\d+ ms|127\.0\.0\.1:\d+|localhost:\d+").expect("regex");
    let lines = finished.stdout.lines().skip_while(|line| !line.contains("reachable"));
    let cells =
        |line: &str| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    lines.map(|line| cells(&varying.replace_all(line, "_"))).collect()
}

/// Lists one model for [`KEY`] alone, in whichever header it comes.
fn guarded(models: &[&str]) -> Upstream {
    let upstream = Upstream::new(models);
    let list = model_list(models);
    upstream.handle("/v1/models", move |request| {
        let bearer = format!("Bearer {KEY}");
        let head = &request.head;
        if head.get("authorization") == Some(&bearer) || head.get("x-api-key") == Some(KEY) {
            Script::json(200, &list)
        } else {
            Script::json(401, &json!({"error": {"message": "no such key"}}))
        }
    });
    upstream
}

#[test]
fn probe_shows_what_each_provider_says_and_fails_where_one_does() {
    let (good, open, missing) = (guarded(&["a", "b"]), Upstream::new(&["m"]), Upstream::new(&[]));
    missing.respond("/v1/models", Script::json(404, &json!({"error": "no such path"})));
    let odd = Upstream::new(&[]);
    odd.respond(
        "/v1/models",
        Script::json(400, &json!({"error": {"message": "Incorrect API key provided: x"}})),
    );
    let (trusted, other) = (Tls::new(&good, "server.pem"), Tls::new(&good, "server.pem"));
    let tunnel = Tunnel::new();
    let ssh = Upstream::new(&[]);
    ssh.respond("/v1/models", Script::raw(b"SSH-2.0-OpenSSH_9.2\r\n"));
    let closed = "http://127.0.0.1:1/v1";
    let config = config(&[("good", &good), ("open", &open), ("missing", &missing), ("odd", &odd)]);
    let mut providers = config["providers"].as_array().expect("providers").clone();
    providers.extend([
        json!({"name": "good", "url": good.url(), "key": "sk-another-key-0123"}),
        json!({"name": "nokey", "url": open.url()}),
        json!({"name": "named", "url": missing.url(), "key": KEY, "models": ["x", "y", "z"]}),
        json!({"name": "tls", "url": trusted.url("localhost"), "key": KEY, "ca_file": certificate("ca.pem")}),
        json!({"name": "untrusted", "url": other.url("localhost"), "key": KEY}),
        json!({"name": "claude", "url": good.url(), "anthropic_url": good.url(), "key": KEY}),
        json!({"name": "around", "url": good.url(), "key": KEY, "proxy": format!("http://u:hunter2@{}", tunnel.address())}),
        json!({"name": "closed", "url": closed, "key": KEY}),
        json!({"name": "ssh", "url": ssh.url(), "key": KEY, "models": ["m"]}),
    ]);
    let config = with(config, json!({"providers": providers}));
    let finished = probe(&config, "en");
    assert_eq!(finished.code, Some(3), "{}", finished.output());
    let url = "http://_/v1";
    let refused = |status: u16| format!("{url}: the provider refuses the key (HTTP {status})");
    let expected: Vec<Vec<String>> = [
        &["provider", "reachable", "TLS", "key", "models", "latency", "URL"][..],
        &["good", "yes", "-", "accepted", "2", "_", url],
        &["good", "yes", "-", "refused", "-", "_", &refused(401)],
        &["open", "yes", "-", "unchecked", "1", "_", url],
        &[
            "missing",
            "yes",
            "-",
            "unchecked",
            "-",
            "_",
            &format!("{url}: no model list there (HTTP 404); correct the URL, or name the entry's models"),
        ],
        &["odd", "yes", "-", "refused", "-", "_", &refused(400)],
        &["nokey", "yes", "-", "-", "1", "_", url],
        &["named", "yes", "-", "unchecked", "3", "_", url],
        &["tls", "yes", "yes", "accepted", "2", "_", "https://_/v1"],
        &[
            "untrusted",
            "yes",
            "no",
            "-",
            "-",
            "_",
            "https://_/v1: io: invalid peer certificate: UnknownIssuer",
        ],
        &["claude", "yes", "-", "accepted", "2", "_", url],
        &["around", "yes", "-", "accepted", "2", "_", url],
        &["closed", "no", "-", "-", "-", "_", &format!("{url}: io: Connection refused (os error 111)")],
        &[
            "ssh",
            "yes",
            "-",
            "-",
            "-",
            "_",
            &format!(
                "{url}: it responds, but not with valid HTTP: protocol: http parse fail: invalid HTTP version"
            ),
        ],
        &["6 of 13 provider entries failed their probe"],
    ]
    .iter()
    .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
    .collect();
    assert_eq!(rows(&finished), expected, "{}", finished.output());
    assert_eq!(tunnel.opened(), 2);
    let claude = good.list_requests().into_iter().find(|it| it.head.get("x-api-key").is_some());
    assert!(claude.expect("Anthropic's form").head.get("anthropic-version").is_some());
    for secret in [KEY, TOKEN, "hunter2", "sk-another-key"] {
        assert!(!finished.output().contains(secret), "{}", finished.output());
    }
}

#[test]
fn probe_of_good_providers_is_0_and_speaks_the_language_of_the_config() {
    let good = guarded(&["a"]);
    let config = config(&[("智谱", &good)]);
    let finished = probe(&config, "zh");
    assert_eq!(finished.code, Some(0), "{}", finished.output());
    let lines: Vec<&str> = finished.stdout.lines().rev().take(3).collect();
    assert_eq!(lines[0], "1 个提供商均通过探测");
    assert!(lines[1].starts_with("智谱    是    -    有效  1     "), "{}", lines[1]);
    assert!(lines[2].starts_with("提供商  可达  TLS  密钥  模型  延迟"), "{}", lines[2]);
}

#[test]
fn check_prints_each_warning_after_the_summary_and_succeeds() {
    let directory = TempDir::new();
    let config = with(config(&[]), json!({"providers": ["p|https://api.openai.com|$KEY"]}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write config");
    let finished = run(command(directory.path()).arg("check"));
    assert_eq!(finished.code, Some(0), "{}", finished.output());
    let said: Vec<&str> =
        finished.stdout.lines().filter(|line| line.starts_with("warning: provider p")).collect();
    assert_eq!(said.len(), 2, "{}", finished.output());
    assert!(said[0].contains("looks like a variable"), "{said:?}");
    assert!(said[1].ends_with("the base URL is probably https://api.openai.com/v1"), "{said:?}");
}

#[test]
fn probe_of_a_bad_config_is_2_and_asks_nobody() {
    let good = guarded(&["a"]);
    let finished = probe(&with(config(&[("good", &good)]), json!({"port": "x"})), "en");
    assert_eq!(finished.code, Some(2), "{}", finished.output());
    assert!(good.list_requests().is_empty());
}
