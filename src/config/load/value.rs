//! Leaves: each takes one JSON value and returns the checked value, or says what it expected.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::authority::split_port;
use super::json::{Json, Text};
use super::reader::{Leaf, Reader};
use crate::config::{Filter, Host, Network, Pattern, Secret, TrustedProxy};
use crate::limits::{MAX_MODEL_ID, MAX_PATTERNS, MAX_QUOTED};
use crate::logging::LogFormat;
use crate::text::Language;
use crate::text::config::ConfigText;
use crate::text::expected::Expected;
use crate::text::quoted;

/// Longest name of a host, bytes (RFC 1035).
const MAX_HOST: usize = 253;
/// Longest path of a Unix socket, bytes: `sun_path` less its final NUL.
const MAX_SOCKET_PATH: usize = 107;
/// Longest key, token or header value, bytes: it must fit into a request head.
const MAX_SECRET: usize = 8 * 1024;
/// Shortest configurable time, seconds.
const SHORTEST: f64 = 0.001;
/// Longest configurable time, seconds: a week.
const LONGEST: f64 = 604_800.0;

/// Log levels by their names in the file and the summary.
pub(super) const LEVELS: [(&str, log::LevelFilter); 5] = [
    ("DEBUG", log::LevelFilter::Debug),
    ("INFO", log::LevelFilter::Info),
    ("WARNING", log::LevelFilter::Warn),
    ("ERROR", log::LevelFilter::Error),
    ("CRITICAL", log::LevelFilter::Off),
];
const LEVEL_NAMES: &[&str] = &["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
const FORMAT_NAMES: &[&str] = &["text", "json"];
const LANGUAGE_NAMES: &[&str] = &["zh", "en"];

/// The problem of a value that is no secret.
pub(super) fn unfit<T>(json: &Json, expected: Expected) -> Leaf<T> {
    Err(ConfigText::Unfit { value: json.shown(), expected })
}

/// The problem of a value in the place of a secret.
pub(super) fn unfit_secret<T>(json: &Json, expected: Expected) -> Leaf<T> {
    Err(ConfigText::Unfit { value: json.masked(), expected })
}

/// An integer within `bounds`.
pub(super) fn integer<T: TryFrom<u64>>(json: &Json, bounds: RangeInclusive<u64>) -> Leaf<T> {
    let expected = Expected::Integer(*bounds.start(), *bounds.end());
    whole(json, &bounds).map_or_else(|| unfit(json, expected), Ok)
}

/// A number of bytes within `bounds`.
pub(super) fn bytes(json: &Json, bounds: RangeInclusive<u64>) -> Leaf<usize> {
    let expected = Expected::Bytes(*bounds.start(), *bounds.end());
    whole(json, &bounds).map_or_else(|| unfit(json, expected), Ok)
}

fn whole<T: TryFrom<u64>>(json: &Json, bounds: &RangeInclusive<u64>) -> Option<T> {
    let Json::Number(number) = json else { return None };
    let value = number.as_u64().filter(|value| bounds.contains(value))?;
    T::try_from(value).ok()
}

/// A time that is not 0.
pub(super) fn seconds(json: &Json) -> Leaf<Duration> {
    duration(json).map_or_else(|| unfit(json, Expected::Seconds(SHORTEST, LONGEST)), Ok)
}

/// A time, or 0 for never.
pub(super) fn seconds_or_never(json: &Json) -> Leaf<Option<Duration>> {
    match json {
        Json::Number(number) if number.as_f64() == Some(0.0) => Ok(None),
        _ => duration(json)
            .map_or_else(|| unfit(json, Expected::SecondsOrNever(SHORTEST, LONGEST)), |time| Ok(Some(time))),
    }
}

/// A time, or null for none.
pub(super) fn seconds_or_null(json: &Json) -> Leaf<Option<Duration>> {
    match json {
        Json::Null => Ok(None),
        _ => duration(json)
            .map_or_else(|| unfit(json, Expected::SecondsOrNull(SHORTEST, LONGEST)), |time| Ok(Some(time))),
    }
}

fn duration(json: &Json) -> Option<Duration> {
    let Json::Number(number) = json else { return None };
    let value = number.as_f64().filter(|value| (SHORTEST..=LONGEST).contains(value))?;
    Duration::try_from_secs_f64(value).ok()
}

/// A log level, in upper or lower case.
pub(super) fn log_level(json: &Json) -> Leaf<log::LevelFilter> {
    json.text()
        .and_then(|text| LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.value())))
        .map_or_else(|| unfit(json, Expected::OneOf(LEVEL_NAMES)), |(_, level)| Ok(*level))
}

