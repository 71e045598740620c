//! Finds `usage` by its place in a JSON document that arrives in pieces. Linear in the document; holds one key and one `usage`.

use memchr::memchr2;

use super::{Reported, counts_in, reported};
use crate::limits::MAX_USAGE;

/// Longest key on the way to `usage`, bytes.
const LONGEST_KEY: usize = 12;

/// An object or a list on the way to `usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    /// The document.
    Top,
    /// A parent of `usage`: the response in an event of the Responses API, the message in Anthropic's first event, Groq's own object, and
    /// a choice, because Moonshot reports in the last one.
    Holder,
    Choices,
    /// Cohere's `meta`.
    Meta,
    /// The value that holds the counts.
    Usage,
}

/// The node of a value by its key and its parent. An element of a list has no key.
fn child(parent: Node, key: &[u8], opening: u8) -> Option<Node> {
    match (parent, key, opening) {
        (Node::Top | Node::Holder, b"usage", b'{') => Some(Node::Usage),
        (Node::Top, b"response" | b"message" | b"x_groq", b'{') => Some(Node::Holder),
        (Node::Top, b"choices", b'[') => Some(Node::Choices),
        (Node::Choices, _, b'{') => Some(Node::Holder),
        (Node::Top, b"meta", b'{') => Some(Node::Meta),
        (Node::Meta, b"billed_units" | b"tokens", b'{') => Some(Node::Usage),
        _ => None,
    }
}

/// Deepest node: `choices`, a choice, its `usage`.
const DEEPEST: usize = 4;

/// Reads a document, piece by piece.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Objects and lists that are open.
    depth: usize,
    /// The outermost of them, as far as they are on the way to `usage`.
    nodes: Vec<Node>,
    /// The last key of the innermost node.
    key: Vec<u8>,
    /// The next string of the innermost node is a key.
    awaits_key: bool,
    string: Position,
    /// The next byte of the string is escaped.
    is_escaped: bool,
    /// The `usage` that is being read, at most [`MAX_USAGE`] bytes and one: a longer one does not count.
    usage: Vec<u8>,
    reported: Reported,
}

/// What kind of string is being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Outside,
    InKey,
    InString,
}

impl Scanner {
    /// The report of the document so far.
    pub fn reported(&self) -> Reported {
        self.reported
    }

    /// Reads a piece of the document.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            let read = if self.string == Position::Outside { self.token(byte) } else { self.string(rest) };
            let (taken, behind) = rest.split_at(read);
            if self.nodes.last() == Some(&Node::Usage) || !self.usage.is_empty() {
                self.hold(taken);
            }
            rest = behind;
        }
    }

    /// Keeps a piece of `usage`, and reads it at its end.
    fn hold(&mut self, piece: &[u8]) {
        let room = (MAX_USAGE + 1).saturating_sub(self.usage.len());
        self.usage.extend_from_slice(&piece[..piece.len().min(room)]);
        if self.nodes.last() != Some(&Node::Usage) {
            if let Some((counts, _)) = counts_in(&self.usage).filter(|_| self.usage.len() <= MAX_USAGE) {
                self.reported = self.reported.and(reported(&counts));
            }
            self.usage.clear();
        }
    }

    /// Reads a byte outside any string.
    fn token(&mut self, byte: u8) -> usize {
        let is_in_node = self.depth == self.nodes.len();
        match byte {
            b'"' => {
                let is_key = is_in_node && std::mem::take(&mut self.awaits_key);
                self.string = if is_key { Position::InKey } else { Position::InString };
                if is_key {
                    self.key.clear();
                }
            }
            b'{' | b'[' => {
                let node = match self.nodes.last() {
                    None => (self.depth == 0 && byte == b'{').then_some(Node::Top),
                    Some(parent) => child(*parent, &self.key, byte),
                };
                if let Some(node) = node.filter(|_| is_in_node && self.depth < DEEPEST) {
                    self.nodes.push(node);
                    self.awaits_key = byte == b'{';
                }
                self.depth += 1;
            }
            b'}' | b']' => {
                if is_in_node {
                    self.nodes.pop();
                }
                self.depth = self.depth.saturating_sub(1);
                self.awaits_key = false;
            }
            b',' if is_in_node => {
                self.awaits_key = self.nodes.last() != Some(&Node::Choices);
                self.key.clear();
            }
            _ => {}
        }
        1
    }

    /// Reads the string at hand, as far as it goes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.is_escaped) {
            return 1;
        }
        let end = memchr2(b'"', b'\\', bytes);
        let text = &bytes[..end.unwrap_or(bytes.len())];
        if self.string == Position::InKey {
            let room = LONGEST_KEY.saturating_sub(self.key.len());
            // One byte more distinguishes a longer key from its beginning.
            self.key.extend_from_slice(&text[..text.len().min(room + 1)]);
        }
        match end.map(|end| bytes[end]) {
            Some(b'\\') => {
                self.is_escaped = true;
                // No key on the way is written with an escape.
                self.key.push(b'\\');
            }
            Some(_) => self.string = Position::Outside,
            None => {}
        }
        text.len() + usize::from(end.is_some())
    }
}
