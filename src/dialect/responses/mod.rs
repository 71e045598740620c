//! OpenAI's Responses API: its translation to chat completions and back, for providers that support only
//! those. Pure functions over bytes; `docs/responses.md` has the table of counterparts.

mod content;
mod context;
mod custom_input;
mod events;
mod failure;
mod input;
mod item;
mod object;
mod output_item;
mod request;
mod response;
mod tools;

pub use context::{Tool, Translation};
pub use request::chat_request;
pub use response::{Asked, response, translator};
