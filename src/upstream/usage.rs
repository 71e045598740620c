//! Tokens used, as the provider reports them in a whole answer or in the events of a stream.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use serde::Deserialize;

use super::json::behind_string;
use crate::limits::{MAX_TOKENS_TOLD, MAX_USAGE_CANDIDATES, MAX_USAGE_SCAN};

const KEY: &[u8] = b"\"usage\"";

/// Made once: making one costs as much as searching a small answer.
static FORWARD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));
static BACKWARD: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(KEY));

/// Tokens of one call, as far as they were reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, read from a cache or not.
    pub prompt: u64,
    /// Tokens of the completion.
    pub completion: u64,
}

impl Usage {
    /// What a provider tells, as far as it can be believed.
    pub fn told(prompt: u64, completion: u64) -> Self {
        Self { prompt: prompt.min(MAX_TOKENS_TOLD), completion: completion.min(MAX_TOKENS_TOLD) }
    }

    /// What is known after a further report of the same call: counts only grow, and a stream of Anthropic's tells the
    /// prompt's in its first event, the completion's in its last.
    pub fn and(self, other: Self) -> Self {
        Self { prompt: self.prompt.max(other.prompt), completion: self.completion.max(other.completion) }
    }
}

/// `usage` under all its names: OpenAI's chat API, its responses API, Anthropic's messages API.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    /// Anthropic counts these beside `input_tokens`; OpenAI counts cached tokens in it.
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    /// All that some embedding and rerank APIs tell.
    total_tokens: Option<u64>,
}

impl Counts {
    fn usage(&self) -> Option<Usage> {
        let read = [self.input_tokens, self.cache_creation_input_tokens, self.cache_read_input_tokens];
        let input = read.into_iter().flatten().reduce(u64::saturating_add);
        let prompt = self.prompt_tokens.or(input);
        let completion = self.completion_tokens.or(self.output_tokens);
        let prompt = prompt.or(self.total_tokens.filter(|_| completion.is_none()));
        (prompt.is_some() || completion.is_some())
            .then(|| Usage::told(prompt.unwrap_or(0), completion.unwrap_or(0)))
    }
}

/// The usage that a whole answer reports at its top level. Only its end and its beginning are looked at: answers are large
/// and usage stands behind or before what is large in them.
pub fn in_answer(document: &[u8]) -> Option<Usage> {
    let end = &document[document.len().saturating_sub(MAX_USAGE_SCAN)..];
    let beginning = &document[..document.len().min(MAX_USAGE_SCAN)];
    in_end(end, 1).or_else(|| in_beginning(beginning))
}

/// The usage that complete events of a stream report.
pub fn in_events(events: &[u8]) -> Option<Usage> {
    if !mentions(events) {
        return None;
    }
    let lines = events.split(|&byte| matches!(byte, b'\n' | b'\r'));
    lines.filter_map(|line| in_event(line.strip_prefix(b"data:")?.trim_ascii())).reduce(Usage::and)
}

/// The usage at the end of an event that is too large to be held: at its top level, or in the response it holds.
pub fn in_end_of_event(end: &[u8]) -> Option<Usage> {
    in_end(end, 1).or_else(|| in_end(end, 2))
}

fn in_event(document: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Plain {
        usage: Option<Counts>,
    }
    /// The last event of the responses API and the first of Anthropic's hold the answer as an object of their own.
    #[derive(Deserialize)]
    struct Nested {
        #[serde(alias = "message")]
        response: Plain,
    }
    /// Moonshot's last event has it in its only choice.
    #[derive(Deserialize)]
    struct InChoices {
        choices: Vec<Plain>,
    }
    if !mentions(document) {
        return None;
    }
    let plain = serde_json::from_slice::<Plain>(document).ok()?.usage;
    let nested = || serde_json::from_slice::<Nested>(document).ok()?.response.usage;
    let in_choices = || {
        let event = serde_json::from_slice::<InChoices>(document).ok()?;
        event.choices.into_iter().find_map(|choice| choice.usage)
    };
    plain.or_else(nested).or_else(in_choices)?.usage()
}

/// Whether a `usage` that is an object is at hand; many streams say `"usage":null` in each event.
fn mentions(bytes: &[u8]) -> bool {
    FORWARD.find_iter(bytes).any(|at| object_behind(&bytes[at + KEY.len()..]).is_some())
}

/// The object that a key has for its value; what precedes it is the key's end.
fn object_behind(bytes: &[u8]) -> Option<&[u8]> {
    let value = bytes.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    value.starts_with(b"{").then_some(value)
}

/// The last usage that stands `depth` levels deep in the document whose end this is.
fn in_end(end: &[u8], depth: i64) -> Option<Usage> {
    BACKWARD.rfind_iter(end).take(MAX_USAGE_CANDIDATES).find_map(|at| {
        let (counts, rest) = counts_behind(&end[at + KEY.len()..])?;
        counts.usage().filter(|_| -levels(rest) == depth)
    })
}

/// The first usage at the top level of the document whose beginning this is.
fn in_beginning(beginning: &[u8]) -> Option<Usage> {
    FORWARD.find_iter(beginning).take(MAX_USAGE_CANDIDATES).find_map(|at| {
        let (counts, _) = counts_behind(&beginning[at + KEY.len()..])?;
        counts.usage().filter(|_| levels(&beginning[..at]) == 1)
    })
}

