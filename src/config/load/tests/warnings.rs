//! What is valid and probably not meant.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Scratch, valid, with};
use crate::config::load::{summary, warnings};

#[test]
fn warnings_name_missing_tokens_and_an_open_file_that_holds_secrets() {
    let text = with(r#""language": "en", "tokens": ["a|${AI_PROXY_TOKEN}"]"#);
    let file = Scratch::new("open", text.as_bytes());
    let mode = |mode| fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let found = warnings(&valid(&text), &file.path());
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("mode 0644") && found[0].contains("chmod 640"), "{found:?}");
    // Its group may be the service's: root:ai-proxy.
    for closed in [0o600, 0o640, 0o660] {
        mode(closed);
        assert!(warnings(&valid(&text), &file.path()).is_empty(), "{closed:o}");
    }

    let text = r#"{"language": "en", "providers": ["a|https://a|${OPENAI_API_KEY}"], "max_clients": 50}"#;
    let file = Scratch::new("closed", text.as_bytes());
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let found = warnings(&valid(text), &file.path());
    assert_eq!(
        found,
        [
            "tokens: none configured; every request that needs a token is refused",
            "max_clients (50) is less than max_connections (100): some slots are never used"
        ]
    );

    let little = with(r#""max_memory": 67108864, "max_connections": 110, "language": "en""#);
    let found = warnings(&valid(&little), Path::new("/nonexistent"));
    let room = "max_memory (64 MiB) has room for 109 requests at once, fewer than max_connections (110): further requests wait";
    assert!(found.iter().any(|warning| warning == room), "{found:?}");
}

#[test]
fn warnings_name_a_url_that_is_probably_not_the_base_url() {
    let providers = r#""providers": [
        "zhipu|https://open.bigmodel.cn/v1|key", "good|https://api.openai.com/v1|key",
        {"name": "own", "url": "https://own.example/v1/chat/completions"},
        {"name": "deep", "url": "https://api.deepseek.com", "anthropic_url": "https://api.deepseek.com/anthropic"}],
        "tokens": ["a|sk-token-0123456789"]"#;
    let found = |language: &str| {
        let config = valid(&format!(r#"{{{providers}, "language": "{language}"}}"#));
        warnings(&config, Path::new("/nonexistent"))
    };
    assert_eq!(
        found("en"),
        [
            "provider zhipu: url (https://open.bigmodel.cn/v1) is probably not a base URL; the base URL is probably https://open.bigmodel.cn/api/paas/v4",
            "provider own: url (https://own.example/v1/chat/completions) is probably not a base URL; the base URL is probably https://own.example/v1",
            "provider deep: anthropic_url (https://api.deepseek.com/anthropic) is probably not a base URL; the base URL is probably https://api.deepseek.com/anthropic/v1",
        ]
    );
    assert_eq!(
        found("zh")[0],
        "提供商 zhipu 的 url (https://open.bigmodel.cn/v1) 可能不是 base URL；应为 https://open.bigmodel.cn/api/paas/v4"
    );
}

#[test]
fn warnings_name_variables_that_are_not_replaced_and_no_secret() {
    let text = r#"{"language": "en", "log_file": null, "providers": ["zhipu|https://a.example/v1|$KEY",
        {"name": "way", "url": "https://b.example/v1", "key": "k", "proxy": "http://user:$PASS@proxy.example:3128"},
        {"name": "plain", "url": "https://c.example/v1", "key": "k", "proxy": "http://user:pa$$@proxy.example:3128"},
        {"name": "own", "url": "https://$HOST/v1", "key": "${KEY", "headers": {"x-team": "<team>"}}],
        "tokens": ["alice|${}", "bob|%TOKEN%"]}"#;
    let asks = "looks like a variable that is not replaced, or a blank to fill in; an environment variable is written ${NAME}";
    let expected = [
        "provider zhipu: key (https://a.example/v1)",
        "provider way: proxy (https://b.example/v1)",
        "provider own: key (https://$HOST/v1)",
        "provider own: headers.x-team (https://$HOST/v1)",
        "provider own: url (https://$HOST/v1)",
        "token alice: token",
        "token bob: token",
    ]
    .map(|place| format!("{place} {asks}"));
    assert_eq!(warnings(&valid(text), Path::new("/nonexistent")), expected);
    let zh = warnings(&valid(&text.replace("\"en\"", "\"zh\"")), Path::new("/nonexistent"));
    assert_eq!(
        zh[0],
        "提供商 zhipu 的 key (https://a.example/v1) 像是没有替换的变量或待填的空位；环境变量写作 ${NAME}"
    );
}

