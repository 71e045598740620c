//! Why a message ended.

use super::unfit::Unfit;

/// What the provider's `finish_reason` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finish<'a> {
    /// The model has said everything.
    Stop,
    /// The client is to run its calls.
    Calls,
    /// It met the limit of tokens or of the model.
    Length,
    /// A filter stopped it.
    Filtered,
    /// The model refused.
    Refused,
    /// A word that is not known.
    Other(&'a str),
}

impl<'a> Finish<'a> {
    /// What `word` means for a message with or without tool calls and refusals.
    ///
    /// # Errors
    /// The provider gave up.
    pub(super) fn of(word: Option<&'a str>, has_calls: bool, is_refused: bool) -> Result<Self, Unfit> {
        Ok(match word {
            // Providers differ in what they say when there are calls; a client runs them for this word alone.
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
