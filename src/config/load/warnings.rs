//! What `ai-proxy check`, a start and a reload warn of: settings that are accepted but probably a mistake.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::authority::split_port;
use crate::config::{
    Config, Format, Host, Provider, ProxyUrl, Replica, Secret, Token, base_url_meant, is_placeholder,
};
use crate::files;
use crate::limits::{MAX_CONFIG_FILE, MAX_QUOTED};
use crate::memory;
use crate::text::quoted;
use crate::text::warning::{Owner, Warning};

/// Characters that a token has besides well-known words where other machines may send it.
const LEAST_UNGUESSABLE: usize = 16;

/// Last labels of names that no public name server knows.
const PRIVATE_LABELS: &[&str] = &[
    "arpa",
    "corp",
    "default",
    "home",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "svc",
    "test",
];

/// Warnings in the config's language. `path` is the config file.
pub fn warnings(config: &Config, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if config.tokens.is_empty() {
        found.push(Warning::NoTokens);
    }
    if config.max_clients < config.max_connections {
        found.push(Warning::IdleSlots { clients: config.max_clients, slots: config.max_connections });
    }
    found.extend(memory_warnings(config));
    if config.state_file.is_none() && config.tokens.iter().any(|token| token.tokens_per_day.is_some()) {
        found.push(Warning::NoStateFile);
    }
    for provider in &config.providers {
        provider.replicas.iter().for_each(|replica| of_replica(provider, replica, &mut found));
    }
    same_accounts(config, &mut found);
    config.tokens.iter().for_each(|token| found.extend(of_token(&config.host, token)));
    found.extend(unwritable(config));
    found.extend(open_file(config, path));
    found.iter().map(|warning| warning.say(config.language)).collect()
}

fn memory_warnings(config: &Config) -> impl Iterator<Item = Warning> {
    let (most, slots) = (config.max_memory, config.max_connections);
    let (there, room) = (memory::available(), memory::requests_within(most));
    let little = (room < slots).then_some(Warning::LittleMemory { most: most >> 20, room, slots });
    let excess = (most > there).then_some(Warning::MemoryNotThere { asked: most >> 20, there: there >> 20 });
    little.into_iter().chain(excess)
}

fn of_replica(provider: &Provider, replica: &Replica, found: &mut Vec<Warning>) {
    let name = shown(&provider.name);
    let shown_url = |url: &str| shown(&provider.without_secrets(url));
    let mut placeholder = |key: String| {
        found.push(Warning::Placeholder { owner: Owner::Provider(name.clone()), key });
    };
    if replica.key.is_placeholder() {
        placeholder(format!("key ({})", shown_url(&replica.url)));
    }
    for (header, _) in replica.headers.iter().filter(|(_, value)| value.is_placeholder()) {
        placeholder(format!("headers.{} ({})", shown(header), shown_url(&replica.url)));
    }
    let mut proxies = replica.proxy.iter().chain(&replica.anthropic_proxy);
    if proxies.any(|proxy| proxy.expose().split(['/', ':', '@']).any(is_placeholder)) {
        placeholder(format!("proxy ({})", shown_url(&replica.url)));
    }
    let anthropic_url = replica.anthropic_url.as_ref().filter(|url| **url != replica.url);
    let urls =
        [("url", Some(&replica.url), Format::OpenAi), ("anthropic_url", anthropic_url, Format::Anthropic)];
    let has_secret = !replica.key.is_empty() || !replica.headers.is_empty();
    for (key, url, format) in urls {
        let Some(url) = url else { continue };
        // No base URL has a dollar sign.
        if url.contains('$') || is_placeholder(url) {
            let owner = Owner::Provider(name.clone());
            found.push(Warning::Placeholder { owner, key: format!("{key} ({})", shown_url(url)) });
        }
        if let Some(meant) = base_url_meant(url, format) {
            let (provider, meant) = (name.clone(), shown_url(&meant));
            found.push(Warning::BaseUrl { provider, key, url: shown_url(url), meant });
        }
        if has_secret && is_plain_and_public(url) {
            found.push(Warning::PlainHttp { provider: name.clone(), key, url: shown_url(url) });
        }
    }
}

/// Whether a request to that URL crosses the internet without TLS.
fn is_plain_and_public(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    split_port(authority).is_some_and(|(host, _)| is_public(host))
}

fn is_public(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            // RFC 6598: shared behind a carrier's or a private network's translation.
            let is_shared = matches!(address.octets(), [100, 64..128, ..]);
            let is_near = address.is_loopback() || address.is_private() || address.is_link_local();
            !(is_shared || is_near || address.is_unspecified())
        }
        Ok(IpAddr::V6(address)) => {
            let is_near =
                address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local();
            !(is_near || address.is_unspecified())
        }
        Err(_) => {
            let name = bare.trim_end_matches('.').to_ascii_lowercase();
            name.rsplit_once('.').is_some_and(|(_, last)| !PRIVATE_LABELS.contains(&last))
        }
    }
}

