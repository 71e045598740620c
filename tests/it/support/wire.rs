//! HTTP/1.1 as bytes: the head of a message and its chunks, read as strictly as the tests need.

/// Start line and headers of one message, with the bytes they came as.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub raw: Vec<u8>,
    pub first_line: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Takes one head from the front of `buffer`, or leaves it alone when it is not all there yet.
    pub fn take(buffer: &mut Vec<u8>) -> Option<Head> {
        let end = find(buffer, b"\r\n\r\n")? + 4;
        let raw: Vec<u8> = buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("header line with a colon");
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Some(Head { raw, first_line, headers })
    }

    /// The only value of `name`; panics when it stands there twice.
    pub fn get(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} stands there twice: {values:?}");
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn content_length(&self) -> Option<usize> {
        self.get("content-length").map(|value| value.parse().expect("Content-Length"))
    }

    pub fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// What [`take_chunk`] found at the front of a buffer.
pub enum Chunk {
    /// Not all of it has arrived.
    Partial,
    Data(Vec<u8>),
    /// The chunk of size 0 and the empty trailer.
    Final,
}

/// Takes one chunk (size line, data, line end) from the front of `buffer`.
pub fn take_chunk(buffer: &mut Vec<u8>) -> Chunk {
    let Some(line) = find(buffer, b"\r\n") else {
        return Chunk::Partial;
    };
    let text = String::from_utf8_lossy(&buffer[..line]).into_owned();
    let size =
        usize::from_str_radix(text.trim(), 16).unwrap_or_else(|_| panic!("not a chunk size: {text:?}"));
    let whole = line + 2 + size + 2;
    if buffer.len() < whole {
        return Chunk::Partial;
    }
    assert_eq!(&buffer[whole - 2..whole], b"\r\n", "line end after a chunk");
    let data = buffer[line + 2..whole - 2].to_vec();
    buffer.drain(..whole);
    if size == 0 { Chunk::Final } else { Chunk::Data(data) }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
