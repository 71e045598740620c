//! The APIs that clients speak where the provider speaks chat completions alone: pure functions, events in, events out.

pub mod anthropic;
mod chat;
mod chat_request;
mod escapes;
mod joined;
mod json;
mod output;
mod pieces;
pub mod responses;
mod sse;
mod unfit;
mod usage;

pub use chat_request::ChatRequest;
pub use escapes::unescaped;
pub use joined::Joined;
pub use json::{Problem, Refusal};
pub use output::{Output, TooLarge};
pub use sse::Events;
pub use unfit::Unfit;
