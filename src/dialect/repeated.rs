//! What the events of a stream repeat. Most differ from one before in their text, and in members that say nothing: such an event need not be
//! read anew.

use memchr::memchr2;
use serde_json::value::RawValue;

use super::chat::{Chat, word};
use super::json::inside;
use super::pieces::Piece;
use crate::json::{members, scan};
use crate::limits::{MAX_REPEATED, REPEATED_TRIES};

/// The event that others may repeat.
#[derive(Debug)]
pub(super) struct Repeated {
    pattern: Option<Pattern>,
    /// How many more may be taken for a pattern before one has been repeated: where none is, looking for one has an end.
    tries: u8,
}

/// An event that holds text in one place, and says nothing else.
#[derive(Debug)]
struct Pattern {
    piece: Piece,
    /// What precedes the text, its opening quote included.
    head: String,
    /// What follows it to the end of the choices, from its closing quote on.
    middle: String,
}

impl Repeated {
    /// No event has come.
    pub(super) fn new() -> Self {
        Self { pattern: None, tries: REPEATED_TRIES }
    }

    /// The text of an event that is the pattern but for its text; `None`: it has to be read.
    pub(super) fn text_of<'a>(&mut self, event: &'a [u8]) -> Option<(Piece, &'a str)> {
        let Pattern { piece, head, middle } = self.pattern.as_ref()?;
        let rest = event.strip_prefix(head.as_bytes())?;
        let (text, rest) = rest.split_at(memchr2(b'"', b'\\', rest)?);
        let tail = rest.strip_prefix(middle.as_bytes())?;
        let text = std::str::from_utf8(text).ok()?;
        // What is no JSON is for the reader to refuse.
        if text.bytes().any(|byte| byte < b' ') || !says_nothing(tail) {
            return None;
        }
        self.tries = REPEATED_TRIES;
        Some((*piece, text))
    }

    /// An event has been read, which the next ones may repeat.
    pub(super) fn learn(&mut self, event: &str, chat: &Chat<'_>) {
        if self.tries == 0 || event.len() > MAX_REPEATED {
            return;
        }
        if let Some(pattern) = Pattern::of(event, chat) {
            self.tries -= 1;
            self.pattern = Some(pattern);
        }
    }
}

impl Pattern {
    fn of(event: &str, chat: &Chat<'_>) -> Option<Self> {
        if chat.usage.or(chat.x_groq).or(chat.error).is_some() {
            return None;
        }
        let choice = chat.choices.as_ref()?.0.as_ref()?;
        if choice.number() != 0 || choice.message.is_some() || word(choice.finish_reason).is_some() {
            return None;
        }
        let (piece, text) = choice.delta.as_ref()?.sole_text()?;
        let text = inside(text).ok().filter(|text| !text.is_empty())?;
        let place = |part: &str| part.as_ptr().addr() - event.as_ptr().addr();
        let (start, mut end) = (place(text), None);
        let note = |name: &str, value: &RawValue| {
            if name == "choices" {
                end = Some(place(value.get()) + value.get().len());
            }
        };
        members(event, note).ok()?;
        let middle = event.get(start + text.len()..end?)?.to_owned();
        Some(Self { piece, head: event[..start].to_owned(), middle })
    }
}

/// Whether what follows the choices ends the document, and nothing in it matters.
fn says_nothing(tail: &[u8]) -> bool {
    if tail == b"}" {
        return true;
    }
    let rest = tail.strip_prefix(b",").and_then(|rest| std::str::from_utf8(rest).ok());
    let Some(rest) = rest.filter(|rest| rest.trim_ascii_start().starts_with('"')) else { return false };
    let mut matters = false;
    let read = scan(&["{", rest].concat(), &mut |name, value| {
        matters |= match name {
            "choices" => true,
            "usage" | "x_groq" | "error" => value != "null",
            _ => false,
        };
    });
    read.is_some() && !matters
}

#[cfg(test)]
mod tests {
    use super::Repeated;
    use crate::dialect::chat::parse;
    use crate::dialect::pieces::Piece;
    use crate::limits::{MAX_REPEATED, REPEATED_TRIES};

