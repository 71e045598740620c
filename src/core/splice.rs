//! The one change a relayed body undergoes: the value of its top-level `model`. Every other byte stays.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::BodyError;
use super::choosers::{Chooser, chooser, reads_as_model};
use super::usage_option::{self, Addition};
use crate::json::{MAX_LEVELS, deeper_than, inside, scan};
use crate::limits::{MAX_DEPTH, MAX_MODEL, MAX_RESPONSE_ID};

/// The members at the top level of a body that matter, and their places.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// The model it names.
    pub model: Arc<str>,
    /// Whether it asks for a stream.
    pub stream: bool,
    /// The stored response it continues (`previous_response_id`).
    pub previous: Option<String>,
    /// Where the value of `model` stands, without its quotes; `None`: the body stays as it is.
    span: Option<Range<usize>>,
    /// How a value of `model` is written there.
    notation: Notation,
    /// As [`Body::choosers`] gives them.
    choosers: Vec<(&'static Chooser, Option<Range<usize>>)>,
    /// The addition that makes it ask for usage, where it asks for a stream without usage.
    usage: Option<Addition>,
    /// Whether it asks for a response in the background.
    pub is_background: bool,
}

/// A body in pieces, some of which may be empty.
type Pieces<'a> = [&'a [u8]; 5];

/// How a value is written in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// As a JSON string, inside the quotes that are there.
    Json,
    /// As a JSON string, after its key and before a comma: the body has no `model`.
    Member,
    /// Unchanged.
    Text,
}

impl Body {
    /// Parses a JSON body.
    ///
    /// # Errors
    /// It is not a JSON object; it names no model, more than one, or one that is not a string of 1 to [`MAX_MODEL`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        Self::parse_or(bytes, None)
    }

    /// Like [`Body::parse`]; a body that names no model gets `default`.
    ///
    /// # Errors
    /// As [`Body::parse`].
    pub fn parse_or(bytes: &[u8], default: Option<&str>) -> Result<Self, BodyError> {
        let top = Top::of(bytes)?;
        if top.is_ambiguous {
            return Err(BodyError::AmbiguousModel);
        }
        let span_of = |value: &str| {
            let start = value.as_ptr().addr() - bytes.as_ptr().addr();
            start..start + value.len()
        };
        let (model, span, notation) =
            match (top.model, default.and_then(|default| Some((default, first_member(bytes)?)))) {
                (Some(written), _) => {
                    let (model, span) = (read_model(written)?, span_of(written));
                    (model, span.start + 1..span.end - 1, Notation::Json)
                }
                (None, Some((default, start))) => (checked_model(default)?, start..start, Notation::Member),
                (None, None) => return Err(BodyError::MissingModel),
            };
        if top.previous.as_ref().is_some_and(|id| id.len() > MAX_RESPONSE_ID) {
            return Err(BodyError::ResponseIdTooLong);
        }
        let choosers = top.choosers.iter().map(|(chooser, value)| (*chooser, value.map(span_of)));
        let options = (top.stream && !top.repeats_options).then_some(top.options);
        let usage = options.and_then(|options| usage_option::addition(options, bytes, span_of));
        Ok(Self {
            model,
            stream: top.stream,
            previous: top.previous,
            span: Some(span),
            notation,
            choosers: choosers.collect(),
            usage,
            is_background: top.is_background,
        })
    }

    /// A body that names no model and is relayed unchanged.
    pub fn untouched(stream: bool) -> Self {
        Self::text("-".into(), stream, None, Vec::new())
    }

    /// A body that is not JSON, with the unescaped model at `span`.
    pub(super) fn text(
        model: Arc<str>,
        stream: bool,
        span: Option<Range<usize>>,
        choosers: Vec<(&'static Chooser, Option<Range<usize>>)>,
    ) -> Self {
        let notation = Notation::Text;
        Self { model, stream, previous: None, span, notation, choosers, usage: None, is_background: false }
    }

    /// A model's name as this body writes it.
    pub fn written<'a>(&self, model: &'a str) -> Cow<'a, str> {
        let needs_no_escape = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        match self.notation {
            Notation::Json if !model.bytes().all(needs_no_escape) => {
                Cow::Owned(inside(&json(model)).unwrap_or_default().to_owned())
            }
            Notation::Json | Notation::Text => Cow::Borrowed(model),
            Notation::Member => Cow::Owned(format!("\"model\":{},", json(model))),
        }
    }

    pub fn is_json(&self) -> bool {
        self.notation != Notation::Text
    }

    /// Whether it names no model, and gets one that its endpoint knows.
    pub fn lacks_model(&self) -> bool {
        self.notation == Notation::Member
    }

    /// The members by which a provider may choose another model, each once, and where their values stand; `None`: the member
    /// occurs more than once, or is not JSON.
    pub fn choosers(&self) -> &[(&'static Chooser, Option<Range<usize>>)] {
        &self.choosers
    }

    /// Whether [`Body::with_model_and_usage`] adds a request for usage.
    pub fn lacks_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// The body in pieces, with `model` ([`Body::written`]) in its place.
    pub fn with_model<'a>(&self, bytes: &'a [u8], model: &'a [u8]) -> Pieces<'a> {
        match &self.span {
            Some(span) => [&bytes[..span.start], model, &bytes[span.end..], b"", b""],
            None => [bytes, b"", b"", b"", b""],
        }
    }

    /// Like [`Body::with_model`], without the ranges `cuts`: ascending, none around the value of `model`.
    pub fn with_model_less<'a>(
        &self,
        bytes: &'a [u8],
        model: &'a [u8],
        cuts: &[Range<usize>],
    ) -> Vec<&'a [u8]> {
        let mut places: Vec<_> = cuts.iter().map(|cut| (cut, &b""[..])).collect();
        if let Some(span) = &self.span {
            places.insert(cuts.partition_point(|cut| cut.start < span.start), (span, model));
        }
        let (mut pieces, mut at) = (Vec::with_capacity(2 * places.len() + 1), 0);
        for (span, text) in places {
            pieces.extend([&bytes[at..span.start], text]);
            at = span.end;
        }
        pieces.push(&bytes[at..]);
        pieces
    }

    /// Like [`Body::with_model`], with a request for the usage of its stream.
    pub fn with_model_and_usage<'a>(&self, bytes: &'a [u8], model: &'a [u8]) -> Pieces<'a> {
        let (Some(span), Some(usage)) = (&self.span, &self.usage) else {
            return self.with_model(bytes, model);
        };
        let mut places = [(span, model), (&usage.span, usage.text.as_bytes())];
        if usage.span.start < span.start {
            places.swap(0, 1);
        }
        let [(first, one), (second, other)] = places;
        [&bytes[..first.start], one, &bytes[first.end..second.start], other, &bytes[second.end..]]
    }
}

