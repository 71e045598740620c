//! Which header fields are relayed, in both directions.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::fields::Fields;
use super::headers::Headers;
use super::names::Names;
use super::request_head::Head;

/// Header fields that belong to one connection (RFC 9110 section 7.6.1, and the older ones still met): never relayed,
/// never configured.
pub const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The most common name of the request's id.
pub const X_REQUEST_ID: &str = "x-request-id";

/// Fields of a request that are not for the provider: framing, and the origin of the client. With an `Origin`, Anthropic returns
/// 401 for any key.
const NOT_FORWARDED: &[&str] =
    &["host", "content-length", "accept-encoding", "expect", "forwarded", "x-real-ip", "origin"];

/// Ends of the names of fields and parameters that carry credentials. The provider gets our key: with a client's own beside it the provider
/// could refuse it.
const CREDENTIALS: &[&str] = &[
    "auth",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "password",
    "secret",
    "token",
];

/// Beginning of the names of fields that describe where the client came from.
const FORWARDED: &str = "x-forwarded-";

/// More than the longest name here, bytes: of a longer name only the end is compared.
const LONGEST_NAME: usize = 48;

/// The one field with such an end that carries no credential.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Fields and parameters that select an account, or the credentials of one. A key that is no member of it is refused.
const SELECTORS: &[&str] = &[
    "openai-organization",
    "openai-project",
    "cf-access-client-id",
    "userproject",
    "x-auth-email",
    "x-bf-vk",
    "x-dashscope-workspace",
    "x-goog-iam-authority-selector",
    "x-goog-user-project",
    "x-hf-bill-to",
    "x-portkey-config",
    "x-portkey-provider",
];

/// Fields of a response that a browser would apply to ai-proxy's origin: those with an effect beyond the response, those that redirect the
/// browser, and those that let others read or measure it. Fields that only restrict this one response (`Content-Security-Policy`,
/// `X-Frame-Options`, `Referrer-Policy`, `Permissions-Policy`) are relayed; `cors_origins` decides about `Access-Control-*`.
const NOT_RELAYED: &[&str] = &[
    "accept-ch",
    "activate-storage-access",
    "alt-svc",
    "attribution-reporting-register-source",
    "attribution-reporting-register-trigger",
    "clear-site-data",
    "critical-ch",
    "cross-origin-resource-policy",
    "expect-ct",
    "nel",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "public-key-pins",
    "public-key-pins-report-only",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "sourcemap",
    "speculation-rules",
    "strict-transport-security",
    "timing-allow-origin",
    "use-as-dictionary",
    "x-permitted-cross-domain-policies",
    "x-sourcemap",
];

/// Fields of a response that are written anew.
const OURS: &[&str] = &["content-length", X_REQUEST_ID];

/// The fields of a request that pass to no provider.
static KEPT_FROM_PROVIDERS: Names = Names::on(&[HOP_BY_HOP, NOT_FORWARDED, SELECTORS]);
/// The fields of a response that pass to no client.
static KEPT_FROM_CLIENTS: Names = Names::on(&[HOP_BY_HOP, NOT_RELAYED, OURS]);

/// The fields of a client's request that a provider gets, except those that are `kept_back` by name; with the id of our log it can
/// find the request in its own.
pub fn of_request(head: &Head, id: &str, kept_back: &dyn Fn(&str) -> bool) -> Fields {
    let named = named_in(head.values("connection"));
    let mut fields = Fields::default();
    for (name, value) in head.fields() {
        // A CGI or WSGI provider reads `_` as `-`: `Content_Length` would be a second `Content-Length` to it.
        let read = if name.bytes().any(|byte| byte == b'_') {
            Cow::Owned(name.replace('_', "-"))
        } else {
            Cow::Borrowed(name)
        };
        let is_replaced = read.eq_ignore_ascii_case(X_REQUEST_ID) || kept_back(&read);
        let is_named = named.iter().any(|other| other.eq_ignore_ascii_case(name));
        if is_forwarded(&read) && !is_replaced && !is_named {
            fields.push(name, value);
        }
    }
    if !kept_back(X_REQUEST_ID) {
        fields.push(X_REQUEST_ID, id);
    }
    fields
}

fn is_forwarded(name: &str) -> bool {
    let mut buffer = [0; LONGEST_NAME];
    let lower = lower_case(name, &mut buffer);
    !KEPT_FROM_PROVIDERS.contains(lower)
        && !name.get(..FORWARDED.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORWARDED))
        && !ends_as_credential(lower)
}

