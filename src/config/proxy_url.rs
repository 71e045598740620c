//! The URL of a proxy may hold a password: like a secret it is shown only in part.

use std::fmt;

use super::Secret;

/// The URL of a proxy between ai-proxy and a provider. `Debug` shows what [`Secret`] shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL, for the connector; never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part of an unparsable URL that may be shown.
    pub fn masked(&self) -> String {
        Secret::new(self.0.clone()).masked()
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}
