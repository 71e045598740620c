//! Providers known by their host, and how each differs from the OpenAI API.
//!
//! Other peculiarities of providers pass through unchanged; `docs/providers.md` lists them,
//! `tests/golden/providers` holds them.

use super::Format;

/// How a provider differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    host: &'static str,
    /// Path of its base URL; empty: any path may be right.
    base_path: &'static str,
    /// Path of the base URL for Anthropic's format; empty: any path may be right.
    anthropic_path: &'static str,
    /// It speaks Anthropic's format at the same base URL, with the key in that format's header.
    pub is_anthropic: bool,
    /// Query of `/models` that returns the whole list.
    pub list_query: &'static str,
    /// Prefix of listed ids that calls omit.
    pub listed_prefix: &'static str,
    /// Its member for the maximum of tokens in a chat response.
    pub token_limit: &'static str,
    /// Whether it serves `/responses`; `None`: unknown, or different between accounts or servers.
    pub serves_responses: Option<bool>,
    /// It refuses `stream_options`, and reports usage in every stream.
    pub refuses_stream_options: bool,
    /// Which `reasoning_content` of a history it accepts.
    pub thinking: Thinking,
}

/// Which thoughts of a history a provider gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Thinking {
    /// None: it refuses `reasoning_content`, or never writes any.
    Nothing,
    /// Those without a signature or seal: a translated provider wrote them, and may need them back.
    #[default]
    Unsigned,
    /// All readable ones: it refuses a history of tool calls without them.
    All,
}

impl Thinking {
    /// Whether it includes a thought.
    pub fn includes(self, is_sealed: bool) -> bool {
        self == Self::All || (self == Self::Unsigned && !is_sealed)
    }
}

const ORDINARY: Known = Known {
    host: "",
    base_path: "",
    anthropic_path: "",
    is_anthropic: false,
    list_query: "",
    listed_prefix: "",
    token_limit: "max_tokens",
    serves_responses: None,
    refuses_stream_options: false,
    thinking: Thinking::Unsigned,
};

/// A host with that base path that serves `/responses`.
const fn all_apis_at(host: &'static str, base_path: &'static str) -> Known {
    Known { serves_responses: Some(true), ..at(host, base_path) }
}

/// A host with that base path that lacks `/responses`.
const fn chat_at(host: &'static str, base_path: &'static str) -> Known {
    Known { serves_responses: Some(false), ..at(host, base_path) }
}

/// A host of Mistral's. 422: extra inputs are not permitted.
const fn mistral_at(host: &'static str) -> Known {
    Known { refuses_stream_options: true, thinking: Thinking::Nothing, ..chat_at(host, "/v1") }
}

/// A host with that base path.
const fn at(host: &'static str, base_path: &'static str) -> Known {
    Known { host, base_path, ..ORDINARY }
}

const KNOWN: &[Known] = &[
    // Its pages have 20 models by default, 1,000 at most.
    Known {
        is_anthropic: true,
        anthropic_path: "/v1",
        list_query: "?limit=1000",
        ..chat_at("api.anthropic.com", "/v1")
    },
    // Its newer models refuse the older name; other providers know only that one.
    Known {
        token_limit: "max_completion_tokens",
        thinking: Thinking::Nothing,
        ..all_apis_at("api.openai.com", "/v1")
    },
    mistral_at("api.mistral.ai"),
    mistral_at("codestral.mistral.ai"),
    // An unknown member of a message is 400.
    Known {
        listed_prefix: "models/",
        thinking: Thinking::Nothing,
        ..chat_at("generativelanguage.googleapis.com", "/v1beta/openai")
    },
    // Its base URL works with and without `/v1`.
    Known { anthropic_path: "/anthropic/v1", thinking: Thinking::All, ..chat_at("api.deepseek.com", "") },
    Known { anthropic_path: "/anthropic/v1", thinking: Thinking::All, ..chat_at("api.moonshot.cn", "/v1") },
    Known { anthropic_path: "/anthropic/v1", thinking: Thinking::All, ..chat_at("api.moonshot.ai", "/v1") },
    Known { anthropic_path: "/anthropic/v1", thinking: Thinking::All, ..at("api.xiaomimimo.com", "/v1") },
    Known { anthropic_path: "/api/anthropic/v1", ..chat_at("open.bigmodel.cn", "/api/paas/v4") },
    Known { anthropic_path: "/api/anthropic/v1", ..chat_at("api.z.ai", "/api/paas/v4") },
    at("dashscope.aliyuncs.com", "/compatible-mode/v1"),
    at("dashscope-intl.aliyuncs.com", "/compatible-mode/v1"),
    all_apis_at("openrouter.ai", "/api/v1"),
    // 400: property 'reasoning_content' is unsupported.
    Known { thinking: Thinking::Nothing, ..all_apis_at("api.groq.com", "/openai/v1") },
    Known { thinking: Thinking::Nothing, ..at("api.cerebras.ai", "/v1") },
    all_apis_at("api.x.ai", "/v1"),
    // It serves the models of those that want it.
    Known { thinking: Thinking::All, ..chat_at("api.siliconflow.cn", "/v1") },
    all_apis_at("ark.cn-beijing.volces.com", "/api/v3"),
];

