//! The Responses API over chat completions, checked against files: the output is in `tests/golden/responses`.
//! The input is beside it or in `tests/golden/anthropic`: providers write the same for every API.
//!
//! `AI_PROXY_GOLDEN=write` writes the output again; then read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ai_proxy::config::Thinking;
use ai_proxy::core::sse::Events;
use ai_proxy::dialect::responses::{Asked, Translation, chat_request, response, translator};
use ai_proxy::dialect::{Document, Output, Unfit};

use crate::support::golden;

/// Most bytes of output.
const LIMIT: usize = 1_000_000;
const ASKED: Asked<'_> = Asked { model: "p/m", id: "req_1", at: 1_700_000_000 };

/// Inputs by name: the files of these folders that end in `ending`.
fn given(folders: &[&str], ending: &str) -> BTreeMap<String, Vec<u8>> {
    let paths = folders.iter().flat_map(|folder| fs::read_dir(golden::golden(folder)).expect("the folder"));
    let name = |path: &Path| Some(path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned());
    let files = paths.filter_map(|entry| {
        let path = entry.expect("an entry").path();
        Some((name(&path)?, fs::read(path).expect("what goes in")))
    });
    files.collect()
}

/// Compares the output of `make` for each input with a file of `folder`.
fn hold(given: &BTreeMap<String, Vec<u8>>, folder: &str, ending: &str, make: impl Fn(&[u8]) -> String) {
    assert!(given.len() > 40, "{}", given.len());
    let folder = golden::golden(folder);
    golden::hold(given.iter().map(|(name, given)| (folder.join(format!("{name}{ending}")), make(given))));
}

/// A request with a free-form tool and a namespace.
fn request() -> Arc<Translation> {
    let request = fs::read_to_string(golden::golden("responses/request.json")).expect("the request");
    let document = Document::of_valid(&request);
    let (_, translation) = chat_request(document.value(), LIMIT, Thinking::All).expect("translated");
    Arc::new(translation)
}

#[test]
fn chat_completion_becomes_a_response() {
    let request = request();
    let given = given(&["anthropic/response", "responses/response"], ".json");
    hold(&given, "responses/response", ".out", |given| match response(given, &request, ASKED, LIMIT) {
        Ok(response) => shortened(&request, response) + "\n",
        Err(unfit) => format!("{unfit:?}\n"),
    });
}

#[test]
fn chat_stream_becomes_the_events_of_a_response() {
    let request = request();
    let given = given(&["anthropic/stream", "responses/stream"], ".chat.sse");
    hold(&given, "responses/stream", ".out.sse", |given| {
        let whole = translated(&request, [given]);
        assert_eq!(whole, translated(&request, given.chunks(1)), "a byte at a time");
        whole
    });
}

/// The translation of a stream in these pieces, followed by the reason if it is broken.
fn translated<'a>(request: &Arc<Translation>, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut out = Output::new(LIMIT);
    let run = || -> Result<(), Unfit> {
        let (mut events, mut translator) = (Events::default(), translator(request, ASKED, LIMIT));
        let mut take = |data: &[u8]| match translator.take(data, &mut out) {
            Err(Unfit::Error) => {
                translator.fail(429, data, &mut out);
                Ok(())
            }
            other => other,
        };
        for piece in pieces {
            events.take(piece, &mut take)?;
        }
        events.end(&mut take)?;
        translator.finish(&mut out)
    };
    let broken = run().err().map(|unfit| format!("{unfit:?}\n")).unwrap_or_default();
    shortened(request, out.bytes().to_vec()) + &broken
}

/// Without the members that repeat the request, which `tests/golden/responses/request` holds.
fn shortened(request: &Translation, written: Vec<u8>) -> String {
    String::from_utf8(written).expect("UTF-8").replace(request.echo(), "\"echo\":0")
}

/// Properties that clients rely on for any provider: the numbers, the ids, and the text in its four places.
#[test]
fn events_of_a_response_agree_with_each_other() {
    let request = request();
    for (name, given) in given(&["anthropic/stream", "responses/stream"], ".chat.sse") {
        let made = translated(&request, [&*given]);
        let data = made.lines().filter_map(|line| line.strip_prefix("data: "));
        let events: Vec<serde_json::Value> =
            data.map(|data| serde_json::from_str(data).expect("JSON")).collect();
        let (mut ids, mut texts, mut items) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (at, event) in events.iter().enumerate() {
            let kind = event["type"].as_str().expect("a type");
            assert_eq!(event["sequence_number"], at, "{name}");
            let index = event["output_index"].as_u64().unwrap_or(0) as usize;
            match kind.rsplit('.').next().expect("a word") {
                "added" if event["item"].is_object() => {
                    assert_eq!(index, ids.len(), "{name}");
                    ids.push(event["item"]["id"].clone());
                }
                "delta" => {
                    let text: &mut String = texts.entry(index).or_default();
                    text.push_str(event["delta"].as_str().expect("text"));
                    assert_eq!(event["item_id"], ids[index], "{name}");
                }
                "done" if event["item"].is_object() => {
                    assert_eq!(event["item"]["id"], ids[index], "{name}");
                    let item = &event["item"];
                    let part = item["content"].get(0).unwrap_or(item);
                    let text =
                        ["text", "refusal", "arguments", "input"].iter().find_map(|key| part[key].as_str());
                    assert_eq!(text, texts.get(&index).map(String::as_str), "{name}");
                    items.push(item.clone());
                }
                "completed" | "incomplete" => {
                    assert_eq!(event["response"]["output"], serde_json::Value::from(items.clone()), "{name}");
                }
                _ => {}
            }
        }
        let ending = events.last().and_then(|event| event["type"].as_str()).unwrap_or_default();
        let is_broken = made
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("Broken") || line.starts_with("Malformed"));
        let is_end = ["response.completed", "response.incomplete", "response.failed"].contains(&ending);
        assert!(is_broken != is_end, "{name}: {made}");
    }
}
