//! Why a response is not translated.

use super::output::TooLarge;
use crate::core::sse::EventTooLarge;

/// Why a response cannot be put into the other format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is an error, in spite of its status.
    Error,
    /// It is complete, but holds what cannot be carried. Another replica would say the same.
    Malformed(&'static str),
    /// It is no JSON, not complete, or says that the provider gave up.
    Broken(&'static str),
    /// More than the limit would have to be written or held.
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
