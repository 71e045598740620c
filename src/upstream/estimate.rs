//! Tokens that a provider does not report, estimated from the bytes of request and response: text at [`TEXT_BYTES`] a token, sound,
//! images and other files at [`FILE_BYTES`] a token, an image that is given by its address at [`IMAGE_TOKENS`].

use memchr::{memchr_iter, memrchr};

use crate::json::behind_string;

/// Bytes of text that count as a token.
const TEXT_BYTES: u64 = 4;
/// Bytes of a file, in base64 or not, that count as a token.
const FILE_BYTES: u64 = 1024;
/// Tokens of an image that a response gives by its address.
const IMAGE_TOKENS: u64 = 1000;
/// Shortest string that may be a file in base64, bytes.
const SHORTEST_FILE: usize = 4 * 1024;
/// Longest beginning of a `data:` URL, up to its base64, bytes.
const LONGEST_DATA_HEAD: usize = 128;

/// Bytes that are looked at together for a file.
const PIECE: usize = 1024;

/// What a response consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// Text; in a stream, each event holds the next piece of it.
    #[default]
    Text,
    /// The same; in a stream, further events repeat the text as a whole.
    TextWithRepeats,
    Images,
    Sound,
    /// Nothing that a model writes, a token each: vectors, ranks, flags.
    Figures,
}

impl Output {
    /// The output of this path (after a provider's base URL).
    pub fn of(path: &str) -> Self {
        const PATHS: &[(&str, Output)] = &[
            ("/audio/speech", Output::Sound),
            ("/audio/", Output::TextWithRepeats),
            ("/embeddings", Output::Figures),
            ("/images/", Output::Images),
            ("/moderations", Output::Figures),
            ("/rerank", Output::Figures),
            ("/responses", Output::TextWithRepeats),
        ];
        PATHS.iter().find(|(start, _)| path.starts_with(start)).map_or(Self::Text, |(_, output)| *output)
    }
}

/// Whether a model writes the strings of the members of that name.
fn is_written(key: &[u8]) -> bool {
    matches!(
        key,
        b"arguments"
            | b"content"
            | b"delta"
            | b"partial_json"
            | b"reasoning"
            | b"reasoning_content"
            | b"refusal"
            | b"text"
            | b"thinking"
            | b"transcript"
    )
}

/// Tokens of a prompt, by the body of the request.
pub fn prompt(body: &[u8], is_form: bool) -> u64 {
    let files = if is_form { body.len() } else { files_in(body) };
    text_tokens((body.len() - files) as u64) + file_tokens(files as u64)
}

/// Tokens of a response that was read whole.
pub fn completion(body: &[u8], output: Output) -> u64 {
    match output {
        Output::Figures => 0,
        Output::Sound => file_tokens(body.len() as u64),
        Output::Images => {
            let (mut addresses, mut files) = (0, 0);
            each_string(body, |key, value| match key {
                b"url" => addresses += 1,
                b"b64_json" => files += value.len() as u64,
                _ => {}
            });
            addresses * IMAGE_TOKENS + file_tokens(files)
        }
        Output::Text | Output::TextWithRepeats => {
            let is_json = body.trim_ascii_start().starts_with(b"{");
            text_tokens(if is_json { text_in(body) } else { body.len() as u64 })
        }
    }
}

/// Tokens of that many bytes of text.
pub fn text_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(TEXT_BYTES)
}

/// Tokens of that many bytes of a file.
pub fn file_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(FILE_BYTES)
}

/// Bytes of text that a model has written in a JSON document.
fn text_in(document: &[u8]) -> u64 {
    let mut bytes = 0;
    each_string(document, |key, value| {
        if is_written(key) {
            bytes += value.len() as u64;
        }
    });
    bytes
}

/// Bytes of text that a model has written in events of a stream.
pub fn text_in_events(events: &[u8], output: Output) -> u64 {
    match output {
        Output::Text => text_in(events),
        Output::TextWithRepeats => {
            let mut bytes = 0;
            each_string(events, |key, value| {
                if key == b"delta" {
                    bytes += value.len() as u64;
                }
            });
            bytes
        }
        Output::Images | Output::Sound | Output::Figures => 0,
    }
}

