//! JSON output with a bound that holds during writing.

use std::io;

use super::escapes::escaped_length;
use crate::limits::{KEPT_BUFFER, growth};

/// Written bytes, at most `limit` of them. Anything beyond the limit is dropped and remembered, so that
/// writers need not check each piece.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

/// The output exceeded its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl Output {
    /// An empty output of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, is_over: false }
    }

    /// An empty output of at most `limit` bytes, with room for the expected bytes.
    pub fn with_capacity(limit: usize, capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity.min(limit)), limit, is_over: false }
    }

    /// Adds pieces of JSON.
    pub fn write(&mut self, pieces: &[&str]) {
        if self.has_room(pieces.iter().map(|piece| piece.len()).sum()) {
            pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece.as_bytes()));
        }
    }

    /// Adds a string, quoted and escaped.
    pub fn string(&mut self, text: &str) {
        let length = escaped_length(text);
        if length == text.len() {
            return self.write(&["\"", text, "\""]);
        }
        self.reserve(length + "\"\"".len());
        // A string always serializes, and an overrun is remembered.
        let _ = serde_json::to_writer(self, text);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.add(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The written bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Drops the written bytes, and keeps the buffer if it is small.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BUFFER);
    }

    /// Removes everything after the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Whether the output exceeded its limit.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The written bytes.
    ///
    /// # Errors
    /// The output exceeded its limit.
    pub fn into_bytes(self) -> Result<Vec<u8>, TooLarge> {
        if self.is_over { Err(TooLarge) } else { Ok(self.bytes) }
    }

    /// Adds bytes.
    pub fn add(&mut self, piece: &[u8]) {
        if self.has_room(piece.len()) {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Makes room for what is written next, where the limit allows it.
    fn has_room(&mut self, size: usize) -> bool {
        self.is_over |= size > self.limit.saturating_sub(self.bytes.len());
        if !self.is_over {
            self.reserve(size);
        }
        !self.is_over
    }

    /// Makes room for the expected bytes, within the limit.
    pub fn reserve(&mut self, size: usize) {
        if self.bytes.capacity() - self.bytes.len() < size {
            let room = self.limit.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(growth(self.bytes.len(), size).min(room));
        }
    }
}

impl io::Write for &mut Output {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.add(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Separates the elements of a list in the output.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Separated(bool);

impl Separated {
    /// Whether an element was written.
    pub(super) fn is_begun(self) -> bool {
        self.0
    }

    /// Called before each element.
    pub(super) fn next(&mut self, out: &mut Output) {
        if std::mem::replace(&mut self.0, true) {
            out.write(&[","]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, TooLarge};

    #[test]
    fn output_up_to_its_limit_is_kept() {
        let mut out = Output::new(9);
        out.write(&["{\"a\":", "1}"]);
        out.string("");
        assert_eq!(out.into_bytes().expect("within"), b"{\"a\":1}\"\"");
    }

    #[test]
    fn output_over_its_limit_is_an_error_and_takes_no_memory() {
        let mut out = Output::new(1000);
        for _ in 0..100_000 {
            out.string("0123456789");
        }
        assert!(out.is_over() && out.bytes().len() <= 1000 && out.bytes.capacity() <= 1000);
        assert_eq!(out.into_bytes(), Err(TooLarge));
    }
}
