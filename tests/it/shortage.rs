//! A lack of descriptors, threads or disk space: the proxy serves with what it has, logs that once, and
//! recovers as soon as there is more.

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Signal};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ai_proxy::limits::THREAD_STACK;

use crate::support::calls::{KEY, ask, completion, get};
use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;
use crate::support::{DEADLINE, eventually};

/// Address space in which no thread can start, and everything else works.
const LESS_THAN_A_THREAD: usize = THREAD_STACK - 32 * 1024;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

fn log_count(proxy: &Proxy, words: &str) -> usize {
    proxy.stderr.all().iter().filter(|line| line.contains(words)).count()
}

#[test]
fn without_descriptors_open_clients_are_handled_and_new_ones_wait() {
    let (_upstream, proxy) = start(json!({}));
    let mut inside = proxy.client();
    assert_eq!(inside.call(ask("p1/m")).status, 200);
    let before = proxy.limit(Resource::Nofile, Some(proxy.open_descriptors() as u64 + 4));
    let mut outside: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
    proxy.log_line(&["cannot accept connections"]);

    // Clients come and go, so that accept succeeds now and then: that is not logged.
    for _ in 0..20 {
        outside.remove(0).leave();
        outside.push(proxy.client());
        assert_eq!(inside.call(get("/healthz")).status, 200);
        assert_eq!(inside.call(ask("p1/m")).status, 200, "over the pooled connection");
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = proxy.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let share = (proxy.cpu_time() - used).as_secs_f64();
    assert!(share < 0.3, "it spins: {:.0}% of a processor", share * 100.0);
    assert_eq!(log_count(&proxy, "cannot accept connections"), 1, "{}", proxy.log());

    proxy.limit(Resource::Nofile, before);
    for client in &mut outside {
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
    proxy.log_line(&["accepting connections again"]);
    assert_eq!(log_count(&proxy, "accepting connections again"), 1, "{}", proxy.log());
}

/// A provider that accepts a connection only after the gate opens for it: until then a call waits for its
/// connection, on a thread. Its queue has room for one connection, which is taken.
fn closed_door(gate: &Gate) -> (String, TcpStream) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&socket, &any).expect("bind");
    rustix::net::listen(&socket, 0).expect("listen");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("address");
    let gate = gate.clone();
    thread::spawn(move || {
        while gate.pass(DEADLINE) {
            let (mut stream, _) = listener.accept().expect("accept");
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                let response =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    drop(stream.write_all(response.as_bytes()));
                }
            });
        }
    });
    (format!("http://{address}/v1"), TcpStream::connect(address).expect("room for one"))
}

/// A limit of address space refuses the stack of a new thread as the system's own limit of threads would; that one does
/// not bind root.
#[test]
fn without_more_threads_those_there_serve() {
    let gate = Gate::new();
    let (url, _at_the_door) = closed_door(&gate);
    let provider = json!({"name": "p1", "url": url, "key": KEY, "models": ["m"]});
    let changes = json!({"providers": [provider], "max_connections": 8, "queue_timeout": 20,
        "max_keepalive_connections": 0});
    let proxy = Proxy::start(&with(config(&[]), changes));
    let mut first = proxy.client();
    first.send(ask("p1/m"));
    let threads = || proxy.threads();
    assert_eq!(proxy.get("/v1/models").status, 200);

    let room = proxy.address_space() + LESS_THAN_A_THREAD;
    let before = proxy.limit(Resource::As, Some(room as u64));
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    proxy.log_line(&["cannot start a thread"]);
    let few = threads();
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(proxy.get("/v1/models").status, 200);
    gate.open_for(100);
    for client in [&mut first].into_iter().chain(&mut clients) {
        assert_eq!(client.response().status, 200);
    }
    // Once for each lane: a control request may have met the other lane's thread.
    assert!((1..=2).contains(&log_count(&proxy, "cannot start a thread")), "{}", proxy.log());

    proxy.limit(Resource::As, before);
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    eventually("there are threads again", || (threads() > few).then_some(()));
}

#[test]
fn a_drain_needs_no_more_threads() {
    let (upstream, mut proxy) = start(json!({}));
    let gate = Gate::new();
    let response = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Script::default().wait(&gate).send(response));
    let mut client = proxy.client();
    client.send(ask("p1/m"));
    upstream.wait_requests(1);
    proxy.limit(Resource::As, Some((proxy.address_space() + LESS_THAN_A_THREAD) as u64));
    proxy.signal(Signal::TERM);
    proxy.log_line(&["no new requests are taken"]);
    gate.open();
    assert_eq!(client.response().status, 200);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_full_disk_costs_the_log_and_nothing_else() {
    let (_upstream, proxy) = start(json!({"log_file": "/dev/full"}));
    let mut client = proxy.client();
    for _ in 0..50 {
        assert_eq!(client.call(ask("p1/m")).status, 200);
    }
    eventually("it says so", || (log_count(&proxy, "ai-proxy: /dev/full") > 0).then_some(()));
    assert_eq!(log_count(&proxy, "ai-proxy: /dev/full"), 1, "{}", proxy.log());
}
