//! A provider's response to `GET /models`. Only ids and times are kept. An odd entry is skipped without harm
//! to its neighbours.

use serde_json::value::RawValue;

use super::{Model, sorted};
use crate::json::{elements, members};
use crate::limits::{MAX_MODEL_ID, MAX_MODELS, MODEL_COST};

#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Sorted by id, each id once.
    pub models: Vec<Model>,
    /// Usable entries beyond the limit.
    pub dropped: usize,
}

/// Reads OpenAI's `{"data":[{"id":…}]}`, or a bare array of the same entries.
///
/// Entries without a usable id are skipped; of a repeated member the last one counts. `prefix` is removed
/// from ids: Gemini lists `models/x` and expects calls for `x`. `room`: bytes the list may take,
/// [`MODEL_COST`] and the id for each model. At most [`MAX_MODELS`] are kept.
///
/// # Errors
/// The response is no such JSON; the error has the position.
pub fn parse_list(prefix: &str, response: &[u8], room: usize) -> Result<Parsed, String> {
    let text = String::from_utf8_lossy(response);
    let mut data = None;
    let rows = match text.trim_start().starts_with('[') {
        true => Some(&*text),
        false => {
            members(&text, |name, value| {
                if name == "data" {
                    data = Some(value.get());
                }
            })
            .map_err(|error| error.to_string())?;
            data
        }
    };
    let rows = rows.ok_or("no member \"data\"")?;
    let (mut room, mut dropped, mut models) = (room, 0, Vec::new());
    let add = |row: &RawValue| {
        let Some(model) = model_of(row, prefix) else { return };
        let cost = MODEL_COST + model.id.len();
        if cost > room || models.len() == MAX_MODELS {
            dropped += 1;
            return;
        }
        room -= cost;
        models.push(model);
    };
    elements(rows, add).map_err(|error| error.to_string())?;
    Ok(Parsed { models: sorted(models), dropped })
}

/// The model of an entry; `None` if it is no object with a usable id.
fn model_of(row: &RawValue, prefix: &str) -> Option<Model> {
    let (mut id, mut created) = (None, None);
    members(row.get(), |name, value| match name {
        "id" => id = Some(value.get()),
        "created" => created = Some(value.get()),
        _ => {}
    })
    .ok()?;
    let id: String = serde_json::from_str(id?).ok()?;
    let id = id.strip_prefix(prefix).unwrap_or(&id);
    let created = created.and_then(|value| serde_json::from_str(value).ok()).unwrap_or(0);
    is_usable(id).then(|| Model { id: id.into(), created })
}

fn is_usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_MODEL_ID && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::{Parsed, parse_list};
    use crate::limits::{MAX_MODELS, MODEL_COST};

    fn ids(response: &str) -> Vec<String> {
        let parsed = parse_list("models/", response.as_bytes(), usize::MAX).expect("a list");
        parsed.models.into_iter().map(|model| (*model.id).to_owned()).collect()
    }

    #[test]
    fn lists_of_all_shapes_are_read_and_odd_rows_passed_over() {
        assert_eq!(ids(r#"{"object":"list","data":[{"id":"a"},{"id":"b/c"}]}"#), ["a", "b/c"]);
        assert_eq!(ids(r#" [{"id":"a"}]"#), ["a"]);
        assert_eq!(
            ids(r#"{"data":[{"id":"models/gemini"},{"id":""},{"id":1},{},{"id":"a\nb"}]}"#),
            ["gemini"]
        );
        for bad in [&b"<html>"[..], br#"{"error":{}}"#, br#"{"data":null}"#, br#"{"data":[]"#, b"[]x", b""] {
            assert!(parse_list("", bad, usize::MAX).is_err(), "{}", bad.escape_ascii());
        }
        let kept = parse_list("", br#"[{"id":"models/tuned"}]"#, usize::MAX).expect("a list");
        assert_eq!(&*kept.models[0].id, "models/tuned");
    }

    #[test]
    fn odd_entries_cost_their_own_entry_alone() {
        let deep = ["[".repeat(5000), "]".repeat(5000)].concat();
        for odd in [
            "null",
            "1",
            "-1.5e400",
            "true",
            "\"x\"",
            "[]",
            "[{\"id\":\"x\"}]",
            "{}",
            "{\"id\":null}",
            "{\"id\":[\"x\"]}",
            "{\"id\":{\"id\":\"x\"}}",
            "{\"id\":\"\\ud800\"}",
            "{\"\\ud800\":1}",
            "{\"id\":\"x\",\"id\":2}",
            &deep,
            &format!("{{\"pricing\":{deep}}}"),
            &format!("{{\"id\":\"{}\"}}", "x".repeat(257)),
        ] {
            let list = format!(r#"{{"data":[{{"id":"a"}},{odd},{{"id":"b"}}]}}"#);
            assert_eq!(ids(&list), ["a", "b"], "{odd:.80}");
        }
        // Of repeated members the last one counts, and a repeated id is listed once.
        assert_eq!(ids(r#"{"data":[{"id":"x"}],"data":[{"id":"x","id":"a"},{"id":"a"}]}"#), ["a"]);
        let invalid = [br#"[{"id":"a"},{"note":""#, &b"\xff\xfe"[..], br#"","id":"b"}]"#].concat();
        assert_eq!(parse_list("", &invalid, usize::MAX).expect("a list").models.len(), 2);
    }

    #[test]
    fn time_is_kept_where_it_is_one() {
        let list = br#"{"data":[{"id":"a","created":5},{"id":"b","created":"x"},{"id":"c","created":-1}]}"#;
        let parsed = parse_list("", list, usize::MAX).expect("a list");
        let times: Vec<i64> = parsed.models.iter().map(|model| model.created).collect();
        assert_eq!(times, [5, 0, -1]);
    }

    #[test]
    fn list_that_takes_more_than_its_room_is_cut() {
        let list = br#"[{"id":"a"},{"id":"b"},{"id":"c"}]"#;
        let Parsed { models, dropped } = parse_list("", list, 2 * (MODEL_COST + 1)).expect("a list");
        assert_eq!((models.len(), dropped), (2, 1));
        let rows: Vec<String> = (0..MAX_MODELS + 2).map(|number| format!(r#"{{"id":"{number}"}}"#)).collect();
        let list = format!("[{}]", rows.join(","));
        let Parsed { models, dropped } = parse_list("", list.as_bytes(), usize::MAX).expect("a list");
        assert_eq!((models.len(), dropped), (MAX_MODELS, 2));
    }
}
