//! The merged model list: pure functions over what each provider lists.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::limits::{MAX_MODEL_ID, MAX_MODELS};

/// A model as a provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The provider's own id, as a client can call it behind the provider's name.
    pub id: String,
    /// Unix time; 0 where the provider does not say.
    pub created: i64,
    /// Who owns it; the provider's name where the provider does not say.
    pub owned_by: String,
}

/// What each provider lists, by provider name.
pub type Lists = HashMap<String, Vec<Model>>;

/// An entry of our own list, as the OpenAI API has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `provider/model`, or a virtual model's name.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Unix time.
    pub created: i64,
    /// Who owns it.
    pub owned_by: String,
}

/// Reads a provider's answer to `GET /models`: OpenAI's `{"data":[{"id":…}]}`, or a bare array of the same.
///
/// Entries without a usable id are passed over. `prefix` is left out of ids that begin with it: Gemini lists
/// `models/x` and wants to be called for `x`.
///
/// # Errors
/// The answer is no such JSON; says where.
pub fn parse_list(provider: &str, prefix: &str, answer: &[u8]) -> Result<Vec<Model>, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Object { data: Vec<Row> },
        Array(Vec<Row>),
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        id: serde_json::Value,
        #[serde(default)]
        created: serde_json::Value,
        #[serde(default)]
        owned_by: serde_json::Value,
    }
    let rows = match serde_json::from_slice(answer).map_err(|error| error.to_string())? {
        Answer::Object { data } | Answer::Array(data) => data,
    };
    let models = rows.into_iter().filter_map(|row| {
        let id = row.id.as_str()?;
        let id = id.strip_prefix(prefix).unwrap_or(id);
        (is_usable(id)).then(|| Model {
            id: id.to_owned(),
            created: row.created.as_i64().unwrap_or(0),
            owned_by: row.owned_by.as_str().unwrap_or(provider).to_owned(),
        })
    });
    Ok(models.take(MAX_MODELS).collect())
}

fn is_usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_MODEL_ID && !id.chars().any(char::is_control)
}

/// Everything a caller may list, sorted by id, each id once: the providers' models that `supported_models` lets
/// through, and the virtual models.
pub fn merge(config: &Config, lists: &Lists) -> Vec<Entry> {
    let mut entries: Vec<Entry> = config
        .models
        .iter()
        .filter(|model| config.targets_supported(model).next().is_some())
        .map(|model| Entry {
            id: model.name.clone(),
            object: "model",
            created: 0,
            owned_by: "ai-proxy".to_owned(),
        })
        .collect();
    for provider in &config.providers {
        for model in lists.get(&provider.name).into_iter().flatten() {
            let id = format!("{}/{}", provider.name, model.id);
            if config.supports(&id) {
                let owned_by = model.owned_by.clone();
                entries.push(Entry { id, object: "model", created: model.created, owned_by });
            }
        }
    }
    // Stable: a virtual model stands before a provider's of the same id, and hides it as it does when called.
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    entries.dedup_by(|a, b| a.id == b.id);
    entries
}

/// The one provider that lists this model, where exactly one does.
pub fn only_provider_of<'a>(config: &'a Config, lists: &Lists, model: &str) -> Option<&'a str> {
    let mut owners = config.providers.iter().filter(|provider| {
        lists.get(&provider.name).is_some_and(|list| list.iter().any(|listed| listed.id == model))
    });
    match (owners.next(), owners.next()) {
        (Some(owner), None) => Some(&owner.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    fn ids(answer: &str) -> Vec<String> {
        parse_list("p", "models/", answer.as_bytes())
            .expect("a list")
            .into_iter()
            .map(|model| model.id)
            .collect()
    }

    #[test]
    fn lists_of_all_shapes_are_read_and_odd_rows_passed_over() {
        assert_eq!(ids(r#"{"object":"list","data":[{"id":"a"},{"id":"b/c"}]}"#), ["a", "b/c"]);
        assert_eq!(ids(r#"[{"id":"a"}]"#), ["a"]);
        assert_eq!(
            ids(r#"{"data":[{"id":"models/gemini"},{"id":""},{"id":1},{},{"id":"a\nb"}]}"#),
            ["gemini"]
        );
        assert!(parse_list("p", "", b"<html>").is_err());
        assert!(parse_list("p", "", br#"{"error":{}}"#).is_err());
        let kept = parse_list("p", "", br#"[{"id":"models/tuned"}]"#).expect("a list");
        assert_eq!(kept[0].id, "models/tuned");
    }

    #[test]
    fn owner_and_time_are_kept_where_they_are_there() {
        let list = parse_list(
            "p",
            "",
            br#"{"data":[{"id":"a","created":5,"owned_by":"me"},{"id":"b","created":"x"}]}"#,
        );
        let list = list.expect("a list");
        assert_eq!((list[0].created, list[0].owned_by.as_str()), (5, "me"));
        assert_eq!((list[1].created, list[1].owned_by.as_str()), (0, "p"));
    }
}
