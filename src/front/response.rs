//! Responses: buffered ones, and streams that are flushed piece by piece.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use super::client::Client;
use super::client_stream::ClientStream;
use super::content::Content;
use super::{Head, after};
use crate::core::fields::Fields;
use crate::core::framing::Framing;
use crate::limits::COALESCE;

/// Room for the lines of a response head that the front adds, bytes.
const USUAL_HEAD: usize = 192;

/// A buffered response. `Content-Length`, `Connection` and `Date` are the front's own to add.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    /// Body; for HEAD it is counted, and not sent.
    pub body: Content,
}

/// What a response depends on of its request.
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

    /// For a request that was not understood.
    pub(super) const UNKNOWN: Self = Self { minor: 1, head_only: false, keep_alive: false };

    pub(super) fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    /// The head of a response, up to and with its blank line, in a buffer that has room for some more.
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

/// Sends a buffered response as far as the client takes it now; the connection ends after it.
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
    /// Sends a buffered response as far as the client takes it now; the rest leaves when it can.
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
            // The client is gone; the next read or write on the connection says so and ends it.
            Err(_) => self.broken = true,
        }
    }
}

/// The one response to a request: a buffered one, or one in pieces once it has begun. It never waits: what the client does not take
/// at once is kept. Dropping it (a panic) closes the connection.
pub struct Responder {
    stream: Box<ClientStream>,
    shape: Shape,
    client_timeout: Duration,
    /// The front drains: this response is the connection's last.
    draining: Arc<AtomicBool>,
    /// Its head is among what is pending, or has left.
    is_begun: bool,
    chunked: bool,
    /// Bytes of body still to come, where their count was announced.
    left: Option<u64>,
    /// Bytes framed, the head among them, of which `sent` have left.
    pending: Vec<u8>,
    sent: usize,
    /// Since when the client has taken nothing of what there was for it.
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

    /// The client's socket, to notice that it went away.
    pub fn client(&self) -> &Arc<Client> {
        &self.stream.client
    }

    /// Begins a response in pieces, of `length` bytes of body where that is known. Its head leaves with the first piece.
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

    /// Sends a buffered response; where one in pieces has begun, ends its connection instead.
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

    /// Sends what is here as far as the client takes it now; the head goes with the first. `now`: the time it is.
    ///
    /// # Errors
    /// `TimedOut` when the client has taken nothing for `client_timeout`, else what its socket says. The stream is
    /// over then.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sent = self.send_pending();
        let ended = match sent {
            Ok(taken) if self.sent < self.pending.len() => {
                // A client that takes some of it, however little, is reading.
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
        // A large piece must not cost its memory to the end of the stream.
        self.pending.shrink_to(COALESCE);
        ended
    }

    /// Sends what is pending as far as the client takes it now; how many bytes that were.
    fn send_pending(&mut self) -> io::Result<usize> {
        self.stream.client.started.store(true, Ordering::Relaxed);
        let sent = self.stream.client.send(&[IoSlice::new(&self.pending[self.sent..])]);
        self.stream.broken |= sent.is_err();
        self.sent += *sent.as_ref().unwrap_or(&0);
        sent
    }

    /// Whether the client has still to take what was flushed.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }

    /// When the client must have taken some of what was flushed, if there is something that it has not.
    pub fn deadline(&self) -> Option<Instant> {
        self.behind_since.map(|since| after(since, self.client_timeout))
    }

    /// Ends the response as complete; the connection ends with it where less came than was announced, or it has not begun. What the
    /// client does not take at once is sent later.
    pub fn finish(mut self) -> Done {
        if self.chunked && !self.shape.head_only {
            self.pending.extend_from_slice(b"0\r\n\r\n");
        }
        let is_whole = self.is_begun && self.left.is_none_or(|left| left == 0);
        self.leave(is_whole)
    }

    /// Ends the connection in the middle of the response: without the closing chunk, or short of the announced length, no
    /// client takes it for complete.
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
    /// Sends what the client still takes; whether its connection can take the next request.
    pub fn settle(mut self) -> bool {
        self.stream.flush().is_ok() && !self.stream.broken && self.keep
    }
}

fn push_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The line ahead of a chunk (RFC 9112 section 7.1). It stands before every event: formatting would cost as much as
/// finding where the event ends.
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

/// `Date` (RFC 9110 section 6.6.1), formatted once a second and thread.
fn push_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let now = jiff::Timestamp::now();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            *second = now.as_second();
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            *text = printer.timestamp_to_rfc9110_string(&now).unwrap_or_default();
        }
        if !text.is_empty() {
            for part in ["date: ", text, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    });
}

/// A client must not depend on it.
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
