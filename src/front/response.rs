//! Responses: buffered ones, and streams that are flushed piece by piece.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ureq::http::StatusCode;

use super::client::Client;
use super::client_stream::ClientStream;
use super::content::Content;
use super::{Head, after};
use crate::core::date::{self, DateTime};
use crate::core::fields::Fields;
use crate::core::framing::Framing;
use crate::limits::COALESCE;

/// Space for the head lines that the front adds, bytes.
const USUAL_HEAD: usize = 192;

/// A buffered response. The front adds `Content-Length`, `Connection` and `Date`.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    /// Body; for HEAD its size counts, and it is not sent.
    pub body: Content,
}

/// Properties of the request that decide how its response is framed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) minor: u8,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
}

impl Shape {
    pub(super) fn of(head: &Head) -> Self {
        Self { minor: head.minor(), head_only: head.method() == "HEAD", keep_alive: head.keep_alive() }
    }

    /// For a request that could not be parsed.
    pub(super) const UNKNOWN: Self = Self { minor: 1, head_only: false, keep_alive: false };

    pub(super) fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    /// The head of a response including its blank line, in a buffer with space for `more` bytes.
    fn head(self, status: u16, fields: &Fields, framing: Framing, more: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_HEAD + fields.as_lines().len() + more);
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(&mut out, u64::from(status));
        out.push(b' ');
        out.extend_from_slice(reason_phrase(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(fields.as_lines());
        if !fields.contains("date") {
            push_date(&mut out);
        }
        match framing {
            Framing::None => {}
            Framing::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                push_decimal(&mut out, length);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        match (self.keep_alive, self.minor) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, 0) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// Sends a buffered response as far as the client takes it now, before the connection ends.
pub(super) fn send_last(client: &Client, shape: Shape, response: &Response) {
    let framing = Framing::Length(response.body.len() as u64);
    let mut bytes = shape.head(response.status, &response.fields, framing, 0);
    if !shape.head_only {
        bytes.extend_from_slice(&response.body);
    }
    // The connection ends either way.
    let _ = client.send(&[IoSlice::new(&bytes)]);
}

impl ClientStream {
    /// Sends a buffered response as far as the client takes it now; the rest is sent later.
    pub(super) fn respond(&mut self, shape: Shape, response: Response) {
        self.client.started.store(true, Ordering::Relaxed);
        let bodiless = matches!(response.status, 100..=199 | 204 | 304);
        let framing = if bodiless { Framing::None } else { Framing::Length(response.body.len() as u64) };
        let more = if response.body.len() <= COALESCE { response.body.len() } else { 0 };
        let mut head = shape.head(response.status, &response.fields, framing, more);
        if shape.head_only || bodiless {
            self.send_or_keep(head, Vec::new().into());
        } else if response.body.len() <= COALESCE {
            head.extend_from_slice(&response.body);
            self.send_or_keep(head, Vec::new().into());
        } else {
            self.send_or_keep(head, response.body);
        }
    }

    fn send_or_keep(&mut self, head: Vec<u8>, body: Content) {
        let parts = [IoSlice::new(&head), IoSlice::new(&body)];
        let used = if body.is_empty() { &parts[..1] } else { &parts[..] };
        let sent = if self.has_output() { Ok(0) } else { self.client.send(used) };
        match sent {
            Ok(sent) if sent < head.len() => {
                self.keep(head, sent);
                self.keep(body, 0);
            }
            Ok(sent) => self.keep(body, sent - head.len()),
            // The client is gone; the next read or write ends the connection.
            Err(_) => self.broken = true,
        }
    }
}

/// The one response to a request: a buffered one, or a stream once it has begun. It never blocks: what the
/// client does not take at once is kept. Dropping it (a panic) closes the connection.
pub struct Responder {
    stream: Box<ClientStream>,
    shape: Shape,
    client_timeout: Duration,
    /// The front drains: this is the connection's last response.
    draining: Arc<AtomicBool>,
    /// Its head is pending or has left.
    is_begun: bool,
    chunked: bool,
    /// Bytes of body to come, where the length is announced.
    left: Option<u64>,
    /// Framed bytes including the head, of which `sent` have left.
    pending: Vec<u8>,
    sent: usize,
    /// When the client last took something, while bytes are pending.
    behind_since: Option<Instant>,
}

/// Proof that a request has its response, or was cancelled with its connection.
pub struct Done {
    pub(super) stream: Box<ClientStream>,
    /// The connection can take the next request.
    pub(super) keep: bool,
}

impl Responder {
    pub(super) fn new(
        mut stream: Box<ClientStream>,
        shape: Shape,
        client_timeout: Duration,
        draining: &Arc<AtomicBool>,
    ) -> Self {
        stream.client.started.store(false, Ordering::Relaxed);
        stream.broken = false;
        Self {
            stream,
            shape,
            client_timeout,
            draining: Arc::clone(draining),
            is_begun: false,
            chunked: false,
            left: None,
            pending: Vec::new(),
            sent: 0,
            behind_since: None,
        }
    }

    fn shape(&self) -> Shape {
        if self.draining.load(Ordering::Relaxed) { self.shape.closing() } else { self.shape }
    }

    /// The client's socket, to notice when the client leaves.
    pub fn client(&self) -> &Arc<Client> {
        &self.stream.client
    }

    /// Begins a stream, with `length` bytes of body where that is known. Its head leaves with the first
    /// piece.
    pub fn begin(&mut self, status: u16, fields: &Fields, length: Option<u64>) {
        let bodiless = matches!(status, 204 | 304);
        let shape = self.shape();
        self.is_begun = true;
        self.left = length.filter(|_| !bodiless);
        self.chunked = shape.minor >= 1 && !bodiless && self.left.is_none();
        let is_framed = self.chunked || bodiless || self.left.is_some();
        self.shape = if is_framed { shape } else { shape.closing() };
        self.shape.head_only |= bodiless;
        let framing = match self.left {
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::None,
        };
        self.pending = self.shape.head(status, fields, framing, 0);
    }

    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Sends a buffered response; if a stream has begun, ends its connection instead.
    pub fn send(mut self, response: Response) -> Done {
        if self.is_begun {
            return self.leave(false);
        }
        let shape = self.shape();
        self.stream.respond(shape, response);
        Done { keep: shape.keep_alive, stream: self.stream }
    }

    /// Adds a piece, which leaves with the next [`Responder::flush`].
    pub fn push(&mut self, piece: &[u8]) {
        self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
        if self.shape.head_only || piece.is_empty() || !self.is_begun {
            return;
        }
        if self.chunked {
            push_chunk_size(&mut self.pending, piece.len());
        }
        self.pending.extend_from_slice(piece);
        if self.chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
    }

    /// Sends the pending bytes as far as the client takes them now; the head leaves with the first. `now`:
    /// the current time.
    ///
    /// # Errors
    /// `TimedOut` when the client has taken nothing for `client_timeout`, else the error of its socket. The
    /// stream is over then.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sent = self.send_pending();
        let ended = match sent {
            Ok(taken) if self.sent < self.pending.len() => {
                // A client that takes some bytes, however few, is reading.
                let since = self.behind_since.filter(|_| taken == 0).unwrap_or(now);
                self.behind_since = Some(since);
                if now < after(since, self.client_timeout) {
                    return Ok(());
                }
                self.stream.broken = true;
                Err(io::ErrorKind::TimedOut.into())
            }
            other => other.map(drop),
        };
        (self.sent, self.behind_since) = (0, None);
        self.pending.clear();
        // A large piece must not hold its memory until the stream ends.
        self.pending.shrink_to(COALESCE);
        ended
    }

    /// Sends the pending bytes as far as the client takes them now; returns how many.
    fn send_pending(&mut self) -> io::Result<usize> {
        self.stream.client.started.store(true, Ordering::Relaxed);
        let sent = self.stream.client.send(&[IoSlice::new(&self.pending[self.sent..])]);
        self.stream.broken |= sent.is_err();
        self.sent += *sent.as_ref().unwrap_or(&0);
        sent
    }

    /// Whether the client has still to take flushed bytes.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }

    /// Deadline for the client to take some of the flushed bytes; `None`: it has taken all.
    pub fn deadline(&self) -> Option<Instant> {
        self.behind_since.map(|since| after(since, self.client_timeout))
    }

    /// Ends the response as complete. The connection ends with it if the body is shorter than announced or
    /// has not begun. Bytes that the client does not take at once are sent later.
    pub fn finish(mut self) -> Done {
        if self.chunked && !self.shape.head_only {
            self.pending.extend_from_slice(b"0\r\n\r\n");
        }
        let is_whole = self.is_begun && self.left.is_none_or(|left| left == 0);
        self.leave(is_whole)
    }

    /// Ends the connection in the middle of the response: without the last chunk, or short of the announced
    /// length, no client takes it as complete.
    pub fn abort(self) -> Done {
        self.leave(false)
    }

    fn leave(mut self, is_whole: bool) -> Done {
        let is_sent = self.pending.is_empty() || self.send_pending().is_ok();
        if is_sent {
            self.stream.keep(self.pending, self.sent);
        }
        Done { keep: is_whole && is_sent && self.shape.keep_alive, stream: self.stream }
    }
}

#[cfg(test)]
impl Responder {
    /// The response to a request of a client in memory.
    pub fn in_memory(peer: &super::in_memory::Peer, head: &Head, client_timeout: Duration) -> Self {
        let slot = super::places::Places::new(1).take(()).expect("a place");
        let stream = ClientStream::new(Client::in_memory(peer.clone()), super::Peer::Unix, slot);
        Self::new(Box::new(stream), Shape::of(head), client_timeout, &Arc::default())
    }
}

#[cfg(test)]
impl Done {
    /// Sends what the client still takes. Returns whether its connection can take the next request.
    pub fn settle(mut self) -> bool {
        self.stream.flush().is_ok() && !self.stream.broken && self.keep
    }
}

fn push_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The size line of a chunk (RFC 9112 section 7.1). Every event has one: `format!` would cost as much as
/// finding the end of the event.
fn push_chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut line = [0; 18];
    line[16..].copy_from_slice(b"\r\n");
    let (mut at, mut left) = (16, size);
    while at == 16 || left > 0 {
        at -= 1;
        line[at] = b"0123456789abcdef"[left & 0xf];
        left >>= 4;
    }
    out.extend_from_slice(&line[at..]);
}

/// `Date` (RFC 9110 section 6.6.1), formatted once per second and thread.
fn push_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let now = date::seconds(SystemTime::now());
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now {
            *second = now;
            *text = DateTime::of(now).to_http();
        }
        for part in ["date: ", text, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    });
}

/// Clients must not depend on it (RFC 9112 section 4).
fn reason_phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::push_chunk_size;

    #[test]
    fn a_chunk_size_is_in_hexadecimal() {
        for size in (0..70_000).chain([usize::MAX / 16, usize::MAX]) {
            let mut line = Vec::new();
            push_chunk_size(&mut line, size);
            assert_eq!(line, format!("{size:x}\r\n").into_bytes());
        }
    }
}
