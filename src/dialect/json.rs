//! JSON that is looked at level by level, so that what passes unchanged is copied byte for byte, and that tells where it
//! was not as it should be.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use crate::json::{Stop, try_elements, try_members};
use crate::limits::{MAX_ID, MAX_QUOTED};
use crate::text::beginning;

/// Why a request cannot be put into the other format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where: `messages.0.content.1.source`.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The other format has no place for it.
    NotCarried,
    /// It is not what it has to be: this.
    Expected(&'static str),
    /// The translated request is larger than this many bytes.
    TooLarge(usize),
}

impl Refusal {
    /// The other format has no place for this.
    pub fn not_carried(place: &str) -> Self {
        Self { place: place.to_owned(), problem: Problem::NotCarried }
    }

    /// This is not what it has to be.
    pub fn expected(place: &str, what: &'static str) -> Self {
        Self { place: place.to_owned(), problem: Problem::Expected(what) }
    }

    /// The other format has no place for this value of a member that it knows: the place ends in ` (value)`.
    pub fn of_value(value: &str) -> Self {
        Self::not_carried(&format!(" ({})", quoted(value)))
    }

    /// The same, seen from the level above.
    pub fn within(self, outer: impl fmt::Display) -> Self {
        let between = if self.place.is_empty() || self.place.starts_with(' ') { "" } else { "." };
        Self { place: format!("{outer}{between}{}", self.place), ..self }
    }
}

/// As much of a client's word as an error quotes: each level of a place would copy the whole.
pub fn quoted(word: &str) -> &str {
    beginning(word, MAX_QUOTED)
}

/// What the functions of this room give.
pub type Fit<T> = Result<T, Refusal>;

/// Hands each member of an object to `member`, but for those that are null: they count as absent.
///
/// # Errors
/// It is no object, or `member` refuses; the place begins with the member's key.
pub fn members<'a>(raw: &'a RawValue, mut member: impl FnMut(&str, &'a RawValue) -> Fit<()>) -> Fit<()> {
    // serde would quote what is none.
    if !raw.get().starts_with('{') {
        return Err(Refusal::expected("", "an object"));
    }
    let each = |key: &'a RawValue, value: &'a RawValue| {
        if value.get() == "null" {
            return Ok(());
        }
        let key = string(key).unwrap_or_default();
        member(&key, value).map_err(|refusal| refusal.within(quoted(&key)))
    };
    try_members(raw.get(), each).map_err(|stop| refusal(stop, "an object"))
}

/// Hands each element of an array to `element`.
///
/// # Errors
/// It is no array, or `element` refuses; the place begins with the element's number.
pub fn elements<'a>(raw: &'a RawValue, mut element: impl FnMut(usize, &'a RawValue) -> Fit<()>) -> Fit<()> {
    if !is_array(raw) {
        return Err(Refusal::expected("", "an array"));
    }
    let mut at = 0;
    let each = |value| {
        element(at, value).map_err(|refusal| refusal.within(at))?;
        at += 1;
        Ok(())
    };
    try_elements(raw.get(), each).map_err(|stop| refusal(stop, "an array"))
}

fn refusal(stop: Stop<Refusal>, expected: &'static str) -> Refusal {
    match stop {
        Stop::Unfit(_) => Refusal::expected("", expected),
        Stop::Refused(refusal) => refusal,
    }
}

/// A string as JSON has it, escapes and all, without its quotes: it can be copied into another.
///
/// # Errors
/// It is no string.
pub fn inside(raw: &RawValue) -> Fit<&str> {
    let inside = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.ok_or_else(|| Refusal::expected("", "a string"))
}

/// A string.
///
/// # Errors
/// It is no string.
pub fn string(raw: &RawValue) -> Fit<Cow<'_, str>> {
    inside(raw).map(|inside| word(raw, inside))
}

/// A string without its escapes. A long one with escapes is no word that is known: it stays as it stands, and takes no memory.
fn word<'a>(raw: &'a RawValue, inside: &'a str) -> Cow<'a, str> {
    let is_plain = inside.len() > MAX_ESCAPED || !inside.contains('\\');
    let decoded = || serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    (!is_plain).then(decoded).flatten().unwrap_or(Cow::Borrowed(inside))
}

/// Longest string with escapes that is taken for a word, bytes: each character of as much as is quoted may be one.
const MAX_ESCAPED: usize = "\\u0000".len() * MAX_QUOTED;

/// An id as JSON has it, without its quotes: it is written more than once.
///
/// # Errors
/// It is no string, or longer than [`MAX_ID`].
pub fn id(raw: &RawValue) -> Fit<&str> {
    let id = inside(raw)?;
    if id.len() > MAX_ID { Err(Refusal::expected("", "at most 256 bytes")) } else { Ok(id) }
}

const _: () = assert!(MAX_ID == 256, "an error names it");

/// Whether it is `true`.
///
/// # Errors
/// It is neither `true` nor `false`.
pub fn boolean(raw: &RawValue) -> Fit<bool> {
    raw.get().parse().map_err(|_| Refusal::expected("", "true or false"))
}

/// Whether a value is an array.
pub fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

/// A value that must be there.
///
/// # Errors
/// It is not.
pub fn required<'a>(value: Option<&'a RawValue>, key: &str) -> Fit<&'a RawValue> {
    value.ok_or_else(|| Refusal::expected(key, "a value"))
}
