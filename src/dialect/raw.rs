//! JSON values as they are written, in documents that are valid already. Finding a member again costs no second pass over the
//! text: a document knows where its long values end.

use memchr::memchr;
use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Least length of a value whose end a document notes, bytes.
const LONG: usize = 64;
/// Long values that enclose each other are noted up to this number more than fit one after another.
const MAX_ENCLOSING: usize = 1024;

/// A valid JSON document, and where its long values end.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a str,
    /// Long values, ascending by their start. Empty: no end is known.
    long: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    length: u32,
}

/// A value in a document.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    text: &'a str,
    document: Option<&'a Document<'a>>,
}

impl<'a> Document<'a> {
    /// The document that is `text`, which is valid JSON.
    pub fn of_valid(text: &'a str) -> Self {
        let long = u32::try_from(text.len()).map_or_else(|_| Vec::new(), |_| long_values(text.as_bytes()));
        Self { text, long }
    }

    /// Its value.
    pub fn value(&'a self) -> Raw<'a> {
        Raw { text: self.text.trim_ascii(), document: Some(self) }
    }

    /// Length of the value at the beginning of `rest`, a part of the text, if it is long.
    fn length(&self, rest: &str) -> Option<usize> {
        let start = u32::try_from(rest.as_ptr().addr() - self.text.as_ptr().addr()).ok()?;
        let found = self.long.binary_search_by_key(&start, |span| span.start).ok()?;
        Some(self.long[found].length as usize)
    }
}

/// The long values of a document below 4 GiB; none where there are too many of them to note.
fn long_values(json: &[u8]) -> Vec<Span> {
    let most = json.len() / LONG + MAX_ENCLOSING;
    let (mut long, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(byte) = json.get(at) {
        let start = at;
        at += 1;
        let length = |at: usize| (at - start) as u32;
        match byte {
            b'"' => {
                at = string_end(json, at);
                if at - start >= LONG {
                    long.push(Span { start: start as u32, length: length(at) });
                }
            }
            b'{' | b'[' => {
                open.push(long.len());
                long.push(Span { start: start as u32, length: 0 });
            }
            b'}' | b']' => {
                let Some(opened) = open.pop() else { return Vec::new() };
                let length = at - long[opened].start as usize;
                long[opened].length = length as u32;
                if length < LONG {
                    // It encloses nothing longer.
                    long.truncate(opened);
                }
            }
            _ => {}
        }
        if long.len() > most {
            return Vec::new();
        }
    }
    long
}

/// The place after the string that has begun ahead of `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(quote) = json.get(at..).and_then(|rest| memchr(b'"', rest)) {
        let backslashes = json[at..at + quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        at += quote + 1;
        if backslashes % 2 == 0 {
            return at;
        }
    }
    json.len()
}

impl<'a> Raw<'a> {
    /// The value as it is written.
    pub fn get(self) -> &'a str {
        self.text
    }

    /// The parts of an object (`opening` is `{`) or of an array (`[`); `None`: it is none.
    pub(super) fn parts(self, opening: char) -> Option<Parts<'a>> {
        let text = self.text.strip_prefix(opening)?;
        Some(Parts { rest: Raw { text, ..self } })
    }
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self { text, document: None })
    }
}

/// The members of an object or the elements of an array, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    rest: Raw<'a>,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self { rest: Raw { text: "", document: None } }
    }
}

impl<'a> Parts<'a> {
    /// The next member: its name and its value.
    pub(super) fn member(&mut self) -> Option<(Raw<'a>, Raw<'a>)> {
        Some((self.next()?, self.next()?))
    }

    fn skip(&mut self, length: usize) {
        self.rest.text = self.rest.text.get(length..).unwrap_or_default();
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let separators = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\t' | b'\r' | b',' | b':');
        self.skip(self.rest.text.bytes().take_while(separators).count());
        let Raw { text, document } = self.rest;
        let is_long = |first: &u8| matches!(first, b'"' | b'{' | b'[');
        let known = document.filter(|_| text.as_bytes().first().is_some_and(is_long));
        let length = known.and_then(|document| document.length(text)).unwrap_or_else(|| length_of(text));
        let value = text.get(..length).filter(|value| !value.is_empty())?;
        self.skip(length);
        Some(Raw { text: value, document })
    }
}

