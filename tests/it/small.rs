//! Small machines: under `prlimit` with little address space the process survives everything that clients and
//! providers send, refuses with 503 what it has no memory for, and still responds to `/healthz`.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ai_proxy::limits;
use serde_json::json;

use crate::support::calls::{DONE, TOKEN, ask, ask_streamed, assert_error, completion, event, get, post};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const MIB: usize = 1024 * 1024;
/// Clients that ask at once: each sends every kind of request.
const CLIENTS: usize = 6;

/// The binary under a limit of address space, MiB.
fn limited(directory: &TempDir, mib: usize, arguments: &[&str]) -> Command {
    let plain = command(directory.path());
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--as={}", mib * MIB)).arg(plain.get_program()).args(arguments);
    limited.current_dir(directory.path());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

fn start(mib: usize, changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.handle("/v1/chat/completions", |request| match request.text() {
        text if text.contains("\"stream\":true") => (0..20)
            .fold(Script::sse(), |script, n| script.chunk(event(&format!("{n} {}", "x".repeat(5000)))))
            .chunk(DONE)
            .end(),
        text if text.contains("large") => {
            let response = completion(&"x".repeat(3 * MIB)).to_string();
            Script::whole(200, &[("Content-Type", "application/json")], response)
        }
        _ => Script::json(200, &completion("hello")),
    });
    upstream.respond("/v1/audio/transcriptions", Script::json(200, &json!({"text": "hello"})));
    let directory = TempDir::new();
    let config = with(config(&[("p1", &upstream)]), changes);
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write config");
    let command = limited(&directory, mib, &["--config", "config.json"]);
    (upstream, Proxy::spawn(directory, command))
}

fn large(path: &str, kind: &str, start: &str, size: usize, end: &str) -> Vec<u8> {
    let token = format!("Bearer {TOKEN}");
    let body = [start.as_bytes(), &vec![b'x'; size], end.as_bytes()].concat();
    post(path, &[("Authorization", &token), ("Content-Type", kind)], body)
}

fn upload(size: usize) -> Vec<u8> {
    let start = r#"{"model":"p1/m","messages":[{"role":"user","content":""#;
    large("/v1/chat/completions", "application/json", start, size, r#""}]}"#)
}

fn translated(size: usize) -> Vec<u8> {
    let start = r#"{"model":"p1/m","max_tokens":5,"messages":[{"role":"user","content":""#;
    large("/v1/messages", "application/json", start, size, r#""}]}"#)
}

fn form(size: usize) -> Vec<u8> {
    let start = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\np1/m\r\n\
                 --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    large("/v1/audio/transcriptions", "multipart/form-data; boundary=b", start, size, "\r\n--b--\r\n")
}

/// Sends a request, whose end the proxy may refuse. Returns the status.
fn status_of(proxy: &Proxy, request: &[u8]) -> u16 {
    let mut client = proxy.client();
    drop(client.try_send(request));
    let response = client.response();
    if response.status != 200 {
        // The Messages API has a shape of its own.
        let reason = response.json()["error"]["reason"].clone();
        assert_eq!((response.status, reason), (503, json!("overloaded")), "{}", response.text());
    }
    response.status
}

fn survives(mib: usize) {
    let (_upstream, mut proxy) = start(mib, json!({"log_level": "CRITICAL", "client_timeout": 30}));
    let requests = [
        upload(20 * MIB),
        upload(5 * MIB),
        ask("p1/m"),
        large("/v1/chat/completions", "application/json", r#"{"model":"p1/m","user":"large"#, 0, "\"}"),
        ask_streamed("p1/m"),
        form(8 * MIB),
        translated(MIB),
    ];
    let (succeeded, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (proxy, requests, succeeded, refused) = (&proxy, &requests, &succeeded, &refused);
        for number in 0..CLIENTS {
            scope.spawn(move || {
                for turn in 0..requests.len() {
                    let counted = match status_of(proxy, &requests[(number + turn) % requests.len()]) {
                        200 => succeeded,
                        _ => refused,
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(proxy.get("/healthz").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (succeeded, refused) = (succeeded.into_inner(), refused.into_inner());
    assert!(
        succeeded > 0 && succeeded + refused == CLIENTS * requests.len(),
        "{succeeded} served, {refused} refused"
    );
    // A later request for memory succeeds once there is some.
    eventually("a large upload is served again", || {
        (status_of(&proxy, &upload(5 * MIB)) == 200).then_some(())
    });
    assert_eq!(status_of(&proxy, &ask("p1/m")), 200);
    assert!(proxy.is_running());
}

#[test]
fn mixed_load_under_64_mib_of_address_space_is_survived() {
    survives(64);
}

#[test]
fn mixed_load_under_128_mib_of_address_space_is_survived() {
    survives(128);
}

#[test]
fn mixed_load_under_256_mib_of_address_space_is_survived() {
    survives(256);
}

/// The attack of issue 14: sixteen uploads of 30 MB, all but their last byte, by one token.
#[test]
fn uploads_over_the_memory_are_503_and_small_requests_succeed_beside_them() {
    let changes = json!({"client_timeout": 60, "queue_timeout": 1, "log_level": "CRITICAL"});
    let (_upstream, mut proxy) = start(256, changes);
    let body = upload(30 * MIB);
    let mut clients: Vec<Client> = std::thread::scope(|scope| {
        let (proxy, body) = (&proxy, &body);
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = proxy.client();
                    drop(client.try_send(&body[..body.len() - 1]));
                    client
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    });
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let mut refused = 0;
    clients.retain_mut(|client| {
        let is_held = client.is_silent_for(Duration::from_millis(100));
        if !is_held {
            assert_error(&client.response(), 503, "overloaded");
            refused += 1;
        }
        is_held
    });
    assert!(refused >= 13 && !clients.is_empty(), "{refused} refused");
    for client in &mut clients {
        client.send(&body[body.len() - 1..]);
        assert_eq!(client.response().status, 200);
    }
    assert!(proxy.is_running());
}

/// Only one of them fits: an upload that has begun can end, and the others wait for it instead of blocking
/// each other.
#[test]
fn uploads_that_fit_one_after_another_succeed_so() {
    const UPLOADS: usize = 4;
    let changes = json!({"client_timeout": 60, "queue_timeout": 60, "log_level": "CRITICAL"});
    let (_upstream, mut proxy) = start(128, changes);
    let body = upload(30 * MIB);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..UPLOADS).map(|_| scope.spawn(|| status_of(&proxy, &body))).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().expect("a client"), 200));
    });
    eventually("all is given back", || {
        let text = proxy.get("/metrics").text();
        let held: Option<usize> =
            text.lines().find_map(|line| line.strip_prefix("ai_proxy_memory_held_bytes ")?.parse().ok());
        (held? < MIB).then_some(())
    });
    assert!(proxy.is_running());
}

/// A client that stops in the middle of its upload delays no other for longer than `queue_timeout`.
#[test]
fn upload_that_waits_for_memory_is_503_after_queue_timeout() {
    let changes = json!({"client_timeout": 60, "queue_timeout": 1, "log_level": "CRITICAL"});
    let (_upstream, mut proxy) = start(128, changes);
    let body = upload(30 * MIB);
    let mut first = proxy.client();
    first.send(&body[..body.len() - 1]);
    let asked = Instant::now();
    assert_eq!(status_of(&proxy, &body), 503);
    assert!(asked.elapsed() > Duration::from_millis(900), "{:?}", asked.elapsed());
    assert_eq!(status_of(&proxy, &ask("p1/m")), 200);
    first.send(&body[body.len() - 1..]);
    assert_eq!(first.response().status, 200);
    assert!(proxy.is_running());
}

#[test]
fn response_over_the_memory_is_503() {
    let upstream = Upstream::new(&["m"]);
    let body = vec![b' '; 60 * MIB];
    upstream.chat(Script::whole(200, &[("Content-Type", "application/json")], body));
    let changes = json!({"max_memory": 64 * MIB, "max_response_size": 100 * MIB});
    let mut proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_error(&proxy.call(ask("p1/m")), 503, "overloaded");
    assert!(proxy.most_resident() < 64 * MIB, "{}", proxy.most_resident());
    assert_eq!(proxy.get("/healthz").status, 200);
    assert!(proxy.is_running());
}

#[test]
fn idle_process_fits_in_16_mib() {
    let (_upstream, proxy) = start(64, json!({}));
    assert_eq!(proxy.get("/health").status, 200);
    assert!(proxy.resident() < 16 * MIB, "{} KiB", proxy.resident() / 1024);
}

#[test]
fn memory_limit_is_shown_by_check_and_at_start() {
    let (_upstream, proxy) = start(128, json!({"max_memory": 200 * MIB}));
    proxy.log_line(&["memory limit: 200 MiB", "this machine leaves 128 MiB"]);
    let check = run(&mut limited(&proxy.directory, 128, &["check", "--config", "config.json"]));
    assert_eq!(check.code, Some(0), "{}", check.output());
    assert!(check.stdout.contains("memory limit: 200 MiB\n"), "{}", check.stdout);
    assert!(
        check
            .stdout
            .contains("max_memory (200 MiB) is more than this machine leaves to the process (128 MiB)")
    );
    let (_upstream, proxy) = start(128, json!({}));
    proxy.log_line(&["memory limit: 128 MiB", "this machine leaves 128 MiB"]);
}

/// Unrequested events take three times their own size while they become a document.
#[test]
fn document_of_unrequested_events_fits_where_a_translated_one_does() {
    let upstream = Upstream::new(&["m"]);
    let text = "x".repeat(100_000);
    let events = [event(&text).repeat(40).as_str(), DONE].concat();
    upstream.chat(Script::whole(200, &[("Content-Type", "text/event-stream")], events));
    let mut proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_memory": 64 * MIB})));
    let response = proxy.call(ask("p1/m"));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["choices"][0]["message"]["content"], json!(text.repeat(40)));
    assert!(proxy.most_resident() < 64 * MIB, "{}", proxy.most_resident());
    assert!(proxy.is_running());
}

/// It is rendered within a quarter of the budget, including its copy.
#[test]
fn model_list_over_the_memory_is_503_and_survived() {
    let names: Vec<String> = (0..limits::MAX_MODELS).map(|number| format!("{number:0>100}")).collect();
    let large = Upstream::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let providers: Vec<String> = (0..8).map(|number| format!("p{number}|{}|k", large.url())).collect();
    let (_upstream, mut proxy) = start(64, json!({"providers": providers, "log_level": "CRITICAL"}));
    assert_error(&proxy.call(get("/v1/models")), 503, "overloaded");
    assert_eq!(proxy.call(get("/v1/models/none")).status, 404);
    assert!(proxy.is_running());
}

#[test]
fn endless_empty_lines_are_400() {
    let (_upstream, proxy) = start(64, json!({}));
    let mut client = proxy.client();
    let lines = b"\r\n".repeat(MIB);
    let mut sent = 0;
    while sent < 80 * MIB && client.try_send(&lines).is_ok() {
        sent += lines.len();
    }
    assert!(sent < 80 * MIB, "{} MiB of empty lines are taken", sent / MIB);
    let mut client = proxy.client();
    client.send(b"\r\n".repeat(4000));
    assert_error(&client.response(), 400, "bad_request");
    assert!(client.is_closed());
}

/// Incomplete heads count as memory too.
#[test]
fn heads_over_the_memory_are_503() {
    let (_upstream, mut proxy) = start(64, json!({"client_timeout": 20, "log_level": "CRITICAL"}));
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(30_000));
    let mut clients: Vec<Client> = (0..900).map(|_| proxy.client()).collect();
    for client in &mut clients {
        drop(client.try_send(&head));
    }
    let refused = clients.iter_mut().map(client_is_held).filter(|is_held| !is_held).count();
    assert!(refused < clients.len());
    drop(clients);
    eventually("memory is there again", || {
        let mut client = proxy.client();
        drop(client.try_send(get("/healthz")));
        (client.response().status == 200).then_some(())
    });
    assert!(proxy.is_running());
}

fn client_is_held(client: &mut Client) -> bool {
    let is_held = client.is_silent_for(Duration::from_millis(1));
    if !is_held {
        assert_error(&client.response(), 503, "overloaded");
    }
    is_held
}
