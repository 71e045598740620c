//! Scans of JSON from outside without a tree of values: a tree takes many times the size of its text.

mod scan;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use memchr::{memchr2, memchr2_iter};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use scan::{MAX_LEVELS, scan};

/// The bytes after a string whose opening quote is already read; empty if it does not end.
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

/// Position at which a document exceeds `most` levels of objects and arrays. serde_json skips ignored values
/// without a bound and remembers each of their levels, and a reader of several levels would hold that depth
/// for each of its own.
pub fn deeper_than(json: &[u8], most: usize) -> Option<usize> {
    // With fewer brackets, even counting those in strings, it cannot be deeper.
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

/// The members of an object at the beginning of some bytes: names decoded, values as written. They end at the
/// first invalid JSON; most violations are not detected.
pub struct Members<'a> {
    rest: &'a [u8],
    /// The bytes after the object, once its end is found.
    behind: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    /// The members of the object at the beginning of `bytes`; `None`: the bytes begin with no object.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { rest: bytes.strip_prefix(b"{")?, behind: None })
    }

    /// The bytes after the object; `None`: its end was not found.
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

/// The elements of an array at the beginning of some bytes, as written. They end at the first invalid JSON; most violations are not detected.
pub struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The elements of the array at the beginning of `bytes`; `None`: the bytes begin with no array.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        bytes.strip_prefix(b"[").map(Self)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii_start();
        let rest = rest.strip_prefix(b",").map_or(rest, <[u8]>::trim_ascii_start);
        let (value, rest) = value(rest)?;
        self.0 = rest;
        Some(value)
    }
}

/// The string at the beginning of the bytes, decoded, and the bytes after it.
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

/// The value at the beginning of the bytes, as written, and the bytes after it. It may be cut.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut rest, mut levels) = (bytes, 0_usize);
    while let Some((&byte, behind)) = rest.split_first() {
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

/// The string at the end of a path of members, the first of each name; the document may be cut after it.
pub fn string_at(document: &[u8], path: &[&str]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return document.starts_with(b"\"").then(|| serde_json::from_slice(document).ok())?;
    };
    let mut members = Members::of(document.trim_ascii_start())?;
    let (_, value) = members.find(|(name, _)| **name == *first.as_bytes())?;
    string_at(value, rest)
}

/// Why a scan ended early.
pub enum Stop<E> {
    /// The document is not of the expected kind.
    Unfit(serde_json::Error),
    /// The callback refused.
    Refused(E),
}

impl From<Stop<Infallible>> for serde_json::Error {
    fn from(stop: Stop<Infallible>) -> Self {
        match stop {
            Stop::Unfit(error) => error,
            Stop::Refused(never) => match never {},
        }
    }
}

/// Calls `each` with the members of an object as written, including repeated ones, until it refuses.
///
/// # Errors
/// The error of `each`, or that `json` is no object.
pub fn try_members<'a, E>(
    json: &'a str,
    each: impl FnMut(&'a RawValue, &'a RawValue) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let (mut json, mut refused) = (serde_json::Deserializer::from_str(json), None);
    let read = json.deserialize_map(Each { each, refused: &mut refused }).and_then(|()| json.end());
    read.map_err(|error| refused.map_or(Stop::Unfit(error), Stop::Refused))
}

/// Calls `each` with the elements of an array until it refuses.
///
/// # Errors
/// The error of `each`, or that `json` is no array.
pub fn try_elements<'a, E>(
    json: &'a str,
    mut each: impl FnMut(&'a RawValue) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let (mut json, mut refused) = (serde_json::Deserializer::from_str(json), None);
    let each = |_: &'a RawValue, element| each(element);
    let read = json.deserialize_seq(Each { each, refused: &mut refused }).and_then(|()| json.end());
    read.map_err(|error| refused.map_or(Stop::Unfit(error), Stop::Refused))
}

/// Calls `each` with the members of an object in their order, names decoded, including repeated ones.
///
/// # Errors
/// `json` is not exactly one object; the error has the position.
pub fn members<'a>(json: &'a str, mut each: impl FnMut(&str, &'a RawValue)) -> serde_json::Result<()> {
    // A name that is no valid text matches no name.
    Ok(try_members(json, |name, value| {
        each(&text(name.get()).unwrap_or_default(), value);
        Ok(())
    })?)
}

/// Calls `each` with the members of an object as written, names without their quotes, including repeated
/// ones.
///
/// # Errors
/// As for [`members`].
pub fn raw_members<'a>(json: &'a str, mut each: impl FnMut(&'a str, &'a str)) -> serde_json::Result<()> {
    Ok(try_members(json, |name, value| {
        each(inside(name.get()).unwrap_or_default(), value.get());
        Ok(())
    })?)
}

/// A string as written, without its quotes; `None`: the value is no string.
pub fn inside(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

/// Calls `each` with the elements of an array.
///
/// # Errors
/// `json` is not exactly one array; the error has the position.
pub fn elements<'a>(json: &'a str, mut each: impl FnMut(&'a RawValue)) -> serde_json::Result<()> {
    Ok(try_elements(json, |element| {
        each(element);
        Ok(())
    })?)
}

/// The text of a string; `None`: the value is no string.
pub fn text(value: &str) -> Option<String> {
    // Only a string is copied.
    value.starts_with('"').then(|| serde_json::from_str(value).ok())?
}

/// Passes on each part; an element serves as its own name.
struct Each<'r, F, E> {
    each: F,
    refused: &'r mut Option<E>,
}

impl<'a, E, F: FnMut(&'a RawValue, &'a RawValue) -> Result<(), E>> Each<'_, F, E> {
    fn give<S: Error>(&mut self, name: &'a RawValue, value: &'a RawValue) -> Result<(), S> {
        (self.each)(name, value).map_err(|refused| {
            *self.refused = Some(refused);
            S::custom("refused")
        })
    }
}

impl<'a, E, F: FnMut(&'a RawValue, &'a RawValue) -> Result<(), E>> Visitor<'a> for Each<'_, F, E> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry()? {
            self.give(name, value)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            self.give(element, element)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::string_at;

    #[test]
    fn string_at_finds_the_first_of_its_path_in_a_document_that_may_be_cut() {
        for (document, path, found) in [
            (r#"{"a":"x"}"#, &["a"][..], Some("x")),
            (r#" { "b" : [{"a":1},"}"] , "a" : "x\u0041" , "#, &["a"], Some("xA")),
            (r#"{"b":{"a":"y"},"\u0061":"x","a":"z""#, &["a"], Some("x")),
            (r#"{"a":{"b":{"c":"x"},"d":"#, &["a", "b", "c"], Some("x")),
            (r#"{"a":null,"a":{"b":"x"}}"#, &["a", "b"], None),
            (r#"{"a":"x"#, &["a"], None),
            (r#"{"a":1}"#, &["a"], None),
            (r#"["a","x"]"#, &["a"], None),
            ("", &["a"], None),
            ("{", &["a"], None),
        ] {
            assert_eq!(string_at(document.as_bytes(), path).as_deref(), found, "{document}");
        }
    }
}