/// Length of the value at the beginning of a text; 0: there is none.
fn length_of(text: &str) -> usize {
    let (json, mut at, mut levels) = (text.as_bytes(), 0, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'{' | b'[' => levels += 1,
            b'}' | b']' if levels == 0 => break,
            b'}' | b']' => levels -= 1,
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if levels == 0 => break,
            _ => {}
        }
        at = if *byte == b'"' { string_end(json, at + 1) } else { at + 1 };
        if levels == 0 && matches!(byte, b'}' | b']' | b'"') {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{Document, LONG, Raw};
    use crate::json;

    /// The parts of every object and array in a value, as they are written.
    fn all_parts(value: Raw<'_>, found: &mut Vec<String>) {
        for opening in ['{', '['] {
            for part in value.parts(opening).into_iter().flatten() {
                found.push(part.get().to_owned());
                all_parts(part, found);
            }
        }
    }

    /// The same by serde_json.
    fn reference(value: &RawValue, found: &mut Vec<String>) {
        let mut parts = Vec::new();
        let _ = json::try_members(value.get(), |name, value| {
            parts.extend([name, value]);
            Ok::<(), ()>(())
        });
        let _ = json::try_elements(value.get(), |value| {
            parts.push(value);
            Ok::<(), ()>(())
        });
        if !value.get().starts_with(['{', '[']) {
            return;
        }
        for part in parts {
            found.push(part.get().to_owned());
            reference(part, found);
        }
    }

    fn documents() -> Vec<String> {
        let long = "äöü \\n\\\\ \\\"x\\\" ] } , : \\u00e9 \\\\\\\" ".repeat(20);
        let at_bound = |more: usize| "x".repeat(LONG - 2 + more);
        vec![
            "{}".to_owned(),
            " [ ] ".to_owned(),
            r#" {"a":1,"b" : -0.5e+10 ,"c":[],"d":{},"e":[ 1 , {"x":[null,true,false]} , "s" ] } "#
                .to_owned(),
            format!(r#"{{"{long}":["{long}",{{"a":"{long}","b":[["{long}"]]}}],"z":"\\"}}"#),
            format!(r#"["{}","{}",["{}"],"{}"]"#, at_bound(0), at_bound(1), at_bound(0), "\\\\".repeat(90)),
            format!("{}\"{long}\"{}", "[".repeat(60), "]".repeat(60)),
            format!(
                "[{}]",
                vec!["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"; 600].join(",")
            ),
        ]
    }

    #[test]
    fn parts_are_those_of_serde_json_with_known_ends_and_without() {
        for text in documents() {
            let value: &RawValue = serde_json::from_str(&text).expect("JSON");
            let mut expected = Vec::new();
            reference(value, &mut expected);
            let document = Document::of_valid(&text);
            for value in [document.value(), serde_json::from_str(&text).expect("JSON")] {
                let mut found = Vec::new();
                all_parts(value, &mut found);
                assert_eq!(found, expected, "{text}");
            }
        }
    }

    #[test]
    fn document_notes_long_values_alone_and_a_bounded_number() {
        let text = format!(r#"{{"a":"{}","b":["c"],"d":"{}"}}"#, "x".repeat(LONG), "x".repeat(LONG - 3));
        let noted: Vec<&str> = Document::of_valid(&text)
            .long
            .iter()
            .map(|span| &text[span.start as usize..][..span.length as usize])
            .collect();
        assert_eq!(noted, [&text, &text[5..7 + LONG]]);
        let nested = format!("[{}]", vec![format!("{}{}", "[".repeat(100), "]".repeat(100)); 60].join(","));
        assert!(Document::of_valid(&nested).long.is_empty());
    }
}
