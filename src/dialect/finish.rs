//! Why a message ended.

use super::unfit::Unfit;

/// Meaning of the provider's `finish_reason`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finish<'a> {
    /// The message is complete.
    Stop,
    /// The client must run its calls.
    Calls,
    /// A limit of tokens, the request's or the model's.
    Length,
    /// A filter stopped it.
    Filtered,
    /// The model refused.
    Refused,
    /// An unknown word.
    Other(&'a str),
}

impl<'a> Finish<'a> {
    /// The meaning of `word` for a message with or without tool calls and refusals.
    ///
    /// # Errors
    /// The provider stopped early.
    pub(super) fn of(word: Option<&'a str>, has_calls: bool, is_refused: bool) -> Result<Self, Unfit> {
        Ok(match word {
            // Providers use different words when there are calls, but a client runs them only for this one.
            None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") if has_calls => Self::Calls,
            Some("content_filter" | "sensitive") => Self::Filtered,
            None | Some("" | "stop" | "eos") if is_refused => Self::Refused,
            None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") => Self::Stop,
            Some("length" | "model_length") => Self::Length,
            Some("error" | "network_error" | "insufficient_system_resource" | "abort") => {
                return Err(Unfit::Broken("the provider gave up"));
            }
            Some(other) => Self::Other(other),
        })
    }

    /// Whether the last block may be incomplete.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Length | Self::Filtered)
    }
}
