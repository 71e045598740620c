//! A secret is a type: it cannot be printed, logged or serialized by accident.

use std::fmt;

/// Text that must not reach a log, a metric or an error message. `Debug` and [`Secret::masked`] show its first
/// 3 and last 2 characters at most, and nothing of it under 12 characters.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

/// Shorter secrets are not shown at all.
const SHORTEST_SHOWN: usize = 12;

/// Words that people write in place of a secret, in lower case; of two with the same beginning the longer comes first.
const WELL_KNOWN: &[&str] = &[
    "placeholder",
    "0123456789",
    "1234567890",
    "12345678",
    "123456",
    "password",
    "example",
    "abcdef",
    "qwerty",
    "secret",
    "change",
    "dummy",
    "token",
    "admin",
    "proxy",
    "proj",
    "test",
    "your",
    "here",
    "demo",
    "key",
    "api",
    "foo",
    "bar",
    "sk-",
    "my-",
    "-me",
];

/// A secret of fewer different characters than this is a pattern.
const FEW_DIFFERENT: usize = 6;

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself: for the wire and for comparing, which `core` alone does.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `text` contains it; an empty one is never contained.
    pub fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && text.contains(&self.0)
    }

    /// Whether it is a placeholder for a secret.
    pub fn is_placeholder(&self) -> bool {
        is_placeholder(&self.0)
    }

    /// How many of its bytes are hard to guess: those besides well-known words, and none where they are a pattern.
    pub fn unguessable(&self) -> usize {
        let mut rest = self.0.to_ascii_lowercase();
        for word in WELL_KNOWN {
            rest = rest.replace(word, "");
        }
        let mut seen = [false; 256];
        rest.bytes().for_each(|byte| seen[usize::from(byte)] = true);
        let different = seen.iter().filter(|seen| **seen).count();
        if different < FEW_DIFFERENT { 0 } else { rest.len() }
    }

    /// The part that a person may see.
    pub fn masked(&self) -> String {
        let characters: Vec<char> = self.0.chars().collect();
        if characters.len() < SHORTEST_SHOWN {
            return "***".to_owned();
        }
        let first: String = characters[..3].iter().collect();
        let last: String = characters[characters.len() - 2..].iter().collect();
        format!("{first}***{last}")
    }
}

/// Whether a text is a placeholder: `$NAME`, `${NAME`, `%NAME%`, `<name>` or `{{name}}`.
pub fn is_placeholder(text: &str) -> bool {
    // A header's value may begin with its scheme.
    let text = text.strip_prefix("Bearer ").unwrap_or(text);
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    };
    let within = |open: &str, close: &str| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    text.contains("${")
        || text.strip_prefix('$').is_some_and(is_name)
        || within("$(", ")").is_some()
        || within("%", "%").is_some_and(is_name)
        || within("<", ">").is_some()
        || within("{{", "}}").is_some()
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::{Secret, is_placeholder};

    #[test]
    fn is_placeholder_knows_the_forms_of_variables_and_blanks() {
        for text in [
            "$KEY",
            "Bearer $KEY",
            "${}",
            "${KEY",
            "sk-${KEY",
            "$_k1",
            "$(KEY)",
            "%KEY%",
            "<your key>",
            "{{ key }}",
        ] {
            assert!(is_placeholder(text) && Secret::new(text.into()).is_placeholder(), "{text}");
        }
        for text in ["", "$", "$1", "sk-$KEY", "a$b", "%", "50%", "<", "{a}", "sk-0123456789abcdef"] {
            assert!(!is_placeholder(text), "{text}");
        }
    }

    #[test]
    fn unguessable_counts_what_is_no_well_known_word_and_no_pattern() {
        for (text, count) in [
            ("", 0),
            ("sk-test", 0),
            ("my-secret-password", 0),
            ("changeme-changeme-changeme", 0),
            ("sk-1234567890abcdef", 0),
            ("your-api-key-here", 0),
            ("xxxxxxxxxxxxxxxxxxxxxxxx", 0),
            ("abababababababababababab", 0),
            ("q8Zt-Lw2R", 9),
            ("sk-q8ZtLw2RvN5xJc9D", 16),
            ("token-q8ZtLw2RvN5xJc9D", 17),
            ("8f14e45fceea167a5a36dedd4bea2543", 32),
        ] {
            assert_eq!(Secret::new(text.into()).unguessable(), count, "{text}");
        }
    }

    #[test]
    fn shows_first_three_and_last_two_of_twelve_characters_and_nothing_of_eleven() {
        assert_eq!(Secret::new("sk-123456789".into()).masked(), "sk-***89");
        assert_eq!(Secret::new("sk-12345678".into()).masked(), "***");
        assert_eq!(Secret::new(String::new()).masked(), "***");
        assert_eq!(Secret::new("密钥密钥密钥密钥密钥密钥".into()).masked(), "密钥密***密钥");
    }

    #[test]
    fn debug_is_masked() {
        assert_eq!(format!("{:?}", Secret::new("sk-secret-key-0".into())), "sk-***-0");
    }
}
