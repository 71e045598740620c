//! Turns a document into events, where a heartbeat has promised the client a stream.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{elements, members};
use crate::limits::MAX_TOOL_CALLS;

/// A finished response of the Responses API as the terminal event of its stream; `None`: the document is no such
/// response.
pub fn response(document: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        object: Cow<'a, str>,
        #[serde(borrow)]
        status: Cow<'a, str>,
    }
    let Response { object, status } = serde_json::from_slice(document).ok()?;
    let kind = match &*status {
        "completed" => "response.completed",
        "incomplete" => "response.incomplete",
        "failed" => "response.failed",
        _ => return None,
    };
    let start = format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":0,\"response\":");
    (object == "response")
        .then(|| start.into_bytes().into_iter().chain(single_line(document)).chain(*b"}\n\n").collect())
}

/// A chat or text completion as one chunk and `[DONE]`; `None`: the document is no completion, or has more than [`MAX_TOOL_CALLS`]
/// tool calls.
pub fn completion(document: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = Chunk { out: b"data: ".to_vec(), has_choices: false, is_bad: false, calls: 0 };
    chunk.document(std::str::from_utf8(document).ok()?);
    chunk.out.extend(b"\n\ndata: [DONE]\n\n");
    (chunk.has_choices && !chunk.is_bad).then_some(chunk.out)
}

/// A JSON document without line ends, which would split an event.
pub fn single_line(document: &[u8]) -> impl Iterator<Item = u8> {
    document.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n'))
}

/// Rewrites a completion's document as a chunk: members that are not named here stay unchanged.
struct Chunk {
    out: Vec<u8>,
    has_choices: bool,
    is_bad: bool,
    calls: usize,
}

impl Chunk {
    fn document(&mut self, document: &str) {
        self.object(document, &|chunk, name, value| match (name, value.get()) {
            ("object", "\"chat.completion\"") => chunk.out.extend(b"\"object\":\"chat.completion.chunk\""),
            ("choices", choices) => {
                chunk.has_choices = true;
                chunk.out.extend(b"\"choices\":");
                chunk.array(choices, &|chunk, _, choice| chunk.choice(choice));
            }
            _ => chunk.member(name, value),
        });
    }

    fn choice(&mut self, choice: &RawValue) {
        self.object(choice.get(), &|chunk, name, value| match name {
            "message" => {
                chunk.out.extend(b"\"delta\":");
                chunk.delta(value);
            }
            _ => chunk.member(name, value),
        });
    }

    fn delta(&mut self, message: &RawValue) {
        self.object(message.get(), &|chunk, name, value| match (name, value.get()) {
            ("tool_calls", calls) if calls.starts_with('[') => {
                chunk.out.extend(b"\"tool_calls\":");
                chunk.array(calls, &Self::tool_call);
            }
            _ => chunk.member(name, value),
        });
    }

    /// A call in a chunk has its `index` in the message, by which clients join its pieces.
    fn tool_call(&mut self, place: usize, call: &RawValue) {
        self.calls += 1;
        self.is_bad |= self.calls > MAX_TOOL_CALLS;
        if self.is_bad {
            return;
        }
        let mut has_place = false;
        self.object(call.get(), &|chunk, name, value| chunk.member(name, value));
        self.is_bad |= members(call.get(), |name, _| has_place |= name == "index").is_err();
        if !has_place && self.out.pop().is_some() {
            let comma = if self.out.ends_with(b"{") { "" } else { "," };
            self.out.extend(format!("{comma}\"index\":{place}}}").as_bytes());
        }
    }

    fn member(&mut self, name: &str, value: &RawValue) {
        // A string that was read can be written.
        self.out.extend(serde_json::to_vec(name).unwrap_or_default());
        self.out.push(b':');
        self.out.extend(single_line(value.get().as_bytes()));
    }

    /// Writes an object, each of whose members `write` writes.
    fn object(&mut self, object: &str, write: &dyn Fn(&mut Self, &str, &RawValue)) {
        let mut lead = b'{';
        let read = members(object, |name, value| {
            self.out.push(lead);
            lead = b',';
            write(self, name, value);
        });
        self.is_bad |= read.is_err();
        self.out.extend(if lead == b'{' { &b"{}"[..] } else { b"}" });
    }

    /// Writes an array, each of whose elements `write` writes.
    fn array(&mut self, array: &str, write: &dyn Fn(&mut Self, usize, &RawValue)) {
        let mut count = 0;
        self.out.push(b'[');
        let read = elements(array, |element| {
            if count > 0 {
                self.out.push(b',');
            }
            write(self, count, element);
            count += 1;
        });
        self.is_bad |= read.is_err();
        self.out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::completion;
    use crate::limits::MAX_TOOL_CALLS;

    fn chunk(document: &str) -> Option<String> {
        let events = String::from_utf8(completion(document.as_bytes())?).expect("text");
        let data = events.strip_prefix("data: ").and_then(|it| it.strip_suffix("\n\ndata: [DONE]\n\n"));
        Some(data.expect("one event and the end").to_owned())
    }

    #[test]
    fn completion_becomes_a_chunk_that_says_the_same() {
        for (document, expected) in [
            (
                "{\"id\":\"c\",\n \"object\": \"chat.completion\",\r\n\"choices\":[{\"index\":0, \"message\":{\"role\":\"assistant\",\"content\":\"a\\nb\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1.50}}",
                r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"a\nb"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1.50}}"#,
            ),
            (
                r#"{"choices":[{"message":{"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}},{},{"index":7}]}},{"message":{"tool_calls":[{"id":"y"}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"},"index":0},{"index":1},{"index":7}]}},{"delta":{"tool_calls":[{"id":"y","index":0}]}}]}"#,
            ),
            (
                r#"{"object":"text_completion","choices":[{"text":"a","index":0}]}"#,
                r#"{"object":"text_completion","choices":[{"text":"a","index":0}]}"#,
            ),
            (
                r#"{"choices":[{"message":{"tool_calls":[{}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            ),
            (r#"{"choices":[],"x":{"message":{}}}"#, r#"{"choices":[],"x":{"message":{}}}"#),
        ] {
            assert_eq!(chunk(document).as_deref(), Some(expected));
        }
    }

    #[test]
    fn document_that_is_no_completion_becomes_no_chunk() {
        for document in [
            "",
            "[]",
            r#"{"data":[]}"#,
            r#"{"choices":{}}"#,
            r#"{"choices":[1]}"#,
            r#"{"choices":[1],"choices":[]}"#,
            r#"{"choices":[{"message":"a"}]}"#,
            r#"{"choices":[{"message":{"tool_calls":[1]}}]}"#,
            r#"{"choices":[{"message":{}}]"#,
        ] {
            assert_eq!(chunk(document), None, "{document}");
        }
        let many = |count| {
            let calls = vec!["{}"; count].join(",");
            chunk(&format!("{{\"choices\":[{{\"message\":{{\"tool_calls\":[{calls}]}}}}]}}"))
        };
        assert_eq!([MAX_TOOL_CALLS, MAX_TOOL_CALLS + 1].map(|count| many(count).is_some()), [true, false]);
    }
}