/// A path, or null for none.
pub(super) fn path_or_null(json: &Json) -> Leaf<Option<PathBuf>> {
    match json {
        Json::Null => Ok(None),
        Json::String(_) => {
            line(json, usize::MAX).map(|path| Some(PathBuf::from(path))).or_else(|rule| unfit(json, rule))
        }
        _ => unfit(json, Expected::PathOrNull),
    }
}

pub(super) fn log_format(json: &Json) -> Leaf<LogFormat> {
    match json.text().map(Text::value) {
        Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        _ => unfit(json, Expected::OneOf(FORMAT_NAMES)),
    }
}

pub(super) fn language(json: &Json) -> Leaf<Language> {
    match json.text().map(Text::value) {
        Some("zh") => Ok(Language::Zh),
        Some("en") => Ok(Language::En),
        _ => unfit(json, Expected::OneOf(LANGUAGE_NAMES)),
    }
}

/// An address to listen on.
pub(super) fn host(json: &Json) -> Leaf<Host> {
    let host = match json.text().map(Text::value) {
        None => Err(Expected::String),
        Some(text) => match text.strip_prefix("unix:") {
            Some(path) => socket_path(path).map(Host::Unix),
            None => host_name(text).map(Host::Name),
        },
    };
    host.or_else(|rule| unfit(json, rule))
}

fn socket_path(path: &str) -> Result<PathBuf, Expected> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(Expected::SocketPath);
    }
    check_line(path, MAX_SOCKET_PATH).map(|()| PathBuf::from(path))
}

fn host_name(name: &str) -> Result<String, Expected> {
    check_line(name, MAX_HOST)?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    // An IPv6 address may name its interface after a `%`.
    let (address, zone) = bare.split_once('%').unwrap_or((bare, "zone"));
    let is_ipv6 = address.parse::<Ipv6Addr>().is_ok() && is_word(zone);
    match split_port(name) {
        _ if is_ipv6 => Ok(bare.to_owned()),
        _ if is_word(name) => Ok(name.to_owned()),
        _ if name.contains('/') => Err(Expected::HostNotUrl),
        Some((_, Some(_))) => Err(Expected::HostWithoutPort),
        _ => Err(Expected::Host),
    }
}

/// Letters, digits and the punctuation of host names.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

/// One non-empty line of at most `most` bytes.
///
/// # Errors
/// The rule that the text breaks.
pub(super) fn check_line(text: &str, most: usize) -> Result<(), Expected> {
    match text {
        "" => Err(Expected::NotEmpty),
        _ if text.chars().any(char::is_control) => Err(Expected::NoControl),
        _ if text.len() > most => Err(Expected::AtMost(most)),
        _ => Ok(()),
    }
}

/// Like [`check_line`], for a value that should be a string.
pub(super) fn line(json: &Json, most: usize) -> Result<&str, Expected> {
    let text = json.text().ok_or(Expected::String)?.value();
    check_line(text, most).map(|()| text)
}

pub(super) fn model_id(json: &Json) -> Leaf<String> {
    line(json, MAX_MODEL_ID).map(str::to_owned).or_else(|rule| unfit(json, rule))
}

/// A secret in a header: a key, a token, a header's value.
pub(super) fn header_value(json: &Json, may_be_empty: bool) -> Leaf<Secret> {
    let broken = match json.text().map(Text::value) {
        None => Expected::String,
        Some("") if !may_be_empty => Expected::NotEmpty,
        Some(text) if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Expected::VisibleAscii,
        Some(text) if text.trim() != text => Expected::Trimmed,
        Some(text) if text.len() > MAX_SECRET => Expected::AtMost(MAX_SECRET),
        Some(text) => return Ok(Secret::new(text.to_owned())),
    };
    unfit_secret(json, broken)
}

/// A list of regular expressions. One that does not compile is skipped and noted.
pub(super) fn filter(reader: &mut Reader, place: &str, json: &Json) -> Filter {
    reader.list(place, json, MAX_PATTERNS, pattern).into_iter().collect()
}

