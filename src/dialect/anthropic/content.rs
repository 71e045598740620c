//! The messages of a request and their blocks, as chat messages.

use std::borrow::Cow;

use super::output_config::output_config;
use super::parts::{self, Count, kind, unknown};
use crate::config::Thinking;
use crate::dialect::chat_request::Attached;
use crate::dialect::json::{
    Fit, Refusal, boolean, elements, id, inside, is_array, members, required, string,
};
use crate::dialect::output::{Output, Separated};
use crate::dialect::raw::Raw;

/// Separator between two text blocks that become one string, as JSON.
const BETWEEN: &str = "\\n\\n";
/// Text before the name of a tool that a search has found.
const TOOL_FOUND: &str = "[tool found: ";
/// Beginning of a failed tool's result: chat has no member for the failure.
const FAILED: &str = "Error: ";

/// The chat messages in the output.
#[derive(Default, Clone, Copy)]
pub(super) struct Messages {
    list: Separated,
    pub(super) attached: Attached,
    /// As in [`super::chat_request`].
    thinking: Thinking,
}

impl Messages {
    pub(super) fn new(thinking: Thinking) -> Self {
        Self { thinking, ..Self::default() }
    }

    /// Called before each message.
    fn next(&mut self, out: &mut Output) {
        self.list.next(out);
    }
}