/// Providers of different names that reach the same account. Entries of one name are replicas on purpose.
fn same_accounts(config: &Config, found: &mut Vec<Warning>) {
    let mut accounts = HashMap::new();
    for provider in &config.providers {
        for replica in &provider.replicas {
            // Without a name, the id is that of the URL, the key and the way there.
            let account = replica.clone().identified("").id;
            let first = *accounts.entry(account).or_insert(&provider.name);
            if *first != provider.name {
                let url = provider.without_secrets(&replica.url);
                let (provider, other) = (shown(&provider.name), shown(first));
                found.push(Warning::SameAccount { provider, other, url: shown(&url) });
            }
        }
    }
}

fn of_token(host: &Host, token: &Token) -> Option<Warning> {
    let (plain, name) = (token.token.plain()?, shown(&token.name));
    if plain.is_placeholder() {
        return Some(Warning::Placeholder { owner: Owner::Token(name), key: "token".to_owned() });
    }
    let host = reachable(host)?;
    (plain.unguessable() < LEAST_UNGUESSABLE).then(|| Warning::WeakToken {
        token: name,
        host: shown(host),
        least: LEAST_UNGUESSABLE,
    })
}

/// The address to listen on, if other machines reach it.
fn reachable(host: &Host) -> Option<&str> {
    let Host::Name(name) = host else { return None };
    let is_loopback = name.parse::<IpAddr>().map_or_else(
        |_| name.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    );
    (!is_loopback).then_some(name)
}

/// The proxy's own files that this user cannot write. A failure to open one is no problem of the config: it may be over at the
/// next attempt.
fn unwritable(config: &Config) -> impl Iterator<Item = Warning> {
    // The state is written beside its file, which it then replaces.
    let state = config.state_file.as_ref().map(|path| ("state_file", path, files::new_beside(path)));
    let log = config.log_file.as_ref().map(|path| ("log_file", path, path.clone()));
    log.into_iter().chain(state).filter_map(|(key, path, written)| {
        let problem = files::check_writable(&written).err()?;
        Some(Warning::Unwritable { key, path: shown(&path.display().to_string()), problem })
    })
}

/// A warning when every user may access the file and it contains a secret rather than the name of a variable. No
/// warning for a file that is gone or unreadable by now: this is advice, not a check.
fn open_file(config: &Config, path: &Path) -> Option<Warning> {
    let mode = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o777;
    // Its group may be the service's.
    if mode & 0o007 == 0 {
        return None;
    }
    let text = String::from_utf8(files::read(path, MAX_CONFIG_FILE).ok()?).ok()?;
    (secrets(config).any(|secret| secret.is_in(&text))
        || proxies(config).any(|it| it.expose().contains('@') && text.contains(it.expose())))
    .then(|| Warning::OpenFile { path: shown(&path.display().to_string()), mode })
}

fn secrets(config: &Config) -> impl Iterator<Item = &Secret> {
    let replicas = config.providers.iter().flat_map(|provider| &provider.replicas);
    replicas
        .flat_map(|replica| {
            let headers = replica.headers.iter().map(|(_, value)| value);
            std::iter::once(&replica.key).chain(headers)
        })
        .chain(config.tokens.iter().filter_map(|token| token.token.plain()))
}

fn proxies(config: &Config) -> impl Iterator<Item = &ProxyUrl> {
    let replicas = config.providers.iter().flat_map(|provider| &provider.replicas);
    replicas.flat_map(|replica| replica.proxy.iter().chain(&replica.anthropic_proxy))
}

fn shown(text: &str) -> String {
    quoted(text, MAX_QUOTED)
}

#[cfg(test)]
mod tests {
    use super::{is_plain_and_public, reachable};
    use crate::config::Host;

    #[test]
    fn is_plain_and_public_spares_tls_this_machine_and_private_networks() {
        for url in [
            "http://api.openai.com/v1",
            "http://8.8.8.8:8000/v1",
            "http://[2001:4860::1]/v1",
            "http://100.128.0.1",
            "http://example.com.",
        ] {
            assert!(is_plain_and_public(url), "{url}");
        }
        for url in [
            "https://api.openai.com/v1",
            "http://localhost:11434/v1",
            "http://vllm:8000/v1",
            "http://127.0.0.1:1",
            "http://10.1.2.3/v1",
            "http://192.168.1.2:8000/v1",
            "http://100.64.0.1/v1",
            "http://169.254.1.1",
            "http://[::1]:1/v1",
            "http://[fd00::1]/v1",
            "http://[fe80::1]",
            "http://[::ffff:10.0.0.1]",
            "http://host.docker.internal:8000/v1",
            "http://vllm.default.svc.cluster.local/v1",
            "http://box.LAN./v1",
        ] {
            assert!(!is_plain_and_public(url), "{url}");
        }
    }

    #[test]
    fn reachable_is_what_other_machines_reach() {
        for name in ["0.0.0.0", "::", "192.168.1.2", "proxy.example", "fe80::1%eth0"] {
            assert_eq!(reachable(&Host::Name(name.into())), Some(name));
        }
        for name in ["localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(reachable(&Host::Name(name.into())), None, "{name}");
        }
        assert_eq!(reachable(&Host::Unix("/run/ai-proxy.sock".into())), None);
    }
}
