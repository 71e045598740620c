//! A client for the bytes on the wire: it sends any bytes, and reads exactly one response at a time.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::wire::{Chunk, Head, find, take_chunk};

/// More than any test sends; a response without end must not exhaust the machine.
const LARGEST: usize = 64 << 20;

/// How the body of a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is none: HEAD, 1xx, 204, 304.
    NoBody,
    /// `Content-Length` bytes arrived.
    Length,
    /// The chunk of size 0 arrived.
    FinalChunk,
    /// Neither length nor chunks: the connection was closed.
    Closed,
    /// The connection ended before the body did.
    Cut,
}

/// One complete response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub end: End,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection to the proxy.
pub struct Client {
    socket: Socket,
    buffer: Vec<u8>,
    /// Nothing more will come.
    ended: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("connect to the proxy");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(DEADLINE)).expect("read timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        Client::over(Socket::Tcp(stream))
    }

    pub fn connect_unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).expect("connect to the proxy's Unix socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("read timeout");
        Client::over(Socket::Unix(stream))
    }

    fn over(socket: Socket) -> Client {
        Client { socket, buffer: Vec::new(), ended: false }
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send to the proxy");
    }

    /// Like [`Client::send`] when the proxy may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Socket::Unix(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Sends `bytes` and reads one response (to HEAD when they begin so).
    pub fn call(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes.as_ref());
        self.response_to(bytes.as_ref().starts_with(b"HEAD "))
    }

    /// Reads one response to anything but HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to(false)
    }

    fn response_to(&mut self, head_only: bool) -> Response {
        let mut stream = self.streamed();
        if head_only {
            stream.end = Some(End::NoBody);
        }
        let mut body = Vec::new();
        while let Some(data) = stream.next_data() {
            body.extend_from_slice(&data);
            assert!(body.len() < LARGEST, "a response without end");
        }
        Response { status: stream.status, head: stream.head.clone(), end: stream.end(), body }
    }

    /// Reads the head of one response; the body is then read as it comes.
    pub fn streamed(&mut self) -> Streamed<'_> {
        let head = loop {
            if let Some(head) = Head::take(&mut self.buffer) {
                break head;
            }
            let before = self.buffer.len();
            assert!(
                self.fill(),
                "closed before a response, after {before} bytes: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        Streamed::new(self, head)
    }

    /// Whether the proxy closes without a further byte. A reset counts as closed too.
    pub fn is_closed(&mut self) -> bool {
        while self.fill() {}
        assert_eq!(String::from_utf8_lossy(&self.buffer), "", "nothing but the end was due");
        true
    }

    /// All bytes until the proxy closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the proxy stays silent, and the connection open, for `length`.
    pub fn is_silent_for(&mut self, length: Duration) -> bool {
        let Socket::Tcp(stream) = &self.socket else { panic!("for TCP alone") };
        stream.set_read_timeout(Some(length)).expect("timeout");
        let silent = stream.peek(&mut [0]).is_err_and(|error| is_timeout(&error));
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        silent && self.buffer.is_empty()
    }

    /// Ends its sending side; responses can still be read.
    pub fn end_sending(&self) {
        if let Socket::Tcp(stream) = &self.socket {
            // The proxy may have reset the connection already.
            drop(stream.shutdown(Shutdown::Write));
        }
    }

    /// Closes the connection at once.
    pub fn leave(self) {
        if let Socket::Tcp(stream) = &self.socket {
            stream.shutdown(Shutdown::Both).expect("shutdown");
        }
    }

    /// Reads available bytes; `false` at the end. Panics after [`DEADLINE`] without a byte.
    fn fill(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let mut bytes = [0; 65536];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut bytes),
            Socket::Unix(stream) => stream.read(&mut bytes),
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
            Err(error) if is_timeout(&error) => panic!("the proxy said nothing and did not close"),
            // A signal, not an end: the machine may stop and resume its processes.
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.ended = true,
        }
        !self.ended
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A response whose body is read as it comes.
pub struct Streamed<'a> {
    client: &'a mut Client,
    pub status: u16,
    pub head: Head,
    framing: Framing,
    end: Option<End>,
    /// Body bytes read but not yet handed out by [`Streamed::next_event`].
    pending: Vec<u8>,
    /// The first bytes without a blank line: an event of megabytes is not searched again after each read.
    searched: usize,
}

