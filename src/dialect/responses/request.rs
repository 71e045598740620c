//! A Responses request as a chat completion request. What chat has no place for is refused by name; what is only a hint and
//! changes nothing of what is said (`docs/responses.md` lists it) is left out.

use serde_json::value::RawValue;

use super::context::Translation;
use crate::dialect::chat_request::ChatRequest;
use crate::dialect::json::{Fit, Refusal};

/// The chat request that says what a Responses request says, in at most `limit` bytes, and what the way back needs. `body` is
/// a JSON object.
///
/// # Errors
/// What has no place in a chat request, or is not what the Responses API asks for, and where; or it is too large.
pub fn chat_request(_body: &RawValue, _limit: usize) -> Fit<(ChatRequest, Translation)> {
    Err(Refusal::not_carried("input"))
}
