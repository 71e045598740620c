//! The parts of a message, of a tool's output and of a model's reasoning, as far as chat has counterparts.

use std::borrow::Cow;

use crate::dialect::json::{Fit, Refusal, elements, inside, is_array, members, string};
use crate::dialect::output::{Output, Separated};
use crate::dialect::raw::Raw;
use crate::limits::MAX_BLOCKS;

/// Separator between two texts that become one string, as JSON.
const BETWEEN: &str = "\\n\\n";

/// Known types of parts.
const KINDS: &[&str] = &[
    "input_file",
    "input_image",
    "input_text",
    "output_text",
    "reasoning_text",
    "refusal",
    "summary_text",
    "text",
];

/// A part as JSON.
pub(super) enum Part<'a> {
    Text(&'a str),
    Image { url: &'a str, detail: Option<&'a str> },
    File { data: Option<&'a str>, id: Option<&'a str>, name: Option<&'a str> },
}

/// The `type` of a value.
pub(super) fn kind(value: Raw<'_>) -> Fit<Cow<'_, str>> {
    let mut kind = None;
    members(value, |key, value| {
        if key == "type" {
            kind = Some(string(value)?);
        }
        Ok(())
    })?;
    kind.ok_or_else(|| Refusal::expected("type", "a string"))
}

impl<'a> Part<'a> {
    fn of(part: Raw<'a>) -> Fit<Self> {
        let kind = kind(part)?;
        if !KINDS.contains(&&*kind) {
            return Err(Refusal::of_value(&kind).within("type"));
        }
        let (mut text, mut refusal, mut image, mut detail) = (None, None, None, None);
        let (mut data, mut id, mut url, mut name) = (None, None, None, None);
        members(part, |key, value| {
            match key {
                // Sources of a text, and hints for a cache.
                "type" | "annotations" | "logprobs" | "prompt_cache_breakpoint" => {}
                "text" => text = Some(inside(value)?),
                "refusal" => refusal = Some(inside(value)?),
                "image_url" => image = Some(inside(value)?),
                "detail" => detail = Some(inside(value)?),
                "file_data" => data = Some(inside(value)?),
                "file_id" => id = Some(inside(value)?),
                "file_url" => url = Some(inside(value)?),
                "filename" => name = Some(inside(value)?),
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        let missing = |key| Refusal::expected(key, "a string");
        match &*kind {
            "refusal" => refusal.map(Self::Text).ok_or_else(|| missing("refusal")),
            // Chat has ids for document files but not for images, and fetches no files.
            "input_image" if image.is_none() && id.is_some() => Err(Refusal::not_carried("file_id")),
            "input_image" => {
                let detail = detail.filter(|detail| matches!(*detail, "low" | "high"));
                image.map(|url| Self::Image { url, detail }).ok_or_else(|| missing("image_url"))
            }
            "input_file" if url.is_some() => Err(Refusal::not_carried("file_url")),
            "input_file" if data.is_none() && id.is_none() => Err(missing("file_data")),
            "input_file" => Ok(Self::File { data, id, name }),
            _ => text.map(Self::Text).ok_or_else(|| missing("text")),
        }
    }

    /// Its kind, if it is no text.
    pub(super) fn attachment(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) => None,
            Self::Image { .. } => Some("image"),
            Self::File { .. } => Some("file"),
        }
    }

    /// Writes it as a part of a user's message.
    pub(super) fn write(&self, out: &mut Output, list: &mut Separated) {
        list.next(out);
        match self {
            Self::Text(text) => out.write(&["{\"type\":\"text\",\"text\":\"", text, "\"}"]),
            Self::Image { url, detail } => {
                out.write(&["{\"type\":\"image_url\",\"image_url\":{\"url\":\"", url, "\""]);
                if let Some(detail) = detail {
                    out.write(&[",\"detail\":\"", detail, "\""]);
                }
                out.write(&["}}"]);
            }
            Self::File { data, id, name } => {
                out.write(&["{\"type\":\"file\",\"file\":{"]);
                let mut members = Separated::default();
                for (key, value) in [("filename", name), ("file_data", data), ("file_id", id)] {
                    if let Some(value) = value {
                        members.next(out);
                        out.write(&["\"", key, "\":\"", value, "\""]);
                    }
                }
                out.write(&["}}"]);
            }
        }
    }
}

/// Calls `part` with each part of a content; a string is one text part.
pub(super) fn parts<'a>(content: Raw<'a>, mut part: impl FnMut(Part<'a>) -> Fit<()>) -> Fit<()> {
    if !is_array(content) {
        return part(Part::Text(inside(content)?));
    }
    elements(content, |at, value| {
        if at == MAX_BLOCKS {
            return Err(Refusal::expected("", "at most 10000 blocks in a message"));
        }
        part(Part::of(value)?)
    })
}

const _: () = assert!(MAX_BLOCKS == 10_000, "an error names it");

/// Adds the texts of a content with no other parts.
pub(super) fn add_texts(out: &mut Output, texts: &mut Texts, content: Raw<'_>) -> Fit<()> {
    parts(content, |part| match (&part, part.attachment()) {
        (Part::Text(text), _) => {
            texts.add(out, &[text]);
            Ok(())
        }
        (_, kind) => Err(Refusal::of_value(kind.unwrap_or_default())),
    })
}

/// Texts that become one string, copied with their escapes as they are in the request.
#[derive(Default)]
pub(super) struct Texts {
    has_begun: bool,
    says_something: bool,
}

impl Texts {
    /// Adds a text, given in pieces.
    pub(super) fn add(&mut self, out: &mut Output, text: &[&str]) {
        out.write(&[if self.has_begun { BETWEEN } else { "" }]);
        out.write(text);
        self.has_begun = true;
        self.says_something |= text.iter().any(|piece| !piece.is_empty());
    }

    pub(super) fn are_empty(&self) -> bool {
        !self.says_something
    }
}
