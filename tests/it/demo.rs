//! `ai-proxy demo`: a working endpoint from one command.

use std::process::Command;

use crate::support::calls::{DONE, assert_error, post};
use crate::support::client::{End, Response};
use crate::support::proxy::{Proxy, command};
use crate::support::temp::TempDir;

const CHAT: &str = "/v1/chat/completions";

fn start() -> Proxy {
    let directory = TempDir::new();
    let mut command = command(directory.path());
    command.args(["demo", "--port", "0"]);
    Proxy::spawn(directory, command)
}

fn ask(proxy: &Proxy, body: &str) -> Response {
    proxy.call(post(CHAT, &[("Authorization", "Bearer sk-demo"), ("Content-Type", "application/json")], body))
}

#[test]
fn demo_responds_buffered() {
    let proxy = start();
    let body = r#"{"model":"demo/echo","messages":[{"role":"user","content":"hello there"}]}"#;
    let response = ask(&proxy, body);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-ai-proxy-provider"), Some("demo"));
    let body = response.json();
    assert_eq!(body["object"], "chat.completion");
    let message = &body["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    assert!(message["content"].as_str().is_some_and(|text| text.contains("hello there")), "{body}");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert!(body["usage"]["total_tokens"].is_u64(), "{body}");
}

#[test]
fn it_streams() {
    let proxy = start();
    let body =
        r#"{"model":"demo/echo","stream":true,"messages":[{"role":"user","content":"hello there 你好"}]}"#;
    let mut client = proxy.client();
    client.send(post(CHAT, &[("Authorization", "Bearer sk-demo")], body));
    let mut stream = client.streamed();
    assert_eq!(stream.status, 200);
    let events = stream.events();
    assert_eq!(stream.end(), End::FinalChunk);
    assert_eq!(events.last().map(String::as_str), Some(DONE));
    assert!(events.len() > 3, "more than one piece: {events:?}");
    let mut text = String::new();
    for event in &events[..events.len() - 1] {
        let data = event.strip_prefix("data: ").expect("data").trim_end();
        let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(value["object"], "chat.completion.chunk");
        text += value["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    assert!(text.contains("hello there 你好"), "{text}");
}

#[test]
fn demo_is_a_complete_proxy() {
    let proxy = start();
    let list = proxy.get("/v1/models").json();
    let ids: Vec<&str> =
        list["data"].as_array().expect("data").iter().filter_map(|m| m["id"].as_str()).collect();
    assert!(ids.contains(&"demo/echo"), "{ids:?}");
    assert_eq!(proxy.get("/v1/models/demo/echo").json()["id"], "demo/echo");
    assert_eq!(proxy.get("/health").json()["status"], "healthy");
    assert_error(&proxy.call(post(CHAT, &[], r#"{"model":"demo/echo"}"#)), 401, "missing_token");
    assert_error(&ask(&proxy, "{}"), 400, "missing_model");
    let files = std::fs::read_dir(proxy.directory.path()).expect("directory").count();
    assert_eq!(files, 0, "it leaves no file behind");
}

#[test]
fn demo_responds_to_odd_requests() {
    let proxy = start();
    for body in [
        r#"{"model":"demo/echo"}"#,
        r#"{"model":"demo/echo","messages":[]}"#,
        r#"{"model":"demo/echo","messages":[{"role":"user","content":[{"type":"text","text":"part"}]}]}"#,
        r#"{"model":"demo/echo","messages":"no list"}"#,
        r#"{"model":"demo/other","messages":[{"role":"user","content":"x"}]}"#,
    ] {
        let response = ask(&proxy, body);
        assert!(response.status < 500, "{body}: {}", response.text());
        assert!(response.json().is_object());
    }
}

#[test]
fn the_printed_curl_works() {
    let proxy = start();
    let url = format!("http://{}{CHAT}", proxy.address());
    assert!(proxy.stdout.wait_for(|line| line.contains(&url)), "a line with {url}");
    let text = proxy.stdout.all().join("\n");
    let start = text.find("curl ").expect("a curl command");
    // A command may span several lines that end with a backslash.
    let mut script = String::new();
    for line in text[start..].lines() {
        script += line;
        script.push('\n');
        if !line.ends_with('\\') {
            break;
        }
    }
    assert!(script.contains(&url) && script.contains("sk-demo"), "{script}");
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("no curl here: the printed line was not run");
        return;
    }
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let body = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(body.contains("choices"), "{body}");
}

#[test]
fn a_taken_port_is_exit_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port().to_string();
    let directory = TempDir::new();
    let finished = crate::support::proxy::run(command(directory.path()).args(["demo", "--port", &port]));
    assert_eq!(finished.code, Some(1), "{}", finished.output());
    assert!(finished.stderr.contains(&port), "{}", finished.stderr);
}
