//! An output item of a response: one block of the message.

use super::context::{Tool, Translation};
use crate::dialect::block::{Block, Kind};
use crate::dialect::output::{Output, Separated};

/// A block in the form of the Responses API.
pub(super) enum Item<'a> {
    Reasoning,
    /// With its annotations.
    Text(&'a [String]),
    Refusal,
    /// `tool`: the client's tool, if it differs from the function.
    Call {
        id: &'a str,
        name: &'a str,
        tool: Option<&'a Tool>,
    },
}

/// Position of an item, for its id.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Common part of the ids of a response's items.
    pub(super) tag: &'a str,
    pub(super) index: usize,
}

impl<'a> Item<'a> {
    pub(super) fn of(block: &'a Block, request: &'a Translation) -> Self {
        match &block.kind {
            Kind::Thinking => Self::Reasoning,
            Kind::Text => Self::Text(&block.annotations),
            Kind::Refusal => Self::Refusal,
            Kind::Tool(tool) => Self::Call { id: &tool.id, name: &tool.name, tool: request.tool(&tool.name) },
        }
    }

    /// Whether it is the call of a free-form tool.
    pub(super) fn is_custom(&self) -> bool {
        matches!(self, Self::Call { tool: Some(tool), .. } if tool.is_custom)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Reasoning => "reasoning",
            Self::Text(_) | Self::Refusal => "message",
            Self::Call { .. } if self.is_custom() => "custom_tool_call",
            Self::Call { .. } => "function_call",
        }
    }

    /// Beginning of its id.
    fn prefix(&self) -> &'static str {
        match self {
            Self::Reasoning => "rs",
            Self::Text(_) | Self::Refusal => "msg",
            Self::Call { .. } if self.is_custom() => "ctc",
            Self::Call { .. } => "fc",
        }
    }

    /// Type of its one part; a call has none.
    pub(super) fn part(&self) -> Option<&'static str> {
        match self {
            Self::Reasoning => Some("reasoning_text"),
            Self::Text(_) => Some("output_text"),
            Self::Refusal => Some("refusal"),
            Self::Call { .. } => None,
        }
    }

    /// Member of its text.
    fn text_member(&self) -> &'static str {
        match self {
            Self::Reasoning | Self::Text(_) => "text",
            Self::Refusal => "refusal",
            Self::Call { .. } if self.is_custom() => "input",
            Self::Call { .. } => "arguments",
        }
    }

    /// Event type for the new part of its text.
    pub(super) fn delta_event(&self) -> &'static str {
        match self {
            Self::Reasoning => "response.reasoning_text.delta",
            Self::Text(_) => "response.output_text.delta",
            Self::Refusal => "response.refusal.delta",
            Self::Call { .. } if self.is_custom() => "response.custom_tool_call_input.delta",
            Self::Call { .. } => "response.function_call_arguments.delta",
        }
    }

    /// Event type for its complete text.
    pub(super) fn done_event(&self) -> &'static str {
        match self {
            Self::Reasoning => "response.reasoning_text.done",
            Self::Text(_) => "response.output_text.done",
            Self::Refusal => "response.refusal.done",
            Self::Call { .. } if self.is_custom() => "response.custom_tool_call_input.done",
            Self::Call { .. } => "response.function_call_arguments.done",
        }
    }

    pub(super) fn write_id(&self, place: Place<'_>, out: &mut Output) {
        out.write(&["\"", self.prefix(), "_", place.tag, "_"]);
        out.number(place.index as u64);
        out.write(&["\""]);
    }

    /// Writes its text.
    pub(super) fn write_text(&self, text: &str, out: &mut Output) {
        out.write(&[",\"", self.text_member(), "\":"]);
        out.string(text);
        self.end_text(out);
    }

    /// Writes the members that follow a text.
    pub(super) fn end_text(&self, out: &mut Output) {
        // SDKs require it.
        out.write(if matches!(self, Self::Text(_)) { &[",\"logprobs\":[]"] } else { &[] });
    }

    pub(super) fn write_part(&self, text: &str, out: &mut Output) {
        out.write(&["{\"type\":\"", self.part().unwrap_or_default(), "\""]);
        self.write_text(text, out);
        if let Self::Text(annotations) = self {
            let mut list = Separated::default();
            out.write(&[",\"annotations\":["]);
            // A part has none at its beginning.
            for annotation in annotations.iter().filter(|_| !text.is_empty()) {
                list.next(out);
                out.write(&[annotation]);
            }
            out.write(&["]"]);
        }
        out.write(&["}"]);
    }

    /// Writes the item; `text` is its complete text, `None`: none has arrived.
    pub(super) fn write(&self, place: Place<'_>, status: &str, text: Option<&str>, out: &mut Output) {
        out.write(&["{\"id\":"]);
        self.write_id(place, out);
        out.write(&[",\"type\":\"", self.kind(), "\",\"status\":\"", status, "\""]);
        match self {
            Self::Call { id, name, tool } => {
                out.write(&[",\"call_id\":"]);
                out.string(id);
                out.write(&[",\"name\":"]);
                out.string(tool.map_or(name, |tool| &tool.name));
                if let Some(namespace) = tool.and_then(|tool| tool.namespace.as_deref()) {
                    out.write(&[",\"namespace\":"]);
                    out.string(namespace);
                }
                self.write_text(text.unwrap_or_default(), out);
            }
            Self::Reasoning | Self::Text(_) | Self::Refusal => {
                let is_thought = matches!(self, Self::Reasoning);
                out.write(&[if is_thought { ",\"summary\":[]" } else { ",\"role\":\"assistant\"" }]);
                out.write(&[",\"content\":["]);
                if let Some(text) = text {
                    self.write_part(text, out);
                }
                out.write(&["]"]);
            }
        }
        out.write(&["}"]);
    }
}
