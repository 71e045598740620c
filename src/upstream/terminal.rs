//! Where a stream is over: the terminal event of each API, known by its name and by the `type` in its data, and the
//! `finish_reason` of a chat.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use memchr::{memchr2, memrchr2};

use super::refusal::Facts;
use crate::core::sse::Lines;
use crate::json::{Elements, Members, string_at};

/// Words that events are searched for; made once, for making one costs as much as searching an event.
static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("[DONE]"));
static EVENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("event"));
static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"type\""));
static UNFINISHED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\":null"));
static CHOICES: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new("\"choices\""));
static SEQUENCE: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new("\"sequence_number\":"));
static LAST_TYPE: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new("\"type\""));

/// What stands in the data of a chat's last event.
const LAST_DATA: &[u8] = b"[DONE]";

/// Whether a provider sends nothing more after an event of that name.
fn is_terminal(name: &[u8]) -> bool {
    matches!(
        name,
        b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"message_stop"
            | b"image_generation.completed"
            | b"image_edit.completed"
            | b"transcript.text.done"
            | b"speech.audio.done"
    )
}

/// What the events of a stream say of its end.
#[derive(Debug, Default)]
pub struct Terminal {
    /// A terminal event has passed.
    is_over: bool,
    /// The last event with `choices` says why each of them ended.
    has_finished: bool,
    /// The beginning of the event that is passed on in pieces says that it is terminal.
    large_is_terminal: bool,
    next_sequence: u64,
}

impl Terminal {
    /// Complete events have passed.
    pub fn read(&mut self, events: &[u8]) {
        let is_typed = EVENT.find(events).is_some() || TYPE.find(events).is_some();
        if is_typed || DONE.find(events).is_some() {
            self.is_over |= names_terminal(events);
        }
        if let Some(number) = is_typed.then(|| last_sequence(events)).flatten() {
            self.next_sequence = number.saturating_add(1);
        }
        if let Some(finished) = has_finished(events) {
            self.has_finished = finished;
        }
    }

    /// The beginning of an event has passed that is too large to be held.
    pub fn note_beginning(&mut self, beginning: &[u8]) {
        self.large_is_terminal = names_terminal(beginning);
    }

    /// Such an event has ended; `end` is as much of its end as is kept.
    pub fn note_end(&mut self, end: &[u8]) {
        self.is_over |= std::mem::take(&mut self.large_is_terminal) || ends_as_terminal(end);
        self.has_finished = FINISH_REASON.rfind(end).is_some_and(|at| is_text(&end[at + FINISH_KEY.len()..]));
    }

    /// The stream has ended within an event.
    pub fn note_truncated(&mut self) {
        self.has_finished = false;
    }

    /// Whether the provider has said its last.
    pub fn is_over(&self) -> bool {
        self.is_over || self.has_finished
    }

    /// The `sequence_number` that a further event of the Responses API would have.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}

const FINISH_KEY: &str = "\"finish_reason\"";
static FINISH_REASON: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(FINISH_KEY));

/// Whether the value after a key is a string that says something.
fn is_text(behind_key: &[u8]) -> bool {
    let value = behind_key.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
    value.is_some_and(|value| value.starts_with(b"\"") && !value.starts_with(b"\"\""))
}

/// Whether an event among these is terminal. The last may be cut.
fn names_terminal(events: &[u8]) -> bool {
    Lines(events).any(|line| match line.split_at_checked(5) {
        Some((b"data:", data)) => {
            let data = data.trim_ascii();
            data == LAST_DATA || type_of(data).is_some_and(|kind| is_terminal(kind.as_bytes()))
        }
        Some((b"event", name)) => name.strip_prefix(b":").is_some_and(|name| is_terminal(name.trim_ascii())),
        _ => false,
    })
}

/// The `type` at the top level of a document, which may be cut after it.
pub fn type_of(document: &[u8]) -> Option<Cow<'_, str>> {
    // How most are written.
    if let Some(rest) = document.strip_prefix(b"{\"type\":\"") {
        let end = memchr2(b'"', b'\\', rest)?;
        if rest[end] == b'"' {
            return std::str::from_utf8(&rest[..end]).ok().map(Cow::Borrowed);
        }
    }
    TYPE.find(document)?;
    string_at(document, &["type"]).map(Cow::Owned)
}

