//! Decodes a body that arrives in pieces: by its length, or chunked (RFC 9112 section 7.1).

use super::Rejection;
use super::framing::Framing;
use super::request_head::is_token_byte;
use crate::limits::{MAX_CHUNK_LINE, MAX_EXTENSIONS, MAX_TRAILERS};

/// Separates the payload of a body from its framing, and finds its end.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Blanks may follow a chunk's size: some servers write sizes of a fixed width. In a request they would allow
    /// smuggling.
    padded: bool,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `Content-Length` bytes left.
    Length(u64),
    /// In the chunk size: its value and digits so far.
    Size {
        size: u64,
        digits: usize,
    },
    /// White space or extension after the size: bytes of it so far, whether its `;` was met.
    Extension {
        size: u64,
        bytes: usize,
        semicolon: bool,
    },
    /// After the CR of the size line.
    SizeLf {
        size: u64,
    },
    /// Bytes left of a chunk.
    Data(u64),
    /// After the last byte of a chunk: its CR, then its LF.
    DataCr,
    DataLf,
    /// In the trailer section, bytes of it so far: at the start of a line, in a name, in a value, after a CR.
    TrailerStart(usize),
    TrailerName(usize),
    TrailerValue(usize),
    TrailerLf(usize),
    /// After the CR of the blank line that ends the body.
    EndLf,
    Done,
}

/// The kind of bytes at the start of a [`Decoder`]'s input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of framing.
    Framing(usize),
    /// So many bytes of payload.
    Payload(usize),
}

impl Decoder {
    /// A decoder for a body delimited like this; `None` when there is no body.
    pub fn new(framing: Framing) -> Option<Self> {
        match framing {
            Framing::None => None,
            Framing::Length(length) => Some(Self::at(State::Length(length))),
            Framing::Chunked => Some(Self::at(State::Size { size: 0, digits: 0 })),
        }
    }

    /// A decoder for the body of a response that is delimited like this.
    pub fn of_response(framing: Framing) -> Self {
        Self { padded: true, ..Self::new(framing).unwrap_or_else(Self::done) }
    }

    /// A decoder for an absent body: it is done at once.
    pub fn done() -> Self {
        Self::at(State::Done)
    }

    fn at(state: State) -> Self {
        Self { state, padded: false, extensions: 0 }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Length(0))
    }

    /// Payload bytes still due, where a length gives them.
    pub fn announced(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Least number of payload bytes before the end of the body; in a chunked body, those left of the current
    /// chunk.
    pub fn due(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// The first piece of `input`. The caller removes those bytes and calls again until the input is empty or
    /// the body is over; the decoder takes no byte after the body.
    ///
    /// # Errors
    /// Bytes that RFC 9112 section 7.1 does not allow, and lines over their limits; each further call repeats the error.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, Rejection> {
        if let State::Length(left) | State::Data(left) = self.state {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let rest = left - count as u64;
            self.state = match self.state {
                State::Data(_) if rest == 0 => State::DataCr,
                State::Data(_) => State::Data(rest),
                _ => State::Length(rest),
            };
            return Ok(Piece::Payload(count));
        }
        if let Some((size, count)) = usual_framing(self.state, input) {
            self.state = size.map_or(State::Size { size: 0, digits: 0 }, State::Data);
            return Ok(Piece::Framing(count));
        }
        for (index, &byte) in input.iter().enumerate() {
            if matches!(self.state, State::Data(_) | State::Done) {
                return Ok(Piece::Framing(index));
            }
            self.state = match self.step(byte) {
                Ok(state) => state,
                // The next call starts at the malformed byte and reports it.
                Err(_) if index > 0 => return Ok(Piece::Framing(index)),
                Err(rejection) => return Err(rejection),
            };
        }
        Ok(Piece::Framing(input.len()))
    }

    fn step(&mut self, byte: u8) -> Result<State, Rejection> {
        let state = step(self.state, self.padded, byte)?;
        // For a provider, `MAX_UNDELIVERED` bounds them.
        if matches!(state, State::Extension { .. }) && !self.padded {
            self.extensions += 1;
            if self.extensions > MAX_EXTENSIONS {
                return Err(EXTENSIONS_TOO_LONG);
            }
        }
        Ok(state)
    }
}

/// Reads the framing of most chunks at once: the line end after a chunk, and a size line without extension and blanks. Returns the
/// size, if its line is complete, and the length of the framing; `None`: it has to be read byte by byte.
fn usual_framing(state: State, input: &[u8]) -> Option<(Option<u64>, usize)> {
    let line = match state {
        State::DataCr => input.strip_prefix(b"\r\n")?,
        State::Size { digits: 0, .. } => input,
        _ => return None,
    };
    let before = input.len() - line.len();
    match usual_size(line) {
        Some((size, length)) => Some((Some(size), before + length)),
        None => (before > 0 && line.is_empty()).then_some((None, before)),
    }
}

