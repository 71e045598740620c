//! The head of a provider's response (RFC 9112), and where its body ends.
//!
//! ureq's own loop cannot suspend a call that waits for its response head, so ai-proxy parses the heads itself, with
//! httparse's grammar; the decoder of request bodies ([`super::body`]) decodes the bodies.

use std::mem::MaybeUninit;

use httparse::ParserConfig;
use ureq::http::StatusCode;

use super::Rejection;
use super::body::Decoder;
use super::framing::{Framing, FramingFields};
use super::headers::Headers;
use crate::limits::MAX_UPSTREAM_HEADERS;

/// The head of a response. [`start_of`] alone makes one.
#[derive(Debug)]
pub struct Head {
    status: u16,
    headers: Headers,
    body: Ending,
    keep_alive: bool,
}

impl Head {
    /// Status code, 200 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection may serve another request after the body.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Status, unchanged header fields, where the body ends, and whether the connection may serve another request after it.
    pub fn into_parts(self) -> (u16, Headers, Ending, bool) {
        (self.status, self.headers, self.body, self.keep_alive)
    }
}

/// What ends a body (RFC 9112 section 6.3).
#[derive(Debug)]
pub enum Ending {
    /// By its framing; an absent body ends at its beginning.
    Framed(Decoder),
    /// By the end of the connection.
    Closing,
}

/// The beginning of a response.
#[derive(Debug)]
pub enum Start {
    /// A part of a head.
    Partial,
    /// An interim response (1xx) of so many bytes.
    Interim(usize),
    /// The head of the final response, and how many bytes it takes.
    Final(Head, usize),
}

/// Reads the beginning of a response to any request but `HEAD`.
///
/// # Errors
/// The problem: it is not HTTP/1.x, its status is invalid, or its framing is ambiguous.
pub fn start_of(bytes: &[u8]) -> Result<Start, String> {
    // Initializing them would cost more than parsing most heads.
    let mut slots = [const { MaybeUninit::uninit() }; MAX_UPSTREAM_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut slots);
    let used = match parsed {
        Ok(httparse::Status::Partial) => return Ok(Start::Partial),
        Ok(httparse::Status::Complete(used)) => used,
        Err(error) => return Err(format!("no HTTP answer: {error}")),
    };
    let (status, minor) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
    match status {
        100 | 102..200 => return Ok(Start::Interim(used)),
        200..600 => {}
        _ => return Err(format!("status {status}")),
    }
    let mut headers = Headers::with_capacity(response.headers.len(), used);
    let mut framing = FramingFields::default();
    for field in response.headers.iter() {
        let value = field.value.trim_ascii_end();
        framing.read(field.name, value).map_err(reason)?;
        headers.append(field.name, value);
    }
    if framing.is_huge() {
        return Err("Content-Length".to_owned());
    }
    let body = ending(status, framing.framing(minor).map_err(reason)?);
    let keep_alive = framing.keeps_alive(minor) && matches!(body, Ending::Framed(_));
    Ok(Start::Final(Head { status, headers, body, keep_alive }, used))
}

/// RFC 9112 section 6.3, of a response to a request that is no `HEAD`.
fn ending(status: u16, framing: Option<Framing>) -> Ending {
    let no_content =
        [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].iter().any(|it| it.as_u16() == status);
    match framing {
        _ if no_content => Ending::Framed(Decoder::done()),
        Some(framing) => Ending::Framed(Decoder::of_response(framing)),
        None => Ending::Closing,
    }
}

fn reason(rejection: Rejection) -> String {
    match rejection {
        Rejection::Malformed(part) => part.to_owned(),
        _ => "Transfer-Encoding other than chunked alone".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Head, Start, start_of};

    fn head(text: &str) -> Result<Head, String> {
        match start_of(text.as_bytes())? {
            Start::Final(head, used) => {
                assert_eq!(used, text.len());
                Ok(head)
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn due(head: &Head) -> Option<u64> {
        match &head.body {
            Ending::Framed(decoder) => decoder.announced(),
            Ending::Closing => None,
        }
    }

    #[test]
    fn every_truncation_of_a_head_is_partial() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\n";
        for end in 0..whole.len() {
            assert!(matches!(start_of(&whole.as_bytes()[..end]), Ok(Start::Partial)), "{end}");
        }
        assert_eq!(head(whole).expect("good").headers.get("content-type"), Some(&b"a/b"[..]));
    }

    #[test]
    fn ambiguous_framing_is_no_response() {
        for (fields, length) in [
            ("Content-Length: 3\r\n", Some(3)),
            ("content-length: 3\r\nContent-Length: 3\r\n", Some(3)),
            ("Content-Length: 0\r\n", Some(0)),
            ("Content-Length: 18446744073709551615\r\n", Some(u64::MAX)),
        ] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).expect(fields);
            assert_eq!((due(&head), head.keep_alive), (length, true), "{fields}");
        }
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n").expect("good");
        assert!(matches!(&chunked.body, Ending::Framed(decoder) if !decoder.is_done()), "{chunked:?}");
        let closing = head("HTTP/1.1 200 OK\r\n\r\n").expect("good");
        assert!(matches!(closing.body, Ending::Closing) && !closing.keep_alive);
        for status in [204, 304] {
            let none = head(&format!("HTTP/1.1 {status} x\r\nContent-Length: 3\r\n\r\n")).expect("good");
            assert!(matches!(&none.body, Ending::Framed(decoder) if decoder.is_done()), "{status}");
        }
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
        ] {
            head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).expect_err(fields);
        }
        head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect_err("HTTP/1.0");
    }

    #[test]
    fn a_connection_stays_as_its_version_and_options_say() {
        for (version, option, stays) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("HTTP/{version} 200 OK\r\n{option}Content-Length: 1\r\n\r\n");
            assert_eq!(head(&text).expect("good").keep_alive, stays, "{text}");
        }
    }

    #[test]
    fn interim_responses_differ_from_final_ones() {
        for (text, used) in
            [("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", 25), ("HTTP/1.1 103 x\r\na: b\r\n\r\n", 24)]
        {
            assert!(matches!(start_of(text.as_bytes()), Ok(Start::Interim(n)) if n == used), "{text}");
        }
        for text in [
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 600 x\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            start_of(text.as_bytes()).expect_err(text);
        }
        let many = "a: b\r\n".repeat(129);
        start_of(format!("HTTP/1.1 200 OK\r\n{many}\r\n").as_bytes()).expect_err("too many fields");
    }
}
