//! Anthropic's Messages API: the shape of its errors, and its translation to OpenAI's chat completions and back, for
//! providers that speak nothing else. Pure functions over bytes; `docs/anthropic.md` has the table of what becomes what.

mod block;
mod blocks;
mod chat;
mod content;
pub mod error;
mod escapes;
mod event;
mod joined;
mod json;
mod output;
mod output_config;
mod parts;
mod pieces;
mod request;
mod response;
mod sse;
mod stream;
mod unfit;
mod usage;

pub use escapes::unescaped;
pub use joined::Joined;
pub use json::{Problem, Refusal};
pub use output::{Output, TooLarge};
pub use request::ChatRequest;
pub use response::message;
pub use sse::Events;
pub use stream::Translator;
pub use unfit::Unfit;

/// Whether a path belongs to this API.
pub fn is_path(path: &str) -> bool {
    path.strip_prefix("/v1/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
