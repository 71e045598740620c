//! One pass over a JSON document: that it is valid, how deep it nests, and where the members of its object stand.

use std::ops::Range;

/// Most levels of objects and arrays that a scan follows.
pub const MAX_LEVELS: usize = 128;

/// Bytes of a string that are looked at word by word before blocks are: most strings are short.
const BEGINNING: usize = 24;
/// Bytes of a string that are looked at together.
const BLOCK: usize = 64;
/// Bytes ahead of a block that tell whether its first one is escaped.
const AHEAD: usize = 4;
/// Vector instructions look at a block. A processor that need not have them, and a build that is not optimised, are faster with words.
const HAS_VECTORS: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) && (cfg!(test) || !cfg!(debug_assertions));

/// Calls `each` with the members of the object that `json` is: names and values as they are written. It takes half the time of serde_json, and
/// returns `None` when it is not certain: `json` may be invalid or nest deeper than [`MAX_LEVELS`], or a name of that object has an escape.
/// `each` may have been called then too.
pub fn scan<'a>(json: &'a str, each: &mut dyn FnMut(&'a str, &'a str)) -> Option<()> {
    let mut scan = Scan { bytes: json.as_bytes(), at: 0 };
    scan.require(b'{')?;
    let mut has_more = !scan.take(b'}');
    while has_more {
        let name = json.get(scan.name()?).filter(|name| !name.contains('\\'))?;
        scan.skip_blanks();
        let start = scan.at;
        scan.value()?;
        each(name, json.get(start..scan.at)?);
        has_more = scan.take(b',');
        if !has_more {
            scan.require(b'}')?;
        }
    }
    scan.skip_blanks();
    (scan.at == json.len()).then_some(())
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Passes `byte` and the blanks ahead of it; whether it is there.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let is_there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn require(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Passes the name of a member and its colon; where the name stands, without its quotes.
    #[inline]
    fn name(&mut self) -> Option<Range<usize>> {
        self.require(b'"')?;
        let start = self.at;
        self.string()?;
        let name = start..self.at - 1;
        self.require(b':')?;
        Some(name)
    }

    /// Passes a value, blanks ahead of it included.
    fn value(&mut self) -> Option<()> {
        // What is open in it, a bit each, the innermost lowest: whether it is an object. The highest 1 marks the end.
        let mut open = 1_u128;
        loop {
            self.skip_blanks();
            let first = *self.bytes.get(self.at)?;
            self.at += 1;
            match first {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    // With the object around it, that many levels.
                    if open.leading_zeros() == 0 {
                        return None;
                    }
                    // Each closing bracket stands two places after its opening one.
                    if !self.take(first + 2) {
                        open = open << 1 | u128::from(first == b'{');
                        if first == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                b'-' => {
                    self.at += 1;
                    self.number(*self.bytes.get(self.at - 1)?)?;
                }
                _ => self.number(first)?,
            }
            // The end of what it stands in, or the next value there.
            while open > 1 {
                let is_object = open & 1 == 1;
                if self.take(b',') {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                self.require(if is_object { b'}' } else { b']' })?;
                open >>= 1;
            }
            if open == 1 {
                return Some(());
            }
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(rest).then(|| self.at += rest.len())
    }

    /// Passes a number whose first digit has been passed.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn skip_digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        self.skip_digits();
        (self.at > start).then_some(())
    }

    /// Passes a string whose opening quote has been passed.
    fn string(&mut self) -> Option<()> {
        let mut until = self.at + BEGINNING;
        loop {
            while self.at < until {
                let rest = self.bytes.get(self.at..)?;
                let first = *rest.first()?;
                if first == b'\\' {
                    self.at += escape(&rest[1..])?;
                    continue;
                }
                let one = || usize::from(first != b'"' && first >= 0x20);
                let plain = rest.first_chunk().map_or_else(one, |word| plain_in(u64::from_le_bytes(*word)));
                self.at += plain;
                match rest.get(plain) {
                    Some(b'"') => {
                        self.at += 1;
                        return Some(());
                    }
                    Some(0..0x20) => return None,
                    _ => {}
                }
            }
            if HAS_VECTORS {
                self.blocks();
            }
            until = self.at + BLOCK;
        }
    }

    /// Passes blocks that are inside a string, and ends ahead of a byte that is not escaped.
    fn blocks(&mut self) {
        let block_at = |at: usize| self.bytes.get(at.checked_sub(AHEAD)?..)?.first_chunk();
        while let Some(block) = block_at(self.at).filter(|block| is_inside(block)) {
            // The first of several backslashes is not escaped.
            let backslashes = block[AHEAD..].iter().rev().take_while(|byte| **byte == b'\\').count();
            self.at += BLOCK - backslashes;
            if backslashes == BLOCK {
                return;
            }
        }
    }
}

/// How many of these bytes, the lowest first, stand ahead of a quote, a backslash or a control character.
fn plain_in(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * b'"' as u64));
    let backslash = is_zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    // A borrow marks bytes above the first one alone.
    ((quote | backslash | control) & (ONES << 7)).trailing_zeros() as usize / 8
}

/// Length of an escape, its backslash included, of what stands after that.
fn escape(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(2),
        [b'u', a, b, c, d, ..] if is_hex(*a) & is_hex(*b) & is_hex(*c) & is_hex(*d) => Some(6),
        _ => None,
    }
}

