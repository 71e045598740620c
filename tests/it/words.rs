//! One word for a concept: names in the source use the terms of HTTP and of Rust.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;

/// Words that no name may contain, each with the term to use instead.
const RETIRED: &[(&str, &str)] = &[
    ("answer", "response"),
    ("answered", "response"),
    ("answers", "responses"),
    ("aside", "in cooldown"),
    ("cooled", "in cooldown"),
    ("cooling", "in cooldown"),
    ("delivery", "client response"),
    ("desk", "request queue"),
    ("desks", "request queues"),
    ("envelope", "response context"),
    ("goodbye", "terminal event"),
    ("haste", "first byte"),
    ("ongoing", "task"),
    ("passage", "stream filter"),
    ("patience", "timeout"),
    ("seat", "permit"),
    ("served", "succeeded"),
    ("surroundings", "environment"),
    ("ticket", "request context"),
    ("told", "a verb of what happens"),
    ("unanswered", "without response"),
];

/// `text` without comments, strings and characters.
fn code(text: &str) -> String {
    let other = concat!(
        r"(?s)//[^\n]*",
        r##"|b?r#".*?"#|b?r"[^"]*"|b?"(?:\\.|[^"\\])*""##,
        r"|b?'(?:\\[^']*|[^\\'])'"
    );
    Regex::new(other).expect("regex").replace_all(text, " ").into_owned()
}

/// The retired words in the names of `text`, as `name: word`.
fn retired(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let name = Regex::new(r"\b[A-Za-z_][A-Za-z0-9_]*\b").expect("regex");
    let part = Regex::new(r"[A-Z]+[a-z0-9]*|[a-z0-9]+").expect("regex");
    let names: BTreeSet<&str> = name.find_iter(&code).map(|found| found.as_str()).collect();
    let retired_in = |name: &str| {
        let parts = part.find_iter(name).map(|found| found.as_str().to_lowercase());
        let words: Vec<String> = parts.collect();
        RETIRED.iter().find(|(word, _)| words.iter().any(|part| part == word))
    };
    let found =
        names.into_iter().filter_map(|name| retired_in(name).map(|(_, term)| format!("{name}: {term}")));
    found.collect()
}

fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("read a directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn names_use_the_terms_of_http() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "benches", "tests"] {
        sources(&root.join(directory), &mut files);
    }
    let mut objections = Vec::new();
    for file in files {
        let found = retired(&std::fs::read_to_string(&file).expect("read source"));
        if !found.is_empty() {
            objections
                .push(format!("{}: {found:?}", file.strip_prefix(root).expect("under the root").display()));
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
}

#[test]
fn retired_finds_parts_of_names_and_nothing_in_comments_and_strings() {
    let text = "// answer\nlet last_answer = \"told \\\" seat\"; struct WholeAnswer<'a>; let c = '\"'; fn answering() {}";
    assert_eq!(Vec::from_iter(retired(text)), ["WholeAnswer: response", "last_answer: response"]);
}
