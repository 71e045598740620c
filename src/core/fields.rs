//! Header fields that ai-proxy writes: no name or value can forge one.

/// Room for the fields of most messages, bytes.
const USUAL_FIELDS: usize = 512;

/// Header fields in the format of the wire.
#[derive(Debug, Default, Clone)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Adds a field. A name or value that could end its line is left out whole: nothing can forge a field.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.push_joined(name, &[value.as_ref()]);
    }

    /// Like [`Fields::push`], with a value in parts.
    pub fn push_joined(&mut self, name: &str, value: &[&[u8]]) {
        let begun = self.0.len();
        if begun == 0 {
            self.0.reserve(USUAL_FIELDS);
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        value.iter().for_each(|part| self.0.extend_from_slice(part));
        if memchr::memchr2(b'\r', b'\n', &self.0[begun..]).is_some() {
            return self.0.truncate(begun);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// Adds a field whose value is a number.
    pub fn push_number(&mut self, name: &str, value: u64) {
        self.push(name, itoa::Buffer::new().format(value));
    }

    /// Name and value of each field.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// The head of a message: its first line, in parts, these fields, and the blank line.
    pub(super) fn into_head(self, line: &[&str]) -> Vec<u8> {
        let Self(mut head) = self;
        let (fields, length) = (head.len(), line.iter().map(|part| part.len()).sum::<usize>());
        head.resize(fields + length, 0);
        head.copy_within(..fields, length);
        let mut at = 0;
        for part in line {
            head[at..at + part.len()].copy_from_slice(part.as_bytes());
            at += part.len();
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The fields as lines, each with its end.
    pub fn as_lines(&self) -> &[u8] {
        &self.0
    }

    /// Whether a field of that name was added.
    pub fn contains(&self, name: &str) -> bool {
        let is_it = |line: &[u8]| {
            line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        let mut lines = &self.0[..];
        while let Some(end) = memchr::memchr(b'\n', lines) {
            if is_it(lines) {
                return true;
            }
            lines = &lines[end + 1..];
        }
        false
    }
}
