//! The `response` object.

use super::failure::Failure;
use crate::dialect::output::Output;
use crate::dialect::usage::ChatUsage;

/// Identity of a response.
#[derive(Debug)]
pub(super) struct Object {
    /// The model that the client asked for.
    model: String,
    /// Unix time in seconds.
    created_at: u64,
    /// The request's id.
    pub(super) request_id: String,
    id: String,
    /// Common part of the ids of its items: short, because each event repeats one.
    pub(super) tag: String,
}

/// The members of a response besides its output.
pub(super) enum Details<'a> {
    /// It is in progress.
    Begun,
    Complete(Option<ChatUsage>),
    /// It ended early, for this reason.
    Incomplete(&'static str, Option<ChatUsage>),
    Failed(&'a Failure<'a>),
}

impl Object {
    /// The response to the request of that id, for a client that asked for `model` at `created_at`, Unix time
    /// in seconds.
    pub(super) fn new(model: &str, request_id: &str, created_at: u64) -> Self {
        let (model, request_id) = (model.to_owned(), request_id.to_owned());
        Self { model, created_at, request_id, id: String::new(), tag: String::new() }
    }

    /// Takes over the id of the provider's response.
    pub(super) fn name(&mut self, id: &str) {
        let prefix = if id.starts_with("resp_") { "" } else { "resp_" };
        self.id = [prefix, id].concat();
        self.tag = tag(&[&self.request_id, id]);
    }

    /// Writes it; `output` has its items, `echo` the members that repeat the request.
    pub(super) fn write(
        &self,
        status: &str,
        details: &Details<'_>,
        output: &[u8],
        echo: &str,
        out: &mut Output,
    ) {
        out.write(&["{\"id\":"]);
        out.string(&self.id);
        out.write(&[",\"object\":\"response\",\"created_at\":"]);
        out.number(self.created_at);
        out.write(&[",\"status\":\"", status, "\",\"error\":"]);
        match details {
            Details::Failed(failure) => failure.write(out),
            _ => out.write(&["null"]),
        }
        out.write(&[",\"incomplete_details\":"]);
        match details {
            Details::Incomplete(reason, _) => out.write(&["{\"reason\":\"", reason, "\"}"]),
            _ => out.write(&["null"]),
        }
        out.write(&[",\"model\":"]);
        out.string(&self.model);
        out.write(&[",\"output\":["]);
        out.add(output);
        out.write(&["],\"usage\":"]);
        match details {
            Details::Complete(Some(usage)) | Details::Incomplete(_, Some(usage)) => write_usage(*usage, out),
            _ => out.write(&["null"]),
        }
        out.write(if echo.is_empty() { &[] } else { &[","] });
        out.write(&[echo, "}"]);
    }
}

/// A short hash of some ids (FNV-1a).
fn tag(ids: &[&str]) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = ids.iter().flat_map(|id| id.bytes().chain([0]));
    let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

fn write_usage(usage: ChatUsage, out: &mut Output) {
    let (input, output) = usage.whole_tokens();
    for (lead, count) in [
        ("{\"input_tokens\":", input),
        (",\"input_tokens_details\":{\"cached_tokens\":", usage.read.unwrap_or(0)),
        (",\"cache_write_tokens\":", usage.written.unwrap_or(0)),
        ("},\"output_tokens\":", output),
        (",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning.unwrap_or(0).min(output)),
        ("},\"total_tokens\":", input.saturating_add(output)),
    ] {
        out.write(&[lead]);
        out.number(count);
    }
    out.write(&["}"]);
}
