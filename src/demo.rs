//! The built-in provider of `ai-proxy demo`: a small OpenAI-compatible server on the loopback, so that
//! requests take their real path through the proxy. It needs only one thread and one connection per request.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Config, load};
use crate::core::framing::Framing;
use crate::core::request_head::{Head, Scan};
use crate::json;
use crate::limits::{DEMO_TIMEOUT, MAX_DEMO_BODY, MAX_DEMO_REQUESTS};

/// The token of the demo.
pub const TOKEN: &str = "sk-demo";
/// The port it listens on unless `--port` names another.
pub const DEFAULT_PORT: u16 = 8001;
/// The key between the proxy and its demo provider.
const KEY: &str = "sk-demo-provider-key";

/// Starts the provider on a free loopback port. Returns its base URL.
///
/// # Errors
/// The system refuses a port or thread.
pub fn start_provider() -> io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    thread::Builder::new().name("demo".to_owned()).spawn(move || serve(&listener))?;
    Ok(url)
}

/// The configuration of the demo: that provider, one token, no file.
pub fn config(provider_url: &str, port: u16) -> Result<Config, load::Problems> {
    let document = format!(
        r#"{{"host":"127.0.0.1","port":{port},"language":"en","log_level":"INFO","log_file":null,
            "providers":["demo|{provider_url}|{KEY}"],"tokens":["demo|{TOKEN}"]}}"#
    );
    load::from_text(&document, &|_| None)
}

/// Commands to try the demo.
pub fn greeting(url: &str) -> String {
    format!(
        "Try it:\n\n  curl {url}/v1/chat/completions -H 'Authorization: Bearer {TOKEN}' -H 'Content-Type: application/json' \
         -d '{{\"model\":\"demo/echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'\n\n\
         With \"stream\":true the response comes word by word (add -N to curl). Ctrl-C ends the demo.\n"
    )
}

/// Pause between two words.
const BREATH: Duration = Duration::from_millis(30);
/// Creation time of the demo's model, Unix time; it is fixed so that its responses and its list ([`MODELS`])
/// never change.
const CREATED: i64 = 1_763_683_200;

fn serve(listener: &TcpListener) {
    // Each request in flight holds a clone.
    let open = Arc::new(());
    loop {
        // Further connections wait in the kernel's queue, as do those without a descriptor.
        let is_full = Arc::strong_count(&open) > MAX_DEMO_REQUESTS;
        let Some((stream, _)) = (!is_full).then(|| listener.accept().ok()).flatten() else {
            thread::sleep(BREATH);
            continue;
        };
        let open = Arc::clone(&open);
        let handle = move || {
            // The proxy reports a lost connection.
            let _ = Call { stream, deadline: Instant::now() + DEMO_TIMEOUT }.handle();
            drop(open);
        };
        // Without a thread the connection closes.
        let _ = thread::Builder::new().name("demo".to_owned()).spawn(handle);
    }
}

/// One request and its connection.
struct Call {
    stream: TcpStream,
    /// Deadline of the whole request.
    deadline: Instant,
}

