//! The configuration: a file is either good or wrong in ways that are named, and no sentence about it holds a secret.

use ai_proxy::config::Config;
use ai_proxy::config::load::{self, Problems};
use ai_proxy::text::Language;
use serde_json::Value;

/// What the variable `SECRET` holds.
const FROM_ENVIRONMENT: &str = "sk-environment-5up3r-53cr3t";
/// Secrets shorter than this are no secrets, and would be met in any sentence by chance.
const TELLING: usize = 16;

/// Reads it, and listens to what is said of it.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| match name {
        "SECRET" => Some(FROM_ENVIRONMENT.to_owned()),
        "EMPTY" => Some(String::new()),
        "PLAIN" => Some("plain".to_owned()),
        _ => None,
    };
    let said = match load::from_text(text, &env) {
        Ok(config) => say_all(&config),
        Err(problems) => {
            let said = name_all(&problems);
            // In a good file a name or a host may come from there, and is shown as what it is. What a file writes out
            // in a public place is no secret either.
            assert!(text.contains(FROM_ENVIRONMENT) || !said.contains(FROM_ENVIRONMENT), "{said}");
            said
        }
    };
    for secret in secrets(text) {
        assert!(!said.contains(&secret), "{secret} in {said}");
    }
}

fn say_all(config: &Config) -> String {
    assert!(!config.providers.is_empty());
    assert!(config.providers.iter().all(|provider| !provider.replicas.is_empty()));
    assert!(load::restart_required(config, config).is_empty());
    let summary = load::summary(config);
    assert!(!summary.chars().any(|c| c.is_control() && c != '\n'), "{summary:?}");
    format!("{summary}\n{:?} {:?}", config.providers, config.tokens)
}

fn name_all(problems: &Problems) -> String {
    assert!(problems.iter().next().is_some(), "refused without a reason");
    let sentences = [problems.say(Language::En), problems.say(Language::Zh)].concat();
    for sentence in &sentences {
        assert!(!sentence.trim().is_empty() && !sentence.chars().any(char::is_control), "{sentence:?}");
    }
    format!("{} {problems:?}", sentences.join("\n"))
}

/// The keys and tokens of a file, as far as it is of the right shape, found by other means than the loader's own.
/// Only those that are in one place: what stands in a public place too is no secret.
fn secrets(text: &str) -> Vec<String> {
    let Ok(Value::Object(file)) = serde_json::from_str(text) else { return Vec::new() };
    let entries = |key: &str| file.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (key, bars, members) in [("providers", 2, &["key"][..]), ("tokens", 1, &["token"])] {
        for entry in entries(key) {
            match &entry {
                Value::String(line) => found.extend(line.splitn(bars + 1, '|').nth(bars).map(str::to_owned)),
                Value::Object(object) => {
                    found.extend(
                        members.iter().filter_map(|name| object.get(*name)?.as_str().map(str::to_owned)),
                    );
                }
                _ => {}
            }
        }
    }
    found.retain(|secret| {
        let telling = secret.len() >= TELLING && !secret.contains("${") && !secret.contains('|');
        telling && text.matches(secret.as_str()).count() == 1
    });
    found
}
