//! Bodies that are collected, and the large ones that a helper reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{BODY, TIMED_OUT, World, document, large, relayed, sent, text};
use crate::api::ApiError;
use crate::api::task::Computing;
use crate::limits::QUICK_BODY;

#[test]
fn collect_sends_nothing_before_the_body_is_whole() {
    let whole = document(r#"{"choices":[]}"#);
    for at in 0..whole.len() {
        let (mut world, provider) = sent(BODY);
        provider.send(&whole.as_bytes()[..at]);
        world.run();
        assert_eq!((world.received(), world.is_kept), (String::new(), None), "{at}");
        provider.send(&whole.as_bytes()[at..]);
        world.run();
        assert_eq!((world.received(), world.is_kept), (relayed(r#"{"choices":[]}"#), Some(true)), "{at}");
    }
}

#[test]
fn collect_of_a_body_that_stops_ends_with_its_time() {
    let (mut world, provider) = sent(BODY);
    provider.send(&document("{}").as_bytes()[..document("{}").len() - 1]);
    world.run();
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

/// A request that a helper has to prepare, and has not.
fn unprepared() -> World {
    let mut world = World::new(1);
    world.holds_jobs = true;
    world.request(&large("p/m"));
    assert_eq!(world.jobs.len(), 1);
    world
}

#[test]
fn large_request_is_prepared_by_a_helper_and_ends_on_its_worker() {
    let mut world = unprepared();
    let provider = world.network.lead_to();
    world.holds_jobs = false;
    world.run();
    assert_eq!(text(&provider.received()).split_once("\r\n\r\n").expect("a head").1, large("m"));
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
    world.request(&large("elsewhere/m"));
    assert!(world.received().contains(r#""reason":"model_not_found""#));
}

#[test]
fn large_request_whose_client_leaves_is_not_prepared_and_holds_nothing() {
    let mut world = unprepared();
    world.leave();
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    let gateway = Arc::strong_count(&world.api.gateway);
    assert_eq!((gateway, world.api.gateway.metrics.in_flight()), (1, 0), "the job that waits has nothing");
    world.jobs.drain(..).for_each(|job| job());
}

#[test]
fn large_request_that_no_helper_begins_within_queue_timeout_is_503() {
    let mut world = unprepared();
    world.wait(5_000);
    assert!(world.received().contains(r#""code":503,"reason":"overloaded""#));
    assert_eq!(world.is_kept, Some(true));
    // As where there are too many jobs already.
    let mut world = unprepared();
    world.jobs.clear();
    world.run();
    assert!(world.received().contains(r#""code":503,"reason":"overloaded""#));
}

#[test]
fn large_request_is_translated_by_a_helper_where_its_replica_turns_out_to_speak_chat_alone() {
    let mut world = World::new(1);
    let provider = world.network.lead_to();
    let body = json!({"model": "p/m", "input": "x".repeat(QUICK_BODY)}).to_string();
    world.request_at("/v1/responses", &body);
    assert!(text(&provider.received()).starts_with("POST /v1/responses "));
    world.holds_jobs = true;
    provider.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    world.run();
    assert_eq!((provider.received().len(), world.jobs.len()), (0, 1));
    world.holds_jobs = false;
    world.run();
    assert!(text(&provider.received()).starts_with("POST /v1/chat/completions "));
}

/// A response that a helper has to look at, and has not; and what the client gets of it.
fn unread() -> (World, String) {
    let (mut world, provider) = sent(BODY);
    world.holds_jobs = true;
    let body = json!({"choices": [{"message": {"content": "x".repeat(QUICK_BODY)}}]}).to_string();
    provider.send(document(&body).as_bytes());
    world.run();
    assert_eq!((world.received(), world.jobs.len()), (String::new(), 1));
    (world, relayed(&body))
}

#[test]
fn large_response_is_looked_at_by_a_helper_and_ends_on_its_worker() {
    let (mut world, expected) = unread();
    world.holds_jobs = false;
    world.run();
    assert_eq!((world.received(), world.is_kept), (expected, Some(true)));
}

#[test]
fn large_response_whose_client_leaves_is_not_looked_at() {
    let (mut world, _) = unread();
    world.leave();
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert_eq!(Arc::strong_count(&world.api.gateway), 1);
}

#[test]
fn large_response_that_no_helper_begins_within_queue_timeout_is_looked_at_by_its_worker() {
    let (mut world, expected) = unread();
    world.wait(5_000);
    assert_eq!((world.received(), world.is_kept), (expected, Some(true)));
    world.jobs.drain(..).for_each(|job| job());
}

#[test]
fn computation_that_panics_is_an_error_of_ours() {
    let mut world = World::new(1);
    let until = world.now + Duration::from_secs(5);
    let mut computing = Computing::new("a", |text: &str| -> usize { panic!("{text}") }, false, until);
    assert_eq!((computing.poll(&mut world, until - Duration::from_nanos(1))), Ok(None));
    assert_eq!(computing.deadline(), Some(until));
    let job = world.jobs.pop().expect("it was sent to a helper");
    assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
    assert_eq!((computing.poll(&mut world, until), computing.deadline()), (Err(ApiError::Internal), None));
}
