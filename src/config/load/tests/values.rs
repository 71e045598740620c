//! What a key may be, and what it is where the file does not say.

use std::path::PathBuf;
use std::time::Duration;

use super::{said, valid, with, with_object, with_provider};
use crate::config::Host;
use crate::limits::{LARGEST_REQUEST, LEAST_MEMORY, MAX_WORKERS};
use crate::logging::LogFormat;
use crate::memory;
use crate::text::Language;

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