/// The JSON string of a text; this never fails.
pub fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Where the first member of an object begins; none where it has no member.
fn first_member(object: &[u8]) -> Option<usize> {
    let start = object.iter().position(|byte| *byte == b'{')? + 1;
    (!object[start..].trim_ascii_start().starts_with(b"}")).then_some(start)
}

/// The model that a valid value names.
fn read_model(value: &str) -> Result<Arc<str>, BodyError> {
    match inside(value).filter(|plain| !plain.contains('\\')) {
        Some(plain) => checked_model(plain),
        None => checked_model(&serde_json::from_str::<String>(value).map_err(|_| BodyError::InvalidModel)?),
    }
}

/// A model's name as a client may write it.
///
/// # Errors
/// It is empty, or longer than [`MAX_MODEL`].
pub(super) fn checked_model(model: &str) -> Result<Arc<str>, BodyError> {
    match model.len() {
        0 => Err(BodyError::InvalidModel),
        1..=MAX_MODEL => Ok(model.into()),
        _ => Err(BodyError::ModelTooLong),
    }
}

/// The members of the top-level object that matter, as they are written.
#[derive(Default)]
struct Top<'a> {
    model: Option<&'a str>,
    /// Whether two readers could find two models.
    is_ambiguous: bool,
    stream: bool,
    previous: Option<String>,
    choosers: Vec<(&'static Chooser, Option<&'a str>)>,
    options: Option<&'a str>,
    repeats_options: bool,
    is_background: bool,
}

