//! Tokens used, as the provider reports them in a whole answer or in an event of a stream.

use serde::Deserialize;

use crate::limits::MAX_USAGE_SCAN;

/// Tokens of one call, as far as they were reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the completion.
    pub completion: u64,
}

#[derive(Deserialize)]
struct Reported {
    usage: Option<Counts>,
    /// `/v1/responses` puts the whole response into its last event.
    response: Option<Nested>,
}

#[derive(Deserialize)]
struct Nested {
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default, alias = "input_tokens")]
    prompt_tokens: u64,
    #[serde(default, alias = "output_tokens")]
    completion_tokens: u64,
}

/// The usage a JSON document reports; `None` where it reports none.
pub fn in_json(document: &[u8]) -> Option<Usage> {
    if !mentions(document) {
        return None;
    }
    let reported: Reported = serde_json::from_slice(document).ok()?;
    let counts = reported.usage.or(reported.response.and_then(|response| response.usage))?;
    Some(Usage { prompt: counts.prompt_tokens, completion: counts.completion_tokens })
}

/// The last usage that complete events of a stream report.
pub fn in_events(events: &[u8]) -> Option<Usage> {
    if events.len() > MAX_USAGE_SCAN || !mentions(events) {
        return None;
    }
    let lines = events.split(|&byte| byte == b'\n').rev();
    lines.filter_map(|line| line.strip_prefix(b"data:")).find_map(|data| in_json(data.trim_ascii()))
}

fn mentions(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\"usage\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::{Usage, in_events, in_json};

    #[test]
    fn both_names_of_the_counts_and_the_nested_place_are_read() {
        let chat = br#"{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
        assert_eq!(in_json(chat), Some(Usage { prompt: 3, completion: 4 }));
        let response =
            br#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#;
        assert_eq!(in_json(response), Some(Usage { prompt: 1, completion: 2 }));
        assert_eq!(in_json(br#"{"usage":null}"#), None);
        assert_eq!(in_json(br#"{"choices":[{"text":"\"usage\""}]}"#), None);
        assert_eq!(in_json(b"\"usage\""), None);
    }

    #[test]
    fn the_last_event_that_reports_usage_counts() {
        let events =
            b"data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":5}}\r\n\r\ndata: [DONE]\n\n";
        assert_eq!(in_events(events), Some(Usage { prompt: 5, completion: 0 }));
        assert_eq!(in_events(b"data: {\"usa"), None);
    }
}
