//! A block of a message in progress.

use super::joined::Joined;

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Its start has been sent.
    is_open: bool,
    /// Text: the unsent part, and the sent part too if the API repeats it. Arguments: all of them.
    pub(super) text: Joined,
    /// Bytes sent so far.
    sent: usize,
    /// Citations of the text in the form of the Responses API; the number of those sent.
    pub(super) annotations: Vec<String>,
    pub(super) annotated: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Refusal,
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

/// Scans the arguments of a call for the brace that closes them.
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
    /// The closing brace of its arguments has arrived.
    pub(super) fn is_closed(&self) -> bool {
        self.braces.closed
    }
}

impl Block {
    /// A call before its arguments.
    pub(super) fn of_call(index: Option<u64>, id: String, name: String) -> Self {
        Self::new(Kind::Tool(Tool { index, id, name, braces: Braces::default() }))
    }

    /// An empty block.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, is_open: false, text: Joined::default(), sent: 0, annotations: Vec::new(), annotated: 0 }
    }

    /// The call, if it is one.
    pub(super) fn call(&self) -> Option<&Tool> {
        if let Kind::Tool(tool) = &self.kind { Some(tool) } else { None }
    }

    /// Whether its arguments have begun and not ended.
    pub(super) fn is_amid(&self) -> bool {
        !self.text.text().is_empty() && self.call().is_some_and(|tool| !tool.is_closed())
    }

    /// Adds arguments. Returns how many earlier bytes are dropped.
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
        /// With more white space around it, it is no placeholder.
        const LONGEST: usize = 8;
        let text = self.text.text();
        // Bytes that were sent cannot be taken back.
        self.sent == 0
            && matches!(self.kind, Kind::Tool(_))
            && text.len() <= LONGEST
            && text.trim_ascii() == "{}"
    }

    /// Bytes of text that were not sent.
    pub(super) fn unsent(&self) -> usize {
        self.text.text().len() - self.sent
    }

    /// Whether it is complete once another block has begun.
    pub(super) fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Text | Kind::Refusal | Kind::Thinking => true,
            Kind::Tool(tool) => tool.braces.closed && !self.is_placeholder(),
        }
    }

    /// Opens it. Returns whether it was closed.
    pub(super) fn open(&mut self) -> bool {
        !std::mem::replace(&mut self.is_open, true)
    }

    /// The unsent part; `last`: the block is complete.
    pub(super) fn new_text(&self, last: bool) -> &str {
        let is_held = !last && self.is_placeholder();
        if is_held { "" } else { &self.text.text()[self.sent..] }
    }

    /// Marks the result of [`Block::new_text`] as sent, and keeps it.
    pub(super) fn keep(&mut self) {
        self.sent = self.text.text().len();
    }

    /// Marks it as sent and drops it. Returns how many bytes are dropped.
    pub(super) fn forget(&mut self) -> usize {
        let size = self.text.text().len();
        self.text.clear();
        self.sent = 0;
        size
    }
}

#[cfg(test)]
mod tests {
    use super::Block;

    #[test]
    fn arguments_sent_in_part_are_never_taken_back() {
        for last in ["1", "\u{e9}"] {
            let mut block = Block::of_call(Some(0), "c".to_owned(), "f".to_owned());
            let mut sent = String::new();
            for more in ["  {", "}", last] {
                assert_eq!(block.add_arguments(more.as_bytes()), 0);
                sent.push_str(block.new_text(false));
                block.keep();
            }
            assert_eq!((sent, block.unsent()), (format!("  {{}}{last}"), 0));
        }
    }

    #[test]
    fn placeholder_is_forgotten_where_arguments_follow() {
        let mut block = Block::of_call(Some(0), "c".to_owned(), "f".to_owned());
        block.add_arguments(b" {}");
        assert_eq!(block.new_text(false), "");
        assert_eq!(block.add_arguments(b"{\"a\":1}"), 3);
        assert_eq!(block.new_text(false), "{\"a\":1}");
    }
}
