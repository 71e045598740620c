//! Tokens, as chat counts them.

use serde_json::value::RawValue;

use crate::dialect::json::{Fit, members};
use crate::limits::MAX_TOKENS_REPORTED;

/// Tokens, as chat counts them. What is no count says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChatUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// Tokens of the prompt that were read from a cache.
    pub(super) read: Option<u64>,
    /// Tokens of the prompt that were written to a cache.
    pub(super) written: Option<u64>,
    /// Tokens of the completion that are no part of what is said.
    pub(super) reasoning: Option<u64>,
}

/// Where a count stands.
type Count = fn(&mut ChatUsage) -> &mut Option<u64>;

/// What a member of `usage` counts. One table for all providers, at the top and in the details.
const NAMES: &[(&str, Count)] = &[
    ("prompt_tokens", |usage| &mut usage.prompt),
    ("input_tokens", |usage| &mut usage.prompt),
    ("completion_tokens", |usage| &mut usage.completion),
    ("output_tokens", |usage| &mut usage.completion),
    ("total_tokens", |usage| &mut usage.total),
    ("cached_tokens", |usage| &mut usage.read),
    ("num_cached_tokens", |usage| &mut usage.read),
    ("cached_prompt_tokens", |usage| &mut usage.read),
    ("cache_hit_tokens", |usage| &mut usage.read),
    ("cache_read_tokens", |usage| &mut usage.read),
    ("cache_read_input_tokens", |usage| &mut usage.read),
    ("prompt_cache_hit_tokens", |usage| &mut usage.read),
    ("cache_write_tokens", |usage| &mut usage.written),
    ("cache_creation_tokens", |usage| &mut usage.written),
    ("cache_creation_input_tokens", |usage| &mut usage.written),
    ("reasoning_tokens", |usage| &mut usage.reasoning),
];

/// Where the details stand.
const DETAILS: &[&str] =
    &["prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"];

impl ChatUsage {
    /// What a `usage` says, if it says anything.
    pub(super) fn of(usage: &RawValue) -> Option<Self> {
        let mut all = Self::default();
        // What is no object says nothing.
        let _ = members(usage, |key, value| {
            if DETAILS.contains(&key) {
                let _ = members(value, |key, value| all.note(key, value));
            }
            all.note(key, value)
        });
        (all != Self::default()).then_some(all)
    }

    /// Of two names for one count the larger counts: some providers write 0 under the one they do not use.
    fn note(&mut self, key: &str, value: &RawValue) -> Fit<()> {
        if let Some((_, count)) = NAMES.iter().find(|(name, _)| *name == key) {
            let reported = count(self);
            *reported = (*reported).max(number(value));
        }
        Ok(())
    }

    /// Tokens of the prompt and of the completion. What the total holds beyond them is reasoning, which some providers
    /// count beside the completion.
    pub(super) fn tokens(self) -> (u64, u64) {
        let (completion, total) = (self.completion.unwrap_or(0), self.total.unwrap_or(0));
        let Some(prompt) = self.prompt else { return (0, completion) };
        let beside_prompt = Some(self.cached()).filter(|cached| *cached > prompt).unwrap_or(0);
        (prompt, completion.max(total.saturating_sub(prompt + beside_prompt)))
    }

    /// The same, the prompt's with those of a cache wherever they are counted.
    pub(super) fn whole_tokens(self) -> (u64, u64) {
        let (prompt, completion) = self.tokens();
        let cached = self.cached();
        (if cached > prompt { prompt + cached } else { prompt }, completion)
    }

    /// Tokens of the prompt that a cache had or got.
    pub(super) fn cached(self) -> u64 {
        self.read.unwrap_or(0) + self.written.unwrap_or(0)
    }
}

/// A count: also as a fraction or in a string, but neither negative nor beyond belief.
fn number(value: &RawValue) -> Option<u64> {
    let text = value.get().trim_matches('"');
    let count: u64 = text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        format!("{number:.0}").parse().ok()
    })?;
    (count <= MAX_TOKENS_REPORTED).then_some(count)
}