fn pattern(json: &Json) -> Leaf<Pattern> {
    let Some(text) = json.text().filter(|text| !text.value().is_empty()) else {
        return unfit(json, if json.text().is_some() { Expected::NotEmpty } else { Expected::String });
    };
    Pattern::new(text.value()).map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => ConfigText::RegexTooBig { pattern: text.shown(), limit },
        other => ConfigText::BadRegex { pattern: text.shown(), reason: regex_reason(&other.to_string()) },
    })
}

/// The crate's report quotes the pattern over several lines; the last one has the reason.
fn regex_reason(report: &str) -> String {
    let last = report.lines().last().unwrap_or_default();
    quoted(last.strip_prefix("error: ").unwrap_or(last), MAX_QUOTED)
}

/// A browser origin as browsers send it: lower case, without the scheme's default port.
pub(super) fn origin(json: &Json) -> Leaf<String> {
    let Some(text) = json.text().map(Text::value) else { return unfit(json, Expected::String) };
    let has_more = text.split_once("://").is_some_and(|(_, authority)| authority.contains(['/', '?', '#']));
    let rule = if has_more { Expected::OriginWithoutPath } else { Expected::Origin };
    normal_origin(&text.to_ascii_lowercase()).map_or_else(|| unfit(json, rule), Ok)
}

/// `unix`, an IP address, or a network.
pub(super) fn trusted_proxy(json: &Json) -> Leaf<TrustedProxy> {
    let Some(text) = json.text().map(Text::value) else { return unfit(json, Expected::String) };
    let proxy = match text {
        "unix" => Some(TrustedProxy::Unix),
        other => Network::parse(other).map(TrustedProxy::Network),
    };
    proxy.map_or_else(|| unfit(json, Expected::TrustedProxy), Ok)
}

fn normal_origin(origin: &str) -> Option<String> {
    if origin == "*" {
        return Some(origin.to_owned());
    }
    let (scheme, authority) = origin.split_once("://")?;
    let mut letters = scheme.bytes();
    let scheme_fits = letters.next()?.is_ascii_lowercase()
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let (host, port) = split_port(authority)?;
    let host_fits = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => is_word(host),
    };
    let own_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = port.filter(|port| Some(*port) != own_port).map_or(String::new(), |port| format!(":{port}"));
    (scheme_fits && host_fits).then(|| format!("{scheme}://{host}{port}"))
}

#[cfg(test)]
mod tests {
    use super::{Expected, host_name, normal_origin, regex_reason};
    use crate::config::load::authority::split_port;

    #[test]
    fn hosts_are_names_or_addresses_without_a_port() {
        for (given, kept) in [
            ("localhost", "localhost"),
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(host_name(given).as_deref(), Ok(kept));
        }
        for (bad, rule) in [
            ("", Expected::NotEmpty),
            ("localhost:80", Expected::HostWithoutPort),
            ("[::1]:80", Expected::HostWithoutPort),
            ("a b", Expected::Host),
            ("http://a", Expected::HostNotUrl),
            ("http://a:80", Expected::HostNotUrl),
            ("a/b", Expected::HostNotUrl),
            ("[a]", Expected::Host),
            ("fe80::1%", Expected::Host),
            ("a\n", Expected::NoControl),
            ("[", Expected::Host),
            ("[]", Expected::Host),
            (&"a".repeat(254), Expected::AtMost(253)),
        ] {
            assert_eq!(host_name(bad), Err(rule), "{bad}");
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        for (given, kept) in [
            ("*", "*"),
            ("https://a.example", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("chrome-extension://abc", "chrome-extension://abc"),
        ] {
            assert_eq!(normal_origin(given).as_deref(), Some(kept));
        }
        for bad in
            ["", "a.example", "https://", "https://a/", "https://a/b", "https://u@a", "https://a:", "://a"]
        {
            assert_eq!(normal_origin(bad), None, "{bad}");
        }
        assert_eq!(normal_origin("https://a:99999"), None);
    }

    #[test]
    fn ports_are_split_off() {
        assert_eq!(split_port("a:1"), Some(("a", Some(1))));
        assert_eq!(split_port("[::1]"), Some(("[::1]", None)));
        assert_eq!(split_port("[::1]:65535"), Some(("[::1]", Some(65535))));
        for bad in ["a:", "a:0", "a:65536", "a:+1", "a:1:2", "[::1]:x"] {
            assert_eq!(split_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_regex_reason_is_one_line() {
        assert_eq!(
            regex_reason("regex parse error:\n    a(\n     ^\nerror: unclosed group"),
            "unclosed group"
        );
    }
}
