//! The head of a provider's request. A provider's keys leave here and nowhere else: [`Secret`] shows its text in `core` alone.

use ureq::http::Method;
use ureq::http::request::Builder;

use super::fields::Fields;
use super::secret::Secret;

/// The version of Anthropic's API for a client that names none: so far there is only one.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// The part of its own configuration that a provider gets.
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
    /// Whether the provider has its own field of that name, which replaces any other.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// The head of a request to `path`, given in two parts, at `authority`: `fields`, the length of an announced body, and the provider's
    /// own fields. `Host` comes first (RFC 9110 section 7.2).
    pub fn request_head(
        &self,
        method: &Method,
        path: [&str; 2],
        authority: &str,
        fields: Fields,
        length: Option<u64>,
    ) -> RequestHead {
        let fields = self.fields(fields, length);
        let [host_name, host, host_end] =
            if self.has("host") { [""; 3] } else { ["host: ", authority, "\r\n"] };
        let line = [method.as_str(), " ", path[0], path[1], " HTTP/1.1\r\n", host_name, host, host_end];
        RequestHead(fields.into_head(&line))
    }

    /// Adds the provider's own fields to a request that ureq sends.
    pub fn add_to(&self, mut request: Builder) -> Builder {
        for (name, value) in self.fields(Fields::default(), None).iter() {
            request = request.header(name, value);
        }
        request
    }

    fn fields(&self, mut fields: Fields, length: Option<u64>) -> Fields {
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

/// The head of a provider's request, with its keys. It has no `Debug`; `tests/it/imports.rs` names the one file that reads its bytes.
#[derive(Default)]
pub struct RequestHead(Vec<u8>);

impl RequestHead {
    /// Its bytes, for the connection to that provider alone.
    pub fn on_the_wire(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use ureq::http::Method;

    use super::Account;
    use crate::core::fields::Fields;
    use crate::core::secret::Secret;

    const NOTHING: &str = "POST /v1/chat?x=1 HTTP/1.1\r\n";

    fn written(account: Account<'_>, length: Option<u64>) -> String {
        let paths = ["/v1", "/chat?x=1"];
        let head = account.request_head(&Method::POST, paths, "a.example:81", Fields::default(), length);
        String::from_utf8(head.on_the_wire().to_vec()).expect("text")
    }

    #[test]
    fn a_request_is_its_line_and_its_fields() {
        let key = Secret::default();
        let own = [
            ("Host".to_owned(), Secret::new("b".into())),
            ("Accept-Encoding".to_owned(), Secret::new("x".into())),
        ];
        let account = Account { key: &key, headers: &[], takes_bearer: true, takes_api_key: false };
        let expected = "host: a.example:81\r\naccept-encoding: identity\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(written(account, Some(2)), format!("{NOTHING}{expected}"));
        let own = Account { headers: &own, ..account };
        assert_eq!(written(own, None), format!("{NOTHING}Host: b\r\nAccept-Encoding: x\r\n\r\n"));
    }

    #[test]
    fn fields_own_header_of_the_provider_wins_over_its_key() {
        let key = Secret::new("k".into());
        let own = [("Authorization".to_owned(), Secret::new("Basic x".into()))];
        let written = |headers: &[(String, Secret)], takes_api_key| {
            let account = Account { key: &key, headers, takes_bearer: true, takes_api_key };
            written(account, Some(2)).replace(NOTHING, "")
        };
        let plain = "host: a.example:81\r\naccept-encoding: identity\r\nauthorization: Bearer k\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(written(&[], false), plain);
        let both = "host: a.example:81\r\naccept-encoding: identity\r\nx-api-key: k\r\ncontent-length: 2\r\n\
                    anthropic-version: 2023-06-01\r\nAuthorization: Basic x\r\n\r\n";
        assert_eq!(written(&own, true), both);
    }
}
