//! JSON from outside, looked over without a tree of values: a tree takes many times the bytes that write it.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr2, memchr2_iter};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What follows a string whose opening quote has been passed; nothing where it has no end.
pub fn behind_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', bytes) {
        if bytes[at] == b'"' {
            return &bytes[at + 1..];
        }
        // The escaped byte may be a quote or another backslash.
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
    &[]
}

/// Where a document has more than `most` levels of objects and arrays. serde_json skips what nobody asks for without a bound of its own, and
/// remembers each level of it: a reader of several levels would hold the depth of those below it for each.
pub fn deeper_than(json: &[u8], most: usize) -> Option<usize> {
    // In strings or not, so few nest no deeper.
    memchr2_iter(b'{', b'[', json).nth(most)?;
    let (mut depth, mut rest) = (0, json);
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'{' | b'[' if depth == most => return Some(json.len() - rest.len()),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        rest = if byte == b'"' { behind_string(behind) } else { behind };
    }
    None
}

/// The members of an object that stands at the beginning of some bytes: names decoded, and values as they are written. What is no JSON ends
/// them; most of what JSON forbids is not looked for.
pub struct Members<'a> {
    rest: &'a [u8],
    /// What follows the object, once its end was met.
    behind: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    /// The members of the object that the bytes begin with; `None`: they begin with none.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { rest: bytes.strip_prefix(b"{")?, behind: None })
    }

    /// What follows the object; `None`: its end was not met.
    pub fn behind(&self) -> Option<&'a [u8]> {
        self.behind
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.trim_ascii_start();
        self.rest = &[];
        if let Some(behind) = rest.strip_prefix(b"}") {
            self.behind = Some(behind);
            return None;
        }
        rest = rest.strip_prefix(b",").map_or(rest, <[u8]>::trim_ascii_start);
        let (name, rest) = string(rest)?;
        let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, rest) = value(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// The string that the bytes begin with, decoded, and what follows it.
fn string(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let text = bytes.strip_prefix(b"\"")?;
    let at = memchr2(b'"', b'\\', text)?;
    if text[at] == b'"' {
        return Some((Cow::Borrowed(&text[..at]), &text[at + 1..]));
    }
    let behind = behind_string(&text[at..]);
    let decoded = serde_json::from_slice::<String>(&bytes[..bytes.len() - behind.len()]).ok()?;
    Some((Cow::Owned(decoded.into_bytes()), behind))
}

/// The value that the bytes begin with, as it is written, and what follows it.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut rest, mut levels) = (bytes, 0_usize);
    loop {
        let (&byte, behind) = rest.split_first()?;
        match byte {
            b'{' | b'[' => levels += 1,
            b'}' | b']' if levels == 0 => break,
            b'}' | b']' => levels -= 1,
            b',' | b' ' | b'\t' | b'\r' | b'\n' if levels == 0 => break,
            _ => {}
        }
        rest = if byte == b'"' { behind_string(behind) } else { behind };
        if levels == 0 && matches!(byte, b'}' | b']' | b'"') {
            break;
        }
    }
    let length = bytes.len() - rest.len();
    (length > 0).then(|| bytes.split_at(length))
}

/// Calls `each` with the members of an object, names decoded, in their order; repeated ones too.
///
/// # Errors
/// `json` is no object and nothing else; says where.
pub fn members<'a>(json: &'a str, each: impl FnMut(&str, &'a RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(MemberVisitor(each)).and_then(|()| json.end())
}

/// Calls `each` with the members of an object as they are written, names without their quotes; repeated ones too.
///
/// # Errors
/// As [`members`].
pub fn raw_members<'a>(json: &'a str, each: impl FnMut(&'a str, &'a str)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(RawMemberVisitor(each)).and_then(|()| json.end())
}

/// A string as it is written, without its quotes; `None`: the value is none.
pub fn inside(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

/// Calls `each` with the elements of an array.
///
/// # Errors
/// `json` is no array and nothing else; says where.
pub fn elements<'a>(json: &'a str, each: impl FnMut(&'a RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_seq(ElementVisitor(each)).and_then(|()| json.end())
}

/// A string's text; `None`: the value is none.
pub fn text(value: &RawValue) -> Option<String> {
    // Only a string is copied.
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok())?
}

struct MemberVisitor<F>(F);

impl<'a, F: FnMut(&str, &'a RawValue)> Visitor<'a> for MemberVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            // A name that is no text is none that is looked for.
            (self.0)(&text(name).unwrap_or_default(), value);
        }
        Ok(())
    }
}

struct RawMemberVisitor<F>(F);

impl<'a, F: FnMut(&'a str, &'a str)> Visitor<'a> for RawMemberVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            (self.0)(inside(name.get()).unwrap_or_default(), value.get());
        }
        Ok(())
    }
}

struct ElementVisitor<F>(F);

impl<'a, F: FnMut(&'a RawValue)> Visitor<'a> for ElementVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}
