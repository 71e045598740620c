//! `models`: names that stand for models of the configured providers.

use std::rc::Rc;

use super::json::Json;
use super::reader::{Leaf, Names, Reader};
use super::value::{check_line, unfit};
use crate::config::{Target, VirtualModel};
use crate::core::sort::sort_by;
use crate::limits::{MAX_MODEL_ID, MAX_MODELS, MAX_QUOTED, MAX_TARGETS};
use crate::text::config::ConfigText;
use crate::text::expected::Expected;
use crate::text::quoted;

/// The virtual models, sorted by name.
pub(super) fn virtual_models(reader: &mut Reader, place: &str, json: &Json) -> Vec<VirtualModel> {
    let mut models = Vec::new();
    reader.entries(place, json, MAX_MODELS, Json::shown, |reader, at, name, value| {
        if let Err(expected) = check_line(name, MAX_MODEL_ID) {
            let value = format!("\"{}\"", quoted(name, MAX_QUOTED));
            reader.report(at, ConfigText::Unfit { value, expected });
        }
        models.push(VirtualModel { name: name.to_owned(), targets: targets(reader, at, value) });
    });
    sort_by(&mut models, |a, b| a.name.cmp(&b.name));
    models
}

/// The names of virtual models in the raw config.
pub(super) fn names(json: &Json, names: &mut Names) {
    if let Json::Object(entries) = json {
        names.virtual_models.extend(entries.iter().map(|(name, _)| name.clone()));
    }
}

fn targets(reader: &mut Reader, at: &str, json: &Json) -> Vec<Target> {
    match json {
        Json::String(_) => one(reader, at, json).into_iter().collect(),
        Json::Array(items) if (1..=MAX_TARGETS).contains(&items.len()) => items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| one(reader, &format!("{at}[{i}]"), item))
            .collect(),
        Json::Array(items) if items.len() > MAX_TARGETS => {
            reader.report(at, ConfigText::TooMany { found: items.len(), limit: MAX_TARGETS });
            Vec::new()
        }
        other => {
            let value = if matches!(other, Json::Array(_)) { "[]".to_owned() } else { other.shown() };
            reader.report(at, ConfigText::Unfit { value, expected: Expected::Targets(MAX_TARGETS) });
            Vec::new()
        }
    }
}

fn one(reader: &mut Reader, at: &str, json: &Json) -> Option<Target> {
    let names = Rc::clone(&reader.names);
    reader.read(at, json, |json| target(json, &names))
}

fn target(json: &Json, names: &Names) -> Leaf<Target> {
    let Some(text) = json.text() else { return unfit(json, Expected::Target) };
    let id = text.value();
    if names.virtual_models.contains(id) {
        return Err(ConfigText::AliasOfAlias(text.shown()));
    }
    let (provider, model) = id.split_once('/').unwrap_or_default();
    if provider.is_empty() || model.is_empty() {
        return unfit(json, Expected::Target);
    }
    check_line(model, MAX_MODEL_ID).or_else(|rule| unfit(json, rule))?;
    if names.complete && !names.providers.contains(provider) {
        let provider = text.split_once('/').map_or_else(|| text.shown(), |(provider, _)| provider.shown());
        return Err(ConfigText::UnknownProvider { target: text.shown(), provider });
    }
    Ok(Target { provider: provider.to_owned(), model: model.to_owned() })
}
