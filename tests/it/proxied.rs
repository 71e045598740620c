//! A provider behind a forward proxy: the same promises as without one.

use serde_json::json;
use std::time::Duration;

use crate::support::WITHIN_A_SECOND;
use crate::support::calls::{
    DONE, KEY, ask, ask_streamed, assert_error, assert_error_event, completion, event,
};
use crate::support::client::{End, HEARTBEAT, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::reply::{Reply, Step};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Upstream;

const SCHEMES: [&str; 2] = ["http", "socks5"];

fn start(scheme: &str, changes: serde_json::Value) -> (Upstream, Tunnel, Proxy) {
    let (upstream, tunnel) = (Upstream::new(&["m"]), Tunnel::new());
    let forward = format!("{scheme}://{}", tunnel.address());
    let provider = json!({"name": "p1", "url": upstream.url(), "key": KEY, "proxy": forward});
    let defaults = json!({"providers": [provider], "max_retries": 0, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(with(config(&[]), defaults), changes));
    (upstream, tunnel, proxy)
}

#[test]
fn calls_go_through_it() {
    for scheme in SCHEMES {
        let (upstream, tunnel, proxy) = start(scheme, json!({}));
        upstream.chat(Reply::json(200, &completion("hello")));
        for _ in 0..3 {
            assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{scheme}");
        }
        assert!(proxy.get("/v1/models").text().contains("p1/m"), "lists as well");
        assert!(tunnel.opened() >= 1, "{scheme}");
        assert_eq!(upstream.last().target, "/v1/chat/completions");
        let heads = tunnel.heads().concat();
        assert!(!heads.contains(KEY), "the proxy on the way learns no key: {heads}");
    }
}

#[test]
fn events_pass_one_by_one() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({}));
        let gate = Gate::new();
        upstream.chat(Reply::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")), "{scheme}");
        gate.open();
        assert_eq!(stream.events(), [DONE]);
        assert_eq!(stream.end(), End::FinalChunk);
    }
}

#[test]
fn a_dead_one_is_502() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    for scheme in SCHEMES {
        let upstream = Upstream::new(&["m"]);
        let forward = format!("{scheme}://{port}");
        let provider = json!({"name": "p1", "url": upstream.url(), "key": KEY, "proxy": forward});
        let changes = json!({"providers": [provider], "max_retries": 0});
        let proxy = Proxy::start(&with(config(&[]), changes));
        assert_error(&proxy.call(ask("p1/m")), 502, "upstream_unreachable");
        assert!(upstream.requests().is_empty(), "nothing goes around it");
    }
}

#[test]
fn time_limits_hold() {
    for scheme in SCHEMES {
        let changes = json!({"non_stream_timeout": 0.8, "stream_timeout": 0.8});
        let (upstream, _tunnel, proxy) = start(scheme, changes);
        upstream.chat(Reply::default().then(Step::Silence));
        for request in [ask("p1/m"), ask_streamed("p1/m")] {
            let (took, response) = timed(|| proxy.call(request));
            assert_error(&response, 504, "upstream_timeout");
            assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
        let drip = (0..100)
            .fold(Reply::raw(head), |reply, _| reply.send("x").then(Step::Pause(Duration::from_millis(50))));
        upstream.chat(drip);
        let (took, response) = timed(|| proxy.call(ask("p1/m")));
        assert_error(&response, 504, "upstream_timeout");
        assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");

        upstream.chat(Reply::sse().chunk(event("a")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        assert_error_event(stream.next_event().as_ref(), 504, "upstream_timeout");
    }
}

#[test]
fn heartbeats_go_out() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({"stream_heartbeat": 0.3}));
        upstream.chat(Reply::sse().chunk(event("a")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT), "{scheme}");
    }
}

#[test]
fn a_client_that_leaves_closes_the_upstream() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({}));
        upstream.chat(Reply::sse().chunk(event("a")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        assert_eq!(client.streamed().next_event(), Some(event("a")));
        client.leave();
        let (took, ()) = timed(|| upstream.wait_closed(upstream.last().connection));
        assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");
    }
}
