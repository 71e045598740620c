//! A chat completion request made from a call in another format.

use super::json::{Fit, Problem, Refusal};
use super::output::Output;

/// A chat completion request without the model and the limit of tokens, whose names depend on the provider.
#[derive(Debug, PartialEq, Eq)]
pub struct ChatRequest {
    /// Limit of the response's tokens, if it has one.
    max_tokens: Option<String>,
    /// Everything after the limit except the closing brace.
    rest: Vec<u8>,
    /// It asks for a stream.
    pub stream: bool,
    /// Its parts other than text.
    pub attached: Attached,
}

/// Parts of a request other than text, which a provider may refuse.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    pub image: bool,
    pub pdf: bool,
}

impl Attached {
    /// Whether there are any.
    pub fn is_any(self) -> bool {
        self.image || self.pdf
    }
}

/// End of a streamed request that asks for its usage too.
const WITH_USAGE: &[u8] = b",\"stream_options\":{\"include_usage\":true}}";

impl ChatRequest {
    /// A request from the output after `max_tokens`, at most `limit` bytes.
    ///
    /// # Errors
    /// The output is larger.
    pub(super) fn new(max_tokens: Option<String>, rest: Output, limit: usize, stream: bool) -> Fit<Self> {
        let too_large = |_| Refusal { place: String::new(), problem: Problem::TooLarge(limit) };
        let rest = rest.into_bytes().map_err(too_large)?;
        Ok(Self { max_tokens, rest, stream, attached: Attached::default() })
    }

    pub(super) fn with(self, attached: Attached) -> Self {
        Self { attached, ..self }
    }

    /// The request in pieces for that model (as JSON); `limit` is the provider's member for the limit of
    /// tokens. `asks_for_usage`: add the option that makes a stream report its usage.
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
