//! Hundreds of mutated requests and responses: no panic, no hang, only valid HTTP on the wire. The seed is
//! fixed, so that a failure is reproducible.

use serde_json::json;
use std::time::Duration;

use crate::support::calls::{DONE, TOKEN, ask, ask_streamed, completion, event, get};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

/// Xorshift: enough to spread mutations, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("small")
    }

    /// `bytes` with one to three things wrong.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            if bytes.len() < 2 {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] = u8::try_from(self.below(256)).expect("byte"),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n\0 :;,{}\xff09"[self.below(12)]),
                3 => bytes.truncate(at.max(1)),
                4 => {
                    let end = at + self.below(bytes.len() - at);
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
        bytes
    }
}

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let changes =
        json!({"client_timeout": 2, "max_retries": 0, "non_stream_timeout": 5, "stream_timeout": 5});
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// No internal error, whatever the input was.
fn assert_unharmed(mut proxy: Proxy) {
    assert!(proxy.is_running());
    assert_eq!(proxy.get("/healthz").status, 200);
    let log = proxy.log();
    for word in ["panicked", " 500 ", "internal error", "overflow"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

#[test]
fn mutated_requests() {
    let (_upstream, proxy) = start();
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Transfer-Encoding: chunked\r\n\r\n8\r\n{{\"model\"\r\n8\r\n:\"p1/m\"}}\r\n0\r\nX-T: v\r\n\r\n"
    );
    let seeds = [get("/v1/models/p1%2Fm?x=1"), ask("p1/m"), ask_streamed("p1/m"), chunked.into_bytes()];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..600 {
        let request = random.mutate(&seeds[round % seeds.len()]);
        let mut client = proxy.client();
        drop(client.try_send(&request));
        client.end_sending();
        let response = String::from_utf8_lossy(&client.rest()).into_owned();
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "{shown:?} got {response:?}");
        assert!(!response.starts_with("HTTP/1.1 500"), "{shown:?} got {response:?}");
    }
    assert_unharmed(proxy);
}

#[test]
fn mutated_responses() {
    let (upstream, proxy) = start();
    let body = completion("hello").to_string();
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let stream = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n{}{}0\r\n\r\n",
        chunk(&event("a")),
        chunk(DONE)
    );
    let error =
        "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nslow";
    let seeds = [whole.as_str(), &stream, error];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..450 {
        let bytes = random.mutate(seeds[round % seeds.len()].as_bytes());
        upstream.chat(Script::raw(&bytes).then(Step::Fin));
        // The client panics at invalid framing, so reading to the end checks the framing.
        let mut client = proxy.client();
        let response = client.call(if round % 2 == 0 { ask("p1/m") } else { ask_streamed("p1/m") });
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert!((200..600).contains(&response.status), "{shown:?} became {}", response.status);
        assert!(response.header("x-request-id").is_some(), "{shown:?}");
    }
    assert_unharmed(proxy);
}

#[test]
fn clients_that_leave_at_any_moment_leak_nothing() {
    let (upstream, proxy) = start();
    let drip = (0..20).fold(Script::sse(), |script, _| {
        script.chunk(event("tick")).then(Step::Pause(Duration::from_millis(3)))
    });
    upstream.chat(drip.chunk(DONE).end());
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    assert_eq!(proxy.get("/health").status, 200);
    let before = proxy.open_descriptors();
    let mut random = Random(0x1357_9bdf_0246_8ace);
    let request = ask_streamed("p1/m");
    for _ in 0..150 {
        let mut client = proxy.client();
        // Some clients leave before their request is complete, some during the response.
        let sent = if random.below(4) == 0 { random.below(request.len()) } else { request.len() };
        client.send(&request[..sent]);
        std::thread::sleep(Duration::from_millis(random.below(12) as u64));
        client.leave();
    }
    eventually("every descriptor but pooled ones is closed", || {
        (proxy.open_descriptors() <= before + 20).then_some(())
    });
    assert_eq!(proxy.call(ask_streamed("p1/m")).status, 200);
    assert_unharmed(proxy);
}
