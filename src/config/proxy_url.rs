//! The URL of a proxy may hold a password: it is shown in part alone, like a secret.

use std::fmt;

use super::Secret;

/// The URL of a proxy between ai-proxy and a provider. `Debug` shows what [`Secret`] shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Wraps a URL.
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL, for the connector; never for a sentence.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a person may see of a URL that cannot be taken apart.
    pub fn masked(&self) -> String {
        Secret::new(self.0.clone()).masked()
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}
