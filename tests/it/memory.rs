//! What clients and providers cannot make the proxy hold: memory follows what is there, not what is claimed.

use serde_json::json;

use std::time::Duration;

use ai_proxy::limits;

use crate::support::calls::{TOKEN, ask, ask_streamed, assert_error, bare, chat, event, get};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::{Reply, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const MIB: usize = 1024 * 1024;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

#[test]
fn a_claim_reserves_nothing() {
    let (_upstream, proxy) = start(json!({"client_timeout": 60}));
    let before = proxy.resident();
    let token = format!("Bearer {}", crate::support::calls::TOKEN);
    let headers = [("Authorization", token.as_str()), ("Content-Length", "33000000")];
    let mut head = bare("POST", "/v1/chat/completions", &headers);
    head.extend_from_slice(b"{\"model\":");
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(&head);
    }
    // An answer on a later connection: what came before has been read.
    assert_eq!(proxy.get("/healthz").status, 200);
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 40 * MIB, "{} MiB for 100 claims of 33 MB", grown / MIB);
}

#[test]
fn a_stream_nobody_reads_is_not_collected() {
    let (upstream, proxy) = start(json!({"client_timeout": 3, "max_stream_size": 2_000_000_000}));
    let line = event(&"x".repeat(50_000));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    upstream.chat(Reply::sse().then(Step::Flood(chunk.into_bytes())));
    let before = proxy.resident();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
    }
    let seen = upstream.wait_requests(5);
    let mut most = before;
    eventually("the proxy gives them up", || {
        most = most.max(proxy.resident());
        seen.iter().all(|request| upstream.is_closed(request.connection)).then_some(())
    });
    let grown = most - before;
    assert!(grown < 30 * MIB, "{} MiB for five streams nobody read", grown / MIB);
}

#[test]
fn answers_nobody_reads_are_not_collected() {
    let (_upstream, proxy) = start(json!({"client_timeout": 2}));
    let before = proxy.resident();
    let requests = get("/").repeat(1000);
    let mut client = proxy.client();
    let mut sent = 0;
    // Until the proxy stops taking requests, and then closes.
    while sent < 200 * MIB && client.try_send(&requests).is_ok() {
        sent += requests.len();
    }
    assert!(sent < 200 * MIB, "it takes requests without end whose answers nobody reads");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 30 * MIB, "{} MiB after {} MiB of requests", grown / MIB, sent / MIB);
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// `max_memory` of these tests, bytes: less than the attacks would take.
const MEMORY: usize = 400 * MIB;

/// What requests may hold of [`MEMORY`], bytes; `ARCHITECTURE.md` says why.
const REQUESTS: usize = (MEMORY - limits::OWN_MEMORY) / 4 * 3 / 2;

