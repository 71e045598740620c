//! Awaits the beginning of a body, which shows whether the response is a stream or is collected first.

use super::collect::Collect;
use super::{Stage, Step};
use crate::api::relay::{Attempt, Relay};
use crate::front::Io;
use crate::limits::MAX_BEGINNING;
use crate::upstream::opening::begins_like_events;
use crate::upstream::{Failure, Fault, UpstreamResponse, Whole};

/// A response to a request for a stream that is not labelled as one.
pub struct AwaitBody {
    pub response: UpstreamResponse,
    pub first: Vec<u8>,
}

impl AwaitBody {
    /// Reads until the first bytes show whether the body consists of events, whatever its label.
    pub fn advance(mut self: Box<Self>, relay: &mut Relay, attempt: &Attempt, io: &mut dyn Io) -> Step {
        loop {
            let count = match self.response.read(io.scratch(), relay.now) {
                Ok(Some(count)) => count,
                Ok(None) => return Stage::AwaitBody(self).park(relay),
                Err(failure) => return Step::failed(failure),
            };
            let first = &mut self.first;
            first.extend_from_slice(&io.scratch()[..count]);
            if count == 0 && first.trim_ascii().is_empty() {
                let detail = "ended before its first event".to_owned();
                return Step::failed(Failure { fault: Fault::Broken, detail });
            }
            let is_all = count == 0 || first.len() > MAX_BEGINNING;
            if let Some(is_events) = begins_like_events(first).or(is_all.then_some(false)) {
                let Self { response, first } = *self;
                return relay.begun(response, first, is_events, attempt);
            }
        }
    }
}

impl Relay {
    /// Continues once the kind of the response is known; `beginning`: the part of its body that was read.
    pub(super) fn begun(
        &mut self,
        mut response: UpstreamResponse,
        beginning: Vec<u8>,
        is_events: bool,
        attempt: &Attempt,
    ) -> Step {
        // A heartbeat has promised events, and only events or a document can be translated.
        let may_pass = !self.client_call.is_committed() && !self.is_translated;
        if is_events || (may_pass && is_streamed(&response, self.call.body.stream)) {
            return self.stream(response, beginning, is_events, attempt);
        }
        // The response has begun, so the replica does not hang.
        response.take_time();
        let whole = Whole::begun(beginning, self.client_call.config().max_response_size);
        Collect { response, whole }.advance(self, attempt)
    }
}

/// Whether a response without events is relayed while it arrives: it is media, or the client asked for a stream and it is
/// neither JSON nor text.
fn is_streamed(response: &UpstreamResponse, asked: bool) -> bool {
    let kind = content_type(response);
    (200..300).contains(&response.status)
        && response.status != 204
        && (is_media(kind) || (asked && !is_document(kind)))
}

/// The `Content-Type`; empty where there is none.
pub fn content_type(response: &UpstreamResponse) -> &[u8] {
    response.headers.get("content-type").unwrap_or_default()
}

fn is_document(kind: &[u8]) -> bool {
    kind.is_empty() || begins_as(kind, &["application/json", "text/"])
}

pub fn is_media(kind: &[u8]) -> bool {
    is_binary(kind) || begins_as(kind, &["audio/", "image/", "video/"])
}

pub fn is_binary(kind: &[u8]) -> bool {
    begins_as(kind, &["application/octet-stream"])
}

fn begins_as(kind: &[u8], starts: &[&str]) -> bool {
    let begins =
        |start: &&str| kind.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start.as_bytes()));
    starts.iter().any(begins)
}
