//! What is reported of a file: problems, a summary, what needs a restart; and no secret.

use std::path::Path;

use super::{EXAMPLE, Scratch, load, said, valid, with, with_object, with_provider};
use crate::config::load::{from_file, restart_required, summary};
use crate::limits::MAX_CONFIG_FILE;
use crate::text::Language;

#[test]
fn the_report_speaks_the_language_of_the_file() {
    let language = |text: &str| load(text).unwrap_err().language();
    assert_eq!(language("{}"), Some(Language::Zh));
    assert_eq!(language(r#"{"language": "en"}"#), Some(Language::En));
    assert_eq!(language(r#"{"language": "fr"}"#), None);
    assert_eq!(language(r#"{"language": "${NONE}"}"#), None);
    assert_eq!(language(r#"{"language" : "en","#), Some(Language::En));
    assert_eq!(language(r#"{"language": "zh","#), Some(Language::Zh));
    assert_eq!(language(r#"{"port": 1,"#), None);
    assert_eq!(language("[]"), None);
    assert_eq!(load("{}").unwrap_err().say(Language::Zh), ["providers: 至少需要一个提供商"]);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = r#"{
        "client_timeout": 0,
        "models": {"f": "nowhere/m"},
        "max_conections": 5,
        "providers": ["a|https://u:p@a|k", {"name": "b", "url": "https://b", "weight": 0}],
        "port": 70000,
        "tokens": ["x"],
        "port": 1
    }"#;
    let heads: Vec<String> =
        said(text).iter().map(|said| said.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(
        heads,
        [
            "client_timeout",
            "models.f",
            "max_conections",
            "providers[0].url",
            "providers[1].weight",
            "port",
            "tokens[0]",
            "port"
        ]
    );
}

#[test]
fn a_report_has_an_end() {
    let garbage: Vec<String> = (0..5000).map(|i| format!(r#""k{i}": 0"#)).collect();
    let said = said(&with(&garbage.join(",")));
    assert_eq!(said.len(), 1001);
    assert_eq!(said[1000], "4000 more problems are not listed");
}

#[test]
fn no_problem_summary_or_debug_holds_a_secret() {
    // Each of these values is in the place of a secret, or where an operator may have put one by mistake.
    let secret = "Hidden-5ecret";
    for text in [
        with_provider(r#""Hidden-5ecret""#),
        with_provider(r#""a|Hidden-5ecret""#),
        with_provider(r#""a b|https://a|Hidden-5ecret\n""#),
        with_provider(r#""a|Hidden-5ecret|https://a""#),
        with_provider(r#""Hidden-5ecret/x|a|https://a""#),
        with_provider(r#""a|https://u:Hidden-5ecret@a|k""#),
        with_provider(r#""a|https://u:Hidden/Hidden-5ecret@a|k""#),
        with_provider(r#""a|https://a?key=Hidden-5ecret|k""#),
        with_provider(r#"{"Hidden-5ecret": 1}"#),
        with_provider(r#"{"Hidden-5ecret": 1, "Hidden-5ecret": 1}"#),
        with_object(r#""key": ["Hidden-5ecret"]"#),
        with_object(r#""key": "Hidden-5ecret ""#),
        with_object(r#""headers": "Hidden-5ecret""#),
        with_object(r#""headers": {"Authorization: Bearer Hidden-5ecret": ""}"#),
        with_object(r#""headers": {"x": "Hidden-5ecret\t"}"#),
        with_object(r#""proxy": "socks5://u:Hidden-5ecret@a:99999""#),
        with_object(r#""proxy": "u:Hidden-5ecret@a""#),
        r#"{"providers": "a|https://a|Hidden-5ecret"}"#.into(),
        r#"{"providers": {"a": "Hidden-5ecret"}}"#.into(),
        r#""Hidden-5ecret""#.into(),
        with(r#""tokens": "a|Hidden-5ecret""#),
        with(r#""tokens": ["Hidden-5ecret"]"#),
        with(r#""tokens": ["a|Hidden-5ecret "]"#),
        with(r#""tokens": ["Hidden-5ecret\n|a"]"#),
        with(r#""tokens": ["a|Hidden-5ecret", "b|Hidden-5ecret"]"#),
        with(r#""tokens": [{"Hidden-5ecret": "a"}]"#),
        with(r#""tokens": [{"name": "n", "token": {"Hidden-5ecret": 1}}]"#),
        format!("{}x", with(r#""tokens": ["a|Hidden-5ecret"]"#)),
        with_provider(r#""a|https://a|${BAD}""#),
        with_provider(r#""${BAD}|https://a|k""#),
        with_provider(r#""a|https://${BAD}|k""#),
        with(r#""host": "${BAD}""#),
        with(r#""tokens": ["a|x${BAD}"]"#),
        with(r#""supported_models": ["${BAD}("]"#),
        with(r#""models": {"f": "${BAD}"}"#),
        with_object(r#""proxy": "http://u:${BAD}@a""#),
    ] {
        let problems = load(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        let report =
            format!("{problems:?} {:?} {:?}", problems.say(Language::Zh), problems.say(Language::En));
        for secret in [secret, "5ecret", "env secret", "with a line end"] {
            assert!(!report.contains(secret), "{text}\n{report}");
        }
    }
    let config = valid(&with_object(
        r#""key": "Hidden-5ecret", "headers": {"x": "Hidden-5ecret"}, "proxy": "http://u:Hidden-5ecret@a", "weight": 2"#,
    ));
    let shown = format!("{config:?}\n{}", summary(&config));
    assert!(!shown.contains("5ecret"), "{shown}");
}

#[test]
fn the_example_is_valid_and_its_summary_and_debug_hold_no_secret() {
    let mut config = valid(EXAMPLE);
    config.workers = 3;
    assert_eq!((config.providers.len(), config.tokens.len(), config.models.len()), (4, 2, 2));
    assert!(config.supports("openai/gpt-4o-mini") && !config.supports("openai/o1"));
    let summary = summary(&config);
    for line in [
        "监听地址: localhost:8080",
        "  zhipu: https://open.bigmodel.cn/api/paas/v4, 密钥 env***89",
        "  ollama: http://127.0.0.1:11434/v1, 无密钥",
        "token: 2 (everyone, batch jobs)",
        "  best -> openai/gpt-4o, deepseek/deepseek-chat",
        "工作线程: 3",
        "同时处理的请求: 100",
    ] {
        assert!(summary.lines().any(|found| found == line), "{line}\n{summary}");
    }
    let all = format!("{summary}\n{config:?}");
    for secret in ["zhipu-key", "deepseek-key", "openai-key", "token-everyone", "token-batch"] {
        assert!(!all.contains(secret), "{secret}\n{all}");
    }
}

#[test]
fn trusted_proxies_are_in_the_summary() {
    let proxies = r#""trusted_proxies": ["unix", "10.0.0.0/8", "::1", "::ffff:192.0.2.1"]"#;
    let summary = summary(&valid(&with(proxies)));
    let line = "受信任的代理: 4 (unix, 10.0.0.0/8, ::1/128, 192.0.2.1/32)";
    assert!(summary.lines().any(|found| found == line), "{summary}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let said = |path: &Path| from_file(path).unwrap_err().say(Language::En);
    let none = said(Path::new("/nonexistent/config.json"));
    assert!(none[0].starts_with("/nonexistent/config.json: cannot read the config file: "), "{none:?}");
    let text = Scratch::new("text", b"{\n\"host\": \"\xff\"}");
    assert_eq!(said(&text.path()), [format!("{}: line 2 is not valid UTF-8", text.path().display())]);
    let large = Scratch::new("large", &vec![b' '; usize::try_from(MAX_CONFIG_FILE).unwrap() + 1]);
    assert_eq!(
        said(&large.path()),
        [format!("{}: the config file is over the limit of {MAX_CONFIG_FILE} bytes", large.path().display())]
    );
    let good = Scratch::new("good", with(r#""port": 1"#).as_bytes());
    assert_eq!(from_file(&good.path()).unwrap().port, 1);
}

#[test]
fn keys_that_need_a_restart_are_named_only_when_they_change() {
    let old = valid(&with(r#""port": 1"#));
    assert!(restart_required(&old, &old).is_empty());
    let new = valid(&with(
        r#""host": "::1", "port": 2, "workers": 64, "max_connections": 3, "max_clients": 4, "max_retries": 9"#,
    ));
    assert_eq!(restart_required(&old, &new), ["host", "port", "workers", "max_connections", "max_clients"]);
}