/// Paths of endpoints: a base URL does not end in one.
const ENDPOINTS: &[&str] = &[
    "/chat/completions",
    "/completions",
    "/messages",
    "/responses",
    "/embeddings",
    "/images/generations",
    "/audio/speech",
    "/audio/transcriptions",
    "/moderations",
    "/rerank",
];

/// How an origin of Ollama ends: its OpenAI API is under `/v1`, its own API is not.
const OLLAMA_PORT: &str = ":11434";

/// The base URL that the operator probably meant by `url`: it ends in the path of an endpoint, or lacks the
/// path that its host needs. `None`: `url` looks right.
pub fn base_url_meant(url: &str, format: Format) -> Option<String> {
    let start = url.find("://")? + "://".len();
    let (origin, path) = url.split_at(url[start..].find('/').map_or(url.len(), |at| start + at));
    let endpoint = ENDPOINTS.iter().find_map(|endpoint| path.strip_suffix(endpoint));
    let known = known(url);
    // A base URL of Azure ends in `/models` without a version before it.
    let list = || path.strip_suffix("/models").filter(|base| ends_in_version(base) || !known.host.is_empty());
    let base = endpoint.or_else(list).unwrap_or(path).trim_end_matches('/');
    let needed = match format {
        Format::Anthropic => known.anthropic_path,
        Format::OpenAi if origin.ends_with(OLLAMA_PORT) => "/v1",
        Format::OpenAi => known.base_path,
    };
    let is_short = needed.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
    let base = if is_short || (base == "/v1" && !needed.is_empty()) { needed } else { base };
    (base != path).then(|| format!("{origin}{base}"))
}

/// The base URL for Anthropic's format of the provider at `url`: the known one of its host, else the same.
pub fn anthropic_url(url: &str) -> String {
    let path = known(url).anthropic_path;
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    if path.is_empty() { url.to_owned() } else { origin + path }
}

/// Whether the last segment of a path is a version like `v1`.
fn ends_in_version(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

pub fn known(url: &str) -> &'static Known {
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    KNOWN.iter().find(|known| known.host.eq_ignore_ascii_case(host)).unwrap_or(&ORDINARY)
}

#[cfg(test)]
mod tests {
    use super::{anthropic_url, base_url_meant, known};
    use crate::config::Format;

    #[test]
    fn base_url_meant_is_shown_where_the_url_is_probably_another() {
        for (url, meant) in [
            ("https://api.openai.com", Some("https://api.openai.com/v1")),
            ("https://api.openai.com/v1/chat/completions", Some("https://api.openai.com/v1")),
            ("https://api.openai.com/chat/completions", Some("https://api.openai.com/v1")),
            ("https://api.openai.com/v1/models", Some("https://api.openai.com/v1")),
            ("https://open.bigmodel.cn/v1", Some("https://open.bigmodel.cn/api/paas/v4")),
            ("https://open.bigmodel.cn/api/paas", Some("https://open.bigmodel.cn/api/paas/v4")),
            ("https://openrouter.ai/v1", Some("https://openrouter.ai/api/v1")),
            (
                "https://generativelanguage.googleapis.com/v1beta",
                Some("https://generativelanguage.googleapis.com/v1beta/openai"),
            ),
            ("http://127.0.0.1:11434/v1/responses", Some("http://127.0.0.1:11434/v1")),
            ("http://localhost:11434", Some("http://localhost:11434/v1")),
            ("https://api.deepseek.com/models", Some("https://api.deepseek.com")),
            ("http://box/v4/embeddings", Some("http://box/v4")),
            ("http://box//messages", Some("http://box")),
            ("https://api.openai.com/v1", None),
            ("https://open.bigmodel.cn/api/coding/paas/v4", None),
            ("https://api.openai.com/v2", None),
            ("https://api.deepseek.com", None),
            ("https://api.deepseek.com/v1", None),
            ("https://x.services.ai.azure.com/models", None),
            ("http://127.0.0.1:1234", None),
            ("http://box/v1", None),
        ] {
            assert_eq!(base_url_meant(url, Format::OpenAi).as_deref(), meant, "{url}");
        }
        for (url, meant) in [
            ("https://api.deepseek.com/anthropic", Some("https://api.deepseek.com/anthropic/v1")),
            ("https://api.deepseek.com/v1", Some("https://api.deepseek.com/anthropic/v1")),
            ("https://api.moonshot.cn/anthropic/v1/messages", Some("https://api.moonshot.cn/anthropic/v1")),
            ("https://api.anthropic.com", Some("https://api.anthropic.com/v1")),
            ("https://api.anthropic.com/v1", None),
            ("https://openrouter.ai/api/v1", None),
        ] {
            assert_eq!(base_url_meant(url, Format::Anthropic).as_deref(), meant, "{url}");
        }
    }

    #[test]
    fn anthropic_url_is_the_known_one_of_a_host_else_the_same() {
        for (url, expected) in [
            ("https://api.deepseek.com", "https://api.deepseek.com/anthropic/v1"),
            ("https://open.bigmodel.cn/api/coding/paas/v4", "https://open.bigmodel.cn/api/anthropic/v1"),
            ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ] {
            assert_eq!(anthropic_url(url), expected);
        }
    }

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
