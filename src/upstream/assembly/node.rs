//! Joins values that arrive in parts, without a tree of the parts: a value in one part stays unchanged text, and texts
//! and lists grow in one piece each.

use serde_json::value::RawValue;

use super::{AT_ODDS, NOT_JSON, TOO_MANY, Unassembled};
use crate::dialect::{Joined, unescaped};
use crate::json::{elements, inside, raw_members};
use crate::limits::{MAX_ASSEMBLED_DEPTH, MAX_ASSEMBLED_ITEMS, MAX_ASSEMBLED_NODES};

/// Whether parts fit together.
pub(super) type Fit<T> = Result<T, Unassembled>;

/// Members that each part repeats, or only one has: the last one counts.
const ONCE: [&str; 10] = [
    "id",
    "type",
    "role",
    "name",
    "index",
    "object",
    "model",
    "format",
    "finish_reason",
    "system_fingerprint",
];

/// A value.
pub(super) enum Node {
    /// Unchanged JSON; of a list, items without an `index`, with commas between them.
    Raw(String),
    /// The text of a string, in WTF-8: its parts may be cut within a character.
    Text(Vec<u8>),
    Object(Object),
    List(List),
}

/// Members by their unchanged names, in their order.
#[derive(Default)]
pub(super) struct Object(Vec<(Box<str>, Node)>);

/// Items and their `index`.
#[derive(Default)]
pub(super) struct List(Vec<(Option<u64>, Node)>);

/// The rest of the limits of an assembly.
pub(super) struct Room {
    nodes: usize,
    depth: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { nodes: MAX_ASSEMBLED_NODES, depth: MAX_ASSEMBLED_DEPTH }
    }
}

impl Room {
    fn take(&mut self) -> Fit<()> {
        self.nodes = self.nodes.checked_sub(1).ok_or(TOO_MANY)?;
        Ok(())
    }

    fn deeper(&mut self, add: impl FnOnce(&mut Self) -> Fit<()>) -> Fit<()> {
        self.depth = self.depth.checked_sub(1).ok_or(TOO_MANY)?;
        let added = add(self);
        self.depth += 1;
        added
    }
}

impl Object {
    /// An object with these members.
    pub(super) fn of(json: &str, room: &mut Room) -> Fit<Self> {
        let mut object = Self::default();
        object.add_all(json, room)?;
        Ok(object)
    }

    /// Adds each member of an object.
    fn add_all(&mut self, json: &str, room: &mut Room) -> Fit<()> {
        each_member(json, &mut |name, value| self.add(name, value, room))
    }

    /// Adds to a member: text to text, items to lists, members to objects. Of other values the last one counts.
    pub(super) fn add(&mut self, name: &str, json: &str, room: &mut Room) -> Fit<()> {
        match self.find(name) {
            Ok(at) => self.0[at].1.add(name, json, room),
            Err(at) => self.insert(at, name, json, room),
        }
    }

    /// Sets a member; an empty value does not replace one.
    pub(super) fn set(&mut self, name: &str, json: &str, room: &mut Room) -> Fit<()> {
        match self.find(name) {
            Ok(_) if is_nothing(json) => {}
            Ok(at) => self.0[at].1 = Node::of(json),
            Err(at) => self.insert(at, name, json, room)?,
        }
        Ok(())
    }

    /// A member that is an object; an empty one where there is none.
    pub(super) fn object(&mut self, name: &str, room: &mut Room) -> Fit<&mut Self> {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(at) => {
                self.insert(at, name, "{}", room)?;
                at
            }
        };
        let node = &mut self.0[at].1;
        if node.is_replaced() {
            *node = Node::Object(Self::default());
        }
        node.open(room)?;
        match node {
            Node::Object(object) => Ok(object),
            _ => Err(AT_ODDS),
        }
    }

    /// Takes a member away.
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    /// A member that nothing was added to.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        match &self.0[self.find(name).ok()?].1 {
            Node::Raw(json) => Some(json),
            _ => None,
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(ours, _)| (**ours).cmp(name))
    }

    fn insert(&mut self, at: usize, name: &str, json: &str, room: &mut Room) -> Fit<()> {
        room.take()?;
        self.0.insert(at, (name.into(), Node::of(json)));
        Ok(())
    }

    /// Writes its members, each after a comma, except the first one of the object at the end of `out`.
    pub(super) fn write_members(self, out: &mut Vec<u8>) {
        for (name, node) in self.0 {
            write_name(&name, out);
            node.write(out);
        }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(out);
        out.push(b'}');
    }
}

