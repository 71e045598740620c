//! The config and the command line: the output of `check`, every problem at once, no secret shown.

use serde_json::{Value, json};
use std::process::Command;

use crate::support::calls::{KEY, TOKEN, ask, completion};
use crate::support::proxy::{Finished, Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

/// A valid config; `check` calls no provider.
fn good() -> Value {
    json!({
        "port": 0,
        "host": "127.0.0.1",
        "log_file": null,
        "language": "en",
        "providers": [format!("zhipu|https://open.example/api/paas/v4|{KEY}")],
        "tokens": [format!("tester|{TOKEN}")],
    })
}

/// Runs `ai-proxy` with these arguments in a directory that holds `config` as `config.json`.
fn run_with(config: impl AsRef<[u8]>, args: &[&str], adjust: impl FnOnce(&mut Command)) -> Finished {
    let directory = TempDir::new();
    std::fs::write(directory.join("config.json"), config).expect("write config");
    let mut command = command(directory.path());
    command.args(args);
    adjust(&mut command);
    run(&mut command)
}

fn check(config: &Value) -> Finished {
    run_with(config.to_string(), &["check"], |_| {})
}

/// `check` and serving both refuse `config` with exit code 2 and name all of `parts`.
fn assert_refused(config: &Value, parts: &[&str]) {
    let faults = faults(config, parts);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// How a refusal of `config` differs from that.
fn faults(config: &Value, parts: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for args in [&["check"][..], &[]] {
        let finished = run_with(config.to_string(), args, |_| {});
        let output = finished.output();
        if finished.code != Some(2) {
            faults.push(format!("{args:?} ends with {:?} for {config}: {output}", finished.code));
        }
        let missing = parts.iter().filter(|part| !output.contains(**part));
        faults.extend(missing.map(|part| format!("{args:?} does not say {part:?}: {output}")));
    }
    faults
}

#[test]
fn check_sums_up_a_good_config() {
    let finished = check(&good());
    assert_eq!(finished.code, Some(0), "{}", finished.output());
    assert!(finished.stdout.contains("zhipu"), "{}", finished.stdout);
    assert!(finished.stdout.contains("open.example"), "{}", finished.stdout);
    assert_no_secret(&finished.output());
}

fn assert_no_secret(output: &str) {
    for secret in [KEY, TOKEN] {
        // Only the first 3 and last 2 characters may be shown.
        assert!(!output.contains(&secret[..4]), "{output}");
        assert!(!output.contains(&secret[secret.len() - 3..]), "{output}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let config = json!({
        "prot": 8080,
        "log_level": "LOUD",
        "language": "fr",
        "max_connections": -1,
        "stream_timeout": "soon",
        "supported_models": ["ok", "("],
        "providers": ["no-bars", format!("p|not a url|{KEY}"), {"name": "q", "ulr": "http://x/v1", "key": "k"}],
        "tokens": ["no-bar"],
        "cors_origins": "not a list",
    });
    let parts = [
        "prot",
        "port",
        "LOUD",
        "WARNING",
        "fr",
        "zh",
        "max_connections",
        "-1",
        "stream_timeout",
        "soon",
        "supported_models",
        "providers",
        "ulr",
        "url",
        "tokens",
        "cors_origins",
    ];
    assert_refused(&config, &parts);
    assert_no_secret(&check(&config).output());
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let mut found = Vec::new();
    for (wrong, nearest) in [
        ("prot", "port"),
        ("max_conections", "max_connections"),
        ("streamTimeout", "stream_timeout"),
        ("provider", "providers"),
        ("Tokens", "tokens"),
        ("heartbeat", "stream_heartbeat"),
    ] {
        found.extend(faults(&with(good(), json!({wrong: 1})), &[wrong, nearest]));
    }
    // Inside objects as well.
    let provider = json!({"name": "p", "url": "http://x.example/v1", "key": KEY, "wieght": 1});
    found.extend(faults(&with(good(), json!({"providers": [provider]})), &["wieght", "weight"]));
    let token = json!({"name": "x", "token": TOKEN, "rmp": 1});
    found.extend(faults(&with(good(), json!({"tokens": [token]})), &["rmp", "rpm"]));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_key_has_its_type_and_range() {
    let mut found = Vec::new();
    for (key, value, shown) in [
        ("host", json!(7), "7"),
        ("port", json!("80"), "80"),
        ("port", json!(65536), "65536"),
        ("port", json!(-1), "-1"),
        ("port", json!(80.5), "80.5"),
        ("log_level", json!("warning "), "DEBUG"),
        ("log_file", json!(7), "7"),
        ("language", json!("EN-US"), "EN-US"),
        ("providers", json!({}), "providers"),
        ("providers", json!([7]), "providers[0]"),
        ("providers", json!(["p|ftp://x/v1|key-of-some-length"]), "ftp"),
        ("providers", json!(["|http://x/v1|key-of-some-length"]), "providers"),
        ("providers", json!(["a/b|http://x/v1|key-of-some-length"]), "a/b"),
        ("providers", json!([{"name": "p"}]), "url"),
        ("tokens", json!([7]), "tokens[0]"),
        ("tokens", json!([{"name": "x"}]), "token"),
        ("tokens", json!([{"name": "x", "token": "sk-0123456789", "rpm": -1}]), "rpm"),
        ("tokens", json!([{"name": "x", "token": "sk-0123456789", "models": ["("]}]), "models"),
        ("supported_models", json!(["*"]), "*"),
        ("models", json!([]), "models"),
        ("models", json!({"fast": 7}), "fast"),
        ("max_connections", json!(0), "0"),
        ("max_connections", json!(1.5), "1.5"),
        ("stream_timeout", json!(-1), "-1"),
        ("non_stream_timeout", json!(true), "true"),
        ("non_stream_timeout", json!(1e300), "non_stream_timeout"),
        ("max_response_size", json!(-5), "-5"),
        ("max_request_size", json!(0), "0"),
        ("queue_timeout", json!(null), "null"),
        ("client_timeout", json!("15"), "15"),
        ("max_clients", json!(0), "0"),
        ("max_retries", json!(-1), "-1"),
        ("cors_origins", json!([7]), "7"),
    ] {
        found.extend(faults(&with(good(), json!({key: value})), &[key, shown]));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_no_json_says_where() {
    for (text, part) in [
        ("", "JSON"),
        ("{\n  \"port\": 1,\n  nonsense\n}", "3"),
        ("{\"port\": 1,}", "1"),
        ("[]", "JSON"),
        ("{} {}", "1"),
        ("// comment\n{}", "1"),
    ] {
        for args in [&["check"][..], &[]] {
            let finished = run_with(text, args, |_| {});
            assert_eq!(finished.code, Some(2), "{text:?}: {}", finished.output());
            assert!(finished.output().contains(part), "{text:?}: {}", finished.output());
        }
    }
}

#[test]
fn problem_names_its_file_and_is_said_in_the_language_of_the_locale_until_the_config_has_one() {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (zh, en) = ("config.json: 第 1 行第 10 列", "config.json: not valid JSON at line 1 column 10");
    for (variables, expected) in [
        (&[][..], texts(&[zh, en])),
        (&[("LANG", "en_US.UTF-8")], texts(&[en])),
        (&[("LANG", "zh_CN.UTF-8")], texts(&[zh])),
        (&[("LANG", "zh_CN.UTF-8"), ("LC_MESSAGES", "C")], texts(&[en])),
        (&[("LANG", "C"), ("LC_MESSAGES", "C"), ("LC_ALL", "zh_TW")], texts(&[zh])),
    ] {
        for args in [&["check"][..], &[]] {
            let finished = run_with("{\"port\": ?}", args, |command| {
                command.envs(variables.iter().copied());
            });
            let lines: Vec<&str> = finished.stderr.lines().collect();
            assert_eq!((finished.code, lines.len()), (Some(2), expected.len()), "{}", finished.output());
            for (line, start) in lines.iter().zip(&expected) {
                assert!(line.starts_with(start), "{variables:?}: {line}");
            }
        }
    }
    let missing = |directory: &TempDir| {
        run(command(directory.path()).args(["--config", "none.json"]).env("LANG", "en_US.UTF-8"))
    };
    let missing = missing(&TempDir::new()).stderr;
    assert!(missing.starts_with("none.json: cannot read the config file: No such file"), "{missing}");
    let usage = run(command(TempDir::new().path()).arg("--prot").env("LC_ALL", "zh_CN")).stderr;
    assert_eq!(usage, "ai-proxy: 未知的参数: --prot\n用法见 ai-proxy --help\n");
    // The config has a language: the locale no longer counts.
    for (language, said) in [(json!("en"), "port: \"x\" is not"), (json!("zh"), "port: 不接受 \"x\"")] {
        let config = with(good(), json!({"language": language, "port": "x"}));
        for locale in ["en_US", "zh_CN"] {
            let finished = run_with(config.to_string(), &["check"], |command| {
                command.env("LC_ALL", locale);
            });
            assert!(finished.stderr.starts_with(&format!("config.json: {said}")), "{}", finished.stderr);
            assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        }
    }
    let unknown = with(good(), json!({"language": "fr"}));
    let said = run_with(unknown.to_string(), &[], |_| {}).stderr;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "config.json: language: 不接受 \"fr\"；应为以下之一: zh、en",
            "config.json: language: \"fr\" is not allowed; expected one of zh, en"
        ]
    );
}

#[test]
fn host_that_is_not_here_is_named() {
    for (host, said) in [
        (
            "203.0.113.7",
            "203.0.113.7:0: Cannot assign requested address (os error 99); this machine does not",
        ),
        ("no-such-host.invalid", "no-such-host.invalid: "),
        ("unix:/nonexistent/folder/a.sock", "unix:/nonexistent/folder/a.sock: No such file"),
    ] {
        let finished = run_with(with(good(), json!({"host": host})).to_string(), &[], |_| {});
        assert_eq!(finished.code, Some(1), "{}", finished.output());
        let expected = format!("ai-proxy: cannot listen (host and port in the config): {said}");
        assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
    }
}

#[test]
fn a_key_given_twice_is_no_accident_to_ignore() {
    let text = good().to_string().replacen('{', "{\"port\": 1, ", 1);
    let finished = run_with(text, &["check"], |_| {});
    assert_eq!(finished.code, Some(2), "{}", finished.output());
    assert!(finished.output().contains("port"), "{}", finished.output());
}

#[test]
fn no_provider_is_a_bad_config() {
    for config in [json!({}), with(good(), json!({"providers": []}))] {
        assert_refused(&config, &["providers"]);
    }
}

#[test]
fn a_missing_file_is_named() {
    let directory = TempDir::new();
    for args in [&["--config", "nowhere.json"][..], &["check", "--config", "nowhere.json"]] {
        let finished = run(command(directory.path()).args(args));
        assert_eq!(finished.code, Some(2), "{}", finished.output());
        assert!(finished.output().contains("nowhere.json"), "{}", finished.output());
    }
    let finished = run(&mut command(directory.path()));
    assert_eq!(finished.code, Some(2), "{}", finished.output());
    assert!(finished.output().contains("config.json"), "{}", finished.output());
}

#[test]
fn strings_take_from_the_environment() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let providers = json!([format!("p1|http://${{IT_ADDRESS}}/${{IT_VERSION}}|${{IT_KEY}}")]);
    let tokens = json!([{"name": "x", "token": "${IT_TOKEN}"}]);
    let config = with(config(&[]), json!({"providers": providers, "tokens": tokens}));
    let proxy = Proxy::start_in(TempDir::new(), &config, |command| {
        command.env("IT_ADDRESS", upstream.address().to_string());
        command.env("IT_VERSION", "v1").env("IT_KEY", "key|with}bars").env("IT_TOKEN", TOKEN);
    });
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    assert_eq!(upstream.last().head.get("authorization"), Some("Bearer key|with}bars"));

    let missing = with(good(), json!({"tokens": ["x|${IT_SURELY_MISSING}", "y|${IT_MISSING_TOO}"]}));
    assert_refused(&missing, &["IT_SURELY_MISSING", "IT_MISSING_TOO", "tokens"]);
}

#[test]
fn the_flag_wins_over_the_environment_over_the_default() {
    let directory = TempDir::new();
    let named = |name: &str| {
        with(good(), json!({"providers": [format!("{name}|http://x.example/v1|{KEY}")]})).to_string()
    };
    for name in ["config", "environment", "flag"] {
        std::fs::write(directory.join(&format!("{name}.json")), named(name)).expect("write");
    }
    let mut plain = command(directory.path());
    plain.arg("check");
    let mut environment = command(directory.path());
    environment.arg("check").env("AI_PROXY_CONFIG", "environment.json");
    let mut flag = command(directory.path());
    flag.args(["check", "--config", "flag.json"]).env("AI_PROXY_CONFIG", "environment.json");
    let mut equals = command(directory.path());
    equals.args(["check", "--config=flag.json"]);
    for (command, name) in [(plain, "config"), (environment, "environment"), (flag, "flag"), (equals, "flag")]
    {
        let mut command = command;
        let finished = run(&mut command);
        assert_eq!(finished.code, Some(0), "{}", finished.output());
        let line = finished.stdout.lines().find(|line| line.contains("x.example"));
        assert!(line.is_some_and(|line| line.contains(name)), "{name}: {}", finished.stdout);
    }
}

#[test]
fn secrets_are_masked_everywhere() {
    let secret = "hunter2-very-secret-value";
    let providers = json!([
        {"name": "a", "url": format!("https://user:{secret}@x.example/v1"), "key": KEY,
         "headers": {"X-Secret": secret}, "proxy": format!("http://user:{secret}@proxy.example:3128")},
        {"name": "b", "url": "https://y.example/v1", "key": "short"},
    ]);
    for changes in [
        json!({"providers": providers.clone()}),
        json!({"providers": providers, "port": "wrong", "tokens": [format!("no bar {TOKEN}")]}),
        json!({"providers": [{"name": "a", "url": "https://x.example", "key": [KEY], "header": {"X": secret}}]}),
        json!({"providers": [{"name": "a", "url": format!("ftp://user:{secret}@x.example"), "key": KEY}]}),
        json!({"providers": [format!("a|https://x.example|{KEY}|{secret}|more")]}),
        json!({"tokens": [{"name": "x", "token": {"nested": TOKEN}}, {"name": "y", "tokn": TOKEN}]}),
        json!({"tokens": {"x": TOKEN}, "providers": {"x": KEY}}),
        json!({"tokens": TOKEN, "providers": KEY}),
    ] {
        let output = check(&with(good(), changes)).output();
        assert_no_secret(&output);
        assert!(!output.contains(&secret[..4]), "{output}");
        assert!(!output.contains("short") || output.contains("too short"), "{output}");
    }
}

#[test]
fn bad_usage_is_2_and_questions_are_0() {
    let directory = TempDir::new();
    for args in [
        &["serve-me"][..],
        &["--conifg", "x"],
        &["--config"],
        &["check", "--port", "1"],
        &["-x"],
        &["demo", "--port"],
        &["demo", "--port", "http"],
        &["demo", "--port", "65536"],
        &["check", "extra"],
    ] {
        let finished = run(command(directory.path()).args(args));
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.output());
        assert!(!finished.stderr.trim().is_empty(), "{args:?} is told on stderr");
    }
    let version = run(command(directory.path()).arg("--version"));
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", version.stdout);
    let help = run(command(directory.path()).arg("--help"));
    assert_eq!(help.code, Some(0));
    for word in ["check", "demo", "--config", "AI_PROXY_CONFIG", "--version"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
}

#[test]
fn the_documented_example_is_good() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.json.example");
    let Ok(example) = std::fs::read(path) else {
        return;
    };
    let finished = run_with(&example, &["check"], |command| {
        // An example may show `${NAME}`; give every such name a value.
        let text = String::from_utf8_lossy(&example).into_owned();
        for part in text.split("${").skip(1) {
            let name = part.split('}').next().unwrap_or_default();
            command.env(name, format!("value-of-{name}"));
        }
    });
    assert_eq!(finished.code, Some(0), "{}", finished.output());
}
