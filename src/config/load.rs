//! From the text of `config.json` to a checked [`Config`] or to every problem at once.
//!
//! The steps: text → [`json::Json`] (keeps duplicates and file order) → `${NAME}`s replaced → a walk by
//! tables of keys, each row naming a key and the leaf that checks its value → [`Config`]. `check`, the start
//! and a reload all use this code.

mod authority;
mod ca;
mod env_proxy;
mod json;
mod own_files;
mod problem;
mod provider;
mod reader;
mod report;
mod syntax;
mod token;
mod value;
mod virtual_model;
mod warnings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use env_proxy::EnvProxies;
use json::Json;
use reader::{Key, Names, Reader, optional};

use super::{Config, Filter, Host};
use crate::files;
use crate::limits::{
    LARGEST_REQUEST, LEAST_MEMORY, MAX_CLIENTS, MAX_CONFIG_FILE, MAX_CONNECTIONS, MAX_IDLE_UPSTREAMS,
    MAX_MEMORY, MAX_ORIGINS, MAX_QUOTED, MAX_RESPONSE, MAX_RETRIES, MAX_TRUSTED_PROXIES, MAX_WORKERS,
};
use crate::logging::LogFormat;
use crate::memory;
use crate::text::config::ConfigText;
use crate::text::file::FileProblem;
use crate::text::{Language, quoted};

pub use problem::{Problem, Problems};
pub use report::{level_name, restart_required, summary};
pub use warnings::warnings;

/// Every key of the file. The field of [`Config`] documents its meaning and unit.
const KEYS: &[Key<Config>] = &[
    optional("host", |r, at, v, c| r.set(&mut c.host, at, v, value::host)),
    optional("port", |r, at, v, c| r.set(&mut c.port, at, v, |v| value::integer(v, 0..=65535))),
    optional("log_level", |r, at, v, c| r.set(&mut c.log_level, at, v, value::log_level)),
    optional("log_file", |r, at, v, c| r.set(&mut c.log_file, at, v, own_files::log_file)),
    optional("log_format", |r, at, v, c| r.set(&mut c.log_format, at, v, value::log_format)),
    optional("language", |r, at, v, c| r.set(&mut c.language, at, v, value::language)),
    optional("providers", |r, at, v, c| c.providers = provider::providers(r, at, v)),
    optional("tokens", |r, at, v, c| c.tokens = token::tokens(r, at, v)),
    optional("supported_models", |r, at, v, c| c.supported_models = value::filter(r, at, v)),
    optional("models", |r, at, v, c| c.models = virtual_model::virtual_models(r, at, v)),
    optional("workers", |r, at, v, c| {
        r.set(&mut c.workers, at, v, |v| match v {
            Json::Null => Ok(default_workers()),
            _ => value::integer(v, 1..=MAX_WORKERS as u64),
        });
    }),
    optional("max_connections", |r, at, v, c| {
        r.set(&mut c.max_connections, at, v, |v| value::integer(v, 1..=MAX_CONNECTIONS));
    }),
    optional("max_keepalive_connections", |r, at, v, c| {
        r.set(&mut c.max_keepalive_connections, at, v, |v| value::integer(v, 0..=MAX_IDLE_UPSTREAMS));
    }),
    optional("keepalive_expiry", |r, at, v, c| r.set(&mut c.keepalive_expiry, at, v, value::seconds)),
    optional("stream_timeout", |r, at, v, c| r.set(&mut c.stream_timeout, at, v, value::seconds)),
    optional("non_stream_timeout", |r, at, v, c| r.set(&mut c.non_stream_timeout, at, v, value::seconds)),
    optional("max_response_size", |r, at, v, c| {
        r.set(&mut c.max_response_size, at, v, |v| value::bytes(v, 1..=MAX_RESPONSE));
    }),
    optional("max_stream_size", |r, at, v, c| {
        r.set(&mut c.max_stream_size, at, v, |v| value::bytes(v, 1..=MAX_RESPONSE));
    }),
    optional("max_request_size", |r, at, v, c| {
        r.set(&mut c.max_request_size, at, v, |v| value::bytes(v, 1..=LARGEST_REQUEST as u64));
    }),
    optional("max_memory", |r, at, v, c| {
        r.set(&mut c.max_memory, at, v, |v| match v {
            Json::Null => Ok(memory::default_max()),
            _ => value::bytes(v, LEAST_MEMORY as u64..=MAX_MEMORY),
        });
    }),
    optional("queue_timeout", |r, at, v, c| r.set(&mut c.queue_timeout, at, v, value::seconds)),
    optional("client_timeout", |r, at, v, c| r.set(&mut c.client_timeout, at, v, value::seconds)),
    optional("idle_timeout", |r, at, v, c| r.set(&mut c.idle_timeout, at, v, value::seconds)),
    optional("max_clients", |r, at, v, c| {
        r.set(&mut c.max_clients, at, v, |v| value::integer(v, 1..=MAX_CLIENTS));
    }),
    optional("shutdown_timeout", |r, at, v, c| r.set(&mut c.shutdown_timeout, at, v, value::seconds)),
    optional("stream_heartbeat", |r, at, v, c| {
        r.set(&mut c.stream_heartbeat, at, v, value::seconds_or_never);
    }),
    optional("health_interval", |r, at, v, c| r.set(&mut c.health_interval, at, v, value::seconds)),
    optional("models_interval", |r, at, v, c| r.set(&mut c.models_interval, at, v, value::seconds)),
    optional("max_retries", |r, at, v, c| {
        r.set(&mut c.max_retries, at, v, |v| value::integer(v, 0..=MAX_RETRIES));
    }),
    optional("state_file", |r, at, v, c| r.set(&mut c.state_file, at, v, own_files::state_file)),
    optional("attempt_timeout", |r, at, v, c| {
        r.set(&mut c.attempt_timeout, at, v, value::seconds_or_null);
    }),
    optional("cors_origins", |r, at, v, c| {
        c.cors_origins = r.list(at, v, MAX_ORIGINS, value::origin);
    }),
    optional("trusted_proxies", |r, at, v, c| {
        c.trusted_proxies = r.list(at, v, MAX_TRUSTED_PROXIES, value::trusted_proxy);
    }),
];

