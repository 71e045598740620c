//! A document from the events of an unrequested stream: some providers stream every response.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::opening::{Event, Opening, events};
use super::refusal::Refusal;
use super::terminal::type_of;
use crate::limits::{MAX_ASSEMBLED_ITEMS, MAX_ASSEMBLED_VALUES};

/// Why events make no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unassembled {
    /// One of them tells of an error; the document that tells of it.
    Refused(Refusal, Vec<u8>),
    /// They lack their end; what is wrong.
    Broken(&'static str),
    /// They belong to no API that is known, or are more than is put together; what is wrong.
    Unknown(&'static str),
}

const NOT_JSON: Unassembled = Unassembled::Broken("an event that is not JSON");
const NO_END: Unassembled = Unassembled::Broken("events without their end");
const TOO_MANY: Unassembled = Unassembled::Unknown("too many items in events");
const NO_API: Unassembled = Unassembled::Unknown("events of no known API");

/// The document that these events are the stream of: a chat or text completion, a response, or a message.
///
/// # Errors
/// Why there is none.
pub fn assemble(stream: &[u8]) -> Result<Vec<u8>, Unassembled> {
    let mut document = Document::default();
    for event in events(stream) {
        document.take(&event)?;
    }
    document.end()
}

/// What the events have said so far.
#[derive(Default)]
struct Document {
    value: Map<String, Value>,
    /// The response that its terminal event holds, as it is.
    response: Option<Vec<u8>>,
    /// JSON values in the events so far: a value takes many times the bytes that write it.
    values: usize,
    /// `[DONE]`, or the terminal event.
    is_over: bool,
    /// There are events of an API that is not known.
    is_unknown: bool,
}

impl Document {
    fn take(&mut self, event: &Event<'_>) -> Result<(), Unassembled> {
        if event.data.is_empty() {
            return Ok(());
        }
        if event.data == b"[DONE]" {
            self.is_over = true;
            return Ok(());
        }
        let kind = type_of(&event.data).unwrap_or_else(|| String::from_utf8_lossy(event.name));
        if let "response.completed" | "response.incomplete" = &*kind {
            let data: Terminal<'_> = serde_json::from_slice(&event.data).map_err(|_| NOT_JSON)?;
            self.response = Some(data.response.get().as_bytes().to_vec());
            return Ok(());
        }
        self.values += event.data.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        if self.values > MAX_ASSEMBLED_VALUES {
            return Err(TOO_MANY);
        }
        let mut data: Value = serde_json::from_slice(&event.data).map_err(|_| NOT_JSON)?;
        if let Opening::Refusal(refusal, document) = Opening::of_event(event) {
            return Err(Unassembled::Refused(refusal, document));
        }
        match &*kind {
            "message_start" => self.value = object(data["message"].take()),
            "content_block_start" => self.start_block(&data["index"], data["content_block"].clone())?,
            "content_block_delta" => self.extend_block(&data)?,
            "content_block_stop" => self.stop_block(&data["index"]),
            "message_delta" => {
                merge(&mut self.value, object(data["delta"].take()));
                let usage = self.value.entry("usage").or_insert_with(|| json!({}));
                if let Value::Object(usage) = usage {
                    merge(usage, object(data["usage"].take()));
                }
            }
            "message_stop" => self.is_over = true,
            _ if data["choices"].is_array() => self.add_chunk(data)?,
            _ => self.is_unknown |= kind != "ping" && !kind.starts_with("response."),
        }
        Ok(())
    }

    fn end(mut self) -> Result<Vec<u8>, Unassembled> {
        if let Some(response) = self.response {
            return Ok(response);
        }
        let is_finished =
            |choice: &Value| choice["finish_reason"].as_str().is_some_and(|why| !why.is_empty());
        let choices = self.value.get("choices").and_then(Value::as_array);
        let has_finished = choices.is_some_and(|all| !all.is_empty() && all.iter().all(is_finished));
        if self.value.is_empty() && self.is_unknown {
            return Err(NO_API);
        }
        if self.value.is_empty() || !(self.is_over || has_finished) {
            return Err(NO_END);
        }
        if let Some(object) = self.value.get_mut("object").filter(|object| *object == "chat.completion.chunk")
        {
            *object = json!("chat.completion");
        }
        serde_json::to_vec(&self.value).map_err(|_| NOT_JSON)
    }

    /// Adds a chunk of a chat or text completion.
    fn add_chunk(&mut self, mut chunk: Value) -> Result<(), Unassembled> {
        let choices = match chunk["choices"].take() {
            Value::Array(choices) => choices,
            _ => Vec::new(),
        };
        let mut rest = object(chunk);
        rest.remove("choices");
        let ours = self.value.entry("choices").or_insert_with(|| json!([]));
        for choice in choices {
            let mut choice = object(choice);
            if let Some(delta) = choice.remove("delta") {
                choice.insert("message".to_owned(), delta);
            }
            add_to_list(ours, Value::Object(choice))?;
        }
        merge(&mut self.value, rest);
        Ok(())
    }

    fn blocks(&mut self) -> Option<&mut Vec<Value>> {
        self.value.get_mut("content").and_then(Value::as_array_mut)
    }

    fn block(&mut self, index: &Value) -> Option<&mut Map<String, Value>> {
        let at = usize::try_from(index.as_u64()?).ok()?;
        self.blocks()?.get_mut(at)?.as_object_mut()
    }

    fn start_block(&mut self, index: &Value, block: Value) -> Result<(), Unassembled> {
        let blocks = self.blocks().ok_or(NO_END)?;
        let is_next = index.as_u64() == Some(blocks.len() as u64);
        if !is_next || blocks.len() == MAX_ASSEMBLED_ITEMS {
            return Err(TOO_MANY);
        }
        blocks.push(block);
        Ok(())
    }

    fn extend_block(&mut self, event: &Value) -> Result<(), Unassembled> {
        let block = self.block(&event["index"]).ok_or(NO_END)?;
        let delta = &event["delta"];
        let (from, to) = match delta["type"].as_str() {
            Some("text_delta") => ("text", "text"),
            Some("thinking_delta") => ("thinking", "thinking"),
            Some("signature_delta") => ("signature", "signature"),
            // It is JSON in pieces until the block ends.
            Some("input_json_delta") => ("partial_json", PARTIAL),
            Some("citations_delta") => {
                let citations = block.entry("citations").or_insert_with(|| json!([]));
                if !citations.is_array() {
                    *citations = json!([]);
                }
                if let Value::Array(all) = citations {
                    all.push(delta["citation"].clone());
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        append(block, to, &delta[from]);
        Ok(())
    }

    fn stop_block(&mut self, index: &Value) {
        let Some(block) = self.block(index) else { return };
        if let Some(Value::String(input)) = block.remove(PARTIAL) {
            block.insert("input".to_owned(), serde_json::from_str(&input).unwrap_or_else(|_| json!({})));
        }
    }
}

/// The terminal event of a response.
#[derive(Deserialize)]
struct Terminal<'a> {
    #[serde(borrow)]
    response: &'a RawValue,
}

/// Where the input of a tool use is gathered.
const PARTIAL: &str = "partial_json";

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Members that say the same in each chunk, or say it once: not to be strung together.
const ONCE: [&str; 9] =
    ["id", "type", "role", "name", "index", "object", "model", "finish_reason", "system_fingerprint"];

/// Takes over members, the later ones in place of the earlier, but for nothing.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, value) in from {
        if !value.is_null() || !into.contains_key(&name) {
            into.insert(name, value);
        }
    }
}

/// Adds a delta to what there is: text after text, items to lists.
fn add(into: &mut Map<String, Value>, from: Map<String, Value>) -> Result<(), Unassembled> {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more)) if !ONCE.contains(&&*name) => {
                // Some begin a call with empty arguments, and send the real ones after them.
                if name == "arguments" && text == "{}" && !more.is_empty() {
                    text.clear();
                }
                text.push_str(&more);
            }
            (Some(Value::Object(ours)), Value::Object(more)) => add(ours, more)?,
            (Some(list @ Value::Array(_)), Value::Array(more)) => {
                for item in more {
                    add_to_list(list, item)?;
                }
            }
            // An empty list of the first chunk may grow as well.
            (None | Some(Value::Null), Value::Array(items)) => {
                let mut list = json!([]);
                for item in items {
                    add_to_list(&mut list, item)?;
                }
                into.insert(name, list);
            }
            (Some(ours), value) => {
                let is_nothing = value.is_null() || value.as_str().is_some_and(str::is_empty);
                if !is_nothing {
                    *ours = value;
                }
            }
            (None, value) => {
                into.insert(name, value);
            }
        }
    }
    Ok(())
}

