//! The events of a streamed response of the Messages API.

use std::collections::BTreeMap;

use serde::Serialize;

use super::usage::Usage;
use crate::dialect::output::Output;

/// But for the deltas, which [`super::writer`] writes itself.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    MessageStart { message: Beginning<'a> },
    ContentBlockStart { index: usize, content_block: Start<'a> },
    ContentBlockStop { index: usize },
    MessageDelta { delta: Stop<'a>, usage: Usage },
    MessageStop,
}

/// An empty message.
#[derive(Serialize)]
pub(super) struct Beginning<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: [(); 0],
    stop_reason: Option<&'a str>,
    stop_sequence: Option<&'a str>,
    usage: Usage,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Start<'a> {
    Thinking {
        thinking: &'static str,
        signature: &'static str,
    },
    Text {
        text: &'static str,
    },
    /// The input is always empty here: it follows in deltas.
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: BTreeMap<(), ()>,
    },
}

#[derive(Serialize)]
pub(super) struct Stop<'a> {
    stop_reason: &'a str,
    stop_sequence: Option<&'a str>,
}

impl<'a> Beginning<'a> {
    pub(super) fn new(id: &'a str, model: &'a str, usage: Usage) -> Self {
        let (kind, role) = ("message", "assistant");
        Self { id, kind, role, model, content: [], stop_reason: None, stop_sequence: None, usage }
    }
}

impl<'a> Stop<'a> {
    pub(super) fn new(stop_reason: &'a str) -> Self {
        Self { stop_reason, stop_sequence: None }
    }
}

impl Event<'_> {
    /// Adds the event in its wire form.
    pub(super) fn write(&self, out: &mut Output) {
        let name = match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        };
        out.write(&["event: ", name, "\ndata: "]);
        // An event always serializes, and an overrun is remembered.
        let _ = serde_json::to_writer(&mut *out, self);
        out.write(&["\n\n"]);
    }
}