/// Values of keys that the file omits, in the order of the config reference.
fn defaults() -> Config {
    Config {
        host: Host::Name("localhost".to_owned()),
        port: 8080,
        log_level: log::LevelFilter::Warn,
        log_file: Some(PathBuf::from("ai_proxy.log")),
        log_format: LogFormat::Text,
        language: Language::Zh,
        providers: Vec::new(),
        tokens: Vec::new(),
        supported_models: Filter::default(),
        models: Vec::new(),
        workers: default_workers(),
        max_connections: 100,
        max_keepalive_connections: 20,
        keepalive_expiry: Duration::from_secs(30),
        stream_timeout: Duration::from_secs(300),
        non_stream_timeout: Duration::from_secs(30),
        max_response_size: 10 * 1024 * 1024,
        max_stream_size: 256 * 1024 * 1024,
        max_request_size: 32 * 1024 * 1024,
        max_memory: memory::default_max(),
        queue_timeout: Duration::from_secs(5),
        client_timeout: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(75),
        max_clients: 10_000,
        shutdown_timeout: Duration::from_secs(30),
        stream_heartbeat: Some(Duration::from_secs(15)),
        health_interval: Duration::from_secs(30),
        models_interval: Duration::from_secs(300),
        max_retries: 2,
        attempt_timeout: None,
        state_file: None,
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
    }
}

/// One per core.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)
}

/// Reads and checks a config file, with the variables of this process.
pub fn from_file(path: &Path) -> Result<Config, Problems> {
    let config = files::read(path, MAX_CONFIG_FILE).map_err(unreadable).and_then(|bytes| {
        let text = syntax::decoded(bytes).map_err(|(language, text)| Problems::one(language, text))?;
        checked(&text, &|name| std::env::var(name).ok(), Some(path))
    });
    config.map_err(|problems| problems.of_file(quoted(&path.display().to_string(), MAX_QUOTED)))
}

fn unreadable(problem: FileProblem) -> Problems {
    let text = match problem {
        FileProblem::TooLarge(limit) => ConfigText::FileTooLarge(limit),
        problem => ConfigText::CannotRead(problem),
    };
    Problems::one(None, text)
}

/// Checks the text of a config file; `env` returns the environment variables it names.
pub fn from_text(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    checked(text, env, None)
}

/// Checks the text of the file at `path`, if it comes from a file.
fn checked(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    path: Option<&Path>,
) -> Result<Config, Problems> {
    // Some editors write a byte order mark at the beginning.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut root: Json = serde_json::from_str(text)
        .map_err(|error| Problems::one(syntax::language_of_broken(text), syntax::problem(text, &error)))?;
    root.expand(env);
    let Json::Object(entries) = &root else {
        return Err(Problems::one(None, ConfigText::NotAnObject(root.masked())));
    };
    let mut reader = Reader::new(names(entries), EnvProxies::read(env));
    let mut config = defaults();
    reader.object("", entries, KEYS, &mut config);
    if find(entries, "providers").is_none() {
        reader.report("providers", ConfigText::NoProviders);
    }
    if let Some(path) = path {
        own_files::check_distinct(&mut reader, &config, path);
    }
    match Problems::of(language(entries), reader.into_problems()) {
        Some(problems) => Err(problems),
        None => Ok(config),
    }
}

fn find<'j>(entries: &'j [(String, Json)], key: &str) -> Option<&'j Json> {
    entries.iter().find(|(name, _)| name == key).map(|(_, json)| json)
}

fn names(entries: &[(String, Json)]) -> Names {
    let mut names = find(entries, "providers").map(provider::names).unwrap_or_default();
    if let Some(models) = find(entries, "models") {
        virtual_model::names(models, &mut names);
    }
    names
}

/// The language that the file asks for; `None`: the value of `language` is bad.
fn language(entries: &[(String, Json)]) -> Option<Language> {
    find(entries, "language").map_or(Some(Language::default()), |json| value::language(json).ok())
}

#[cfg(test)]
mod tests;
