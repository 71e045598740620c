//! What stands at the beginning of a stream of events: events that only announce, content, or an error.

use serde_json::value::RawValue;

use super::refusal::{Facts, Refusal};
use crate::core::sse::Lines;
use crate::json::{Elements, Members, members, text};

/// What complete events at the beginning of a stream amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Comments and blank lines: no event yet.
    Nothing,
    /// Events that say nothing yet: `response.created`, the role alone, `ping`.
    Announcement,
    /// Content, or whatever else is no error.
    Content,
    /// An error, and the document that tells of it.
    Refusal(Refusal, Vec<u8>),
}

impl Opening {
    /// Looks at the beginning of a stream, cut after an event, up to the first event that does not only announce.
    pub fn of(stream: &[u8]) -> Self {
        let mut opening = Self::Nothing;
        for event in events(stream) {
            match Self::of_event(&event) {
                Self::Nothing => {}
                Self::Announcement => opening = Self::Announcement,
                other => return other,
            }
        }
        opening
    }

    /// Looks at the first event alone.
    pub fn of_first(stream: &[u8]) -> Self {
        let openings = events(stream).map(|event| Self::of_event(&event));
        openings.into_iter().find(|opening| *opening != Self::Nothing).unwrap_or(Self::Nothing)
    }

    /// What one event amounts to.
    pub fn of_event(event: &Event<'_>) -> Self {
        let Event { name, data, is_bare } = event;
        if *is_bare {
            return Self::Nothing;
        }
        let facts = std::str::from_utf8(data).ok().and_then(Facts::of_document).unwrap_or_default();
        if let Some(refusal) = Refusal::in_event(&facts) {
            return Self::Refusal(refusal, error_document(data, &facts).unwrap_or_else(|| data.clone()));
        }
        if *name == b"error" {
            return Self::Refusal(Refusal::default(), data.clone());
        }
        if announces(name, &facts) { Self::Announcement } else { Self::Content }
    }
}

/// The error among complete events of a stream that holds the word, if there is one.
pub fn error_among(events: &[u8]) -> Option<Refusal> {
    self::events(events).find_map(|event| match Opening::of_event(&event) {
        Opening::Refusal(refusal, _) => Some(refusal),
        _ => None,
    })
}

/// Whether bytes begin as events do; `None`: so few of them do not tell.
pub fn begins_like_events(bytes: &[u8]) -> Option<bool> {
    const FIELDS: [&[u8]; 5] = [b":", b"data:", b"event:", b"id:", b"retry:"];
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if FIELDS.iter().any(|field| bytes.starts_with(field)) {
        return Some(true);
    }
    let may_become = FIELDS.iter().any(|field| field.starts_with(bytes));
    if may_become { None } else { Some(false) }
}

/// An event: the value of its last `event:`, and its data with a line feed between its lines.
#[derive(Default)]
pub struct Event<'a> {
    /// Its name, empty where it has none.
    pub name: &'a [u8],
    pub data: Vec<u8>,
    /// It has neither: comments alone.
    is_bare: bool,
}

/// The events in a part of a stream; the last may lack its blank line.
pub fn events(stream: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut lines = Lines(stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream));
    std::iter::from_fn(move || {
        let mut event = None::<Event<'_>>;
        for line in lines.by_ref() {
            if line.is_empty() {
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let event = event.get_or_insert(Event { is_bare: true, ..Event::default() });
            if let Some(value) = line.strip_prefix(b"event:") {
                event.name = value.trim_ascii();
                event.is_bare = false;
            } else if let Some(value) = line.strip_prefix(b"data:") {
                if !event.data.is_empty() {
                    event.data.push(b'\n');
                }
                event.data.extend_from_slice(value.trim_ascii());
                event.is_bare = false;
            }
        }
        event
    })
}

/// The document of an HTTP error for an event that has another shape: one of the Responses API.
fn error_document(event: &[u8], facts: &Facts<'_>) -> Option<Vec<u8>> {
    if facts.is("response.failed") {
        let error = facts.response.and_then(|response| Facts::of(response)?.error);
        return Some(["{\"error\":", error.unwrap_or("null"), "}"].concat().into_bytes());
    }
    if !facts.is("error") || facts.error.is_some() {
        return None;
    }
    let mut document = String::with_capacity(event.len());
    let keep = |name: &str, value: &RawValue| {
        if !matches!(name, "sequence_number" | "type") {
            let lead = if document.is_empty() { "{\"error\":{" } else { "," };
            // What was read as text can be written.
            let name = serde_json::to_string(name).unwrap_or_default();
            document.extend([lead, &name, ":", value.get()]);
        }
    };
    members(std::str::from_utf8(event).ok()?, keep).ok()?;
    if document.is_empty() {
        return None;
    }
    document.push_str("}}");
    Some(document.into_bytes())
}

/// Whether an event only says that a response has begun.
fn announces(name: &[u8], facts: &Facts<'_>) -> bool {
    const KINDS: [&[u8]; 5] =
        [b"response.created", b"response.in_progress", b"response.queued", b"message_start", b"ping"];
    let kind = facts.kind.and_then(text);
    KINDS.contains(&kind.as_deref().map_or(name, str::as_bytes))
        || facts.choices.is_some_and(|choices| all_elements(choices.as_bytes(), says_nothing))
}

/// Whether a choice of a chunk holds no more than a role.
fn says_nothing(choice: &[u8]) -> bool {
    all_members(choice, |name, value| match name {
        b"role" | b"index" => true,
        b"delta" => all_members(value, |name, value| name == b"role" || is_empty(value)),
        _ => is_empty(value),
    })
}

