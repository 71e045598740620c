//! The output of a translation is proportional to its input, and bounded while it is written, for anything
//! that is repeated or lengthened in the requests, responses and streams of `tests/golden/anthropic`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ai_proxy::config::Thinking;
use ai_proxy::core::sse::Events;
use ai_proxy::dialect::anthropic::{chat_request, message, translator};
use ai_proxy::dialect::{Document, Output, Refusal, Translator, Unfit, responses};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Repetitions of an element or a member.
const TIMES: usize = 200;
/// Bytes added to a string.
const LONGER: usize = 2_000;
/// Most changes to try for each document.
const CHANGES: usize = 10;
/// Most bytes of output per byte of input.
const FACTOR: usize = 3;
/// Events have names, numbers and braces of their own.
const STREAM_FACTOR: usize = 4;
/// A response contains its text five times: in deltas, in three events at its end, and in the last event.
const RESPONSES_FACTOR: usize = 6;
/// Further output: the made ids of calls.
const BESIDE: usize = 64 * 1024;
/// Six events for each of at most 256 items.
const BESIDE_RESPONSES: usize = 512 * 1024;

const ASKED: responses::Asked<'_> = responses::Asked { model: "p/m", id: "req_1", at: 1_700_000_000 };

fn responses(limit: usize) -> Translator {
    responses::translator(&Arc::default(), ASKED, limit)
}

/// Writes a document with one of its elements or members repeated, and one of its strings lengthened.
struct Writer {
    node: usize,
    repeated: usize,
    lengthened: usize,
    out: String,
}

impl Writer {
    fn write(&mut self, value: &Value) {
        self.node += 1;
        match value {
            Value::Object(members) => {
                self.list('{', '}', members.iter().map(|(key, value)| (Some(key), value)));
            }
            Value::Array(elements) => {
                self.list('[', ']', elements.iter().map(|value| (None, value)));
            }
            Value::String(text) => {
                let longer = if self.node == self.lengthened { LONGER } else { 0 };
                write!(self.out, "{}", Value::from(text.clone() + &"\"".repeat(longer))).expect("memory");
            }
            other => write!(self.out, "{other}").expect("memory"),
        }
    }

    fn list<'a>(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
    ) {
        self.out.push(open);
        for (at, (key, value)) in items.enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            let (begin, is_repeated) = (self.out.len(), self.node + 1 == self.repeated);
            if let Some(key) = key {
                write!(self.out, "{}:", Value::from(key.as_str())).expect("memory");
            }
            self.write(value);
            if is_repeated {
                let item = format!(",{}", &self.out[begin..]);
                self.out.push_str(&item.repeat(TIMES));
            }
        }
        self.out.push(close);
    }
}

/// Changes of the document, the same in each run.
fn changed(document: &Value) -> impl Iterator<Item = String> {
    let write = |repeated, lengthened| {
        let mut writer = Writer { node: 0, repeated, lengthened, out: String::new() };
        writer.write(document);
        (writer.node, writer.out)
    };
    let (nodes, _) = write(0, 0);
    let mut state = 1_u32;
    let mut any = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 8) as usize % nodes
    };
    (0..CHANGES).map(move |_| write(any(), any()).1)
}

/// The golden files of a folder: name and text.
fn golden(folder: &str, ending: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/anthropic").join(folder);
    let paths = fs::read_dir(path).expect("the folder").map(|entry| entry.expect("an entry").path());
    let wanted = paths.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    // Some are not UTF-8 on purpose.
    wanted.filter_map(|path| Some((path.display().to_string(), fs::read_to_string(&path).ok()?))).collect()
}

fn request(body: &str, limit: usize) -> Result<usize, Refusal> {
    serde_json::from_str::<IgnoredAny>(body).expect("JSON");
    chat_request(Document::of_valid(body).value(), limit, Thinking::All)
        .map(|chat| chat.with_model(b"\"m\"", "max_tokens", true).concat().len())
}

/// Size of the events made from the data of chat events; everything written counts, also before an error.
fn stream(events: &[u8], limit: usize) -> (usize, Result<(), Unfit>) {
    stream_into(translator("p/m", "req_1", limit), events, limit)
}

