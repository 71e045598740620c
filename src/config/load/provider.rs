//! Entries of `providers`: strings `name|API_URL|API_KEY` or objects; entries of one name are replicas.

use std::collections::HashSet;
use std::rc::Rc;

use ureq::Proxy;
use ureq::http::{HeaderName, Uri};

use super::authority::split_port;
use super::ca::ca_file;
use super::env_proxy::Variable;
use super::json::{Json, Text};
use super::reader::{Key, Leaf, Names, Reader, optional, required};
use super::value::{header_value, integer, line, model_id, unfit, unfit_secret};
use crate::config::{
    self, CaFile, HOP_BY_HOP, Provider, ProxyUrl, Replica, ReplicaId, ResponsesApi, Secret, StreamUsage,
    known,
};
use crate::limits::{MAX_MODEL, MAX_MODELS, MAX_PROVIDER_HEADERS, MAX_PROVIDERS, MAX_QUOTED};
use crate::text::config::ConfigText;
use crate::text::expected::{Expected, Forbidden, UrlRule};
use crate::text::quoted;

/// Longest name of a provider, bytes: it goes into a header of each response and a label of each metric.
const MAX_PROVIDER_NAME: usize = 128;
/// Longest base URL, bytes.
const MAX_URL: usize = 2048;
/// Values of `stream_usage`.
const STREAM_USAGE_NAMES: &[&str] = &["auto", "always", "never"];
/// Values of `responses`.
const RESPONSES_NAMES: &[&str] = &["auto", "native", "chat"];
/// An `anthropic_url` that goes with `url`.
const AUTO: &str = "auto";
/// Largest weight of a replica.
const MAX_WEIGHT: u64 = 1000;

/// Header fields that the relay sets itself, besides the hop-by-hop ones (`accept-encoding`: responses are
/// relayed unchanged).
const OWN_HEADERS: &[&str] = &["accept-encoding", "content-length", "expect", "host"];

/// One entry during the walk.
#[derive(Default)]
struct Entry {
    name: String,
    url: String,
    anthropic_url: Option<String>,
    key: Secret,
    models: Option<Vec<String>>,
    headers: Vec<(String, Secret)>,
    proxy: Option<Way>,
    ca_file: Option<CaFile>,
    weight: Option<u32>,
    stream_usage: StreamUsage,
    responses: ResponsesApi,
}

/// A provider's own `proxy`.
enum Way {
    Direct,
    Through(ProxyUrl),
}

const KEYS: &[Key<Entry>] = &[
    required("name", |r, at, v, entry| r.set(&mut entry.name, at, v, |v| name(v, Json::shown))),
    required("url", |r, at, v, entry| r.set(&mut entry.url, at, v, url)),
    optional("anthropic_url", |r, at, v, entry| entry.anthropic_url = r.read(at, v, anthropic_url)),
    optional("key", |r, at, v, entry| r.set(&mut entry.key, at, v, |v| header_value(v, true))),
    optional("models", |r, at, v, entry| entry.models = Some(models(r, at, v))),
    optional("headers", |r, at, v, entry| entry.headers = headers(r, at, v)),
    optional("proxy", |r, at, v, entry| entry.proxy = r.read(at, v, proxy)),
    optional("ca_file", |r, at, v, entry| entry.ca_file = r.read(at, v, ca_file)),
    optional("weight", |r, at, v, entry| entry.weight = r.read(at, v, |v| integer(v, 1..=MAX_WEIGHT))),
    optional("stream_usage", |r, at, v, entry| r.set(&mut entry.stream_usage, at, v, stream_usage)),
    optional("responses", |r, at, v, entry| r.set(&mut entry.responses, at, v, responses)),
];

/// The providers in the order of their first entry.
pub(super) fn providers(reader: &mut Reader, place: &str, json: &Json) -> Vec<Provider> {
    if matches!(json, Json::Array(items) if items.is_empty()) {
        reader.report(place, ConfigText::NoProviders);
    }
    let mut providers: Vec<Provider> = Vec::new();
    for (at, item) in reader.items(place, json, MAX_PROVIDERS, Json::masked) {
        let Some(entry) = entry(reader, &at, item) else { continue };
        check_full_ids(reader, &at, &entry);
        let (name, replica) = entry.into_replica(reader);
        match providers.iter_mut().find(|provider| provider.name == name) {
            Some(provider) => provider.replicas.push(replica),
            None => providers.push(Provider::new(name, vec![replica])),
        }
    }
    providers
}

