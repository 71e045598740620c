//! A chat completion as a response of the Messages API.

use super::usage::Usage;
use super::writer::{NO_OBJECT, RULES, is_object, stop_reason};
use crate::dialect::block::{Block, Kind, Tool};
use crate::dialect::blocks::Blocks;
use crate::dialect::completion::Completion;
use crate::dialect::output::Output;
use crate::dialect::unfit::Unfit;

/// The response for a client that asked for `model`, at most `limit` bytes. `id` is used if the provider
/// gives none.
///
/// # Errors
/// [`Unfit`].
pub fn message(body: &[u8], model: &str, id: &str, limit: usize) -> Result<Vec<u8>, Unfit> {
    let Completion { id, blocks, finish, usage } = Completion::of(body, id, RULES, limit)?;
    let finish = blocks.finish(finish.as_deref())?;
    let mut out = Output::with_capacity(limit, body.len());
    out.write(&["{\"id\":"]);
    out.string(&id);
    out.write(&[",\"type\":\"message\",\"role\":\"assistant\",\"model\":"]);
    out.string(model);
    out.write(&[",\"content\":["]);
    write_content(blocks, finish.is_cut(), &mut out)?;
    out.write(&["],\"stop_reason\":"]);
    out.string(stop_reason(&finish));
    // Chat does not report which stop sequence matched.
    out.write(&[",\"stop_sequence\":null,\"usage\":"]);
    // Numbers always serialize, and an overrun is remembered.
    let _ = serde_json::to_writer(&mut out, &Usage::from(usage.unwrap_or_default()));
    out.write(&["}"]);
    Ok(out.into_bytes()?)
}

/// Writes the blocks; `is_cut`: the last call may be incomplete and is then omitted, because it is no JSON.
fn write_content(blocks: Blocks, is_cut: bool, out: &mut Output) -> Result<(), Unfit> {
    let blocks = blocks.into_complete();
    let count = blocks.len();
    for (at, block) in blocks.enumerate() {
        if block.call().is_some() && !is_object(block.text.text()) {
            if is_cut && at + 1 == count {
                break;
            }
            return Err(NO_OBJECT);
        }
        out.write(if at > 0 { &[","] } else { &[] });
        write_block(&block, out);
    }
    Ok(())
}

fn write_block(block: &Block, out: &mut Output) {
    let text = block.text.text();
    match &block.kind {
        Kind::Text | Kind::Refusal => {
            out.write(&["{\"type\":\"text\",\"text\":"]);
            out.string(text);
        }
        Kind::Thinking => {
            out.write(&["{\"type\":\"thinking\",\"thinking\":"]);
            out.string(text);
            out.write(&[",\"signature\":\"\""]);
        }
        Kind::Tool(Tool { id, name, .. }) => {
            out.write(&["{\"type\":\"tool_use\",\"id\":"]);
            out.string(id);
            out.write(&[",\"name\":"]);
            out.string(name);
            let input = text.trim_ascii();
            out.write(&[",\"input\":", if input.is_empty() { "{}" } else { input }]);
        }
    }
    out.write(&["}"]);
}
