//! Suggestions for a client that names something unknown: models that it can call, and the path of an endpoint.

use super::filters;
use crate::catalog::{self, Lists};
use crate::config::{Config, Token};
use crate::limits::{MAX_HINTS, MAX_QUOTED, QUICK_FILTER};
use crate::text::{alike, quoted};

/// Full ids of models that this caller can call and may mean by `id`: at the providers that list it, or at a provider
/// whose name is similar to the one in `id`.
pub fn models(config: &Config, lists: &Lists, token: Option<&Token>, id: &str) -> Vec<String> {
    let mut meant: Vec<String> = match id.split_once('/') {
        None => {
            let owners = catalog::providers_of(config, lists, id);
            owners.map(|owner| format!("{owner}/{id}")).collect()
        }
        Some((name, model)) if config.provider(name).is_none() && !model.is_empty() => {
            let names = config.providers.iter().map(|provider| &*provider.name);
            alike::meant(name, names).map(|name| format!("{name}/{model}")).into_iter().collect()
        }
        Some(_) => Vec::new(),
    };
    let bytes: usize = meant.iter().map(String::len).sum();
    let is_quick = bytes.saturating_mul(filters::cost(config, token)) <= QUICK_FILTER;
    meant.retain(|id| is_quick && config.supports(id) && token.is_none_or(|token| token.allows(id)));
    meant.iter().take(MAX_HINTS).map(|id| quoted(id, MAX_QUOTED)).collect()
}

/// The endpoint that a path which begins with `/v1` may mean: the one that it ends with, or a similar one.
pub fn path(path: &str, known: &[&'static str]) -> Option<&'static str> {
    let behind_version = |path| str::strip_prefix(path, "/v1").unwrap_or(path);
    let ended = known.iter().filter(|known| path.ends_with(behind_version(known)));
    if let Some(ended) = ended.max_by_key(|known| known.len()) {
        return Some(ended);
    }
    let meant = alike::meant(behind_version(path), known.iter().map(|known| behind_version(known)))?;
    known.iter().copied().find(|known| behind_version(known) == meant)
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn path_means_the_endpoint_that_it_ends_with_or_looks_like() {
        let known = ["/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/embeddings"];
        for (unknown, expected) in [
            ("/v1/api/chat/completions", Some("/v1/chat/completions")),
            ("/v1/openai/deployments/m/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completion", Some("/v1/chat/completions")),
            ("/v1/Embedding", Some("/v1/embeddings")),
            ("/v1/files", None),
            ("/v1/batches", None),
            ("/v1", None),
            ("/v1/favicon.ico", None),
        ] {
            assert_eq!(path(unknown, &known), expected, "{unknown}");
        }
    }
}
