//! The messages of a request and their blocks, as messages of a chat.

use serde_json::value::RawValue;

use super::json::{Fit, Refusal, boolean, elements, id, inside, is_array, members, required, string};
use super::output::Output;
use super::parts::{self, Count, Image, kind, unknown};
use super::request::{Separated, output_config};

/// What stands between two blocks of text that become one string, as JSON has it.
const BETWEEN: &str = "\\n\\n";
/// What stands in a tool's result for an image: chat takes images from the user alone.
const IMAGE_BELOW: &str = "[image: see the next user message]";
/// What a failed tool's result begins with: chat has no other way to say so.
const FAILED: &str = "Error: ";

/// A piece of a user's message.
enum Part<'a> {
    Text(&'a str),
    /// Says that the images after it come from the result of this tool call.
    Label(&'a str),
    Image(Image<'a>),
}

/// Writes the messages of `list`.
pub(super) fn write_messages(out: &mut Output, messages: &mut Separated, list: &RawValue) -> Fit<()> {
    // The last message, where it is the assistant's: chat begins a new one and cannot go on with it.
    let mut begun = None;
    let mut count = 0;
    elements(list, |at, message| {
        let (mut role, mut content) = (String::new(), None);
        members(message, |key, value| {
            match key {
                "role" => role = string(value)?,
                "content" => content = Some(value),
                "cache_control" => {}
                "output_config" if output_config(value)?.is_some() => {
                    return Err(Refusal::not_carried("format"));
                }
                "output_config" => {}
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        let before = out.bytes().len();
        match (&*role, content) {
            // It holds hints alone.
            ("system", None) => Ok(()),
            ("user", _) => write_user(out, messages, required(content, "content")?),
            ("assistant", _) => write_assistant(out, messages, required(content, "content")?),
            ("system", Some(content)) => write_system(out, messages, content),
            _ => return Err(Refusal::expected("role", "user or assistant")),
        }
        .map_err(|refusal| refusal.within("content"))?;
        if out.bytes().len() > before || out.is_over() {
            begun = (role == "assistant").then_some(at);
            count += 1;
        }
        Ok(())
    })?;
    match begun {
        Some(at) => Err(Refusal::not_carried(&format!("{at}.role (assistant, as the last message)"))),
        None if count == 0 => Err(Refusal::expected("", "at least one message")),
        None => Ok(()),
    }
}

/// Writes what only text can be in: `system`, or a message of that role.
pub(super) fn write_system(out: &mut Output, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    let mut texts = Vec::new();
    if is_array(content) {
        Count::default().each(content, |_, block| match &*kind(block)? {
            "text" => parts::text(block).map(|text| texts.push(text)),
            other => Err(unknown(other)),
        })?;
    } else {
        texts.push(inside(content)?);
    }
    if texts.iter().any(|text| !text.is_empty()) {
        messages.next(out);
        out.write(&["{\"role\":\"system\",\"content\":"]);
        write_texts(out, "", &texts);
        out.write(&["}"]);
    }
    Ok(())
}

fn write_user(out: &mut Output, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    if !is_array(content) {
        return write_parts(out, messages, &[Part::Text(inside(content)?)]);
    }
    let (mut parts, mut pictures, mut results) = (Vec::new(), Vec::new(), 0);
    Count::default().each(content, |blocks, block| match &*kind(block)? {
        "text" => parts::text(block).map(|text| parts.push(Part::Text(text))),
        "image" => parts::image(block).map(|image| parts.push(Part::Image(image))),
        "document" => parts::document(blocks, block, |text| parts.push(Part::Text(text))),
        "tool_result" => {
            results += 1;
            write_result(out, messages, (blocks, block), &mut pictures)
        }
        other => Err(unknown(other)),
    })?;
    pictures.append(&mut parts);
    if pictures.is_empty() && results > 0 {
        return Ok(());
    }
    write_parts(out, messages, &pictures)
}

/// Text alone goes as a string, which every provider takes; with images, as a list of parts.
fn write_parts(out: &mut Output, messages: &mut Separated, parts: &[Part<'_>]) -> Fit<()> {
    messages.next(out);
    out.write(&["{\"role\":\"user\",\"content\":"]);
    let texts: Vec<&str> = parts.iter().filter_map(Part::text).collect();
    if texts.len() == parts.len() {
        write_texts(out, "", &texts);
    } else {
        let mut list = Separated::default();
        out.write(&["["]);
        for part in parts {
            list.next(out);
            part.write(out);
        }
        out.write(&["]"]);
    }
    out.write(&["}"]);
    Ok(())
}

impl<'a> Part<'a> {
    fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Label(_) | Self::Image(_) => None,
        }
    }

    fn write(&self, out: &mut Output) {
        match self {
            Self::Text(text) => out.write(&["{\"type\":\"text\",\"text\":\"", text, "\"}"]),
            Self::Label(call) => {
                out.write(&["{\"type\":\"text\",\"text\":\"[image of the result of ", call, "]\"}"]);
            }
            Self::Image(image) => {
                out.write(&["{\"type\":\"image_url\",\"image_url\":{\"url\":\""]);
                match image {
                    Image::Data { media_type, base64 } => {
                        out.write(&["data:", media_type, ";base64,", base64]);
                    }
                    Image::Url(url) => out.write(&[url]),
                }
                out.write(&["\"}}"]);
            }
        }
    }
}

/// Writes a tool's result; its images are left to the user's message after it.
fn write_result<'a>(
    out: &mut Output,
    messages: &mut Separated,
    (blocks, block): (&mut Count, &'a RawValue),
    pictures: &mut Vec<Part<'a>>,
) -> Fit<()> {
    let (mut call, mut content, mut failed) = (None, None, false);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "tool_use_id" => call = Some(id(value)?),
            "content" => content = Some(value),
            "is_error" => failed = boolean(value)?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let call = call.ok_or_else(|| Refusal::expected("tool_use_id", "a string"))?;
    let texts = match content {
        None => Vec::new(),
        Some(content) => {
            result(blocks, content, call, pictures).map_err(|refusal| refusal.within("content"))?
        }
    };
    messages.next(out);
    out.write(&["{\"role\":\"tool\",\"tool_call_id\":\"", call, "\",\"content\":"]);
    write_texts(out, if failed { FAILED } else { "" }, &texts);
    out.write(&["}"]);
    Ok(())
}

fn result<'a>(
    blocks: &mut Count,
    content: &'a RawValue,
    call: &'a str,
    pictures: &mut Vec<Part<'a>>,
) -> Fit<Vec<&'a str>> {
    if !is_array(content) {
        return Ok(vec![inside(content)?]);
    }
    let (mut texts, mut is_labelled) = (Vec::new(), false);
    blocks.each(content, |blocks, block| match &*kind(block)? {
        "text" => parts::text(block).map(|text| texts.push(text)),
        "document" => parts::document(blocks, block, |text| texts.push(text)),
        "image" => {
            texts.push(IMAGE_BELOW);
            // Once: the id may be longer than the image.
            if !std::mem::replace(&mut is_labelled, true) {
                pictures.push(Part::Label(call));
            }
            parts::image(block).map(|image| pictures.push(Part::Image(image)))
        }
        other => Err(unknown(other)),
    })?;
    Ok(texts)
}

fn write_assistant(out: &mut Output, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    if is_array(content) {
        Count::default().each(content, |_, block| match &*kind(block)? {
            "text" => parts::text(block).map(|text| texts.push(text)),
            "thinking" => parts::thought(block).map(|thought| thoughts.extend(thought)),
            // Sealed for Anthropic's models: nobody else can read it.
            "redacted_thinking" => Ok(()),
            "tool_use" => parts::call(block).map(|call| calls.push(call)),
            other => Err(unknown(other)),
        })?;
    } else {
        texts.push(inside(content)?);
    }
    messages.next(out);
    out.write(&["{\"role\":\"assistant\",\"content\":"]);
    if texts.is_empty() && !calls.is_empty() {
        out.write(&["null"]);
    } else {
        write_texts(out, "", &texts);
    }
    if !thoughts.is_empty() {
        out.write(&[",\"reasoning_content\":"]);
        write_texts(out, "", &thoughts);
    }
    if !calls.is_empty() {
        out.write(&[",\"tool_calls\":["]);
        let mut list = Separated::default();
        for call in &calls {
            list.next(out);
            call.write(out);
        }
        out.write(&["]"]);
    }
    out.write(&["}"]);
    Ok(())
}

/// Writes texts as one string behind `lead`. They are copied as they stand in the request, escapes and all.
fn write_texts(out: &mut Output, lead: &str, texts: &[&str]) {
    out.write(&["\"", lead]);
    for (at, text) in texts.iter().enumerate() {
        out.write(&[if at == 0 { "" } else { BETWEEN }, text]);
    }
    out.write(&["\""]);
}