/// Reports models that no client could name: `name/model` is limited to [`MAX_MODEL`] bytes.
fn check_full_ids(reader: &mut Reader, at: &str, entry: &Entry) {
    let most = MAX_MODEL.saturating_sub(entry.name.len() + 1);
    for (index, id) in entry.models.iter().flatten().enumerate().filter(|(_, id)| id.len() > most) {
        let value = format!("\"{}\"", quoted(id, MAX_QUOTED));
        let problem = ConfigText::Unfit { value, expected: Expected::AtMost(most) };
        reader.report(&format!("{at}.models[{index}]"), problem);
    }
}

/// The provider names in the raw config, as far as it is readable.
pub(super) fn names(json: &Json) -> Names {
    let Json::Array(items) = json else { return Names::default() };
    let found: Vec<Option<String>> = items.iter().map(raw_name).collect();
    let complete = !found.is_empty() && found.iter().all(Option::is_some);
    Names { providers: found.into_iter().flatten().collect(), complete, virtual_models: HashSet::new() }
}

fn raw_name(item: &Json) -> Option<String> {
    let text = match item {
        Json::String(text) if text.missing().is_empty() => text.split_once('|')?.0,
        Json::Object(entries) => entries
            .iter()
            .find(|(key, _)| key == "name")?
            .1
            .text()
            .filter(|text| text.missing().is_empty())?
            .clone(),
        _ => return None,
    };
    Some(text.value().to_owned())
}

fn entry(reader: &mut Reader, at: &str, json: &Json) -> Option<Entry> {
    let mut entry = Entry::default();
    match json {
        Json::Object(entries) => reader.object(at, entries, KEYS, &mut entry),
        Json::String(_) => {
            let parts = reader.read(at, json, parts)?;
            parts_into(reader, at, parts, &mut entry);
        }
        other => {
            reader.report(at, ConfigText::Unfit { value: other.masked(), expected: Expected::Provider });
            return None;
        }
    }
    Some(entry)
}

/// The three parts of a provider string; the key may contain further bars.
fn parts(json: &Json) -> Leaf<[Json; 3]> {
    let Some(text) = json.text() else { return unfit_secret(json, Expected::Provider) };
    let Some((name, rest)) = text.split_once('|') else { return Err(ConfigText::ProviderParts(1)) };
    let Some((url, key)) = rest.split_once('|') else { return Err(ConfigText::ProviderParts(2)) };
    Ok([name, url, key].map(Json::String))
}

fn parts_into(reader: &mut Reader, at: &str, [first, second, third]: [Json; 3], entry: &mut Entry) {
    // Parts in the wrong order are a likely slip: without a URL in second place, the name may be the key.
    let in_order = second.text().is_some_and(|text| text.value().contains("://"));
    let shown = if in_order { Json::shown } else { Json::masked };
    reader.set(&mut entry.name, &format!("{at}.name"), &first, |v| name(v, shown));
    reader.set(&mut entry.url, &format!("{at}.url"), &second, url);
    reader.set(&mut entry.key, &format!("{at}.key"), &third, |v| header_value(v, true));
}