fn counts_behind(bytes: &[u8]) -> Option<(Counts, &[u8])> {
    let value = object_behind(bytes)?;
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Counts>();
    let counts = values.next()?.ok()?;
    Some((counts, &value[values.byte_offset()..]))
}

/// Levels of nesting that a piece of JSON opens, less those it closes; it begins outside any string.
fn levels(mut bytes: &[u8]) -> i64 {
    let mut levels = 0;
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            b'{' | b'[' => levels += 1,
            b'}' | b']' => levels -= 1,
            b'"' => bytes = behind_string(bytes),
            _ => {}
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::{Usage, in_answer, in_end_of_event, in_events};
    use crate::limits::{MAX_TOKENS_TOLD, MAX_USAGE_SCAN};

    fn usage(prompt: u64, completion: u64) -> Option<Usage> {
        Some(Usage { prompt, completion })
    }

    #[test]
    fn every_api_s_names_of_the_counts_are_read() {
        for (answer, expected) in [
            (r#"{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#, usage(3, 4)),
            (
                r#"{"usage" : {"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}}"#,
                usage(1, 2),
            ),
            (
                r#"{"usage":{"input_tokens":1,"cache_read_input_tokens":20,"cache_creation_input_tokens":300,"output_tokens":2}}"#,
                usage(321, 2),
            ),
            (r#"{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}"#, usage(5, 0)),
            (r#"{"results":[],"usage":{"total_tokens":9}}"#, usage(9, 0)),
            (
                r#"{"usage":{"prompt_tokens":1,"input_tokens":1,"completion_tokens":2,"output_tokens":2}}"#,
                usage(1, 2),
            ),
            (r#"{"usage":{"prompt_tokens":1,"completion_tokens":null}}"#, usage(1, 0)),
            (r#"{"usage":{"type":"duration","seconds":3}}"#, None),
            (r#"{"usage":null}"#, None),
            (r#"{"usage":{}}"#, None),
            (r#"{"usage":{"prompt_tokens":-1}}"#, None),
            (r#""usage""#, None),
            ("", None),
        ] {
            assert_eq!(in_answer(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn a_count_beyond_belief_is_cut() {
        let answer = format!(r#"{{"usage":{{"input_tokens":{0},"cache_read_input_tokens":{0}}}}}"#, u64::MAX);
        assert_eq!(in_answer(answer.as_bytes()), usage(MAX_TOKENS_TOLD, 0));
    }

    #[test]
    fn only_the_top_level_of_an_answer_counts_wherever_it_stands() {
        for decoy in [
            r#""choices":[{"text":"\"usage\":{\"prompt_tokens\":9}"}]"#,
            r#""tools":[{"properties":{"usage":{"prompt_tokens":9}}}]"#,
            r#""metadata":{"a\\":"}]","usage":{"prompt_tokens":9},"b":"\"{"}"#,
        ] {
            let real = r#""usage":{"prompt_tokens":3,"completion_tokens":4}"#;
            for answer in [
                format!("{{{decoy},{real}}}\n"),
                format!("{{{real},{decoy}}}"),
                format!("{{{real}, {decoy} , {decoy}}}"),
            ] {
                assert_eq!(in_answer(answer.as_bytes()), usage(3, 4), "{answer}");
            }
            assert_eq!(in_answer(format!("{{{decoy}}}").as_bytes()), None, "{decoy}");
        }
    }

    #[test]
    fn usage_is_found_behind_and_before_what_is_large() {
        let large = format!(r#""data":[{}0]"#, "0.25,".repeat(MAX_USAGE_SCAN));
        let real = r#""usage":{"prompt_tokens":3,"total_tokens":3}"#;
        assert_eq!(in_answer(format!("{{{large},{real}}}").as_bytes()), usage(3, 0));
        assert_eq!(in_answer(format!("{{{real},{large}}}").as_bytes()), usage(3, 0));
        assert_eq!(in_answer(format!("{{{large}}}").as_bytes()), None);
    }

    #[test]
    fn no_cut_of_an_answer_upsets_the_search() {
        let answer =
            br#"{"a":"\\\"","usage":{"prompt_tokens":3,"x":{"usage":{"prompt_tokens":1}}},"b":[{"c":"\""}]}"#;
        assert_eq!(in_answer(answer), usage(3, 0));
        for end in 0..answer.len() {
            for begin in 0..=end {
                in_answer(&answer[begin..end]);
                in_end_of_event(&answer[begin..end]);
            }
        }
    }

    #[test]
    fn events_are_put_together_whatever_their_line_ends() {
        let chat = "data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\r\n\r\ndata: [DONE]\n\n";
        assert_eq!(in_events(chat.as_bytes()), usage(5, 2));
        let response = "data:{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\r\r";
        assert_eq!(in_events(response.as_bytes()), usage(1, 2));
        let message = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\
                       \"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":30}}\n\n";
        assert_eq!(in_events(message.as_bytes()), usage(7, 30));
        assert_eq!(in_events(b"data: {\"usage\":{\"prompt_to"), None);
        assert_eq!(in_events(b"data: {\"delta\":\"\\\"usage\\\":{\"}\n\n"), None);
    }

    #[test]
    fn the_end_of_an_event_that_was_not_held_is_enough() {
        let end =
            br#"xt":"..."}],"usage":{"input_tokens":8,"output_tokens":9},"user":null,"metadata":{"k":"}"}}}"#;
        assert_eq!(in_end_of_event(end), usage(8, 9));
    }
}
