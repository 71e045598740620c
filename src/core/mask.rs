//! Finds a provider's secrets in its responses, in any notation, and masks them.
//!
//! A provider that quotes a key may write it as it is, with JSON's escapes (once, or in a string within a string), percent-encoded or
//! with HTML's character references. All of these are read as the bytes they stand for, in one pass over the text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr_iter, memchr3};

use super::secret::Secret;
use super::sort::sort_by;
use crate::limits::MASK_OVERLAP;

/// A shorter one counts as no secret: masking it could garble the text.
const SHORTEST_MASKED: usize = 8;

/// A shorter secret may be an ordinary word (`lm-studio`, `not-needed`) of a model's text.
const SHORTEST_UNMISTAKABLE: usize = 16;

/// Longest escape of a byte, its backslashes aside, bytes: `&#x0000002d;`.
const LONGEST_ESCAPE: usize = 12;

/// Parts of the names of header fields whose value is a credential.
const CREDENTIAL_NAMES: &[&str] = &["auth", "key", "token", "secret", "cookie", "credential", "password"];

/// The secrets to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them: in a provider's errors, in its header fields, in log lines.
    All,
    /// Those that cannot be a word of an ordinary text: in successful responses, of which nothing else may change.
    Unmistakable,
}

/// The secrets of one provider: its keys, and the values of its own header fields.
#[derive(Clone)]
pub struct Mask {
    needles: Vec<Needle>,
    /// The shortest of them, bytes.
    shortest: usize,
    /// Bytes that occur in any of them.
    alphabet: [bool; 256],
}

#[derive(Clone)]
struct Needle {
    finder: Finder<'static>,
    shown: String,
    is_unmistakable: bool,
}

impl Mask {
    /// The mask of a provider whose replicas have these keys and header fields.
    pub fn of<'a>(replicas: impl Iterator<Item = (&'a Secret, &'a [(String, Secret)])>) -> Self {
        let mut mask = Self { needles: Vec::new(), shortest: usize::MAX, alphabet: [false; 256] };
        for (key, headers) in replicas {
            mask.add(key.expose(), true);
            for (name, value) in headers {
                let is_credential = CREDENTIAL_NAMES.iter().any(|part| name.contains(part));
                mask.add(value.expose(), is_credential);
                // In `Bearer KEY` the key alone is a secret as well.
                if let Some((_, key)) = value.expose().split_once(' ').filter(|_| is_credential) {
                    mask.add(key, true);
                }
            }
        }
        mask
    }

    fn add(&mut self, secret: &str, is_credential: bool) {
        if secret.len() < SHORTEST_MASKED {
            return;
        }
        let has = |of: fn(&u8) -> bool| secret.bytes().any(|byte| of(&byte));
        let is_unmistakable = is_credential
            && secret.len() >= SHORTEST_UNMISTAKABLE
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_alphabetic);
        let read = read(secret.as_bytes());
        if let Some(same) = self.needles.iter_mut().find(|needle| needle.finder.needle() == read) {
            same.is_unmistakable |= is_unmistakable;
            return;
        }
        self.shortest = self.shortest.min(read.len());
        read.iter().for_each(|byte| self.alphabet[usize::from(*byte)] = true);
        let shown = Secret::new(secret.to_owned()).masked();
        self.needles.push(Needle { finder: Finder::new(&read).into_owned(), shown, is_unmistakable });
    }

    /// Whether `text` holds a secret.
    pub fn is_in(&self, text: &[u8], scope: Scope) -> bool {
        !self.places(text, scope).is_empty()
    }

    /// `text` with every secret masked. It need not be UTF-8.
    pub fn hide(&self, text: Vec<u8>, scope: Scope) -> Vec<u8> {
        match self.hidden(&text, scope) {
            Cow::Owned(hidden) => hidden,
            Cow::Borrowed(_) => text,
        }
    }

    /// As [`Mask::hide`]; copies a text only where it holds a secret.
    pub fn hidden<'a>(&self, text: &'a [u8], scope: Scope) -> Cow<'a, [u8]> {
        let places = self.places(text, scope);
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut from = 0;
        for (place, shown) in places {
            out.extend_from_slice(&text[from..place.start]);
            out.extend_from_slice(shown.as_bytes());
            from = place.end;
        }
        out.extend_from_slice(&text[from..]);
        Cow::Owned(out)
    }

    /// Overwrites every unmistakable secret in `text` without a change of its length. Returns how many bytes at the end, at most
    /// [`MASK_OVERLAP`], may be the beginning of another and must wait for the next bytes.
    pub fn overwrite(&self, text: &mut [u8]) -> usize {
        let places: Vec<_> =
            self.places(text, Scope::Unmistakable).into_iter().map(|(place, _)| place).collect();
        for place in places {
            text[place].fill(b'*');
        }
        self.begun(&text[text.len().saturating_sub(MASK_OVERLAP)..])
    }

    /// How many bytes at the end of `text` may be the beginning of an unmistakable secret.
    fn begun(&self, text: &[u8]) -> usize {
        let secrets = || self.needles.iter().filter(|it| it.is_unmistakable).map(|it| it.finder.needle());
        let begun = |text: &[u8]| secrets().map(|secret| begun(secret, text)).max();
        let escape = begun_escape(text);
        let whole = &text[..text.len() - escape];
        let Some(count) = begun(whole) else { return 0 };
        if !self.has_telling_escape(whole) {
            return count + escape;
        }
        let bytes = read(whole);
        let count = begun(&bytes).unwrap_or(0);
        text.len() - written(whole, bytes.len() - count)
    }

    /// The places of secrets in `text`, in order and without overlap, and the replacement of each.
    fn places(&self, text: &[u8], scope: Scope) -> Vec<(Range<usize>, &str)> {
        // Most header values are shorter than a key.
        if text.len() < self.shortest {
            return Vec::new();
        }
        if !self.has_telling_escape(text) {
            return self.hits(text, scope);
        }
        let hits = self.hits(&read(text), scope);
        if hits.is_empty() { hits } else { located(text, hits) }
    }

    /// Whether `text` contains an escape of a byte that occurs in a secret.
    fn has_telling_escape(&self, text: &[u8]) -> bool {
        let mut rest = text;
        while let Some(at) = memchr3(b'\\', b'%', b'&', rest) {
            let (byte, length) = unit(&rest[at..]);
            if (length > 1 || byte == b'\\') && self.alphabet[usize::from(byte)] {
                return true;
            }
            rest = &rest[at + length..];
        }
        false
    }

    /// The places in a text without escapes.
    fn hits(&self, text: &[u8], scope: Scope) -> Vec<(Range<usize>, &str)> {
        let mut hits = Vec::new();
        for needle in self.needles.iter().filter(|it| scope == Scope::All || it.is_unmistakable) {
            let length = needle.finder.needle().len();
            hits.extend(needle.finder.find_iter(text).map(|at| (at..at + length, &*needle.shown)));
        }
        // Where they overlap, the replacement of the first and longest stands for all of them.
        sort_by(&mut hits, |(a, _), (b, _)| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        let mut apart: Vec<(Range<usize>, &str)> = Vec::with_capacity(hits.len());
        for (place, shown) in hits {
            match apart.last_mut().filter(|(last, _)| place.start < last.end) {
                Some((last, _)) => last.end = last.end.max(place.end),
                None => apart.push((place, shown)),
            }
        }
        apart
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mask").field("secrets", &self.needles.len()).finish_non_exhaustive()
    }
}

