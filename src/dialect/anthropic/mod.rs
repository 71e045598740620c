//! Anthropic's Messages API: the form of its errors, and its translation to OpenAI's chat completions and
//! back, for providers that support only those. Pure functions over bytes; `docs/anthropic.md` has the table
//! of counterparts.

mod content;
pub mod error;
mod event;
mod output_config;
mod parts;
mod request;
mod response;
mod unsigned;
mod usage;
mod writer;

pub use request::chat_request;
pub use response::message;
pub use unsigned::unsigned_thinking;
pub use writer::translator;

/// Whether a path belongs to this API.
pub fn is_path(path: &str) -> bool {
    path.strip_prefix("/v1/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
