//! The messages of a request and their blocks, as messages of a chat.

use serde_json::value::RawValue;

use super::json::{Fit, Refusal, boolean, elements, inside, is_array, members, required, string};
use super::request::{Separated, write};

/// What stands between two blocks of text that become one string, as JSON has it.
const BETWEEN: &str = "\\n\\n";
/// What stands in a tool's result for an image: chat takes images from the user alone.
const IMAGE_BELOW: &str = "[image: see the next user message]";
/// What a failed tool's result begins with: chat has no other way to say so.
const FAILED: &str = "Error: ";

/// A piece of a user's message.
enum Part<'a> {
    Text(&'a str),
    /// Says that the image behind it comes from the result of this tool call.
    Label(&'a str),
    Image(Image<'a>),
}

/// An image, as JSON has its parts.
enum Image<'a> {
    Data { media_type: &'a str, base64: &'a str },
    Url(&'a str),
}

/// Writes the messages of `list`.
pub(super) fn write_messages(out: &mut Vec<u8>, messages: &mut Separated, list: &RawValue) -> Fit<()> {
    // The last message, where it is the assistant's: chat begins a new one and cannot go on with it.
    let mut begun = None;
    let mut count = 0;
    elements(list, |at, message| {
        let (mut role, mut content) = (String::new(), None);
        members(message, |key, value| {
            match key {
                "role" => role = string(value)?,
                "content" => content = Some(value),
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        let content = required(content, "content")?;
        begun = (role == "assistant").then_some(at);
        count += 1;
        match &*role {
            "user" => write_user(out, messages, content),
            "assistant" => write_assistant(out, messages, content),
            "system" => write_system(out, messages, content),
            _ => return Err(Refusal::expected("role", "user or assistant")),
        }
        .map_err(|refusal| refusal.within("content"))
    })?;
    match begun {
        Some(at) => Err(Refusal::not_carried(&format!("{at}.role (assistant, as the last message)"))),
        None if count == 0 => Err(Refusal::expected("", "at least one message")),
        None => Ok(()),
    }
}

/// Writes what only text can be in: `system`, or a message of that role.
pub(super) fn write_system(out: &mut Vec<u8>, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    let mut texts = Vec::new();
    if is_array(content) {
        elements(content, |_, block| match &*kind(block)? {
            "text" => text(block).map(|text| texts.push(text)),
            other => Err(unknown(other)),
        })?;
    } else {
        texts.push(inside(content)?);
    }
    if texts.iter().any(|text| !text.is_empty()) {
        messages.next(out);
        write(out, &["{\"role\":\"system\",\"content\":"]);
        write_texts(out, "", &texts);
        out.push(b'}');
    }
    Ok(())
}

fn write_user(out: &mut Vec<u8>, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    if !is_array(content) {
        return write_parts(out, messages, &[Part::Text(inside(content)?)]);
    }
    let (mut parts, mut pictures, mut results) = (Vec::new(), Vec::new(), 0);
    elements(content, |_, block| match &*kind(block)? {
        "text" => text(block).map(|text| parts.push(Part::Text(text))),
        "image" => image(block).map(|image| parts.push(Part::Image(image))),
        "tool_result" => {
            results += 1;
            write_result(out, messages, block, &mut pictures)
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
fn write_parts(out: &mut Vec<u8>, messages: &mut Separated, parts: &[Part<'_>]) -> Fit<()> {
    messages.next(out);
    write(out, &["{\"role\":\"user\",\"content\":"]);
    let texts: Vec<&str> = parts.iter().filter_map(Part::text).collect();
    if texts.len() == parts.len() {
        write_texts(out, "", &texts);
    } else {
        let mut list = Separated::default();
        out.push(b'[');
        for part in parts {
            list.next(out);
            part.write(out);
        }
        out.push(b']');
    }
    out.push(b'}');
    Ok(())
}

impl<'a> Part<'a> {
    fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Label(_) | Self::Image(_) => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write(out, &["{\"type\":\"text\",\"text\":\"", text, "\"}"]),
            Self::Label(call) => {
                write(out, &["{\"type\":\"text\",\"text\":\"[image of the result of ", call, "]\"}"]);
            }
            Self::Image(image) => {
                write(out, &["{\"type\":\"image_url\",\"image_url\":{\"url\":\""]);
                match image {
                    Image::Data { media_type, base64 } => {
                        write(out, &["data:", media_type, ";base64,", base64]);
                    }
                    Image::Url(url) => write(out, &[url]),
                }
                write(out, &["\"}}"]);
            }
        }
    }
}

/// Writes a tool's result; its images are left to the user's message behind it.
fn write_result<'a>(
    out: &mut Vec<u8>,
    messages: &mut Separated,
    block: &'a RawValue,
    pictures: &mut Vec<Part<'a>>,
) -> Fit<()> {
    let (mut call, mut content, mut failed) = (None, None, false);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "tool_use_id" => call = Some(inside(value)?),
            "content" => content = Some(value),
            "is_error" => failed = boolean(value)?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let call = call.ok_or_else(|| Refusal::expected("tool_use_id", "a string"))?;
    let texts = match content {
        None => Vec::new(),
        Some(content) => result(content, call, pictures).map_err(|refusal| refusal.within("content"))?,
    };
    messages.next(out);
    write(out, &["{\"role\":\"tool\",\"tool_call_id\":\"", call, "\",\"content\":"]);
    write_texts(out, if failed { FAILED } else { "" }, &texts);
    out.push(b'}');
    Ok(())
}

fn result<'a>(content: &'a RawValue, call: &'a str, pictures: &mut Vec<Part<'a>>) -> Fit<Vec<&'a str>> {
    if !is_array(content) {
        return Ok(vec![inside(content)?]);
    }
    let mut texts = Vec::new();
    elements(content, |_, block| {
        match &*kind(block)? {
            "text" => texts.push(text(block)?),
            "image" => {
                texts.push(IMAGE_BELOW);
                pictures.extend([Part::Label(call), Part::Image(image(block)?)]);
            }
            other => return Err(unknown(other)),
        }
        Ok(())
    })?;
    Ok(texts)
}

fn write_assistant(out: &mut Vec<u8>, messages: &mut Separated, content: &RawValue) -> Fit<()> {
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    if is_array(content) {
        let mut list = Separated::default();
        elements(content, |_, block| match &*kind(block)? {
            "text" => text(block).map(|text| texts.push(text)),
            "thinking" => thought(block).map(|thought| thoughts.extend(thought)),
            // Sealed for Anthropic's models: nobody else can read it.
            "redacted_thinking" => Ok(()),
            "tool_use" => {
                list.next(&mut calls);
                write_call(&mut calls, block)
            }
            other => Err(unknown(other)),
        })?;
    } else {
        texts.push(inside(content)?);
    }
    messages.next(out);
    write(out, &["{\"role\":\"assistant\",\"content\":"]);
    if texts.is_empty() && !calls.is_empty() {
        write(out, &["null"]);
    } else {
        write_texts(out, "", &texts);
    }
    if !thoughts.is_empty() {
        write(out, &[",\"reasoning_content\":"]);
        write_texts(out, "", &thoughts);
    }
    if !calls.is_empty() {
        write(out, &[",\"tool_calls\":["]);
        out.append(&mut calls);
        out.push(b']');
    }
    out.push(b'}');
    Ok(())
}

fn write_call(out: &mut Vec<u8>, block: &RawValue) -> Fit<()> {
    let (mut id, mut name, mut input) = (None, None, None);
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "id" => id = Some(inside(value)?),
            "name" => name = Some(inside(value)?),
            "input" => members(value, |_, _| Ok(())).map(|()| input = Some(value))?,
            "caller" if kind(value)? == "direct" => {}
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let id = id.ok_or_else(|| Refusal::expected("id", "a string"))?;
    let name = name.ok_or_else(|| Refusal::expected("name", "a string"))?;
    let input = required(input, "input")?.get();
    write(out, &["{\"id\":\"", id, "\",\"type\":\"function\",\"function\":{\"name\":\"", name]);
    write(out, &["\",\"arguments\":"]);
    // A string always serializes, and writing into memory does not fail.
    let _ = serde_json::to_writer(&mut *out, input);
    write(out, &["}}"]);
    Ok(())
}

fn kind(block: &RawValue) -> Fit<String> {
    let mut kind = None;
    members(block, |key, value| {
        if key == "type" {
            kind = Some(string(value)?);
        }
        Ok(())
    })?;
    kind.ok_or_else(|| Refusal::expected("type", "a string"))
}

fn unknown(kind: &str) -> Refusal {
    Refusal::not_carried(&format!("type ({kind})"))
}

fn text(block: &RawValue) -> Fit<&str> {
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

fn image(block: &RawValue) -> Fit<Image<'_>> {
    let mut source = None;
    members(block, |key, value| {
        match key {
            "type" | "cache_control" => {}
            "source" => source = Some(image_source(value)?),
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    source.ok_or_else(|| Refusal::expected("source", "an object"))
}

fn image_source(source: &RawValue) -> Fit<Image<'_>> {
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
        ("base64", Some(media_type), Some(base64), None) => Ok(Image::Data { media_type, base64 }),
        ("url", None, None, Some(url)) => Ok(Image::Url(url)),
        ("base64", ..) => Err(Refusal::expected("", "media_type and data")),
        ("url", ..) => Err(Refusal::expected("", "url")),
        (other, ..) => Err(unknown(other)),
    }
}

/// What a model has thought. Without a signature it is what a provider of ours told as `reasoning_content`, and goes back
/// as such; signed, it is Anthropic's, and only its models can read it.
fn thought(block: &RawValue) -> Fit<Option<&str>> {
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
    Ok(thought.filter(|_| !signed))
}

/// Writes texts as one string behind `lead`. They are copied as they stand in the request, escapes and all.
fn write_texts(out: &mut Vec<u8>, lead: &str, texts: &[&str]) {
    write(out, &["\"", lead]);
    for (at, text) in texts.iter().enumerate() {
        write(out, &[if at == 0 { "" } else { BETWEEN }, text]);
    }
    out.push(b'"');
}
