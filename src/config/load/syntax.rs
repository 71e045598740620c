//! Why the bytes of a config file are not the text of a JSON document.

use crate::text::Language;
use crate::text::config::{ConfigText, SyntaxProblem};

/// The text of a file, else the problem of its encoding and the language that it seems to ask for.
pub(super) fn decoded(bytes: Vec<u8>) -> Result<String, (Option<Language>, ConfigText)> {
    let is_utf16 = bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        // Without a byte order mark: the first character of JSON is one of ASCII.
        || matches!(*bytes, [0, first, ..] | [first, 0, ..] if first != 0);
    if is_utf16 {
        let ascii: String = bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        return Err((language_of_broken(&ascii), ConfigText::Utf16));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        let language = language_of_broken(&String::from_utf8_lossy(error.as_bytes()));
        (language, ConfigText::NotUtf8(line))
    })
}

/// The language that a file of broken JSON seems to ask for.
pub(super) fn language_of_broken(text: &str) -> Option<Language> {
    let behind = text.split_once("\"language\"")?.1.trim_start();
    let value = behind.strip_prefix(':')?.trim_start();
    match value {
        _ if value.starts_with("\"en\"") => Some(Language::En),
        _ if value.starts_with("\"zh\"") => Some(Language::Zh),
        _ => None,
    }
}

/// Place and reason of a syntax error; serde_json's own sentence quotes no part of the file.
pub(super) fn problem(text: &str, error: &serde_json::Error) -> ConfigText {
    let start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    // serde_json counts bytes up to and with the one that it does not accept.
    let end = (start + error.column()).min(line_end);
    let (at, problem) = recognized(text, end.saturating_sub(1), error);
    let before = &text.as_bytes()[..at];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    ConfigText::Syntax { line, column, problem }
}

/// What the byte at `at` begins, and the place to name.
fn recognized(text: &str, at: usize, error: &serde_json::Error) -> (usize, SyntaxProblem) {
    let sentence = error.to_string();
    let reason = sentence.rsplit_once(" at line ").map_or(sentence.as_str(), |(reason, _)| reason);
    // In the middle of a string or a number the byte begins nothing.
    let begins = ["expected", "key must", "trailing"].iter().any(|start| reason.starts_with(start));
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let comma = text.get(..at).map(str::trim_end).filter(|before| before.ends_with(','));
    match (rest, comma) {
        _ if text.trim().is_empty() => (0, SyntaxProblem::Empty),
        ([b'#', ..] | [b'/', b'/' | b'*', ..], _) if begins => (at, SyntaxProblem::Comment),
        ([b'\'', ..], _) if begins => (at, SyntaxProblem::SingleQuotes),
        ([b'}' | b']', ..], Some(before)) if begins => (before.len() - 1, SyntaxProblem::TrailingComma),
        _ => (at, SyntaxProblem::Other(reason.to_owned())),
    }
}
