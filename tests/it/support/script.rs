//! The behaviour of a scripted upstream for one request: a list of steps.

use serde_json::Value;
use std::time::Duration;

use super::gate::Gate;

/// One action of the upstream on the connection.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// Sends the same bytes again and again until the proxy closes.
    Flood(Vec<u8>),
    Pause(Duration),
    Wait(Gate),
    /// Says nothing more until the proxy closes the connection.
    Silence,
    /// Closes in the ordinary way.
    Fin,
    /// Closes with a reset.
    Reset,
    /// Closes the kept connection if no request comes for this long.
    IdleClose(Duration),
}

/// The steps of one response. Without [`Step::Fin`] or [`Step::Reset`] the connection is kept.
#[derive(Clone, Default)]
pub struct Script(pub Vec<Step>);

impl Script {
    /// Bytes as they stand.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Script {
        Script::default().send(bytes)
    }

    /// A buffered response with `Content-Length`.
    pub fn whole(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Script {
        let length = body.as_ref().len().to_string();
        let mut bytes = head(status, headers);
        bytes.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(body.as_ref());
        Script::raw(bytes)
    }

    pub fn json(status: u16, body: &Value) -> Script {
        Script::whole(status, &[("Content-Type", "application/json")], body.to_string())
    }

    /// Head of a chunked response; chunks follow by [`Script::chunk`].
    pub fn chunked(status: u16, headers: &[(&str, &str)]) -> Script {
        let mut bytes = head(status, headers);
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        Script::raw(bytes)
    }

    /// Head of a chunked event stream.
    pub fn sse() -> Script {
        Script::chunked(200, &[("Content-Type", "text/event-stream")])
    }

    /// Head of an event stream that ends by closing.
    pub fn sse_until_close() -> Script {
        let mut bytes = head(200, &[("Content-Type", "text/event-stream"), ("Connection", "close")]);
        bytes.extend_from_slice(b"\r\n");
        Script::raw(bytes)
    }

    pub fn send(self, bytes: impl AsRef<[u8]>) -> Script {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    pub fn chunk(self, data: impl AsRef<[u8]>) -> Script {
        let data = data.as_ref();
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes)
    }

    /// The closing chunk.
    pub fn end(self) -> Script {
        self.send("0\r\n\r\n")
    }

    pub fn wait(self, gate: &Gate) -> Script {
        self.then(Step::Wait(gate.clone()))
    }

    pub fn then(mut self, step: Step) -> Script {
        self.0.push(step);
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text.into_bytes()
}
