//! The one change a relayed body undergoes: the value of its top-level `model`. Every other byte stays.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::upstream::json::behind_string;

/// Deepest nesting of a body that is relayed: what the usual JSON parsers on the other side take.
const MAX_DEPTH: usize = 128;

/// What a body says at its top level, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// The model it names; of several, the last.
    pub model: String,
    /// It asks for a stream.
    pub stream: bool,
    /// The stored response it continues (`previous_response_id`).
    pub previous: Option<String>,
    /// Where the values of `model` stand.
    pub(super) spans: Vec<Range<usize>>,
    /// How a value of `model` is written there.
    pub(super) notation: Notation,
}

/// How a value is written in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// As a JSON string.
    Json,
    /// As it is.
    Text,
}

impl Body {
    /// Looks at a JSON body.
    ///
    /// # Errors
    /// It is not a JSON object, names no model, or names it in something else than a non-empty string.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        check_depth(bytes)?;
        // serde_json does not look inside strings that nobody asks for.
        let text = std::str::from_utf8(bytes).map_err(|error| {
            ApiError::InvalidJson(format!("invalid UTF-8 at byte {}", error.valid_up_to()))
        })?;
        let top: Top<'_> =
            serde_json::from_str(text).map_err(|error| ApiError::InvalidJson(error.to_string()))?;
        let last = top.models.last().ok_or(ApiError::MissingModel)?;
        let model: String = serde_json::from_str(last.get()).map_err(|_| ApiError::InvalidModel)?;
        if model.is_empty() {
            return Err(ApiError::InvalidModel);
        }
        let spans = top.models.iter().map(|value| {
            let start = value.get().as_ptr().addr() - bytes.as_ptr().addr();
            start..start + value.get().len()
        });
        let (stream, previous, spans) = (top.stream, top.previous, spans.collect());
        Ok(Self { model, stream, previous, spans, notation: Notation::Json })
    }

    /// A body that names no model, and stays as it is.
    pub fn untouched(stream: bool) -> Self {
        Self { model: "-".to_owned(), stream, previous: None, spans: Vec::new(), notation: Notation::Text }
    }

    /// A model's name as this body writes it.
    pub fn written(&self, model: &str) -> Vec<u8> {
        match self.notation {
            // A string always serializes.
            Notation::Json => serde_json::to_vec(model).unwrap_or_default(),
            Notation::Text => model.as_bytes().to_vec(),
        }
    }

    /// The body in pieces, with `model` ([`Body::written`]) in each of its places.
    pub fn with_model<'a>(&self, bytes: &'a [u8], model: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::with_capacity(self.spans.len() * 2 + 1);
        let mut from = 0;
        for span in &self.spans {
            pieces.push(&bytes[from..span.start]);
            pieces.push(model);
            from = span.end;
        }
        pieces.push(&bytes[from..]);
        pieces
    }
}

/// The members of the top-level object that matter; all others are only checked to be JSON.
struct Top<'a> {
    models: Vec<&'a RawValue>,
    stream: bool,
    previous: Option<String>,
}

