//! Everything that reads a document from outside, as functions over bytes: what they cost is held against the size of what
//! they are given. One row for each; a new endpoint or translation is a row more.

use std::sync::{Arc, LazyLock};

use ai_proxy::catalog;
use ai_proxy::config::{Config, Scope, Thinking, load};
use ai_proxy::core::multipart;
use ai_proxy::core::splice::Body;
use ai_proxy::core::sse::Events;
use ai_proxy::dialect::anthropic::{chat_request, error, message, translator, unsigned_thinking};
use ai_proxy::dialect::{Attached, Document, Output as Translated, Translator, Unfit, responses};
use ai_proxy::limits::MAX_HELD_EVENT;
use ai_proxy::upstream::assembly::assemble;
use ai_proxy::upstream::events;
use ai_proxy::upstream::meter::{Measured, Meter};
use ai_proxy::upstream::opening::Opening;
use ai_proxy::upstream::refusal::Refusal;
use ai_proxy::upstream::{Output, response_id};
use serde_json::Value;
use serde_json::value::RawValue;

use super::seeds;

/// Reads documents of one kind.
pub struct Reader {
    pub name: &'static str,
    /// Known documents, as JSON.
    pub seeds: fn() -> Vec<String>,
    /// What is written for a JSON document; `None`: nothing does.
    pub render: fn(&str) -> Option<Vec<u8>>,
    /// Reads it, and gives the number of bytes written for it.
    pub read: fn(&[u8]) -> usize,
    /// Memory for each byte of a document, the document included; at most so many bytes are written, too.
    pub memory: usize,
}

/// The bytes of a model's name that is put in.
const MODEL: &[u8] = b"\"a-model\"";

/// What `max_request_size` and `max_response_size` bound is bounded here by the size of the document.
const LIMIT: usize = usize::MAX;

/// What most readers may take.
const MEMORY: usize = 4;
/// The events of a response: its end repeats the text four times at once, and small items come with names and ids of their own.
const MEMORY_OF_EVENTS: usize = 16;

/// All of them.
pub const READERS: &[Reader] = &[
    Reader { name: "body", seeds: seeds::bodies, render: as_it_is, read: body, memory: MEMORY },
    Reader { name: "form", seeds: seeds::forms, render: form, read: read_form, memory: MEMORY },
    Reader {
        name: "messages_request",
        seeds: seeds::messages_requests,
        render: as_it_is,
        read: messages_request,
        memory: MEMORY,
    },
    Reader {
        name: "responses_request",
        seeds: seeds::responses_requests,
        render: as_it_is,
        read: responses_request,
        memory: MEMORY,
    },
    Reader {
        name: "messages_thinking",
        seeds: seeds::messages_requests,
        render: as_it_is,
        read: |bytes| unsigned_thinking(bytes).iter().map(ExactSizeIterator::len).sum(),
        memory: MEMORY,
    },
    Reader {
        name: "messages_response",
        seeds: seeds::messages_responses,
        render: as_it_is,
        read: messages_response,
        memory: MEMORY,
    },
    Reader {
        name: "messages_stream",
        seeds: seeds::messages_streams,
        render: stream,
        read: messages_stream,
        memory: MEMORY,
    },
    Reader {
        name: "responses_response",
        seeds: seeds::messages_responses,
        render: as_it_is,
        read: responses_response,
        memory: MEMORY,
    },
    Reader {
        name: "responses_stream",
        seeds: seeds::messages_streams,
        render: stream,
        read: responses_stream,
        memory: MEMORY_OF_EVENTS,
    },
    Reader {
        name: "messages_error",
        seeds: seeds::errors,
        render: as_it_is,
        read: |bytes| error::translate(400, bytes, "req_1", Attached { image: true, pdf: true }).len(),
        memory: MEMORY,
    },
    Reader {
        name: "relayed_stream",
        seeds: seeds::streams,
        render: stream,
        read: relayed_stream,
        memory: MEMORY,
    },
    Reader {
        name: "relayed_response",
        seeds: seeds::responses,
        render: as_it_is,
        read: relayed_response,
        memory: MEMORY,
    },
    Reader {
        name: "assembled_stream",
        seeds: seeds::streams,
        render: stream,
        read: assembled_stream,
        memory: MEMORY,
    },
    Reader {
        name: "stream_opening",
        seeds: seeds::streams,
        render: stream,
        read: stream_opening,
        memory: MEMORY,
    },
    Reader {
        name: "masked_response",
        seeds: seeds::responses,
        render: as_it_is,
        read: masked_response,
        memory: MEMORY,
    },
    Reader {
        name: "model_list",
        seeds: seeds::model_lists,
        render: as_it_is,
        read: model_list,
        memory: MEMORY,
    },
];

/// What the models of one list may take, bytes: one of the named buffers.
const LIST_ROOM: usize = 32 * 1024;

fn as_it_is(document: &str) -> Option<Vec<u8>> {
    Some(document.as_bytes().to_vec())
}

fn body(bytes: &[u8]) -> usize {
    Body::parse(bytes).map_or(0, |body| length(&body.with_model(bytes, b"a-model")))
}

