//! The log: one line per event, durations that a shell can sort, no secret, no forged line.

use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

use crate::support::calls::{DONE, KEY, TOKEN, ask, ask_streamed, bare, chat, completion, event, post};
use crate::support::eventually;
use crate::support::proxy::{Lines, Proxy, command, config, run, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

/// Serves one provider with its log in `proxy.log` of the proxy's directory.
fn start(changes: Value) -> (Upstream, Proxy, Value) {
    let upstream = Upstream::new(&["m"]);
    upstream.handle("/v1/chat/completions", |request| {
        if request.text().contains(r#""stream":true"#) {
            return Script::sse().chunk(event("a")).chunk(DONE).end();
        }
        Script::json(200, &completion("hello"))
    });
    let file = json!({"log_file": "proxy.log", "language": "zh"});
    let config = with(with(config(&[("p1", &upstream)]), file), changes);
    let proxy = Proxy::start(&config);
    (upstream, proxy, config)
}

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap_or_default()).expect("a log is UTF-8")
}

/// Waits for a line of the log file that holds all of `parts`.
fn line_with(proxy: &Proxy, parts: &[&str]) -> String {
    let path = proxy.directory.join("proxy.log");
    eventually(&format!("a line with {parts:?}"), || {
        let text = read(&path);
        let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(str::to_owned)
    })
}

fn line_format() -> Regex {
    Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL) \S")
        .expect("regex")
}

#[test]
fn request_refused_by_its_head_leaves_a_bounded_number_of_lines() {
    let (_upstream, proxy, _config) = start(json!({}));
    let filter = include_str!("../../deploy/fail2ban.conf");
    let failregex = filter.lines().find_map(|line| line.strip_prefix("failregex = ^")).expect("failregex");
    let failregex = Regex::new(&failregex.replace("<ADDR>", "127\\.0\\.0\\.1")).expect("regex");
    let guess = [("Authorization", "Bearer sk-guess")];
    for _ in 0..25 {
        assert_eq!(proxy.call(bare("POST", "/v1/chat/completions?key=sk-hidden", &guess)).status, 401);
    }
    assert_eq!(proxy.call(bare("GET", "/401/invalid_token/client=192.0.2.1", &[])).status, 404);
    let unknown = line_with(&proxy, &["WARNING 404 not_found client=127.0.0.1 method=GET path=/401/"]);
    assert!(!failregex.is_match(&unknown), "{unknown}");
    let text = read(&proxy.directory.join("proxy.log"));
    let lines: Vec<&str> = text.lines().filter(|line| failregex.is_match(line)).collect();
    assert_eq!(lines.len(), 20, "{text}");
    assert!(lines[0].contains(" method=POST path=/v1/chat/completions request_id=req_"), "{}", lines[0]);
    assert!(!text.contains("sk-guess") && !text.contains("sk-hidden"), "{text}");
}

#[test]
fn every_relayed_request_has_its_line() {
    let (_upstream, proxy, _config) = start(json!({}));
    let end = Regex::new(r"耗时: \d+\.\d{3} s$").expect("regex");
    for (request, id) in [(ask("p1/m"), "whole-1"), (ask_streamed("p1/m"), "stream-1")] {
        let request = String::from_utf8(request).expect("text");
        let request = request.replacen("Host:", &format!("X-Request-Id: {id}\r\nHost:"), 1);
        assert_eq!(proxy.call(request).status, 200);
        let line = line_with(&proxy, &["耗时:", id]);
        assert!(line_format().is_match(&line), "{line}");
        assert!(line.contains(" INFO "), "{line}");
        for part in ["p1", "m", "200", "tester"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(end.is_match(&line), "{line}");
    }
    let whole = line_with(&proxy, &["whole-1"]);
    // Tokens used, as the response's `usage` has them: 3 in, 5 out.
    assert!(Regex::new(r"\b3\b.*\b5\b").expect("regex").is_match(&whole), "{whole}");
    let bytes = completion("hello").to_string().len().to_string();
    assert!(whole.contains(&bytes), "{bytes} bytes: {whole}");
}

#[test]
fn a_streams_tokens_are_logged() {
    let (upstream, proxy, _config) = start(json!({}));
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":117,\"completion_tokens\":229,\"total_tokens\":346}}\n\n";
    upstream.chat(Script::sse().chunk(event("a")).chunk(usage).chunk(DONE).end());
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    let line = line_with(&proxy, &["耗时:"]);
    assert!(Regex::new(r"\b117\b.*\b229\b").expect("regex").is_match(&line), "{line}");
}

#[test]
fn durations_can_be_sorted_as_documented() {
    let (upstream, proxy, _config) = start(json!({}));
    for millis in [150, 0, 50] {
        let pause = Step::Pause(std::time::Duration::from_millis(millis));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        upstream.chat(Script::default().then(pause).send(head));
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
    }
    upstream.chat(Script::json(500, &json!({"error": {"message": "x"}})));
    assert_eq!(proxy.call(ask("p1/m")).status, 500);
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Fin));
    proxy.call(ask_streamed("p1/m"));

    let script = r#"grep "耗时:" proxy.log | awk '{print $(NF-1)}' | sort -n"#;
    let sorted: Vec<f64> = eventually("five durations", || {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", script]).current_dir(proxy.directory.path()).output().expect("sh");
        let text = String::from_utf8(output.stdout).expect("text");
        let numbers: Vec<f64> = text.lines().map(|line| line.parse().expect("a number")).collect();
        (numbers.len() >= 5).then_some(numbers)
    });
    assert_eq!(sorted.len(), 5, "one line a request: {sorted:?}");
    assert!(sorted.is_sorted() && sorted[4] >= 0.15, "{sorted:?}");
}

