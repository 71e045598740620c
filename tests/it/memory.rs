//! Bounds on the memory that clients and providers can take: memory follows actual bytes, not announced ones.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use ai_proxy::limits;

use crate::support::calls::{DONE, TOKEN, ask, ask_streamed, assert_error, bare, chat, event, get};
use crate::support::client::{Client, Response};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const MIB: usize = 1024 * 1024;

fn start(changes: Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// A Unix socket to listen on. Its buffers are small and do not grow: unread bytes of a client stay in the
/// proxy.
struct Socket(TempDir);

impl Socket {
    fn new() -> Self {
        Self(TempDir::short())
    }

    fn path(&self) -> PathBuf {
        self.0.join("s")
    }

    /// A configuration that listens on it.
    fn with(&self, config: Value) -> Value {
        with(config, json!({"host": format!("unix:{}", self.path().display())}))
    }

    fn client(&self) -> Client {
        Client::connect_unix(&self.path())
    }

    /// The value of that metric without labels.
    fn gauge(&self, name: &str) -> usize {
        let text = self.client().call(get("/metrics")).text();
        let value = |line: &str| line.strip_prefix(&format!("ai_proxy_{name} "))?.parse().ok();
        text.lines().find_map(value).expect("a metric")
    }
}

/// As in `ARCHITECTURE.md`: the memory beside the process itself, divided into a slot and a head per request.
#[test]
fn budget_counts_each_request_from_its_slot_to_its_end() {
    const STREAMS: usize = 20;
    let socket = Socket::new();
    let (upstream, _proxy) = start(socket.with(json!({"max_memory": MEMORY})));
    assert_eq!(limits::OWN_MEMORY, limits::AT_REST + limits::MAX_LISTS + limits::MAX_LOG_BYTES);
    assert_eq!(socket.gauge("memory_limit_bytes"), budget_of(MEMORY));
    // The request that asks has its slot.
    let own = limits::SLOT_MEMORY..limits::SLOT_MEMORY + limits::LITTLE;
    let is_at_rest = || own.contains(&socket.gauge("memory_held_bytes")).then_some(());
    // A slot is given back behind the last byte of its response.
    eventually("only the request that asks holds memory", is_at_rest);
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| socket.client()).collect();
    clients.iter_mut().for_each(|client| client.send(ask_streamed("p1/m")));
    upstream.wait_requests(STREAMS);
    let slots = (STREAMS + 1) * limits::SLOT_MEMORY;
    let held = socket.gauge("memory_held_bytes");
    assert!((slots..slots + (STREAMS + 1) * limits::LITTLE).contains(&held), "{held} bytes");
    gate.open_for(STREAMS);
    clients.iter_mut().for_each(|client| assert!(client.response().text().ends_with(DONE)));
    eventually("all is given back", is_at_rest);
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
    // A response on a later connection shows that earlier bytes have been read.
    assert_eq!(proxy.get("/healthz").status, 200);
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 40 * MIB, "{} MiB for 100 claims of 33 MB", grown / MIB);
}

#[test]
fn stream_no_client_reads_is_not_collected() {
    let socket = Socket::new();
    let (upstream, proxy) =
        start(socket.with(json!({"client_timeout": 3, "max_stream_size": 2_000_000_000})));
    let line = event(&"x".repeat(50_000));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    upstream.chat(Script::sse().then(Step::Flood(chunk.into_bytes())));
    let before = proxy.most_resident();
    let mut clients: Vec<Client> = (0..5).map(|_| socket.client()).collect();
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
    }
    let seen = upstream.wait_requests(5);
    eventually("the proxy gives them up", || {
        seen.iter().all(|request| upstream.is_closed(request.connection)).then_some(())
    });
    let grown = proxy.most_resident() - before;
    assert!(grown < 30 * MIB, "{} MiB for five streams nobody read", grown / MIB);
}

#[test]
fn responses_no_client_reads_are_not_collected() {
    let (_upstream, proxy) = start(json!({"client_timeout": 2}));
    let before = proxy.resident();
    let requests = get("/").repeat(1000);
    let mut client = proxy.client();
    let mut sent = 0;
    // Until the proxy stops taking requests, and then closes.
    while sent < 200 * MIB && client.try_send(&requests).is_ok() {
        sent += requests.len();
    }
    assert!(sent < 200 * MIB, "it takes requests without end whose responses nobody reads");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 30 * MIB, "{} MiB after {} MiB of requests", grown / MIB, sent / MIB);
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// `max_memory` of these tests, bytes: less than the attacks would take.
const MEMORY: usize = 400 * MIB;

