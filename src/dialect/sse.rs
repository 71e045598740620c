//! Takes a stream of events apart (WHATWG HTML section 9.2.6), as far as their data goes.

use super::output::{KEPT, step};
use super::unfit::Unfit;
use crate::limits::MAX_CHAT_EVENT;

/// Finds the data of events in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Events {
    /// A line has ended: a byte order mark is none any more.
    has_begun: bool,
    /// The data of the event at hand, its lines with a line feed between them; after it a line that has no end yet.
    buffer: Vec<u8>,
    /// Where that line begins.
    line: usize,
    /// The event has data, be it empty.
    has_data: bool,
    /// The last line ended with a CR: a LF after it belongs to it.
    behind_cr: bool,
}

/// For an event over [`MAX_CHAT_EVENT`].
const TOO_LARGE: Unfit = Unfit::Malformed("an event is too large");

impl Events {
    /// Takes the next bytes; `event` gets the data of each event that is complete with them.
    ///
    /// # Errors
    /// What `event` says, and that an event is too large.
    pub fn take<E: From<Unfit>>(
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

    /// The stream is over: what it ended in counts as complete, for some providers leave out the last line end.
    ///
    /// # Errors
    /// As [`Events::take`].
    pub fn end<E: From<Unfit>>(&mut self, event: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.take(b"\n\n", event)
    }

    /// Adds to the line that has no end yet.
    fn add(&mut self, piece: &[u8]) -> Result<(), Unfit> {
        let size = self.buffer.len() + piece.len();
        if size > MAX_CHAT_EVENT {
            return Err(TOO_LARGE);
        }
        if size > self.buffer.capacity() {
            self.buffer.reserve_exact(step(self.buffer.len(), piece.len()));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// Looks at a line that is complete; only `data` matters.
    fn end_line(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true)
            && self.buffer[self.line..].starts_with(b"\xEF\xBB\xBF")
        {
            self.buffer.drain(self.line..self.line + 3);
        }
        let name = match &self.buffer[self.line..] {
            b"data" => "data",
            [b'd', b'a', b't', b'a', b':', b' ', ..] => "data: ",
            [b'd', b'a', b't', b'a', b':', ..] => "data:",
            _ => return self.buffer.truncate(self.line),
        };
        let value = self.line + name.len();
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
        self.buffer.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::{Events, TOO_LARGE, Unfit};
    use crate::limits::MAX_CHAT_EVENT;

    fn data(pieces: &[&[u8]]) -> Result<Vec<String>, Unfit> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        let mut see = |data: &[u8]| {
            seen.push(String::from_utf8(data.to_vec()).expect("UTF-8"));
            Ok::<(), Unfit>(())
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
                let seen = data(&[first, second]).expect("small");
                assert_eq!(seen, ["a\nb", "", " c", "[DONE]"], "{end:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(data(&bytes).expect("small").len(), 4);
        }
    }

    #[test]
    fn an_event_has_a_bound_in_one_line_and_in_many() {
        let long = vec![b'x'; MAX_CHAT_EVENT];
        assert_eq!(data(&[b"data: ", &long]), Err(TOO_LARGE));
        let line = [&b"data: "[..], &long[..MAX_CHAT_EVENT / 2], b"\n"].concat();
        assert_eq!(data(&[&line, &line]), Err(TOO_LARGE));
        assert_eq!(data(&[&line, b"\n", &line]).expect("under it").len(), 2);
    }
}