/// The same for an API's translator.
fn stream_into(mut translating: Translator, events: &[u8], limit: usize) -> (usize, Result<(), Unfit>) {
    let mut out = Output::new(limit);
    let mut reader = Events::default();
    let mut run = || {
        reader.take(events, |data| translating.take(data, &mut out))?;
        translating.finish(&mut out)
    };
    let ended = run();
    (out.bytes().len(), ended)
}

#[test]
fn translated_requests_are_in_proportion() {
    let mut translated = 0;
    for (name, text) in golden("request", ".json") {
        let Ok(document) = serde_json::from_str::<Value>(&text) else { continue };
        for body in changed(&document) {
            let Ok(size) = request(&body, usize::MAX) else { continue };
            translated += 1;
            assert!(size <= FACTOR * body.len() + 4096, "{name}: {} bytes become {size}", body.len());
            if let Ok(size) = request(&body, body.len() / 2) {
                assert!(size <= body.len() / 2 + 100, "{name}: over its limit");
            }
        }
    }
    assert!(translated > 100, "{translated}");
}

#[test]
fn translated_responses_are_in_proportion() {
    let mut translated = 0;
    for (name, text) in golden("response", ".json") {
        let Ok(document) = serde_json::from_str::<Value>(&text) else { continue };
        for body in changed(&document) {
            let as_one_event = format!("data: {body}\n\n");
            let (size, _) = stream(as_one_event.as_bytes(), usize::MAX);
            assert!(
                size <= FACTOR * body.len() + BESIDE,
                "{name}: {} bytes become {size} of events",
                body.len()
            );
            let made = responses::response(body.as_bytes(), &Arc::default(), ASKED, usize::MAX);
            if let Ok(response) = made {
                let size = response.len();
                assert!(size <= FACTOR * body.len() + BESIDE, "{name}: {} bytes become {size}", body.len());
            }
            let Ok(message) = message(body.as_bytes(), "p/m", "req_1", usize::MAX) else { continue };
            translated += 1;
            let size = message.len();
            assert!(size <= FACTOR * body.len() + BESIDE, "{name}: {} bytes become {size}", body.len());
            if let Ok(message) = self::message(body.as_bytes(), "p/m", "req_1", body.len() / 2) {
                assert!(message.len() <= body.len() / 2, "{name}: over its limit");
            }
        }
    }
    assert!(translated > 100, "{translated}");
}

#[test]
fn translated_streams_are_in_proportion() {
    for (name, text) in golden("stream", ".chat.sse") {
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        for at in 0..events.len() {
            let data =
                events[at].trim().strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
            let Some(document) = data else { continue };
            let document: Value = document;
            let changed = changed(&document).take(CHANGES / 5).map(|body| format!("data: {body}\n\n"));
            let repeated = [events[at].repeat(TIMES), events[..=at].concat().repeat(TIMES)];
            for event in changed.chain(repeated) {
                let input = [&events[..at].concat(), &*event, &events[at + 1..].concat()].concat();
                let (size, _) = stream(input.as_bytes(), usize::MAX);
                let most = STREAM_FACTOR * input.len() + BESIDE;
                assert!(size <= most, "{name}, event {at}: {} bytes become {size}", input.len());
                let (size, _) = stream(input.as_bytes(), 10_000);
                assert!(size <= 10_000, "{name}, event {at}: over its limit");
                let (size, _) = stream_into(responses(usize::MAX), input.as_bytes(), usize::MAX);
                let most = RESPONSES_FACTOR * input.len() + BESIDE_RESPONSES;
                assert!(
                    size <= most,
                    "{name}, event {at}: {} bytes become {size} of a response",
                    input.len()
                );
                let (size, _) = stream_into(responses(10_000), input.as_bytes(), 10_000);
                assert!(size <= 10_000, "{name}, event {at}: a response over its limit");
            }
        }
    }
}

fn chunk(delta: &Value) -> String {
    format!("data: {}\n\n", serde_json::json!({"id": "1", "choices": [{"index": 0, "delta": delta}]}))
}