impl Entry {
    fn into_replica(self, reader: &mut Reader) -> (String, Replica) {
        let Self {
            name,
            url,
            anthropic_url,
            key,
            models,
            headers,
            proxy,
            ca_file,
            weight,
            stream_usage,
            responses,
        } = self;
        let anthropic_url = match anthropic_url {
            Some(auto) if auto == AUTO => Some(config::anthropic_url(&url)),
            other => other.or_else(|| known(&url).is_anthropic.then(|| url.clone())),
        };
        let mut proxy_to = |url: &str| match &proxy {
            Some(Way::Direct) => None,
            Some(Way::Through(proxy)) => Some(proxy.clone()),
            None => proxy_around(reader, url),
        };
        let proxies = (proxy_to(&url), proxy_to(anthropic_url.as_ref().unwrap_or(&url)));
        let (proxy, anthropic_proxy) = proxies;
        let weight = weight.unwrap_or(1);
        let id = ReplicaId::default();
        let replica = Replica {
            id,
            url,
            anthropic_url,
            key,
            models,
            headers,
            proxy,
            anthropic_proxy,
            ca_file,
            weight,
            stream_usage,
            responses,
        };
        let replica = replica.identified(&name);
        (name, replica)
    }
}

fn name(json: &Json, shown: fn(&Json) -> String) -> Leaf<String> {
    let name = line(json, MAX_PROVIDER_NAME).and_then(|name| match name {
        _ if name.contains('/') => Err(Expected::NameWithout(Forbidden::Slash)),
        _ if name.contains('|') => Err(Expected::NameWithout(Forbidden::Bar)),
        _ if name.contains(char::is_whitespace) => Err(Expected::NameWithout(Forbidden::WhiteSpace)),
        _ => Ok(name.to_owned()),
    });
    name.map_err(|expected| ConfigText::Unfit { value: shown(json), expected })
}

/// A base URL without trailing slashes.
fn url(json: &Json) -> Leaf<String> {
    let url = json.text().ok_or(Expected::String).and_then(|text| normal_url(text.value()));
    url.map_err(|expected| ConfigText::Unfit { value: shown_url(json), expected })
}

/// The same, or the word for the one that goes with `url`.
fn anthropic_url(json: &Json) -> Leaf<String> {
    if json.text().is_some_and(|text| text.value() == AUTO) { Ok(AUTO.to_owned()) } else { url(json) }
}

fn normal_url(url: &str) -> Result<String, Expected> {
    let (scheme, rest) = split_scheme(url, &["http", "https"]).ok_or(Expected::UrlScheme)?;
    let broken = match rest {
        _ if url.len() > MAX_URL => Some(Expected::AtMost(MAX_URL)),
        _ if rest.contains('@') => Some(Expected::Url(UrlRule::NoUser)),
        _ if rest.contains(['?', '#']) => Some(Expected::Url(UrlRule::NoQuery)),
        _ if !is_plain(rest) => Some(Expected::Url(UrlRule::Characters)),
        _ => broken_authority(url, rest).map(Expected::Url),
    };
    broken.map_or_else(|| Ok(format!("{scheme}://{}", rest.trim_end_matches('/'))), Err)
}

/// The scheme in lower case, if it is one of `known`, and the rest after `://`.
fn split_scheme<'a>(url: &'a str, known: &[&'static str]) -> Option<(&'static str, &'a str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((known.iter().find(|known| scheme.eq_ignore_ascii_case(known))?, rest))
}

/// Whether it holds only characters of a URL's authority and path (RFC 3986): no blank and no brace of a mistyped
/// `${NAME}`.
fn is_plain(rest: &str) -> bool {
    let refused = |byte| matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    rest.bytes().all(|byte| byte.is_ascii_graphic() && !refused(byte))
}

/// What keeps the HTTP client from reading a host and a port; `rest` follows the scheme.
fn broken_authority(url: &str, rest: &str) -> Option<UrlRule> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((host, _)) = split_port(authority.rsplit('@').next().unwrap_or_default()) else {
        return Some(UrlRule::Port);
    };
    let is_valid = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty(),
    };
    let is_read = url.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some());
    (!is_valid || !is_read).then_some(UrlRule::Host)
}

fn stream_usage(json: &Json) -> Leaf<StreamUsage> {
    match json.text().map(Text::value) {
        Some("auto") => Ok(StreamUsage::Auto),
        Some("always") => Ok(StreamUsage::Always),
        Some("never") => Ok(StreamUsage::Never),
        _ => unfit(json, Expected::OneOf(STREAM_USAGE_NAMES)),
    }
}

