//! Text from pieces that a provider may cut anywhere, even within a character.
use crate::limits::{KEPT_BUFFER, growth};

/// The joined text of pieces.
#[derive(Debug, Default)]
pub struct Joined {
    text: String,
    /// The first half of a surrogate pair; the second half may come with the next piece.
    half: Option<u16>,
    /// Bytes of a character whose rest may come with the next piece.
    bytes: Vec<u8>,
}

/// A byte that is not UTF-8 arrives as a lone surrogate, `\udc80` to `\udcff`: see [`super::chat::utf8`].
const BYTES: std::ops::RangeInclusive<u16> = 0xDC80..=0xDCFF;

impl Joined {
    /// The text so far, without an incomplete character at its end.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// Adds a piece, in WTF-8: UTF-8 that may hold surrogates.
    pub fn push(&mut self, mut piece: &[u8]) {
        loop {
            let error = match std::str::from_utf8(piece) {
                Ok(text) => return self.push_str(text),
                Err(error) => error,
            };
            let (valid, rest) = piece.split_at(error.valid_up_to());
            self.push_str(std::str::from_utf8(valid).unwrap_or_default());
            piece = match rest {
                [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, rest @ ..] => {
                    self.surrogate(0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F));
                    rest
                }
                _ => {
                    self.end();
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    &rest[error.error_len().unwrap_or(rest.len())..]
                }
            };
        }
    }

    /// Marks the end: an incomplete character is dropped.
    pub fn end(&mut self) {
        if self.half.take().is_some() || !self.bytes.is_empty() {
            self.bytes.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// Drops the text except an incomplete character.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT_BUFFER);
    }

    fn push_str(&mut self, text: &str) {
        if !text.is_empty() {
            self.end();
            if self.text.capacity() - self.text.len() < text.len() {
                self.text.reserve_exact(match self.text.len() {
                    0 => text.len(),
                    length => growth(length, text.len()),
                });
            }
            self.text.push_str(text);
        }
    }

    fn surrogate(&mut self, unit: u16) {
        let joined = self.half.and_then(|half| char::decode_utf16([half, unit]).next()?.ok());
        if let Some(joined) = joined {
            self.half = None;
            self.text.push(joined);
        } else if BYTES.contains(&unit) && self.half.is_none() {
            self.byte((unit & 0xFF) as u8);
        } else {
            self.end();
            self.half = Some(unit);
            if unit >= 0xDC00 {
                self.end();
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
        match std::str::from_utf8(&self.bytes) {
            Ok(character) => {
                self.text.push_str(character);
                self.bytes.clear();
            }
            // It may begin another character.
            Err(error) if error.error_len().is_some() => {
                self.end();
                self.bytes.extend(Some(byte).filter(|byte| *byte >= 0xC2));
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Joined;

    fn joined(pieces: &[&[u8]]) -> String {
        let mut joined = Joined::default();
        for piece in pieces {
            joined.push(piece);
        }
        joined.end();
        joined.text().to_owned()
    }

    /// A surrogate in WTF-8.
    fn wtf8(unit: u16) -> [u8; 3] {
        [0xED, 0x80 | ((unit >> 6) & 0x3F) as u8, 0x80 | (unit & 0x3F) as u8]
    }

    #[test]
    fn characters_cut_in_two_are_joined() {
        let (high, low) = (wtf8(0xD83D), wtf8(0xDE00));
        assert_eq!(joined(&[b"a", &high, &low, b"b"]), "a😀b");
        assert_eq!(joined(&[&[&high[..], &low].concat()]), "😀");
        let bytes: Vec<[u8; 3]> = "é😀".bytes().map(|byte| wtf8(0xDC00 | u16::from(byte))).collect();
        assert_eq!(joined(&bytes.iter().map(|byte| &byte[..]).collect::<Vec<_>>()), "é😀");
    }

    #[test]
    fn halves_that_stay_alone_are_replaced() {
        let (high, low) = (wtf8(0xD83D), wtf8(0xDE00));
        assert_eq!(joined(&[&high, b"x"]), "\u{fffd}x");
        assert_eq!(joined(&[&low, &high]), "\u{fffd}\u{fffd}");
        assert_eq!(joined(&[&high, &high, &low]), "\u{fffd}😀");
        let byte = |byte: u8| wtf8(0xDC00 | u16::from(byte));
        assert_eq!(joined(&[&byte(0xF0), b"x", &byte(0x9F)]), "\u{fffd}x\u{fffd}");
        assert_eq!(joined(&[&byte(0xF0), &byte(0xC3), &byte(0xA9)]), "\u{fffd}é");
        assert_eq!(joined(&[b"\xff", b"\xed"]), "\u{fffd}\u{fffd}");
    }
}