/// Calls `visit` with each member whose value is a string: its key and the value, as they are written.
fn each_string<'a>(document: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) {
    for colon in memchr_iter(b':', document) {
        let value = document[colon + 1..].trim_ascii_start().strip_prefix(b"\"");
        let Some((value, key)) = value.zip(key_at_end(&document[..colon])) else { continue };
        let end = value.len() - behind_string(value).len();
        visit(key, &value[..end.saturating_sub(1)]);
    }
}

/// The key that these bytes end with.
fn key_at_end(before: &[u8]) -> Option<&[u8]> {
    // Inside a string, a backslash precedes each quote.
    let key = before.trim_ascii_end().strip_suffix(b"\"").filter(|key| !key.ends_with(b"\\"))?;
    let (outside, key) = key.split_at(memrchr(b'"', key)? + 1);
    (!outside.ends_with(b"\\\"")).then_some(key)
}

/// Bytes of the files in a JSON document, in base64, of a `data:` URL or alone. Of text, only the beginning of each piece is looked at.
fn files_in(document: &[u8]) -> usize {
    let (mut files, mut at) = (0, 0);
    while let Some(piece) = document.get(at..at + PIECE) {
        at += PIECE;
        if !piece.iter().all(is_base64) {
            continue;
        }
        let (before, rest) = document.split_at(at - PIECE);
        let start = before.len() - before.iter().rev().take_while(|byte| is_base64(byte)).count();
        at = before.len() + rest.iter().take_while(|byte| is_base64(byte)).count();
        let head = string_start(&document[..start], LONGEST_DATA_HEAD);
        let is_file = head.is_some_and(|head| head.is_empty() || head.ends_with(b";base64,"));
        let length = at - start + head.map_or(0, <[u8]>::len);
        if is_file
            && length >= SHORTEST_FILE
            && document[at..].starts_with(b"\"")
            && document[at - 1] != b'\\'
        {
            files += length;
        }
    }
    files
}

/// The last bytes of `before`, if at most `most` of them begin a string.
fn string_start(before: &[u8], most: usize) -> Option<&[u8]> {
    let at = memrchr(b'"', &before[before.len().saturating_sub(most + 1)..])?;
    let quote = before.len().saturating_sub(most + 1) + at;
    (!before[..quote].ends_with(b"\\")).then(|| &before[quote + 1..])
}

fn is_base64(byte: &u8) -> bool {
    // A slash may be escaped.
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'\\')
}

const _: () = assert!(SHORTEST_FILE - LONGEST_DATA_HEAD >= 2 * PIECE, "each file has a piece of its own");

#[cfg(test)]
mod tests {
    use super::{Output, SHORTEST_FILE, completion, prompt, text_in_events};

