//! Several workers: each has its share of the connections, and limits of requests hold over all of them.

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use ai_proxy::limits::CONNECT_TIMEOUT;
use rustix::process::Signal;
use serde_json::json;

use crate::support::calls::{
    DONE, TOKEN, ask, ask_streamed, assert_error, authorized, chat, completion, event, get,
};
use crate::support::client::{Client, End};
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::{Request, Upstream};

const WORKERS: usize = 3;

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let several = with(config(&[("p1", &upstream)]), json!({"workers": WORKERS}));
    let proxy = Proxy::start(&with(several, changes));
    assert_eq!(proxy.get("/health").status, 200);
    (upstream, proxy)
}

/// The value of each sample of that metric, in their order.
fn samples(client: &mut Client, metric: &str) -> Vec<usize> {
    let text = client.call(get("/metrics")).text();
    let of_it = |line: &&str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok());
    text.lines().filter(of_it).map(|line| value(line).expect("a number")).collect()
}

fn wait_queued(client: &mut Client, count: usize) {
    eventually("they wait", || (samples(client, "ai_proxy_queue_length") == [count]).then_some(()));
}

#[test]
fn connections_are_spread_evenly_and_leave_again() {
    let (_upstream, proxy) = start(json!({}));
    let mut watch = proxy.client();
    let mut clients: Vec<Client> = (0..5 * WORKERS).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.call(get("/healthz")).status, 200));
    // The connection that checked whether it serves has closed too.
    let shares = eventually("they are counted", || {
        let shares = samples(&mut watch, "ai_proxy_worker_clients");
        (shares.iter().sum::<usize>() == clients.len() + 1).then_some(shares)
    });
    assert_eq!(shares.len(), WORKERS);
    assert!(shares.iter().all(|share| (5..=6).contains(share)), "{shares:?}");
    // New connections take the places of closed ones, on any worker.
    clients.drain(..WORKERS).for_each(Client::leave);
    eventually("they have left", || {
        let left: usize = samples(&mut watch, "ai_proxy_worker_clients").iter().sum();
        (left == clients.len() + 1).then_some(())
    });
    for _ in 0..WORKERS {
        clients.push(proxy.client());
        assert_eq!(clients.last_mut().expect("one").call(get("/healthz")).status, 200);
    }
    let shares = samples(&mut watch, "ai_proxy_worker_clients");
    assert!(shares.iter().all(|share| (5..=6).contains(share)), "{shares:?}");
}

#[test]
fn requests_wait_for_one_permit_in_the_order_they_came_on_whichever_worker() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "queue_timeout": 20}));
    let gate = Gate::new();
    let mut held = Script::json(200, &completion("hello"));
    held.0.insert(0, Step::Wait(gate.clone()));
    upstream.chat(held);
    let mut watch = proxy.client();
    let mut clients: Vec<Client> = (0..3 * WORKERS).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let body = json!({"model": "p1/m", "messages": [], "user": format!("number {number}")});
        client.send(chat(body.to_string()));
        if number == 0 {
            upstream.wait_requests(1);
        } else {
            wait_queued(&mut watch, number);
        }
    }
    gate.open_for(clients.len());
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    let order: Vec<String> = upstream.requests().iter().map(Request::text).collect();
    for (number, body) in order.iter().enumerate() {
        assert!(body.contains(&format!("\"number {number}\"")), "{number}: {order:#?}");
    }
    wait_queued(&mut watch, 0);
}

#[test]
fn request_that_waits_too_long_is_refused_on_whichever_worker() {
    let (upstream, proxy) = start(json!({"max_connections": 1, "queue_timeout": 0.3}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut first = proxy.client();
    first.send(ask_streamed("p1/m"));
    let mut stream = first.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    let mut others: Vec<Client> = (0..2 * WORKERS).map(|_| proxy.client()).collect();
    others.iter_mut().for_each(|client| client.send(ask("p1/m")));
    for client in &mut others {
        assert_error(&client.response(), 503, "overloaded");
        assert_eq!(client.call(get("/healthz")).status, 200, "its connection lives on");
    }
    gate.open_for(1);
    assert_eq!((stream.events(), stream.end()), (vec![DONE.to_owned()], End::FinalChunk));
}

#[test]
fn idle_connection_to_a_provider_serves_the_requests_of_all_workers() {
    let (upstream, proxy) = start(json!({}));
    let mut clients: Vec<Client> = (0..2 * WORKERS).map(|_| proxy.client()).collect();
    for _ in 0..100 {
        for client in &mut clients {
            assert_eq!(client.call(ask("p1/m")).status, 200);
        }
    }
    upstream.chat(Script::sse().chunk(event("a")).chunk(DONE).end());
    for client in &mut clients {
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!((stream.events(), stream.end()), (vec![event("a"), DONE.to_owned()], End::FinalChunk));
    }
    let used: HashSet<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(used.len(), 1, "one after the other, one connection is enough");
}

#[test]
fn large_bodies_on_one_worker_leave_the_others_alone() {
    let (upstream, proxy) = start(json!({}));
    let mut clients: Vec<Client> = (0..WORKERS).map(|_| proxy.client()).collect();
    let large = json!({"model": "p1/m", "messages": [{"role": "user", "content": "x".repeat(5_000_000)}]});
    clients[0].send(authorized("/v1/chat/completions", large.to_string()));
    for _ in 0..20 {
        for client in &mut clients[1..] {
            assert_eq!(client.call(ask("p1/m")).status, 200);
        }
    }
    assert_eq!(clients[0].response().status, 200);
    assert!(upstream.requests().iter().any(|request| request.text().len() > 5_000_000));
    assert!(proxy.log().lines().all(|line| !line.contains(TOKEN)));
}

/// Each held a helper for the longest time of a connection.
#[test]
fn connections_of_clients_that_left_do_not_hold_up_those_of_others() {
    let hole = TcpListener::bind("127.0.0.1:0").expect("bind");
    rustix::net::listen(&hole, 0).expect("listen");
    let address = hole.local_addr().expect("an address");
    // This one fills the queue: further connections wait.
    let _first = TcpStream::connect(address).expect("the first has room");
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let mut several = with(config(&[("p1", &upstream)]), json!({"workers": WORKERS, "max_connections": 2}));
    several["providers"].as_array_mut().expect("a list").push(json!(format!("hole|http://{address}|k")));
    let proxy = Proxy::start(&several);
    let mut watch = proxy.client();
    for _ in 0..4 {
        let mut client = proxy.client();
        client.send(ask("hole/m"));
        eventually("it connects", || {
            (samples(&mut watch, "ai_proxy_requests_in_flight") == [1]).then_some(())
        });
        client.leave();
        eventually("it has left", || {
            (samples(&mut watch, "ai_proxy_requests_in_flight") == [0]).then_some(())
        });
    }
    let begun = Instant::now();
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    assert!(begun.elapsed() < CONNECT_TIMEOUT / 2, "{:?}", begun.elapsed());
}

#[test]
fn number_of_workers_is_shown_at_the_start() {
    let (_upstream, proxy) = start(json!({"language": "en", "log_level": "INFO"}));
    proxy.log_line(&["workers: 3"]);
    assert_eq!(proxy.threads_named("worker"), WORKERS);
}

/// A worker that clears two wake-ups at once, one for the beginning of the drain and one for the end of
/// accepting, must not stay asleep. Several processes at a time interrupt it in between.
#[test]
fn drain_ends_on_each_worker() {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let (_upstream, mut proxy) = start(json!({}));
                    proxy.signal(Signal::TERM);
                    assert_eq!(proxy.wait().code(), Some(0));
                }
            });
        }
    });
}
