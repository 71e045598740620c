//! Anthropic's format over OpenAI's, checked against files: `tests/golden/anthropic`. Each input is beside
//! its output.
//!
//! `AI_PROXY_GOLDEN=write` writes the output again; then read the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ai_proxy::core::sse::Events;
use ai_proxy::dialect::anthropic::{chat_request, error, message, translator};
use ai_proxy::dialect::{Attached, Document, Output, Unfit};
use serde_json::value::RawValue;

use crate::support::golden;

/// Most bytes of output.
const LIMIT: usize = 1_000_000;

fn golden(folder: &str) -> PathBuf {
    golden::golden("anthropic").join(folder)
}

/// Compares the output of `make` for each file of `folder` that ends in `from` with the file that ends in
/// `to`.
fn hold(folder: &str, from: &str, to: &str, make: impl Fn(&str, &[u8]) -> String) {
    let folder = golden(folder);
    let names: BTreeSet<String> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter_map(|name| name.strip_suffix(from).map(str::to_owned))
        .filter(|name| !name.contains(".out"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    golden::hold(names.iter().map(|name| {
        let given = fs::read(folder.join(format!("{name}{from}"))).expect("what goes in");
        (folder.join(format!("{name}{to}")), make(name, &given))
    }));
}

#[test]
fn requests() {
    hold("request", ".json", ".out", |name, given| {
        let body: &RawValue = serde_json::from_slice(given).expect("JSON");
        match chat_request(Document::of_valid(body.get()).value(), LIMIT, golden::thinking_of(name)) {
            Ok(chat) => {
                let written = chat.with_model(b"\"m\"", "max_tokens", true).concat();
                serde_json::from_slice::<serde::de::IgnoredAny>(&written).expect("JSON comes out");
                format!("{}\n", String::from_utf8(written).expect("UTF-8"))
            }
            Err(refusal) => golden::refused(&refusal),
        }
    });
}

#[test]
fn buffered_responses() {
    hold("response", ".json", ".out", |_, given| match message(given, "p/m", "req_1", LIMIT) {
        Ok(message) => format!("{}\n", String::from_utf8(message).expect("UTF-8")),
        Err(unfit) => format!("{unfit:?}\n"),
    });
}

#[test]
fn errors() {
    hold("error", ".json", ".out", |name, given| {
        let status = name.split('.').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        // The last part of the name: the request's attachments.
        let attached = Attached { image: name.contains("image"), pdf: name.contains("pdf") };
        let translated = error::translate(status, given.trim_ascii(), "req_1", attached);
        format!("{}\n", String::from_utf8(translated).expect("UTF-8"))
    });
}

#[test]
fn streams() {
    hold("stream", ".chat.sse", ".out.sse", |_, given| {
        let whole = translated([given]);
        let bytes = translated(given.chunks(1));
        assert_eq!(whole, bytes, "a byte at a time");
        whole
    });
}

/// The translation of a stream in these pieces, followed by the reason if it is broken.
fn translated<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut out = Output::new(LIMIT);
    let run = || -> Result<(), Unfit> {
        let (mut events, mut translating) = (Events::default(), translator("p/m", "req_1", LIMIT));
        for piece in pieces {
            events.take(piece, |data| translating.take(data, &mut out))?;
        }
        events.end(|data| translating.take(data, &mut out))?;
        translating.finish(&mut out)
    };
    let broken = run().err().map(|unfit| format!("{unfit:?}\n")).unwrap_or_default();
    String::from_utf8(out.bytes().to_vec()).expect("UTF-8") + &broken
}

fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let files =
        fs::read_dir(golden(folder)).expect("the folder").map(|entry| entry.expect("an entry").path());
    let wanted = files.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    wanted.map(|path| fs::read(path).expect("a file")).collect()
}

#[test]
fn a_stream_cut_anywhere_ends_well_only_where_it_said_why() {
    for file in files("stream", ".chat.sse") {
        for end in 0..file.len() {
            let cut = &file[..end];
            let made = translated([cut]);
            let cut = String::from_utf8_lossy(cut);
            let has_finish = cut.contains("\"finish_reason\": \"")
                || cut.ends_with("data: [DONE]\n")
                || cut.ends_with("[DONE]");
            assert!(has_finish || !made.contains("message_stop"), "{made}");
            let whole_events = made.split_inclusive("\n\n").filter(|event| event.starts_with("event: "));
            for event in whole_events {
                let data = event.split_once("\ndata: ").expect("data").1.trim_end();
                serde_json::from_str::<serde::de::IgnoredAny>(data).expect("JSON");
            }
        }
    }
}
