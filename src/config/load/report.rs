//! Output of `ai-proxy check` and of the start for a valid config: summary, keys that need a restart.

use super::provider::bare_url;
use super::value::LEVELS;
use crate::config::{Config, Host, Provider, ProxyUrl, Replica, ResponsesApi, StreamUsage, Target};
use crate::limits::{MAX_LISTED, MAX_QUOTED};
use crate::text::config::Label;
use crate::text::{Language, quoted};

/// The config in a few lines, in its own language, without secrets.
pub fn summary(config: &Config) -> String {
    let say = |label: Label| label.say(config.language);
    let mut lines = vec![
        format!("{}: {}", say(Label::Listen), listen(config)),
        format!("{}: {}", say(Label::Log), log_file(config)),
        format!("{}: {}", say(Label::LogLevel), level_name(config.log_level)),
        format!("{}: {}", say(Label::Language), if config.language == Language::Zh { "zh" } else { "en" }),
    ];
    lines.push(format!("{}: {}", say(Label::Providers), config.providers.len()));
    lines.extend(config.providers.iter().flat_map(|provider| provider_lines(provider, config.language)));
    let names = config.tokens.iter().map(|token| shown(&token.name));
    lines.push(counted(say(Label::Tokens), names, config.language));
    if config.supported_models.is_empty() {
        lines.push(format!("{}: {}", say(Label::Filters), say(Label::All)));
    } else {
        let filters = config.supported_models.patterns().map(shown);
        lines.push(counted(say(Label::Filters), filters, config.language));
    }
    lines.push(format!("{}: {}", say(Label::VirtualModels), config.models.len()));
    lines.extend(virtual_model_lines(config));
    if !config.cors_origins.is_empty() {
        let origins = config.cors_origins.iter().map(|origin| shown(origin));
        lines.push(counted(say(Label::Origins), origins, config.language));
    }
    if !config.trusted_proxies.is_empty() {
        let proxies = config.trusted_proxies.iter().map(ToString::to_string);
        lines.push(counted(say(Label::TrustedProxies), proxies, config.language));
    }
    lines.push(format!("{}: {}", say(Label::Workers), config.workers));
    lines.push(format!("{}: {}", say(Label::Slots), config.max_connections));
    lines.push(format!("{}: {}", say(Label::Clients), config.max_clients));
    lines.push(format!("{}: {}", say(Label::Memory), mebibytes(config.max_memory)));
    lines.push(format!("{}: {}", say(Label::Retries), config.max_retries));
    if let Some(path) = &config.state_file {
        lines.push(format!("{}: {}", say(Label::StateFile), shown(&path.display().to_string())));
    }
    lines.join("\n")
}

/// A size for people.
fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

fn listen(config: &Config) -> String {
    match &config.host {
        Host::Unix(path) => format!("unix:{}", shown(&path.display().to_string())),
        Host::Name(name) if name.contains(':') => format!("[{name}]:{}", config.port),
        Host::Name(name) => format!("{name}:{}", config.port),
    }
}

fn log_file(config: &Config) -> String {
    let stderr = || Label::LogStderr.say(config.language).to_owned();
    config.log_file.as_ref().map_or_else(stderr, |path| shown(&path.display().to_string()))
}

/// The name of a log level in the file.
pub fn level_name(level: log::LevelFilter) -> &'static str {
    LEVELS.iter().find(|(_, known)| *known == level).map_or("", |(name, _)| name)
}

/// One line per replica.
fn provider_lines(provider: &Provider, language: Language) -> impl Iterator<Item = String> {
    let count = provider.replicas.len();
    let replicas = match count {
        1 => String::new(),
        _ => format!(" ({}: {count})", Label::Replicas.say(language)),
    };
    let name = format!("  {}{replicas}", shown(&provider.name));
    provider
        .replicas
        .iter()
        .map(move |replica| format!("{name}: {}", replica_line(provider, replica, language)))
}

fn replica_line(provider: &Provider, replica: &Replica, language: Language) -> String {
    let say = |label: Label| label.say(language);
    let mut parts = vec![shown(&provider.without_secrets(&replica.url))];
    if let Some(url) = &replica.anthropic_url {
        parts.push(format!("anthropic_url {}", shown(&provider.without_secrets(url))));
    }
    if replica.key.is_empty() {
        parts.push(say(Label::NoKey).to_owned());
    } else {
        parts.push(format!("{} {}", say(Label::Key), replica.key.masked()));
    }
    if replica.weight != 1 {
        parts.push(format!("{} {}", say(Label::Weight), replica.weight));
    }
    match replica.stream_usage {
        StreamUsage::Auto => {}
        StreamUsage::Always => parts.push("stream_usage always".to_owned()),
        StreamUsage::Never => parts.push("stream_usage never".to_owned()),
    }
    match replica.responses {
        ResponsesApi::Auto => {}
        ResponsesApi::Native => parts.push("responses native".to_owned()),
        ResponsesApi::Chat => parts.push("responses chat".to_owned()),
    }
    if let Some(models) = &replica.models {
        parts.push(format!("{} {}", say(Label::Models), models.len()));
    }
    if !replica.headers.is_empty() {
        let names: Vec<&str> = replica.headers.iter().map(|(name, _)| name.as_str()).collect();
        parts.push(format!("{} {}", say(Label::Headers), names.join(" ")));
    }
    let through = |proxy: &ProxyUrl| bare_url(proxy.expose()).unwrap_or_else(|| proxy.masked());
    if let Some(proxy) = &replica.proxy {
        parts.push(format!("{} {}", say(Label::Proxy), through(proxy)));
    }
    if replica.anthropic_proxy != replica.proxy {
        let proxy = replica.anthropic_proxy.as_ref().map_or("direct".to_owned(), through);
        parts.push(format!("anthropic_url {} {proxy}", say(Label::Proxy)));
    }
    if let Some(ca) = &replica.ca_file {
        let path = shown(&ca.path.display().to_string());
        parts.push(format!("{} {path} ({})", say(Label::CaFile), ca.certificates.len()));
    }
    parts.join(", ")
}

fn virtual_model_lines(config: &Config) -> Vec<String> {
    let target = |target: &Target| shown(&format!("{}/{}", target.provider, target.model));
    let mut lines: Vec<String> = config
        .models
        .iter()
        .take(MAX_LISTED)
        .map(|model| {
            let targets: Vec<String> = model.targets.iter().map(target).collect();
            format!("  {} -> {}", shown(&model.name), targets.join(", "))
        })
        .collect();
    if config.models.len() > MAX_LISTED {
        lines.push(format!("  {}: {}", Label::More.say(config.language), config.models.len() - MAX_LISTED));
    }
    lines
}

/// A line with a count and the first names.
fn counted(label: &str, names: impl ExactSizeIterator<Item = String>, language: Language) -> String {
    let count = names.len();
    let mut listed: Vec<String> = names.take(MAX_LISTED).collect();
    if count > MAX_LISTED {
        listed.push(format!("{}: {}", Label::More.say(language), count - MAX_LISTED));
    }
    match count {
        0 => format!("{label}: 0"),
        _ => format!("{label}: {count} ({})", listed.join(", ")),
    }
}

fn shown(text: &str) -> String {
    quoted(text, MAX_QUOTED)
}

/// The changed keys that a reload cannot apply.
pub fn restart_required(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("host", old.host != new.host),
        ("port", old.port != new.port),
        ("workers", old.workers != new.workers),
        ("max_connections", old.max_connections != new.max_connections),
        ("max_clients", old.max_clients != new.max_clients),
        ("max_memory", old.max_memory != new.max_memory),
    ];
    changes.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}