/// Writes the messages of `list`.
pub(super) fn write_messages(out: &mut Output, messages: &mut Messages, list: Raw<'_>) -> Fit<()> {
    // The last message, if it is the assistant's: chat cannot continue a message.
    let mut begun = None;
    let mut count = 0;
    elements(list, |at, message| {
        let (mut role, mut content) = (Cow::default(), None);
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
            // It contains only hints.
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

/// Writes a text-only message: `system`, or a message of that role.
pub(super) fn write_system(out: &mut Output, messages: &mut Messages, content: Raw<'_>) -> Fit<()> {
    let (before, begun) = (out.bytes().len(), *messages);
    messages.next(out);
    out.write(&["{\"role\":\"system\",\"content\":\""]);
    let mut texts = Texts::default();
    if is_array(content) {
        Count::default().each(content, |_, block| match &*kind(block)? {
            "text" => parts::text(block).map(|text| {
                if !is_for_billing(text) {
                    texts.add(out, text);
                }
            }),
            other => Err(unknown(other)),
        })?;
    } else {
        texts.add(out, inside(content)?);
    }
    out.write(&["\"}"]);
    if texts.are_empty() {
        out.truncate(before);
        *messages = begun;
    }
    Ok(())
}

/// Whether a block of Claude Code is its billing header. It is meant for Anthropic and differs between
/// conversations: no provider could cache a prompt that begins with it.
fn is_for_billing(text: &str) -> bool {
    text.starts_with("x-anthropic-billing-header:") && !text.contains("\\n")
}

/// Text alone becomes a string, which every provider takes; with attachments, a list of parts. The blocks are
/// read again instead of being kept.
fn write_user(out: &mut Output, messages: &mut Messages, content: Raw<'_>) -> Fit<()> {
    const LEAD: &str = "{\"role\":\"user\",\"content\":";
    if !is_array(content) {
        messages.next(out);
        out.write(&[LEAD, "\"", inside(content)?, "\"}"]);
        return Ok(());
    }
    let (mut texts, mut attachments, mut results) = (0, 0, 0);
    Count::default().each(content, |blocks, block| match &*kind(block)? {
        "tool_result" => {
            results += 1;
            write_result(out, messages, blocks, block).map(|of_result| attachments += of_result)
        }
        kind => parts::content(blocks, (kind, block), &mut |_| texts += 1).map(|attachment| {
            attachment.iter().for_each(|it| it.note(&mut messages.attached));
            attachments += usize::from(attachment.is_some());
        }),
    })?;
    if texts + attachments == 0 && results > 0 {
        return Ok(());
    }
    messages.next(out);
    out.write(&[LEAD]);
    if attachments == 0 { write_texts(out, content) } else { write_parts(out, content) }?;
    out.write(&["}"]);
    Ok(())
}

/// Writes the text of a user's message without attachments.
fn write_texts(out: &mut Output, content: Raw<'_>) -> Fit<()> {
    let mut texts = Texts::default();
    out.write(&["\""]);
    Count::default().each(content, |blocks, block| match &*kind(block)? {
        "tool_result" => Ok(()),
        kind => parts::content(blocks, (kind, block), &mut |text| texts.add(out, text)).map(drop),
    })?;
    out.write(&["\""]);
    Ok(())
}

/// Writes the parts of a user's message: attachments of tool results first, then its own.
fn write_parts(out: &mut Output, content: Raw<'_>) -> Fit<()> {
    let mut list = Separated::default();
    out.write(&["["]);
    Count::default().each(content, |_, block| match &*kind(block)? {
        "tool_result" => write_attachments(out, &mut list, block),
        _ => Ok(()),
    })?;
    Count::default().each(content, |blocks, block| {
        let kind = kind(block)?;
        if kind == "tool_result" {
            return Ok(());
        }
        let attachment = parts::content(blocks, (&kind, block), &mut |text| {
            list.next(out);
            out.write(&["{\"type\":\"text\",\"text\":\"", text, "\"}"]);
        })?;
        if let Some(attachment) = attachment {
            list.next(out);
            attachment.write(out);
        }
        Ok(())
    })?;
    out.write(&["]"]);
    Ok(())
}

/// A tool's result, its parts as JSON.
struct ToolResult<'a> {
    call: &'a str,
    content: Option<Raw<'a>>,
    failed: bool,
}

impl<'a> ToolResult<'a> {
    fn of(block: Raw<'a>) -> Fit<Self> {
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
        Ok(Self { call, content, failed })
    }
}

/// Writes a tool's result. Returns the number of attachments for the user's message that follows.
fn write_result(out: &mut Output, messages: &mut Messages, blocks: &mut Count, block: Raw<'_>) -> Fit<usize> {
    let ToolResult { call, content, failed } = ToolResult::of(block)?;
    let lead = if failed { FAILED } else { "" };
    messages.next(out);
    out.write(&["{\"role\":\"tool\",\"tool_call_id\":\"", call, "\",\"content\":\"", lead]);
    let (mut texts, mut attachments) = (Texts::default(), 0);
    match content {
        Some(content) if is_array(content) => blocks.each(content, |blocks, block| match &*kind(block)? {
            "tool_reference" => parts::tool_reference(block).map(|name| {
                texts.add(out, TOOL_FOUND);
                out.write(&[name, "]"]);
            }),
            kind => {
                parts::content(blocks, (kind, block), &mut |text| texts.add(out, text)).map(|attachment| {
                    if let Some(attachment) = attachment {
                        attachment.note(&mut messages.attached);
                        attachments += 1;
                        texts.add(out, attachment.below());
                    }
                })
            }
        }),
        Some(content) => inside(content).map(|text| texts.add(out, text)),
        None => Ok(()),
    }
    .map_err(|refusal| refusal.within("content"))?;
    out.write(&["\"}"]);
    Ok(attachments)
}

/// Writes the attachments of a tool's result as parts of the user's message that follows.
fn write_attachments(out: &mut Output, list: &mut Separated, block: Raw<'_>) -> Fit<()> {
    let ToolResult { call, content, .. } = ToolResult::of(block)?;
    let Some(content) = content.filter(|content| is_array(*content)) else { return Ok(()) };
    let mut is_labelled = false;
    Count::default().each(content, |_, block| {
        let kind = kind(block)?;
        if kind == "tool_reference" {
            return Ok(());
        }
        let Some(attachment) = parts::content(&mut Count::default(), (&kind, block), &mut |_| ())? else {
            return Ok(());
        };
        // Only once: the id may be longer than the attachment.
        if !std::mem::replace(&mut is_labelled, true) {
            list.next(out);
            out.write(&["{\"type\":\"text\",\"text\":\"", attachment.label(), call, "]\"}"]);
        }
        list.next(out);
        attachment.write(out);
        Ok(())
    })
}

fn write_assistant(out: &mut Output, messages: &mut Messages, content: Raw<'_>) -> Fit<()> {
    messages.next(out);
    out.write(&["{\"role\":\"assistant\",\"content\":"]);
    let before = out.bytes().len();
    let (mut texts, mut thoughts, mut calls) = (Texts::default(), 0, 0);
    out.write(&["\""]);
    if is_array(content) {
        Count::default().each(content, |_, block| match &*kind(block)? {
            "text" => parts::text(block).map(|text| texts.add(out, text)),
            "thinking" => parts::thought(block, messages.thinking)
                .map(|thought| thoughts += usize::from(thought.is_some())),
            // Only Anthropic's models can read it.
            "redacted_thinking" => Ok(()),
            "tool_use" => parts::call(block).map(|_| calls += 1),
            other => Err(unknown(other)),
        })?;
    } else {
        texts.add(out, inside(content)?);
    }
    out.write(&["\""]);
    if !texts.has_begun && calls > 0 {
        out.truncate(before);
        out.write(&["null"]);
    }
    if thoughts > 0 {
        write_thoughts(out, content, messages.thinking)?;
    }
    if calls > 0 {
        write_calls(out, content)?;
    }
    out.write(&["}"]);
    Ok(())
}

fn write_thoughts(out: &mut Output, content: Raw<'_>, thinking: Thinking) -> Fit<()> {
    let mut texts = Texts::default();
    out.write(&[",\"reasoning_content\":\""]);
    Count::default().each(content, |_, block| {
        if kind(block)? == "thinking" {
            if let Some(thought) = parts::thought(block, thinking)? {
                texts.add(out, thought);
            }
        }
        Ok(())
    })?;
    out.write(&["\""]);
    Ok(())
}

fn write_calls(out: &mut Output, content: Raw<'_>) -> Fit<()> {
    let mut list = Separated::default();
    out.write(&[",\"tool_calls\":["]);
    Count::default().each(content, |_, block| {
        if kind(block)? == "tool_use" {
            list.next(out);
            parts::call(block)?.write(out);
        }
        Ok(())
    })?;
    out.write(&["]"]);
    Ok(())
}

/// Texts that become one string, copied with their escapes as they are in the request.
#[derive(Default)]
struct Texts {
    has_begun: bool,
    says_something: bool,
}

impl Texts {
    fn add(&mut self, out: &mut Output, text: &str) {
        out.write(&[if self.has_begun { BETWEEN } else { "" }, text]);
        self.has_begun = true;
        self.says_something |= !text.is_empty();
    }

    fn are_empty(&self) -> bool {
        !self.says_something
    }
}