    #[test]
    fn prompt_counts_text_by_four_and_files_by_the_kibibyte() {
        assert_eq!(prompt(br#"{"model":"m"}"#, false), 4);
        let text = format!(r#"{{"model":"m","x":"{}"}}"#, "words and ".repeat(8000));
        assert_eq!(prompt(text.as_bytes(), false), text.len().div_ceil(4) as u64);
        let file = "QUJD".repeat(256 * 40);
        for file in [file.clone(), format!("data:image/png;base64,{file}"), file.replace("AB", "AB\\/+")] {
            let body = format!(r#"{{"model":"m","image_url":{{"url":"{file}"}},"text":"hi"}}"#);
            let others = body.len() - file.len();
            let expected = others.div_ceil(4) + file.len().div_ceil(1024);
            assert_eq!(prompt(body.as_bytes(), false), expected as u64, "{}", &body[..60]);
        }
        let short = format!(r#"{{"x":"{}"}}"#, "A".repeat(SHORTEST_FILE - 1));
        assert_eq!(prompt(short.as_bytes(), false), short.len().div_ceil(4) as u64);
        assert_eq!(prompt(&[0; 10 * 1024], true), 10);
    }

    #[test]
    fn file_is_one_wherever_its_string_stands_and_text_of_its_letters_is_none() {
        let file = "QUJD".repeat(1024);
        for ahead in (0..2100).step_by(7) {
            let text = "a b".repeat(ahead);
            let body = |value: &str| format!(r#"{{"text":"{text}","x":"{value}","y":["{value}"]}}"#);
            let files = |value: &str| super::files_in(body(value).as_bytes());
            assert_eq!(files(&file), 2 * SHORTEST_FILE, "{ahead}");
            if ahead % 100 == 0 {
                assert_eq!(files(&format!("data:a/b;base64,{file}")), 2 * (SHORTEST_FILE + 16), "{ahead}");
                let others = ["a \\\"{}", "{}\\\" a", "a {}", "{} a", "{},", "a;base32,{}"];
                for other in others.map(|other| other.replace("{}", &file)) {
                    assert_eq!(files(&other), 0, "{ahead} {}", &other[..9]);
                }
                assert_eq!(files(&file[1..]), 0, "{ahead}");
            }
        }
    }

    #[test]
    fn completion_counts_what_a_model_writes() {
        for (output, body, tokens) in [
            (
                Output::Text,
                r#"{"id":"a long id","choices":[{"message":{"role":"assistant","content":"12345678"}}]}"#,
                2,
            ),
            (Output::Text, r#"{"choices":[{"text" : "1234\"678","content":null}]}"#, 3),
            (Output::Text, r#"{"choices":[{"a\"text":"12345678","text":"1234"}]}"#, 1),
            (
                Output::Text,
                r#"{"content":[{"type":"thinking","thinking":"1234"},{"type":"text","text":"5678"}]}"#,
                2,
            ),
            (Output::Text, r#"{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}"#, 3),
            (
                Output::TextWithRepeats,
                r#"{"output":[{"content":[{"type":"output_text","text":"12345678"}]}]}"#,
                2,
            ),
            (Output::TextWithRepeats, "plain words ", 3),
            (
                Output::Images,
                r#"{"data":[{"url":"https://a.example/1"},{"url":"https://a.example/2"}]}"#,
                2000,
            ),
            (Output::Images, r#"{"data":[{"b64_json":"QUJD"}]}"#, 1),
            (Output::Figures, r#"{"data":[{"embedding":[0.1,0.2]}],"text":"12345678"}"#, 0),
        ] {
            assert_eq!(completion(body.as_bytes(), output), tokens, "{body}");
        }
        assert_eq!(completion(&[0; 2048], Output::Sound), 2);
    }

    #[test]
    fn events_count_each_piece_of_text_once() {
        let chat = b"data: {\"choices\":[{\"delta\":{\"content\":\"1234\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"reasoning_content\":\"567\"}}]}\n\ndata: [DONE]\n\n";
        assert_eq!(text_in_events(chat, Output::Text), 7);
        let response = b"event: response.output_text.delta\ndata: {\"delta\":\"1234\"}\n\ndata: {\"type\":\"response.output_text.done\",\"text\":\"1234\"}\n\n";
        assert_eq!(text_in_events(response, Output::TextWithRepeats), 4);
    }

    #[test]
    fn output_of_a_path_is_known() {
        for (path, output) in [
            ("/chat/completions", Output::Text),
            ("/completions?x=/images/", Output::Text),
            ("/messages", Output::Text),
            ("/responses", Output::TextWithRepeats),
            ("/responses/resp_1?stream=true", Output::TextWithRepeats),
            ("/embeddings", Output::Figures),
            ("/rerank", Output::Figures),
            ("/audio/speech", Output::Sound),
            ("/audio/transcriptions", Output::TextWithRepeats),
            ("/images/edits", Output::Images),
        ] {
            assert_eq!(Output::of(path), output, "{path}");
        }
    }
}
