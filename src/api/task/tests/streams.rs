//! Streams and their heartbeats.

use std::time::Duration;

use serde_json::json;

use super::{EVENTS, HEARTBEAT, STREAM, STREAMED, World, chunk, document, event, payload, sent};
use crate::limits::MAX_HELD_EVENT;

#[test]
fn heartbeat_is_sent_when_it_is_due_and_no_attempt_follows_it() {
    let (mut world, provider) = sent(STREAMED);
    world.wait(15_000);
    assert_eq!(world.received(), format!("{STREAM}{HEARTBEAT}"));
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
    provider.end();
    world.run();
    let end = world.received();
    assert!(end.contains(r#""code":502,"reason":"upstream_broken""#) && !end.ends_with("0\r\n\r\n"), "{end}");
    assert_eq!(world.is_kept, Some(false));
}

#[test]
fn stream_is_the_same_wherever_it_is_cut() {
    let events =
        [event("one"), ": a comment\n\n".to_owned(), event("two"), "data: [DONE]\n\n".to_owned()].concat();
    let chunked = format!("{EVENTS}{}0\r\n\r\n", chunk(&events));
    let unlabelled = chunked.replace("text/event-stream", "application/json");
    for response in [chunked, unlabelled] {
        let bytes = response.as_bytes();
        let cuts = (0..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
        for pieces in cuts.chain([bytes.chunks(1).collect()]) {
            let (mut world, provider) = sent(STREAMED);
            for piece in &pieces {
                provider.send(piece);
                world.run();
            }
            let (payload, is_whole) = payload(&world.received());
            assert_eq!(
                (&*payload, is_whole, world.is_kept),
                (&*events, true, Some(true)),
                "{}",
                pieces[0].len()
            );
            assert!(!provider.is_closed(), "{}", pieces[0].len());
        }
    }
}

#[test]
fn stream_that_breaks_ends_in_the_words_of_its_api() {
    const BROKEN: &str = "the provider's response was cut off or is malformed: p";
    let delta = |number| {
        let data = json!({"type": "response.output_text.delta", "sequence_number": number});
        format!("event: response.output_text.delta\ndata: {data}\n\n")
    };
    let chat = format!(
        "data: {{\"error\":{{\"message\":\"{BROKEN}\",\"type\":\"server_error\",\"param\":null,\"code\":502,\
         \"reason\":\"upstream_broken\"}}}}\n\n"
    );
    let responses = format!(
        "event: error\ndata: {{\"type\":\"error\",\"code\":\"server_error\",\"message\":\"{BROKEN}\",\
         \"param\":null,\"sequence_number\":5,\"reason\":\"upstream_broken\"}}\n\n"
    );
    let messages = format!(
        "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"{BROKEN}\",\
         \"reason\":\"upstream_broken\"}},\"request_id\":\"r1\"}}\n\n"
    );
    let body = r#"{"model":"p/m","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":true}"#;
    for (path, first, error) in [
        ("/v1/chat/completions", event("one"), chat),
        ("/v1/responses", delta(4), responses),
        ("/v1/messages", event("one"), messages),
    ] {
        let mut world = World::new(1);
        let provider = world.network.lead_to();
        world.request_at(path, body);
        let half = &first[..20];
        provider.send(format!("{EVENTS}{}{}", chunk(&first), chunk(half)).as_bytes());
        world.run();
        assert!(world.received().ends_with("\n\n\r\n"), "{path}: whole events alone");
        provider.end();
        world.run();
        assert_eq!((world.received(), world.is_kept), (chunk(&error), Some(false)), "{path}");
    }
}

#[test]
fn stream_without_an_event_is_tried_elsewhere() {
    let (mut world, provider) = sent(STREAMED);
    let other = world.network.lead_to();
    provider.send(EVENTS.as_bytes());
    provider.end();
    world.run();
    assert!(provider.is_closed() && !other.received().is_empty());
    other.send(format!("{EVENTS}{}0\r\n\r\n", chunk(&event("one"))).as_bytes());
    other.send(b"");
    world.run();
    assert_eq!(payload(&world.received()).0, event("one"));
}

#[test]
fn stream_that_falls_silent_has_heartbeats_and_then_an_end() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    assert_eq!(payload(&world.received()), (event("one"), false));
    for _ in 0..2 {
        world.wait(15_000);
        assert_eq!(world.received(), HEARTBEAT);
    }
    world.wait(10_000);
    assert!(world.received().contains(r#""code":504,"reason":"upstream_timeout""#));
    assert_eq!(world.is_kept, Some(false));
}

#[test]
fn stream_that_says_something_in_time_goes_on() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(EVENTS.as_bytes());
    let mut sent = String::new();
    for number in 0..5 {
        world.now += Duration::from_secs(14);
        let event = event(&number.to_string());
        provider.send(chunk(&event).as_bytes());
        sent.push_str(&event);
        world.run();
    }
    assert_eq!(payload(&world.received()), (sent, false));
    assert_eq!(world.unasked, 4, "each event after the first has moved its deadline to a later time");
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
}

#[test]
fn heartbeat_is_due_again_after_the_end_of_a_large_event() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    provider.send(chunk(&format!("data: {}", "x".repeat(MAX_HELD_EVENT))).as_bytes());
    world.run();
    // No comment may stand within it.
    assert_eq!(world.deadline() - world.now, Duration::from_secs(40));
    provider.send(chunk("\n\n").as_bytes());
    world.run();
    world.received();
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
}

#[test]
fn stream_waits_for_a_client_that_takes_little_and_ends_with_its_time() {
    let (mut world, provider) = sent(STREAMED);
    world.client.set_room(40);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    let begun = world.received();
    assert_eq!(begun, STREAM[..40]);
    provider.send(chunk(&event("two")).as_bytes());
    world.run();
    world.client.set_room(usize::MAX);
    world.run();
    let rest = [begun, world.received()].concat();
    assert_eq!(payload(&rest), (event("one") + &event("two"), false));

    world.client.set_room(0);
    provider.send(chunk(&event("three")).as_bytes());
    world.run();
    // No heartbeat is for a client that does not take what there is.
    for milliseconds in [15_000, 15_000, 15_000, 5_000] {
        assert_eq!(world.is_kept, None);
        world.wait(milliseconds);
    }
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert!(provider.is_closed());
}

#[test]
fn heartbeats_go_on_while_a_document_is_collected_after_one() {
    let (mut world, provider) = sent(STREAMED);
    world.wait(15_000);
    assert!(world.received().ends_with(": keep-alive\n\r\n"));
    provider.send(&document(&"x".repeat(100)).as_bytes()[..120]);
    world.run();
    assert_eq!(world.deadline() - world.now, Duration::from_secs(15));
}
