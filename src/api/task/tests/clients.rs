//! What the client sees: a request that ends when it leaves, a permit that is free in time, a hint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{BODY, EVENTS, STREAMED, World, chunk, config, document, event, large, relayed, sent};
use crate::auth::quota::Clock;

#[test]
fn hint_names_the_model_that_the_token_may_use() {
    let mut config = config(0);
    let provider = |name| json!({"name": name, "url": format!("http://{name}.test/v1"), "models": ["m"]});
    config["providers"] = ["a", "b", "c", "d"].map(provider).into();
    config["tokens"] = json!([{"name": "t", "token": "sk-client", "models": ["^d/"]}]);
    let mut world = World::with(&config);
    world.api.gateway.board.adopt(&world.api.gateway.live.snapshot());
    world.request(r#"{"model":"m","messages":[]}"#);
    assert!(world.received().contains("write d/m"));
}

#[test]
fn client_that_leaves_ends_the_request_in_each_stage() {
    // What the provider has sent, for a request with that body.
    for (body, response) in [
        (BODY, String::new()),
        (BODY, document("{}").replace("{}", "{")),
        (STREAMED, EVENTS.replace("text/event-stream", "text/plain")),
        (STREAMED, format!("{EVENTS}{}", chunk(&event("one")))),
    ] {
        let (mut world, provider) = sent(body);
        provider.send(response.as_bytes());
        world.run();
        world.received();
        world.leave();
        assert!(provider.is_closed(), "{response}");
        assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)), "{response}");
    }
    let mut sending = World::new(1);
    let provider = sending.network.lead_to();
    provider.set_room(0);
    sending.request(BODY);
    sending.leave();
    assert!(provider.is_closed());

    let mut connecting = World::new(1);
    (connecting.holds_jobs, connecting.is_kept) = (true, None);
    let provider = connecting.network.lead_to();
    connecting.request(BODY);
    connecting.leave();
    connecting.jobs.drain(..).for_each(|job| job());
    assert_eq!(provider.received(), b"", "nobody wants its connection");

    let mut pausing = World::new(1);
    pausing.network.refuse();
    pausing.request(BODY);
    pausing.leave();
    for world in [sending, connecting, pausing] {
        assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    }
}

#[test]
fn client_that_leaves_unnoticed_ends_the_request_at_its_next_heartbeat() {
    let (mut world, provider) = sent(STREAMED);
    world.client.leave();
    world.wait(15_000);
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert!(provider.is_closed());
}

/// A gateway whose token may have one call at once, and what it and the gateway count before a byte arrives.
fn limited() -> (World, impl Fn() -> usize + Send + 'static + Clone) {
    let mut limited = config(1);
    limited["tokens"] = json!([{"name": "t", "token": "sk-client", "max_parallel": 1}]);
    let world = World::with(&limited);
    let gateway = Arc::clone(&world.api.gateway);
    let parallel = move || {
        let used = gateway.quotas.account(&gateway.live.snapshot().tokens[0], Clock::now()).parallel;
        usize::try_from(used).unwrap_or(usize::MAX)
            + usize::try_from(gateway.metrics.in_flight()).unwrap_or(usize::MAX)
    };
    (world, parallel)
}

/// Has what `parallel` says noted before a byte arrives at the client.
fn noted(world: &World, parallel: impl Fn() -> usize + Send + 'static) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(usize::MAX));
    let witness = Arc::clone(&seen);
    world.client.watch(move || witness.store(parallel(), Ordering::Relaxed));
    seen
}

#[test]
fn permit_is_free_before_the_last_byte_of_a_response_arrives() {
    let (mut world, parallel) = limited();
    let provider = world.network.lead_to();
    world.request(BODY);
    assert_eq!(parallel(), 2);
    let seen = noted(&world, parallel);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), seen.load(Ordering::Relaxed)), (relayed("{}"), 0));
}

#[test]
fn permit_is_free_before_a_refusal_arrives() {
    for body in [r#"{"model":"elsewhere/m"}"#, &large("elsewhere/m"), "{"] {
        let (mut world, parallel) = limited();
        let seen = noted(&world, parallel);
        world.request(body);
        assert!(world.received().starts_with("HTTP/1.1 40"));
        assert_eq!(seen.load(Ordering::Relaxed), 0, "{}", &body[..body.len().min(30)]);
    }
}
