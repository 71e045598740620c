//! Readers of JSON one level at a time: unchanged values are copied byte for byte, and an error names its
//! place.

use std::borrow::Cow;
use std::fmt;

use super::raw::Raw;
use crate::limits::{MAX_ID, MAX_QUOTED};
use crate::text::beginning;

/// Why a request cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The place: `messages.0.content.1.source`.
    pub place: String,
    /// The problem there.
    pub problem: Problem,
}

/// A problem of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The other format has no counterpart.
    NotCarried,
    /// It has the wrong form: the expected one.
    Expected(&'static str),
    /// The translated request is larger than this many bytes.
    TooLarge(usize),
}

impl Refusal {
    /// The other format has no counterpart of this place.
    pub fn not_carried(place: &str) -> Self {
        Self { place: place.to_owned(), problem: Problem::NotCarried }
    }

    /// This place has the wrong form.
    pub fn expected(place: &str, what: &'static str) -> Self {
        Self { place: place.to_owned(), problem: Problem::Expected(what) }
    }

    /// The other format has no counterpart of this value of a known member: the place ends in ` (value)`.
    pub fn of_value(value: &str) -> Self {
        Self::not_carried(&format!(" ({})", quoted(value)))
    }

    /// The same refusal as seen from the level above.
    pub fn within(self, outer: impl fmt::Display) -> Self {
        let between = if self.place.is_empty() || self.place.starts_with(' ') { "" } else { "." };
        Self { place: format!("{outer}{between}{}", self.place), ..self }
    }
}

/// The part of a client's word that an error quotes: each level of a place would copy the whole word.
pub fn quoted(word: &str) -> &str {
    beginning(word, MAX_QUOTED)
}

/// Result of the functions in this module.
pub type Fit<T> = Result<T, Refusal>;

/// Calls `member` with each member of an object. Members that are null count as absent.
///
/// # Errors
/// It is no object, or `member` refuses; the place begins with the member's key.
pub fn members<'a>(raw: Raw<'a>, mut member: impl FnMut(&str, Raw<'a>) -> Fit<()>) -> Fit<()> {
    let mut parts = raw.parts('{').ok_or_else(|| Refusal::expected("", "an object"))?;
    while let Some((key, value)) = parts.member() {
        if value.get() != "null" {
            let key = string(key).unwrap_or_default();
            member(&key, value).map_err(|refusal| refusal.within(quoted(&key)))?;
        }
    }
    Ok(())
}

/// Calls `element` with each element of an array.
///
/// # Errors
/// It is no array, or `element` refuses; the place begins with the element's index.
pub fn elements<'a>(raw: Raw<'a>, mut element: impl FnMut(usize, Raw<'a>) -> Fit<()>) -> Fit<()> {
    let parts = raw.parts('[').ok_or_else(|| Refusal::expected("", "an array"))?;
    parts.enumerate().try_for_each(|(at, value)| element(at, value).map_err(|refusal| refusal.within(at)))
}

/// A string as JSON, with its escapes and without its quotes, so that it can be copied into another.
///
/// # Errors
/// It is no string.
pub fn inside(raw: Raw<'_>) -> Fit<&str> {
    let inside = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.ok_or_else(|| Refusal::expected("", "a string"))
}

/// A string.
///
/// # Errors
/// It is no string.
pub fn string(raw: Raw<'_>) -> Fit<Cow<'_, str>> {
    inside(raw).map(|inside| word(raw, inside))
}

/// A string without its escapes. A long string with escapes is no known word: it stays unchanged and takes no
/// memory.
fn word<'a>(raw: Raw<'a>, inside: &'a str) -> Cow<'a, str> {
    let is_plain = inside.len() > MAX_ESCAPED || !inside.contains('\\');
    let decoded = || serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    (!is_plain).then(decoded).flatten().unwrap_or(Cow::Borrowed(inside))
}

/// Longest string with escapes that may be a word, bytes: each character of a quote may be an escape.
const MAX_ESCAPED: usize = "\\u0000".len() * MAX_QUOTED;

/// An id as JSON, without its quotes, because it is written more than once.
///
/// # Errors
/// It is no string, or longer than [`MAX_ID`].
pub fn id(raw: Raw<'_>) -> Fit<&str> {
    let id = inside(raw)?;
    if id.len() > MAX_ID { Err(Refusal::expected("", "at most 256 bytes")) } else { Ok(id) }
}

const _: () = assert!(MAX_ID == 256, "an error names it");

/// Whether it is `true`.
///
/// # Errors
/// It is neither `true` nor `false`.
pub fn boolean(raw: Raw<'_>) -> Fit<bool> {
    raw.get().parse().map_err(|_| Refusal::expected("", "true or false"))
}

/// Whether a value is an array.
pub fn is_array(raw: Raw<'_>) -> bool {
    raw.get().starts_with('[')
}

/// A required value.
///
/// # Errors
/// It is missing.
pub fn required<'a>(value: Option<Raw<'a>>, key: &str) -> Fit<Raw<'a>> {
    value.ok_or_else(|| Refusal::expected(key, "a value"))
}
