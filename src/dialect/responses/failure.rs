//! Why a response failed, as the Responses API tells it.

use crate::dialect::output::Output;
use crate::dialect::reported::Reported;

/// The codes by which clients decide whether to ask again: Codex does so after the first two alone.
const CODES: &[&str] = &[
    "rate_limit_exceeded",
    "server_error",
    "context_length_exceeded",
    "insufficient_quota",
    "invalid_prompt",
    "usage_not_included",
];

/// A provider's error as the `error` of a response.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    reported: Reported<'a>,
    status: u16,
}

impl<'a> Failure<'a> {
    /// What a provider reports in `document`, with the status that goes with it.
    pub(super) fn of(status: u16, document: &'a [u8]) -> Self {
        Self { reported: Reported::of(document), status }
    }

    /// The code that clients decide by: the provider's where it is one of theirs, else the status'.
    fn code(&self) -> &str {
        match self.reported.code.as_deref().filter(|code| CODES.contains(code)) {
            Some(code) => code,
            None if self.status == 429 => "rate_limit_exceeded",
            None if (400..500).contains(&self.status) => "invalid_prompt",
            None => "server_error",
        }
    }

    pub(super) fn write(&self, out: &mut Output) {
        out.write(&["{\"code\":"]);
        out.string(self.code());
        out.write(&[",\"message\":"]);
        out.string(&self.reported.message);
        out.write(&["}"]);
    }
}
