//! The merged model list: pure functions over the lists of the providers.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::config::{Config, VirtualModel};
use crate::core::sort::sort_by;
use crate::limits::{MAX_MODEL, MODEL_COST};

mod parse;

pub use parse::{Parsed, parse_list};

/// A model in a provider's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The provider's own id, in the form that clients write after the provider's name.
    pub id: Arc<str>,
    /// Unix time; 0 if the provider gives none.
    pub created: i64,
}

/// The lists of all providers: sorted by id, each id once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists(HashMap<String, Arc<[Model]>>);

impl Lists {
    /// The list of that provider.
    pub fn of(&self, provider: &str) -> &[Model] {
        self.0.get(provider).map(|list| &**list).unwrap_or_default()
    }

    /// Replaces a provider's list by `list`, which may be in any order.
    pub fn put(&mut self, provider: &str, list: Vec<Model>) {
        self.0.insert(provider.to_owned(), sorted(list).into());
    }

    fn find(&self, provider: &str, id: &str) -> Option<&Model> {
        let list = self.of(provider);
        let at = list.binary_search_by(|model| (*model.id).cmp(id)).ok()?;
        list.get(at)
    }
}

/// Sorts by id, each id once.
fn sorted(mut list: Vec<Model>) -> Vec<Model> {
    sort_by(&mut list, |a, b| a.id.cmp(&b.id));
    list.dedup_by(|a, b| a.id == b.id);
    list
}

/// An entry of our own list, in the form of the OpenAI API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry<'a> {
    /// `provider/model`, or a virtual model's name.
    pub id: String,
    object: &'static str,
    /// Unix time; 0 if the provider gives none.
    pub created: i64,
    /// The provider's name; `ai-proxy` for a virtual model.
    pub owned_by: &'a str,
}

impl<'a> Entry<'a> {
    fn of_virtual(name: &str) -> Self {
        Self { id: name.to_owned(), object: "model", created: 0, owned_by: "ai-proxy" }
    }

    fn of_provider(provider: &'a str, model: &Model) -> Self {
        let id = format!("{provider}/{}", model.id);
        Self { id, object: "model", created: model.created, owned_by: provider }
    }
}

/// All models that a caller may list, sorted by id, each id once: the virtual models, and the providers'
/// models that `supported_models` allows and a client can name ([`MAX_MODEL`]). A virtual model hides a
/// provider's of the same id, as it does in calls.
pub fn merge<'a>(config: &'a Config, lists: &'a Lists) -> impl Iterator<Item = Entry<'a>> {
    // No provider's name contains `/`: with the names in this order the concatenated lists are sorted by full
    // id.
    let mut names: Vec<&str> = config.providers.iter().map(|provider| &*provider.name).collect();
    sort_by(&mut names, |a, b| a.bytes().chain(*b"/").cmp(b.bytes().chain(*b"/")));
    let listed = names
        .into_iter()
        .flat_map(|name| lists.of(name).iter().map(move |model| Entry::of_provider(name, model)))
        .filter(|entry| entry.id.len() <= MAX_MODEL && config.supports(&entry.id));
    let mut virtuals: Vec<Entry<'_>> = config
        .models
        .iter()
        .filter(|model| config.targets_supported(model).next().is_some())
        .map(|model| Entry::of_virtual(&model.name))
        .collect();
    sort_by(&mut virtuals, |a, b| a.id.cmp(&b.id));
    let (mut virtuals, mut listed) = (virtuals.into_iter().peekable(), listed.peekable());
    std::iter::from_fn(move || match (virtuals.peek(), listed.peek()) {
        (Some(ours), Some(theirs)) if theirs.id < ours.id => listed.next(),
        (Some(ours), theirs) => {
            if theirs.is_some_and(|theirs| theirs.id == ours.id) {
                listed.next();
            }
            virtuals.next()
        }
        (None, _) => listed.next(),
    })
}

/// The entry of that id in [`merge`], found without building the others.
pub fn find<'a>(config: &'a Config, lists: &'a Lists, id: &str) -> Option<Entry<'a>> {
    let is_usable = |model: &&VirtualModel| config.targets_supported(model).next().is_some();
    if let Some(model) = config.virtual_model(id).filter(is_usable) {
        return Some(Entry::of_virtual(&model.name));
    }
    let (name, model) = id.split_once('/')?;
    let provider = config.provider(name)?;
    let model = lists.find(&provider.name, model).filter(|_| config.supports(id))?;
    Some(Entry::of_provider(&provider.name, model))
}

/// The providers that list this model.
pub fn providers_of<'a>(config: &'a Config, lists: &Lists, model: &str) -> impl Iterator<Item = &'a str> {
    let owners = config.providers.iter().filter(move |provider| lists.find(&provider.name, model).is_some());
    owners.map(|provider| &*provider.name)
}

/// The provider that lists this model, if exactly one does.
pub fn only_provider_of<'a>(config: &'a Config, lists: &Lists, model: &str) -> Option<&'a str> {
    let mut owners = providers_of(config, lists, model);
    match (owners.next(), owners.next()) {
        (Some(owner), None) => Some(owner),
        _ => None,
    }
}

