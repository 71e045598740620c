//! The text and reasoning of a message, in the forms that providers use.

use super::chat::{Said, bytes, word};
use super::json::{elements, inside, members};
use super::raw::Raw;
use super::unfit::Unfit;

/// Deepest level of lists and objects to search for reasoning.
const MAX_DEPTH: u8 = 4;

/// Parts of a content that only refer to other data; they are omitted.
const REFERENCES: &[&str] = &["reference", "tool_reference", "citation"];

/// Kind of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Thought,
    Text,
    Refusal,
}

impl<'a> Said<'a> {
    /// The one text that it holds, where it holds nothing else.
    pub(super) fn sole_text(&self) -> Option<(Piece, Raw<'a>)> {
        let others = [self.refusal, self.reasoning_details, self.function_call, self.images, self.audio];
        let is_annotated = self.annotations.is_some_and(|list| list.get().len() > "[]".len());
        if is_annotated || self.tool_calls.is_some() || others.iter().any(Option::is_some) {
            return None;
        }
        match (self.content, self.reasoning_content.xor(self.reasoning)) {
            (Some(text), None) if self.reasoning.is_none() => Some((Piece::Text, text)),
            (None, Some(thought)) => Some((Piece::Thought, thought)),
            _ => None,
        }
    }

    /// Calls `piece` with each piece of the message, in order.
    ///
    /// # Errors
    /// A part has no counterpart in the Messages API; else the error of `piece`.
    pub(super) fn pieces(
        &self,
        mut piece: impl FnMut(Piece, &[u8]) -> Result<(), Unfit>,
    ) -> Result<(), Unfit> {
        // Some providers repeat the same text under several names.
        for thoughts in [self.reasoning_content, self.reasoning, self.reasoning_details].into_iter().flatten()
        {
            let mut has_thought = false;
            words(thoughts, MAX_DEPTH, &mut |thought| {
                has_thought |= !thought.is_empty();
                piece(Piece::Thought, thought)
            })?;
            if has_thought {
                break;
            }
        }
        if let Some(content) = self.content {
            pieces_of(content, &mut piece)?;
        }
        if let Some(refusal) = self.refusal.and_then(bytes) {
            piece(Piece::Refusal, &refusal)?;
        }
        let holds = |raw: Option<Raw<'_>>| raw.is_some_and(|raw| raw.get().len() > "[]".len());
        if holds(self.images) || holds(self.audio) {
            return Err(Unfit::Malformed("the message holds pictures or sound"));
        }
        Ok(())
    }
}

impl Said<'_> {
    /// Calls `each` with at most so many citations of the text, in the form of the Responses API.
    pub(super) fn each_annotation(&self, most: usize, mut each: impl FnMut(String)) {
        let Some(annotations) = self.annotations else { return };
        let mut left = most;
        // A value that is no list has none.
        let _ = elements(annotations, |_, annotation| {
            if let Some(citation) = citation(annotation).filter(|_| left > 0) {
                left -= 1;
                each(citation);
            }
            Ok(())
        });
    }
}

fn citation(annotation: Raw<'_>) -> Option<String> {
    let (mut start, mut end, mut url, mut title) = ("0", "0", None, "\"\"");
    let mut inside_of = None;
    let note = |key: &str, value| {
        inside_of = Some(value).filter(|_| key == "url_citation").or(inside_of);
        Ok(())
    };
    members(annotation, note).ok()?;
    let is_index = |value: Raw<'_>| value.get().parse::<u64>().is_ok();
    members(inside_of?, |key, value| {
        match key {
            "start_index" if is_index(value) => start = value.get(),
            "end_index" if is_index(value) => end = value.get(),
            "url" if inside(value).is_ok() => url = Some(value.get()),
            "title" if inside(value).is_ok() => title = value.get(),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    let pieces =
        ["{\"type\":\"url_citation\",\"start_index\":", start, ",\"end_index\":", end, ",\"url\":", url?];
    Some(pieces.concat() + ",\"title\":" + title + "}")
}

/// The text of a content: a string, a list of parts, or an object, which becomes its own JSON.
fn pieces_of(
    content: Raw<'_>,
    piece: &mut impl FnMut(Piece, &[u8]) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    const NO_TEXT: Unfit = Unfit::Malformed("content is no text");
    if let Some(text) = bytes(content) {
        return piece(Piece::Text, &text);
    }
    match content.get().as_bytes() {
        [b'{', ..] => {
            if part(content, piece)? {
                return Ok(());
            }
            piece(Piece::Text, content.get().as_bytes())
        }
        [b'[', ..] => each(content, |value| match bytes(value) {
            Some(text) => piece(Piece::Text, &text),
            None if part(value, piece)? => Ok(()),
            None => Err(NO_TEXT),
        }),
        _ => Err(NO_TEXT),
    }
}

/// Reads one part of a content. Returns whether its type is known.
fn part(part: Raw<'_>, piece: &mut impl FnMut(Piece, &[u8]) -> Result<(), Unfit>) -> Result<bool, Unfit> {
    let (mut kind, mut text, mut refusal, mut thinking) = (None, None, None, None);
    let read = members(part, |key, value| {
        match key {
            "type" => kind = word(Some(value)),
            "text" => text = bytes(value),
            "refusal" => refusal = bytes(value),
            "thinking" | "reasoning" => thinking = Some(value),
            _ => {}
        }
        Ok(())
    });
    let Some(kind) = kind.filter(|_| read.is_ok()) else { return Ok(false) };
    match (&*kind, text, refusal, thinking) {
        ("thinking" | "reasoning", None, _, Some(thinking)) => {
            words(thinking, MAX_DEPTH, &mut |thought| piece(Piece::Thought, thought))?;
        }
        ("thinking" | "reasoning", Some(text), ..) => piece(Piece::Thought, &text)?,
        ("refusal", _, Some(refusal), _) => piece(Piece::Refusal, &refusal)?,
        (kind, ..) if REFERENCES.contains(&kind) => {}
        (_, Some(text), ..) => piece(Piece::Text, &text)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Calls `word` with the text in a string, a list or an object.
fn words(raw: Raw<'_>, depth: u8, word: &mut impl FnMut(&[u8]) -> Result<(), Unfit>) -> Result<(), Unfit> {
    if let Some(text) = bytes(raw) {
        return word(&text);
    }
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    if raw.get().starts_with('[') {
        return each(raw, |value| words(value, depth, &mut *word));
    }
    let mut inside = None;
    // A value that is no object has none.
    let _ = members(raw, |key, value| {
        let is_text = matches!(key, "text" | "content" | "thinking" | "summary" | "reasoning");
        inside = inside.or(Some(value).filter(|_| is_text));
        Ok(())
    });
    inside.map_or(Ok(()), |inside| words(inside, depth, word))
}

/// Calls `element` with each element until one fails.
fn each<'a>(list: Raw<'a>, mut element: impl FnMut(Raw<'a>) -> Result<(), Unfit>) -> Result<(), Unfit> {
    let mut unfit = Ok(());
    let read = elements(list, |_, value| {
        if unfit.is_ok() {
            unfit = element(value);
        }
        Ok(())
    });
    unfit.and(read.map_err(|_| Unfit::Malformed("no list")))
}