fn responses(json: &Json) -> Leaf<ResponsesApi> {
    match json.text().map(Text::value) {
        Some("auto") => Ok(ResponsesApi::Auto),
        Some("native") => Ok(ResponsesApi::Native),
        Some("chat") => Ok(ResponsesApi::Chat),
        _ => unfit(json, Expected::OneOf(RESPONSES_NAMES)),
    }
}

/// A proxy's URL, which may hold a password, or the word for none.
fn proxy(json: &Json) -> Leaf<Way> {
    let way = match json.text().map(Text::value) {
        None => Err(Expected::String),
        Some("direct") => Ok(Way::Direct),
        Some(url) => check_proxy(url).map(|()| Way::Through(ProxyUrl::new(url.to_owned()))),
    };
    way.map_err(|expected| ConfigText::Unfit { value: shown_url(json), expected })
}

fn check_proxy(url: &str) -> Result<(), Expected> {
    let (_, rest) =
        split_scheme(url, &["http", "https", "socks5", "socks5h"]).ok_or(Expected::ProxyScheme)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let broken = match rest {
        _ if rest.contains(['?', '#']) => Some(UrlRule::NoQuery),
        _ if rest.contains('/') => Some(UrlRule::NoPath),
        _ if !rest.bytes().all(|byte| byte.is_ascii_graphic()) => Some(UrlRule::Characters),
        _ => broken_authority(url, rest).or_else(|| Proxy::new(url).is_err().then_some(UrlRule::Host)),
    };
    broken.map_or(Ok(()), |rule| Err(Expected::ProxyUrl(rule)))
}

/// The proxy of the environment; a bad one is reported under its variable's name.
fn proxy_around(reader: &mut Reader, url: &str) -> Option<ProxyUrl> {
    let env_proxies = Rc::clone(&reader.env_proxies);
    let Variable { name, value } = env_proxies.proxy(url)?;
    if let Err(expected) = check_proxy(value.expose()) {
        let shown = bare_url(value.expose()).map_or_else(|| value.masked(), |url| format!("\"{url}\""));
        reader.report_once(name, ConfigText::Unfit { value: shown, expected });
        return None;
    }
    Some(value.clone())
}

/// Form of a URL for a message. Its user may be a password and its query a key; a text that is no URL may be
/// either.
fn shown_url(json: &Json) -> String {
    match json.text() {
        Some(text) if text.has_variables() => text.masked(),
        Some(text) => bare_url(text.value()).map_or_else(|| text.masked(), |url| format!("\"{url}\"")),
        None => json.masked(),
    }
}

/// A URL without user, query and fragment, safe to show; `None` when it does not begin like one.
pub(super) fn bare_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme_fits = scheme.len() <= 8 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !scheme_fits || scheme.is_empty() {
        return None;
    }
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    if behind.contains('@') {
        // The user may contain an unescaped slash: the end of its password is unknown.
        return Some(format!("{scheme}://***"));
    }
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| ("***@", host));
    let (path, more) = behind.split_at(behind.find(['?', '#']).unwrap_or(behind.len()));
    let cut = if more.is_empty() { "" } else { "?***" };
    Some(quoted(&format!("{scheme}://{user}{host}{path}{cut}"), MAX_QUOTED))
}

fn models(reader: &mut Reader, place: &str, json: &Json) -> Vec<String> {
    reader.list(place, json, MAX_MODELS, model_id)
}

fn headers(reader: &mut Reader, place: &str, json: &Json) -> Vec<(String, Secret)> {
    let mut headers: Vec<(String, Secret)> = Vec::new();
    reader.entries(place, json, MAX_PROVIDER_HEADERS, Json::masked, |reader, at, name, value| {
        match header_name(name) {
            Err(text) => reader.report(at, text),
            Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                reader.report(at, ConfigText::DuplicateHeader);
            }
            Ok(name) => {
                headers.extend(reader.read(at, value, |v| header_value(v, true)).map(|value| (name, value)));
            }
        }
    });
    headers
}

