//! Removes the event that only reports usage, for a client that did not ask for it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::usage;
use crate::core::sse;

/// Complete events without those that only report usage; `None`: there are none to remove.
pub fn without(events: &[u8]) -> Option<Vec<u8>> {
    if !usage::mentions(events) {
        return None;
    }
    let mut kept = Vec::with_capacity(events.len());
    let mut rest = events;
    while !rest.is_empty() {
        let (event, behind) = rest.split_at(end_of_event(rest));
        if !only_reports(event) {
            kept.extend_from_slice(event);
        }
        rest = behind;
    }
    (kept.len() < events.len()).then_some(kept)
}

/// Where the first event ends, after its blank line.
fn end_of_event(events: &[u8]) -> usize {
    let (mut at, mut line) = (0, 0);
    while at < events.len() {
        let is_end = matches!(events[at], b'\r' | b'\n');
        let is_blank = is_end && at == line;
        at += if events[at..].starts_with(b"\r\n") { 2 } else { 1 };
        if is_end {
            line = at;
        }
        if is_blank {
            return at;
        }
    }
    events.len()
}

/// Whether an event has no choices and an object for its usage.
fn only_reports(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        choices: &'a RawValue,
        #[serde(borrow)]
        usage: &'a RawValue,
    }
    let mut data = sse::data(event);
    let (Some(data), None) = (data.next(), data.next()) else { return false };
    serde_json::from_slice::<Data<'_>>(data).is_ok_and(|data| {
        let is_empty = data.choices.get().strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]");
        is_empty && data.usage.get().starts_with('{')
    })
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn only_the_event_that_reports_usage_alone_is_kept_back() {
        let added = r#"data: {"id":"x","choices":[ ],"usage":{"prompt_tokens":1}}"#;
        for blank in ["\n\n", "\r\n\r\n", "\r\r"] {
            let others = [
                ": comment",
                r#"data: {"choices":[{"delta":{"content":"a"}}],"usage":null}"#,
                r#"data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#,
                r#"data: {"choices":[],"usage":null,"prompt_filter_results":[{"usage":{}}]}"#,
                r#"data: {"usage":{"prompt_tokens":1}}"#,
                r#"data: {"choices":[],"usage":{"a":1},"usage":{}}"#,
                "data: {\"choices\":[],\ndata: \"usage\":{}}",
                "data: [DONE]",
            ];
            for at in 0..=others.len() {
                let mut events = others.to_vec();
                let kept: String = events.iter().map(|event| format!("{event}{blank}")).collect();
                assert_eq!(without(kept.as_bytes()), None);
                events.insert(at, added);
                let all: String = events.iter().map(|event| format!("{event}{blank}")).collect();
                assert_eq!(without(all.as_bytes()).map(String::from_utf8), Some(Ok(kept)), "{at} {blank:?}");
            }
        }
        assert_eq!(without(format!("{added}\n\n").as_bytes()), Some(Vec::new()));
        assert_eq!(without(added.as_bytes()), Some(Vec::new()), "an end without a blank line");
        assert_eq!(without(b"data: {\"choices\":[],\"usage\":{"), None);
    }
}
