//! Tokens, as chat counts them and as the Messages API does.

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{Fit, members};
use crate::limits::MAX_TOKENS_REPORTED;

/// Tokens, as chat counts them. What is no count says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChatUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// Tokens of the prompt that were read from a cache.
    read: Option<u64>,
    /// Tokens of the prompt that were written to a cache.
    written: Option<u64>,
}

/// Where a count stands.
type Count = fn(&mut ChatUsage) -> &mut Option<u64>;

/// What a member of `usage` counts. One table for all providers, at the top and in the prompt's details.
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
];

/// Where the prompt's details stand.
const DETAILS: &[&str] = &["prompt_tokens_details", "input_tokens_details"];

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

    fn cached(self) -> u64 {
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

/// Tokens, as the Messages API counts them: those of a cache stand apart.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<ChatUsage> for Usage {
    fn from(chat: ChatUsage) -> Self {
        let (prompt, completion) = chat.tokens();
        let (read, written) = (chat.read.unwrap_or(0), chat.written.unwrap_or(0));
        Self {
            // Where more is cached than the prompt has, it stands beside the prompt.
            input_tokens: prompt.checked_sub(chat.cached()).unwrap_or(prompt),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: read,
            output_tokens: completion,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{ChatUsage, Usage};

    /// Input, written to a cache, read from one, output.
    fn usage(chat: &str) -> Option<[u64; 4]> {
        let raw: &RawValue = serde_json::from_str(chat).expect("JSON");
        ChatUsage::of(raw).map(Usage::from).map(|usage| {
            let Usage { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens } =
                usage;
            [input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens]
        })
    }

    #[test]
    fn odd_number_costs_only_itself() {
        for (odd, read) in [
            ("14417.92", 14418),
            ("\"12\"", 12),
            ("1.0e1", 10),
            ("-5", 0),
            ("1e300", 0),
            ("\"many\"", 0),
            ("[]", 0),
            ("null", 0),
            ("18446744073709551615", 0),
        ] {
            let chat = format!("{{\"prompt_tokens\":{odd},\"completion_tokens\":7}}");
            assert_eq!(usage(&chat), Some([read, 0, 0, 7]), "{odd}");
        }
        for nothing in ["5", "14417.92", "\"x\"", "[]", "{}", "{\"prompt_tokens\":null}"] {
            assert_eq!(usage(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn cached_tokens_are_known_by_every_name() {
        for (member, expected) in [
            (r#""cached_tokens":4"#, [6, 0, 4, 7]),
            (r#""num_cached_tokens":4"#, [6, 0, 4, 7]),
            (r#""prompt_cache_hit_tokens":4"#, [6, 0, 4, 7]),
            (r#""cache_read_input_tokens":4"#, [6, 0, 4, 7]),
            (r#""prompt_tokens_details":{"cached_tokens":4}"#, [6, 0, 4, 7]),
            (r#""input_tokens_details":{"cached_tokens":4}"#, [6, 0, 4, 7]),
            (r#""prompt_tokens_details":{"cached_tokens":4},"cached_tokens":4"#, [6, 0, 4, 7]),
            (r#""prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}"#, [3, 3, 4, 7]),
            (r#""cache_creation_input_tokens":3,"cache_read_input_tokens":0"#, [7, 3, 0, 7]),
            // More cached than prompt: beside it.
            (r#""cached_tokens":11"#, [10, 0, 11, 7]),
            (r#""cache_read_input_tokens":9,"cache_creation_input_tokens":2"#, [10, 2, 9, 7]),
        ] {
            let chat = format!("{{\"prompt_tokens\":10,\"completion_tokens\":7,{member}}}");
            assert_eq!(usage(&chat), Some(expected), "{member}");
        }
    }

    #[test]
    fn tokens_beyond_prompt_and_completion_are_completion() {
        assert_eq!(
            usage(r#"{"prompt_tokens":12,"completion_tokens":2,"total_tokens":354}"#),
            Some([12, 0, 0, 342])
        );
        assert_eq!(
            usage(r#"{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14}"#),
            Some([12, 0, 0, 2])
        );
        assert_eq!(usage(r#"{"completion_tokens":2,"total_tokens":14}"#), Some([0, 0, 0, 2]));
    }
}