/// What requests and responses may hold together, bytes; `ARCHITECTURE.md` says why.
const fn budget_of(max_memory: usize) -> usize {
    (max_memory - limits::OWN_MEMORY) / 4 * 3
}

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
        // The proxy may refuse it and close before everything is sent.
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
    // All but the last byte: no body is complete, so all are held at once.
    let mut clients = at_once(&proxy, CLIENTS, |client| {
        let all = client.try_send(&head).and_then(|()| client.try_send(&body[1..]));
        drop(all);
    });
    assert_eq!(proxy.get("/healthz").status, 200);
    let room = budget_of(MEMORY) / 2 / body.len();
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
fn buffered_responses_no_client_reads_are_bounded_together() {
    const CLIENTS: usize = 70;
    const MEMORY: usize = 64 * MIB;
    let socket = Socket::new();
    let (upstream, proxy) = start(socket.with(json!({
        "client_timeout": 60, "queue_timeout": 1, "max_connections": 30, "log_level": "CRITICAL", "max_memory": MEMORY,
    })));
    let size = MIB;
    upstream.chat(Script::whole(200, &[("Content-Type", "application/json")], vec![b' '; size]));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| socket.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    let room = budget_of(MEMORY) / 2;
    eventually("there is no room for more", || {
        (socket.gauge("memory_held_bytes") > room - 2 * size).then_some(())
    });
    eventually("each is taken or refused", || (socket.gauge("queue_length") == 0).then_some(()));
    // Each kept connection gets its response, though most wait for others.
    let responses: Vec<Response> = clients.iter_mut().map(Client::response).collect();
    let whole =
        responses.iter().filter(|response| response.status == 200 && response.body.len() == size).count();
    assert!((room / size - 2..CLIENTS).contains(&whole), "{whole} of {CLIENTS}");
    responses
        .iter()
        .filter(|response| response.status != 200)
        .for_each(|it| drop(assert_error(it, 503, "overloaded")));
    let most = proxy.most_resident();
    assert!(most < MEMORY, "{} MiB for {CLIENTS} responses of 1 MiB, {} at most", most / MIB, MEMORY / MIB);
    eventually("all of it is given back", || (socket.gauge("memory_held_bytes") < MIB).then_some(()));
}

/// The model list is open to all and made once for all readers: 16 readers of 40 lists of 10,000 models took
/// 1.75 GB.
#[test]
fn model_lists_no_client_reads_cost_one_list_and_not_the_control_lane() {
    const PROVIDERS: usize = 12;
    const CLIENTS: usize = 60;
    let names: Vec<String> = (0..limits::MAX_MODELS).map(|number| format!("{number:0>150}")).collect();
    let upstream = Upstream::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let names: Vec<String> = (0..PROVIDERS).map(|number| format!("p{number}")).collect();
    let providers: Vec<(&str, &Upstream)> = names.iter().map(|name| (&**name, &upstream)).collect();
    let socket = Socket::new();
    let changes = socket.with(json!({"client_timeout": 60, "queue_timeout": 20, "log_level": "CRITICAL"}));
    let proxy = Proxy::start(&with(config(&providers), changes));
    let list = eventually("all are listed", || {
        let list = socket.client().call(get("/v1/models")).body;
        list.windows(7).any(|text| text == b"\"p11/00").then_some(list)
    });
    assert!(list.len() > 8 * MIB && list.len() <= limits::MAX_LISTS, "{} bytes", list.len());
    let (before, held) = (proxy.most_resident(), socket.gauge("memory_held_bytes"));
    assert!((list.len()..list.len() + MIB).contains(&held), "{held} bytes held for the list");
    let mut crowd: Vec<Client> = (0..CLIENTS).map(|_| socket.client()).collect();
    for client in &mut crowd {
        client.send(get("/v1/models"));
    }
    // Each waits for those of the crowd.
    for _ in 0..3 {
        assert!(socket.client().call(get("/v1/models")).body == list, "each has the same list");
        assert_eq!(socket.client().call(get("/health")).status, 200);
    }
    let (grown, more) = (proxy.most_resident() - before, socket.gauge("memory_held_bytes") - held);
    assert!(grown < list.len(), "{} KiB for {CLIENTS} readers of {} KiB", grown / 1024, list.len() / 1024);
    assert!(more < MIB, "{} KiB held for {CLIENTS} readers", more / 1024);
    for client in &mut crowd {
        assert!(client.response().body == list, "each has the same list");
    }
}