#[test]
fn failures_have_their_level() {
    let (upstream, proxy, _config) = start(json!({"max_retries": 0, "log_level": "WARNING"}));
    upstream.chat(Script::default().then(Step::Reset));
    assert_eq!(proxy.call(ask("p1/m")).status, 502);
    line_with(&proxy, &[" WARN", "p1"]);
    line_with(&proxy, &[" ERROR ", "502"]);
    let text = read(&proxy.directory.join("proxy.log"));
    assert!(!text.contains(" INFO "), "below the level: {text}");
}

/// As `sha256sum` prints it.
fn sha256_hex(text: &str) -> String {
    ai_proxy::config::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn nothing_secret_is_ever_shown() {
    let secret = "header-secret-value-xkcd";
    let upstream = Upstream::new(&["m"]);
    let object = json!({"name": "p1", "url": upstream.url(), "key": KEY, "headers": {"X-Secret": secret}});
    let password = format!("http://user:{secret}@127.0.0.1:1");
    let gone = json!({"name": "gone", "url": upstream.url(), "key": KEY, "proxy": password});
    let (hashed, hash) = ("sk-known-by-its-hash-alone-wzkp", sha256_hex("sk-known-by-its-hash-alone-wzkp"));
    let changes = json!({
        "tokens": [format!("tester|{TOKEN}"), format!("hashed|sha256:{hash}")],
        "providers": [object, gone], "log_level": "DEBUG", "log_file": "proxy.log", "max_retries": 0,
        "non_stream_timeout": 1, "language": "zh",
    });
    let config = with(config(&[]), changes);
    let mut proxy = Proxy::start(&config);
    let wrong = "sk-wrong-but-secret-all-the-same-qqxz";
    let mut responses = String::new();
    let mut say = |request: Vec<u8>| {
        let response = proxy.call(request);
        responses += &String::from_utf8_lossy(&response.head.raw);
        responses += &response.text();
    };
    for script in [
        Script::json(200, &completion("hello")),
        Script::json(401, &json!({"error": {"message": "no"}})),
        Script::whole(500, &[], "plain"),
        Script::default().then(Step::Reset),
        Script::raw("garbage\r\n\r\n").then(Step::Fin),
        Script::default().then(Step::Silence),
        Script::sse().chunk(event("a")).then(Step::Fin),
    ] {
        upstream.chat(script);
        say(ask("p1/m"));
    }
    say(ask_streamed("p1/m"));
    say(ask("gone/m"));
    say(ask("nowhere/m"));
    say(chat(format!("{{\"model\": \"{TOKEN}")));
    for target in ["/", "/health", "/v1/models", "/v1/models/p1/m", "/v1/status", "/metrics", "/nowhere"] {
        say(bare("GET", target, &[("Authorization", &format!("Bearer {hashed}"))]));
        say(bare("GET", target, &[("X-Api-Key", TOKEN)]));
        say(bare("GET", target, &[("Authorization", &format!("Bearer {wrong}"))]));
    }
    say(post("/v1/reload", &[], ""));
    let checked = run(command(proxy.directory.path()).args(["check", "--config", "config.json"]));
    assert_eq!(checked.code, Some(0));
    proxy.write_config(&with(config, json!({"tokens": [format!("x{TOKEN}")], "port": "none"})));
    say(post("/v1/reload", &[], ""));
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));

    let log = read(&proxy.directory.join("proxy.log"));
    assert!(log.contains("DEBUG") || log.contains("INFO"), "there is a log");
    let stdout = proxy.stdout.all().join("\n");
    let places = [
        ("responses", responses),
        ("log", log),
        ("stderr", proxy.log()),
        ("stdout", stdout),
        ("check", checked.output()),
    ];
    for (place, text) in &places {
        for secret in [TOKEN, KEY, secret, wrong, hashed, &hash] {
            // First 3 and last 2 characters at most: anything longer is a leak.
            for part in [&secret[..5], &secret[4..12], &secret[secret.len() - 5..]] {
                let line = text.lines().find(|line| line.contains(part)).unwrap_or_default();
                assert_eq!(line, "", "{place} show {part:?} of {secret:?}");
            }
        }
    }
}

