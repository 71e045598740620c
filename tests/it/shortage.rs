//! When the system runs short of descriptors, threads or disk: the proxy serves on with what it has, says so once, and is
//! whole again as soon as there is more.

use rustix::process::{Resource, Signal};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

use crate::support::calls::{TOKEN, ask, completion, get};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::Reply;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Reply::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

fn told(proxy: &Proxy, words: &str) -> usize {
    proxy.stderr.all().iter().filter(|line| line.contains(words)).count()
}

#[test]
fn without_descriptors_it_serves_who_is_inside_and_waits_for_more() {
    let (_upstream, proxy) = start(json!({}));
    let mut inside = proxy.client();
    assert_eq!(inside.call(ask("p1/m")).status, 200);
    let before = proxy.limit(Resource::Nofile, Some(proxy.open_descriptors() as u64 + 4));
    let mut outside: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
    proxy.log_line(&["cannot accept connections"]);

    // Clients come and go, so that accept works now and then: that is no news.
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
    assert_eq!(told(&proxy, "cannot accept connections"), 1, "{}", proxy.log());

    proxy.limit(Resource::Nofile, before);
    for client in &mut outside {
        assert_eq!(client.call(get("/healthz")).status, 200);
    }
    proxy.log_line(&["accepting connections again"]);
    assert_eq!(told(&proxy, "accepting connections again"), 1, "{}", proxy.log());
}

/// A limit of address space refuses the stack of a new thread as the system's own limit of threads would; that one does
/// not bind root.
#[test]
fn without_more_threads_those_there_serve() {
    let (upstream, proxy) = start(json!({"max_connections": 8, "queue_timeout": 20}));
    let gate = Gate::new();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Reply::default().wait(&gate).send(answer));
    let mut first = proxy.client();
    first.send(ask("p1/m"));
    upstream.wait_requests(1);

    let room = proxy.address_space() as u64 + 1024 * 1024;
    let before = proxy.limit(Resource::As, Some(room));
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    proxy.log_line(&["cannot start a thread"]);
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(proxy.get("/v1/models").status, 200);
    // An ended thread may have left a stack that another could have.
    assert!(upstream.requests().len() < 4, "a request a thread");
    gate.open_for(7);
    for client in [&mut first].into_iter().chain(&mut clients) {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(told(&proxy, "cannot start a thread"), 1, "{}", proxy.log());

    proxy.limit(Resource::As, before);
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    let seen = upstream.wait_requests(13).len();
    assert_eq!(seen, 13, "all at once: there are threads again");
    gate.open_for(6);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_drain_needs_no_more_threads() {
    let (upstream, mut proxy) = start(json!({}));
    let gate = Gate::new();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Reply::default().wait(&gate).send(answer));
    let mut client = proxy.client();
    client.send(ask("p1/m"));
    upstream.wait_requests(1);
    proxy.limit(Resource::As, Some(proxy.address_space() as u64 + 1024 * 1024));
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
    eventually("it says so", || (told(&proxy, "/dev/full") > 0).then_some(()));
    assert_eq!(told(&proxy, "/dev/full"), 1, "{}", proxy.log());
}

/// A pipe or a console that is full would hold the thread that writes to it, and with it everyone who has to log.
#[test]
fn a_log_that_nobody_reads_holds_nobody() {
    let directory = TempDir::new();
    let fifo = directory.join("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    // Opened both ways, so that opening waits for nobody; it is never read until the end.
    let reader = std::fs::File::options().read(true).write(true).open(&fifo).expect("the pipe");
    let (_upstream, proxy) = start(json!({"log_file": fifo}));
    let mut client = proxy.client();
    for _ in 0..800 {
        assert_eq!(client.call(ask("p1/m")).status, 200);
    }
    assert_eq!(told(&proxy, "log"), 1, "{}", proxy.log());
    drop(reader);
    assert!(!proxy.log().contains(TOKEN));
}
