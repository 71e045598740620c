//! Server-sent events (WHATWG HTML section 9.2): their lines, their data, and where the last complete one ends.

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

/// The data of each line that holds any, as it follows `data:`.
pub fn data(events: &[u8]) -> impl Iterator<Item = &[u8]> {
    Lines(events).filter_map(|line| line.strip_prefix(b"data:"))
}

/// Where the last complete event ends: after its blank line. Lines end in LF, CRLF or CR.
pub fn end_of_last_event(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).rev().map(|last| last + 1).find(|&end| {
        let head = &bytes[..end];
        head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") || head.ends_with(b"\r\r")
    })
}

#[cfg(test)]
mod tests {
    use super::{Lines, data, end_of_last_event};

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
}
