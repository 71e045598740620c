//! JSON for the config loader: it keeps duplicate keys and file order, and marks the bytes of each string
//! that came from the environment.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::config::Secret;
use crate::limits::MAX_QUOTED;
use crate::text::quoted;

/// Any JSON value. It has no `Debug` because it holds keys and tokens.
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(Text),
    Array(Vec<Json>),
    /// In file order, duplicates included.
    Object(Vec<(String, Json)>),
}

/// A string of the file with its `${NAME}`s replaced.
#[derive(Clone, Default)]
pub(super) struct Text {
    value: String,
    /// Bytes of `value` that came from the environment, with the names of their variables. Never shown: a
    /// reader of the message may not be the person who set the variable.
    variables: Vec<(Range<usize>, String)>,
    /// Variables that are not set.
    missing: Vec<String>,
}

impl Json {
    /// Replaces the `${NAME}`s of every string in this value.
    pub(super) fn expand(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
            Self::String(text) => *text = Text::expanded(&text.value, env),
            Self::Array(items) => items.iter_mut().for_each(|item| item.expand(env)),
            Self::Object(entries) => entries.iter_mut().for_each(|(_, value)| value.expand(env)),
        }
    }

    /// The string, if it is one.
    pub(super) fn text(&self) -> Option<&Text> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Form for a message about a value that is no secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::String(text) => text.shown(),
            Self::Array(_) => "[…]".to_owned(),
            Self::Object(_) => "{…}".to_owned(),
        }
    }

    /// Form for a message about a value in the place of a secret.
    pub(super) fn masked(&self) -> String {
        match self {
            Self::Number(number) => Secret::new(number.to_string()).masked(),
            Self::String(text) => text.masked(),
            Self::Null | Self::Bool(_) | Self::Array(_) | Self::Object(_) => self.shown(),
        }
    }
}

impl Text {
    /// A string without variables.
    pub(super) fn literal(value: String) -> Self {
        Self { value, ..Self::default() }
    }

    /// Replaces the variables of `raw`. Only `${`, a name and `}` form one, so that a regex such as `^a$` or
    /// `a{2}` stays unchanged; a replaced value is not expanded again.
    pub(super) fn expanded(raw: &str, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut text = Self::default();
        let mut rest = raw;
        while let Some(at) = rest.find("${") {
            text.value.push_str(&rest[..at]);
            let behind = &rest[at + 2..];
            let Some(name) = variable_name(behind) else {
                text.value.push_str("${");
                rest = behind;
                continue;
            };
            match env(name) {
                Some(value) => {
                    let start = text.value.len();
                    text.value.push_str(&value);
                    text.variables.push((start..text.value.len(), name.to_owned()));
                }
                None => text.missing.push(name.to_owned()),
            }
            rest = &behind[name.len() + 1..];
        }
        text.value.push_str(rest);
        text
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Variables that are not set; if there are any, the value is meaningless.
    pub(super) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Form for a message: quoted, escaped, cut, with `${NAME}` in place of the environment's text.
    pub(super) fn shown(&self) -> String {
        let mut raw = String::with_capacity(self.value.len());
        let mut from = 0;
        for (span, name) in &self.variables {
            raw.push_str(&self.value[from..span.start]);
            raw.push_str(&format!("${{{name}}}"));
            from = span.end;
        }
        raw.push_str(&self.value[from..]);
        format!("\"{}\"", quoted(&raw, MAX_QUOTED))
    }

    /// Form of a secret for a message: its variable, or its ends.
    pub(super) fn masked(&self) -> String {
        match self.variables.as_slice() {
            _ if self.value.is_empty() => self.shown(),
            [] => quoted(&Secret::new(self.value.clone()).masked(), MAX_QUOTED),
            [(span, _)] if *span == (0..self.value.len()) => self.shown(),
            _ => "***".to_owned(),
        }
    }

    /// Whether any part came from the environment.
    pub(super) fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The parts before and after the first `divider`.
    pub(super) fn split_once(&self, divider: char) -> Option<(Self, Self)> {
        let at = self.value.find(divider)?;
        Some((self.slice(0..at), self.slice(at + divider.len_utf8()..self.value.len())))
    }

    fn slice(&self, part: Range<usize>) -> Self {
        let clip = |position: usize| position.clamp(part.start, part.end) - part.start;
        let inside = self.variables.iter().filter(|(span, _)| span.start < part.end && span.end > part.start);
        Self {
            value: self.value[part.clone()].to_owned(),
            variables: inside.map(|(span, name)| (clip(span.start)..clip(span.end), name.clone())).collect(),
            missing: Vec::new(),
        }
    }
}

/// The variable name at the start of `text`, if `}` follows it. Reads only the name, so that the cost of a
/// file full of `${` is linear.
fn variable_name(text: &str) -> Option<&str> {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let length = text.bytes().take_while(|byte| is_inside(*byte)).count();
    let (name, behind) = text.split_at(length);
    let starts_well = !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit());
    (starts_well && behind.starts_with('}')).then_some(name)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

/// Builds a [`Json`]; serde_json bounds the depth.
struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // `from_f64` refuses only numbers that are not finite, and JSON text has none.
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(Text::literal(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(Text::literal(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    fn expanded(raw: &str) -> Text {
        Text::expanded(raw, &|name| match name {
            "A" => Some("alpha".into()),
            "_b2" => Some("${A}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn only_a_whole_variable_is_replaced_and_only_once() {
        for (raw, value) in [
            ("${A}", "alpha"),
            ("x${A}y${A}", "xalphayalpha"),
            ("${_b2}", "${A}"),
            ("${EMPTY}", ""),
            ("${${A}}", "${alpha}"),
            ("^gpt-4$", "^gpt-4$"),
            ("a{2}", "a{2}"),
            ("$", "$"),
            ("${", "${"),
            ("${}", "${}"),
            ("${2}", "${2}"),
            ("${A", "${A"),
            ("${A B}", "${A B}"),
            ("$A", "$A"),
            ("${é}", "${é}"),
        ] {
            let text = expanded(raw);
            assert_eq!(text.value(), value, "{raw}");
            assert!(text.missing().is_empty(), "{raw}");
        }
        assert_eq!(expanded("${NONE}${A}${OTHER}").missing(), ["NONE", "OTHER"]);
    }

    #[test]
    fn a_long_row_of_open_variables_is_read_in_one_pass() {
        // A search for each one's `}` took minutes for a file of this size.
        let raw = "${".repeat(2_000_000);
        assert_eq!(expanded(&raw).value().len(), raw.len());
    }

    #[test]
    fn what_came_from_the_environment_is_not_shown_also_after_a_split() {
        let text = expanded("p${A}|${A}|k");
        assert_eq!(text.shown(), "\"p${A}|${A}|k\"");
        let (name, rest) = text.split_once('|').unwrap();
        assert_eq!((name.value(), name.shown().as_str()), ("palpha", "\"p${A}\""));
        let (url, key) = rest.split_once('|').unwrap();
        assert_eq!((url.value(), url.masked().as_str()), ("alpha", "\"${A}\""));
        assert_eq!((key.value(), key.masked().as_str()), ("k", "***"));
        assert_eq!(name.masked(), "***");
    }

    #[test]
    fn a_split_inside_a_variable_hides_both_halves() {
        let text = Text::expanded("${PAIR}!", &|_| Some("left|right".into()));
        let (left, right) = text.split_once('|').unwrap();
        assert_eq!((left.value(), left.shown().as_str()), ("left", "\"${PAIR}\""));
        assert_eq!((right.value(), right.shown().as_str()), ("right!", "\"${PAIR}!\""));
    }
}