impl<'a> Top<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, BodyError> {
        let text = std::str::from_utf8(bytes);
        if let Ok(text) = text {
            let mut top = Self::default();
            if scan(text, &mut |name, value| top.note(name, value)).is_some() {
                return Ok(top);
            }
        }
        if bytes.trim_ascii().is_empty() {
            return Err(BodyError::Empty);
        }
        // The error has the words of serde_json, which does not look inside strings that are not asked for.
        check_depth(bytes)?;
        let text = text.map_err(|error| {
            BodyError::InvalidJson(format!("invalid UTF-8 at byte {}", error.valid_up_to()))
        })?;
        serde_json::from_str(text).map_err(|error| BodyError::InvalidJson(error.to_string()))
    }

    fn note(&mut self, name: &str, value: &'a str) {
        match name {
            "model" => self.is_ambiguous |= self.model.replace(value).is_some(),
            "stream" => self.stream = value == "true",
            "previous_response_id" => self.previous = serde_json::from_str(value).ok(),
            "stream_options" => self.repeats_options |= self.options.replace(value).is_some(),
            "background" => self.is_background = value == "true",
            other => match chooser(other) {
                Some(chooser) => note(&mut self.choosers, chooser, Some(value)),
                None => self.is_ambiguous |= reads_as_model(other.as_bytes()),
            },
        }
    }
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
                let mut top = Top::default();
                // An escaped key (`"mod\u0065l"`) is the same key.
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    top.note(&key.0, map.next_value::<&RawValue>()?.get());
                }
                Ok(top)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Notes where a chooser stands; a repeated one has no certain place.
