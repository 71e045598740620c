//! JSON strings without their escapes, in a single allocation.

use std::borrow::Cow;

/// The content of a valid JSON string without escapes, in WTF-8: UTF-8 that may hold surrogates, because a
/// character may be cut in two.
pub fn unescaped(inside: &str) -> Cow<'_, [u8]> {
    let mut rest = inside.as_bytes();
    let Some(mut at) = memchr::memchr(b'\\', rest) else { return Cow::Borrowed(rest) };
    // An escape is never shorter than its character.
    let mut out = Vec::with_capacity(rest.len());
    loop {
        out.extend_from_slice(&rest[..at]);
        rest = push_escaped(&mut out, &rest[at + 1..]);
        match memchr::memchr(b'\\', rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// Adds the character of an escape, given after its backslash. Returns the rest.
fn push_escaped<'a>(out: &mut Vec<u8>, escape: &'a [u8]) -> &'a [u8] {
    let Some((letter, rest)) = escape.split_first() else { return escape };
    out.push(match letter {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return push_unit(out, rest),
        other => *other,
    });
    rest
}

/// Adds a UTF-16 unit, combined with the next if they are a pair. Returns the rest.
fn push_unit<'a>(out: &mut Vec<u8>, digits: &'a [u8]) -> &'a [u8] {
    let Some((first, rest)) = unit(digits) else { return digits };
    let second = rest.strip_prefix(b"\\u").and_then(unit);
    let (character, rest) = match (char::from_u32(first.into()), second) {
        (None, Some((second, behind))) => match char::decode_utf16([first, second]).next() {
            Some(Ok(pair)) => (Some(pair), behind),
            _ => (None, rest),
        },
        (character, _) => (character, rest),
    };
    match character {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend([0xED, 0x80 | (first >> 6 & 0x3F) as u8, 0x80 | (first & 0x3F) as u8]),
    }
    rest
}

fn unit(digits: &[u8]) -> Option<(u16, &[u8])> {
    let (unit, rest) = digits.split_at_checked(4)?;
    Some((u16::from_str_radix(std::str::from_utf8(unit).ok()?, 16).ok()?, rest))
}

/// Upper bound of a text's size as a JSON string with escapes, without quotes, bytes.
pub(super) fn escaped_length(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => "\\u0000".len(),
        _ => 1,
    };
    text.bytes().map(length).sum()
}

#[cfg(test)]
mod tests {
    use super::{escaped_length, unescaped};

    #[test]
    fn escapes_become_what_they_stand_for() {
        for (inside, expected) in [
            ("", &b""[..]),
            ("plain é", "plain é".as_bytes()),
            (r#"\"\\\/\b\f\n\r\t"#, b"\"\\/\x08\x0C\n\r\t"),
            (r"a\u0041\u00e9\u20ACz", "aAé€z".as_bytes()),
            (r"\ud83d\ude00", "😀".as_bytes()),
            (r"\uD83Dx", b"\xED\xA0\xBDx"),
            (r"\ude00\ud83d", b"\xED\xB8\x80\xED\xA0\xBD"),
            (r"\ud83d\u0041", b"\xED\xA0\xBDA"),
            (r"\ud83d\ud83d\ude00", b"\xED\xA0\xBD\xF0\x9F\x98\x80"),
            (r"\ud83d\n", b"\xED\xA0\xBD\n"),
            // Invalid JSON strings may have any result.
            ("\\", b""),
            (r"\u12", b"12"),
        ] {
            assert_eq!(&*unescaped(inside), expected, "{inside}");
        }
    }

    #[test]
    fn length_with_escapes_is_never_too_small() {
        let text: String = (0..0x3000).filter_map(char::from_u32).collect();
        let written = serde_json::to_string(&text).expect("a string").len() - 2;
        let most = escaped_length(&text);
        assert!(most >= written && most < written + 5 * 4 + 1, "{most} for {written}");
    }
}