/// A chunk size other than 0, of at most eight digits, and the length of its line.
fn usual_size(line: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (at, byte) in line.iter().enumerate().take(9) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => 16,
        };
        match digit {
            0..16 if at < 8 => size = size << 4 | u64::from(digit),
            _ => return (size > 0 && line[at..].starts_with(b"\r\n")).then_some((size, at + 2)),
        }
    }
    None
}

const MALFORMED: Rejection = Rejection::Malformed("chunk");
const EXTENSIONS_TOO_LONG: Rejection = Rejection::Malformed("chunk extension too long");

fn step(state: State, padded: bool, byte: u8) -> Result<State, Rejection> {
    match (state, byte) {
        (State::Size { size, digits }, _) => step_size(size, digits, byte),
        (State::Extension { size, .. }, b'\r') if padded => Ok(State::SizeLf { size }),
        (State::Extension { size, bytes, semicolon }, _) => step_extension(size, bytes + 1, semicolon, byte),
        (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart(0)),
        (State::SizeLf { size }, b'\n') => Ok(State::Data(size)),
        (State::DataCr, b'\r') => Ok(State::DataLf),
        (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
        (State::EndLf, b'\n') => Ok(State::Done),
        (State::TrailerStart(_), b'\r') => Ok(State::EndLf),
        (State::TrailerStart(bytes) | State::TrailerName(bytes), _) => {
            step_trailer_name(state, bytes + 1, byte)
        }
        (State::TrailerValue(bytes), _) => step_trailer_value(bytes + 1, byte),
        (State::TrailerLf(bytes), b'\n') => Ok(State::TrailerStart(bytes + 1)),
        _ => Err(MALFORMED),
    }
}

/// 1 to 16 hex digits, then CR, `;`, or white space before a `;`.
fn step_size(size: u64, digits: usize, byte: u8) -> Result<State, Rejection> {
    match (char::from(byte).to_digit(16), byte) {
        (Some(_), _) if digits >= 16 => Err(Rejection::Malformed("chunk size")),
        (Some(digit), _) => Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }),
        (None, b'\r') if digits > 0 => Ok(State::SizeLf { size }),
        (None, b';' | b' ' | b'\t') if digits > 0 => {
            Ok(State::Extension { size, bytes: 1, semicolon: byte == b';' })
        }
        (None, _) => Err(Rejection::Malformed("chunk size")),
    }
}

fn step_extension(size: u64, bytes: usize, semicolon: bool, byte: u8) -> Result<State, Rejection> {
    if bytes > MAX_CHUNK_LINE {
        return Err(EXTENSIONS_TOO_LONG);
    }
    match byte {
        b'\r' if semicolon => Ok(State::SizeLf { size }),
        b';' => Ok(State::Extension { size, bytes, semicolon: true }),
        b' ' | b'\t' => Ok(State::Extension { size, bytes, semicolon }),
        _ if semicolon && is_field_byte(byte) => Ok(State::Extension { size, bytes, semicolon }),
        _ => Err(Rejection::Malformed("chunk extension")),
    }
}

fn step_trailer_name(state: State, bytes: usize, byte: u8) -> Result<State, Rejection> {
    match byte {
        _ if bytes > MAX_TRAILERS => Err(Rejection::Malformed("trailers too long")),
        b':' if matches!(state, State::TrailerName(_)) => Ok(State::TrailerValue(bytes)),
        _ if is_token_byte(byte) => Ok(State::TrailerName(bytes)),
        _ => Err(Rejection::Malformed("trailer")),
    }
}

fn step_trailer_value(bytes: usize, byte: u8) -> Result<State, Rejection> {
    match byte {
        _ if bytes > MAX_TRAILERS => Err(Rejection::Malformed("trailers too long")),
        b'\r' => Ok(State::TrailerLf(bytes)),
        _ if is_field_byte(byte) => Ok(State::TrailerValue(bytes)),
        _ => Err(Rejection::Malformed("trailer")),
    }
}