/// Runs `attack` once for each of `count` clients, all at once.
fn at_once(proxy: &Proxy, count: usize, attack: impl Fn(&mut Client) + Sync) -> Vec<Client> {
    std::thread::scope(|scope| {
        let attack = &attack;
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let mut client = proxy.client();
                scope.spawn(move || {
                    attack(&mut client);
                    client
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    })
}

#[test]
fn heads_without_an_end_are_not_collected() {
    let (_upstream, proxy) = start(json!({"client_timeout": 30}));
    let before = proxy.most_resident();
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X-Flood: y\r\n".repeat(100_000));
    let held = &endless[..limits::MAX_HEAD - 1];
    let waiting = at_once(&proxy, 200, |client| client.send(held));
    let refused = at_once(&proxy, 200, |client| {
        // It may be refused, and closed, before all is sent.
        drop(client.try_send(&endless));
        assert_error(&client.response(), 431, "head_too_large");
    });
    let grown = proxy.most_resident() - before;
    let clients = waiting.len() + refused.len();
    let most = clients * 2 * (limits::MAX_HEAD + limits::READ_CHUNK);
    assert!(grown < most, "{} KiB for {clients} heads, {} at most", grown / 1024, most / 1024);
    assert_eq!(proxy.get("/healthz").status, 200);
}

#[test]
fn bodies_at_the_limit_are_bounded_together() {
    const CLIENTS: usize = 100;
    let (_upstream, proxy) =
        start(json!({"client_timeout": 60, "log_level": "CRITICAL", "max_memory": MEMORY}));
    let before = proxy.most_resident();
    let body = vec![b' '; 32 * MIB];
    let head = bare(
        "POST",
        "/v1/chat/completions",
        &[("Authorization", &format!("Bearer {TOKEN}")), ("Content-Length", &body.len().to_string())],
    );
    // All but the last byte: no body is whole, so all of them are held at once.
    let mut clients = at_once(&proxy, CLIENTS, |client| {
        let all = client.try_send(&head).and_then(|()| client.try_send(&body[1..]));
        drop(all);
    });
    assert_eq!(proxy.get("/healthz").status, 200);
    let room = REQUESTS / body.len();
    eventually("all that there is no room for are refused", || {
        clients.retain_mut(|client| {
            let is_held = client.is_silent_for(Duration::from_millis(10));
            if !is_held {
                let response = client.response();
                assert_error(&response, 503, "overloaded");
                assert_eq!(response.header("retry-after"), Some("1"));
            }
            is_held
        });
        (clients.len() <= room).then_some(())
    });
    drop(clients);
    let most = proxy.most_resident();
    assert!(most < MEMORY, "{} MiB for {CLIENTS} bodies of 32 MiB, {} at most", most / MIB, MEMORY / MIB);
    eventually("the memory is given back", || (proxy.resident() < before + 64 * MIB).then_some(()));
    assert_error(&proxy.call(chat("{}")), 400, "missing_model");
}

#[test]
fn whole_answers_nobody_reads_are_bounded_together() {
    const CLIENTS: usize = 150;
    let changes = json!({
        "client_timeout": 20, "max_connections": 20, "log_level": "CRITICAL", "max_memory": MEMORY,
    });
    let (upstream, proxy) = start(changes);
    let size = 10 * MIB - 1000;
    upstream.chat(Reply::whole(200, &[("Content-Type", "application/json")], vec![b' '; size]));
    let before = proxy.most_resident();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    eventually("memory no longer grows", || {
        let now = proxy.most_resident();
        std::thread::sleep(Duration::from_millis(1000));
        (now > before + 100 * MIB && proxy.most_resident() == now).then_some(())
    });
    let most = proxy.most_resident();
    assert!(most < MEMORY, "{} MiB for {CLIENTS} answers of 10 MiB, {} at most", most / MIB, MEMORY / MIB);
    assert!(MEMORY < CLIENTS * size, "the bound is what held it");
    // Who reads is served all the same.
    assert_eq!(clients[0].response().body.len(), size);
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// The model list is open to all. On a Unix socket, whose buffers are small, most of each answer stays in the proxy.
#[test]
fn model_lists_nobody_reads_cost_neither_memory_nor_the_control_lane() {
    const CLIENTS: usize = 60;
    let names: Vec<String> = (0..limits::MAX_MODELS).map(|number| format!("{number:0>250}")).collect();
    let upstream = Upstream::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let sockets = TempDir::short();
    let path = sockets.join("s");
    let host = format!("unix:{}", path.display());
    let changes = json!({
        "host": host, "client_timeout": 30, "queue_timeout": 20, "log_level": "CRITICAL", "max_memory": MEMORY,
    });
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    let list = Client::connect_unix(&path).call(get("/v1/models")).body.len();
    let mut crowd: Vec<Client> = (0..CLIENTS).map(|_| Client::connect_unix(&path)).collect();
    for client in &mut crowd {
        client.send(get("/v1/models"));
    }
    assert!(CLIENTS * list > REQUESTS, "they are more than may be kept");
    // Each waits behind those of the crowd.
    for _ in 0..3 {
        assert_eq!(Client::connect_unix(&path).call(get("/v1/models")).body.len(), list);
        assert_eq!(Client::connect_unix(&path).call(get("/health")).status, 200);
    }
    let most = proxy.most_resident();
    assert!(most < MEMORY, "{} MiB for {CLIENTS} lists, {} at most", most / MIB, MEMORY / MIB);
}

/// The list is made once for all its readers: 16 readers of 40 lists of 10,000 models took 1.75 GB.
#[test]
fn model_lists_of_many_providers_cost_their_size_once() {
    const PROVIDERS: usize = 12;
    const READERS: usize = 16;
    let names: Vec<String> = (0..limits::MAX_MODELS).map(|number| format!("{number:0>150}")).collect();
    let upstream = Upstream::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let names: Vec<String> = (0..PROVIDERS).map(|number| format!("p{number}")).collect();
    let providers: Vec<(&str, &Upstream)> = names.iter().map(|name| (&**name, &upstream)).collect();
    let proxy = Proxy::start(&with(config(&providers), json!({"log_level": "CRITICAL"})));
    let list = eventually("all are listed", || {
        let list = proxy.get("/v1/models").body;
        list.windows(7).any(|text| text == b"\"p11/00").then_some(list)
    });
    assert!(list.len() > 8 * MIB && list.len() <= limits::MAX_LISTS, "{} bytes", list.len());
    let before = proxy.most_resident();
    let mut crowd: Vec<Client> = (0..READERS).map(|_| proxy.client()).collect();
    for client in &mut crowd {
        client.send(get("/v1/models"));
    }
    for client in &mut crowd {
        assert!(client.response().body == list, "each has the same list");
    }
    let grown = proxy.most_resident() - before;
    assert!(grown < list.len(), "{} KiB for {READERS} readers of {} KiB", grown / 1024, list.len() / 1024);
}
