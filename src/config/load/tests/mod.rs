//! The loader on texts of configs.

use std::fs;
use std::path::PathBuf;

use super::{Config, Problems, from_text};
use crate::config::Replica;
use crate::text::Language;

mod entries;
mod report;
mod syntax;
mod values;
mod warnings;

const EXAMPLE: &str = include_str!("../../../../config.json.example");

fn environment(name: &str) -> Option<String> {
    match name {
        "ZHIPU_API_KEY" => Some("env-zhipu-key-0123456789".into()),
        "DEEPSEEK_API_KEY" => Some("env-deepseek-key-0123456789".into()),
        "OPENAI_API_KEY" => Some("env-openai-key-0123456789".into()),
        "AI_PROXY_TOKEN" => Some("env-token-everyone-0123456789".into()),
        "AI_PROXY_BATCH_TOKEN" => Some("env-token-batch-0123456789".into()),
        "BAD" => Some("env secret\nwith a line end".into()),
        "WHOLE" => Some("p|https://whole.example|whole|key".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, Problems> {
    from_text(text, &environment)
}

fn valid(text: &str) -> Config {
    load(text).unwrap_or_else(|problems| panic!("{text}: {:?}", problems.say(Language::En)))
}

fn said(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.say(Language::En),
    }
}

/// A config with one good provider, followed by `more`.
fn with(more: &str) -> String {
    format!(r#"{{"providers": ["a|https://a.example/v1|key"], {more}}}"#)
}

fn with_provider(entry: &str) -> String {
    format!(r#"{{"providers": [{entry}]}}"#)
}

fn with_object(more: &str) -> String {
    with_provider(&format!(r#"{{"name": "a", "url": "https://a.example", {more}}}"#))
}

fn lone_replica(text: &str) -> Replica {
    valid(text).providers[0].replicas[0].clone()
}

/// A file in a directory of its own, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let directory = std::env::temp_dir().join(format!("ai-proxy-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.json"), bytes).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.join("config.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