#[test]
fn no_request_can_forge_a_line() {
    let (upstream, proxy, _config) = start(json!({"log_level": "DEBUG", "max_retries": 0}));
    let forged = "2025-01-01 00:00:00.000 INFO forged 耗时: 9.999 s";
    let evil = ["\n", "\r\n", "\r", "\u{85}", "\u{2028}", "\u{9b}2J", "\u{1b}[2J", "\0", "\u{7f}"];
    for control in evil {
        let model = format!("p1/x{control}{forged}");
        proxy.call(ask(&model));
        proxy.call(ask_streamed(&model));
        proxy.call(ask(&format!("nowhere{control}{forged}")));
        let encoded: String = model.bytes().map(|byte| format!("%{byte:02X}")).collect();
        proxy.get(&format!("/v1/models/{encoded}"));
        proxy.get(&format!("/{encoded}?{encoded}"));
        let raw = control.replace(['\n', '\r', '\0'], "");
        let headers = [("X-Request-Id", &*format!("id{raw}x")), ("User-Agent", &*format!("agent{raw}x"))];
        proxy.call(bare("GET", "/nowhere", &headers));
        // The upstream's text is no more trustworthy.
        upstream.chat(Script::whole(500, &[("Content-Type", "text/plain")], format!("x{control}{forged}")));
        proxy.call(ask("p1/m"));
        upstream.chat(Script::raw(format!("HTTP/1.1 20x{control}{forged}\r\n\r\n")).then(Step::Fin));
        proxy.call(ask("p1/m"));
    }
    proxy.call(format!("GET /\u{9b}{forged} HTTP/1.1\r\nHost: x\r\n\r\n"));
    line_with(&proxy, &["耗时:"]);

    let text = read(&proxy.directory.join("proxy.log"));
    let format = line_format();
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        assert!(format.is_match(line), "not a line of the log: {line:?}");
        assert!(!line.starts_with("2025-01-01"), "forged: {line:?}");
        let escaped = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
        assert!(line.chars().all(escaped), "a raw control character: {line:?}");
    }
}

#[test]
fn sighup_opens_the_log_anew() {
    let (_upstream, proxy, _config) = start(json!({}));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    line_with(&proxy, &["耗时:"]);
    let (path, rotated) = (proxy.directory.join("proxy.log"), proxy.directory.join("proxy.log.1"));
    std::fs::rename(&path, &rotated).expect("rename");
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    eventually("the renamed file is written on", || {
        (read(&rotated).matches("耗时:").count() == 2).then_some(())
    });
    proxy.signal(Signal::HUP);
    eventually("a new file", || path.exists().then_some(()));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    line_with(&proxy, &["耗时:"]);
    assert_eq!(read(&rotated).matches("耗时:").count(), 2);
}

#[test]
fn a_bad_config_keeps_no_log_from_being_reopened() {
    let (_upstream, proxy, config) = start(json!({}));
    let (path, rotated) = (proxy.directory.join("proxy.log"), proxy.directory.join("proxy.log.1"));
    proxy.write_config(&with(config, json!({"port": "none"})));
    std::fs::rename(&path, &rotated).expect("rename");
    proxy.signal(Signal::HUP);
    eventually("the refusal is logged", || {
        [&path, &rotated].into_iter().any(|path| read(path).contains("ERROR")).then_some(())
    });
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    // logrotate needs it with any config in force.
    eventually("a line somewhere", || {
        [&path, &rotated].into_iter().any(|path| read(path).contains("耗时:")).then_some(())
    });
    assert!(read(&path).contains("耗时:"), "written to the renamed file: {}", read(&rotated));
}

