//! A provider's error, in OpenAI's format or any other JSON.

use std::borrow::Cow;

use super::chat::text;
use super::json::{elements, members};
use super::raw::Raw;
use crate::limits::MAX_ERROR_TEXT;
use crate::text::beginning;

/// An error of a provider.
#[derive(Debug)]
pub(super) struct Reported<'a> {
    /// The error message; without one, the beginning of the document.
    pub(super) message: Cow<'a, str>,
    /// The provider's code; only if it is a string.
    pub(super) code: Option<Cow<'a, str>>,
}

impl<'a> Reported<'a> {
    /// Reads a document.
    pub(super) fn of(document: &'a [u8]) -> Self {
        let (message, code) = serde_json::from_slice(document).map(facts).unwrap_or_default();
        let message = message.filter(|message| !message.trim().is_empty());
        let code = code.filter(|code| !code.is_empty());
        Self { message: message.unwrap_or_else(|| shortened(document)), code }
    }
}

fn shortened(document: &[u8]) -> Cow<'_, str> {
    // A cut character lies after the kept part.
    let text = String::from_utf8_lossy(&document[..document.len().min(MAX_ERROR_TEXT + 1)]);
    Cow::Owned(beginning(&text, MAX_ERROR_TEXT).to_owned())
}

/// Its message and its code.
fn facts(document: Raw<'_>) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    // Gemini's compatibility layer sends a list with one element.
    let document = first(document).unwrap_or(document);
    let [error, outer, detail] = values(document, ["error", "message", "detail"]);
    let error = error.unwrap_or(document);
    let [inner, code] = values(error, ["message", "code"]);
    let message = [Some(error), inner, outer, detail].into_iter().flatten().find_map(text);
    (message, code.and_then(text))
}

/// The first element of an array.
fn first(document: Raw<'_>) -> Option<Raw<'_>> {
    let mut first = None;
    // Other values have no elements.
    let _ = elements(document, |_, element| {
        first = first.or(Some(element));
        Ok(())
    });
    first
}

/// The values of those members; none for a value that is no object.
fn values<'a, const N: usize>(object: Raw<'a>, names: [&str; N]) -> [Option<Raw<'a>>; N] {
    let mut values = [None; N];
    let _ = members(object, |key, value| {
        for (name, it) in names.iter().zip(&mut values) {
            *it = Some(value).filter(|_| *name == key).or(*it);
        }
        Ok(())
    });
    values
}