impl<'de> Deserialize<'de> for Top<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Top<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top<'de>, A::Error> {
                let mut top = Top { models: Vec::new(), stream: false, previous: None };
                // An escaped key (`"mod\u0065l"`) is the same key.
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    match &*key.0 {
                        "model" => top.models.push(map.next_value()?),
                        "stream" => top.stream = map.next_value::<&RawValue>()?.get() == "true",
                        "previous_response_id" => {
                            let value = map.next_value::<&RawValue>()?.get();
                            top.previous = serde_json::from_str(value).ok();
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(top)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A key, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// serde_json skips what nobody asks for without recursion and so without its own limit; the provider's parser may
/// not be as careful.
fn check_depth(bytes: &[u8]) -> Result<(), ApiError> {
    let (mut depth, mut rest) = (0usize, bytes);
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'{' | b'[' if depth == MAX_DEPTH => {
                let at = bytes.len() - rest.len();
                let reason = format!("nested deeper than {MAX_DEPTH} at byte {at}");
                return Err(ApiError::InvalidJson(reason));
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        rest = if byte == b'"' { behind_string(behind) } else { behind };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ApiError, Body, MAX_DEPTH};

    fn spliced(body: &str) -> String {
        let parsed = Body::parse(body.as_bytes()).expect("a good body");
        String::from_utf8(parsed.with_model(body.as_bytes(), b"\"NEW\"").concat()).expect("UTF-8 stays UTF-8")
    }

    #[test]
    fn only_the_value_of_the_top_level_model_changes() {
        for (body, expected) in [
            (r#"{"model":"a/b"}"#, r#"{"model":"NEW"}"#),
            (
                "{ \"x\" : 1.0e+2 ,\n\t\"model\" :  \"a\" }\r\n",
                "{ \"x\" : 1.0e+2 ,\n\t\"model\" :  \"NEW\" }\r\n",
            ),
            (r#"{"mod\u0065l":"a\/b"}"#, r#"{"mod\u0065l":"NEW"}"#),
            (
                r#"{"model":"a","n":123456789012345678901234567890,"model":"b"}"#,
                r#"{"model":"NEW","n":123456789012345678901234567890,"model":"NEW"}"#,
            ),
            (
                r#"{"messages":[{"model":"keep","content":"\"model\":\"x\""}],"model":"a","z":{"model":1}}"#,
                r#"{"messages":[{"model":"keep","content":"\"model\":\"x\""}],"model":"NEW","z":{"model":1}}"#,
            ),
            (r#"{"model":1,"model":"a"}"#, r#"{"model":"NEW","model":"NEW"}"#),
        ] {
            assert_eq!(spliced(body), expected);
        }
    }

    #[test]
    fn the_last_model_and_the_last_stream_count() {
        let body =
            Body::parse(br#"{"model":"a","stream":false,"model":"b\u002fc","stream":true}"#).expect("good");
        assert_eq!((body.model.as_str(), body.stream), ("b/c", true));
        assert!(!Body::parse(br#"{"model":"a","stream":"true"}"#).expect("good").stream);
    }

    #[test]
    fn every_truncation_is_invalid_json() {
        let body =
            br#"{"messages":[{"role":"user","content":"h\u00e9"}],"model":"a/b","stream":true,"n":-1.5e3}"#;
        assert!(Body::parse(body).is_ok());
        for end in 0..body.len() {
            assert!(matches!(Body::parse(&body[..end]), Err(ApiError::InvalidJson(_))), "cut at {end}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_model_is_told_apart() {
        assert_eq!(Body::parse(b"{}"), Err(ApiError::MissingModel));
        for bad in
            [r#"{"model":""}"#, r#"{"model":null}"#, r#"{"model":["a"]}"#, r#"{"model":"a","model":2}"#]
        {
            assert_eq!(Body::parse(bad.as_bytes()), Err(ApiError::InvalidModel), "{bad}");
        }
        for bad in
            ["[]", "\"x\"", "{\"model\":\"a\"} x", "", "{\"model\":\"a\",}", "\u{feff}{\"model\":\"a\"}"]
        {
            assert!(matches!(Body::parse(bad.as_bytes()), Err(ApiError::InvalidJson(_))), "{bad}");
        }
        for bad in [&b"{\"model\":\"\xff\"}"[..], b"{\"model\":\"a\",\"x\":{\"\xd2\":1}}"] {
            assert!(matches!(Body::parse(bad), Err(ApiError::InvalidJson(_))), "{bad:?}");
        }
    }

    #[test]
    fn depth_has_a_bound_and_brackets_in_strings_do_not_count() {
        let nested =
            |depth: usize| format!("{{\"model\":\"a\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Body::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(matches!(Body::parse(nested(MAX_DEPTH).as_bytes()), Err(ApiError::InvalidJson(_))));
        assert!(matches!(Body::parse(nested(1_000_000).as_bytes()), Err(ApiError::InvalidJson(_))));
        let brackets = "[".repeat(1000);
        for text in [format!(r#"{brackets}\"["#), format!(r#"\\\"{brackets}"#), format!(r#"{brackets}\\"#)] {
            let body = format!(r#"{{"model":"a","x":"{text}","y":[]}}"#);
            assert!(Body::parse(body.as_bytes()).is_ok(), "{text}");
        }
        // What follows a string whose last character is a backslash is no text.
        let body = format!(r#"{{"model":"a","x":"\\","y":{brackets}}}"#);
        assert!(
            matches!(Body::parse(body.as_bytes()), Err(ApiError::InvalidJson(reason)) if reason.contains("nested"))
        );
    }
}