impl Call {
    fn handle(mut self) -> io::Result<()> {
        let (mut bytes, mut scan) = (Vec::new(), Scan::default());
        let end = loop {
            match scan.find_end(&bytes) {
                Ok(Some(end)) => break end,
                Ok(None) => self.read(&mut bytes)?,
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        };
        let head = Head::parse(&bytes[..end]).map_err(|_| io::ErrorKind::InvalidData)?;
        if head.field("authorization") != Some(format!("Bearer {KEY}").as_bytes()) {
            return self.refuse(401, "wrong key");
        }
        let length = match head.framing() {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Chunked => usize::MAX,
        };
        if length > MAX_DEMO_BODY {
            return self.refuse(413, "the body is too large, or its length is not announced");
        }
        while bytes.len() < end + length {
            self.read(&mut bytes)?;
        }
        match (head.method(), head.path()) {
            ("GET", "/v1/models") => self.send(200, MODELS),
            ("POST", "/v1/chat/completions") => self.complete(&bytes[end..]),
            _ => self.refuse(404, "the demo serves chat completions alone"),
        }
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
            count => {
                bytes.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    fn complete(&mut self, body: &[u8]) -> io::Result<()> {
        let Some(asked) = Asked::read(body) else { return self.refuse(400, "the body is not JSON") };
        if asked.model.as_deref() != Some("echo") {
            return self.refuse(404, "the demo has one model: echo");
        }
        let words = asked.said.split_whitespace().count();
        let usage = format!(
            r#"{{"prompt_tokens":{words},"completion_tokens":{words},"total_tokens":{}}}"#,
            words * 2
        );
        if asked.stream {
            return self.stream(&asked, &usage);
        }
        let said = quoted(&asked.said);
        self.send(200, &format!(
            r#"{{"id":"chatcmpl-demo","object":"chat.completion","created":{CREATED},"model":"echo","choices":[{{"index":0,"message":{{"role":"assistant","content":{said}}},"logprobs":null,"finish_reason":"stop"}}],"usage":{usage}}}"#
        ))
    }

    /// One event per word, with a pause between them so that a person can watch.
    fn stream(&mut self, asked: &Asked, usage: &str) -> io::Result<()> {
        self.begin(200, "content-type: text/event-stream")?;
        let choice = |delta: &str, reason: &str| {
            format!(r#"[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]"#)
        };
        self.event(&choice(r#"{"role":"assistant","content":""}"#, "null"), "")?;
        for word in asked.said.split_inclusive(' ') {
            self.event(&choice(&format!(r#"{{"content":{}}}"#, quoted(word)), "null"), "")?;
        }
        self.event(&choice("{}", r#""stop""#), "")?;
        if asked.include_usage {
            self.event("[]", &format!(r#","usage":{usage}"#))?;
        }
        self.stream.write_all(b"data: [DONE]\n\n")
    }

    fn event(&mut self, choices: &str, usage: &str) -> io::Result<()> {
        let event = format!(
            r#"{{"id":"chatcmpl-demo","object":"chat.completion.chunk","created":{CREATED},"model":"echo","choices":{choices}{usage}}}"#
        );
        self.stream.write_all(format!("data: {event}\n\n").as_bytes())?;
        thread::sleep(BREATH);
        Ok(())
    }

    fn refuse(&mut self, status: u16, message: &str) -> io::Result<()> {
        self.send(
            status,
            &format!(
                r#"{{"error":{{"message":"{message}","type":"demo_error","param":null,"code":{status}}}}}"#
            ),
        )
    }

    fn send(&mut self, status: u16, document: &str) -> io::Result<()> {
        self.begin(status, &format!("content-type: application/json\r\ncontent-length: {}", document.len()))?;
        self.stream.write_all(document.as_bytes())
    }

    fn begin(&mut self, status: u16, fields: &str) -> io::Result<()> {
        self.stream.set_write_timeout(Some(DEMO_TIMEOUT))?;
        self.stream.set_nodelay(true)?;
        self.stream
            .write_all(format!("HTTP/1.1 {status} \r\n{fields}\r\nconnection: close\r\n\r\n").as_bytes())
    }
}

const MODELS: &str =
    r#"{"object":"list","data":[{"id":"echo","object":"model","created":1763683200,"owned_by":"ai-proxy"}]}"#;

/// The relevant part of a request.
#[derive(Default)]
struct Asked {
    model: Option<String>,
    stream: bool,
    include_usage: bool,
    /// Text of the last message; parts are joined.
    said: String,
}

impl Asked {
    /// `None`: the body is no JSON object.
    fn read(body: &[u8]) -> Option<Self> {
        let mut asked = Self::default();
        let mut messages = None;
        json::members(std::str::from_utf8(body).ok()?, |name, value| match name {
            "model" => asked.model = json::text(value.get()),
            "stream" => asked.stream = value.get() == "true",
            "stream_options" => {
                let wanted = |(name, value): (std::borrow::Cow<'_, [u8]>, &[u8])| {
                    *name == *b"include_usage" && value == b"true"
                };
                asked.include_usage =
                    json::Members::of(value.get().as_bytes()).is_some_and(|mut all| all.any(wanted));
            }
            "messages" => messages = Some(value),
            _ => {}
        })
        .ok()?;
        let mut last = None;
        // Other values have no last message.
        let _ = json::elements(messages.map_or("", |it| it.get()), |message| last = Some(message));
        let content = json::Members::of(last.map_or("", |it| it.get()).as_bytes())
            .and_then(|mut members| members.find(|(name, _)| **name == *b"content"))
            .and_then(|(_, content)| std::str::from_utf8(content).ok())
            .unwrap_or_default();
        if content.starts_with('"') {
            asked.said = serde_json::from_str(content).unwrap_or_default();
        }
        let _ = json::elements(content, |part| {
            asked.said.push_str(&json::string_at(part.get().as_bytes(), &["text"]).unwrap_or_default());
        });
        Some(asked)
    }
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    // A string always serializes.
    serde_json::to_string(text).unwrap_or_default()
}