/// How many bytes of `needle`, but not all, `text` ends with.
fn begun(needle: &[u8], text: &[u8]) -> usize {
    let last = &text[text.len().saturating_sub(needle.len().saturating_sub(1))..];
    let Some(first) = needle.first() else { return 0 };
    memchr_iter(*first, last).find(|at| needle.starts_with(&last[*at..])).map_or(0, |at| last.len() - at)
}

/// How many bytes at the end of `text` may be the beginning of an escape, or a whole one.
fn begun_escape(text: &[u8]) -> usize {
    let near = text.len().saturating_sub(LONGEST_ESCAPE);
    let Some(at) = memchr3(b'\\', b'%', b'&', &text[near..]) else { return 0 };
    let backslashes = text[..near + at].iter().rev().take_while(|byte| **byte == b'\\').count();
    text.len() - (near + at - backslashes)
}

/// The length of `text` up to its decoded byte of that number.
fn written(text: &[u8], count: usize) -> usize {
    (0..count).fold(0, |at, _| at + unit(&text[at..]).1)
}

/// Converts places in the decoded bytes to places in `text`.
fn located<'a>(text: &[u8], hits: Vec<(Range<usize>, &'a str)>) -> Vec<(Range<usize>, &'a str)> {
    let (mut at, mut count) = (0, 0);
    let mut advance_to = |wanted: usize| {
        while count < wanted {
            at += unit(&text[at..]).1;
            count += 1;
        }
        at
    };
    hits.into_iter().map(|(hit, shown)| (advance_to(hit.start)..advance_to(hit.end), shown)).collect()
}

