//! A secret is a type: it cannot be printed, logged or serialized by accident.

use std::fmt;

/// Text that must not reach a log, a metric or an error message. `Debug` and [`Secret::masked`] show its first
/// 3 and last 2 characters at most, and nothing of it under 12 characters.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

/// Shorter secrets are not shown at all.
const SHORTEST_SHOWN: usize = 12;

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself: for the wire and for comparing, which `core` alone does.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it stands in `text`; an empty one stands nowhere.
    pub fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && text.contains(&self.0)
    }

    /// What a person may see of it.
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

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

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
