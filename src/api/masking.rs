//! Secrets of a provider that a response or a log line may not hold: its keys, and the values of its own headers.

use crate::config::{Config, Mask, Scope};

/// `text` with every secret of the provider masked; bytes, because a key may stand in text that is not UTF-8.
pub fn without_secrets(config: &Config, provider: &str, text: Vec<u8>) -> Vec<u8> {
    match config.provider(provider) {
        Some(provider) => provider.mask().hide(text, Scope::All),
        None => text,
    }
}

/// Masks a successful response: a secret that may be a word of an ordinary text stays, except in a page that a proxy or a firewall
/// has sent instead.
pub fn without_keys(mask: &Mask, text: Vec<u8>) -> Vec<u8> {
    let is_page = text.trim_ascii_start().starts_with(b"<");
    mask.hide(text, if is_page { Scope::All } else { Scope::Unmistakable })
}

/// Whether a header's value holds a secret of the provider.
pub fn holds_secret(config: &Config, provider: &str, value: &[u8]) -> bool {
    config.provider(provider).is_some_and(|provider| provider.mask().is_in(value, Scope::All))
}

/// Whether a header field holds a secret of the provider, in its name or its value.
pub fn field_holds_secret(config: &Config, provider: &str, name: &str, value: &[u8]) -> bool {
    holds_secret(config, provider, value) || holds_secret(config, provider, name.as_bytes())
}
