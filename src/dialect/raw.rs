//! JSON values as they are written, in documents that are valid already. Finding a member again costs no second pass over the
//! text: a document knows where its long values end.

use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Least length of a value whose end a document notes, bytes.
const LONG: usize = 64;
/// Long values that enclose each other are noted up to this number more than fit one after another.
const MAX_ENCLOSING: usize = 1024;
/// Bytes of a string that are looked at word by word before blocks are: most strings are short.
const BEGINNING: usize = 24;
/// Bytes of a string that are looked at together.
const BLOCK: usize = 64;
/// Bytes ahead of a block that tell whether a quote at its beginning is escaped.
const AHEAD: usize = 2;
/// A build that is not optimised is faster with words.
const HAS_VECTORS: bool = cfg!(test) || !cfg!(debug_assertions);

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
    /// Number of the first span after this one and those inside it.
    next: u32,
}

/// A value in a document.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    text: &'a str,
    document: Option<&'a Document<'a>>,
    /// Number of the first span after its own start.
    span: u32,
}

impl<'a> Document<'a> {
    /// The document that is `text`, which is valid JSON.
    pub fn of_valid(text: &'a str) -> Self {
        let long = u32::try_from(text.len()).map_or_else(|_| Vec::new(), |_| long_values(text.as_bytes()));
        Self { text, long }
    }

    /// Its value.
    pub fn value(&'a self) -> Raw<'a> {
        Parts { rest: Raw { text: self.text, document: Some(self), span: 0 } }.next().unwrap_or_default()
    }

    /// Where a part of the text starts.
    fn start(&self, part: &str) -> u32 {
        (part.as_ptr().addr() - self.text.as_ptr().addr()) as u32
    }
}

/// The long values of a document below 4 GiB; none where there are too many of them to note.
fn long_values(json: &[u8]) -> Vec<Span> {
    let most = json.len() / LONG + MAX_ENCLOSING;
    let (mut long, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(byte) = json.get(at) {
        let (start, number) = (at, long.len());
        let begun = Span { start: start as u32, length: 0, next: number as u32 + 1 };
        at += 1;
        match byte {
            b'"' => {
                at = string_end(json, at);
                if at - start >= LONG {
                    long.push(Span { length: (at - start) as u32, ..begun });
                }
            }
            b'{' | b'[' => {
                open.push(number);
                long.push(begun);
            }
            b'}' | b']' => {
                let Some(opened) = open.pop() else { return Vec::new() };
                let span: &mut Span = &mut long[opened];
                (span.length, span.next) = (at as u32 - span.start, number as u32);
                if (span.length as usize) < LONG {
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
    let mut until = at + BEGINNING;
    loop {
        while at < until {
            let Some(rest) = json.get(at..).filter(|rest| !rest.is_empty()) else { return json.len() };
            let one = || usize::from(rest[0] != b'"');
            at += rest.first_chunk().map_or_else(one, |word| ahead_of_quote(u64::from_le_bytes(*word)));
            if json.get(at) == Some(&b'"') {
                at += 1;
                let is_backslash = |byte: &&u8| **byte == b'\\';
                if json[..at - 1].iter().rev().take_while(is_backslash).count() % 2 == 0 {
                    return at;
                }
            }
        }
        while HAS_VECTORS && json.get(at - AHEAD..).and_then(<[u8]>::first_chunk).is_some_and(is_inside) {
            at += BLOCK;
        }
        until = at + BLOCK;
    }
}

/// How many of these bytes, the lowest first, stand ahead of a quote.
fn ahead_of_quote(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    let word = word ^ (ONES * b'"' as u64);
    // A borrow marks bytes above the first quote alone.
    (word.wrapping_sub(ONES) & !word & (ONES << 7)).trailing_zeros() as usize / 8
}

/// Whether a block is inside the string that the bytes ahead of it belong to; `false` also where it is not certain: where several
/// backslashes stand together ahead of a quote. No branch depends on a byte.
fn is_inside(block: &[u8; AHEAD + BLOCK]) -> bool {
    let mut ends = [0_u8; BLOCK];
    for (at, end) in ends.iter_mut().enumerate() {
        let is_escaped = (block[at + 1] == b'\\') & (block[at] != b'\\');
        *end = u8::from((block[at + AHEAD] == b'"') & !is_escaped);
    }
    ends.iter().fold(0, |any, end| any | end) == 0
}

impl Default for Raw<'_> {
    /// No value.
    fn default() -> Self {
        Self { text: "", document: None, span: 0 }
    }
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
        Ok(Self { text, ..Self::default() })
    }
}

/// The members of an object or the elements of an array, one after another.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Parts<'a> {
    rest: Raw<'a>,
}

impl<'a> Parts<'a> {
    /// The next member: its name and its value.
    pub(super) fn member(&mut self) -> Option<(Raw<'a>, Raw<'a>)> {
        Some((self.next()?, self.next()?))
    }

    /// The span of the value at the beginning of the rest, if it is long.
    fn span(&self) -> Option<Span> {
        let document = self.rest.document?;
        let span = document.long.get(self.rest.span as usize)?;
        (span.start == document.start(self.rest.text)).then_some(*span)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let rest = &mut self.rest;
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\t' | b'\r' | b',' | b':');
        rest.text = rest.text.get(rest.text.bytes().take_while(is_between).count()..)?;
        let span = self.span();
        let rest = &mut self.rest;
        let length = span.map_or_else(|| length_of(rest.text), |span| span.length as usize);
        let (text, after) = rest.text.split_at_checked(length).filter(|(text, _)| !text.is_empty())?;
        let value = Raw { text, span: rest.span + u32::from(span.is_some()), ..*rest };
        *rest = Raw { text: after, span: span.map_or(rest.span, |span| span.next), ..*rest };
        Some(value)
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