fn length(pieces: &[&[u8]]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

const BOUNDARY: &str = "boundary";

/// An object's members as the fields of a form, an array's elements as its parts with their `name` and `value`.
fn form(document: &str) -> Option<Vec<u8>> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut out = String::new();
    for part in document.as_array()? {
        let (name, value) = (part["name"].as_str()?, part["value"].as_str()?);
        let head = format!("Content-Disposition: form-data; name=\"{}\"", name.escape_default());
        out.push_str(&format!("--{BOUNDARY}\r\n{head}\r\n\r\n{value}\r\n"));
    }
    out.push_str(&format!("--{BOUNDARY}--\r\n"));
    Some(out.into_bytes())
}

fn read_form(bytes: &[u8]) -> usize {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    multipart::parse(content_type.as_bytes(), bytes)
        .map_or(0, |body| length(&body.with_model(bytes, b"a-model")))
}

fn messages_request(bytes: &[u8]) -> usize {
    // Every request is read for its model first, which bounds its depth.
    if Body::parse(bytes).is_err() {
        return 0;
    }
    let Ok(body) = serde_json::from_slice::<&RawValue>(bytes) else { return 0 };
    chat_request(Document::of_valid(body.get()).value(), LIMIT, Thinking::All)
        .map_or(0, |chat| length(&chat.with_model(MODEL, "max_tokens", true)))
}

fn responses_request(bytes: &[u8]) -> usize {
    if Body::parse(bytes).is_err() {
        return 0;
    }
    let Ok(body) = serde_json::from_slice::<&RawValue>(bytes) else { return 0 };
    let document = Document::of_valid(body.get());
    let Ok((chat, translation)) = responses::chat_request(document.value(), LIMIT, Thinking::All) else {
        return 0;
    };
    length(&chat.with_model(MODEL, "max_tokens", true)) + translation.held()
}

fn messages_response(bytes: &[u8]) -> usize {
    message(bytes, "p/m", "req_1", LIMIT).map_or(0, |message| message.len())
}

/// An array's elements as the events of a stream.
fn stream(document: &str) -> Option<Vec<u8>> {
    let events: Vec<&RawValue> = serde_json::from_str(document).ok()?;
    let lines = events.iter().map(|event| format!("data: {}\n\n", event.get().replace(['\r', '\n'], "")));
    Some((lines.collect::<String>() + "data: [DONE]\n\n").into_bytes())
}

/// Bytes of a stream that come at once.
const PIECE: usize = 8 * 1024;

fn messages_stream(bytes: &[u8]) -> usize {
    translated_stream(translator("p/m", "req_1", LIMIT), bytes)
}

const ASKED: responses::Asked<'_> = responses::Asked { model: "p/m", id: "req_1", at: 1_700_000_000 };

fn responses_response(bytes: &[u8]) -> usize {
    responses::response(bytes, &Arc::default(), ASKED, LIMIT).map_or(0, |response| response.len())
}

fn responses_stream(bytes: &[u8]) -> usize {
    translated_stream(responses::translator(&Arc::default(), ASKED, LIMIT), bytes)
}

fn translated_stream(mut translating: Translator, bytes: &[u8]) -> usize {
    let mut events = Events::default();
    let (mut out, mut written) = (Translated::new(LIMIT), 0);
    for piece in bytes.chunks(PIECE) {
        let taken: Result<(), Unfit> = events.take(piece, |data| translating.take(data, &mut out));
        written += out.bytes().len();
        out.clear();
        if taken.is_err() {
            break;
        }
    }
    // What it says of its end is the golden files' matter.
    let _ = translating.finish(&mut out);
    written + out.bytes().len()
}

fn relayed_stream(bytes: &[u8]) -> usize {
    let (mut events, mut written) = (events::Events::new(Meter::new(Output::Text, true)), 0);
    for piece in bytes.chunks(PIECE) {
        let passed: Result<(), ()> = events.pass(piece, |part, _| {
            written += part.len();
            Ok(())
        });
        passed.expect("nothing fails");
    }
    written
}

fn assembled_stream(bytes: &[u8]) -> usize {
    assemble(bytes).map_or(0, |document| document.len())
}

/// The beginning of a stream, as far as it is held back.
fn stream_opening(bytes: &[u8]) -> usize {
    let _ = Opening::of(&bytes[..bytes.len().min(MAX_HELD_EVENT)]);
    0
}

fn relayed_response(bytes: &[u8]) -> usize {
    let measured = Measured::of_document(bytes, Output::TextWithRepeats);
    // What is learnt of it is a matter of other tests.
    let _ = (measured.used(0), Refusal::in_document(bytes), response_id::in_document(bytes));
    bytes.len()
}

fn masked_response(bytes: &[u8]) -> usize {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| {
        let text = r#"{"host":"localhost","providers":["p|http://localhost:1/v1|sk-0123456789abcdef"]}"#;
        load::from_text(text, &|_| None).expect("a good configuration")
    });
    CONFIG.providers[0].mask().hide(bytes.to_vec(), Scope::All).len()
}

fn model_list(bytes: &[u8]) -> usize {
    catalog::parse_list("models/", bytes, LIST_ROOM)
        .map_or(0, |list| list.models.iter().map(|model| model.id.len()).sum())
}
