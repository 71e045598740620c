//! Secrets of a provider that an answer or a log line may not hold: its keys, and the values of its own headers.

use crate::config::{Config, Secret};

/// A shorter key is no key, and replacing it could garble the text.
const SHORTEST_MASKED: usize = 8;

/// `text` with every secret of the provider masked. On bytes: it need not be UTF-8 to hold a key.
pub fn without_secrets(config: &Config, provider: &str, mut text: Vec<u8>) -> Vec<u8> {
    for secret in secrets(config, provider) {
        let plain = secret.expose();
        // As it is, and as two ways of writing JSON have it.
        for written in [plain.to_owned(), plain.replace('"', "\\\""), plain.replace('/', "\\/")] {
            text = replaced(text, written.as_bytes(), secret.masked().as_bytes());
        }
    }
    text
}

/// Whether a header's value holds a secret of the provider.
pub fn holds_secret(config: &Config, provider: &str, value: &[u8]) -> bool {
    // Most values are shorter than a key: that is seen at once.
    let is_in = |secret: &str| {
        secret.len() <= value.len() && memchr::memmem::find(value, secret.as_bytes()).is_some()
    };
    secrets(config, provider).any(|secret| is_in(secret.expose()))
}

fn secrets<'a>(config: &'a Config, provider: &str) -> impl Iterator<Item = &'a Secret> {
    let replicas = config.provider(provider).map(|provider| &provider.replicas[..]);
    let secrets = replicas
        .unwrap_or_default()
        .iter()
        .flat_map(|replica| [&replica.key].into_iter().chain(replica.headers.iter().map(|(_, value)| value)));
    secrets.filter(|secret| secret.expose().len() >= SHORTEST_MASKED)
}

fn replaced(text: Vec<u8>, found: &[u8], by: &[u8]) -> Vec<u8> {
    if memchr::memmem::find(&text, found).is_none() {
        return text;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut from = 0;
    for at in memchr::memmem::find_iter(&text, found) {
        out.extend_from_slice(&text[from..at]);
        out.extend_from_slice(by);
        from = at + found.len();
    }
    out.extend_from_slice(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn every_place_of_a_secret_is_masked_also_beside_what_is_not_utf8() {
        let text = b"\xe9 sk-1234567890 x sk-1234567890".to_vec();
        assert_eq!(replaced(text, b"sk-1234567890", b"sk-***90"), b"\xe9 sk-***90 x sk-***90");
        assert_eq!(replaced(b"none".to_vec(), b"sk-1234567890", b"***"), b"none");
    }
}
