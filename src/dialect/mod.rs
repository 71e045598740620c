//! The APIs that clients use with providers that support only chat completions: pure functions, events in,
//! events out.

pub mod anthropic;
mod block;
mod blocks;
mod chat;
mod chat_request;
mod completion;
mod escapes;
mod finish;
mod joined;
mod json;
mod output;
mod pieces;
mod raw;
mod repeated;
mod reported;
pub mod responses;
mod stream;
mod unfit;
mod usage;
mod writer;

pub use chat_request::{Attached, ChatRequest};
pub use escapes::unescaped;
pub use joined::Joined;
pub use json::{Problem, Refusal};
pub use output::{Output, TooLarge};
pub use raw::{Document, Raw};
pub use stream::Translator;
pub use unfit::Unfit;
