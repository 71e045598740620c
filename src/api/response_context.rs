//! The common part of all responses to a request: its id, the language, the permissions of browsers.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::auth::quota::{Day, Standing};
use crate::config::{Config, Format};
pub use crate::core::relayed_headers::X_REQUEST_ID;
use crate::dialect::anthropic;
use crate::front::{Fields, Head};
use crate::limits::MAX_REQUEST_ID;
use crate::text::Language;

/// Anthropic's name of the request's id.
pub const REQUEST_ID: &str = "request-id";

/// The common part of all responses to one request.
#[derive(Debug, Clone)]
pub struct ResponseContext {
    /// The id of the request.
    pub id: Arc<str>,
    /// The id is the client's own.
    pub id_is_clients: bool,
    /// Language of messages.
    pub language: Language,
    /// The caller's format: our errors and events have its shape.
    pub format: Format,
    /// The path belongs to the Responses API, whose error events have a shape of their own.
    pub is_responses: bool,
    /// The caller's requests a minute so far, if its token has such a limit and was admitted or refused by it.
    pub standing: Option<Standing>,
    /// The caller's tokens a day so far.
    pub day: Option<Day>,
    /// A preflight whose origin `cors_origins` does not name.
    pub is_refused_preflight: bool,
    /// The origin that a browser may show the response to.
    origin: Option<String>,
    /// Another origin would get another response, so caches need `Vary`.
    varies: bool,
}

/// The header fields with the limits of the caller's token, named as in the OpenAI API.
const LIMIT: &str = "x-ratelimit-limit-requests";
const REMAINING: &str = "x-ratelimit-remaining-requests";
const RESET: &str = "x-ratelimit-reset-requests";
const LIMIT_TOKENS: &str = "x-ratelimit-limit-tokens";
const REMAINING_TOKENS: &str = "x-ratelimit-remaining-tokens";
const RESET_TOKENS: &str = "x-ratelimit-reset-tokens";
/// The fields that a page of another origin may read: by name for the oldest browsers, and all of them (Fetch standard, section 3.3.3:
/// `*` counts where no cookies are sent, and ai-proxy accepts none), so that the page can read a provider's own limits too.
const EXPOSED: &str = "x-request-id, x-ai-proxy-provider, retry-after, x-ratelimit-limit-requests, \
                       x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
                       x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, *";

impl ResponseContext {
    /// The context of a request; without a head, of one that could not be parsed.
    pub fn of(config: &Config, head: Option<&Head>) -> Self {
        let sent = head.and_then(|head| head.field("x-request-id")).and_then(sane_id);
        Self {
            id_is_clients: sent.is_some(),
            id: sent.map_or_else(new_id, Arc::from),
            language: config.language,
            format: format_of(head),
            is_responses: head.is_some_and(|head| head.path().starts_with("/v1/responses")),
            standing: None,
            day: None,
            is_refused_preflight: false,
            origin: head.and_then(|head| allowed_origin(config, head)),
            varies: !config.cors_origins.is_empty() && !allows_all(config),
        }
    }

    /// Header fields of a response of our own with a body of that type.
    pub fn fields(&self, content_type: &str) -> Fields {
        let mut fields = Fields::default();
        fields.push("content-type", content_type);
        self.mark(&mut fields);
        fields
    }

    /// Adds the fields of every response.
    pub fn mark(&self, fields: &mut Fields) {
        fields.push("x-request-id", &*self.id);
        // Anthropic's SDKs read the id here; the provider's own stays.
        if self.format == Format::Anthropic && !fields.contains("request-id") {
            fields.push("request-id", &*self.id);
        }
        if let Some(standing) = self.standing {
            fields.push(LIMIT, standing.limit.to_string());
            fields.push(REMAINING, standing.remaining.to_string());
            fields.push(RESET, reset(standing.reset));
        }
        if let Some(day) = self.day {
            fields.push(LIMIT_TOKENS, day.limit.to_string());
            fields.push(REMAINING_TOKENS, day.limit.saturating_sub(day.used).to_string());
            fields.push(RESET_TOKENS, reset(day.reset));
        }
        if let Some(origin) = &self.origin {
            fields.push("access-control-allow-origin", origin);
            fields.push("access-control-expose-headers", EXPOSED);
        }
        if self.varies {
            fields.push("vary", "Origin");
        }
    }

    /// Whether our own field replaces the provider's: the limits of its key are not the caller's.
    pub fn replaces(&self, name: &str) -> bool {
        (self.standing.is_some() && [LIMIT, REMAINING, RESET].contains(&name))
            || (self.day.is_some() && [LIMIT_TOKENS, REMAINING_TOKENS, RESET_TOKENS].contains(&name))
    }

