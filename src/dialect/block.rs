//! A block of a message while it comes.

use super::joined::Joined;

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Its start was sent.
    is_open: bool,
    /// Text: what was not sent yet, where the API does not need it again. Arguments: all of them.
    pub(super) text: Joined,
    /// So much of it was sent.
    sent: usize,
    /// Citations of the text, as the Responses API has them; so many were sent.
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

impl Block {
    /// A call whose arguments have not come.
    pub(super) fn of_call(index: Option<u64>, id: String, name: String) -> Self {
        Self::new(Kind::Tool(Tool { index, id, name, braces: Braces::default() }))
    }

    /// A block of which nothing has come.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, is_open: false, text: Joined::default(), sent: 0, annotations: Vec::new(), annotated: 0 }
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
        // What was sent in part can no longer be taken back.
        self.sent == 0
            && matches!(self.kind, Kind::Tool(_))
            && text.len() <= LONGEST
            && text.trim_ascii() == "{}"
    }

    /// Bytes of text that were not sent.
    pub(super) fn unsent(&self) -> usize {
        self.text.text().len() - self.sent
    }

    /// Whether nothing more of it can come, once another has begun.
    pub(super) fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Text | Kind::Refusal | Kind::Thinking => true,
            Kind::Tool(tool) => tool.braces.closed && !self.is_placeholder(),
        }
    }

    /// Opens it; whether it was not.
    pub(super) fn open(&mut self) -> bool {
        !std::mem::replace(&mut self.is_open, true)
    }

    /// What is there and not sent yet; `last`: nothing more comes.
    pub(super) fn new_text(&self, last: bool) -> &str {
        let is_held = !last && self.is_placeholder();
        if is_held { "" } else { &self.text.text()[self.sent..] }
    }

    /// What [`Block::new_text`] gave was sent, and may be needed again.
    pub(super) fn keep(&mut self) {
        self.sent = self.text.text().len();
    }

    /// It was sent, and is not needed again; tells how many bytes are forgotten.
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