/// Writes a member's name, and the comma before it.
pub(super) fn write_name(name: &str, out: &mut Vec<u8>) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    for piece in ["\"", name, "\":"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

impl List {
    fn add_all(&mut self, json: &str, room: &mut Room) -> Fit<()> {
        each_item(json, &mut |item| self.add(item, room))
    }

    /// Adds an item to the one of its `index`, else to the end.
    fn add(&mut self, item: &str, room: &mut Room) -> Fit<()> {
        let index = index_of(item);
        if index.is_some() {
            if let Some((_, ours)) = self.0.iter_mut().find(|(ours, _)| *ours == index) {
                return ours.add("", item, room);
            }
            if self.0.len() >= MAX_ASSEMBLED_ITEMS {
                return Err(TOO_MANY);
            }
        } else if let Some((None, Node::Raw(items))) = self.0.last_mut() {
            items.reserve_exact(growth(items.capacity(), items.len(), item.len() + 1));
            items.push(',');
            items.push_str(item);
            return Ok(());
        }
        room.take()?;
        self.0.push((index, Node::of(item)));
        Ok(())
    }
}

impl Node {
    fn of(json: &str) -> Self {
        Self::Raw(json.to_owned())
    }

    fn add(&mut self, name: &str, json: &str, room: &mut Room) -> Fit<()> {
        if is_nothing(json) {
            return Ok(());
        }
        if ONCE.contains(&name) || self.is_replaced() {
            *self = Self::of(json);
            return Ok(());
        }
        room.deeper(|room| {
            self.open(room)?;
            match (self, json.as_bytes()) {
                (Self::Text(text), [b'"', ..]) => add_text(name, text, json),
                (Self::Object(object), [b'{', ..]) => return object.add_all(json, room),
                (Self::List(list), [b'[', ..]) => return list.add_all(json, room),
                _ => return Err(AT_ODDS),
            }
            Ok(())
        })
    }

    /// Whether another value replaces it: it is empty, or neither text, list nor object.
    fn is_replaced(&self) -> bool {
        matches!(self, Self::Raw(json) if is_nothing(json) || !json.starts_with(['"', '[', '{']))
    }

    /// Converts it to a value that can grow.
    fn open(&mut self, room: &mut Room) -> Fit<()> {
        let Self::Raw(json) = self else { return Ok(()) };
        let json = std::mem::take(json);
        *self = match json.as_bytes() {
            [b'"', ..] => Self::Text(unescaped(inside(&json).unwrap_or_default()).into_owned()),
            [b'{', ..] => Self::Object(Object::of(&json, room)?),
            _ => {
                let mut list = List::default();
                list.add_all(&json, room)?;
                Self::List(list)
            }
        };
        Ok(())
    }

    /// The text of a string; empty where it is none.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => whole_characters(text),
            Self::Raw(json) => whole_characters(unescaped(inside(&json).unwrap_or_default()).into_owned()),
            Self::Object(_) | Self::List(_) => String::new(),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(json) => out.extend_from_slice(json.as_bytes()),
            // A string always serializes, and writing into memory does not fail.
            Self::Text(text) => drop(serde_json::to_writer(out, &whole_characters(text))),
            Self::Object(object) => object.write(out),
            Self::List(List(items)) => {
                let mut lead = b'[';
                for (_, item) in items {
                    out.push(lead);
                    item.write(out);
                    lead = b',';
                }
                if lead == b'[' {
                    out.push(lead);
                }
                out.push(b']');
            }
        }
    }
}

/// Calls `each` with the unchanged names and the values of an object.
pub(super) fn each_member<'a>(json: &'a str, each: &mut dyn FnMut(&'a str, &'a str) -> Fit<()>) -> Fit<()> {
    let mut fit = Ok(());
    let member = |name, value| {
        if fit.is_ok() {
            fit = each(name, value);
        }
    };
    raw_members(json, member).map_err(|_| NOT_JSON)?;
    fit
}

/// Calls `each` with the elements of an array.
pub(super) fn each_item<'a>(json: &'a str, each: &mut dyn FnMut(&'a str) -> Fit<()>) -> Fit<()> {
    let mut fit = Ok(());
    let item = |item: &'a RawValue| {
        if fit.is_ok() {
            fit = each(item.get());
        }
    };
    elements(json, item).map_err(|_| NOT_JSON)?;
    fit
}

/// A member of an object; the last one of that name.
pub(super) fn member<'a>(json: &'a str, name: &str) -> Fit<Option<&'a str>> {
    let mut found = None;
    each_member(json, &mut |ours, value| {
        found = if ours == name { Some(value) } else { found };
        Ok(())
    })?;
    Ok(found)
}

/// The `index` of an object that has one.
pub(super) fn index_of(item: &str) -> Option<u64> {
    if !item.starts_with('{') {
        return None;
    }
    member(item, "index").ok()??.parse().ok()
}

pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Whether a value is empty.
fn is_nothing(json: &str) -> bool {
    matches!(json, "null" | "\"\"" | "[]" | "{}")
}

fn add_text(name: &str, text: &mut Vec<u8>, json: &str) {
    // Some providers begin a call with empty arguments and send the real ones later.
    if name == "arguments" && text == b"{}" {
        text.clear();
    }
    let more = unescaped(inside(json).unwrap_or_default());
    text.reserve_exact(growth(text.capacity(), text.len(), more.len()));
    text.extend_from_slice(&more);
}

/// Growth of a buffer that makes room for `more`: a quarter, because doubling would take twice the memory.
fn growth(capacity: usize, length: usize, more: usize) -> usize {
    if capacity - length < more { more.max(length / 4) } else { 0 }
}

/// A complete text: halves of a pair and bytes of a character are joined; those without the rest are replaced.
fn whole_characters(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|error| {
        let mut joined = Joined::default();
        joined.push(error.as_bytes());
        joined.end();
        joined.into_text()
    })
}
