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
use super::value::{header_value, integer, model_id, unfit, unfit_secret};
use crate::config::{
    self, CaFile, HOP_BY_HOP, Provider, ProxyUrl, Replica, ReplicaId, ResponsesApi, Secret, StreamUsage,
    known,
};
use crate::limits::{MAX_MODEL, MAX_MODELS, MAX_PROVIDERS, MAX_QUOTED};
use crate::text::config::{ConfigText, Expected};
use crate::text::quoted;

/// Longest name of a provider, bytes: it goes into a header of each response and a label of each metric.
const MAX_PROVIDER_NAME: usize = 128;
/// Longest base URL, bytes.
const MAX_URL: usize = 2048;
/// Headers configured for one provider.
const MAX_PROVIDER_HEADERS: usize = 32;
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
        let problem = ConfigText::Unfit { value, expected: Expected::ModelId(most) };
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
    let fits = |name: &str| {
        let bad = |c: char| matches!(c, '/' | '|') || c.is_whitespace() || c.is_control();
        !name.is_empty() && name.len() <= MAX_PROVIDER_NAME && !name.chars().any(bad)
    };
    match json.text().map(Text::value) {
        Some(name) if fits(name) => Ok(name.to_owned()),
        _ => {
            Err(ConfigText::Unfit { value: shown(json), expected: Expected::ProviderName(MAX_PROVIDER_NAME) })
        }
    }
}

/// A base URL without trailing slashes.
fn url(json: &Json) -> Leaf<String> {
    json.text()
        .and_then(|text| normal_url(text.value()))
        .ok_or_else(|| ConfigText::Unfit { value: shown_url(json), expected: Expected::Url(MAX_URL) })
}

/// The same, or the word for the one that goes with `url`.
fn anthropic_url(json: &Json) -> Leaf<String> {
    if json.text().is_some_and(|text| text.value() == AUTO) { Ok(AUTO.to_owned()) } else { url(json) }
}

fn normal_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let fits = matches!(scheme.as_str(), "http" | "https") && url.len() <= MAX_URL && is_plain(rest);
    if !fits || !has_host(url) {
        return None;
    }
    Some(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

/// Whether it holds only characters of a URL's authority and path (RFC 3986): no blank, query, fragment,
/// user, or brace of a mistyped `${NAME}`.
fn is_plain(rest: &str) -> bool {
    let refused = |byte| {
        matches!(byte, b'?' | b'#' | b'@' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    rest.bytes().all(|byte| byte.is_ascii_graphic() && !refused(byte))
}

/// Whether the HTTP client can read a host and a valid port from it.
fn has_host(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    let valid = |(host, _): (&str, Option<u16>)| match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty(),
    };
    split_port(host_and_port).is_some_and(valid)
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
    match json.text().map(Text::value) {
        Some("direct") => Ok(Way::Direct),
        Some(url) if is_proxy(url) => Ok(Way::Through(ProxyUrl::new(url.to_owned()))),
        _ => Err(ConfigText::Unfit { value: shown_url(json), expected: Expected::ProxyUrl }),
    }
}

fn is_proxy(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let known = ["http", "https", "socks5", "socks5h"].contains(&scheme.to_ascii_lowercase().as_str());
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let bare = rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#'));
    known && bare && has_host(url) && Proxy::new(url).is_ok()
}

/// The proxy of the environment; a bad one is reported under its variable's name.
fn proxy_around(reader: &mut Reader, url: &str) -> Option<ProxyUrl> {
    let env_proxies = Rc::clone(&reader.env_proxies);
    let Variable { name, value } = env_proxies.proxy(url)?;
    if !is_proxy(value.expose()) {
        let shown = bare_url(value.expose()).map_or_else(|| value.masked(), |url| format!("\"{url}\""));
        reader.report_once(name, ConfigText::Unfit { value: shown, expected: Expected::ProxyUrl });
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
    let items = reader.items(place, json, MAX_MODELS, Json::shown);
    items.into_iter().filter_map(|(at, item)| reader.read(&at, item, model_id)).collect()
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
    use super::{bare_url, normal_url};

    #[test]
    fn urls_lose_their_last_slashes_and_nothing_else() {
        for (given, kept) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1///", "https://api.openai.com/v1"),
            ("HTTP://localhost:8000/", "http://localhost:8000"),
            ("http://[::1]:1/a//b", "http://[::1]:1/a//b"),
        ] {
            assert_eq!(normal_url(given).as_deref(), Some(kept));
        }
        for bad in [
            "",
            "api.openai.com",
            "ftp://a",
            "http://",
            "http:///v1",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://u:p@a",
            "http://a?k=v",
            "http://a#f",
            "http://a/b c",
            "http://a/\n",
            "http://a/${NAME",
            "http://é",
            "http://[::g]",
            "unix:/a",
        ] {
            assert_eq!(normal_url(bad), None, "{bad}");
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
