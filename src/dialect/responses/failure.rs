//! Why a response failed, as the Responses API tells it.

use crate::dialect::output::Output;
use crate::dialect::reported::Reported;

/// A provider's error as the `error` of a response.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    reported: Reported<'a>,
    status: u16,
}

impl<'a> Failure<'a> {
    /// What a provider told in `document`, with the status that goes with it.
    pub(super) fn of(status: u16, document: &'a [u8]) -> Self {
        Self { reported: Reported::of(document), status }
    }

    /// The code that clients decide by: the provider's own word, else the status'. A number is no code.
    fn code(&self) -> &str {
        let is_word = |code: &&str| !code.is_empty() && !code.bytes().all(|byte| byte.is_ascii_digit());
        match self.reported.code.as_deref().filter(is_word) {
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
