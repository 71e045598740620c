//! OpenAI's Responses API: its translation to chat completions and back, for providers that speak nothing else. Pure
//! functions over bytes; `docs/responses.md` has the table of what becomes what.

mod context;
mod request;

pub use context::{Tool, Translation};
pub use request::chat_request;