/// Whether the last member of the document whose end this is says that the event is terminal.
fn ends_as_terminal(end: &[u8]) -> bool {
    let end = end.trim_ascii_end();
    let Some(at) = LAST_TYPE.rfind(end) else { return false };
    let value = end[at + "\"type\"".len()..].trim_ascii_start();
    let Some(value) = value.strip_prefix(b":").and_then(|value| value.trim_ascii_start().strip_prefix(b"\""))
    else {
        return false;
    };
    let Some(length) = memchr2(b'"', b'\\', value) else { return false };
    // The rest closes the document, perhaps after some more numbers: `"sequence_number":7}`.
    let rest = &value[length + 1..];
    let closes_once = rest.iter().filter(|byte| **byte == b'}').count() == 1
        && !rest.contains(&b'{')
        && rest.ends_with(b"}");
    is_terminal(&value[..length]) && closes_once
}

/// The last `sequence_number` in these events.
fn last_sequence(events: &[u8]) -> Option<u64> {
    let at = SEQUENCE.rfind(events)? + SEQUENCE.needle().len();
    let digits = events[at..].trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Whether the last of these events that has `choices` says why each of them ended; `None` where no event has any.
fn has_finished(events: &[u8]) -> Option<bool> {
    let mut before = events;
    while let Some(at) = CHOICES.rfind(before) {
        let start = memrchr2(b'\n', b'\r', &before[..at]).map_or(0, |end| end + 1);
        let end = memchr2(b'\n', b'\r', &events[at..]).map_or(events.len(), |length| at + length);
        let line = &events[start..end];
        if let Some(data) = line.strip_prefix(b"data:") {
            // Most events do.
            if UNFINISHED.find(data).is_some() {
                return Some(false);
            }
            let chunk = std::str::from_utf8(data).ok().and_then(Facts::of);
            let choices = chunk.and_then(|chunk| Elements::of(chunk.choices?.as_bytes()));
            let Some(mut choices) = choices.map(Iterator::peekable) else { return Some(false) };
            // The event that reports the usage has none.
            if choices.peek().is_some() {
                return Some(choices.all(says_why));
            }
        }
        before = &before[..start];
    }
    None
}

/// Whether a choice of a chunk says why it ended.
fn says_why(choice: &[u8]) -> bool {
    let why =
        Members::of(choice).and_then(|mut members| members.find(|(name, _)| **name == *b"finish_reason"));
    why.is_some_and(|(_, why)| why.starts_with(b"\"") && why != b"\"\"")
}

#[cfg(test)]
mod tests {
    use super::Terminal;

    fn terminal(events: &[&str]) -> Terminal {
        let mut terminal = Terminal::default();
        events.iter().for_each(|events| terminal.read(events.as_bytes()));
        terminal
    }

    fn is_over(events: &[&str]) -> bool {
        let is_over = terminal(events).is_over();
        // Nothing depends on how much is read together.
        assert_eq!(terminal(&[&events.concat()]).is_over(), is_over, "{events:?}");
        is_over
    }

    const TERMINAL: [&str; 8] = [
        "response.completed",
        "response.incomplete",
        "response.failed",
        "message_stop",
        "image_generation.completed",
        "image_edit.completed",
        "transcript.text.done",
        "speech.audio.done",
    ];

    #[test]
    fn terminal_event_of_each_api_is_known_by_name_and_by_type_wherever_it_stands() {
        for name in TERMINAL {
            for event in [
                format!("event: {name}\ndata: {{}}\n\n"),
                format!("data: {{\"type\":\"{name}\",\"x\":1}}\n\n"),
                format!("data:{{\"x\":{{\"type\":\"y\"}},\"type\" : \"{name}\"}}\r\n\r\n"),
                format!("id: 1\rdata: {{\"typ\\u0065\":\"{name}\",\"type\":\"{name}\"}}\r\r"),
            ] {
                assert!(is_over(&[&event]), "{event:?}");
                assert!(is_over(&["data: {\"type\":\"x\"}\n\n", &event, ": comment\n\n", "data: {}\n\n"]));
                assert!(is_over(&[&event, "data: {}\n\n", "data: {}\n\n"]), "{event:?} and more behind it");
            }
            for event in [
                format!("data: {{\"x\":{{\"type\":\"{name}\"}}}}\n\n"),
                format!("data: {{\"x\":\"{{\\\"type\\\":\\\"{name}\\\"}}\"}}\n\n"),
                format!("data: {{\"type\":\"{name}.not\"}}\n\n"),
                format!("event: {name}.not\ndata: {{}}\n\n"),
                format!("data: \"{name}\"\n\n"),
            ] {
                assert!(!is_over(&[&event]), "{event:?}");
            }
        }
        assert!(is_over(&["data: {}\n\n", "data: [DONE]\n\n"]));
        assert!(is_over(&["data:[DONE]\r\n\r\n"]));
        assert!(!is_over(&["data: \"[DONE]\"\n\n"]));
        assert!(!is_over(&["data: [DONE] not quite\n\n"]));
    }

    #[test]
    fn chat_is_over_when_the_last_chunk_with_choices_says_why_each_finished() {
        let said = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
        let bare = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
        let both = "data: {\"choices\":[{\"finish_reason\":\"stop\"},{\"finish_reason\": null}]}\n\n";
        let empty = "data: {\"choices\":[{\"finish_reason\":\"\"}]}\n\n";
        for events in [&[said, stop][..], &[stop], &[stop, usage], &[stop, ": x\n\n", usage]] {
            assert!(is_over(events), "{events:?}");
        }
        for events in [&[][..], &[said], &[bare], &[usage], &[stop, said], &[stop, bare], &[both], &[empty]] {
            assert!(!is_over(events), "{events:?}");
        }
        let quoted =
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}}]}\n\n";
        assert!(!is_over(&[quoted]));
        let mut cut = terminal(&[stop]);
        cut.note_truncated();
        assert!(!cut.is_over());
    }

    #[test]
    fn large_event_is_known_by_its_beginning_or_its_end() {
        let over = |beginning: &str, end: &str| {
            let mut terminal = Terminal::default();
            terminal.note_beginning(beginning.as_bytes());
            assert!(!terminal.is_over(), "before it has ended");
            terminal.note_end(end.as_bytes());
            terminal.is_over()
        };
        for name in TERMINAL {
            let last = format!("xx\"}}]}},\"sequence_number\":7,\"type\":\"{name}\"}}\n\n");
            assert!(over("data: {\"response\":{\"output\":[{\"text\":\"xx", &last));
            let before = format!("xx\"}}]}},\"type\":\"{name}\",\"sequence_number\":7}}\n\n");
            assert!(over("data: {\"response\":{\"output\":[{\"text\":\"xx", &before));
            let inner = format!("xx\",\"type\":\"{name}\"}}}}\n\n");
            assert!(!over("data: {\"response\":{\"output\":[{\"text\":\"xx", &inner));
            assert!(over(&format!("data: {{\"n\":1,\"type\":\"{name}\",\"x\":\"yy"), "yy\"}\n\n"));
            assert!(over(&format!("event: {name}\ndata: {{\"x\":\"yy"), "yy\"}\n\n"));
        }
        assert!(over(
            "data: {\"choices\":[{\"delta\":{\"content\":\"xx",
            "xx\"},\"finish_reason\":\"stop\"}]}\n\n"
        ));
        assert!(!over(
            "data: {\"choices\":[{\"delta\":{\"content\":\"xx",
            "xx\"},\"finish_reason\":null}]}\n\n"
        ));
    }

    #[test]
    fn further_event_has_the_number_after_the_last() {
        assert_eq!(terminal(&[]).next_sequence(), 0);
        let event = |number: u64| format!("data: {{\"type\":\"x\",\"sequence_number\":{number}}}\n\n");
        assert_eq!(terminal(&[&event(3), &event(41), ": x\n\n"]).next_sequence(), 42);
        assert_eq!(terminal(&[&event(u64::MAX)]).next_sequence(), u64::MAX);
    }
}
