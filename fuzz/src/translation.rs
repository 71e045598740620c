//! Other APIs over chat completions: what comes out is JSON, whatever goes in; a stream does not depend on how it came, and
//! its blocks follow one another.

use std::sync::Arc;

use ai_proxy::config::Thinking;
use ai_proxy::core::sse::Events;
use ai_proxy::dialect::anthropic::{chat_request, error, message, translator};
use ai_proxy::dialect::{Attached, Document, Output, Translator, Unfit, responses};
use serde_json::Value;
use serde_json::value::RawValue;

use super::cut;

/// Reads it as a request, as a response, as a stream and as an error.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let body = serde_json::from_slice::<&RawValue>(bytes).ok();
    if let Some(Ok(chat)) =
        body.map(|body| chat_request(Document::of_valid(body.get()).value(), usize::MAX, Thinking::All))
    {
        let written = chat.with_model(b"\"m\"", "max_tokens", true).concat();
        serde_json::from_slice::<&RawValue>(&written).expect("a request is JSON");
    }
    if let Ok(message) = message(bytes, "p/m", "req_1", usize::MAX) {
        let message: Value = serde_json::from_slice(&message).expect("a message is JSON");
        assert!(message["content"].is_array() && message["stop_reason"].is_string(), "{message}");
    }
    let error = error::translate(400, bytes, "req_1", Attached { image: true, pdf: true });
    serde_json::from_slice::<&RawValue>(&error).expect("an error is JSON");
    if let Ok(response) = responses::response(bytes, &Arc::default(), ASKED, usize::MAX) {
        let response: Value = serde_json::from_slice(&response).expect("a response is JSON");
        assert!(response["output"].is_array() && response["status"].is_string(), "{response}");
    }
    let messages: Make = || translator("p/m", "req_1", usize::MAX);
    let events_of_a_response: Make = || responses::translator(&Arc::default(), ASKED, usize::MAX);
    for (make, look_at) in [(messages, look_at as fn(&str, bool)), (events_of_a_response, look_at_response)] {
        let whole = stream(make(), bytes, bytes.len().max(1));
        assert_eq!(whole, stream(make(), bytes, step), "in pieces of {step}");
        assert_eq!(whole, stream(make(), bytes, 1), "byte by byte");
        look_at(&whole.0, whole.1.is_ok());
    }
}

type Make = fn() -> Translator;

const ASKED: responses::Asked<'_> = responses::Asked { model: "p/m", id: "req_1", at: 1_700_000_000 };

fn stream(mut translating: Translator, bytes: &[u8], step: usize) -> (String, Result<(), Unfit>) {
    let mut events = Events::default();
    let mut out = Output::new(usize::MAX);
    let mut run = || -> Result<(), Unfit> {
        for piece in bytes.chunks(step) {
            events.take(piece, |data| translating.take(data, &mut out))?;
        }
        events.end(|data| translating.take(data, &mut out))?;
        translating.finish(&mut out)
    };
    let ended = run();
    (String::from_utf8(out.bytes().to_vec()).expect("UTF-8"), ended)
}

/// Holds the events of a message to their order.
fn look_at(stream: &str, is_whole: bool) {
    let (mut kinds, mut open, mut next) = (Vec::new(), None, 0);
    for event in stream.split_terminator("\n\n") {
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        let kind = data["type"].as_str().expect("a type").to_owned();
        assert_eq!(name, format!("event: {kind}"));
        let index = data["index"].as_u64();
        match &*kind {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)));
                open = index;
                next += 1;
            }
            "content_block_delta" => assert_eq!(open, index),
            "content_block_stop" => assert_eq!(open.take(), index),
            _ => assert!(open.is_none(), "{kind} inside a block"),
        }
        kinds.push(kind);
    }
    assert!(kinds.iter().skip(1).all(|kind| kind != "message_start"));
    assert!(kinds.first().is_none_or(|kind| kind == "message_start"));
    assert_eq!(kinds.last().is_some_and(|kind| kind == "message_stop"), is_whole);
}

/// Holds the events of a response to their numbers, and its last event to the items before it.
fn look_at_response(stream: &str, is_whole: bool) {
    let (mut items, mut last) = (Vec::new(), Value::Null);
    for (at, event) in stream.split_terminator("\n\n").enumerate() {
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(name, format!("event: {}", data["type"].as_str().expect("a type")));
        assert_eq!(data["sequence_number"], at);
        if data["type"] == "response.output_item.done" {
            assert_eq!(data["output_index"], items.len());
            items.push(data["item"].clone());
        }
        last = data;
    }
    let is_end = last["type"] == "response.completed" || last["type"] == "response.incomplete";
    assert_eq!(is_end, is_whole);
    assert!(!is_end || last["response"]["output"] == Value::from(items), "{last}");
}
