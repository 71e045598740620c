//! The header fields of a response, unchanged: two buffers for any number of fields.

use std::ops::Range;

/// Header fields in their order. Names are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// Name and value of each field, one after the other.
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field ends in the bytes; it begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Field {
    name_end: usize,
    end: usize,
}

impl Headers {
    /// No fields yet, and room for so many fields with so many bytes.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), fields: Vec::with_capacity(fields) }
    }

    /// Adds a field. `name`: a token (RFC 9110 section 5.1), in any case.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes[start..].make_ascii_lowercase();
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.fields.push(Field { name_end, end: self.bytes.len() });
    }

    /// Makes this the one field of its name. `name`: in lower case.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of that name, which is in lower case.
    pub fn remove(&mut self, name: &str) {
        if self.get(name).is_none() {
            return;
        }
        let all = std::mem::take(self);
        for (other, value) in all.iter().filter(|(other, _)| *other != name) {
            self.append(other, value);
        }
    }

    /// The value of the first field of that name, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The values of all fields of that name, which is in lower case.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let is_it = move |of_name: &Range<usize>| {
            of_name.len() == name.len() && self.bytes[of_name.clone()] == *name.as_bytes()
        };
        self.spans().filter(move |(of_name, _)| is_it(of_name)).map(|(_, of_value)| &self.bytes[of_value])
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Tokens are ASCII.
        let name = |of_name| std::str::from_utf8(&self.bytes[of_name]).unwrap_or_default();
        self.spans().map(move |(of_name, of_value)| (name(of_name), &self.bytes[of_value]))
    }

    /// The ranges of each field's name and value.
    fn spans(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut start = 0;
        self.fields.iter().map(move |&Field { name_end, end }| {
            let spans = (start..name_end, name_end..end);
            start = end;
            spans
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Headers;

    #[test]
    fn headers_are_found_by_name_in_their_order() {
        let mut headers = Headers::default();
        for (name, value) in [("A", &b"1"[..]), ("Set-Cookie", b"x"), ("a", b"\xff"), ("b", b"")] {
            headers.append(name, value);
        }
        assert_eq!(headers.get("a"), Some(&b"1"[..]));
        assert_eq!(headers.get_all("a").collect::<Vec<_>>(), [&b"1"[..], b"\xff"]);
        assert_eq!((headers.get("b"), headers.get("c")), (Some(&b""[..]), None));
        headers.set("a", b"2");
        headers.remove("b");
        headers.remove("c");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("set-cookie", &b"x"[..]), ("a", b"2")]);
    }
}