pub(super) fn note<T>(
    noted: &mut Vec<(&'static Chooser, Option<T>)>,
    chooser: &'static Chooser,
    at: Option<T>,
) {
    match noted.iter_mut().find(|(other, _)| *other == chooser) {
        Some((_, place)) => *place = None,
        None => noted.push((chooser, at)),
    }
}

/// A key, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A provider's parser may have no limit of depth.
fn check_depth(bytes: &[u8]) -> Result<(), BodyError> {
    match deeper_than(bytes, MAX_DEPTH) {
        Some(at) => Err(BodyError::InvalidJson(format!("nested deeper than {MAX_DEPTH} at byte {at}"))),
        None => Ok(()),
    }
}

const _: () = assert!(MAX_LEVELS <= MAX_DEPTH, "what is scanned is not too deep");

#[cfg(test)]
mod tests {
    use super::{Body, BodyError, MAX_DEPTH, MAX_MODEL, MAX_RESPONSE_ID};

    fn spliced(body: &str) -> String {
        let parsed = Body::parse(body.as_bytes()).expect("a good body");
        String::from_utf8(parsed.with_model(body.as_bytes(), b"NEW").concat()).expect("UTF-8 stays UTF-8")
    }

    #[test]
    fn written_escapes_what_a_json_string_cannot_hold() {
        let body = r#"{"model":"a\/b","n":1}"#;
        let parsed = Body::parse(body.as_bytes()).expect("a good body");
        for (model, value) in [("m/é-1", "\"m/é-1\""), ("a\"b\\c", r#""a\"b\\c""#), ("a\nb", r#""a\nb""#)] {
            let written = parsed.written(model);
            let spliced = parsed.with_model(body.as_bytes(), written.as_bytes()).concat();
            assert_eq!(spliced, format!(r#"{{"model":{value},"n":1}}"#).into_bytes());
        }
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
                r#"{"model":"a","n":123456789012345678901234567890,"n":1}"#,
                r#"{"model":"NEW","n":123456789012345678901234567890,"n":1}"#,
            ),
            (
                r#"{"messages":[{"model":"keep","content":"\"model\":\"x\""}],"model":"a","z":{"model":1}}"#,
                r#"{"messages":[{"model":"keep","content":"\"model\":\"x\""}],"model":"NEW","z":{"model":1}}"#,
            ),
        ] {
            assert_eq!(spliced(body), expected);
        }
    }

    #[test]
    fn model_repeated_or_in_another_case_is_refused() {
        for members in [
            r#""model":"a","model":"a""#,
            r#""model":"a","mod\u0065l":"b""#,
            r#""model":1,"model":"a""#,
            r#""model":"a","x":{},"model":null"#,
            r#""model":"a","Model":"b""#,
            r#""MODEL":"b","model":"a""#,
            r#""model":"a","\u004dodel":"b""#,
            r#""model":"a","\u006d\u004f\u0044\u0045\u004c":{}"#,
            r#""Model":"a""#,
        ] {
            let body = format!("{{{members}}}");
            assert_eq!(Body::parse(body.as_bytes()), Err(BodyError::AmbiguousModel), "{body}");
        }
        let others = r#"{"modelx":1,"mode":2,"model ":3,"мodel":4,"x":{"Model":5},"model":"a"}"#;
        assert_eq!(spliced(others), others.replace(r#""a""#, r#""NEW""#));
    }

    #[test]
    fn model_over_its_bound_is_refused() {
        let named = |length| Body::parse(format!("{{\"model\":\"{}\"}}", "m".repeat(length)).as_bytes());
        assert_eq!(named(MAX_MODEL).map(|body| body.model.len()), Ok(MAX_MODEL));
        assert_eq!(named(MAX_MODEL + 1), Err(BodyError::ModelTooLong));
        // Its own bytes count, not those of its escapes.
        let escaped = format!("{{\"model\":\"{}\"}}", "\\u006d".repeat(MAX_MODEL));
        assert_eq!(Body::parse(escaped.as_bytes()).map(|body| body.model.len()), Ok(MAX_MODEL));
    }

    #[test]
    fn previous_response_over_its_bound_is_refused() {
        let continuing = |length| {
            let body = format!(r#"{{"model":"a","previous_response_id":"{}"}}"#, "r".repeat(length));
            Body::parse(body.as_bytes()).map(|body| body.previous.map(|id| id.len()))
        };
        assert_eq!(continuing(MAX_RESPONSE_ID), Ok(Some(MAX_RESPONSE_ID)));
        assert_eq!(continuing(MAX_RESPONSE_ID + 1), Err(BodyError::ResponseIdTooLong));
    }

    #[test]
    fn last_stream_counts() {
        let body = Body::parse(br#"{"model":"b\u002fc","stream":false,"stream":true}"#).expect("good");
        assert_eq!((&*body.model, body.stream), ("b/c", true));
        assert!(!Body::parse(br#"{"model":"a","stream":"true"}"#).expect("good").stream);
    }

    #[test]
    fn every_truncation_is_invalid_json() {
        let body =
            br#"{"messages":[{"role":"user","content":"h\u00e9"}],"model":"a/b","stream":true,"n":-1.5e3}"#;
        assert!(Body::parse(body).is_ok());
        for end in 1..body.len() {
            assert!(matches!(Body::parse(&body[..end]), Err(BodyError::InvalidJson(_))), "cut at {end}");
        }
    }

    #[test]
    fn each_problem_of_the_model_has_its_own_error() {
        assert_eq!(Body::parse(b"{}"), Err(BodyError::MissingModel));
        for bad in [r#"{"model":""}"#, r#"{"model":null}"#, r#"{"model":["a"]}"#] {
            assert_eq!(Body::parse(bad.as_bytes()), Err(BodyError::InvalidModel), "{bad}");
        }
        for empty in ["", " \r\n\t"] {
            assert_eq!(Body::parse(empty.as_bytes()), Err(BodyError::Empty), "{empty:?}");
        }
        for bad in ["[]", "\"x\"", "{\"model\":\"a\"} x", "{\"model\":\"a\",}", "\u{feff}{\"model\":\"a\"}"] {
            assert!(matches!(Body::parse(bad.as_bytes()), Err(BodyError::InvalidJson(_))), "{bad}");
        }
        for bad in [&b"{\"model\":\"\xff\"}"[..], b"{\"model\":\"a\",\"x\":{\"\xd2\":1}}"] {
            assert!(matches!(Body::parse(bad), Err(BodyError::InvalidJson(_))), "{bad:?}");
        }
    }

    #[test]
    fn depth_has_a_bound_and_brackets_in_strings_do_not_count() {
        let nested =
            |depth: usize| format!("{{\"model\":\"a\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Body::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(matches!(Body::parse(nested(MAX_DEPTH).as_bytes()), Err(BodyError::InvalidJson(_))));
        assert!(matches!(Body::parse(nested(1_000_000).as_bytes()), Err(BodyError::InvalidJson(_))));
        let brackets = "[".repeat(1000);
        for text in [format!(r#"{brackets}\"["#), format!(r#"\\\"{brackets}"#), format!(r#"{brackets}\\"#)] {
            let body = format!(r#"{{"model":"a","x":"{text}","y":[]}}"#);
            assert!(Body::parse(body.as_bytes()).is_ok(), "{text}");
        }
        // The bytes after a string whose last character is a backslash are outside the string.
        let body = format!(r#"{{"model":"a","x":"\\","y":{brackets}}}"#);
        assert!(
            matches!(Body::parse(body.as_bytes()), Err(BodyError::InvalidJson(reason)) if reason.contains("nested"))
        );
    }
}
