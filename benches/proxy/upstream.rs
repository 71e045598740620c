//! The upstream: one thread that responds as a provider would, after the wait that the request asks for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::poller::Poller;
use crate::wire::{self, Framing};

/// The key in an event's data of the time it was sent, in nanoseconds of the wall clock: the only
/// clock that two processes can compare with std alone.
pub const SENT_KEY: &[u8] = b"\"sent_ns\":";

const LISTENER_ID: u64 = u64::MAX;
const READ_BYTES: usize = 128 * 1024;

/// Bytes of a request that hold the first message, and in it the wish.
const WISH_WITHIN: usize = 2 * 1024;

const MODELS: &str = r#"{"object":"list","data":[{"id":"test-model","object":"model"}]}"#;

/// Some 600 bytes, as a short response of a chat model is.
const COMPLETION: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"test-model","choices":[{"index":0,"message":{"role":"assistant","content":"A reverse proxy takes requests in the name of other servers, passes each on to one of them and hands the answer back as its own.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":29,"completion_tokens":27,"total_tokens":56,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"service_tier":"default"}"#;

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The wish of a request, from its text (see `load`).
#[derive(Clone, Copy)]
struct Wish {
    /// Wait before the response begins.
    latency: Duration,
    /// Events of the stream; 0 is a buffered response.
    chunks: u64,
    /// Wait between two events.
    gap: Duration,
}

impl Wish {
    fn read(body: &[u8]) -> Wish {
        let number = |key: &[u8]| wire::number_after(body, key).unwrap_or(0);
        Wish {
            latency: Duration::from_micros(number(b"latency_us=")),
            chunks: number(b"chunks="),
            gap: Duration::from_micros(number(b"gap_us=")),
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Tells this connection from an earlier one in the same slot.
    generation: u64,
    input: Vec<u8>,
    wish: Wish,
    chunks_sent: u64,
}

struct Upstream {
    listener: TcpListener,
    poller: Poller,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// (when, slot, generation): what is to be written next, soonest first.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    generation: u64,
}

/// Serves until it is killed; its first line on stdout is the port.
pub fn run() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    // std listens with a backlog of 128; a second listen() on the same socket raises it, so that the
    // connections of 500 streams do not wait for a lost SYN.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER_ID)?;
    let mut upstream = Upstream {
        listener,
        poller,
        slots: Vec::new(),
        free: Vec::new(),
        due: BinaryHeap::new(),
        generation: 0,
    };
    let mut ready = Vec::new();
    loop {
        let wait = upstream.due.peek().map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        upstream.poller.wait(&mut ready, wait)?;
        for &id in &ready {
            match id {
                LISTENER_ID => upstream.accept()?,
                slot => upstream.receive(slot as usize),
            }
        }
        upstream.send_due();
    }
}

impl Upstream {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            self.poller.add(&stream, slot as u64)?;
            self.generation += 1;
            self.slots[slot] = Some(Connection {
                stream,
                generation: self.generation,
                input: Vec::new(),
                wish: Wish::read(b""),
                chunks_sent: 0,
            });
        }
    }

    fn receive(&mut self, slot: usize) {
        let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        match connection.receive() {
            Ok(true) if connection.wish.latency.is_zero() => self.send(slot),
            Ok(true) => {
                let at = Instant::now() + connection.wish.latency;
                self.due.push(Reverse((at, slot, connection.generation)));
            }
            Ok(false) => {}
            Err(_) => self.close(slot),
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, slot, generation))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            match &self.slots[slot] {
                Some(connection) if connection.generation == generation => self.send_late(slot, at),
                _ => {}
            }
        }
    }

    fn send(&mut self, slot: usize) {
        self.send_late(slot, Instant::now());
    }

    /// Writes what was due at `due`, and plans the next event of a stream. An event that is late moves
    /// those behind it: they keep their distance, for events sent in one go would cost a proxy less.
    fn send_late(&mut self, slot: usize, due: Instant) {
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        match connection.send() {
            Ok(true) => {
                let (gap, now) = (connection.wish.gap, Instant::now());
                let next = if due + gap > now { due + gap } else { now + gap };
                self.due.push(Reverse((next, slot, connection.generation)));
            }
            Ok(false) => {}
            Err(error) => {
                // At the end of a run a proxy closes the connections it no longer needs; other errors are unexpected.
                if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                    eprintln!("bench upstream: {error}");
                }
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }
}

impl Connection {
    /// Reads what has arrived; true after a whole request that expects a response.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        self.input.extend_from_slice(&buffer[..count]);
        let Some(head) = wire::parse_head(&self.input)? else {
            return Ok(false);
        };
        let Framing::Length(length) = head.framing else {
            return Err(wire::invalid("a request in chunks"));
        };
        if self.input.len() < head.len + length {
            return Ok(false);
        }
        if head.first_line.starts_with("GET ") {
            self.input.clear();
            self.send_whole(MODELS)?;
            return Ok(false);
        }
        self.wish = {
            let body = &self.input[head.len..];
            Wish::read(&body[..body.len().min(WISH_WITHIN)])
        };
        self.chunks_sent = 0;
        self.input.clear();
        Ok(true)
    }

    /// Sends the buffered response or the next event; true when there is more to come.
    fn send(&mut self) -> io::Result<bool> {
        if self.wish.chunks == 0 {
            self.send_whole(COMPLETION)?;
            return Ok(false);
        }
        let mut out = Vec::with_capacity(1024);
        if self.chunks_sent == 0 {
            out.extend_from_slice(STREAM_HEAD.as_bytes());
        }
        self.chunks_sent += 1;
        let sent_ns = crate::wall_clock_ns();
        let event = format!(
            "data: {{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\
             \"created\":1741569952,\"model\":\"test-model\",\"choices\":[{{\"index\":0,\"delta\":\
             {{\"content\":\" proxy\"}},\"logprobs\":null,\"finish_reason\":null}}],\"sent_ns\":{sent_ns}}}\n\n"
        );
        push_chunk(&mut out, &event);
        let last = self.chunks_sent == self.wish.chunks;
        if last {
            push_chunk(&mut out, "data: [DONE]\n\n");
            push_chunk(&mut out, "");
        }
        self.write(&out)?;
        Ok(!last)
    }

    fn send_whole(&mut self, body: &str) -> io::Result<()> {
        let length = body.len();
        self.write(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }

    /// A stream of ours fits the socket's buffer many times over, so a short write means that the proxy
    /// stopped reading: an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = self.stream.write(bytes)?;
        if count == bytes.len() { Ok(()) } else { Err(wire::invalid("the proxy reads too slowly")) }
    }
}

fn push_chunk(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
}