fn is_hex(digit: u8) -> bool {
    (digit.wrapping_sub(b'0') < 10) | ((digit | 0x20).wrapping_sub(b'a') < 6)
}

/// Whether a block, and what stands ahead of it, is inside a string and valid; `false` also where it is not certain: where an escape is
/// uncommon, or more than three backslashes stand together. No branch depends on a byte.
fn is_inside(block: &[u8; AHEAD + BLOCK]) -> bool {
    let mut faults = [0_u8; BLOCK];
    for (at, fault) in faults.iter_mut().enumerate() {
        let byte = block[at + AHEAD];
        let is_backslash = |back: usize| block[at + AHEAD - back] == b'\\';
        // One backslash ahead of it, or three.
        let may_be_escaped = is_backslash(1) & (!is_backslash(2) | is_backslash(3));
        let is_escaped = is_backslash(1) & (!is_backslash(2) | (is_backslash(3) & !is_backslash(4)));
        let is_quote = byte == b'"';
        let may_follow = (byte == b'n') | (byte == b't') | (byte == b'r') | (byte == b'\\') | (byte == b'/');
        let is_fault = (byte < 0x20) | (is_quote & !is_escaped) | (may_be_escaped & !is_quote & !may_follow);
        *fault = u8::from(is_fault);
    }
    faults.iter().fold(0, |any, fault| any | fault) == 0
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::{MAX_LEVELS, scan};
    use crate::json::{deeper_than, members};

    /// The members that a scan gives, if it is certain.
    fn scanned(json: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        scan(json, &mut |name, value| found.push((name.to_owned(), value.to_owned())))?;
        Some(found)
    }

    /// The members that serde_json finds, where the document is valid and not too deep.
    fn reference(json: &str) -> Option<Vec<(String, String)>> {
        serde_json::from_str::<IgnoredAny>(json).ok()?;
        let mut found = Vec::new();
        members(json, |name, value| found.push((name.to_owned(), value.get().to_owned()))).ok()?;
        deeper_than(json.as_bytes(), MAX_LEVELS).is_none().then_some(found)
    }

    fn nested(levels: usize) -> String {
        let arrays = levels - 1;
        format!("{{\"a\":{}1{}}}", "[".repeat(arrays), "]".repeat(arrays))
    }

    #[test]
    fn scan_of_a_valid_document_gives_its_members_as_they_are_written() {
        let long = "0123456789 äöü \\n\\t\\\\ \\\"x\\\" \\/ \\u00e9 \\\\\\\" \\b ".repeat(20);
        for document in [
            "{}".to_owned(),
            " \r\n\t{ } \n".to_owned(),
            r#"{"a":1,"b":-0.5e+10,"c":[],"d":{},"e":[ 1 , {"x":[null,true,false]} , "s" ] , "a":0}"#
                .to_owned(),
            format!("{{\"long\":\"{long}\",\"{}\":[\"{long}\"]}}", long.replace(['\\', '"'], "")),
            format!("{{\"backslashes\":\"{}\"}}", "\\\\".repeat(200)),
            nested(MAX_LEVELS),
        ] {
            let found = scanned(&document).unwrap_or_else(|| panic!("certain: {document}"));
            assert_eq!(Some(found), reference(&document), "{document}");
        }
    }

    #[test]
    fn scan_of_what_is_invalid_too_deep_or_no_object_is_not_certain() {
        for document in [
            "",
            "{",
            "[]",
            "1",
            "null",
            "\"{}\"",
            "{}x",
            "{}{}",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1;\"b\":2}",
            "{1:1}",
            "{\"a\":[1,]}",
            "{\"a\":[,]}",
            "{\"a\":[1}}",
            "{\"a\":{]}",
            "{\"a\":[}]",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":1e+}",
            "{\"a\":tru}",
            "{\"a\":nul",
            "{\"a\":True}",
            "{\"a\":NaN}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\u{0}\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\u12",
            "{\"a\":\"\\",
            "{\"a\":\"x",
            "{\"a\":\u{b}1}",
            "{\"a\":\u{a0}1}",
            "{\"\\u0061\":1}",
        ] {
            assert_eq!(scanned(document), None, "{document}");
        }
        assert_eq!(scanned(&nested(MAX_LEVELS + 1)), None);
    }

    #[test]
    fn each_byte_of_a_string_is_looked_at_wherever_it_stands() {
        for length in 0..200 {
            for escapes in ["\\n", "\\\\", "\\\"", "\\u00e9", "\\\\\\\"", "\\f"] {
                let valid = format!("{{\"a\":\"{}{escapes}{}\"}}", "x".repeat(length), "y".repeat(80));
                assert_eq!(scanned(&valid), reference(&valid), "{valid}");
            }
            for invalid in ["\n", "\u{1f}", "\\x", "\\u12", "\"", "\\\\\"", "\\\\\\", "\\\\\\\\\""] {
                for end in ["\"}", "y\"}", &format!("{}\"}}", "y".repeat(80))] {
                    let json = format!("{{\"a\":\"{}{invalid}{end}", "x".repeat(length));
                    assert_eq!(scanned(&json), reference(&json), "{json}");
                }
            }
        }
    }

    /// Documents of what JSON is made of, put together at random.
    #[test]
    fn scan_is_certain_of_nothing_that_serde_json_refuses() {
        const WORDS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\":",
            "\"b\":\"",
            "\\",
            "\\\\",
            "\\\"",
            "\\n",
            "\\u0041",
            "\\u",
            "n",
            " ",
            "\n",
            "1",
            "-",
            "0",
            ".",
            "e",
            "true",
            "null",
            "é",
            "\u{7f}",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\",
        ];
        let mut dice = 7_u64;
        let mut roll = |most: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % most
        };
        let mut valid = 0;
        for round in 0..12_000 {
            let text: String = (0..roll(20)).map(|_| WORDS[roll(WORDS.len())]).collect();
            let json = match round % 3 {
                0 => text,
                1 => format!("{{\"a\":\"{text}\"}}"),
                _ => format!("{{\"a\":[{text}]}}"),
            };
            let (found, expected) = (scanned(&json), reference(&json));
            valid += usize::from(expected.is_some());
            // Only a name with an escape may make the difference.
            if found.is_some() || !json.contains("\\") {
                assert_eq!(found, expected, "{json}");
            } else if let Some(members) = expected {
                let is_written = |(name, _): &(String, String)| json.contains(&format!("\"{name}\":"));
                assert!(!members.iter().all(is_written), "{json}");
            }
        }
        assert!(valid > 200, "{valid} valid documents");
    }
}
