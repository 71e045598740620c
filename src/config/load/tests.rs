use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, Problems, from_file, from_text, restart_required, summary, warnings};
use crate::config::{Host, ProxyUrl, Replica, ResponsesApi, Secret, StreamUsage, Target};
use crate::limits::{
    LARGEST_REQUEST, LEAST_MEMORY, MAX_CONFIG_FILE, MAX_PROVIDERS, MAX_TARGETS, MAX_WORKERS,
};
use crate::logging::LogFormat;
use crate::memory;
use crate::text::Language;

const EXAMPLE: &str = include_str!("../../../config.json.example");

fn environment(name: &str) -> Option<String> {
    match name {
        "ZHIPU_API_KEY" => Some("env-zhipu-key-0123456789".into()),
        "DEEPSEEK_API_KEY" => Some("env-deepseek-key-0123456789".into()),
        "OPENAI_API_KEY" => Some("env-openai-key-0123456789".into()),
        "AI_PROXY_TOKEN" => Some("env-token-everyone-0123456789".into()),
        "AI_PROXY_BATCH_TOKEN" => Some("env-token-batch-0123456789".into()),
        "BAD" => Some("env secret\nwith a line end".into()),
        "WHOLE" => Some("p|https://whole.example|whole|key".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, Problems> {
    from_text(text, &environment)
}

fn valid(text: &str) -> Config {
    load(text).unwrap_or_else(|problems| panic!("{text}: {:?}", problems.say(Language::En)))
}

fn said(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.say(Language::En),
    }
}

/// A config with one good provider, followed by `more`.
fn with(more: &str) -> String {
    format!(r#"{{"providers": ["a|https://a.example/v1|key"], {more}}}"#)
}

fn with_provider(entry: &str) -> String {
    format!(r#"{{"providers": [{entry}]}}"#)
}

fn with_object(more: &str) -> String {
    with_provider(&format!(r#"{{"name": "a", "url": "https://a.example", {more}}}"#))
}

fn lone_replica(text: &str) -> Replica {
    valid(text).providers[0].replicas[0].clone()
}

#[test]
fn defaults_are_those_promised() {
    let config = valid(r#"{"providers": ["a|https://a.example/v1|key"]}"#);
    assert_eq!(config.host, Host::Name("localhost".into()));
    assert_eq!(config.port, 8080);
    assert_eq!(config.log_level, log::LevelFilter::Warn);
    assert_eq!(config.log_file, Some(PathBuf::from("ai_proxy.log")));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.language, Language::Zh);
    assert!(config.tokens.is_empty());
    assert!(config.supported_models.is_empty());
    assert!(config.models.is_empty());
    assert!((1..=MAX_WORKERS).contains(&config.workers));
    assert_eq!(config.max_connections, 100);
    assert_eq!(config.max_keepalive_connections, 20);
    assert_eq!(config.keepalive_expiry, Duration::from_secs(30));
    assert_eq!(config.stream_timeout, Duration::from_secs(300));
    assert_eq!(config.non_stream_timeout, Duration::from_secs(30));
    assert_eq!(config.max_response_size, 10_485_760);
    assert_eq!(config.max_stream_size, 268_435_456);
    assert_eq!(config.max_request_size, 33_554_432);
    assert_eq!(config.queue_timeout, Duration::from_secs(5));
    assert_eq!(config.client_timeout, Duration::from_secs(15));
    assert_eq!(config.idle_timeout, Duration::from_secs(75));
    assert_eq!(config.max_clients, 10_000);
    assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.stream_heartbeat, Some(Duration::from_secs(15)));
    assert_eq!(config.health_interval, Duration::from_secs(30));
    assert_eq!(config.models_interval, Duration::from_secs(300));
    assert_eq!(config.max_retries, 2);
    assert!(config.cors_origins.is_empty());
}

#[test]
fn every_integer_has_a_least_and_a_most_and_says_both() {
    let largest = LARGEST_REQUEST as u64;
    for (key, least, most) in [
        ("port", 0, 65_535),
        ("workers", 1, MAX_WORKERS as u64),
        ("max_connections", 1, 10_000),
        ("max_keepalive_connections", 0, 10_000),
        ("max_response_size", 1, 1 << 40),
        ("max_stream_size", 1, 1 << 40),
        ("max_request_size", 1, largest),
        ("max_clients", 1, 1_000_000),
        ("max_retries", 0, 100),
    ] {
        for good in [least, most] {
            valid(&with(&format!(r#""{key}": {good}"#)));
        }
        let kind = if key.ends_with("size") { "an integer number of bytes" } else { "an integer" };
        let too_much = (most + 1).to_string();
        for bad in ["-1", "1.5", "null", "true", "\"8\"", &too_much] {
            if (key, bad) == ("workers", "null") {
                // One per core.
                continue;
            }
            let expected = format!("{key}: {bad} is not allowed; expected {kind} from {least} to {most}");
            assert_eq!(said(&with(&format!(r#""{key}": {bad}"#))), [expected]);
        }
        if least > 0 {
            assert_eq!(said(&with(&format!(r#""{key}": 0"#))).len(), 1, "{key}");
        }
    }
}

#[test]
fn max_memory_null_is_what_there_is() {
    let of = |value: &str| valid(&with(&format!(r#""max_memory": {value}"#))).max_memory;
    assert_eq!((of("null"), of("33554432")), (memory::default_max(), LEAST_MEMORY));
    let expected = "max_memory: 33554431 is not allowed; expected an integer number of bytes from 33554432 to 1099511627776";
    assert_eq!(said(&with(r#""max_memory": 33554431"#)), [expected]);
}

#[test]
fn every_time_is_from_a_millisecond_to_a_week() {
    for key in [
        "keepalive_expiry",
        "stream_timeout",
        "non_stream_timeout",
        "queue_timeout",
        "client_timeout",
        "idle_timeout",
        "shutdown_timeout",
        "health_interval",
        "models_interval",
    ] {
        for good in ["0.001", "1", "1.5", "604800"] {
            valid(&with(&format!(r#""{key}": {good}"#)));
        }
        for (bad, shown) in [
            ("0", "0"),
            ("-1", "-1"),
            ("0.0001", "0.0001"),
            ("604801", "604801"),
            ("\"5\"", "\"5\""),
            ("[]", "[…]"),
        ] {
            let expected = format!("{key}: {shown} is not allowed; expected seconds from 0.001 to 604800");
            assert_eq!(said(&with(&format!(r#""{key}": {bad}"#))), [expected]);
        }
    }
    assert_eq!(valid(&with(r#""idle_timeout": 1.5"#)).idle_timeout, Duration::from_millis(1500));
}

#[test]
fn a_heartbeat_of_zero_is_none() {
    for never in ["0", "0.0", "-0.0"] {
        assert_eq!(valid(&with(&format!(r#""stream_heartbeat": {never}"#))).stream_heartbeat, None);
    }
    assert_eq!(valid(&with(r#""stream_heartbeat": 0.5"#)).stream_heartbeat, Some(Duration::from_millis(500)));
    assert_eq!(
        said(&with(r#""stream_heartbeat": -1"#)),
        ["stream_heartbeat: -1 is not allowed; expected 0 (never) or seconds from 0.001 to 604800"]
    );
}

#[test]
fn words_paths_and_hosts_are_checked() {
    assert_eq!(valid(&with(r#""log_format": "json""#)).log_format, LogFormat::Json);
    assert_eq!(valid(&with(r#""log_level": "debug""#)).log_level, log::LevelFilter::Debug);
    assert_eq!(valid(&with(r#""log_level": "Critical""#)).log_level, log::LevelFilter::Off);
    assert_eq!(valid(&with(r#""log_file": null"#)).log_file, None);
    assert_eq!(valid(&with(r#""host": "unix:/run/a.sock""#)).host, Host::Unix(PathBuf::from("/run/a.sock")));
    let longest = format!("unix:/{}", "s".repeat(106));
    valid(&with(&format!(r#""host": "{longest}""#)));
    for bad in [
        format!(r#""host": "{longest}s""#),
        r#""host": """#.into(),
        r#""host": "unix:""#.into(),
        r#""host": "unix:a.sock""#.into(),
        r#""host": "localhost:8080""#.into(),
        r#""host": 1"#.into(),
        r#""log_file": """#.into(),
        r#""log_file": false"#.into(),
        r#""language": "ZH""#.into(),
        r#""log_format": "JSON""#.into(),
        r#""log_format": null"#.into(),
        r#""cors_origins": ["https://a.example/"]"#.into(),
        r#""cors_origins": "*""#.into(),
        r#""trusted_proxies": ["10.0.0.0/33"]"#.into(),
        r#""trusted_proxies": [1]"#.into(),
        r#""trusted_proxies": "unix""#.into(),
        r#""supported_models": [""]"#.into(),
        r#""supported_models": {}"#.into(),
    ] {
        assert_eq!(said(&with(&bad)).len(), 1, "{bad}");
    }
    assert_eq!(
        said(&with(r#""log_level": "loud""#)),
        [r#"log_level: "loud" is not allowed; expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL"#]
    );
    assert_eq!(
        valid(&with(r#""cors_origins": ["*", "https://A.example:443"]"#)).cors_origins,
        ["*", "https://a.example"]
    );
    assert_eq!(
        said(&with(r#""trusted_proxies": ["::1", "localhost"]"#)),
        [
            r#"trusted_proxies[1]: "localhost" is not allowed; expected unix, an IP address, or a network such as 10.0.0.0/8"#
        ]
    );
}

#[test]
fn trusted_proxies_are_in_the_summary() {
    let proxies = r#""trusted_proxies": ["unix", "10.0.0.0/8", "::1", "::ffff:192.0.2.1"]"#;
    let summary = summary(&valid(&with(proxies)));
    let line = "受信任的代理: 4 (unix, 10.0.0.0/8, ::1/128, 192.0.2.1/32)";
    assert!(summary.lines().any(|found| found == line), "{summary}");
}

#[test]
fn value_names_the_one_rule_that_it_breaks() {
    let rule = |text: &str| {
        let said = said(text);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        said[0].split_once("; expected ").unwrap_or_else(|| panic!("{said:?}")).1.to_owned()
    };
    let long = "x".repeat(9000);
    for (more, expected) in [
        (r#""host": "localhost:8080""#, "a host name or IP address without a port (set port instead)"),
        (r#""host": "https://a.example""#, "a host name or IP address, not a URL"),
        (r#""host": "a b""#, "a host name (letters, digits, -, ., _) or an IP address"),
        (r#""host": "unix:a.sock""#, "unix: and the absolute path of a socket"),
        (r#""host": 1"#, "a string"),
        (r#""log_file": """#, "text that is not empty"),
        (r#""log_file": "a\u0000""#, "text without control characters"),
        (r#""log_file": false"#, "a file path or null"),
        (
            r#""cors_origins": ["https://a.example/"]"#,
            "scheme://host[:port] without a path or a slash at its end",
        ),
        (r#""cors_origins": ["a.example"]"#, "* or scheme://host[:port]"),
        (r#""supported_models": [""]"#, "text that is not empty"),
        (r#""supported_models": [1]"#, "a string"),
        (r#""tokens": ["n|t "]"#, "text without a space at either end"),
        (r#""tokens": ["n|"]"#, "text that is not empty"),
        (r#""tokens": ["|t"]"#, "text that is not empty"),
        (&format!(r#""tokens": ["n|{long}"]"#), "text of at most 8192 bytes"),
        (&format!(r#""models": {{"f": "a/{long}"}}"#), "text of at most 256 bytes"),
        (r#""models": {"f": "a/\u0001"}"#, "text without control characters"),
    ] {
        assert_eq!(rule(&with(more)), expected, "{more}");
    }
    for (entry, expected) in [
        ("a/b|https://a|k", "a name without a slash"),
        ("a b|https://a|k", "a name without white space"),
        ("|https://a|k", "text that is not empty"),
        ("a|a.example|k", "a URL that begins with http:// or https://"),
        ("a|ftp://a.example|k", "a URL that begins with http:// or https://"),
        ("a|https://u:p@a|k", "a URL without a user or password (@)"),
        ("a|https://a?key=1|k", "a URL without a query or fragment (?, #)"),
        ("a|https://a:99999|k", "a URL with a port from 1 to 65535"),
        ("a|https://|k", "a URL with a valid host"),
        ("a|https://a/{b}|k", "a URL of plain characters (write others as %XX)"),
        ("a|https://a| k", "text without a space at either end"),
    ] {
        assert_eq!(rule(&with_provider(&format!("\"{entry}\""))), expected, "{entry}");
    }
    assert_eq!(
        rule(&with_object(r#""proxy": "socks4://a""#)),
        "a proxy URL that begins with http://, https://, socks5:// or socks5h://, or direct"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    assert_eq!(
        said(&with(r#""max_conections": 5"#)),
        ["max_conections: unknown key; the closest known key is max_connections"]
    );
    assert_eq!(said(&with(r#""colour": 5"#)), ["colour: unknown key; the closest known key is host"]);
    assert_eq!(
        said(&with_object(r#""wieght": 1"#)),
        ["providers[0].wieght: unknown key; the closest known key is weight"]
    );
    assert_eq!(
        said(&with(r#""tokens": [{"name": "n", "token": "t", "max_paralel": 1}]"#)),
        ["tokens[0].max_paralel: unknown key; the closest known key is max_parallel"]
    );
}

#[test]
fn a_duplicate_key_is_a_problem_at_every_level() {
    for (text, problem) in [
        (with(r#""port": 1, "port": 2"#), "port: duplicate key"),
        (with_object(r#""weight": 1, "weight": 2"#), "providers[0].weight: duplicate key"),
        (with_object(r#""headers": {"x-a": "1", "x-a": "2"}"#), "providers[0].headers.x-a: duplicate key"),
        (
            with_object(r#""headers": {"x-a": "1", "X-A": "2"}"#),
            "providers[0].headers.X-A: duplicate header (names ignore case)",
        ),
        (with(r#""tokens": [{"name": "n", "token": "t", "name": "m"}]"#), "tokens[0].name: duplicate key"),
        (with(r#""models": {"f": "a/b", "f": "a/c"}"#), "models.f: duplicate key"),
    ] {
        assert_eq!(said(&text), [problem]);
    }
}

#[test]
fn a_syntax_error_says_where_in_characters() {
    assert_eq!(said("{\n  \"端口\": ?\n}"), ["not valid JSON at line 2 column 9: expected value"]);
    assert_eq!(said("{} x"), ["not valid JSON at line 1 column 4: trailing characters"]);
    assert_eq!(said("[]"), ["the config must be a JSON object; found […]"]);
    let deep = format!("{{\"host\": {}", "[".repeat(100_000));
    assert!(said(&deep)[0].contains("recursion limit exceeded"), "{:?}", said(&deep));
    assert!(said(r#"{"port": 1e999}"#)[0].contains("number out of range"));
}

#[test]
fn syntax_that_json_lacks_is_named_at_its_place() {
    let comment = "JSON has no comments; remove it";
    let comma = "no comma may follow the last entry; remove it";
    let quotes = "write double quotes instead of single quotes";
    for (text, line, column, problem) in [
        ("// a\n{}", 1, 1, comment),
        ("{\n  // a\n}", 2, 3, comment),
        ("{\"port\": 1, // a\n\"host\": \"::1\"}", 1, 13, comment),
        ("{\"port\": /* a */ 1}", 1, 10, comment),
        ("{\"port\": 1 # a\n}", 1, 12, comment),
        ("{\"端口\": [1, # a\n2]}", 1, 12, comment),
        ("{}\n# a", 2, 1, comment),
        ("{\"port\": 1,}", 1, 11, comma),
        ("{\"port\": 1,\r\n\r\n}", 1, 11, comma),
        ("{\"providers\": [\n\"端\" ,\n], \"port\": 1}", 2, 5, comma),
        ("{'port': 1}", 1, 2, quotes),
        ("{\"host\":\n 'a'}", 2, 2, quotes),
        ("", 1, 1, "the file is empty"),
        (" \n\t\r\n", 1, 1, "the file is empty"),
        ("\u{feff}\n", 1, 1, "the file is empty"),
        // In the middle of something else these characters are what they are.
        ("{\"host\": \"a\\'\"}", 1, 13, "invalid escape"),
        ("{\"host\": \"it'", 1, 13, "EOF while parsing a string"),
        ("{\"port\": 1/2}", 1, 11, "expected `,` or `}`"),
        ("{,}", 1, 2, "key must be a string"),
    ] {
        let expected = format!("not valid JSON at line {line} column {column}: {problem}");
        assert_eq!(said(text), [expected], "{text:?}");
    }
}

#[test]
fn file_in_utf_16_is_named_as_such() {
    let text = "{\"language\": \"en\", \"host\": \"é密\"}";
    let units = |mark: &str| format!("{mark}{text}").encode_utf16().collect::<Vec<u16>>();
    let said = "line 1 is UTF-16, not UTF-8; save the file as UTF-8";
    for mark in ["", "\u{feff}"] {
        let little: Vec<u8> = units(mark).iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units(mark).iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [little, big] {
            let (language, problem) = super::syntax::decoded(bytes).unwrap_err();
            assert_eq!((language, problem.say(Language::En).as_str()), (Some(Language::En), said));
        }
    }
    // Some file systems leave this after a loss of power.
    for zeros in [1, 2, 100] {
        assert_eq!(super::syntax::decoded(vec![0; zeros]).ok().map(|text| text.len()), Some(zeros));
    }
}

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
fn a_byte_order_mark_is_accepted() {
    valid(&format!("\u{feff}{}", with(r#""port": 1"#)));
}

#[test]
fn a_missing_variable_is_named_and_its_echo_is_not() {
    assert_eq!(
        said(
            r#"{"models": {"f": "p/m"}, "providers": ["${P}|https://a.example|${OPENAI_KEY}", {"name": "${Q}", "url": "https://a"}]}"#
        ),
        [
            "providers[0]: environment variable P is not set",
            "providers[0]: environment variable OPENAI_KEY is not set",
            "providers[1].name: environment variable Q is not set"
        ]
    );
    for (more, place) in [
        (r#""host": "${NONE}""#, "host"),
        (r#""log_file": "${NONE}""#, "log_file"),
        (r#""supported_models": ["${NONE}"]"#, "supported_models[0]"),
        (r#""tokens": ["a|${NONE}"]"#, "tokens[0]"),
        (r#""models": {"f": ["${NONE}"]}"#, "models.f[0]"),
        (r#""cors_origins": ["${NONE}"]"#, "cors_origins[0]"),
    ] {
        assert_eq!(said(&with(more)), [format!("{place}: environment variable NONE is not set")]);
    }
    assert_eq!(
        said(&with_object(r#""headers": {"x": "${NONE}"}"#)),
        ["providers[0].headers.x: environment variable NONE is not set"]
    );
}

#[test]
fn variables_are_replaced_before_a_string_is_split_and_regexes_are_left_alone() {
    let config = valid(&with_provider(r#""${WHOLE}""#));
    assert_eq!(config.providers[0].name, "p");
    assert_eq!(config.providers[0].replicas[0].key, Secret::new("whole|key".into()));
    let config = valid(&with(r#""supported_models": ["^gpt-4$", "a{2}", "x$|${EMPTY}y"]"#));
    let patterns: Vec<&str> = config.supported_models.patterns().collect();
    assert_eq!(patterns, ["^gpt-4$", "a{2}", "x$|y"]);
}

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
fn every_truncation_of_the_example_is_refused() {
    let whole = EXAMPLE.trim_end();
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let said = said(&whole[..end]);
        assert!(said.len() == 1 && said[0].starts_with("not valid JSON at line"), "{end}: {said:?}");
    }
}

#[test]
fn random_and_damaged_text_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let letters: Vec<char> = "{}[]\",:\\${}|/.@#? 019-+eEtrufalsn\u{0}\u{feff}é密𝄞\n".chars().collect();
    let characters: Vec<char> = EXAMPLE.chars().collect();
    for _ in 0..1500 {
        let noise: String = (0..random(80)).map(|_| letters[random(letters.len())]).collect();
        let _ = load(&noise);
        let strings = format!(
            r#"{{"host": {0}, "providers": [{0}, {{"name": {0}, "url": {0}, "proxy": {0}, "headers": {{{0}: {0}}}}}], "tokens": [{0}], "models": {{{0}: {0}}}, "cors_origins": [{0}], "supported_models": [{0}]}}"#,
            serde_json::to_string(&noise).unwrap()
        );
        let _ = load(&strings);
        let mut damaged = characters.clone();
        for _ in 0..=random(4) {
            let at = random(damaged.len());
            damaged[at] = letters[random(letters.len())];
        }
        let _ = load(&damaged.into_iter().collect::<String>()).map_err(|problems| problems.say(Language::Zh));
    }
}

/// A file in a directory of its own, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let directory = std::env::temp_dir().join(format!("ai-proxy-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.json"), bytes).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("config.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
fn keys_that_need_a_restart_are_named_only_when_they_change() {
    let old = valid(&with(r#""port": 1"#));
    assert!(restart_required(&old, &old).is_empty());
    let new = valid(&with(
        r#""host": "::1", "port": 2, "workers": 64, "max_connections": 3, "max_clients": 4, "max_retries": 9"#,
    ));
    assert_eq!(restart_required(&old, &new), ["host", "port", "workers", "max_connections", "max_clients"]);
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
        {"name": "own", "url": "https://$HOST/v1", "key": "${KEY", "headers": {"x-team": "<team>"}}],
        "tokens": ["alice|${}", "bob|%TOKEN%"]}"#;
    let asks = "looks like a variable that is not replaced, or a blank to fill in; an environment variable is written ${NAME}";
    let expected = [
        "provider zhipu: key (https://a.example/v1)",
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