    fn event(delta: &str, tail: &str) -> String {
        format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":null}}]{tail}}}"#)
    }

    fn learned(event: &str) -> Repeated {
        let mut repeated = Repeated::new();
        learn(&mut repeated, event);
        repeated
    }

    fn learn(repeated: &mut Repeated, event: &str) {
        repeated.learn(event, &parse(event).expect("a good event"));
    }

    #[test]
    fn event_that_repeats_another_gives_its_text() {
        for (key, piece) in
            [("content", Piece::Text), ("reasoning_content", Piece::Thought), ("reasoning", Piece::Thought)]
        {
            let with = |text: &str, tail| event(&format!(r#""role":"assistant","{key}":"{text}""#), tail);
            let mut repeated = learned(&with(r"a\n", r#","created":1"#));
            for (text, tail) in [
                ("b", ""),
                ("", r#","created":2"#),
                ("ü{", r#" "#),
                ("c", r#","usage":null, "x":{"usage":{}}"#),
            ] {
                let event = with(text, tail);
                let expected = (tail != " ").then_some((piece, text));
                assert_eq!(repeated.text_of(event.as_bytes()), expected, "{event}");
            }
        }
    }

    #[test]
    fn event_that_may_say_more_or_is_no_json_is_read() {
        let mut repeated = learned(&event(r#""content":"a""#, ""));
        for other in [
            event(r#""content":"a\n""#, ""),
            event("\"content\":\"a\nb\"", ""),
            event(r#""content":"a","tool_calls":[]"#, ""),
            event(r#""content":null"#, ""),
            event(r#""content":"a""#, ","),
            event(r#""content":"a""#, "}"),
            event(r#""content":"a""#, r#","usage":{"prompt_tokens":1}"#),
            event(r#""content":"a""#, r#","us\u0061ge":{"prompt_tokens":1}"#),
            event(r#""content":"a""#, r#","x_groq":{"usage":{}}"#),
            event(r#""content":"a""#, r#","error":"e""#),
            event(r#""content":"a""#, r#","choices":null"#),
            event(r#""content":"a""#, r#","x":1}"#),
            event(r#""content":"a""#, r#","x":"#),
        ] {
            assert_eq!(repeated.text_of(other.as_bytes()), None, "{other}");
        }
        let whole = event(r#""content":"é""#, r#","x":1"#);
        for end in 0..whole.len() {
            assert_eq!(repeated.text_of(&whole.as_bytes()[..end]), None, "cut at {end}");
        }
        assert!(repeated.text_of(whole.as_bytes()).is_some());
    }

    #[test]
    fn event_that_says_more_than_text_is_no_pattern() {
        let good = event(r#""content":"a""#, "");
        for other in [
            event(r#""content":"""#, ""),
            event(r#""content":["a"]"#, ""),
            event(r#""content":"a","reasoning":"b""#, ""),
            event(r#""content":"a","tool_calls":[{"index":0}]"#, ""),
            event(r#""refusal":"a""#, ""),
            event(r#""content":"a","annotations":[{"type":"url_citation"}]"#, ""),
            event(r#""content":"a""#, r#","usage":{"prompt_tokens":1}"#),
            good.replace("null", "\"stop\""),
            good.replace("\"index\":0", "\"index\":1"),
            good.replace("delta", "message"),
            event(&format!(r#""content":"{}""#, "a".repeat(MAX_REPEATED)), ""),
        ] {
            let mut repeated = learned(&other);
            assert_eq!(repeated.text_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn events_that_never_repeat_are_not_learned_for_ever() {
        let numbered = |number: u32| event(&format!(r#""number":{number},"content":"a""#), "");
        let mut repeated = learned(&numbered(0));
        for number in 1..=u32::from(REPEATED_TRIES) {
            learn(&mut repeated, &numbered(number));
        }
        let last = numbered(REPEATED_TRIES.into());
        assert_eq!(repeated.text_of(last.as_bytes()), None);
        // What has been learned still counts, and a repetition allows for more.
        assert!(repeated.text_of(numbered(u32::from(REPEATED_TRIES) - 1).as_bytes()).is_some());
        learn(&mut repeated, &last);
        assert!(repeated.text_of(last.as_bytes()).is_some());
    }
}
