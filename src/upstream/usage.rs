//! Tokens that a provider reports: `usage`, found by its place in a JSON document, and read under all its names.

mod scanner;

use std::sync::LazyLock;

use memchr::memmem::{Finder, rfind};

use crate::core::sse;
use crate::json::{Members, behind_string};
use crate::limits::MAX_TOKENS_REPORTED;
pub use scanner::Scanner;

const KEY: &[u8] = b"\"usage\"";
/// The member with the counts of Cohere's rerank API.
const BILLED: &[u8] = b"\"billed_units\"";

/// Made once, because that costs as much as searching a small document.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

/// Tokens of one call, as far as its provider reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reported {
    /// Tokens of the prompt, read from a cache or not.
    pub prompt: Option<u64>,
    /// Tokens of the completion, reasoning included.
    pub completion: Option<u64>,
}

impl Reported {
    /// Merges a further report of the same call: counts only grow, and Anthropic reports the prompt in a stream's first
    /// event, the completion in its last.
    pub fn and(self, other: Self) -> Self {
        Self { prompt: self.prompt.max(other.prompt), completion: self.completion.max(other.completion) }
    }
}

/// The place of a count among [`Counts`], by its name in `usage`: of OpenAI's chat API, its responses API, Anthropic's messages API.
fn place(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"prompt_tokens" => 0,
        b"completion_tokens" => 1,
        b"input_tokens" => 2,
        b"output_tokens" => 3,
        // Anthropic counts these beside `input_tokens`; OpenAI counts cached tokens in it.
        b"cache_creation_input_tokens" => 4,
        b"cache_read_input_tokens" => 5,
        // The only count of some embedding and rerank APIs. Where reasoning or sound stands beside the completion (xAI, Gemini), it
        // is more than the sum of the two.
        b"total_tokens" => 6,
        _ => return None,
    })
}

/// The counts of a report, each at its [`place`].
type Counts = [Option<u64>; COUNTS];
const COUNTS: usize = 7;

/// The counts in a JSON object, and the bytes after it. `None`: one is repeated, so that none can be trusted.
fn counts_in(object: &[u8]) -> Option<(Counts, &[u8])> {
    let (mut counts, mut seen) = (Counts::default(), [false; COUNTS]);
    let mut members = Members::of(object)?;
    for (name, value) in members.by_ref() {
        let Some(place) = place(&name) else { continue };
        if std::mem::replace(&mut seen[place], true) {
            return None;
        }
        counts[place] = count(value);
    }
    Some((counts, members.behind()?))
}

/// A count. Some providers write one with a fraction or as a string. `None`: it is negative, no number, or over
/// [`MAX_TOKENS_REPORTED`].
fn count(value: &[u8]) -> Option<u64> {
    if value.len() <= MAX_DIGITS && value.iter().all(u8::is_ascii_digit) {
        let number = value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        return (number <= MAX_TOKENS_REPORTED).then_some(number);
    }
    let number: f64 = match value {
        [b'"', ..] => serde_json::from_slice::<String>(value).ok()?.trim().parse().ok()?,
        [b'-' | b'0'..=b'9', ..] => std::str::from_utf8(value).ok()?.parse().ok()?,
        _ => return None,
    };
    let is_count = (0.0..=MAX_TOKENS_REPORTED as f64).contains(&number);
    // Within that range nothing is lost.
    is_count.then(|| number.ceil() as u64)
}

/// Digits of a number that always fits.
const MAX_DIGITS: usize = 19;

fn reported(counts: &Counts) -> Reported {
    let [prompt, completion, input, output, written, read, total] = *counts;
    let cached: u64 = [written, read].into_iter().flatten().sum();
    let prompt = prompt.or(input.map(|input| input + cached));
    let completion = completion.or(output);
    let Some(total) = total else { return Reported { prompt, completion } };
    let prompt = prompt.unwrap_or(total.saturating_sub(completion.unwrap_or(0)));
    let rest = total.saturating_sub(prompt);
    Reported { prompt: Some(prompt), completion: Some(completion.unwrap_or(0).max(rest)) }
}

/// The usage that a complete JSON document reports.
pub fn in_document(document: &[u8]) -> Reported {
    if let Some(counts) = last_at_top(document) {
        return reported(&counts);
    }
    if !mentions(document) && rfind(document, BILLED).is_none() {
        return Reported::default();
    }
    scan(document)
}

/// The usage that complete events of a stream report.
pub fn in_events(events: &[u8]) -> Reported {
    if !mentions(events) {
        return Reported::default();
    }
    sse::data(events).filter(|data| mentions(data)).map(scan).fold(Reported::default(), Reported::and)
}

fn scan(document: &[u8]) -> Reported {
    let mut scanner = Scanner::default();
    scanner.feed(document);
    scanner.reported()
}

/// Whether the bytes contain a `usage` that is an object; many streams have `"usage":null` in each event.
pub fn mentions(bytes: &[u8]) -> bool {
    USAGE.find_iter(bytes).any(|at| object_behind(&bytes[at + KEY.len()..]).is_some())
}

