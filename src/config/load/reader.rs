//! Walks the raw config by tables of keys and collects every problem.

use std::collections::HashSet;
use std::rc::Rc;

use super::env_proxy::EnvProxies;
use super::json::Json;
use super::problem::Problem;
use crate::config::Secret;
use crate::limits::{MAX_PROBLEMS, MAX_QUOTED};
use crate::text::alike::{MAX_COMPARED, edits};
use crate::text::config::ConfigText;
use crate::text::expected::Expected;
use crate::text::quoted;

/// A row of a key table: the key's name and the function that reads its value into `T`.
pub(super) struct Key<T> {
    name: &'static str,
    required: bool,
    read: fn(&mut Reader, &str, &Json, &mut T),
}

/// A key that the file may omit.
pub(super) const fn optional<T>(name: &'static str, read: fn(&mut Reader, &str, &Json, &mut T)) -> Key<T> {
    Key { name, required: false, read }
}

/// A key that the file must have.
pub(super) const fn required<T>(name: &'static str, read: fn(&mut Reader, &str, &Json, &mut T)) -> Key<T> {
    Key { name, required: true, read }
}

/// Result of a leaf: the checked value, or the sentence that says what it expected.
pub(super) type Leaf<T> = Result<T, ConfigText>;

/// Names for the check of virtual models' targets; collected before the walk because `models` may come before
/// `providers` in the file.
#[derive(Default)]
pub(super) struct Names {
    /// Names of providers, including those of broken entries.
    pub(super) providers: HashSet<String>,
    /// Whether the names are complete. If not, an unknown provider is not reported: it may only echo another
    /// problem.
    pub(super) complete: bool,
    /// Names of virtual models.
    pub(super) virtual_models: HashSet<String>,
}

/// Collects the problems of one walk.
pub(super) struct Reader {
    pub(super) names: Rc<Names>,
    /// Proxies of the environment, for providers that name none.
    pub(super) env_proxies: Rc<EnvProxies>,
    problems: Vec<Problem>,
    unlisted: usize,
}

impl Reader {
    pub(super) fn new(names: Names, env_proxies: EnvProxies) -> Self {
        Self { names: Rc::new(names), env_proxies: Rc::new(env_proxies), problems: Vec::new(), unlisted: 0 }
    }

    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.unlisted > 0 {
            self.problems
                .push(Problem { place: String::new(), text: ConfigText::MoreProblems(self.unlisted) });
        }
        self.problems
    }

    /// Notes a problem.
    pub(super) fn report(&mut self, place: &str, text: ConfigText) {
        if self.is_full() {
            self.unlisted += 1;
        } else {
            self.problems.push(Problem { place: place.to_owned(), text });
        }
    }

    /// Like [`Reader::report`], unless the same problem is noted already.
    pub(super) fn report_once(&mut self, place: &str, text: ConfigText) {
        if !self.problems.iter().any(|known| known.place == place && known.text == text) {
            self.report(place, text);
        }
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Applies `leaf` to `json`; notes its problem or the variables that are not set.
    pub(super) fn read<T>(
        &mut self,
        place: &str,
        json: &Json,
        leaf: impl FnOnce(&Json) -> Leaf<T>,
    ) -> Option<T> {
        let missing = json.text().map_or(&[] as &[String], |text| text.missing());
        for name in missing {
            self.report(place, ConfigText::MissingVariable(quoted(name, MAX_QUOTED)));
        }
        if !missing.is_empty() {
            return None;
        }
        leaf(json).map_err(|text| self.report(place, text)).ok()
    }

    /// Like [`Reader::read`], into `slot`; a bad value leaves it unchanged.
    pub(super) fn set<T>(
        &mut self,
        slot: &mut T,
        place: &str,
        json: &Json,
        leaf: impl FnOnce(&Json) -> Leaf<T>,
    ) {
        if let Some(value) = self.read(place, json, leaf) {
            *slot = value;
        }
    }

    /// The items of an array of at most `limit`, each with its place. `shown` is the form of another type in
    /// a message.
    pub(super) fn items<'j>(
        &mut self,
        place: &str,
        json: &'j Json,
        limit: usize,
        shown: fn(&Json) -> String,
    ) -> Vec<(String, &'j Json)> {
        match json {
            Json::Array(items) if items.len() > limit => {
                self.report(place, ConfigText::TooMany { found: items.len(), limit });
                Vec::new()
            }
            Json::Array(items) => {
                items.iter().enumerate().map(|(i, item)| (format!("{place}[{i}]"), item)).collect()
            }
            other => {
                self.report(place, ConfigText::Unfit { value: shown(other), expected: Expected::Array });
                Vec::new()
            }
        }
    }

    /// The good items of an array of at most `limit`, without secrets; notes the others.
    pub(super) fn list<T>(
        &mut self,
        place: &str,
        json: &Json,
        limit: usize,
        leaf: fn(&Json) -> Leaf<T>,
    ) -> Vec<T> {
        let items = self.items(place, json, limit, Json::shown);
        items.into_iter().filter_map(|(at, item)| self.read(&at, item, leaf)).collect()
    }

    /// Visits the entries of an object with free keys, each with its place; of a repeated key only the first.
    pub(super) fn entries(
        &mut self,
        place: &str,
        json: &Json,
        limit: usize,
        shown: fn(&Json) -> String,
        visit: impl FnMut(&mut Self, &str, &str, &Json),
    ) {
        match json {
            Json::Object(entries) if entries.len() > limit => {
                self.report(place, ConfigText::TooMany { found: entries.len(), limit });
            }
            Json::Object(entries) => self.each(place, entries, visit),
            other => {
                self.report(place, ConfigText::Unfit { value: shown(other), expected: Expected::Object });
            }
        }
    }

    /// Reads an object by its table of keys; notes unknown, duplicate and missing ones.
    pub(super) fn object<T>(
        &mut self,
        place: &str,
        entries: &[(String, Json)],
        keys: &[Key<T>],
        into: &mut T,
    ) {
        self.each(place, entries, |reader, at, name, json| {
            match keys.iter().find(|key| key.name == name) {
                Some(key) => (key.read)(reader, at, json, into),
                // A hint is not worth its cost once the report is full.
                None if reader.is_full() => reader.report(at, ConfigText::UnknownKey(None)),
                None => {
                    let nearest = nearest(name, keys.iter().map(|key| key.name));
                    reader.report(at, ConfigText::UnknownKey(nearest));
                }
            }
        });
        for key in keys.iter().filter(|key| key.required) {
            if !entries.iter().any(|(name, _)| name == key.name) {
                self.report(&join(place, key.name), ConfigText::MissingKey);
            }
        }
    }

    fn each(
        &mut self,
        place: &str,
        entries: &[(String, Json)],
        mut visit: impl FnMut(&mut Self, &str, &str, &Json),
    ) {
        let mut seen = HashSet::with_capacity(entries.len());
        for (name, json) in entries {
            let at = join(place, name);
            if seen.insert(name.as_str()) {
                visit(self, &at, name, json);
            } else {
                self.report(&at, ConfigText::DuplicateKey);
            }
        }
    }
}

