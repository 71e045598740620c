//! The id of what `/v1/responses` made, in a whole answer or in the first event of a stream.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The `id` at the top level of an answer.
pub fn in_answer(document: &[u8]) -> Option<String> {
    read(document, false)
}

/// The id of the response that one of these events holds. The last of them may be cut: its beginning is enough.
pub fn in_events(events: &[u8]) -> Option<String> {
    memmem::find(events, b"\"response\"")?;
    let lines = events.split(|&byte| matches!(byte, b'\n' | b'\r'));
    lines.filter_map(|line| line.strip_prefix(b"data:")).find_map(|data| read(data, true))
}

fn read(document: &[u8], nested: bool) -> Option<String> {
    let mut found = None;
    // Reading ends in an error where the document is cut, and as soon as the id is found: that one counts.
    let _ = Id { nested, found: &mut found }.deserialize(&mut serde_json::Deserializer::from_slice(document));
    found
}

/// Looks for `id`, in the object at hand or in the `response` it holds.
struct Id<'a> {
    nested: bool,
    found: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Id<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Id<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match (&*key, self.nested) {
                ("id", false) => {
                    *self.found = Some(map.next_value()?);
                    return Err(A::Error::custom("found"));
                }
                ("response", true) => map.next_value_seed(Id { nested: false, found: &mut *self.found })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{in_answer, in_events};

    #[test]
    fn the_id_of_the_response_is_found_and_no_other() {
        let answer = br#"{"object":"response","output":[{"id":"msg_1"}],"id":"resp_1","x":"#;
        assert_eq!(in_answer(answer).as_deref(), Some("resp_1"));
        for none in [&br#"{"output":[{"id":"msg_1"}]}"#[..], br#"{"id":1}"#, b"[]", b"", b"{"] {
            assert_eq!(in_answer(none), None);
        }
        let events = b": hi\n\nevent: response.created\r\ndata: {\"type\":\"x\",\"id\":\"ev\",\"response\":{\"id\":\"resp_2\",\"tools\":[{\"na";
        assert_eq!(in_events(events).as_deref(), Some("resp_2"));
        assert_eq!(in_events(b"data: {\"id\":\"chatcmpl-1\"}\n\ndata: [DONE]\n\n"), None);
        assert_eq!(in_events(b"data: {\"response\":null}\n\n"), None);
    }
}
