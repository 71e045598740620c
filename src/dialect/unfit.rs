//! Why a response is not translated.

use super::output::TooLarge;
use crate::core::sse::EventTooLarge;

/// Why a response cannot be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is an error despite its status.
    Error,
    /// It is complete, but has something without a counterpart. Another replica would send the same.
    Malformed(&'static str),
    /// It is no JSON, is incomplete, or reports that the provider stopped early.
    Broken(&'static str),
    /// The output or the held text would exceed the limit.
    TooLarge,
}

impl From<TooLarge> for Unfit {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl From<EventTooLarge> for Unfit {
    fn from(_: EventTooLarge) -> Self {
        Self::Malformed("an event is too large")
    }
}