/// Whether a parameter of that name carries or selects credentials.
fn is_credential(name: &str) -> bool {
    let mut buffer = [0; LONGEST_NAME];
    let lower = lower_case(name, &mut buffer);
    ends_as_credential(lower) || SELECTORS.iter().any(|selector| selector.as_bytes() == lower)
}

fn ends_as_credential(lower: &[u8]) -> bool {
    // The last letter alone excludes most names.
    let ends_with = |end: &&str| end.as_bytes().last() == lower.last() && lower.ends_with(end.as_bytes());
    CREDENTIALS.iter().any(ends_with) && lower != IDEMPOTENCY_KEY.as_bytes()
}

/// A name in lower case; of a name longer than [`LONGEST_NAME`], the end.
fn lower_case<'a>(name: &str, buffer: &'a mut [u8; LONGEST_NAME]) -> &'a [u8] {
    let end = &name.as_bytes()[name.len().saturating_sub(LONGEST_NAME)..];
    let lower = &mut buffer[..end.len()];
    lower.copy_from_slice(end);
    lower.make_ascii_lowercase();
    lower
}

/// A request target without the parameters that carry or select credentials: Google's `key`, Azure's `api-key`, and the like.
pub fn without_credentials(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let is_kept = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        // Google's system parameters have a `$` before their names as well.
        !is_credential(name.trim_start_matches('$'))
    };
    if query.split('&').all(|parameter| is_kept(&parameter)) {
        return Cow::Borrowed(target);
    }
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    Cow::Owned([path, mark, &kept.join("&")].concat())
}

/// The fields of a provider's response that a client gets: all except those that are `kept_back` by name or value.
/// The front writes `Content-Length`, the caller the request's id.
pub fn of_response(headers: &Headers, kept_back: impl Fn(&str, &[u8]) -> bool) -> Fields {
    let named = named_in(headers.get_all("connection"));
    let mut fields = Fields::default();
    for (name, value) in headers.iter() {
        let passes = !KEPT_FROM_CLIENTS.contains(name.as_bytes())
            && !name.starts_with("x-ai-proxy-")
            && !name.starts_with("access-control-")
            && !kept_back(name, value)
            && !named.iter().any(|other| other == name);
        if passes {
            fields.push(name, value);
        }
    }
    fields
}

/// The names that `Connection` fields list, in lower case.
fn named_in<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{is_credential, without_credentials};

    #[test]
    fn is_credential_finds_names_that_carry_or_select_a_key() {
        for name in [
            "Authorization",
            "X-Api-Key",
            "api-key",
            "x-goog-api-key",
            "Ocp-Apim-Subscription-Key",
            "x-functions-key",
            "Cookie",
            "X-Amz-Security-Token",
            "x-auth-token",
            "X-Auth-Key",
            "X-Auth-Email",
            "Helicone-Auth",
            "cf-aig-authorization",
            "CF-Access-Client-Secret",
            "CF-Access-Client-Id",
            "Cf-Access-Jwt-Assertion-JWT",
            "x-portkey-virtual-key",
            "x-portkey-config",
            "x-litellm-api-key",
            "OpenAI-Organization",
            "OpenAI-Project",
            "x-goog-user-project",
            "X-HF-Bill-To",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "",
            "Idempotency-Key",
            "Content-Type",
            "User-Agent",
            "OpenAI-Beta",
            "anthropic-beta",
            "HTTP-Referer",
            "X-Title",
            "X-Author",
            "x-stainless-retry-count",
            "traceparent",
            "x-portkey-trace-id",
            "Accept",
            "é",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn without_credentials_leaves_every_other_parameter_as_it_stands() {
        for (target, expected) in [
            ("/chat/completions", "/chat/completions"),
            ("/chat/completions?", "/chat/completions?"),
            ("/x?key=AIza&a=%2F&&b", "/x?a=%2F&&b"),
            ("/x?api-version=1&API-KEY=2&api_key=3&access_token=4&code=5", "/x?api-version=1&code=5"),
            ("/x?%6bey=1", "/x"),
            ("/x?$userProject=1&%24userProject=2&$alt=json", "/x?$alt=json"),
            ("/responses/resp_1?include[]=a&stream=true", "/responses/resp_1?include[]=a&stream=true"),
        ] {
            assert_eq!(without_credentials(target), expected);
        }
    }
}