/// A header's name in lower case.
fn header_name(name: &str) -> Leaf<String> {
    let Ok(valid) = HeaderName::from_bytes(name.as_bytes()) else {
        // The value may be a whole header line.
        let value = quoted(&Secret::new(name.to_owned()).masked(), MAX_QUOTED);
        return Err(ConfigText::Unfit { value, expected: Expected::HeaderName });
    };
    if [OWN_HEADERS, HOP_BY_HOP].iter().any(|refused| refused.contains(&valid.as_str())) {
        return Err(ConfigText::HeaderRefused);
    }
    Ok(valid.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Expected, MAX_URL, UrlRule, bare_url, check_proxy, normal_url};

    #[test]
    fn urls_lose_their_last_slashes_and_nothing_else() {
        for (given, kept) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1///", "https://api.openai.com/v1"),
            ("HTTP://localhost:8000/", "http://localhost:8000"),
            ("http://[::1]:1/a//b", "http://[::1]:1/a//b"),
        ] {
            assert_eq!(normal_url(given).as_deref(), Ok(kept));
        }
        for (bad, rule) in [
            ("", Expected::UrlScheme),
            ("api.openai.com", Expected::UrlScheme),
            ("ftp://a", Expected::UrlScheme),
            ("unix:/a", Expected::UrlScheme),
            ("http://", Expected::Url(UrlRule::Host)),
            ("http:///v1", Expected::Url(UrlRule::Host)),
            ("http://:80", Expected::Url(UrlRule::Host)),
            ("http://[::g]", Expected::Url(UrlRule::Host)),
            ("http://a:", Expected::Url(UrlRule::Port)),
            ("http://a:0", Expected::Url(UrlRule::Port)),
            ("http://a:65536", Expected::Url(UrlRule::Port)),
            ("http://a:b/c", Expected::Url(UrlRule::Port)),
            ("http://u:p@a", Expected::Url(UrlRule::NoUser)),
            ("http://a?k=v", Expected::Url(UrlRule::NoQuery)),
            ("http://a#f", Expected::Url(UrlRule::NoQuery)),
            ("http://a/b c", Expected::Url(UrlRule::Characters)),
            ("http://a/\n", Expected::Url(UrlRule::Characters)),
            ("http://a/${NAME", Expected::Url(UrlRule::Characters)),
            ("http://é", Expected::Url(UrlRule::Characters)),
            (&format!("http://a/{}", "b".repeat(MAX_URL)), Expected::AtMost(MAX_URL)),
        ] {
            assert_eq!(normal_url(bad), Err(rule), "{bad}");
        }
    }

    #[test]
    fn proxy_url_that_is_refused_names_the_rule_that_it_breaks() {
        for good in ["http://a", "https://u:p@a:1/", "socks5://[::1]:1080", "SOCKS5H://a"] {
            assert_eq!(check_proxy(good), Ok(()), "{good}");
        }
        for (bad, rule) in [
            ("a:1080", Expected::ProxyScheme),
            ("socks4://a", Expected::ProxyScheme),
            ("socks5://", Expected::ProxyUrl(UrlRule::Host)),
            ("http://u:p@a:70000", Expected::ProxyUrl(UrlRule::Port)),
            ("http://a/path", Expected::ProxyUrl(UrlRule::NoPath)),
            ("http://a/?q", Expected::ProxyUrl(UrlRule::NoQuery)),
            ("http://a b", Expected::ProxyUrl(UrlRule::Characters)),
        ] {
            assert_eq!(check_proxy(bad), Err(rule), "{bad}");
        }
    }

    #[test]
    fn a_shown_url_has_neither_user_nor_query() {
        for (given, shown) in [
            ("https://a/v1", Some("https://a/v1")),
            ("https://user:pass@a:1/v1", Some("https://***@a:1/v1")),
            ("https://us@er:pass@a", Some("https://***@a")),
            ("https://user:pa/ss@a", Some("https://***")),
            ("https://a/v1?key=secret#x", Some("https://a/v1?***")),
            ("https://a?key=se@cret", Some("https://***")),
            ("sk-secret", None),
            ("sk-secret://x", None),
            ("://x", None),
        ] {
            assert_eq!(bare_url(given).as_deref(), shown, "{given}");
        }
    }
}
