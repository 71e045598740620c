//! The items of an input, as far as chat has counterparts.

use std::borrow::Cow;
use std::iter::Enumerate;

use super::content::{Part, kind, parts};
use super::tools;
use crate::config::Thinking;
use crate::dialect::json::{Fit, Refusal, id, inside, members, required, string};
use crate::dialect::raw::{Parts, Raw};

/// Items of server-side tools, which chat lacks: the text after them contains their results.
const LEFT_OUT: &[&str] =
    &["image_generation_call", "tool_search_call", "tool_search_output", "web_search_call"];

/// Members of an item that the model does not read.
const HINTS: &[&str] =
    &["type", "id", "status", "phase", "created_by", "internal_chat_message_metadata_passthrough"];

/// The author of an item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    System,
    User,
    Assistant,
    /// Outputs of tools.
    Results,
}

/// An item, its parts as JSON.
pub(super) struct Item<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) side: Side,
    pub(super) namespace: Option<Cow<'a, str>>,
    content: Option<Raw<'a>>,
    call_id: Option<&'a str>,
    name: Option<Cow<'a, str>>,
    /// The arguments or the free-form input of a call: a string.
    given: Option<Raw<'a>>,
    output: Option<Raw<'a>>,
    summary: Option<Raw<'a>>,
    /// It is sealed: only models of its provider can read it.
    is_sealed: bool,
}

impl<'a> Item<'a> {
    /// `None`: the item is omitted.
    pub(super) fn of(item: Raw<'a>) -> Fit<Option<Self>> {
        let (mut role, mut kind) = (Cow::default(), Cow::Borrowed("message"));
        members(item, |key, value| {
            match key {
                "role" => role = string(value)?,
                "type" => kind = string(value)?,
                _ => {}
            }
            Ok(())
        })?;
        let side = match (&*kind, &*role) {
            ("message", "user") => Side::User,
            ("message", "system" | "developer") => Side::System,
            ("message", "assistant") => Side::Assistant,
            ("message", _) => return Err(Refusal::expected("role", "user, assistant, system or developer")),
            ("function_call" | "custom_tool_call" | "reasoning", _) => Side::Assistant,
            ("function_call_output" | "custom_tool_call_output", _) => Side::Results,
            (other, _) if LEFT_OUT.contains(&other) => return Ok(None),
            (other, _) => return Err(Refusal::of_value(other).within("type")),
        };
        let (content, call_id, name, given, output, summary) = (None, None, None, None, None, None);
        let (namespace, is_sealed) = (None, false);
        let mut read =
            Self { kind, side, namespace, content, call_id, name, given, output, summary, is_sealed };
        members(item, |key, value| read.note(key, value))?;
        Ok(Some(read))
    }

    fn note(&mut self, key: &str, value: Raw<'a>) -> Fit<()> {
        match key {
            "role" if self.kind == "message" => {}
            "content" => self.content = Some(value),
            "call_id" => self.call_id = Some(id(value)?),
            "name" => self.name = Some(tools::name(value)?),
            "namespace" => self.namespace = Some(tools::name(value)?),
            "arguments" | "input" => self.given = inside(value).map(|_| Some(value))?,
            "output" => self.output = Some(value),
            "summary" => self.summary = Some(value),
            "encrypted_content" => self.is_sealed = !inside(value)?.is_empty(),
            "caller" => match &*kind(value)? {
                "direct" => {}
                other => return Err(Refusal::of_value(other).within("type")),
            },
            _ if HINTS.contains(&key) => {}
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    }

    pub(super) fn content(&self) -> Fit<Raw<'a>> {
        required(self.content, "content")
    }

    /// The id, the name, and the arguments of a call.
    pub(super) fn call(&self) -> Fit<(&'a str, &str, Raw<'a>)> {
        let missing = |key| Refusal::expected(key, "a string");
        let id = self.call_id.ok_or_else(|| missing("call_id"))?;
        let name = self.name.as_deref().ok_or_else(|| missing("name"))?;
        let key = if self.kind == "function_call" { "arguments" } else { "input" };
        Ok((id, name, self.given.ok_or_else(|| missing(key))?))
    }

    /// The id of an output's call, and the output.
    pub(super) fn result(&self) -> Fit<(&'a str, Raw<'a>)> {
        let id = self.call_id.ok_or_else(|| Refusal::expected("call_id", "a string"))?;
        Ok((id, required(self.output, "output")?))
    }

    /// A model's reasoning. Sealed reasoning comes from OpenAI's models: only they need it, unless a provider
    /// wants all.
    pub(super) fn thoughts(&self, thinking: Thinking, mut thought: impl FnMut(&'a str)) -> Fit<()> {
        let mut has_content = false;
        for (key, thoughts) in [("content", self.content), ("summary", self.summary)] {
            let Some(thoughts) = thoughts.filter(|_| thinking.includes(self.is_sealed) && !has_content)
            else {
                continue;
            };
            parts(thoughts, |part| {
                if let Part::Text(text) = part {
                    has_content = true;
                    thought(text);
                }
                Ok(())
            })
            .map_err(|refusal| refusal.within(key))?;
        }
        Ok(())
    }
}

/// The elements of an array and their numbers.
pub(super) type Items<'a> = Enumerate<Parts<'a>>;

/// The elements of a value; none if it is no array.
pub(super) fn items(array: Raw<'_>) -> Items<'_> {
    array.parts('[').unwrap_or_default().enumerate()
}
