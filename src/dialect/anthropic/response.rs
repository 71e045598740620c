//! A chat completion as a response of the Messages API.

use super::blocks::Blocks;
use super::usage::Usage;
use crate::dialect::chat;
use crate::dialect::output::Output;
use crate::dialect::unfit::Unfit;

/// The response for the client that asked for `model`, in at most `limit` bytes. `id` serves where the provider gives none.
///
/// # Errors
/// [`Unfit`].
pub fn message(body: &[u8], model: &str, id: &str, limit: usize) -> Result<Vec<u8>, Unfit> {
    let document = chat::utf8(body)?;
    let mut chat = chat::parse(&document)?;
    let choice = chat.choices.take().and_then(|choices| choices.0).ok_or(Unfit::Malformed("no choices"))?;
    let mut said = choice.message.ok_or(Unfit::Malformed("no message"))?;
    let given = chat::id(chat.id);
    let id = given.as_deref().unwrap_or(id);
    let mut blocks = Blocks::new(limit);
    said.pieces(|piece, text| blocks.say(piece, text))?;
    for call in said.calls()? {
        blocks.call(&call, id)?;
    }
    let finish = chat::word(choice.finish_reason);
    let stop_reason = stop_reason(finish.as_deref(), blocks.has_calls(), blocks.is_refused())?;
    let mut out = Output::with_capacity(limit, body.len());
    out.write(&["{\"id\":"]);
    out.string(id);
    out.write(&[",\"type\":\"message\",\"role\":\"assistant\",\"model\":"]);
    out.string(model);
    out.write(&[",\"content\":["]);
    // Where the limit was met, the last call may have been cut: there is no JSON that could stand for it.
    blocks.write(stop_reason == "max_tokens", &mut out)?;
    out.write(&["],\"stop_reason\":"]);
    out.string(stop_reason);
    // Chat does not tell which stop sequence it was.
    out.write(&[",\"stop_sequence\":null,\"usage\":"]);
    // Numbers always serialize, and what exceeds the limit is remembered.
    let _ = serde_json::to_writer(&mut out, &Usage::from(chat.usage().unwrap_or_default()));
    out.write(&["}"]);
    Ok(out.into_bytes()?)
}

/// Why the model stopped. A word that has no counterpart passes as it is.
pub(super) fn stop_reason(finish: Option<&str>, calls: bool, refused: bool) -> Result<&str, Unfit> {
    Ok(match finish {
        // Providers differ in what they say when there are calls; a client runs them for this word alone.
        None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") if calls => "tool_use",
        Some("content_filter" | "sensitive") => "refusal",
        None | Some("" | "stop" | "eos") if refused => "refusal",
        None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") => "end_turn",
        Some("length" | "model_length") => "max_tokens",
        Some("error" | "network_error" | "insufficient_system_resource" | "abort") => {
            return Err(Unfit::Broken("the provider gave up"));
        }
        Some(other) => other,
    })
}
