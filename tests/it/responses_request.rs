//! Responses requests over chat completions, checked against files: `tests/golden/responses/request`. Each
//! input is beside its output: the chat request, the members that its response repeats, and the tools that
//! are no plain functions.
//!
//! `AI_PROXY_GOLDEN=write` writes the output again; then read the difference.

use std::fs;

use ai_proxy::config::Thinking;
use ai_proxy::dialect::Document;
use ai_proxy::dialect::responses::chat_request;
use serde_json::value::RawValue;

use crate::support::golden::{golden, hold, refused, thinking_of};

/// Most bytes of output.
const LIMIT: usize = 1_000_000;

fn translated(given: &[u8], thinking: Thinking) -> String {
    let body: &RawValue = serde_json::from_slice(given).expect("JSON");
    let document = Document::of_valid(body.get());
    let (chat, translation) = match chat_request(document.value(), LIMIT, thinking) {
        Ok(translated) => translated,
        Err(refusal) => return refused(&refusal),
    };
    let written = chat.with_model(b"\"m\"", "max_tokens", true).concat();
    let tools = written_tools(&written);
    let special = tools.iter().filter_map(|name| translation.tool(name)).map(|tool| format!("{tool:?}\n"));
    let echo = format!("{{{}}}", translation.echo());
    serde_json::from_str::<serde::de::IgnoredAny>(&echo).expect("JSON is repeated");
    let written = String::from_utf8(written).expect("UTF-8");
    format!("{written}\n{echo}\n{}", special.collect::<String>())
}

/// The names of a chat request's functions.
fn written_tools(chat: &[u8]) -> Vec<String> {
    let chat: serde_json::Value = serde_json::from_slice(chat).expect("JSON comes out");
    let name = |tool: &serde_json::Value| tool["function"]["name"].as_str().expect("a name").to_owned();
    chat["tools"].as_array().map(|tools| tools.iter().map(name).collect()).unwrap_or_default()
}

#[test]
fn requests() {
    let files = fs::read_dir(golden("responses/request")).expect("the folder");
    let files = files.map(|entry| entry.expect("an entry").path());
    let mut given: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    given.sort();
    assert!(given.len() > 50, "{given:?}");
    hold(given.into_iter().map(|path| {
        let thinking = thinking_of(&path.to_string_lossy());
        let made = translated(&fs::read(&path).expect("what goes in"), thinking);
        (path.with_extension("out"), made)
    }));
}