#[test]
fn warnings_name_weak_tokens_where_other_machines_may_send_them() {
    let found = |host: &str| {
        let tokens = r#"["alice|sk-test", "bob|q8ZtLw2RvN5xJc9D", "carol|changeme-changeme"]"#;
        let text = format!(r#""language": "en", "log_file": null, "host": "{host}", "tokens": {tokens}"#);
        warnings(&valid(&with(&text)), Path::new("/nonexistent"))
    };
    let easy = "is easy to guess (fewer than 16 characters besides well-known words), and ai-proxy listens on 0.0.0.0; make a new one with openssl rand -hex 24";
    assert_eq!(found("0.0.0.0"), ["alice", "carol"].map(|name| format!("token {name} {easy}")));
    assert!(found("127.0.0.1").is_empty());
    assert!(found("unix:/run/a.sock").is_empty());
}

#[test]
fn warnings_name_a_key_in_clear_text_and_an_account_of_two_names() {
    let text = r#"{"language": "en", "log_file": null, "tokens": ["a|t"], "providers": [
        "plain|http://a.example/v1|key", "again|http://a.example/v1|key", "again|http://a.example/v1|key2",
        "near|http://10.0.0.1/v1|key", "open|http://b.example/v1|", "twice|https://c.example/v1|key",
        {"name": "twice", "url": "https://c.example/v1", "key": "key", "weight": 2}]}"#;
    let clear = |name: &str| {
        format!(
            "provider {name}: url (http://a.example/v1) sends the key over the internet in clear text; use https://"
        )
    };
    let same = "provider again has the URL (http://a.example/v1) and the key of provider plain; correct one of them, or give both the same name";
    assert_eq!(
        warnings(&valid(text), Path::new("/nonexistent")),
        [clear("plain"), clear("again"), clear("again"), same.to_owned()]
    );
}

#[test]
fn key_in_the_path_of_a_url_is_shown_nowhere() {
    let key = "sk-key-in-a-path-0123456789";
    let text = format!(
        r#"{{"language": "en", "log_file": null, "tokens": ["a|t"], "providers": [
            "one|http://a.example/{key}/v1/chat/completions|{key}", "two|http://a.example/{key}/v1/chat/completions|{key}"]}}"#
    );
    let config = valid(&text);
    let found = warnings(&config, Path::new("/nonexistent"));
    assert_eq!(
        found.iter().filter(|warning| warning.contains("http://a.example/sk-***89/v1")).count(),
        5,
        "{found:?}"
    );
    assert!(!format!("{found:?}{}", summary(&config)).contains(key), "{found:?}");
}

#[test]
fn warnings_name_files_of_its_own_in_a_folder_that_is_missing() {
    let folder = Scratch::new("unwritable", b"");
    let (log, state) = (folder.0.join("a.log"), folder.0.join("none/state.json"));
    let text =
        format!(r#""language": "en", "tokens": ["a|t"], "log_file": {log:?}, "state_file": {state:?}"#);
    let found = warnings(&valid(&with(&text)), Path::new("/nonexistent"));
    let expected = format!(
        "state_file: this user cannot write {}: No such file or directory (os error 2); create its folder and allow the user to write there, or change state_file",
        state.display()
    );
    assert_eq!(found, [expected]);
}