/// Adds an item to the one of its `index`, else to the end.
fn add_to_list(list: &mut Value, item: Value) -> Result<(), Unassembled> {
    let Value::Array(items) = list else { return Ok(()) };
    let Some(index) = item["index"].as_u64() else {
        items.push(item);
        return Ok(());
    };
    let is_full = items.len() >= MAX_ASSEMBLED_ITEMS;
    let same = items.iter_mut().find(|ours| ours["index"].as_u64() == Some(index));
    match same.and_then(Value::as_object_mut) {
        Some(ours) => add(ours, object(item)),
        None if is_full => Err(TOO_MANY),
        None => {
            // Its lists are made as those of later chunks are.
            let mut ours = Map::new();
            add(&mut ours, object(item))?;
            items.push(Value::Object(ours));
            Ok(())
        }
    }
}

fn append(block: &mut Map<String, Value>, name: &str, more: &Value) {
    let Some(more) = more.as_str() else { return };
    match block.get_mut(name) {
        Some(Value::String(text)) => text.push_str(more),
        _ => drop(block.insert(name.to_owned(), json!(more))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Unassembled, assemble};
    use crate::limits::{MAX_ASSEMBLED_ITEMS, MAX_ASSEMBLED_VALUES};

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
        let dense = format!("data: {{\"choices\":[],\"x\":[{}0]}}\n\n", "0,".repeat(MAX_ASSEMBLED_VALUES));
        assert_eq!(assemble(dense.as_bytes()), Err(super::TOO_MANY));
    }
}
