//! Entries of `tokens`: strings `description|token` or objects.

use std::collections::HashMap;

use super::json::Json;
use super::reader::{Key, Leaf, Reader, optional, required};
use super::value::{filter, header_value, integer, line, unfit_secret};
use crate::config::{Credential, Filter, Token};
use crate::limits::MAX_TOKENS;
use crate::text::config::ConfigText;
use crate::text::expected::Expected;

/// Longest name of a token, bytes.
const MAX_TOKEN_NAME: usize = 256;
/// Largest `rpm` and `max_parallel`.
const MAX_RATE: u64 = 1_000_000;
/// Largest `tokens_per_day`.
const MAX_TOKENS_PER_DAY: u64 = 1_000_000_000_000;

/// One entry during the walk.
#[derive(Default)]
struct Entry {
    name: Option<String>,
    token: Option<Credential>,
    models: Option<Filter>,
    rpm: Option<u32>,
    max_parallel: Option<u32>,
    tokens_per_day: Option<u64>,
}

const KEYS: &[Key<Entry>] = &[
    required("name", |r, at, v, entry| entry.name = r.read(at, v, name)),
    required("token", |r, at, v, entry| entry.token = r.read(at, v, credential)),
    optional("models", |r, at, v, entry| entry.models = Some(models(r, at, v))),
    optional("rpm", |r, at, v, entry| entry.rpm = r.read(at, v, |v| integer(v, 1..=MAX_RATE))),
    optional("max_parallel", |r, at, v, entry| {
        entry.max_parallel = r.read(at, v, |v| integer(v, 1..=MAX_RATE));
    }),
    optional("tokens_per_day", |r, at, v, entry| {
        entry.tokens_per_day = r.read(at, v, |v| integer(v, 1..=MAX_TOKENS_PER_DAY));
    }),
];

/// The tokens in the order of the file.
pub(super) fn tokens(reader: &mut Reader, place: &str, json: &Json) -> Vec<Token> {
    let mut places: HashMap<[u8; 32], String> = HashMap::new();
    let mut tokens = Vec::new();
    for (at, item) in reader.items(place, json, MAX_TOKENS, Json::masked) {
        let Some(entry) = entry(reader, &at, item) else { continue };
        let Entry { name, token: Some(token), models, rpm, max_parallel, tokens_per_day } = entry else {
            continue;
        };
        if let Some(other) = places.get(token.digest()) {
            reader.report(&at, ConfigText::SameToken(other.clone()));
        } else {
            places.insert(*token.digest(), at);
        }
        if let Some(name) = name {
            tokens.push(Token { name, token, models, rpm, max_parallel, tokens_per_day });
        }
    }
    tokens
}

fn entry(reader: &mut Reader, at: &str, json: &Json) -> Option<Entry> {
    let mut entry = Entry::default();
    match json {
        Json::Object(entries) => reader.object(at, entries, KEYS, &mut entry),
        Json::String(_) => {
            let [first, second] = reader.read(at, json, parts)?;
            entry.name = reader.read(&format!("{at}.name"), &first, name);
            entry.token = reader.read(&format!("{at}.token"), &second, credential);
        }
        other => {
            reader.report(at, ConfigText::Unfit { value: other.masked(), expected: Expected::Token });
            return None;
        }
    }
    Some(entry)
}

fn credential(json: &Json) -> Leaf<Credential> {
    Credential::read(header_value(json, false)?).map_or_else(|| unfit_secret(json, Expected::TokenHash), Ok)
}

/// The two parts of a token string; the token may contain further bars.
fn parts(json: &Json) -> Leaf<[Json; 2]> {
    let Some(text) = json.text() else { return unfit_secret(json, Expected::Token) };
    let (name, token) = text.split_once('|').ok_or(ConfigText::TokenParts)?;
    Ok([name, token].map(Json::String))
}

/// A problem masks the name: an operator who swapped the parts wrote the token here.
fn name(json: &Json) -> Leaf<String> {
    line(json, MAX_TOKEN_NAME).map(str::to_owned).or_else(|rule| unfit_secret(json, rule))
}

/// A token's own filter. An empty one is ambiguous (all or none), so it is refused.
fn models(reader: &mut Reader, place: &str, json: &Json) -> Filter {
    if matches!(json, Json::Array(items) if items.is_empty()) {
        reader.report(place, ConfigText::Unfit { value: "[]".to_owned(), expected: Expected::Patterns });
    }
    filter(reader, place, json)
}
