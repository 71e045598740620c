//! Members of a body, beside `model`, by which some provider chooses a model.

use serde_json::value::RawValue;

use super::names::Names;
use crate::json::{text, try_elements, try_members};

/// A top-level member of a body, or a part of a form, by which some provider chooses a model.
#[derive(Debug, PartialEq, Eq)]
pub struct Chooser {
    pub name: &'static str,
    kind: Kind,
}

/// The values that it may have where a filter applies.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A list of model ids, as strings or as `{"model": id}`; each is checked.
    Models,
    /// Tools; a tool that runs a model of its own must name one, which is checked.
    Tools,
    /// OpenRouter's plugins; only those that run no model.
    Plugins,
    /// Members that a gateway moves to the top level of its own request; none may choose a model.
    Members,
    Nothing,
}

const fn row(name: &'static str, kind: Kind) -> Chooser {
    Chooser { name, kind }
}

/// Every such member (`docs/providers.md`, "Model filters"). Adding one is adding a row.
const CHOOSERS: &[Chooser] = &[
    // OpenRouter and Vercel: the models to try after `model` fails.
    row("models", Kind::Models),
    // LiteLLM, Anthropic, and OpenRouter on `/messages`: the same.
    row("fallbacks", Kind::Models),
    // OpenRouter: with `fallback` it chooses.
    row("route", Kind::Nothing),
    // OpenRouter: a stored configuration with a model of its own.
    row("preset", Kind::Nothing),
    row("plugins", Kind::Plugins),
    // Anthropic's advisor, OpenAI's image generation, OpenRouter's server tools.
    row("tools", Kind::Tools),
    // LiteLLM merges it into the request to its own provider and so replaces `model` there.
    row("extra_body", Kind::Members),
    // LiteLLM.
    row("context_window_fallbacks", Kind::Nothing),
    row("content_policy_fallbacks", Kind::Nothing),
    row("context_window_fallback_dict", Kind::Nothing),
    row("deployment_id", Kind::Nothing),
    row("model_list", Kind::Nothing),
    row("router_settings_override", Kind::Nothing),
    row("user_config", Kind::Nothing),
    // Vercel: `gateway.models`.
    row("providerOptions", Kind::Nothing),
];

/// The names of [`CHOOSERS`].
static NAMES: Names = Names::on(&[NAMES_IN_ORDER]);
const NAMES_IN_ORDER: &[&str] = &{
    let (mut names, mut at) = ([""; CHOOSERS.len()], 0);
    while at < names.len() {
        names[at] = CHOOSERS[at].name;
        at += 1;
    }
    names
};

/// OpenRouter's server tools that run no model.
const MODELLESS_TOOLS: &[&str] =
    &["openrouter:web_search", "openrouter:web_fetch", "openrouter:datetime", "openrouter:apply_patch"];
/// OpenRouter's plugins that run no model.
const MODELLESS_PLUGINS: &[&str] = &["web", "file-parser", "response-healing", "context-compression"];

/// The chooser that some reader sees in this name: Go's `encoding/json` folds letters as Unicode does.
pub fn chooser(name: &str) -> Option<&'static Chooser> {
    if name.is_ascii() {
        let mut rows = CHOOSERS.iter();
        let find = || rows.find(|row| row.name.eq_ignore_ascii_case(name));
        return NAMES.may_contain(name.as_bytes()).then(find).flatten();
    }
    CHOOSERS.iter().find(|row| {
        let fold = |letter| match letter {
            'ſ' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        };
        // A letter of one byte may be the folded form of one with three.
        name.len() >= row.name.len()
            && name.len() <= 3 * row.name.len()
            && name.chars().map(fold).eq(row.name.chars().map(|letter| letter.to_ascii_lowercase()))
    })
}

/// Whether some reader takes `name` for `model`: Go's `encoding/json` matches keys without regard to case, and the last wins.
/// None of these letters has a further form in Unicode's simple case folding.
pub fn reads_as_model(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"model")
}

impl Chooser {
    /// Whether the JSON `value` leads only to models that `may` be called.
    pub fn is_within(&self, value: &str, may: &dyn Fn(&str) -> bool) -> bool {
        if value == "null" {
            return true;
        }
        match self.kind {
            Kind::Models => all(value, &|entry| model_of(entry).is_some_and(|id| may(&id))),
            Kind::Tools => all(value, &|tool| {
                let Some(([kind, model], _)) = texts(tool, ["type", "model"]) else { return false };
                let kind = kind.unwrap_or_default();
                (!kind.starts_with("openrouter:") || MODELLESS_TOOLS.contains(&&*kind))
                    && model.is_none_or(|model| may(&model))
            }),
            Kind::Plugins => all(value, &|plugin| {
                let id = texts(plugin, ["id"; 2]).and_then(|([id, _], _)| id);
                id.is_some_and(|id| MODELLESS_PLUGINS.contains(&&*id))
            }),
            Kind::Members => {
                let is_choice = |name: &str| reads_as_model(name.as_bytes()) || chooser(name).is_some();
                let check = |name: &RawValue, _: &RawValue| match text(name.get()) {
                    Some(name) if !is_choice(&name) => Ok(()),
                    _ => Err(()),
                };
                try_members(value, check).is_ok()
            }
            Kind::Nothing => false,
        }
    }
}

