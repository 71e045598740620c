//! The items of an input, as far as chat has counterparts.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::content::{Part, kind, parts};
use super::tools;
use crate::config::Thinking;
use crate::dialect::json::{Fit, Refusal, id, inside, members, required, string};

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
    content: Option<&'a RawValue>,
    call_id: Option<&'a str>,
    name: Option<Cow<'a, str>>,
    /// The arguments or the free-form input of a call: a string.
    given: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    summary: Option<&'a RawValue>,
    /// It is sealed: only models of its provider can read it.
    is_sealed: bool,
}

impl<'a> Item<'a> {
    /// `None`: the item is omitted.
    pub(super) fn of(item: &'a RawValue) -> Fit<Option<Self>> {
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

    fn note(&mut self, key: &str, value: &'a RawValue) -> Fit<()> {
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

    pub(super) fn content(&self) -> Fit<&'a RawValue> {
        required(self.content, "content")
    }

    /// The id, the name, and the arguments of a call.
    pub(super) fn call(&self) -> Fit<(&'a str, &str, &'a RawValue)> {
        let missing = |key| Refusal::expected(key, "a string");
        let id = self.call_id.ok_or_else(|| missing("call_id"))?;
        let name = self.name.as_deref().ok_or_else(|| missing("name"))?;
        let key = if self.kind == "function_call" { "arguments" } else { "input" };
        Ok((id, name, self.given.ok_or_else(|| missing(key))?))
    }

    /// The id of an output's call, and the output.
    pub(super) fn result(&self) -> Fit<(&'a str, &'a RawValue)> {
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
#[derive(Clone, Default)]
pub(super) struct Items<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Items<'a> {
    pub(super) fn of(array: &'a RawValue) -> Self {
        let inside = array.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Self { rest: inside.unwrap_or_default(), at: 0 }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (usize, &'a RawValue);

    fn next(&mut self) -> Option<Self::Item> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        let item = values.next()?.ok()?;
        let rest = self.rest[values.byte_offset()..].trim_start();
        let at = self.at;
        *self = Self { rest: rest.strip_prefix(',').unwrap_or(rest), at: at + 1 };
        Some((at, item))
    }
}
