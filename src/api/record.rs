//! What the log says of a relayed call (contract section 6).

use std::time::Instant;

use super::Ticket;
use super::error::ApiError;
use crate::front::Request;
use crate::limits::MAX_QUOTED;
use crate::text::quoted;
use crate::upstream::usage::Usage;

/// What the log says of a call.
pub struct Record {
    /// When its head was whole.
    pub begun: Instant,
    /// The provider asked last.
    pub provider: String,
    /// The model it names.
    pub model: String,
    /// The status the client gets.
    pub status: u16,
    /// It asked for a stream.
    pub streamed: bool,
    /// Bytes of body that left.
    pub bytes: u64,
    /// Tokens, where they were reported.
    pub usage: Option<Usage>,
    /// When the first byte of the answer left.
    pub first_byte: Option<Instant>,
    /// Attempts made.
    pub attempts: u32,
    /// The id the client knows it by.
    pub request_id: String,
    /// Why we refused it, where we did.
    pub reason: Option<&'static str>,
}

impl Record {
    /// A record of a call that has just come.
    pub fn new(request: &Request<Ticket>) -> Self {
        Self {
            begun: request.received,
            provider: String::new(),
            model: String::new(),
            status: 0,
            streamed: false,
            bytes: 0,
            usage: None,
            first_byte: None,
            attempts: 0,
            request_id: request.ticket.envelope.id.clone(),
            reason: None,
        }
    }

    /// Notes an error of our own; a 5xx gets its ERROR line at once.
    pub fn fail(&mut self, error: &ApiError) {
        self.status = error.status();
        self.reason = Some(error.reason());
        if self.status >= 500 {
            log::error!(
                "{} {} provider={} request_id={}",
                self.status,
                error.reason(),
                self.provider,
                self.request_id
            );
        }
    }

    /// The line of contract section 6: its last two words are the seconds and their unit, in either language.
    pub fn log(&self, token: &str) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let seconds = |since: Instant| since.duration_since(self.begun).as_secs_f64();
        let tokens =
            self.usage.map_or("-".to_owned(), |usage| format!("{}+{}", usage.prompt, usage.completion));
        let first_byte = self.first_byte.map_or("-".to_owned(), |at| format!("{:.3}", seconds(at)));
        log::info!(
            "provider={} model={} status={} stream={} bytes={} tokens={tokens} ttfb={first_byte} attempts={} \
             request_id={} token={} reason={} 耗时: {:.3} s",
            if self.provider.is_empty() { "-" } else { &self.provider },
            word(&self.model),
            self.status,
            self.streamed,
            self.bytes,
            self.attempts,
            self.request_id,
            word(token),
            self.reason.unwrap_or("-"),
            seconds(Instant::now()),
        );
    }
}

/// `text` as one word of a log line: nothing in it can pass for another field.
pub fn word(text: &str) -> String {
    // The word that the documented pipeline looks for is ours alone.
    let escaped = quoted(text, MAX_QUOTED).replace("耗时:", "耗时");
    let plain = !escaped.is_empty() && !escaped.contains([' ', '=', '"', '\u{3000}', '\u{a0}']);
    if plain { escaped } else { format!("\"{}\"", escaped.replace('"', "'")) }
}