fn all_elements(array: &[u8], holds: impl FnMut(&[u8]) -> bool) -> bool {
    Elements::of(array).is_some_and(|mut elements| elements.all(holds))
}

fn all_members(object: &[u8], holds: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    Members::of(object).is_some_and(|mut members| members.all(|(name, value)| holds(&name, value)))
}

fn is_empty(value: &[u8]) -> bool {
    match value {
        b"null" | b"\"\"" => true,
        [b'[', inside @ .., b']'] | [b'{', inside @ .., b'}'] => inside.trim_ascii().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Opening, begins_like_events, error_among, events};

    fn refused(stream: &str) -> Option<(u16, String)> {
        match Opening::of(stream.as_bytes()) {
            Opening::Refusal(refusal, data) => Some((refusal.status, String::from_utf8(data).expect("text"))),
            _ => None,
        }
    }

    #[test]
    fn the_first_event_is_found_behind_comments_and_whatever_ends_its_lines() {
        let json = r#"{"error":{"code":429}}"#;
        for end in ["\n", "\r\n", "\r"] {
            for stream in
                ["data: JSON..", ": hold on....data: JSON..", "event: error.data: JSON..", "id: 1.data:JSON"]
            {
                let stream = stream.replace('.', end).replace("JSON", json);
                assert_eq!(refused(&stream), Some((429, json.to_owned())), "{stream:?}");
            }
        }
        assert_eq!(refused("event: error\ndata: plain\n\n"), Some((502, "plain".to_owned())));
        for nothing in ["", "\n\n", ": a\n\n", ": a\r\n\r\n: b\r\n\r\n", "retry: 5\n\n"] {
            assert_eq!(Opening::of(nothing.as_bytes()), Opening::Nothing, "{nothing:?}");
        }
        for event in
            ["data: {}\n\n", "event: x\ndata: {\"error\":null}\n\n", "data: a\n\ndata: {\"error\":\"x\"}\n\n"]
        {
            assert_eq!(Opening::of(event.as_bytes()), Opening::Content, "{event:?}");
        }
    }

    /// Events of each API that say nothing yet.
    const ANNOUNCEMENTS: [&str; 10] = [
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
        "data: {\"response\":{},\"type\":\"response.in_progress\"}\n\n",
        "event: response.queued\ndata: {}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null}],\"error\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]}}]}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"text\":\"\"}]}\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    ];

    #[test]
    fn announcing_event_is_distinguished_from_content() {
        for event in ANNOUNCEMENTS {
            assert_eq!(Opening::of(event.as_bytes()), Opening::Announcement, "{event:?}");
            assert_eq!(Opening::of_first(event.as_bytes()), Opening::Announcement, "{event:?}");
            let content =
                format!(": x\n\n{event}data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}\n\n");
            assert_eq!(Opening::of(content.as_bytes()), Opening::Content, "{content:?}");
        }
        for event in [
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"reasoning\":\"a\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n\n",
            "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
            "data: {\"type\":\"response.output_item.added\"}\n\n",
            "data: {\"type\":\"response.completed\"}\n\n",
            "data: {\"type\":\"content_block_start\"}\n\n",
            "data: {\"type\":\"image_generation.partial_image\"}\n\n",
            "data: {\"type\":\"transcript.text.delta\"}\n\n",
            "data: [DONE]\n\n",
            "data: plain\n\n",
        ] {
            assert_eq!(Opening::of(event.as_bytes()), Opening::Content, "{event:?}");
        }
    }

    #[test]
    fn error_after_announcements_has_the_status_and_the_document_of_an_http_error() {
        for (error, status, document) in [
            (
                "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"m\"},\"output\":[]}}",
                429,
                r#"{"error":{"code":"rate_limit_exceeded","message":"m"}}"#,
            ),
            (
                "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\",\"param\":null,\"sequence_number\":2}",
                500,
                r#"{"error":{"code":"server_error","message":"m","param":null}}"#,
            ),
            (
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}",
                529,
                r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            ),
            ("data: {\"error\":{\"code\":503}}", 503, r#"{"error":{"code":503}}"#),
        ] {
            for announcement in ANNOUNCEMENTS {
                let stream = format!("{announcement}: x\n\n{announcement}{error}\n\n");
                assert_eq!(refused(&stream), Some((status, document.to_owned())), "{stream:?}");
                assert_eq!(Opening::of_first(stream.as_bytes()), Opening::Announcement);
                assert_eq!(error_among(stream.as_bytes()).map(|refusal| refusal.status), Some(status));
            }
        }
        assert_eq!(
            error_among(b"data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\"\"}}]}\n\n"),
            None
        );
    }

    #[test]
    fn events_are_known_by_their_first_bytes() {
        for bytes in ["data: x", "data:", "\n\nevent: x", ": hi", "id: 1", "retry: 5", "\u{feff}data: {}"] {
            assert_eq!(begins_like_events(bytes.as_bytes()), Some(true), "{bytes:?}");
        }
        for bytes in ["{", " [", "<html>", "dat{", "x", "database: 1", "7", "\"data:\""] {
            assert_eq!(begins_like_events(bytes.as_bytes()), Some(false), "{bytes:?}");
        }
        for bytes in ["", "\n", " \r\n", "d", "data", "\nretr"] {
            assert_eq!(begins_like_events(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

    #[test]
    fn data_of_several_lines_is_joined() {
        let all: Vec<_> = events(b": c\n\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\ndata: 3").collect();
        let seen: Vec<_> = all.iter().map(|event| (event.name, &event.data[..])).collect();
        assert_eq!(seen, [(&b""[..], &b""[..]), (b"a", b"1\n2"), (b"", b"3")]);
    }
}
