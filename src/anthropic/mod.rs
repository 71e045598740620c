//! Anthropic's Messages API: the shape of its errors.

pub mod error;

/// What a stream's client hears while its provider is silent: Anthropic's own event for it.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Whether a path belongs to this API.
pub fn is_path(path: &str) -> bool {
    path.strip_prefix("/v1/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
