//! Providers, tokens and virtual models.

use super::{load, lone_replica, said, valid, with, with_object, with_provider};
use crate::config::{ProxyUrl, Replica, ResponsesApi, Secret, StreamUsage, Target};
use crate::limits::{MAX_PROVIDERS, MAX_TARGETS};

#[test]
fn a_provider_string_has_three_parts_and_the_key_may_hold_bars_or_be_empty() {
    let replica = lone_replica(&with_provider(r#""a|https://a.example/v1//|k|e|y""#));
    assert_eq!((replica.url.as_str(), replica.key), ("https://a.example/v1", Secret::new("k|e|y".into())));
    assert_eq!((replica.weight, replica.models, replica.proxy), (1, None, None));
    assert!(lone_replica(&with_provider(r#""a|https://a.example|""#)).key.is_empty());
    for (entry, problem) in [
        (r#""a""#, "providers[0]: expected three parts \"name|API_URL|API_KEY\" separated by |; found 1"),
        (
            r#""a|https://a""#,
            "providers[0]: expected three parts \"name|API_URL|API_KEY\" separated by |; found 2",
        ),
        ("7", "providers[0]: *** is not allowed; expected a string \"name|API_URL|API_KEY\" or an object"),
        (
            r#""a/b|https://a|k""#,
            "providers[0].name: \"a/b\" is not allowed; expected a name without a slash",
        ),
        (
            r#""a|https://a|k\u00e9y""#,
            "providers[0].key: *** is not allowed; expected visible ASCII characters alone",
        ),
    ] {
        assert_eq!(said(&with_provider(entry)), [problem]);
    }
    for name in ["", " a", "a b", "a\\u0000", "a\\u00a0"] {
        assert_eq!(said(&with_provider(&format!(r#""{name}|https://a|k""#))).len(), 1, "{name}");
    }
}

#[test]
fn usage_of_a_stream_is_asked_for_where_it_is_needed_and_not_refused() {
    let replica = |host: &str, option: &str| {
        let url =
            format!(r#""url": "https://{host}/v1", "name": "p", "key": "k", "stream_usage": "{option}""#);
        lone_replica(&with_provider(&format!("{{{url}}}")))
    };
    for (host, option, is_needed, asks) in [
        ("a.example", "auto", true, true),
        ("a.example", "auto", false, false),
        ("a.example", "never", true, false),
        ("api.mistral.ai", "auto", true, false),
        ("api.mistral.ai", "always", false, true),
    ] {
        let replica = replica(host, option);
        assert_eq!(replica.asks_for_usage(is_needed), asks, "{host} {option} {is_needed}");
    }
}

#[test]
fn a_provider_object_takes_every_key() {
    let replica = lone_replica(&with_object(
        r#""anthropic_url": "https://a.example/anthropic/v1/", "key": "k", "models": ["m", "m/n"], "headers": {"X-Team": "red"}, "proxy": "socks5://u:p@127.0.0.1:1080", "weight": 1000, "stream_usage": "never", "responses": "chat""#,
    ));
    assert_eq!(
        replica,
        Replica {
            id: replica.id,
            url: "https://a.example".into(),
            anthropic_url: Some("https://a.example/anthropic/v1".into()),
            key: Secret::new("k".into()),
            models: Some(vec!["m".into(), "m/n".into()]),
            headers: vec![("x-team".into(), Secret::new("red".into()))],
            proxy: Some(ProxyUrl::new("socks5://u:p@127.0.0.1:1080".into())),
            anthropic_proxy: Some(ProxyUrl::new("socks5://u:p@127.0.0.1:1080".into())),
            ca_file: None,
            weight: 1000,
            stream_usage: StreamUsage::Never,
            responses: ResponsesApi::Chat,
        }
    );
    for bad in [
        r#""stream_usage": true"#,
        r#""responses": "yes""#,
        r#""stream_usage": "Always""#,
        r#""anthropic_url": "a.example""#,
        r#""anthropic_url": null"#,
        r#""key": 5"#,
        r#""key": " k""#,
        r#""models": "m""#,
        r#""models": [""]"#,
        r#""models": [1]"#,
        r#""headers": []"#,
        r#""headers": {"a b": "v"}"#,
        r#""headers": {"": "v"}"#,
        r#""headers": {"x": "a\nb"}"#,
        r#""headers": {"x": 1}"#,
        r#""proxy": "127.0.0.1:1080""#,
        r#""proxy": "ftp://a""#,
        r#""proxy": "socks5://""#,
        r#""proxy": "http://a:70000""#,
        r#""proxy": "http://a/path""#,
        r#""proxy": null"#,
        r#""proxy": """#,
        r#""proxy": "socks4://a""#,
        r#""weight": 0"#,
        r#""weight": 1001"#,
        r#""weight": 1.5"#,
    ] {
        assert_eq!(said(&with_object(bad)).len(), 1, "{bad}");
    }
    for proxy in ["http://a", "https://a:1/", "socks5://a", "socks5h://u@a:1", "direct"] {
        valid(&with_object(&format!(r#""proxy": "{proxy}""#)));
    }
    assert_eq!(said(&with_provider("{}")), ["providers[0].name: missing", "providers[0].url: missing"]);
}

#[test]
fn headers_of_the_connection_and_the_framing_are_refused() {
    for name in ["Host", "content-length", "Transfer-Encoding", "connection", "TE", "Proxy-Authorization"] {
        assert_eq!(
            said(&with_object(&format!(r#""headers": {{"{name}": "v"}}"#))),
            [format!(
                "providers[0].headers.{name}: the proxy sets this header itself; it cannot be configured"
            )]
        );
    }
}

#[test]
fn entries_of_one_name_are_replicas_in_the_order_of_the_file() {
    let config = valid(
        r#"{"providers": ["b|https://1|k", "a|https://2|k", {"name": "b", "url": "https://3", "weight": 3}]}"#,
    );
    let shape: Vec<(&str, Vec<&str>)> = config
        .providers
        .iter()
        .map(|provider| {
            (provider.name.as_str(), provider.replicas.iter().map(|replica| replica.url.as_str()).collect())
        })
        .collect();
    assert_eq!(shape, [("b", vec!["https://1", "https://3"]), ("a", vec!["https://2"])]);
}

#[test]
fn there_are_providers_but_not_too_many() {
    assert_eq!(said("{}"), ["providers: at least one provider is needed"]);
    assert_eq!(said(r#"{"providers": []}"#), ["providers: at least one provider is needed"]);
    assert_eq!(said(r#"{"providers": null}"#), ["providers: null is not allowed; expected an array"]);
    let many = |count| with_provider(&vec![r#""a|https://a|k""#; count].join(","));
    valid(&many(MAX_PROVIDERS));
    assert_eq!(
        said(&many(MAX_PROVIDERS + 1)),
        [format!("providers: {} entries; at most {MAX_PROVIDERS} are allowed", MAX_PROVIDERS + 1)]
    );
}

#[test]
fn tokens_are_strings_or_objects() {
    let config = valid(&with(
        r#""tokens": ["alice|sk-1|2", {"name": "bob", "token": "sk-3", "models": ["^a/"], "rpm": 60, "max_parallel": 4}]"#,
    ));
    assert_eq!(
        (config.tokens[0].name.as_str(), config.tokens[0].token.plain()),
        ("alice", Some(&Secret::new("sk-1|2".into())))
    );
    assert!(config.tokens[0].models.is_none() && config.tokens[0].rpm.is_none());
    assert_eq!((config.tokens[1].rpm, config.tokens[1].max_parallel), (Some(60), Some(4)));
    assert!(config.tokens[1].allows("a/m") && !config.tokens[1].allows("b/a/m"));
    let token = |more: &str| with(&format!(r#""tokens": [{{"name": "n", "token": "t"{more}}}]"#));
    for bad in [
        r#", "rpm": 0"#,
        r#", "rpm": 1.5"#,
        r#", "max_parallel": 0"#,
        r#", "max_parallel": -1"#,
        r#", "models": "x""#,
        r#", "models": []"#,
        r#", "models": ["("]"#,
    ] {
        assert_eq!(said(&token(bad)).len(), 1, "{bad}");
    }
    for bad in
        [r#""n|""#, r#""n| t""#, r#""n|t ""#, r#""n|t\n""#, r#""|t""#, r#""t""#, "1", "{\"name\": \"n\"}"]
    {
        assert_eq!(said(&with(&format!(r#""tokens": [{bad}]"#))).len(), 1, "{bad}");
    }
    assert_eq!(
        said(&with(r#""tokens": ["a|same", "b|other", {"name": "c", "token": "same"}]"#)),
        ["tokens[2]: the same token as tokens[0]"]
    );
}

#[test]
fn a_bad_regex_is_named_with_its_reason() {
    assert_eq!(
        said(&with(r#""supported_models": ["ok", "a("]"#)),
        [r#"supported_models[1]: "a(" is not a valid regular expression: unclosed group"#]
    );
    assert_eq!(
        said(&with(r#""supported_models": ["(a{1000}){1000}"]"#)),
        [
            r#"supported_models[0]: the regular expression "(a{1000}){1000}" is too complex: it compiles to more than 262144 bytes"#
        ]
    );
}

#[test]
fn virtual_models_are_sorted_and_point_at_providers() {
    let config = valid(
        r#"{"models": {"z": ["b/m/n", "a/m"], "a/x": "a/m"}, "providers": ["a|https://1|k", "b|https://2|k"]}"#,
    );
    assert_eq!(config.models[0].name, "a/x");
    assert_eq!(
        config.models[1].targets,
        [
            Target { provider: "b".into(), model: "m/n".into() },
            Target { provider: "a".into(), model: "m".into() }
        ]
    );
    let many = format!("[{}]", vec![r#""a/m""#; MAX_TARGETS + 1].join(","));
    for (models, problem) in [
        (r#"{"f": "c/m"}"#, r#"models.f: "c/m" names the provider "c", which is not configured"#),
        (
            r#"{"f": "m"}"#,
            r#"models.f: "m" is not allowed; expected provider/model with both parts non-empty"#,
        ),
        (
            r#"{"f": "a/"}"#,
            r#"models.f: "a/" is not allowed; expected provider/model with both parts non-empty"#,
        ),
        (
            r#"{"f": [1]}"#,
            r"models.f[0]: 1 is not allowed; expected provider/model with both parts non-empty",
        ),
        (
            r#"{"f": []}"#,
            r"models.f: [] is not allowed; expected provider/model, or an array of 1 to 16 of these",
        ),
        (
            r#"{"a/x": "a/m", "f": ["a/m", "a/x"]}"#,
            r#"models.f[1]: "a/x" is itself a virtual model; a target must be provider/model"#,
        ),
        (r#"{"": "a/m"}"#, r#"models[""]: "" is not allowed; expected text that is not empty"#),
        (&format!(r#"{{"f": {many}}}"#), "models.f: 17 entries; at most 16 are allowed"),
        ("[]", "models: […] is not allowed; expected an object"),
    ] {
        assert_eq!(said(&with(&format!(r#""models": {models}"#))), [problem]);
    }
}

#[test]
fn model_that_no_client_could_name_is_refused_by_name() {
    let listed = |id: &str| {
        format!(r#"{{"providers": [{{"name": "prov", "url": "https://1", "models": ["m", "{id}"]}}]}}"#)
    };
    assert!(load(&listed(&"x".repeat(251))).is_ok());
    for (id, most) in [("x".repeat(252), 251), ("é".repeat(126), 251), ("x".repeat(257), 256)] {
        let said = said(&listed(&id));
        let end = format!("expected text of at most {most} bytes");
        assert!(said[0].starts_with("providers[0].models[1]: \"") && said[0].ends_with(&end), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
    let named = |name: &str| with(&format!(r#""models": {{"{name}": "a/m"}}"#));
    assert!(load(&named(&"x".repeat(256))).is_ok());
    let said = said(&named(&"x".repeat(257)));
    let end = "expected text of at most 256 bytes";
    assert!(said.len() == 1 && said[0].starts_with("models[") && said[0].ends_with(end), "{said:?}");
}
