//! Server-sent events (WHATWG HTML section 9.2): their lines, their data, and the end of the last complete one, in complete bytes and in bytes that
//! arrive in pieces.

use crate::limits::{KEPT_BUFFER, MAX_CHAT_EVENT, growth};

/// The beginning of a line of data.
const DATA: &[u8] = b"data:";

/// Lines that end in LF, CRLF or CR, without their ends.
pub struct Lines<'a>(pub &'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
        Some(line)
    }
}

/// The data of each line with data, unchanged after `data:`.
pub fn data(events: &[u8]) -> impl Iterator<Item = &[u8]> {
    Lines(events).filter_map(|line| line.strip_prefix(DATA))
}

/// Where the last complete event ends: after its blank line. Lines end in LF, CRLF or CR.
pub fn end_of_last_event(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).rev().map(|last| last + 1).find(|&end| {
        let head = &bytes[..end];
        head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") || head.ends_with(b"\r\r")
    })
}

/// Finds the data of events in bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Events {
    /// A line has ended: from now on a byte order mark is an ordinary character.
    has_begun: bool,
    /// The data of the current event, its lines with a line feed between them, followed by the line that has no end yet.
    buffer: Vec<u8>,
    /// Where that line begins.
    line: usize,
    /// The event has data, be it empty.
    has_data: bool,
    /// The last line ended with a CR: a LF after it belongs to it.
    behind_cr: bool,
}

/// An event is over [`MAX_CHAT_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTooLarge;

impl Events {
    /// Takes the next bytes; `event` gets the data of each event that is complete with them.
    ///
    /// # Errors
    /// An error of `event`, and an event that is too large.
    pub fn take<E: From<EventTooLarge>>(
        &mut self,
        mut bytes: &[u8],
        mut event: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.behind_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else { return Ok(self.add(bytes)?) };
            self.add(&bytes[..end])?;
            self.behind_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if self.buffer.len() > self.line {
                self.end_line();
            } else {
                if std::mem::take(&mut self.has_data) {
                    event(&self.buffer)?;
                }
                self.forget();
            }
        }
        Ok(())
    }

    /// Bytes held of an event that is not complete.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// The stream is over: its last event counts as complete, because some providers leave out the last line end.
    ///
    /// # Errors
    /// As [`Events::take`].
    pub fn end<E: From<EventTooLarge>>(
        &mut self,
        event: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b"\n\n", event)
    }

    /// Adds to the line that has no end yet.
    fn add(&mut self, piece: &[u8]) -> Result<(), EventTooLarge> {
        let size = self.buffer.len() + piece.len();
        if size > MAX_CHAT_EVENT {
            return Err(EventTooLarge);
        }
        if size > self.buffer.capacity() {
            self.buffer.reserve_exact(growth(self.buffer.len(), piece.len()));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// Handles a complete line; only `data` matters.
    fn end_line(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true)
            && self.buffer[self.line..].starts_with(b"\xEF\xBB\xBF")
        {
            self.buffer.drain(self.line..self.line + 3);
        }
        let name = match &self.buffer[self.line..] {
            b"data" => DATA.len() - 1,
            line if line.starts_with(b"data: ") => DATA.len() + 1,
            line if line.starts_with(DATA) => DATA.len(),
            _ => return self.buffer.truncate(self.line),
        };
        let value = self.line + name;
        if std::mem::replace(&mut self.has_data, true) {
            self.buffer[self.line] = b'\n';
            self.line += 1;
        }
        self.buffer.drain(self.line..value);
        self.line = self.buffer.len();
    }

    fn forget(&mut self) {
        self.line = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::{EventTooLarge, Events};
    use super::{Lines, data, end_of_last_event};
    use crate::limits::MAX_CHAT_EVENT;

    #[test]
    fn the_last_blank_line_counts() {
        assert_eq!(end_of_last_event(b"data: a\n\ndata: b"), Some(9));
        assert_eq!(end_of_last_event(b"data: a\ndata: b\n"), None);
        assert_eq!(end_of_last_event(b"\n"), None);
        assert_eq!(end_of_last_event(b""), None);
    }

    #[test]
    fn lines_and_data_are_found_at_every_line_end() {
        let stream = b"event: x\r\ndata: a\rdata:b\n\n:data:\ndata: c";
        let lines = [&b"event: x"[..], b"data: a", b"data:b", b"", b":data:", b"data: c"];
        assert_eq!(Lines(stream).collect::<Vec<_>>(), lines);
        assert_eq!(data(stream).collect::<Vec<_>>(), [&b" a"[..], b"b", b" c"]);
    }

    fn collected(pieces: &[&[u8]]) -> Result<Vec<String>, EventTooLarge> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        let mut see = |data: &[u8]| {
            seen.push(String::from_utf8(data.to_vec()).expect("UTF-8"));
            Ok::<(), EventTooLarge>(())
        };
        for piece in pieces {
            events.take(piece, &mut see)?;
        }
        events.end(&mut see)?;
        Ok(seen)
    }

    #[test]
    fn data_is_found_wherever_the_stream_is_cut() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                ": note{end}{end}event: x{end}data: a{end}data:b{end}{end}datax: no{end}{end}data{end}{end}data:  c{end}{end}data: [DONE]"
            );
            for cut in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(cut);
                let seen = collected(&[first, second]).expect("small");
                assert_eq!(seen, ["a\nb", "", " c", "[DONE]"], "{end:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(collected(&bytes).expect("small").len(), 4);
        }
    }

    #[test]
    fn an_event_has_a_bound_in_one_line_and_in_many() {
        let long = vec![b'x'; MAX_CHAT_EVENT];
        assert_eq!(collected(&[b"data: ", &long]), Err(EventTooLarge));
        let line = [&b"data: "[..], &long[..MAX_CHAT_EVENT / 2], b"\n"].concat();
        assert_eq!(collected(&[&line, &line]), Err(EventTooLarge));
        assert_eq!(collected(&[&line, b"\n", &line]).expect("under it").len(), 2);
    }
}