/// Whether a field value may contain the byte (RFC 9110 section 5.5): visible ASCII, blanks, obs-text.
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Piece};
    use crate::core::Rejection;
    use crate::core::framing::Framing;

    /// The payload, and the bytes after the body.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), Rejection> {
        let mut decoder = Decoder::new(Framing::Chunked).expect("chunked has a body");
        let mut payload = Vec::new();
        for (start, window) in input.chunks(step).enumerate().map(|(n, window)| (n * step, window)) {
            let mut at = 0;
            while at < window.len() && !decoder.is_done() {
                match decoder.next(&window[at..])? {
                    Piece::Framing(count) => at += count,
                    Piece::Payload(count) => {
                        payload.extend_from_slice(&window[at..at + count]);
                        at += count;
                    }
                }
            }
            if decoder.is_done() {
                return Ok((payload, Some(input[start + at..].to_vec())));
            }
        }
        Ok((payload, None))
    }

    #[test]
    fn every_split_of_a_chunked_body_gives_the_same_payload_and_leaves_what_follows() {
        let body = b"5\r\nhello\r\n006;a=\"b c\"\r\n world\r\n0\r\nX-Trailer: 1\r\nY:\r\n\r\nGET /";
        for step in 1..=body.len() {
            let (payload, rest) = decode(body, step).expect("valid");
            assert_eq!(payload, b"hello world", "step {step}");
            assert_eq!(rest.as_deref(), Some(&b"GET /"[..]), "step {step}");
        }
    }

    #[test]
    fn no_truncation_of_a_chunked_body_counts_as_its_end() {
        let body = b"5;x\r\nhello\r\n0\r\nT: v\r\n\r\n";
        for end in 0..body.len() {
            assert_eq!(decode(&body[..end], 3).expect("a prefix is no error").1, None, "cut at {end}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5\n",
            b"5\rx",
            b"11111111111111111\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"5;\x00\r\n",
            b"5;a\n",
            b"5 x\r\n",
            b"0\r\n X: folded\r\n\r\n",
            b"0\r\n: no name\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\nX\r\n",
            b"0\r\nX: a\x00\r\n",
            b"0\r\nX: a\nY",
            b"0\r\n\n",
            b"0\r\n\rX",
            b";a\r\n",
        ] {
            for step in [1, bad.len()] {
                assert!(matches!(decode(bad, step), Err(Rejection::Malformed(_))), "{bad:?}");
            }
        }
    }

    #[test]
    fn chunk_size_allows_trailing_blanks_in_responses_alone() {
        for (line, is_good) in
            [("2 \t\r\n", true), ("2 ;a\r\n", true), ("2 a\r\n", false), ("2a \r\n", true), (" 2\r\n", false)]
        {
            let mut decoder = Decoder::of_response(Framing::Chunked);
            let framing = decoder.next(line.as_bytes());
            assert_eq!(framing == Ok(Piece::Framing(line.len())), is_good, "{line:?}: {framing:?}");
        }
    }

    #[test]
    fn what_is_refused_stays_so_and_what_stands_before_it_does_not() {
        let body = b"2\r\nok\r\n1z\r\n";
        let mut decoder = Decoder::new(Framing::Chunked).expect("chunked has a body");
        let mut at = 0;
        for piece in [Piece::Framing(3), Piece::Payload(2), Piece::Framing(3)] {
            assert_eq!(decoder.next(&body[at..]).as_ref(), Ok(&piece), "{at}");
            let (Piece::Framing(count) | Piece::Payload(count)) = piece;
            at += count;
        }
        for _ in 0..2 {
            assert_eq!(decoder.next(&body[at..]), Err(Rejection::Malformed("chunk size")));
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_bound() {
        let long_extension = [b"5;".to_vec(), vec![b'a'; super::MAX_CHUNK_LINE], b"\r\n".to_vec()].concat();
        assert_eq!(decode(&long_extension, 100), Err(Rejection::Malformed("chunk extension too long")));
        // One byte of body for each extension: their total is bounded too.
        let line = [b"1;".to_vec(), vec![b'a'; super::MAX_CHUNK_LINE - 2], b"\r\nx\r\n".to_vec()].concat();
        let lines = super::MAX_EXTENSIONS / super::MAX_CHUNK_LINE;
        assert_eq!(decode(&line.repeat(lines), 100), Ok((vec![b'x'; lines], None)));
        assert_eq!(decode(&line.repeat(lines + 1), 100), Err(super::EXTENSIONS_TOO_LONG));
        let long_trailer =
            [b"0\r\nX: ".to_vec(), vec![b'a'; super::MAX_TRAILERS], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(decode(&long_trailer, 100), Err(Rejection::Malformed("trailers too long")));
    }

    #[test]
    fn the_largest_chunk_size_does_not_overflow() {
        let mut decoder = Decoder::new(Framing::Chunked).expect("chunked has a body");
        assert_eq!(decoder.next(b"ffffffffffffffff\r\nab"), Ok(Piece::Framing(18)));
        assert_eq!(decoder.next(b"ab"), Ok(Piece::Payload(2)));
        assert!(!decoder.is_done());
    }

    #[test]
    fn a_body_by_length_ends_at_its_length() {
        let mut decoder = Decoder::new(Framing::Length(4)).expect("has a body");
        assert_eq!(decoder.next(b"ab"), Ok(Piece::Payload(2)));
        assert!(!decoder.is_done());
        assert_eq!(decoder.next(b"cdGET"), Ok(Piece::Payload(2)));
        assert!(decoder.is_done());
        assert!(Decoder::new(Framing::None).is_none());
    }
}