    /// The response to a preflight (Fetch standard, section 3.2.5): the origin may do what it asks for.
    pub fn preflight_fields(&self, head: &Head) -> Option<Fields> {
        self.origin.as_ref()?;
        let mut fields = Fields::default();
        self.mark(&mut fields);
        fields.push("access-control-allow-methods", "GET, HEAD, POST, DELETE, OPTIONS");
        let wanted = head.field("access-control-request-headers").unwrap_or(b"authorization, content-type");
        fields.push("access-control-allow-headers", wanted);
        fields.push("access-control-max-age", "600");
        fields.push("vary", "Access-Control-Request-Headers, Access-Control-Request-Private-Network");
        // A public page that calls into a private network (WICG Private Network Access).
        if head.field("access-control-request-private-network") == Some(b"true") {
            fields.push("access-control-allow-private-network", "true");
        }
        Some(fields)
    }

    /// Notes that an OPTIONS request is a preflight (Fetch standard, section 3.2.2), which is refused.
    pub fn note_preflight(&mut self, head: &Head) {
        self.is_refused_preflight =
            ["origin", "access-control-request-method"].iter().all(|name| head.field(name).is_some());
    }

    /// Replaces `ours`, a generated id, by the upstream's, if there is one.
    pub fn adopt_id(&mut self, ours: &Arc<str>, upstreams: Option<&str>) {
        if !self.id_is_clients {
            self.id = upstreams.map_or_else(|| Arc::clone(ours), Arc::from);
        }
    }
}

fn format_of(head: Option<&Head>) -> Format {
    match head {
        Some(head) if anthropic::is_path(head.path()) => Format::Anthropic,
        _ => Format::OpenAi,
    }
}

/// A time as the OpenAI API writes it: `0s`, `250ms`, `17s`, `6m0s`.
fn reset(time: Duration) -> String {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    let seconds = milliseconds.div_ceil(1000);
    match (milliseconds, seconds) {
        (1..1000, _) => format!("{milliseconds}ms"),
        (_, ..60) => format!("{seconds}s"),
        (_, ..3600) => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// An id that can stand in a header, a log line and a file name.
pub fn sane_id(value: &[u8]) -> Option<&str> {
    let is_sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    let is_valid = !value.is_empty() && value.len() <= MAX_REQUEST_ID && value.iter().all(is_sane);
    is_valid.then(|| std::str::from_utf8(value).ok()).flatten()
}

/// A random id: the hasher's random seed makes it unique over restarts, the count within one run.
pub fn new_id() -> Arc<str> {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 28];
    id[..4].copy_from_slice(b"req_");
    // `format!` would cost more than all else here, on every request.
    let digit = |value: u64| b"0123456789abcdef"[(value & 0xf) as usize];
    let (secret, number) = id[4..].split_at_mut(16);
    for (digits, value) in [(secret, SEED.hash_one(count)), (number, count)] {
        digits.iter_mut().rev().fold(value, |value, at| {
            *at = digit(value);
            value >> 4
        });
    }
    std::str::from_utf8(&id).unwrap_or_default().into()
}

fn allows_all(config: &Config) -> bool {
    config.cors_origins.iter().any(|allowed| allowed == "*")
}

fn allowed_origin(config: &Config, head: &Head) -> Option<String> {
    if config.cors_origins.is_empty() {
        return None;
    }
    let origin = std::str::from_utf8(head.field("origin")?).ok()?;
    if allows_all(config) {
        return Some("*".to_owned());
    }
    config.cors_origins.iter().find(|allowed| allowed.eq_ignore_ascii_case(origin)).map(|_| origin.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{new_id, reset, sane_id};

    #[test]
    fn reset_is_written_as_openai_does() {
        for (milliseconds, text) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (59_001, "1m0s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
        ] {
            assert_eq!(reset(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(reset(Duration::from_nanos(1)), "1ms");
    }

    #[test]
    fn sane_id_refuses_ids_that_could_break_a_line_or_are_too_long() {
        assert_eq!(sane_id(b"req-1_a.b:c"), Some("req-1_a.b:c"));
        for bad in [&b""[..], b"a b", b"a\nb", b"a\"b", b"\xff", &[b'a'; 129]] {
            assert_eq!(sane_id(bad), None);
        }
    }

    #[test]
    fn new_id_is_sane_and_unique() {
        let (first, second) = (new_id(), new_id());
        assert_ne!(first, second);
        assert!(sane_id(first.as_bytes()).is_some());
    }
}
