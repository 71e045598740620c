//! The error of a failed response in the Responses API.

use crate::dialect::output::Output;
use crate::dialect::reported::Reported;

/// Codes by which clients decide on a retry: Codex retries only after the first two.
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
    /// A provider's error in `document`, with its status.
    pub(super) fn of(status: u16, document: &'a [u8]) -> Self {
        Self { reported: Reported::of(document), status }
    }

    /// The code for clients: the provider's if it is a known one, else that of the status.
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
