//! JSON from outside, looked over without a tree of values: a tree takes many times the bytes that write it.

use std::fmt;

use memchr::memchr2;
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

/// Calls `each` with the members of an object, names decoded, in their order; repeated ones too.
///
/// # Errors
/// `json` is no object and nothing else; says where.
pub fn members<'a>(json: &'a str, each: impl FnMut(&str, &'a RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(Members(each)).and_then(|()| json.end())
}

/// Calls `each` with the elements of an array.
///
/// # Errors
/// `json` is no array and nothing else; says where.
pub fn elements<'a>(json: &'a str, each: impl FnMut(&'a RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_seq(Elements(each)).and_then(|()| json.end())
}

/// A string's text; `None`: the value is none.
pub fn text(value: &RawValue) -> Option<String> {
    // Only a string is copied.
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok())?
}

struct Members<F>(F);

impl<'a, F: FnMut(&str, &'a RawValue)> Visitor<'a> for Members<F> {
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

struct Elements<F>(F);

impl<'a, F: FnMut(&'a RawValue)> Visitor<'a> for Elements<F> {
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