#[test]
fn copytruncate_works() {
    let (_upstream, proxy, _config) = start(json!({}));
    for _ in 0..5 {
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
    }
    let path = proxy.directory.join("proxy.log");
    eventually("five lines", || (read(&path).matches("耗时:").count() == 5).then_some(()));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    file.set_len(0).expect("truncate");
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    line_with(&proxy, &["耗时:"]);
    assert!(read(&path).starts_with("20"), "appended at the new end, no hole: {:?}", read(&path));
}

#[test]
fn a_log_is_appended_to() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let config = with(config(&[("p1", &upstream)]), json!({"log_file": "proxy.log"}));
    let directory = crate::support::temp::TempDir::new();
    std::fs::write(directory.join("proxy.log"), "an earlier line\n").expect("write");
    let proxy = Proxy::start_in(directory, &config, |_| {});
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    line_with(&proxy, &["INFO"]);
    assert!(read(&proxy.directory.join("proxy.log")).starts_with("an earlier line\n2"));
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let upstream = Upstream::new(&["m"]);
    let directory = crate::support::temp::TempDir::new();
    let path = "no/such/directory/proxy.log";
    let config = with(config(&[("p1", &upstream)]), json!({"log_file": path}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let mut command = crate::support::proxy::command(directory.path());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start");
    // Whether it then serves or exits is open.
    let stderr = Lines::collect(child.stderr.take().expect("stderr"));
    let named = std::panic::catch_unwind(|| stderr.wait_for(|line| line.contains(path)));
    drop(child.kill());
    drop(child.wait());
    assert!(named.is_ok_and(|named| named), "{path} is named on stderr: {:?}", stderr.all());
}

#[test]
fn english_lines_end_with_seconds_too() {
    let (_upstream, proxy, _config) = start(json!({"language": "en"}));
    let request = String::from_utf8(ask("p1/m")).expect("text");
    assert_eq!(proxy.call(request.replacen("Host:", "X-Request-Id: find-me\r\nHost:", 1)).status, 200);
    let line = line_with(&proxy, &["find-me"]);
    assert!(Regex::new(r" \d+\.\d{3} s$").expect("regex").is_match(&line), "{line}");
}

/// The objects of a JSON log; every line must be one.
fn objects(proxy: &Proxy) -> Vec<Value> {
    let text = read(&proxy.directory.join("proxy.log"));
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn in_json_each_line_is_an_object_with_the_same_fields() {
    let (upstream, proxy, _config) = start(json!({"log_format": "json", "max_retries": 0}));
    let model = "p1/m \" \\ \u{85}\u{2028}\nprovider=forged";
    for (request, script) in [
        (chat(json!({"model": model}).to_string()), Script::json(200, &completion("hello"))),
        (ask("p1/m"), Script::json(503, &json!({"error": {"message": "x"}}))),
        (ask("p1/m"), Script::default().then(Step::Fin)),
    ] {
        upstream.chat(script);
        proxy.call(request);
    }
    let lines = eventually("three calls", || {
        let all = objects(&proxy);
        (all.iter().filter(|line| line["duration"].is_number()).count() == 3).then_some(all)
    });
    let time = Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d$").expect("regex");
    for line in &lines {
        assert!(time.is_match(line["time"].as_str().expect("a time")), "{line}");
        assert!(matches!(line["level"].as_str(), Some("INFO" | "WARNING" | "ERROR")), "{line}");
    }
    let calls: Vec<&Value> = lines.iter().filter(|line| line["duration"].is_number()).collect();
    assert_eq!(calls[0]["model"], model);
    for (field, value) in [
        ("provider", json!("p1")),
        ("status", json!(200)),
        ("stream", json!(false)),
        ("bytes", json!(completion("hello").to_string().len())),
        ("prompt_tokens", json!(3)),
        ("completion_tokens", json!(5)),
        ("attempts", json!(1)),
        ("token", json!("tester")),
        ("reason", Value::Null),
        ("level", json!("INFO")),
    ] {
        assert_eq!(calls[0][field], value, "{field}");
    }
    assert!(calls[0]["ttfb"].is_number());
    assert_eq!(calls[2]["reason"], "upstream_broken");
    let warnings: Vec<&Value> = lines.iter().filter(|line| line["attempt"].is_number()).collect();
    assert_eq!(warnings.len(), 2, "{lines:?}");
    assert_eq!((&warnings[0]["level"], &warnings[0]["error"]), (&json!("WARNING"), &json!("HTTP 503")));
    assert_eq!(warnings[1]["request_id"], calls[2]["request_id"]);
    assert!(
        lines.iter().any(|line| line["level"] == "ERROR" && line["request_id"] == calls[2]["request_id"])
    );
    assert!(lines.iter().any(|line| line["message"].is_string()), "an event without fields");
}

#[test]
fn the_format_follows_a_reload() {
    let (_upstream, proxy, config) = start(json!({}));
    proxy.call(ask("p1/m"));
    line_with(&proxy, &["耗时:"]);
    proxy.write_config(&with(config.clone(), json!({"log_format": "json"})));
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
    proxy.call(ask("p1/m"));
    line_with(&proxy, &["\"duration\":", "\"p1\""]);
    proxy.write_config(&config);
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
    let before = read(&proxy.directory.join("proxy.log")).matches("耗时:").count();
    proxy.call(ask("p1/m"));
    eventually("a line of text again", || {
        (read(&proxy.directory.join("proxy.log")).matches("耗时:").count() > before).then_some(())
    });
}

#[test]
fn a_request_can_be_followed_from_the_client_to_each_attempt() {
    let upstreams = [Upstream::new(&["m"]), Upstream::new(&["m"])];
    for (upstream, id) in upstreams.iter().zip(["theirs-1", "theirs-2"]) {
        let headers = [("Content-Type", "application/json"), ("X-Request-Id", id)];
        let status = if id == "theirs-1" { 500 } else { 200 };
        upstream.chat(Script::whole(status, &headers, "{}"));
    }
    let proxy = Proxy::start(&config(&[("p1", &upstreams[0]), ("p1", &upstreams[1])]));
    let sent = |upstream: &Upstream| upstream.last().head.all("x-request-id").join(" ");

    let response = proxy.call(ask("p1/m"));
    assert_eq!((response.status, response.header("x-request-id")), (200, Some("theirs-2")));
    let ours = sent(&upstreams[0]);
    assert!(!ours.is_empty());
    assert_eq!(sent(&upstreams[1]), ours, "every attempt carries the same id");
    let id = format!("request_id={ours}");
    proxy.log_line(&["WARNING", &id, "upstream_id=theirs-1", "HTTP 500"]);
    proxy.log_line(&["耗时:", &id, "upstream_id=theirs-2"]);

    let text = String::from_utf8(ask("p1/m")).expect("text");
    let response = proxy.call(text.replacen("Host:", "X-Request-Id: clients-own\r\nHost:", 1));
    assert_eq!(response.header("x-request-id"), Some("clients-own"));
    let asked = eventually("the second call", || {
        upstreams.iter().find(|upstream| sent(upstream) == "clients-own").map(sent)
    });
    assert_eq!(asked, "clients-own");
    proxy.log_line(&["耗时:", "request_id=clients-own", "upstream_id=theirs-"]);

    let odd = text.replacen("Host:", "X-Request-Id: not sane; really\r\nHost:", 1);
    proxy.call(odd);
    assert!(upstreams.iter().all(|upstream| !sent(upstream).contains("sane")), "ours goes in its place");
}

#[test]
fn a_line_has_the_time_of_the_zone_that_the_environment_names() {
    // Minute of the day of the line about the config file's permissions.
    let minutes_in = |zone: &str| {
        let upstream = Upstream::new(&["m"]);
        let proxy = Proxy::start_in(TempDir::new(), &config(&[("p1", &upstream)]), |command| {
            command.env("TZ", zone);
        });
        let line = proxy.log_line(&["WARNING", "config.json"]);
        let number = |from: usize| line[from..from + 2].parse::<i64>().expect("digits");
        number(11) * 60 + number(14)
    };
    let greenwich = minutes_in("");
    for (zone, hours) in [("XXX-5", 5), (":YYY7", -7), ("ZZZ-14", 14), ("no such zone", 0)] {
        let ahead = (minutes_in(zone) - greenwich - hours * 60).rem_euclid(24 * 60);
        assert!(ahead < 5, "{zone}: {ahead} minutes off");
    }
}
