//! A chat completion request that was written for a call in another format.

use super::json::{Fit, Problem, Refusal};
use super::output::Output;

/// A chat completion request, but for the model and the name of its limit, which depend on the provider.
#[derive(Debug, PartialEq, Eq)]
pub struct ChatRequest {
    /// The most tokens of its response, where it has such a limit.
    max_tokens: Option<String>,
    /// Everything after the limit, but for the closing brace.
    rest: Vec<u8>,
    /// It asks for a stream.
    pub stream: bool,
    /// What it has beside text.
    pub attached: Attached,
}

/// What a request has beside text, which a provider may refuse.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    pub image: bool,
    pub pdf: bool,
}

impl Attached {
    /// Whether there is anything.
    pub fn is_any(self) -> bool {
        self.image || self.pdf
    }
}

/// How a request for a stream ends that asks for its usage too.
const WITH_USAGE: &[u8] = b",\"stream_options\":{\"include_usage\":true}}";

impl ChatRequest {
    /// Of what was written behind `max_tokens`, in at most `limit` bytes.
    ///
    /// # Errors
    /// More was written.
    pub(super) fn new(max_tokens: Option<String>, rest: Output, limit: usize, stream: bool) -> Fit<Self> {
        let too_large = |_| Refusal { place: String::new(), problem: Problem::TooLarge(limit) };
        let rest = rest.into_bytes().map_err(too_large)?;
        Ok(Self { max_tokens, rest, stream, attached: Attached::default() })
    }

    pub(super) fn with(self, attached: Attached) -> Self {
        Self { attached, ..self }
    }

    /// The request in pieces, for that model (as JSON); `limit` is what the provider calls the most tokens of a response.
    /// `asks_for_usage`: a stream is asked for its usage.
    pub fn with_model<'a>(&'a self, model: &'a [u8], limit: &'a str, asks_for_usage: bool) -> Vec<&'a [u8]> {
        let mut pieces = vec![&b"{\"model\":"[..], model];
        if let Some(max_tokens) = &self.max_tokens {
            pieces.extend([b",\"", limit.as_bytes(), b"\":", max_tokens.as_bytes()]);
        }
        let end = if self.stream && asks_for_usage { WITH_USAGE } else { b"}" };
        pieces.extend([&self.rest, end]);
        pieces
    }
}