/// Found on 9f09ecf: 1.4 MB took 3.2 GB.
#[test]
fn id_of_a_result_with_many_images_is_bounded_and_written_twice() {
    let image = serde_json::json!({"type": "image", "source": {"type": "url", "url": "u"}});
    let body = |id: &str, images: usize| {
        let content = vec![image.clone(); images];
        let result = serde_json::json!({"type": "tool_result", "tool_use_id": id, "content": content});
        let messages = serde_json::json!([{"role": "user", "content": [result]}]);
        serde_json::json!({"model": "p/m", "max_tokens": 1, "messages": messages}).to_string()
    };
    let place = |refused: Result<usize, Refusal>| refused.expect_err("refused").place;
    let id = "i".repeat(400_000);
    assert_eq!(place(request(&body(&id, 20_000), usize::MAX)), "messages.0.content.0.tool_use_id");
    assert_eq!(place(request(&body("i", 20_000), usize::MAX)), "messages.0.content.0.content.9999");
    let given = body(&id[..256], 9_000);
    assert!(request(&given, usize::MAX).expect("translated") < 2 * given.len());
}

/// Found on 9f09ecf: the id of 2 MB was repeated for each call.
#[test]
fn long_id_of_a_message_is_not_used() {
    let call = serde_json::json!({"function": {"name": "f", "arguments": "{}"}});
    let body = |calls: usize| {
        let said = serde_json::json!({"tool_calls": vec![call.clone(); calls]});
        serde_json::json!({"id": "i".repeat(2_000_000), "choices": [{"message": said}]}).to_string()
    };
    let made = message(body(128).as_bytes(), "p/m", "req_1", usize::MAX).expect("translated");
    assert!(made.len() < 100_000, "{}", made.len());
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!(made["content"][127]["id"], "call_req_1_127");
    let too_many = message(body(5_000).as_bytes(), "p/m", "req_1", usize::MAX);
    assert_eq!(too_many, Err(Unfit::Malformed("too many tool calls")));
}

/// Found on 9f09ecf: each call was compared with all others, which took 86 s.
#[test]
fn calls_of_a_stream_are_bounded_and_looked_up() {
    let call = |at: usize, name: &str, arguments: &str| {
        let function = serde_json::json!({"name": name, "arguments": arguments});
        let call = serde_json::json!({"index": at, "id": format!("c{at}"), "function": function});
        chunk(&serde_json::json!({"tool_calls": [call]}))
    };
    let all: String = (0..5_000).map(|at| call(at, "f", "")).collect();
    assert_eq!(stream(all.as_bytes(), usize::MAX).1, Err(Unfit::Malformed("too many tool calls")));
    // As many as are allowed, all open, each in many pieces.
    let begun: String = (0..128).map(|at| call(at, "f", "{\"a\":\"")).collect();
    let piece = "x".repeat(20);
    let pieces: String =
        (0..20).map(|_| (0..128).map(|at| call(at, "", &piece)).collect::<String>()).collect();
    let end = "data: {\"choices\":[{\"finish_reason\":\"length\"}]}\n\n";
    let (size, ended) = stream([begun, pieces, end.to_owned()].concat().as_bytes(), usize::MAX);
    assert_eq!(ended, Ok(()));
    assert!(size > 128 * 20 * piece.len());
}

/// Found on 9f09ecf: 388 MB for a stream of 10 MiB.
#[test]
fn text_held_after_an_open_call_is_bounded() {
    let function = serde_json::json!({"name": "f", "arguments": "{"});
    let open = chunk(&serde_json::json!({"tool_calls": [{"index": 0, "id": "c", "function": function}]}));
    let mixed = chunk(&serde_json::json!({"reasoning": "a", "content": "b"}));
    let (_, ended) = stream([open.clone(), mixed.repeat(6_000)].concat().as_bytes(), usize::MAX);
    assert_eq!(ended, Err(Unfit::Malformed("too many content blocks")));
    let text = chunk(&serde_json::json!({"content": "b".repeat(1_000)}));
    let (size, ended) = stream([open, text.repeat(1_001)].concat().as_bytes(), 1_000_000);
    assert_eq!(ended, Err(Unfit::TooLarge));
    assert!(size < 1_000, "nothing of it was sent");
}