/// The object that is the value of a key; `bytes` begin at the key's end.
fn object_behind(bytes: &[u8]) -> Option<&[u8]> {
    let value = bytes.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    value.starts_with(b"{").then_some(value)
}

/// The last `usage`, where it stands at the top level of the document: in most documents it does, near the end. In a JSON document
/// these bytes are a key or a string unless a backslash precedes them.
fn last_at_top(document: &[u8]) -> Option<Counts> {
    let at = USAGE.find_iter(document).last().filter(|at| *at > 0 && document[at - 1] != b'\\')?;
    let value = object_behind(&document[at + KEY.len()..])?;
    let (counts, behind) = counts_in(value)?;
    (levels(behind) == -1).then_some(counts)
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
    use super::{Reported, Scanner, in_document, in_events};
    use crate::limits::{MAX_TOKENS_REPORTED, MAX_USAGE};

    const NOTHING: Reported = Reported { prompt: None, completion: None };

    fn reported(prompt: u64, completion: u64) -> Reported {
        Reported { prompt: Some(prompt), completion: Some(completion) }
    }

    fn prompt(prompt: u64) -> Reported {
        Reported { prompt: Some(prompt), completion: None }
    }

    fn completion(completion: u64) -> Reported {
        Reported { prompt: None, completion: Some(completion) }
    }

    #[test]
    fn in_document_reads_every_apis_names_of_the_counts() {
        for (usage, expected) in [
            (r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#, reported(3, 4)),
            (
                r#"{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}"#,
                reported(1, 2),
            ),
            (
                r#"{"input_tokens":1,"cache_read_input_tokens":20,"cache_creation_input_tokens":300,"output_tokens":2}"#,
                reported(321, 2),
            ),
            (r#"{"prompt_tokens":5,"total_tokens":5}"#, reported(5, 0)),
            (r#"{"total_tokens":9}"#, reported(9, 0)),
            (
                r#"{"prompt_tokens":1,"input_tokens":1,"completion_tokens":2,"output_tokens":2}"#,
                reported(1, 2),
            ),
            (r#"{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}"#, reported(14, 45)),
            // xAI and Gemini: reasoning stands beside the completion.
            (r#"{"prompt_tokens":12,"completion_tokens":2,"total_tokens":354}"#, reported(12, 342)),
            (r#"{"prompt_tokens":12,"total_tokens":354}"#, reported(12, 342)),
            (r#"{"completion_tokens":2,"total_tokens":14}"#, reported(12, 2)),
            (r#"{"prompt_tokens":12,"completion_tokens":20,"total_tokens":14}"#, reported(12, 20)),
            (r#"{"prompt_tokens":1,"completion_tokens":null}"#, prompt(1)),
            (r#"{"type":"duration","seconds":3}"#, NOTHING),
            ("null", NOTHING),
            ("{}", NOTHING),
        ] {
            for document in [format!(r#"{{"id":"x","usage":{usage}}}"#), format!("{{ \"usage\" : {usage} }}")]
            {
                assert_eq!(in_document(document.as_bytes()), expected, "{document}");
            }
        }
        for none in [r#""usage""#, "", "{", "[]"] {
            assert_eq!(in_document(none.as_bytes()), NOTHING, "{none}");
        }
    }

    #[test]
    fn in_document_takes_an_odd_count_for_none_and_keeps_the_good_one() {
        for (odd, expected) in [
            ("1000000.0", Some(1_000_000)),
            ("14417.92", Some(14_418)),
            ("1e3", Some(1_000)),
            ("\"1000000\"", Some(1_000_000)),
            ("\" 7.5 \"", Some(8)),
            ("-5", None),
            ("-0.5", None),
            ("\"-5\"", None),
            ("\"many\"", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
            ("null", None),
            ("true", None),
            ("[1,[2]]", None),
            ("{\"a\":{\"b\":1}}", None),
            ("18446744073709551615", None),
            ("99999999999999999999999", None),
            ("1e300", None),
            ("1073741824", Some(MAX_TOKENS_REPORTED)),
            ("1073741825", None),
        ] {
            for (good, names) in [
                (false, ["prompt_tokens", "completion_tokens"]),
                (true, ["completion_tokens", "prompt_tokens"]),
                (false, ["input_tokens", "output_tokens"]),
                (true, ["output_tokens", "input_tokens"]),
            ] {
                let document = format!(r#"{{"usage":{{"{}":{odd},"{}":9}}}}"#, names[0], names[1]);
                let (prompt, completion) = if good { (Some(9), expected) } else { (expected, Some(9)) };
                assert_eq!(in_document(document.as_bytes()), Reported { prompt, completion }, "{document}");
            }
        }
    }

    /// Objects called `usage` that are not the response's.
    const DECOYS: [&str; 6] = [
        r#""choices":[{"text":"\"usage\":{\"prompt_tokens\":9}"}]"#,
        r#""tools":[{"properties":{"usage":{"prompt_tokens":9}}}]"#,
        r#""metadata":{"a\\":"}]","usage":{"prompt_tokens":9},"b":"\"{"}"#,
        r#""metadata":{"x\"usage":{"prompt_tokens":9}},"y\"usage":{"prompt_tokens":9},"usages":{"prompt_tokens":9}"#,
        r#""response":[{"usage":{"prompt_tokens":9}}],"message":{"x":{"usage":{"prompt_tokens":9}}}"#,
        r#""data":[["usage",{"prompt_tokens":9}]],"a":"usage","input_usage":{"prompt_tokens":9}"#,
    ];

    #[test]
    fn in_document_counts_only_what_stands_in_its_place() {
        let real = r#""usage":{"prompt_tokens":3,"completion_tokens":4}"#;
        for decoy in DECOYS {
            let many = vec![decoy; 20].join(",");
            for document in [
                format!("{{{decoy},{real}}}\n"),
                format!("{{{real},{decoy}}}"),
                format!("{{{real}, {decoy} , {decoy}}}"),
                format!("{{{many},{real},{many}}}"),
            ] {
                assert_eq!(in_document(document.as_bytes()), reported(3, 4), "{document}");
            }
            assert_eq!(in_document(format!("{{{decoy}}}").as_bytes()), NOTHING, "{decoy}");
        }
    }

    #[test]
    fn in_document_knows_every_place_of_usage() {
        let counts = r#"{"prompt_tokens":3,"completion_tokens":4}"#;
        for place in [
            r#""usage":COUNTS"#,
            r#""x_groq":{"id":"req","usage":COUNTS}"#,
            r#""response":{"id":"x","usage":COUNTS,"user":null}"#,
            r#""message":{"usage":COUNTS}"#,
            r#""choices":[{"delta":{}},{"index":0,"usage":COUNTS}]"#,
            r#""meta":{"api_version":{"version":"1"},"billed_units":COUNTS}"#,
            r#""meta":{"billed_units":{"search_units":1},"tokens":COUNTS}"#,
        ] {
            let place = place.replace("COUNTS", counts);
            for document in [format!("{{{place}}}"), format!(r#"{{"a":[1,{{}}],{place},"b":{{"c":"d"}}}}"#)] {
                assert_eq!(in_document(document.as_bytes()), reported(3, 4), "{document}");
            }
        }
    }

    #[test]
    fn in_document_finds_usage_behind_and_before_what_is_large() {
        let large =
            format!(r#""data":[{}0],"text":"{}""#, "0.25,".repeat(50_000), "\\\"usage".repeat(50_000));
        let real = r#""usage":{"prompt_tokens":3,"total_tokens":3}"#;
        assert_eq!(in_document(format!("{{{large},{real}}}").as_bytes()), reported(3, 0));
        assert_eq!(in_document(format!("{{{real},{large}}}").as_bytes()), reported(3, 0));
        assert_eq!(in_document(format!("{{{large}}}").as_bytes()), NOTHING);
        let long =
            format!(r#"{{"usage":{{"x":"{}","prompt_tokens":3}},"a":1,"usage":0}}"#, "x".repeat(MAX_USAGE));
        assert_eq!(in_document(long.as_bytes()), NOTHING);
    }

    #[test]
    fn scanner_does_not_depend_on_the_cut() {
        let real = r#""usage":{"prompt_tokens":3,"x":{"usage":{"prompt_tokens":1}},"completion_tokens":4}"#;
        for decoy in DECOYS {
            let document =
                format!(r#"{{"a":"\\\"",{decoy},"response":{{{real}}},{decoy},"b":[{{"c":"\""}}]}}"#);
            for cut in 0..=document.len() {
                let mut scanner = Scanner::default();
                scanner.feed(&document.as_bytes()[..cut]);
                scanner.feed(&document.as_bytes()[cut..]);
                assert_eq!(scanner.reported(), reported(3, 4), "{document} cut at {cut}");
                // Truncation at either end does no harm.
                in_document(&document.as_bytes()[..cut]);
                in_document(&document.as_bytes()[cut..]);
            }
        }
    }

    #[test]
    fn in_events_puts_reports_together_whatever_their_line_ends() {
        let chat = "data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\r\n\r\ndata: [DONE]\n\n";
        assert_eq!(in_events(chat.as_bytes()), reported(5, 2));
        let response = "data:{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\r\r";
        assert_eq!(in_events(response.as_bytes()), reported(1, 2));
        let message = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\
                       \"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":30}}\n\n";
        assert_eq!(in_events(message.as_bytes()), reported(7, 30));
        let groq = "data: {\"choices\":[],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}}\n\n";
        assert_eq!(in_events(groq.as_bytes()), reported(5, 2));
        assert_eq!(in_events(b"data: {\"usage\":{\"output_tokens\":3}}\n\n"), completion(3));
        assert_eq!(in_events(b"data: {\"usage\":{\"prompt_to"), NOTHING);
        assert_eq!(in_events(b"data: {\"delta\":\"\\\"usage\\\":{\"}\n\n"), NOTHING);
    }
}