/// Decodes `text`.
fn read(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (byte, length) = unit(rest);
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

/// The first decoded byte of `text`, and the length of its notation, at least one. `text` is not empty.
fn unit(text: &[u8]) -> (u8, usize) {
    let escape = match text[0] {
        b'\\' => return after_backslashes(text),
        b'%' => hex(&text[1..], 2).map(|byte| (byte, 3)),
        b'&' => reference(&text[1..]),
        _ => None,
    };
    escape.unwrap_or((text[0], 1))
}

/// JSON's escapes, and those of languages that also have `\x2d` and `\'`. A string within a string doubles its backslashes:
/// any number of them is one.
fn after_backslashes(text: &[u8]) -> (u8, usize) {
    let run = text.iter().take_while(|byte| **byte == b'\\').count();
    let rest = &text[run..];
    let escaped = match rest.first() {
        Some(b'u') => hex(&rest[1..], 4).map(|byte| (byte, 5)),
        Some(b'x') => hex(&rest[1..], 2).map(|byte| (byte, 3)),
        Some(&byte @ (b'"' | b'\'' | b'/')) => Some((byte, 1)),
        _ => None,
    };
    escaped.map_or((b'\\', run), |(byte, length)| (byte, run + length))
}

/// An ASCII character as so many hexadecimal digits.
fn hex(text: &[u8], digits: usize) -> Option<u8> {
    number(text.get(..digits)?, 16)
}

/// HTML's references to ASCII characters, after their `&`: `#45;`, `#x2d;`, `amp;`.
fn reference(text: &[u8]) -> Option<(u8, usize)> {
    const NAMED: &[(&[u8], u8)] =
        &[(b"amp;", b'&'), (b"quot;", b'"'), (b"apos;", b'\''), (b"lt;", b'<'), (b"gt;", b'>')];
    const LONGEST: usize = 10;
    if let Some((name, byte)) = NAMED.iter().find(|(name, _)| text.starts_with(name)) {
        return Some((*byte, 1 + name.len()));
    }
    let digits = text.strip_prefix(b"#")?;
    let end = digits.iter().take(LONGEST).position(|byte| *byte == b';')?;
    let byte = match &digits[..end] {
        [b'x' | b'X', hexadecimal @ ..] => number(hexadecimal, 16),
        decimal => number(decimal, 10),
    };
    Some((byte?, end + 3))
}

/// An ASCII character's number.
fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix);
    let value =
        digits.iter().try_fold(0_u32, |value, byte| value.checked_mul(radix)?.checked_add(digit(byte)?))?;
    u8::try_from(value).ok().filter(|byte| byte.is_ascii() && !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Mask, Scope, read, unit};

    fn mask(secrets: &[&str]) -> Mask {
        let mut mask = Mask { needles: Vec::new(), shortest: usize::MAX, alphabet: [false; 256] };
        secrets.iter().for_each(|secret| mask.add(secret, true));
        mask
    }

    fn hidden(secrets: &[&str], text: &str) -> String {
        let hidden = mask(secrets).hide(text.as_bytes().to_vec(), Scope::All);
        String::from_utf8(hidden).expect("text")
    }

    #[test]
    fn hide_secret_in_any_writing_masks_it_in_every_place() {
        let key = "sk-a/b+c=1234567890";
        for written in [
            key,
            r"sk-a\/b+c=1234567890",
            r"sk\u002da/b+c=1234567890",
            r"sk\u002Da\u002fb\u002bc\u003D1234567890",
            r"sk\\u002da\\/b+c=1234567890",
            r"\\\\u0073k-a/b+c=123456789\u0030",
            r"\x73k-a/b+c=1234567890",
            "sk%2da%2Fb%2Bc%3D1234567890",
            "sk&#45;a&#x2F;b&#x02b;c&#0061;1234567890",
            "%73%6b%2d%61%2f%62%2b%63%3d%31%32%33%34%35%36%37%38%39%30",
        ] {
            let text = format!(r#"{{"a":"x\n{written} \u4e2d","b":"{written}{written}"}}"#);
            let expected = r#"{"a":"x\nsk-***90 \u4e2d","b":"sk-***90sk-***90"}"#;
            assert_eq!(hidden(&[key], &text), expected, "{written}");
        }
    }

    #[test]
    fn hide_secret_that_looks_escaped_masks_it() {
        for (key, written) in [
            ("abc%2Dd-1234567", "abc%2Dd-1234567"),
            (r"abc\d-1234567", r"abc\\d-1234567"),
            (r"abc\d-1234567", r"abc\d-1234567"),
            (r#"abc"d&1234567"#, r#"abc\"d&amp;1234567"#),
            (r#"abc"d&1234567"#, "abc&quot;d%261234567"),
        ] {
            let shown = hidden(&[key], &format!("<{written}>"));
            assert_eq!(shown, "<abc***67>", "{key} {written}");
        }
    }

    #[test]
    fn hide_text_without_secret_leaves_every_byte() {
        let key = "sk-a/b+c=1234567890";
        for text in [
            "",
            "sk-",
            r"sk-a/b+c=123456789 \/ \u002d %2d & &#45; \",
            r"sk\u002da/b+c=123456789\u00",
            "%%%&&&\\\\\\",
            "&#;&#x;&#99999999999;&#xffffffff;",
            r"\u4e2d\ud83d\ude00",
        ] {
            assert_eq!(hidden(&[key], text), text);
        }
    }

    #[test]
    fn hide_beside_bytes_that_are_no_text_masks_every_place() {
        let text = b"\xe9 sk-1234567890 x sk-1234567890\xff".to_vec();
        assert_eq!(mask(&["sk-1234567890"]).hide(text, Scope::All), b"\xe9 sk-***90 x sk-***90\xff");
    }

    #[test]
    fn hide_secrets_that_overlap_shows_the_first_for_all() {
        assert_eq!(hidden(&["key-12345678", "12345678"], "a key-12345678 b"), "a key***78 b");
        assert_eq!(hidden(&["key-12345678", "5678-another"], "a key-12345678-another b"), "a key***78 b");
        assert_eq!(hidden(&["short", "12345678"], "short 12345678"), "short ***");
    }

    #[test]
    fn hide_in_a_good_response_masks_unmistakable_secrets_only() {
        let mask = mask(&["lm-studio", "sk-no-key-required", "sk-1234567890abcdef"]);
        let text = "use lm-studio, sk-no-key-required, sk-1234567890abcdef";
        let hidden = mask.hide(text.as_bytes().to_vec(), Scope::Unmistakable);
        assert_eq!(String::from_utf8_lossy(&hidden), "use lm-studio, sk-no-key-required, sk-***ef");
    }

    #[test]
    fn overwrite_of_pieces_hides_a_secret_wherever_they_are_cut() {
        let mask = mask(&["sk-1234567890abcdef", "lm-studio"]);
        for written in [
            "sk-1234567890abcdef",
            r"sk\u002d1234567890abcdef",
            r"\\\\u0073k-1234567890abcde\u0066",
            "sk%2d1234567890abcdef",
            "%73k-1234567890abcde%66",
            "sk&#x0000002d;1234567890abcde&#102;",
        ] {
            let (lead, rest) = (b"\xffsk-1%2\\u00".to_vec(), b" lm-studio sk-1234567890abcde");
            let text = [&lead, written.as_bytes(), rest].concat();
            let expected = [&lead, "*".repeat(written.len()).as_bytes(), rest].concat();
            for cut in 0..text.len() {
                let (mut held, mut out) = (Vec::new(), Vec::new());
                for piece in [&text[..cut], &text[cut..]] {
                    held.extend_from_slice(piece);
                    let kept = mask.overwrite(&mut held);
                    out.extend(held.drain(..held.len() - kept));
                }
                out.append(&mut held);
                assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{cut}");
            }
        }
    }

    #[test]
    fn overwrite_holds_back_no_more_than_may_be_a_beginning() {
        for (text, held) in [
            ("abc", 0),
            ("abc sk-12", 5),
            (r"abc sk\u002d1", 9),
            ("abc 100% of", 4),
            ("abc 100% of it all, and more", 0),
            (r"abc \\\\\\\\\\\\\\\\", 16),
        ] {
            assert_eq!(
                mask(&["sk-1234567890abcdef"]).overwrite(&mut text.as_bytes().to_vec()),
                held,
                "{text}"
            );
            assert_eq!(mask(&["lm-studio"]).overwrite(&mut text.as_bytes().to_vec()), 0, "{text}");
        }
    }

    #[test]
    fn hide_among_many_escapes_reads_each_once() {
        let key = "sk-1234567890abcdef";
        for filler in ["\\", "%2d", r"\u002d", "sk-1234567890abcde", "&#45;", "&#"] {
            let text = [filler.repeat((1 << 18) / filler.len()), key.to_owned()].concat();
            assert!(hidden(&[key], &text).ends_with("sk-***ef"), "{filler}");
        }
    }

    #[test]
    fn unit_on_any_bytes_reads_at_least_one_and_no_more_than_there_are() {
        let alphabet = b"\\u%&#x;02d\"/a";
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (state >> 60) as usize + 1;
            let text: Vec<u8> =
                (0..length).map(|at| alphabet[(state >> (at * 3 + 8)) as usize % alphabet.len()]).collect();
            let (_, used) = unit(&text);
            assert!((1..=text.len()).contains(&used), "{text:?}");
            assert!(read(&text).len() <= text.len());
        }
    }
}
