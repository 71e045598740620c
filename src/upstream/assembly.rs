//! A document from the events of an unrequested stream: some providers stream every response.

mod node;

use std::fmt::Write as _;

use super::opening::{Event, Opening, events};
use super::refusal::Refusal;
use super::terminal::type_of;
use crate::json::deeper_than;
use crate::limits::{MAX_ASSEMBLED_CUT, MAX_ASSEMBLED_ITEMS, MAX_DEPTH};
use node::{Fit, Object, Room, each_item, each_member, index_of, is_json, member, write_name};

/// Why events make no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unassembled {
    /// One of them is an error; the document with the error.
    Refused(Refusal, Vec<u8>),
    /// They lack their end; the reason.
    Broken(&'static str),
    /// They belong to no known API, or exceed a limit; the reason.
    Unknown(&'static str),
}

const NOT_JSON: Unassembled = Unassembled::Broken("an event that is not JSON");
const NO_END: Unassembled = Unassembled::Broken("events without their end");
const TOO_MANY: Unassembled = Unassembled::Unknown("too many items in events");
const AT_ODDS: Unassembled = Unassembled::Unknown("events that do not fit together");
const NO_API: Unassembled = Unassembled::Unknown("events of no known API");

/// Assembles the document of these events: a chat or text completion, a response, or a message.
///
/// # Errors
/// The events make no document.
pub fn assemble(stream: &[u8]) -> Result<Vec<u8>, Unassembled> {
    let mut document = Document::default();
    for event in events(stream) {
        document.take(event)?;
    }
    document.end(stream.len())
}

/// The document so far.
#[derive(Default)]
struct Document {
    /// The members of the document except the lists below.
    members: Object,
    /// The choices of a chat or text completion, and their `index`.
    choices: Option<Vec<(u64, Object)>>,
    /// The content blocks of a message.
    blocks: Option<Vec<Object>>,
    /// The unchanged response in the terminal event.
    response: Option<Vec<u8>>,
    room: Room,
    /// `[DONE]`, or the terminal event.
    is_over: bool,
    /// An event belongs to no known API.
    is_unknown: bool,
}

impl Document {
    fn take(&mut self, mut event: Event<'_>) -> Fit<()> {
        if event.data.is_empty() {
            return Ok(());
        }
        if event.data == b"[DONE]" {
            self.is_over = true;
            return Ok(());
        }
        event.data = utf8(event.data)?;
        if deeper_than(&event.data, MAX_DEPTH).is_some() {
            return Err(NOT_JSON);
        }
        if let Opening::Refusal(refusal, document) = Opening::of_event(&event) {
            return Err(Unassembled::Refused(refusal, document));
        }
        let kind = type_of(&event.data).unwrap_or_else(|| String::from_utf8_lossy(event.name));
        let data = std::str::from_utf8(&event.data).map_err(|_| NOT_JSON)?;
        match &*kind {
            "response.completed" | "response.incomplete" => {
                let response = member(data, "response")?.ok_or(NOT_JSON)?;
                self.response = Some(response.as_bytes().to_vec());
            }
            "message_start" => self.start_message(member(data, "message")?.ok_or(NO_END)?)?,
            "content_block_start" => self.start_block(data)?,
            "content_block_delta" => self.extend_block(data)?,
            "message_delta" => self.extend_message(data)?,
            "message_stop" => self.is_over = true,
            _ if self.is_chunk(&kind, data)? => self.add_chunk(data)?,
            _ => {
                self.is_unknown |=
                    !matches!(&*kind, "ping" | "content_block_stop") && !kind.starts_with("response.");
            }
        }
        Ok(())
    }

    /// The document of events with so many bytes together.
    fn end(mut self, size: usize) -> Fit<Vec<u8>> {
        if let Some(response) = self.response {
            return Ok(response);
        }
        if self.choices.is_none() && self.blocks.is_none() {
            return Err(if self.is_unknown { NO_API } else { NO_END });
        }
        let has_finished =
            self.choices.as_ref().is_some_and(|all| !all.is_empty() && all.iter().all(says_why));
        if !(self.is_over || has_finished) {
            return Err(NO_END);
        }
        if self.members.raw("object") == Some("\"chat.completion.chunk\"") {
            self.members.set("object", "\"chat.completion\"", &mut self.room)?;
        }
        for block in self.blocks.iter_mut().flatten() {
            end_block(block, &mut self.room)?;
        }
        Ok(self.written(size))
    }

    fn written(self, size: usize) -> Vec<u8> {
        // The document is about as large as the events.
        let mut out = Vec::with_capacity(size);
        out.push(b'{');
        if let Some(choices) = self.choices {
            write_list("choices", choices.into_iter().map(|(_, choice)| choice), &mut out);
        }
        if let Some(blocks) = self.blocks {
            write_list("content", blocks.into_iter(), &mut out);
        }
        self.members.write_members(&mut out);
        out.push(b'}');
        out.shrink_to_fit();
        out
    }

    /// Whether an event is a chunk of a chat or text completion. Later chunks may have only usage.
    fn is_chunk(&self, kind: &str, event: &str) -> Fit<bool> {
        if !event.starts_with('{') {
            return if is_json(event) { Ok(false) } else { Err(NOT_JSON) };
        }
        let choices = member(event, "choices")?;
        Ok(choices.is_some_and(|choices| choices.starts_with('['))
            || (self.choices.is_some() && kind.is_empty()))
    }

    fn add_chunk(&mut self, chunk: &str) -> Fit<()> {
        let Self { members, choices, room, .. } = self;
        let choices = choices.get_or_insert_with(Vec::new);
        each_member(chunk, &mut |name, value| {
            if name != "choices" {
                return members.set(name, value, room);
            }
            if value == "null" {
                return Ok(());
            }
            let mut position = 0;
            each_item(value, &mut |choice| {
                position += 1;
                add_choice(choices, index_of(choice).unwrap_or(position - 1), choice, room)
            })
        })
    }

    fn start_message(&mut self, message: &str) -> Fit<()> {
        let Self { members, room, .. } = self;
        *members = Object::default();
        let blocks = self.blocks.insert(Vec::new());
        each_member(message, &mut |name, value| match name {
            "content" if value == "null" => Ok(()),
            "content" => each_item(value, &mut |block| add_block(blocks, block, room)),
            _ => members.set(name, value, room),
        })
    }

    fn start_block(&mut self, event: &str) -> Fit<()> {
        let blocks = self.blocks.as_mut().ok_or(NO_END)?;
        if index_of(event) != Some(blocks.len() as u64) {
            return Err(TOO_MANY);
        }
        add_block(blocks, member(event, "content_block")?.ok_or(NOT_JSON)?, &mut self.room)
    }

    fn extend_block(&mut self, event: &str) -> Fit<()> {
        let at = index_of(event).and_then(|index| usize::try_from(index).ok()).ok_or(NO_END)?;
        let block = self.blocks.as_mut().and_then(|blocks| blocks.get_mut(at)).ok_or(NO_END)?;
        let room = &mut self.room;
        each_member(member(event, "delta")?.ok_or(NOT_JSON)?, &mut |name, value| match name {
            "type" => Ok(()),
            "citation" => block.add("citations", &["[", value, "]"].concat(), room),
            _ => block.add(name, value, room),
        })
    }

    fn extend_message(&mut self, event: &str) -> Fit<()> {
        let Self { members, room, .. } = self;
        each_member(event, &mut |name, value| match name {
            "type" => Ok(()),
            "delta" if value.starts_with('{') => {
                each_member(value, &mut |name, value| members.set(name, value, room))
            }
            "usage" if value.starts_with('{') => {
                let usage = members.object("usage", room)?;
                each_member(value, &mut |name, value| usage.set(name, value, room))
            }
            "delta" | "usage" => Ok(()),
            _ => members.set(name, value, room),
        })
    }
}

/// Adds a choice to the one of its index.
fn add_choice(choices: &mut Vec<(u64, Object)>, index: u64, choice: &str, room: &mut Room) -> Fit<()> {
    let known = choices.iter().position(|(ours, _)| *ours == index);
    let at = known.unwrap_or(choices.len());
    if known.is_none() {
        if at == MAX_ASSEMBLED_ITEMS {
            return Err(TOO_MANY);
        }
        choices.push((index, Object::default()));
    }
    let ours = &mut choices[at].1;
    each_member(choice, &mut |name, value| match name {
        "delta" => ours.add("message", value, room),
        // Other texts beside the delta are repeated, not continued.
        _ if name != "text" && value.starts_with('"') => ours.set(name, value, room),
        _ => ours.add(name, value, room),
    })
}

fn says_why((_, choice): &(u64, Object)) -> bool {
    choice.raw("finish_reason").is_some_and(|why| why.starts_with('"') && why != "\"\"")
}

fn add_block(blocks: &mut Vec<Object>, block: &str, room: &mut Room) -> Fit<()> {
    if blocks.len() == MAX_ASSEMBLED_ITEMS {
        return Err(TOO_MANY);
    }
    blocks.push(Object::of(block, room)?);
    Ok(())
}

/// The member in which the input of a tool use arrives in parts.
const PARTIAL: &str = "partial_json";

/// Joins the parts of a tool use's input. Where the model had to stop within it, it is no JSON; the API itself leaves it empty then.
fn end_block(block: &mut Object, room: &mut Room) -> Fit<()> {
    let Some(partial) = block.take(PARTIAL) else { return Ok(()) };
    let input = partial.into_text();
    if !is_json(&input) {
        return block.set("input", "{}", room);
    }
    block.take("input");
    block.set("input", &input, room)
}

fn write_list(name: &str, items: impl Iterator<Item = Object>, out: &mut Vec<u8>) {
    write_name(name, out);
    let mut lead = &b"["[..];
    for item in items {
        out.extend_from_slice(lead);
        item.write(out);
        lead = b",";
    }
    out.extend_from_slice(if lead == b"[" { b"[]" } else { b"]" });
}

/// The data of an event as UTF-8. Other bytes become lone surrogates for [`crate::dialect::Joined`]: each may be a part of a
/// character that the next event completes.
fn utf8(data: Vec<u8>) -> Fit<Vec<u8>> {
    if std::str::from_utf8(&data).is_ok() {
        return Ok(data);
    }
    let cut: usize = data.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    if cut > MAX_ASSEMBLED_CUT {
        return Err(NOT_JSON);
    }
    let mut text = String::with_capacity(data.len() + cut * "\\udc80".len());
    for chunk in data.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into memory does not fail.
            let _ = write!(text, "\\udc{byte:02x}");
        }
    }
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Unassembled, assemble};
    use crate::limits::{
        MAX_ASSEMBLED_CUT, MAX_ASSEMBLED_DEPTH, MAX_ASSEMBLED_ITEMS, MAX_ASSEMBLED_NODES, MAX_DEPTH,
    };

    fn stream(events: &[Value]) -> String {
        events.iter().map(|event| format!("data: {event}\n\n")).collect()
    }

    fn document(stream: &str) -> Value {
        let bytes = assemble(stream.as_bytes()).expect("a document");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn chunk(delta: &Value, finish: Option<&str>) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [
            {"index": 0, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn chat_chunks_become_a_completion() {
        let call = |index: u64, id: &str, name: &str, arguments: &str| {
            json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": arguments}}]})
        };
        let events = stream(&[
            chunk(&json!({"role": "assistant", "content": ""}), None),
            chunk(&json!({"reasoning_content": "hm"}), None),
            chunk(&json!({"role": "assistant", "content": "a"}), None),
            chunk(&json!({"content": "b"}), None),
            chunk(&call(0, "c0", "f", "{\"x\":"), None),
            chunk(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}), None),
            // Some repeat id and name.
            chunk(&call(1, "c1", "g", "{"), None),
            chunk(&call(1, "c1", "g", "}"), None),
            // Some begin with empty arguments.
            chunk(&call(2, "c2", "h", "{}"), None),
            chunk(&call(2, "c2", "h", ""), None),
            chunk(&call(2, "c2", "h", "{\"y\":2}"), None),
            chunk(&json!({}), Some("tool_calls")),
            json!({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 3}}),
        ]);
        let expected = json!({"id": "c", "object": "chat.completion", "model": "m",
            "usage": {"prompt_tokens": 3},
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "ab", "reasoning_content": "hm", "tool_calls": [
                    {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    {"index": 2, "id": "c2", "type": "function", "function": {"name": "h", "arguments": "{\"y\":2}"}}]}}]});
        assert_eq!(document(&events), expected, "closed behind its finish_reason");
        assert_eq!(document(&(": hi\n\n".to_owned() + &events + "data: [DONE]\n\n")), expected);
    }

    #[test]
    fn text_completion_choices_are_strung_together() {
        let part = |index: u64, text: &str, finish: Option<&str>| {
            json!({"id": "c", "object": "text_completion", "choices": [
                {"index": index, "text": text, "finish_reason": finish}]})
        };
        let events = [part(0, "a", None), part(1, "x", Some("stop")), part(0, "b", Some("length"))];
        let choices = json!([{"index": 0, "text": "ab", "finish_reason": "length"},
            {"index": 1, "text": "x", "finish_reason": "stop"}]);
        assert_eq!(document(&stream(&events))["choices"], choices);
    }

    #[test]
    fn response_is_the_one_of_its_terminal_event() {
        let made = json!({"id": "r", "status": "incomplete", "output": [{"type": "message"}], "error": null});
        let events = stream(&[
            json!({"type": "response.created", "response": {"id": "r", "status": "in_progress"}}),
            json!({"type": "response.output_text.delta", "delta": "a"}),
            json!({"type": "response.incomplete", "response": made}),
        ]);
        assert_eq!(document(&events), made);
    }

    #[test]
    fn message_is_made_of_its_blocks() {
        let delta =
            |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let start = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
        let events = stream(&[
            json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant",
                "content": [], "stop_reason": null, "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            start(0, json!({"type": "thinking", "thinking": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "s"})),
            stop(0),
            json!({"type": "ping"}),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "a"})),
            delta(1, json!({"type": "text_delta", "text": "b"})),
            delta(1, json!({"type": "citations_delta", "citation": {"n": 1}})),
            stop(1),
            start(2, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            stop(2),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ]);
        let expected = json!({"id": "m", "type": "message", "role": "assistant", "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 9}, "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "ab", "citations": [{"n": 1}]},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]});
        assert_eq!(document(&events), expected);
    }

    #[test]
    fn events_without_their_end_make_no_document() {
        let said = chunk(&json!({"content": "a"}), None);
        for events in [
            stream(std::slice::from_ref(&said)),
            stream(&[json!({"type": "response.created", "response": {"id": "r"}})]),
            stream(&[json!({"type": "message_start", "message": {"content": []}})]),
            "data: [DONE]\n\n".to_owned(),
            ": comment\n\n".to_owned(),
            stream(std::slice::from_ref(&said)) + "data: {\"cho",
            stream(&[json!({"type": "ping"})]),
        ] {
            assert!(matches!(assemble(events.as_bytes()), Err(Unassembled::Broken(_))), "{events}");
        }
        let image = stream(&[json!({"type": "image_generation.completed", "b64_json": "x"})]);
        assert_eq!(assemble(image.as_bytes()), Err(super::NO_API));
        let refused = stream(&[said, json!({"error": {"code": 429}})]);
        let refusal = assemble(refused.as_bytes());
        assert!(matches!(refusal, Err(Unassembled::Refused(refusal, _)) if refusal.status == 429));
    }

    #[test]
    fn items_of_a_list_are_bounded() {
        let calls = |count: usize| -> String {
            let call = |index| chunk(&json!({"tool_calls": [{"index": index}]}), None);
            let all: Vec<Value> = (0..count).map(call).chain([chunk(&json!({}), Some("stop"))]).collect();
            stream(&all)
        };
        assert!(assemble(calls(MAX_ASSEMBLED_ITEMS).as_bytes()).is_ok());
        assert_eq!(assemble(calls(MAX_ASSEMBLED_ITEMS + 1).as_bytes()), Err(super::TOO_MANY));
    }

    #[test]
    fn members_and_levels_that_are_put_together_are_bounded() {
        // A choice has its message and its finish_reason, and each name is a member.
        let named = |count: usize| {
            let names: String = (0..count).map(|name| format!(",\"a{name}\":1")).collect();
            let part = format!("data: {{\"choices\":[{{\"delta\":{{\"b\":1{names}}}}}]}}\n\n");
            part.repeat(2) + &stream(&[chunk(&json!({}), Some("stop"))])
        };
        // Of the chunk: id, object, model; of its choice: message, index, finish_reason; b.
        let most = MAX_ASSEMBLED_NODES - 7;
        assert!(assemble(named(most).as_bytes()).is_ok());
        assert_eq!(assemble(named(most + 1).as_bytes()), Err(super::TOO_MANY));
        let nested = |depth: usize| {
            let delta = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let part = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
            part.repeat(2) + &stream(&[chunk(&json!({}), Some("stop"))])
        };
        assert!(assemble(nested(MAX_ASSEMBLED_DEPTH).as_bytes()).is_ok());
        assert_eq!(assemble(nested(MAX_ASSEMBLED_DEPTH + 1).as_bytes()), Err(super::TOO_MANY));
        // A value without parts may be as deep as any document.
        let whole = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let part =
            format!("data: {{\"choices\":[{{\"delta\":{{\"a\":{whole}}},\"finish_reason\":\"stop\"}}]}}\n\n");
        let made = assemble(part.as_bytes()).expect("a document");
        assert!(String::from_utf8(made).expect("text").contains(&whole));
        let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        let part = format!("data: {{\"choices\":[{{\"finish_reason\":\"stop\"}}],\"a\":{deep}}}\n\n");
        assert_eq!(assemble(part.as_bytes()), Err(super::NOT_JSON));
    }

    #[test]
    fn characters_cut_between_parts_are_joined() {
        let part =
            |text: &[u8]| [b"data: {\"choices\":[{\"delta\":{\"content\":\"", text, b"\"}}]}\n\n"].concat();
        let end = stream(&[chunk(&json!({}), Some("stop"))]);
        let content = |parts: &[&[u8]]| {
            let mut all: Vec<u8> = parts.iter().flat_map(|text| part(text)).collect();
            all.extend_from_slice(end.as_bytes());
            let made = serde_json::from_slice::<Value>(&assemble(&all)?).expect("JSON");
            Ok(made["choices"][0]["message"]["content"].as_str().expect("text").to_owned())
        };
        for (parts, expected) in [
            (&[&b"a\\ud83d"[..], b"\\ude00b"][..], "a\u{1f600}b"),
            (&[b"a\xf0\x9f", b"\x98", b"\x80b"], "a\u{1f600}b"),
            (&[b"\xc3", b"\xa9\\n\\\"\\u00e9"], "\u{e9}\n\"\u{e9}"),
            // Halves without their other half.
            (&[b"\\ud83d", b"x"], "\u{fffd}x"),
            (&[b"\xf0\x9f", b"x"], "\u{fffd}x"),
        ] {
            assert_eq!(content(parts), Ok(expected.to_owned()), "{parts:?}");
        }
        let flood = vec![0xff; MAX_ASSEMBLED_CUT + 1];
        assert_eq!(content(&[&flood]), Err(super::NOT_JSON));
    }

    #[test]
    fn what_a_provider_says_is_kept_or_refused() {
        let delta = |delta: &str| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\",\"native_finish_reason\":\"end\"}]}\n\n";
        let message = |deltas: &[&str]| {
            let all: String =
                deltas.iter().map(|it| delta(it)).chain([end.to_owned(), end.to_owned()]).collect();
            let choices = &document(&(all + "data: {\"usage\":{\"total_tokens\":1}}\n\n"))["choices"];
            assert_eq!(
                choices.as_array().map(Vec::len),
                Some(1),
                "a choice without an index is the same one"
            );
            assert_eq!(choices[0]["native_finish_reason"], "end", "said twice");
            choices[0]["message"].clone()
        };
        for (deltas, expected) in [
            // Members that nobody knows yet.
            (&[r#"{"poem":"a"}"#, r#"{"poem":"b","n":1}"#, r#"{"n":2}"#][..], json!({"poem": "ab", "n": 2})),
            // Calls without an index come whole.
            (
                &[r#"{"tool_calls":[{"id":"a"}]}"#, r#"{"tool_calls":[{"id":"b"},{"id":"c"}]}"#],
                json!({"tool_calls": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
            ),
            (
                &[
                    r#"{"reasoning_details":[{"index":0,"format":"f","text":"a"}]}"#,
                    r#"{"reasoning_details":[{"index":0,"format":"f","text":"b"}]}"#,
                ],
                json!({"reasoning_details": [{"index": 0, "format": "f", "text": "ab"}]}),
            ),
            (
                &[
                    r#"{"content":null,"tool_calls":[]}"#,
                    r#"{"content":"a","tool_calls":[{"index":0}]}"#,
                    r#"{"content":null}"#,
                ],
                json!({"content": "a", "tool_calls": [{"index": 0}]}),
            ),
            // Numbers as they were written.
            (
                &[r#"{"n":1e2,"m":12345678901234567890123}"#],
                serde_json::from_str(r#"{"n":1e2,"m":12345678901234567890123}"#).expect("JSON"),
            ),
        ] {
            assert_eq!(message(deltas), expected, "{deltas:?}");
        }
        for (first, second) in [
            (r#"{"content":"a"}"#, r#"{"content":["b"]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":2}"#),
            (r#"{"a":[1]}"#, r#"{"a":"b"}"#),
        ] {
            let all = [&delta(first), &delta(second), end].concat();
            assert_eq!(assemble(all.as_bytes()), Err(super::AT_ODDS), "{first} {second}");
        }
        let nulls = "data: \"warm\"\n\ndata: {\"choices\":null,\"usage\":null}\n\n";
        assert_eq!(document(&[nulls, end, nulls].concat())["choices"].as_array().map(Vec::len), Some(1));
        let usage = document(&(end.to_owned() + "data: {\"usage\":{\"total_tokens\":1}}\n\n"));
        assert_eq!(usage["usage"], json!({"total_tokens": 1}), "usage beside no choices");
    }

    #[test]
    fn message_keeps_what_is_beside_its_blocks() {
        let events = [
            json!({"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 3, "service_tier": "standard"}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"x"}}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "new", "x": "a"}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "new_delta", "x": "b", "y": 1}}),
            json!({"type": "message_delta", "delta": null, "usage": null}),
            json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "context_management": {"z": 1},
                "usage": {"input_tokens": null, "output_tokens": 9, "service_tier": "standard"}}),
            json!({"type": "message_stop"}),
        ];
        let expected = json!({"content": [{"type": "tool_use", "input": {}}, {"type": "new", "x": "ab", "y": 1}],
            "stop_reason": "max_tokens", "context_management": {"z": 1},
            "usage": {"input_tokens": 3, "output_tokens": 9, "service_tier": "standard"}});
        assert_eq!(document(&stream(&events)), expected);
    }
}
