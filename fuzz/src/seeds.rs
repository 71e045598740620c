//! Known documents of each kind, from the golden files: what grows in the checks of cost.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The golden files, from the product's folder as from the fuzzer's.
fn golden() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inside = root.join("tests/golden");
    if inside.is_dir() { inside } else { root.join("../tests/golden") }
}

/// The files in a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder of golden files");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    // Some hold bytes that are no text: they are no documents.
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The files of that name that all providers have.
fn of_providers(end: &str) -> Vec<String> {
    let entries = fs::read_dir(golden().join("providers")).expect("providers");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    folders.iter().flat_map(|folder| files(folder, end)).collect()
}

/// The documents of streams' events, each stream's as one array.
fn events(streams: &[String]) -> Vec<String> {
    let of_one = |stream: &String| {
        let lines = stream.lines().filter_map(|line| line.strip_prefix("data:"));
        let documents: Vec<&str> =
            lines.filter(|data| serde_json::from_str::<Value>(data).is_ok()).map(str::trim).collect();
        format!("[{}]", documents.join(","))
    };
    streams.iter().map(of_one).collect()
}

pub fn bodies() -> Vec<String> {
    let others = [
        json!({"model": "p/m", "prompt": ["a"], "stream": true, "stream_options": {"include_usage": true}}),
        json!({"model": "p/m", "input": ["a", [1, 2, 3]], "encoding_format": "float", "dimensions": 5}),
        json!({"model": "p/m", "previous_response_id": "resp_1", "input": [{"role": "user", "content": "x"}]}),
        json!({"model": "p/m", "models": ["p/a", "p/b"], "query": "q", "documents": ["a", {"text": "b"}]}),
        json!({"model": "p/m", "images": [{"image_url": "data:image/png;base64,AAAA"}], "prompt": "x"}),
    ];
    of_providers("request.json").into_iter().chain(others.map(|body| body.to_string())).collect()
}

pub fn forms() -> Vec<String> {
    let part = |name: &str, value: &str| json!({"name": name, "value": value});
    let form = json!([part("model", "p/m"), part("file", "--bound\r\n-- x"), part("stream", "true")]);
    vec![form.to_string()]
}

pub fn messages_requests() -> Vec<String> {
    files(&golden().join("anthropic/request"), ".json")
}

pub fn responses_requests() -> Vec<String> {
    files(&golden().join("responses/request"), ".json")
}

pub fn messages_responses() -> Vec<String> {
    files(&golden().join("anthropic/response"), ".json")
}

pub fn messages_streams() -> Vec<String> {
    events(&files(&golden().join("anthropic/stream"), ".chat.sse"))
}

pub fn errors() -> Vec<String> {
    files(&golden().join("anthropic/error"), ".json")
}

pub fn streams() -> Vec<String> {
    events(&of_providers(".sse"))
}

pub fn responses() -> Vec<String> {
    of_providers("chat.json").into_iter().chain(errors()).collect()
}

pub fn model_lists() -> Vec<String> {
    of_providers("models.json")
}
