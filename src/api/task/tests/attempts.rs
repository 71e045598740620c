//! Which replica is asked, and asked again.

use std::time::Instant;

use serde_json::json;

use super::{BODY, TIMED_OUT, World, config, document, relayed, sent, text};
use crate::config::Format;
use crate::front::in_memory;

#[test]
fn connect_that_is_refused_asks_another_replica() {
    let mut world = World::new(2);
    world.network.refuse();
    let provider = world.network.lead_to();
    world.request(BODY);
    let request = provider.received();
    let (head, body) = text(&request).split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\nhost: r"), "{head}");
    assert_eq!(body, r#"{"model":"m","messages":[]}"#);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
    assert!(!provider.is_closed(), "it serves the next request");
}

#[test]
fn connect_without_a_helper_ends_with_its_time() {
    let mut world = World::new(1);
    world.holds_jobs = true;
    world.request(BODY);
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
    assert_eq!(world.is_kept, Some(true));
}

#[test]
fn backoff_asks_a_lone_replica_again() {
    let mut world = World::new(1);
    world.network.refuse();
    world.request(BODY);
    let provider = world.network.lead_to();
    world.wait(100);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
}

#[test]
fn send_goes_as_far_as_the_provider_takes_it() {
    let (_, whole) = sent(BODY);
    drop(whole);
    let mut world = World::new(1);
    let provider = world.network.lead_to();
    provider.set_room(0);
    world.request(BODY);
    let mut request = Vec::new();
    while world.task.as_ref().is_some_and(|_| !request.ends_with(b"[]}")) {
        assert!(request.len() < 1000, "it has an end");
        provider.set_room(7);
        world.run();
        let part = provider.received();
        assert!((1..=7).contains(&part.len()));
        request.extend(part);
    }
    assert_eq!(
        text(&request),
        "POST /v1/chat/completions HTTP/1.1\r\nhost: r0.test\r\nContent-Type: application/json\r\n\
         x-request-id: r1\r\naccept-encoding: identity\r\nauthorization: Bearer sk-p0\r\n\
         content-length: 27\r\n\r\n{\"model\":\"m\",\"messages\":[]}"
    );
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!(world.received(), relayed("{}"));
}

#[test]
fn send_to_a_provider_that_takes_nothing_ends_with_its_time() {
    let mut world = World::new(1);
    world.network.lead_to().set_room(0);
    world.request(BODY);
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

#[test]
fn await_head_that_is_late_is_504() {
    let (mut world, provider) = sent(BODY);
    provider.send(b"HTTP/1.1 200");
    world.run();
    world.wait(60_000);
    let head = "HTTP/1.1 504 Gateway Timeout\r\ncontent-type: application/json\r\nx-request-id: r1\r\n\
                x-should-retry: false\r\nx-ai-proxy-provider: p\r\ncontent-length: 135\r\n\r\n";
    assert_eq!((world.received(), world.is_kept), (format!("{head}{TIMED_OUT}"), Some(true)));
    assert!(provider.is_closed());
}

#[test]
fn await_head_on_an_idle_connection_that_has_ended_begins_anew_on_a_fresh_one() {
    let (mut world, provider) = sent(BODY);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!(world.received(), relayed("{}"));
    // The same replica has an idle connection, and is one of two.
    for _ in 0..2 {
        let fresh = world.network.lead_to();
        world.request(BODY);
        if fresh.received().is_empty() {
            provider.end();
            world.run();
            assert!(provider.is_closed() && !fresh.received().is_empty());
            fresh.send(document("[]").as_bytes());
            world.run();
            assert_eq!(world.received(), relayed("[]"));
            return;
        }
        fresh.send(document("{}").as_bytes());
        world.run();
        assert_eq!(world.received(), relayed("{}"));
        world.network.clear();
    }
    panic!("two requests in turn meet both replicas");
}

#[test]
fn await_head_that_is_late_for_its_attempt_asks_another_replica() {
    let mut config = config(2);
    config["attempt_timeout"] = json!(5);
    let mut world = World::with(&config);
    let (slow, other) = (world.network.lead_to(), world.network.lead_to());
    world.request(BODY);
    assert!(!slow.received().is_empty());
    world.wait(5_000);
    assert!(slow.is_closed() && !other.received().is_empty());
    // The last one has the rest of the time.
    world.wait(55_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

/// Of one provider: a replica for chat completions alone, and one that serves responses as well.
fn unlike_replicas() -> World {
    let mut config = config(0);
    config["providers"] = json!([
        {"name": "p", "url": "http://r0.test/v1", "key": "sk-p0", "responses": "chat"},
        {"name": "p", "url": "http://r1.test/v1", "key": "sk-p1", "responses": "native"},
    ]);
    World::with(&config)
}

#[test]
fn replica_that_cannot_take_a_call_keeps_its_cooldown() {
    let mut world = unlike_replicas();
    let (bad, good) = (world.network.lead_to(), world.network.lead_to());
    world.request(BODY);
    bad.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    world.run();
    good.send(document("{}").as_bytes());
    world.run();
    world.received();
    let id = world.api.gateway.live.snapshot().providers[0].replicas[0].id;
    let cooldown =
        |world: &World| world.api.gateway.balance.condition(id, Instant::now()).cooldown_until.is_some();
    assert!(cooldown(&world));
    world.request_at("/v1/responses", r#"{"model":"p/m","input":"x","conversation":"c"}"#);
    good.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    world.run();
    assert!(cooldown(&world) && !world.received().is_empty());
}

#[test]
fn replica_that_serves_an_api_after_all_is_asked_again() {
    let mut world = World::new(1);
    world.api.gateway.board.adopt(&world.api.gateway.live.snapshot());
    let is_native = |world: &World| {
        let config = world.api.gateway.live.snapshot();
        let replica = &config.providers[0].replicas[0];
        world.api.gateway.board.is_native(replica, Format::OpenAi, Instant::now())
    };
    let body = r#"{"model":"p/m","input":"x"}"#;
    let slow = world.network.lead_to();
    world.request_at("/v1/responses", body);
    let first = world.task.take().expect("it waits");
    world.client = in_memory::Peer::open();
    let quick = world.network.lead_to();
    world.request_at("/v1/responses", body);
    quick.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    world.run();
    let choices = r#"{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#;
    quick.send(document(choices).as_bytes());
    world.run();
    assert!(!is_native(&world));
    world.task = Some(first);
    slow.send(document(r#"{"id":"resp_1","object":"response"}"#).as_bytes());
    world.run();
    assert!(is_native(&world));
}
