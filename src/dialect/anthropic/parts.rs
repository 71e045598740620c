//! The blocks of a request's messages, as far as chat has counterparts.

use std::borrow::Cow;

use crate::config::Thinking;
use crate::dialect::chat_request::Attached;
use crate::dialect::json::{
    Fit, Refusal, boolean, elements, id, inside, is_array, members, required, string,
};
use crate::dialect::output::Output;
use crate::dialect::raw::Raw;
use crate::limits::MAX_BLOCKS;

/// An image or a PDF, its parts as JSON.
pub(super) enum Attachment<'a> {
    Image(Source<'a>),
    Pdf(Source<'a>),
    /// A PDF stored at the provider: its id there.
    Stored(&'a str),
}

/// Source of an attachment's bytes.
pub(super) enum Source<'a> {
    Data { media_type: &'a str, base64: &'a str },
    Url(&'a str),
}

impl Attachment<'_> {
    /// Writes it as a part of a user's message.
    pub(super) fn write(&self, out: &mut Output) {
        match self {
            Self::Image(source) => {
                out.write(&["{\"type\":\"image_url\",\"image_url\":{\"url\":\""]);
                source.write(out);
            }
            Self::Pdf(source) => {
                // OpenAI requires a name; some providers accept a URL in place of the data.
                out.write(&["{\"type\":\"file\",\"file\":{\"filename\":\"file.pdf\",\"file_data\":\""]);
                source.write(out);
            }
            Self::Stored(id) => out.write(&["{\"type\":\"file\",\"file\":{\"file_id\":\"", id]),
        }
        out.write(&["\"}}"]);
    }

    pub(super) fn note(&self, attached: &mut Attached) {
        match self {
            Self::Image(_) => attached.image = true,
            Self::Pdf(_) | Self::Stored(_) => attached.pdf = true,
        }
    }

    /// Text in a tool's result that stands for the attachment: chat takes attachments only from the user.
    pub(super) fn below(&self) -> &'static str {
        match self {
            Self::Image(_) => "[image: see the next user message]",
            Self::Pdf(_) | Self::Stored(_) => "[PDF: see the next user message]",
        }
    }

    /// Text before the attachments of a tool's result, followed by the call's id.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Image(_) => "[image of the result of ",
            Self::Pdf(_) | Self::Stored(_) => "[PDF of the result of ",
        }
    }
}

impl Source<'_> {
    fn write(&self, out: &mut Output) {
        match self {
            Self::Data { media_type, base64 } => out.write(&["data:", media_type, ";base64,", base64]),
            Self::Url(url) => out.write(&[url]),
        }
    }
}

/// Counts the blocks of a message.
#[derive(Default)]
pub(super) struct Count(usize);

impl Count {
    /// Calls the callback with each block. Places are within `content`.
    pub(super) fn each<'a>(
        &mut self,
        content: Raw<'a>,
        mut block: impl FnMut(&mut Self, Raw<'a>) -> Fit<()>,
    ) -> Fit<()> {
        elements(content, |_, value| {
            self.0 += 1;
            if self.0 > MAX_BLOCKS {
                return Err(Refusal::expected("", "at most 10000 blocks in a message"));
            }
            block(self, value)
        })
    }
}

const _: () = assert!(MAX_BLOCKS == 10_000, "an error names it");

/// A call by the assistant, its parts as JSON.
pub(super) struct Call<'a> {
    id: &'a str,
    name: &'a str,
    input: &'a str,
}

impl Call<'_> {
    pub(super) fn write(&self, out: &mut Output) {
        out.write(&["{\"id\":\"", self.id, "\",\"type\":\"function\",\"function\":{\"name\":\"", self.name]);
        out.write(&["\",\"arguments\":"]);
        out.string(self.input);
        out.write(&["}}"]);
    }
}

