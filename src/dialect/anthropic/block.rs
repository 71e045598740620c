//! A block of a message while it comes.

use std::collections::BTreeMap;

use super::event::{Delta, Event, Start};
use crate::dialect::escapes::escaped_length;
use crate::dialect::joined::Joined;
use crate::dialect::output::Output;

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Its start was sent.
    open: bool,
    /// Text: what was not sent yet. Arguments: all of them.
    pub(super) text: Joined,
    /// So much of it was sent.
    sent: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Thinking,
    Tool(Tool),
}

#[derive(Debug)]
pub(super) struct Tool {
    pub(super) index: Option<u64>,
    pub(super) id: String,
    pub(super) name: String,
    braces: Braces,
}

/// Follows the arguments of a call to the brace that closes them.
#[derive(Debug, Default)]
struct Braces {
    depth: u32,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Braces {
    fn follow(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    self.closed |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

impl Tool {
    /// The brace that closes its arguments has come.
    pub(super) fn is_closed(&self) -> bool {
        self.braces.closed
    }
}

/// Bytes of an event around its text.
const ROOM: usize = 192;

impl Block {
    /// Text, or what the model thought, of which nothing has come.
    pub(super) fn of_text(is_thought: bool) -> Self {
        Self::new(if is_thought { Kind::Thinking } else { Kind::Text })
    }

    /// A call whose arguments have not come.
    pub(super) fn of_call(index: Option<u64>, id: String, name: String) -> Self {
        Self::new(Kind::Tool(Tool { index, id, name, braces: Braces::default() }))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, open: false, text: Joined::default(), sent: 0 }
    }

    /// The call, where it is one.
    pub(super) fn call(&self) -> Option<&Tool> {
        if let Kind::Tool(tool) = &self.kind { Some(tool) } else { None }
    }

    /// Whether its arguments have begun to come, and not ended.
    pub(super) fn is_amid(&self) -> bool {
        !self.text.text().is_empty() && self.call().is_some_and(|tool| !tool.is_closed())
    }

    /// Adds arguments; tells how many bytes of those before are forgotten.
    pub(super) fn add_arguments(&mut self, more: &[u8]) -> usize {
        let mut forgotten = 0;
        if self.is_placeholder() && !more.trim_ascii().is_empty() {
            forgotten = self.text.text().len();
            self.text.clear();
            if let Kind::Tool(tool) = &mut self.kind {
                tool.braces = Braces::default();
            }
        }
        let before = self.text.text().len();
        self.text.push(more);
        if let Kind::Tool(tool) = &mut self.kind {
            tool.braces.follow(&self.text.text()[before..]);
        }
        forgotten
    }

    /// Some providers begin a call with `{}` and send its arguments later.
    fn is_placeholder(&self) -> bool {
        /// Longer white space around it makes it no placeholder.
        const LONGEST: usize = 8;
        let text = self.text.text();
        matches!(self.kind, Kind::Tool(_)) && text.len() <= LONGEST && text.trim_ascii() == "{}"
    }

    /// Bytes of text that were not sent.
    pub(super) fn unsent(&self) -> usize {
        self.text.text().len() - self.sent
    }

    /// Whether nothing more of it can come, once another has begun.
    pub(super) fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Text | Kind::Thinking => true,
            Kind::Tool(tool) => tool.braces.closed && !self.is_placeholder(),
        }
    }

    /// Sends what is there and not sent yet; `last`: nothing more comes. Tells how many bytes are forgotten.
    pub(super) fn send(&mut self, index: usize, last: bool, out: &mut Output) -> usize {
        if !std::mem::replace(&mut self.open, true) {
            let names = self.call().map_or(0, |tool| escaped_length(&tool.id) + escaped_length(&tool.name));
            out.reserve(names + ROOM);
            let content_block = match &self.kind {
                Kind::Text => Start::Text { text: "" },
                Kind::Thinking => Start::Thinking { thinking: "", signature: "" },
                Kind::Tool(Tool { id, name, .. }) => Start::ToolUse { id, name, input: BTreeMap::new() },
            };
            Event::ContentBlockStart { index, content_block }.write(out);
        }
        let new = &self.text.text()[self.sent..];
        if new.is_empty() || !last && self.is_placeholder() {
            return 0;
        }
        let (delta, is_kept) = match &self.kind {
            Kind::Text => (Delta::Text { text: new }, false),
            Kind::Thinking => (Delta::Thinking { thinking: new }, false),
            // They are looked at whole.
            Kind::Tool(_) => (Delta::InputJson { partial_json: new }, true),
        };
        out.reserve(escaped_length(new) + ROOM);
        Event::ContentBlockDelta { index, delta }.write(out);
        let size = self.text.text().len();
        if is_kept {
            self.sent = size;
            return 0;
        }
        self.text.clear();
        size
    }

    /// Writes it as a block of a message.
    pub(super) fn write(&self, out: &mut Output) {
        let text = self.text.text();
        match &self.kind {
            Kind::Text => {
                out.write(&["{\"type\":\"text\",\"text\":"]);
                out.string(text);
            }
            Kind::Thinking => {
                out.write(&["{\"type\":\"thinking\",\"thinking\":"]);
                out.string(text);
                out.write(&[",\"signature\":\"\""]);
            }
            Kind::Tool(Tool { id, name, .. }) => {
                out.write(&["{\"type\":\"tool_use\",\"id\":"]);
                out.string(id);
                out.write(&[",\"name\":"]);
                out.string(name);
                let input = text.trim_ascii();
                out.write(&[",\"input\":", if input.is_empty() { "{}" } else { input }]);
            }
        }
        out.write(&["}"]);
    }
}

/// Whether arguments are a JSON object; nothing at all stands for an empty one.
pub(super) fn is_object(arguments: &str) -> bool {
    let text = arguments.trim_ascii();
    text.is_empty() || text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
