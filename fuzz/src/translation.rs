//! Anthropic's format over OpenAI's: what comes out is JSON, whatever goes in; a stream does not depend on how it came, and
//! its blocks follow one another.

use ai_proxy::dialect::anthropic::{chat_request, error, message, translator};
use ai_proxy::dialect::{Attached, Events, Output, Unfit};
use serde_json::Value;
use serde_json::value::RawValue;

use super::cut;

/// Reads it as a request, as a response, as a stream and as an error.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let body = serde_json::from_slice::<&RawValue>(bytes).ok();
    if let Some(Ok(chat)) = body.map(|body| chat_request(body, usize::MAX, true)) {
        let written = chat.with_model(b"\"m\"", "max_tokens", true).concat();
        serde_json::from_slice::<&RawValue>(&written).expect("a request is JSON");
    }
    if let Ok(message) = message(bytes, "p/m", "req_1", usize::MAX) {
        let message: Value = serde_json::from_slice(&message).expect("a message is JSON");
        assert!(message["content"].is_array() && message["stop_reason"].is_string(), "{message}");
    }
    let error = error::translate(400, bytes, "req_1", Attached { image: true, pdf: true });
    serde_json::from_slice::<&RawValue>(&error).expect("an error is JSON");
    let whole = stream(bytes, bytes.len().max(1));
    assert_eq!(whole, stream(bytes, step), "in pieces of {step}");
    assert_eq!(whole, stream(bytes, 1), "byte by byte");
    look_at(&whole.0, whole.1.is_ok());
}

fn stream(bytes: &[u8], step: usize) -> (String, Result<(), Unfit>) {
    let (mut events, mut translating) = (Events::default(), translator("p/m", "req_1", usize::MAX));
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

/// Holds the events to their order.
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