pub(super) fn call(block: Raw<'_>) -> Fit<Call<'_>> {
    let (mut call, mut name, mut input) = (None, None, None);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "id" => call = Some(id(value)?),
            "name" => name = Some(inside(value)?),
            "input" => members(value, |_, _| Ok(())).map(|()| input = Some(value))?,
            "caller" => match &*kind(value)? {
                "direct" => {}
                other => return Err(unknown(other)),
            },
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let id = call.ok_or_else(|| Refusal::expected("id", "a string"))?;
    let name = name.ok_or_else(|| Refusal::expected("name", "a string"))?;
    Ok(Call { id, name, input: required(input, "input")?.get() })
}

pub(super) fn kind(block: Raw<'_>) -> Fit<Cow<'_, str>> {
    let mut kind = None;
    members(block, |key, value| {
        if key == "type" {
            kind = Some(string(value)?);
        }
        Ok(())
    })?;
    kind.ok_or_else(|| Refusal::expected("type", "a string"))
}

pub(super) fn unknown(kind: &str) -> Refusal {
    Refusal::of_value(kind).within("type")
}

/// The name of a tool that a search has found for the model.
pub(super) fn tool_reference(block: Raw<'_>) -> Fit<&str> {
    let mut name = None;
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "tool_name" => name = Some(inside(value)?),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    name.ok_or_else(|| Refusal::expected("tool_name", "a string"))
}

pub(super) fn text(block: Raw<'_>) -> Fit<&str> {
    let mut text = None;
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "text" => text = Some(inside(value)?),
            "citations" => elements(value, |_, _| Err(Refusal::not_carried("")))?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    text.ok_or_else(|| Refusal::expected("text", "a string"))
}

/// A block of a user's message or of a tool's result: its text, and its attachment.
pub(super) fn content<'a>(
    blocks: &mut Count,
    (kind, block): (&str, Raw<'a>),
    add: &mut dyn FnMut(&'a str),
) -> Fit<Option<Attachment<'a>>> {
    match kind {
        "text" => text(block).map(add).map(|()| None),
        "image" => image(block).map(Some),
        "document" => document(blocks, block, add),
        other => Err(unknown(other)),
    }
}

/// A document: its title, context and text; the caller handles a PDF.
fn document<'a>(
    blocks: &mut Count,
    block: Raw<'a>,
    add: &mut dyn FnMut(&'a str),
) -> Fit<Option<Attachment<'a>>> {
    let (mut source, mut title, mut context) = (None, None, None);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "source" => source = Some(value),
            "title" => title = Some(inside(value)?),
            "context" => context = Some(inside(value)?),
            "citations" => members(value, |key, value| match key {
                "enabled" if !boolean(value)? => Ok(()),
                _ => Err(Refusal::not_carried("")),
            })?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let source = required(source, "source")?;
    [title, context].into_iter().flatten().for_each(&mut *add);
    document_source(blocks, source, add).map_err(|refusal| refusal.within("source"))
}

fn document_source<'a>(
    blocks: &mut Count,
    source: Raw<'a>,
    add: &mut dyn FnMut(&'a str),
) -> Fit<Option<Attachment<'a>>> {
    let (mut media_type, mut data, mut content, mut place) = (None, None, None, None);
    members(source, |key, value| {
        match key {
            "type" => {}
            "media_type" => media_type = Some(inside(value)?),
            "data" => data = Some(inside(value)?),
            "content" => content = Some(value),
            "url" | "file_id" => place = Some(inside(value)?),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    match (&*kind(source)?, media_type.unwrap_or_default()) {
        ("text", "text/plain" | "") => add(data.ok_or_else(|| Refusal::expected("data", "a string"))?),
        ("content", _) => match required(content, "content")? {
            content if is_array(content) => {
                let each = |_: &mut Count, block| text(block).map(&mut *add);
                blocks.each(content, each).map_err(|refusal| refusal.within("content"))?;
            }
            content => add(inside(content)?),
        },
        ("base64", media_type @ "application/pdf") => {
            let base64 = data.ok_or_else(|| Refusal::expected("data", "a string"))?;
            return Ok(Some(Attachment::Pdf(Source::Data { media_type, base64 })));
        }
        (kind @ ("url" | "file"), _) => {
            let place = place.ok_or_else(|| Refusal::expected("", "a url or a file_id"))?;
            let is_stored = kind == "file";
            return Ok(Some(if is_stored {
                Attachment::Stored(place)
            } else {
                Attachment::Pdf(Source::Url(place))
            }));
        }
        ("text" | "base64", other) => return Err(Refusal::of_value(other).within("media_type")),
        (other, _) => return Err(unknown(other)),
    }
    Ok(None)
}

fn image(block: Raw<'_>) -> Fit<Attachment<'_>> {
    let mut source = None;
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "source" => source = Some(image_source(value)?),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    source.map(Attachment::Image).ok_or_else(|| Refusal::expected("source", "an object"))
}

fn image_source(source: Raw<'_>) -> Fit<Source<'_>> {
    let kind = kind(source)?;
    let (mut media_type, mut base64, mut url) = (None, None, None);
    members(source, |key, value| {
        match key {
            "type" => {}
            "media_type" => media_type = Some(inside(value)?),
            "data" => base64 = Some(inside(value)?),
            "url" => url = Some(inside(value)?),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    match (&*kind, media_type, base64, url) {
        ("base64", Some(media_type), Some(base64), None) => Ok(Source::Data { media_type, base64 }),
        ("url", None, None, Some(url)) => Ok(Source::Url(url)),
        ("base64", ..) => Err(Refusal::expected("", "media_type and data")),
        ("url", ..) => Err(Refusal::expected("", "url")),
        (other, ..) => Err(unknown(other)),
    }
}

/// A model's thinking. Without a signature it comes from a provider's `reasoning_content`, and returns as
/// such if the provider takes that. With one it is Anthropic's: only its models need it, unless a provider
/// wants all.
pub(super) fn thought(block: Raw<'_>, thinking: Thinking) -> Fit<Option<&str>> {
    let (mut thought, mut signed) = (None, false);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "thinking" => thought = Some(inside(value)?),
            "signature" => signed = !inside(value)?.is_empty(),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    Ok(thought.filter(|thought| thinking.includes(signed) && !(signed && thought.is_empty())))
}
