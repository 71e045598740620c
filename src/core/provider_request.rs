//! The head of a provider's request. A provider's keys leave here and nowhere else: [`Secret`] shows its text in `core` alone.

use ureq::http::Method;

use super::fields::Fields;
use super::secret::Secret;

/// The version of Anthropic's API, for a client that names none: there is but one.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// What a provider gets of its own configuration.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The key; may be empty.
    pub key: &'a Secret,
    /// The provider's own header fields.
    pub headers: &'a [(String, Secret)],
    /// The key is sent as a bearer token.
    pub takes_bearer: bool,
    /// The key is sent as `x-api-key`, beside a version: Anthropic's form.
    pub takes_api_key: bool,
}

impl Account<'_> {
    /// Whether the provider has its own field of that name, which wins over whatever else there is.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// The fields of a request: `fields`, the length of a body that is announced, and what is the provider's own.
    pub fn fields(&self, mut fields: Fields, length: Option<u64>) -> Fields {
        if !self.has("accept-encoding") {
            fields.push("accept-encoding", "identity");
        }
        let key = self.key.expose().as_bytes();
        if self.takes_bearer && !key.is_empty() && !self.has("authorization") {
            fields.push_joined("authorization", &[b"Bearer ", key]);
        }
        if self.takes_api_key && !key.is_empty() && !self.has("x-api-key") {
            fields.push("x-api-key", key);
        }
        if let Some(length) = length.filter(|_| !self.has("content-length")) {
            fields.push_number("content-length", length);
        }
        if self.takes_api_key && !fields.contains("anthropic-version") && !self.has("anthropic-version") {
            fields.push("anthropic-version", ANTHROPIC_VERSION);
        }
        for (name, value) in self.headers {
            fields.push(name, value.expose());
        }
        fields
    }
}

/// The head of a request with these fields, `Host` ahead of them unless it is one of them (RFC 9110 section 7.2).
pub fn head(method: &Method, path: [&str; 2], host: Option<&str>, fields: &Fields) -> Vec<u8> {
    let [host_name, host, host_end] = host.map_or([""; 3], |host| ["host: ", host, "\r\n"]);
    let line = [method.as_str(), " ", path[0], path[1], " HTTP/1.1\r\n", host_name, host, host_end];
    let length = line.iter().map(|part| part.len()).sum::<usize>() + fields.as_lines().len() + 2;
    let mut head = Vec::with_capacity(length);
    line.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
    head.extend_from_slice(fields.as_lines());
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use ureq::http::Method;

    use super::{Account, head};
    use crate::core::fields::Fields;
    use crate::core::secret::Secret;

    #[test]
    fn a_request_is_its_line_and_its_fields() {
        let mut fields = Fields::default();
        fields.push("content-length", "2");
        let bytes = head(&Method::POST, ["/v1", "/chat?x=1"], Some("a.example:81"), &fields);
        let expected = "POST /v1/chat?x=1 HTTP/1.1\r\nhost: a.example:81\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        let bytes = head(&Method::GET, ["", "/models"], None, &Fields::default());
        assert_eq!(String::from_utf8_lossy(&bytes), "GET /models HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn fields_own_header_of_the_provider_wins_over_its_key() {
        let key = Secret::new("k".into());
        let own = [("Authorization".to_owned(), Secret::new("Basic x".into()))];
        let written = |headers: &[(String, Secret)], takes_api_key| {
            let account = Account { key: &key, headers, takes_bearer: true, takes_api_key };
            String::from_utf8(account.fields(Fields::default(), Some(2)).as_lines().to_vec()).expect("text")
        };
        let plain = "accept-encoding: identity\r\nauthorization: Bearer k\r\ncontent-length: 2\r\n";
        assert_eq!(written(&[], false), plain);
        let both = "accept-encoding: identity\r\nx-api-key: k\r\ncontent-length: 2\r\n\
                    anthropic-version: 2023-06-01\r\nAuthorization: Basic x\r\n";
        assert_eq!(written(&own, true), both);
    }
}
