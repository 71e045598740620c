//! The part of HTTP/1.1 that the upstream and the load generator need. Both ends are ours, so any other
//! message is an error.

use std::io;

/// Longest message head.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

/// A message head at the start of a buffer.
pub struct Head<'a> {
    pub first_line: &'a str,
    pub framing: Framing,
    /// Bytes up to the end of the empty line.
    pub len: usize,
}

/// The head at the start of `bytes`, or `None` while it is incomplete.
pub fn parse_head(bytes: &[u8]) -> io::Result<Option<Head<'_>>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MAX_BYTES { Err(invalid("head too long")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("head is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let first_line = lines.next().unwrap_or_default();
    let mut framing = Framing::Length(0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(invalid("header without a colon"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.parse().map_err(|_| invalid("content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        }
    }
    Ok(Some(Head { first_line, framing, len: end + 4 }))
}

/// What is at the start of a chunked body.
#[derive(Debug, PartialEq)]
pub enum Chunk<'a> {
    Incomplete,
    /// Its data, and the bytes it takes with its frame.
    Data(&'a [u8], usize),
    /// The closing chunk, and the bytes it takes.
    End(usize),
}

/// The chunk at the start of `bytes`.
pub fn parse_chunk(bytes: &[u8]) -> io::Result<Chunk<'_>> {
    let Some(line) = find(&bytes[..bytes.len().min(20)], b"\r\n") else {
        return if bytes.len() >= 20 { Err(invalid("chunk size")) } else { Ok(Chunk::Incomplete) };
    };
    let size = std::str::from_utf8(&bytes[..line]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let size = size.ok_or_else(|| invalid("chunk size"))?;
    let start = line + 2;
    let end = start + size;
    if bytes.len() < end + 2 {
        return Ok(Chunk::Incomplete);
    }
    if &bytes[end..end + 2] != b"\r\n" {
        return Err(invalid("chunk end"));
    }
    Ok(if size == 0 { Chunk::End(end + 2) } else { Chunk::Data(&bytes[start..end], end + 2) })
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The decimal number that stands right behind `key` in `bytes`.
pub fn number_after(bytes: &[u8], key: &[u8]) -> Option<u64> {
    let digits = &bytes[find(bytes, key)? + key.len()..];
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}

pub fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
