//! What is known of a provider by its host: where it differs from the OpenAI API, and how.
//!
//! Whatever else providers do in their own way passes as it is; `docs/providers.md` says what, `tests/golden/providers` holds it.

/// How a provider differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    host: &'static str,
    /// It speaks Anthropic's format as well, at the same base URL, and takes its key in that format's header.
    pub is_anthropic: bool,
    /// What follows `/models` to get the whole list.
    pub list_query: &'static str,
    /// What stands before the ids that it lists, and not before those it is called for.
    pub listed_prefix: &'static str,
    /// What it calls the most tokens of a chat answer.
    pub token_limit: &'static str,
    /// It refuses a request with `stream_options`, and reports the usage of every stream.
    pub refuses_stream_options: bool,
}

const ORDINARY: Known = Known {
    host: "",
    is_anthropic: false,
    list_query: "",
    listed_prefix: "",
    token_limit: "max_tokens",
    refuses_stream_options: false,
};

const KNOWN: &[Known] = &[
    // Lists 20 models a page unless asked for more, 1,000 at most.
    Known { host: "api.anthropic.com", is_anthropic: true, list_query: "?limit=1000", ..ORDINARY },
    // Its newer models refuse the older name, which is the one that everybody else knows.
    Known { host: "api.openai.com", token_limit: "max_completion_tokens", ..ORDINARY },
    // 422: extra inputs are not permitted.
    Known { host: "api.mistral.ai", refuses_stream_options: true, ..ORDINARY },
    Known { host: "codestral.mistral.ai", refuses_stream_options: true, ..ORDINARY },
    Known { host: "generativelanguage.googleapis.com", listed_prefix: "models/", ..ORDINARY },
];

/// What is known of the provider at that URL.
pub fn known(url: &str) -> &'static Known {
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    KNOWN.iter().find(|known| known.host.eq_ignore_ascii_case(host)).unwrap_or(&ORDINARY)
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn a_provider_is_known_by_its_host_alone() {
        assert!(known("https://api.anthropic.com/v1").is_anthropic);
        assert!(known("https://API.anthropic.com:443/v1").is_anthropic);
        assert!(!known("https://api.anthropic.com.example/v1").is_anthropic);
        assert!(!known("http://127.0.0.1:1/api.anthropic.com").is_anthropic);
        assert_eq!(known("https://api.openai.com/v1").token_limit, "max_completion_tokens");
        assert_eq!(known("https://api.deepseek.com").token_limit, "max_tokens");
        assert!(known("https://api.mistral.ai/v1").refuses_stream_options);
        assert!(!known("https://api.openai.com/v1").refuses_stream_options);
        assert_eq!(known("https://generativelanguage.googleapis.com/v1beta/openai").listed_prefix, "models/");
    }
}
