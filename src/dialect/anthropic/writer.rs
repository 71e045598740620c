//! The events of a streamed message of the Messages API.

use std::collections::BTreeMap;

use super::error;
use super::event::{Beginning, Event, Start, Stop};
use super::usage::Usage;
use crate::dialect::block::{Block, Kind, Tool};
use crate::dialect::chat_request::Attached;
use crate::dialect::escapes::escaped_length;
use crate::dialect::finish::Finish;
use crate::dialect::output::Output;
use crate::dialect::stream::Translator;
use crate::dialect::unfit::Unfit;
use crate::dialect::usage::ChatUsage;
use crate::dialect::writer::{Rules, Writer};

/// A refusal is text with its own stop reason.
pub(super) const RULES: Rules = Rules { has_refusals: false, has_annotations: false, keeps_text: false };

/// A call's input is an object.
pub(super) const NO_OBJECT: Unfit = Unfit::Malformed("a tool call's arguments are no JSON object");

/// Bytes of an event besides its text.
const ROOM: usize = 192;

/// Turns a streamed chat completion into the events of a message, for a client that asked for `model`; `id` is the request's.
/// At most `limit` bytes of the message are held.
pub fn translator(model: &str, id: &str, limit: usize) -> Translator {
    Translator::new(Box::new(Message { model: model.to_owned(), request_id: id.to_owned() }), id, limit)
}

/// Writes one message.
#[derive(Debug)]
struct Message {
    /// The model that the client asked for.
    model: String,
    request_id: String,
}

impl Writer for Message {
    fn rules(&self) -> Rules {
        RULES
    }

    fn begin(&mut self, id: &str, out: &mut Output) {
        // The prompt's tokens are known only at the end; the last event but one has them.
        let usage = Usage::from(ChatUsage::default());
        Event::MessageStart { message: Beginning::new(id, &self.model, usage) }.write(out);
    }

    fn open(&mut self, index: usize, block: &Block, out: &mut Output) {
        let names = block.call().map_or(0, |tool| escaped_length(&tool.id) + escaped_length(&tool.name));
        out.reserve(names + ROOM);
        let content_block = match &block.kind {
            Kind::Text | Kind::Refusal => Start::Text { text: "" },
            Kind::Thinking => Start::Thinking { thinking: "", signature: "" },
            Kind::Tool(Tool { id, name, .. }) => Start::ToolUse { id, name, input: BTreeMap::new() },
        };
        Event::ContentBlockStart { index, content_block }.write(out);
    }

    fn delta(&mut self, index: usize, block: &Block, new: &str, out: &mut Output) {
        let delta = match &block.kind {
            Kind::Text | Kind::Refusal => ",\"delta\":{\"type\":\"text_delta\",\"text\":",
            Kind::Thinking => ",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":",
            Kind::Tool(_) => ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":",
        };
        out.reserve(escaped_length(new) + ROOM);
        // The event that most of a stream consists of: written member by member it would cost several times as much.
        out.write(&["event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":"]);
        out.number(index as u64);
        out.write(&[delta]);
        out.string(new);
        out.write(&["}}\n\n"]);
    }

    fn close(&mut self, index: usize, block: &Block, may_lack: bool, out: &mut Output) -> Result<(), Unfit> {
        if block.call().is_some() && !may_lack && !is_object(block.text.text()) {
            return Err(NO_OBJECT);
        }
        Event::ContentBlockStop { index }.write(out);
        Ok(())
    }

    fn end(&mut self, finish: &Finish<'_>, usage: Option<ChatUsage>, out: &mut Output) {
        let usage = Usage::from(usage.unwrap_or_default());
        Event::MessageDelta { delta: Stop::new(stop_reason(finish)), usage }.write(out);
        Event::MessageStop.write(out);
    }

    fn fail(&mut self, status: u16, document: &[u8], out: &mut Output) {
        out.add(&error::event(&error::translate(status, document, &self.request_id, Attached::default())));
    }

    fn held(&self, open: usize) -> usize {
        open
    }
}

/// The stop reason. A word without a counterpart passes unchanged.
pub(super) fn stop_reason<'a>(finish: &Finish<'a>) -> &'a str {
    match finish {
        Finish::Calls => "tool_use",
        Finish::Filtered | Finish::Refused => "refusal",
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Other(word) => word,
    }
}

/// Whether arguments are a JSON object; empty ones count as an empty object.
pub(super) fn is_object(arguments: &str) -> bool {
    let text = arguments.trim_ascii();
    text.is_empty() || text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