/// The place of `key` inside `place`. In an entry that holds secrets a key is shown only when it looks like
/// one: an operator may have written a token in place of the name.
fn join(place: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let beside_secrets = place.contains('[');
    let word = key.len() < 32 && key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_' || b == b'-');
    let sayable = !key.starts_with("sk-") && word;
    match (place, plain) {
        _ if beside_secrets && !sayable => {
            format!("{place}[{}]", quoted(&Secret::new(key.to_owned()).masked(), MAX_QUOTED))
        }
        ("", true) if key.len() <= MAX_QUOTED => key.to_owned(),
        ("", _) => format!("\"{}\"", quoted(key, MAX_QUOTED)),
        (_, true) if key.len() <= MAX_QUOTED => format!("{place}.{key}"),
        (_, _) => format!("{place}[\"{}\"]", quoted(key, MAX_QUOTED)),
    }
}

/// The known name closest to `name`: one that contains it or that it contains, else the one with the fewest
/// edits.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    let apart = |known: &str| !(known.contains(&name) || name.contains(known));
    known.min_by_key(|known| (name.is_empty() || apart(known), edits(&name, known)))
}

#[cfg(test)]
mod tests {
    use super::{join, nearest};

    #[test]
    fn the_nearest_key_is_named() {
        let keys = || ["max_connections", "max_clients", "port", "host"].into_iter();
        assert_eq!(nearest("max_conections", keys()), Some("max_connections"));
        assert_eq!(nearest("Max-Clients", keys()), Some("max_clients"));
        assert_eq!(nearest("prot", keys()), Some("port"));
        assert_eq!(nearest("pot", keys()), Some("port"));
        assert_eq!(nearest("clients", keys()), Some("max_clients"));
        assert_eq!(nearest(&"m".repeat(65), keys()), None);
    }

    #[test]
    fn places_read_like_paths_and_hide_what_may_be_a_secret() {
        assert_eq!(join("", "port"), "port");
        assert_eq!(join("", "a b\n"), "\"a b\\u{a}\"");
        assert_eq!(join("models", "fast"), "models.fast");
        assert_eq!(join("models", "a/b"), "models[\"a/b\"]");
        assert_eq!(join("tokens[0]", "rpm"), "tokens[0].rpm");
        assert_eq!(join("tokens[0]", "sk-abcdefghijklm"), "tokens[0][sk-***lm]");
        assert_eq!(join("tokens[0]", "4f4f4f"), "tokens[0][***]");
        assert_eq!(join("providers[0].headers", "X-Team"), "providers[0].headers.X-Team");
    }
}
