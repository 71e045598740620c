//! Token counts in the form of chat completions.

use super::raw::Raw;
use crate::dialect::json::{Fit, members};
use crate::limits::MAX_TOKENS_REPORTED;

/// Token counts in the form of chat completions. Invalid counts are ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChatUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// Tokens of the prompt that were read from a cache.
    pub(super) read: Option<u64>,
    /// Tokens of the prompt that were written to a cache.
    pub(super) written: Option<u64>,
    /// Tokens of the completion that are not part of its text.
    pub(super) reasoning: Option<u64>,
}

/// The field of a count.
type Count = fn(&mut ChatUsage) -> &mut Option<u64>;

/// The count that each member of `usage` has: one table for all providers, for the top level and the details.
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

/// Members with details.
const DETAILS: &[&str] =
    &["prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"];

impl ChatUsage {
    /// The counts of a `usage`, if it has any.
    pub(super) fn of(usage: Raw<'_>) -> Option<Self> {
        let mut all = Self::default();
        // A value that is no object has no counts.
        let _ = members(usage, |key, value| {
            if DETAILS.contains(&key) {
                let _ = members(value, |key, value| all.note(key, value));
            }
            all.note(key, value)
        });
        (all != Self::default()).then_some(all)
    }

    /// Of two names for one count the larger value counts: some providers write 0 under the name they do not
    /// use.
    fn note(&mut self, key: &str, value: Raw<'_>) -> Fit<()> {
        if let Some((_, count)) = NAMES.iter().find(|(name, _)| *name == key) {
            let reported = count(self);
            *reported = (*reported).max(number(value));
        }
        Ok(())
    }

    /// Tokens of the prompt and of the completion. A total beyond their sum is reasoning, which some
    /// providers do not count in the completion.
    pub(super) fn tokens(self) -> (u64, u64) {
        let (completion, total) = (self.completion.unwrap_or(0), self.total.unwrap_or(0));
        let Some(prompt) = self.prompt else { return (0, completion) };
        let beside_prompt = Some(self.cached()).filter(|cached| *cached > prompt).unwrap_or(0);
        (prompt, completion.max(total.saturating_sub(prompt + beside_prompt)))
    }

    /// The same, with cached tokens always included in the prompt.
    pub(super) fn whole_tokens(self) -> (u64, u64) {
        let (prompt, completion) = self.tokens();
        let cached = self.cached();
        (if cached > prompt { prompt + cached } else { prompt }, completion)
    }

    /// Tokens of the prompt that were read from or written to a cache.
    pub(super) fn cached(self) -> u64 {
        self.read.unwrap_or(0) + self.written.unwrap_or(0)
    }
}

/// A count, also as a fraction or in a string; negative or implausibly large ones are ignored.
fn number(value: Raw<'_>) -> Option<u64> {
    let text = value.get().trim_matches('"');
    let count: u64 = text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        format!("{number:.0}").parse().ok()
    })?;
    (count <= MAX_TOKENS_REPORTED).then_some(count)
}