/// The body of `GET /v1/models`. `for_codex`: with the member `models` beside `data`.
///
/// Codex needs that member (openai/codex, `ModelsResponse`), and adds its entries to the catalog it has built
/// in. It stays empty: an entry there carries the model's system prompt and its tools, and would replace
/// Codex's own.
///
/// `has_room` reserves space before the list grows by at most so many bytes. `None`: it refused.
pub fn render<'a>(
    entries: impl Iterator<Item = Entry<'a>>,
    for_codex: bool,
    mut has_room: impl FnMut(&mut Vec<u8>, usize) -> bool,
) -> Option<Vec<u8>> {
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    let start = out.len();
    for entry in entries {
        // An escape takes at most six bytes per byte; the rest is the fixed part of an entry and the end of
        // the list.
        let most = 6 * (entry.id.len() + entry.owned_by.len()) + 2 * MODEL_COST;
        if !has_room(&mut out, most) {
            return None;
        }
        if out.len() > start {
            out.push(b',');
        }
        // Serializing strings and numbers into memory cannot fail.
        let _ = serde_json::to_writer(&mut out, &entry);
    }
    let end: &[u8] = if for_codex { b"],\"models\":[]}" } else { b"]}" };
    out.extend_from_slice(end);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Lists, Model, find, merge, only_provider_of, render};
    use crate::config::{Config, load};

    fn config(changes: &str) -> Config {
        let providers = r#""a|http://127.0.0.1:1|", "a.b|http://127.0.0.1:2|", "b|http://127.0.0.1:3|""#;
        let text = format!(r#"{{"providers": [{providers}], {changes}}}"#);
        load::from_text(&text, &|_| None).expect("a good config")
    }

    fn lists(lists: &[(&str, &[&str])]) -> Lists {
        let mut all = Lists::default();
        for (provider, ids) in lists {
            all.put(provider, ids.iter().map(|id| Model { id: (*id).into(), created: 7 }).collect());
        }
        all
    }

    #[test]
    fn merge_of_lists_is_sorted_and_each_entry_is_found() {
        let config = config(
            r#""models": {"zz": "a/0", "a/x": "b/y", "b/0": "b/y", "lost": "b/z"}, "supported_models": ["^(a|a.b)/", "^b/[0y]$", "zz"]"#,
        );
        let lists = lists(&[("b", &["z", "y"]), ("a.b", &["m"]), ("a", &["x", "z", "x", "0"])]);
        let all: Vec<_> = merge(&config, &lists).collect();
        let ids: Vec<&str> = all.iter().map(|entry| &*entry.id).collect();
        // `.` sorts before `/`: the order is that of the full ids.
        assert_eq!(ids, ["a.b/m", "a/0", "a/x", "a/z", "b/0", "b/y", "zz"]);
        assert!(ids.is_sorted());
        let owners: Vec<&str> = all.iter().map(|entry| entry.owned_by).collect();
        assert_eq!(owners, ["a.b", "a", "ai-proxy", "a", "ai-proxy", "b", "ai-proxy"]);
        for entry in &all {
            assert_eq!(find(&config, &lists, &entry.id).as_ref(), Some(entry));
        }
        for id in ["lost", "b/z", "a/", "a", "", "/x", "c/x", "a/x/"] {
            assert_eq!(find(&config, &lists, id), None, "{id}");
        }
    }

    #[test]
    fn only_provider_of_a_model_is_known_where_it_is_one() {
        let config = config(r#""models": {}"#);
        let lists = lists(&[("b", &["one", "two"]), ("a", &["two"]), ("gone", &["three"])]);
        let owner = |model: &str| only_provider_of(&config, &lists, model);
        assert_eq!((owner("one"), owner("two"), owner("three"), owner("")), (Some("b"), None, None, None));
    }

    #[test]
    fn list_is_rendered_as_the_api_has_it() {
        let config = config(r#""models": {"v": "a/x"}"#);
        let lists = lists(&[("a", &["x\"\\"])]);
        let text = |for_codex| {
            let rendered = render(merge(&config, &lists), for_codex, |_, _| true);
            String::from_utf8(rendered.expect("room")).expect("text")
        };
        let entry = r#"{"id":"a/x\"\\","object":"model","created":7,"owned_by":"a"}"#;
        let v = r#"{"id":"v","object":"model","created":0,"owned_by":"ai-proxy"}"#;
        assert_eq!(text(false), format!(r#"{{"object":"list","data":[{entry},{v}]}}"#));
        assert_eq!(text(true), format!(r#"{{"object":"list","data":[{entry},{v}],"models":[]}}"#));
        let empty = render(std::iter::empty(), false, |_, _| false);
        assert_eq!(empty.as_deref(), Some(&br#"{"object":"list","data":[]}"#[..]));
    }

    #[test]
    fn list_is_rendered_within_the_room_that_is_made_for_each_entry() {
        let config = config(r#""models": {}"#);
        let lists = lists(&[("a", &["\u{1}\u{2}\u{3}", "x"]), ("b", &["z"])]);
        let mut room = 0;
        let rendered = render(merge(&config, &lists), true, |out, more| {
            assert!(out.len() <= room || room == 0, "{} bytes in room for {room}", out.len());
            room = out.len() + more;
            true
        });
        assert!(rendered.is_some_and(|list| list.len() <= room));
        let mut left = 2;
        let refused = render(merge(&config, &lists), false, |_, _| {
            left -= 1;
            left > 0
        });
        assert_eq!(refused, None);
    }
}
