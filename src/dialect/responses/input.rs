//! The input of a request as chat messages. Consecutive items of one side become one message: chat expects a
//! model's text, reasoning and calls together, followed at once by the results.

use serde::Serializer;

use super::content::{Part, Texts, add_texts, parts};
use super::item::{Item, Items, Side, items};
use super::tools::chat_name;
use crate::config::Thinking;
use crate::dialect::escapes::escaped_length;
use crate::dialect::json::{Fit, Refusal, inside, is_array};
use crate::dialect::output::{Output, Separated};
use crate::dialect::raw::Raw;

/// Writes the messages of `instructions` and `input`.
pub(super) fn write_messages(
    out: &mut Output,
    instructions: Option<Raw<'_>>,
    input: Raw<'_>,
    thinking: Thinking,
) -> Fit<()> {
    let mut list = Separated::default();
    if !is_array(input) {
        let text = inside(input).map_err(|_| Refusal::expected("input", "a string or an array"))?;
        write_system(out, &mut list, instructions, &Group::default())?;
        list.next(out);
        out.write(&["{\"role\":\"user\",\"content\":\"", text, "\"}"]);
        return Ok(());
    }
    let begin = items(input);
    let (mut items, mut group, mut side) = (begin.clone(), Group { begin, count: 0, thinking }, Side::System);
    let mut instructions = instructions;
    loop {
        let before = items.clone();
        let Some((at, item)) = items.next() else { break };
        let item = Item::of(item).map_err(|refusal| refusal.within(at).within("input"))?;
        if let Some(next) = item.map(|item| item.side) {
            if next != side || next == Side::User {
                write_group(out, &mut list, side, instructions.take(), &group)?;
                (group, side) = (Group { begin: before, count: 0, thinking }, next);
            }
        }
        group.count += 1;
    }
    write_group(out, &mut list, side, instructions, &group)?;
    if list.is_begun() { Ok(()) } else { Err(Refusal::expected("input", "at least one message")) }
}

/// Items that become one message. Each part of the message reads them again, so nothing of them is kept.
#[derive(Default)]
struct Group<'a> {
    begin: Items<'a>,
    count: usize,
    /// The earlier reasoning that the provider takes.
    thinking: Thinking,
}

