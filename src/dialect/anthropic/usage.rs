//! Token counts in the form of the Messages API.

use serde::Serialize;

use crate::dialect::usage::ChatUsage;

/// Token counts in the form of the Messages API: cached tokens are counted separately.
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
            // A cache larger than the prompt is not part of the prompt's count.
            input_tokens: prompt.checked_sub(chat.cached()).unwrap_or(prompt),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: read,
            output_tokens: completion,
        }
    }
}

#[cfg(test)]
mod tests {

    use super::Usage;
    use crate::dialect::raw::Raw;
    use crate::dialect::usage::ChatUsage;

    /// Input, written to a cache, read from one, output.
    fn usage(chat: &str) -> Option<[u64; 4]> {
        let raw: Raw<'_> = serde_json::from_str(chat).expect("JSON");
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
            // More cached than prompt tokens: counted separately.
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