/// The model that an entry of a list names.
fn model_of(entry: &RawValue) -> Option<String> {
    text(entry.get()).or_else(|| match texts(entry, ["model"; 2])? {
        ([model, _], false) => model,
        _ => None,
    })
}

/// The texts of these members of an object, and whether it has others. `None`: it is no object, or has one of them twice or
/// with another value than a text or `null`.
fn texts(object: &RawValue, names: [&str; 2]) -> Option<([Option<String>; 2], bool)> {
    let (mut found, mut has_others) = ([None, None], false);
    let note = |name: &RawValue, value: &RawValue| {
        let name = text(name.get()).ok_or(())?;
        match names.iter().position(|wanted| *wanted == name) {
            Some(at) => {
                let text = if value.get() == "null" { None } else { Some(text(value.get()).ok_or(())?) };
                if found[at].replace(text).is_some() {
                    return Err(());
                }
            }
            None => has_others = true,
        }
        Ok(())
    };
    try_members(object.get(), note).ok()?;
    Some((found.map(Option::flatten), has_others))
}

/// Whether `value` is a list and all its entries are `good`. Holds one entry at a time.
fn all(value: &str, good: &dyn Fn(&RawValue) -> bool) -> bool {
    try_elements(value, |entry| if good(entry) { Ok(()) } else { Err(()) }).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{CHOOSERS, chooser};

    fn is_within(name: &str, value: &str) -> bool {
        let may = |id: &str| id == "good" || id == "b/good";
        chooser(name).expect("a chooser").is_within(value, &may)
    }

    #[test]
    fn chooser_is_found_in_every_case() {
        for row in CHOOSERS {
            assert_eq!(chooser(row.name), Some(row));
            assert_eq!(chooser(&row.name.to_uppercase()), Some(row));
            assert_eq!(chooser(&format!("{}x", row.name)), None);
            assert_eq!(chooser(&row.name[1..]), None);
        }
        assert_eq!(chooser("model\u{17f}").map(|row| row.name), Some("models"));
        assert_eq!(chooser("Fallbac\u{212a}\u{17f}").map(|row| row.name), Some("fallbacks"));
        assert_eq!(chooser("messages"), None);
    }

    #[test]
    fn value_with_another_model_is_found() {
        for (name, value, expected) in [
            ("models", r#"["good","b/g\u006fod"]"#, true),
            ("models", r#"["good","bad"]"#, false),
            ("models", "[]", true),
            ("models", "null", true),
            ("models", r#""good""#, false),
            ("models", r#"{"good":1}"#, false),
            ("models", r#"["good",1]"#, false),
            ("fallbacks", r#"[{"model":"good"},"good"]"#, true),
            ("fallbacks", r#"[{"model":"bad"}]"#, false),
            ("fallbacks", r#"[{"model":"good","fallbacks":["bad"]}]"#, false),
            ("fallbacks", r#"[{"good":["bad"]}]"#, false),
            ("fallbacks", r#""default""#, false),
            ("preset", r#""x""#, false),
            ("preset", "null", true),
            ("tools", r#"[{"type":"function","function":{"name":"f","parameters":{"model":"bad"}}}]"#, true),
            ("tools", r#"[{"name":"f","input_schema":{"properties":{"model":{"type":"string"}}}}]"#, true),
            ("tools", r#"[{"type":"image_generation","model":"bad"}]"#, false),
            ("tools", r#"[{"type":"image_generation","model":"good"},{"type":"web_search"}]"#, true),
            ("tools", r#"[{"type":"advisor_20260301","name":"advisor","model":"bad"}]"#, false),
            ("tools", r#"[{"type":"openrouter:fusion"}]"#, false),
            ("tools", r#"[{"type":"openrouter:web_search","parameters":{}}]"#, true),
            ("tools", r#"[{"type":"x","model":"good","model":"bad"}]"#, false),
            ("tools", r#"[{"type":null,"model":null}]"#, true),
            ("tools", r#"[{"type":"x","model":["good"]}]"#, false),
            ("tools", r#"["x"]"#, false),
            ("plugins", r#"[{"id":"web","id":"web"}]"#, false),
            ("plugins", r#"[{"max_results":3}]"#, false),
            ("models", r#"[{"model":"good","x":1}]"#, false),
            ("plugins", r#"[{"id":"web","max_results":3}]"#, true),
            ("plugins", r#"[{"id":"web"},{"id":"fusion","analysis_models":["bad"]}]"#, false),
            ("extra_body", r#"{"google":{"thinking_config":{"model":"x"}}}"#, true),
            ("extra_body", r#"{"top_k":1,"Model":"bad"}"#, false),
            ("extra_body", r#"{"models":["bad"]}"#, false),
        ] {
            assert_eq!(is_within(name, value), expected, "{name}: {value}");
        }
    }
}