enum Framing {
    Left(usize),
    Chunked,
    UntilClose,
}

impl<'a> Streamed<'a> {
    fn new(client: &'a mut Client, head: Head) -> Streamed<'a> {
        let mut words = head.first_line.split(' ');
        let version = words.next().unwrap_or_default();
        assert!(version.starts_with("HTTP/1."), "status line {:?}", head.first_line);
        let status: u16 = words.next().and_then(|word| word.parse().ok()).expect("status code");
        let bodiless = matches!(status, 100..=199 | 204 | 304);
        let framing = match head.content_length() {
            Some(length) => {
                assert!(!head.is_chunked(), "two framings: {:?}", head.headers);
                Framing::Left(length)
            }
            None if head.is_chunked() => Framing::Chunked,
            None => Framing::UntilClose,
        };
        Streamed {
            client,
            status,
            head,
            framing,
            end: bodiless.then_some(End::NoBody),
            pending: Vec::new(),
            searched: 0,
        }
    }

    /// The next piece of the body: a chunk, or the bytes of a read. `None` at the end.
    pub fn next_data(&mut self) -> Option<Vec<u8>> {
        while self.end.is_none() {
            if let Some(data) = self.take() {
                return Some(data);
            }
            if self.end.is_none() && !self.client.fill() {
                self.end = Some(match self.framing {
                    Framing::UntilClose => End::Closed,
                    Framing::Left(_) | Framing::Chunked => End::Cut,
                });
            }
        }
        None
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = &mut self.client.buffer;
        match &mut self.framing {
            Framing::Chunked => match take_chunk(buffer) {
                Chunk::Partial => None,
                Chunk::Data(data) => Some(data),
                Chunk::Final => {
                    self.end = Some(End::FinalChunk);
                    None
                }
            },
            Framing::Left(0) => {
                self.end = Some(End::Length);
                None
            }
            Framing::Left(left) => {
                let count = buffer.len().min(*left);
                *left -= count;
                (count > 0).then(|| buffer.drain(..count).collect())
            }
            Framing::UntilClose => (!buffer.is_empty()).then(|| std::mem::take(buffer)),
        }
    }

    /// The next block with its blank line, or a heartbeat, which has none; at the end the rest, then `None`.
    pub fn next_event(&mut self) -> Option<String> {
        loop {
            if self.pending.starts_with(HEARTBEAT.as_bytes()) {
                self.pending.drain(..HEARTBEAT.len());
                self.searched = 0;
                return Some(HEARTBEAT.to_owned());
            }
            if let Some(end) = find(&self.pending[self.searched..], b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..self.searched + end + 2).collect();
                self.searched = 0;
                return Some(String::from_utf8(event).expect("UTF-8 event"));
            }
            // The last byte may be the first of the two.
            self.searched = self.pending.len().saturating_sub(1);
            match self.next_data() {
                Some(data) => self.pending.extend_from_slice(&data),
                None if self.pending.is_empty() => return None,
                None => {
                    self.searched = 0;
                    let rest = std::mem::take(&mut self.pending);
                    return Some(String::from_utf8(rest).expect("UTF-8 event"));
                }
            }
        }
    }

    /// The next block that is not a heartbeat.
    pub fn next_real_event(&mut self) -> Option<String> {
        loop {
            let event = self.next_event()?;
            if event != HEARTBEAT {
                return Some(event);
            }
        }
    }

    /// All blocks from here to the end.
    pub fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_event()).collect()
    }

    /// How the body ended; only known once it has been read.
    pub fn end(&self) -> End {
        self.end.expect("the body was read to its end")
    }
}

/// The comment that keeps a silent stream alive.
pub const HEARTBEAT: &str = ": keep-alive\n";

/// Seconds and result of something that takes time.
pub fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = act();
    (start.elapsed(), value)
}