impl<'a> Group<'a> {
    fn each(&self, mut each: impl FnMut(Item<'a>) -> Fit<()>) -> Fit<()> {
        for (at, item) in self.begin.clone().take(self.count) {
            Item::of(item)
                .and_then(|item| item.map_or(Ok(()), &mut each))
                .map_err(|refusal| refusal.within(at).within("input"))?;
        }
        Ok(())
    }
}

fn write_group(
    out: &mut Output,
    list: &mut Separated,
    side: Side,
    instructions: Option<Raw<'_>>,
    group: &Group<'_>,
) -> Fit<()> {
    match side {
        Side::System => write_system(out, list, instructions, group),
        Side::User => write_user(out, list, group),
        Side::Assistant => write_assistant(out, list, group),
        Side::Results => write_results(out, list, group),
    }
}

/// One message, because many models take only one of the system.
fn write_system(
    out: &mut Output,
    list: &mut Separated,
    instructions: Option<Raw<'_>>,
    group: &Group<'_>,
) -> Fit<()> {
    let (before, begun, mut texts) = (out.bytes().len(), *list, Texts::default());
    list.next(out);
    out.write(&["{\"role\":\"system\",\"content\":\""]);
    if let Some(instructions) = instructions {
        texts.add(out, &[inside(instructions)?]);
    }
    group.each(|item| {
        add_texts(out, &mut texts, item.content()?).map_err(|refusal| refusal.within("content"))
    })?;
    out.write(&["\"}"]);
    if texts.are_empty() {
        out.truncate(before);
        *list = begun;
    }
    Ok(())
}

/// Text alone becomes a string, which every provider takes; with attachments, a list of parts.
fn write_user(out: &mut Output, list: &mut Separated, group: &Group<'_>) -> Fit<()> {
    group.each(|item| {
        let content = item.content()?;
        let mut attached = 0;
        let mut write = || {
            parts(content, |part| {
                attached += usize::from(part.attachment().is_some());
                Ok(())
            })?;
            list.next(out);
            out.write(&["{\"role\":\"user\",\"content\":"]);
            if attached == 0 {
                out.write(&["\""]);
                add_texts(out, &mut Texts::default(), content)?;
                out.write(&["\"}"]);
            } else {
                let mut list = Separated::default();
                out.write(&["["]);
                parts(content, |part| {
                    part.write(out, &mut list);
                    Ok(())
                })?;
                out.write(&["]}"]);
            }
            Ok(())
        };
        write().map_err(|refusal: Refusal| refusal.within("content"))
    })
}

fn write_assistant(out: &mut Output, list: &mut Separated, group: &Group<'_>) -> Fit<()> {
    let (start, begun, mut texts) = (out.bytes().len(), *list, Texts::default());
    list.next(out);
    out.write(&["{\"role\":\"assistant\",\"content\":"]);
    let before = out.bytes().len();
    out.write(&["\""]);
    let (mut thoughts, mut calls) = (0, 0);
    group.each(|item| match &*item.kind {
        "reasoning" => item.thoughts(group.thinking, |_| thoughts += 1),
        "message" => add_texts(out, &mut texts, item.content()?).map_err(|refusal| refusal.within("content")),
        _ => item.call().map(|_| calls += 1),
    })?;
    out.write(&["\""]);
    if texts.are_empty() && calls == 0 {
        // Reasoning without a message or call.
        out.truncate(start);
        *list = begun;
        return Ok(());
    }
    if texts.are_empty() {
        out.truncate(before);
        out.write(&["null"]);
    }
    if thoughts > 0 {
        let mut texts = Texts::default();
        out.write(&[",\"reasoning_content\":\""]);
        group.each(|item| match &*item.kind {
            "reasoning" => item.thoughts(group.thinking, |thought| texts.add(out, &[thought])),
            _ => Ok(()),
        })?;
        out.write(&["\""]);
    }
    if calls > 0 {
        let mut calls = Separated::default();
        out.write(&[",\"tool_calls\":["]);
        group.each(|item| match &*item.kind {
            "reasoning" | "message" => Ok(()),
            _ => {
                calls.next(out);
                write_call(out, &item)
            }
        })?;
        out.write(&["]"]);
    }
    out.write(&["}"]);
    Ok(())
}

fn write_call(out: &mut Output, item: &Item<'_>) -> Fit<()> {
    let (id, name, given) = item.call()?;
    out.write(&["{\"id\":\"", id, "\",\"type\":\"function\",\"function\":{\"name\":"]);
    out.string(&chat_name(item.namespace.as_deref(), name));
    out.write(&[",\"arguments\":"]);
    if item.kind == "custom_tool_call" {
        out.reserve(escaped_length(given.get()) + "{\\\"input\\\":}".len());
        // It always serializes, and an overrun is remembered.
        let _ = serde_json::Serializer::new(&mut *out)
            .collect_str(&format_args!("{{\"input\":{}}}", given.get()));
    } else {
        out.write(&[if given.get() == "\"\"" { "\"{}\"" } else { given.get() }]);
    }
    out.write(&["}}"]);
    Ok(())
}

/// Each output becomes a text message. Its attachments follow as the user's, because chat takes them only
/// from the user.
fn write_results(out: &mut Output, list: &mut Separated, group: &Group<'_>) -> Fit<()> {
    let mut attached = 0;
    group.each(|item| {
        let (call, output) = item.result()?;
        list.next(out);
        out.write(&["{\"role\":\"tool\",\"tool_call_id\":\"", call, "\",\"content\":\""]);
        let mut texts = Texts::default();
        parts(output, |part| {
            match (&part, part.attachment()) {
                (Part::Text(text), _) => texts.add(out, &[text]),
                (_, kind) => {
                    attached += 1;
                    texts.add(out, &["[", kind.unwrap_or_default(), ": see the next user message]"]);
                }
            }
            Ok(())
        })
        .map_err(|refusal| refusal.within("output"))?;
        out.write(&["\"}"]);
        Ok(())
    })?;
    if attached == 0 {
        return Ok(());
    }
    list.next(out);
    out.write(&["{\"role\":\"user\",\"content\":["]);
    let mut list = Separated::default();
    group.each(|item| {
        let (call, output) = item.result()?;
        let mut is_labelled = false;
        parts(output, |part| {
            let Some(kind) = part.attachment() else { return Ok(()) };
            // Only once: the id may be longer than the image.
            if !std::mem::replace(&mut is_labelled, true) {
                list.next(out);
                out.write(&["{\"type\":\"text\",\"text\":\"[", kind, " of the result of ", call, "]\"}"]);
            }
            part.write(out, &mut list);
            Ok(())
        })
    })?;
    out.write(&["]}"]);
    Ok(())
}
