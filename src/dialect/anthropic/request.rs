//! A Messages request as a chat completion request. A member without a counterpart is refused by name; a mere
//! hint that does not change the content (`docs/anthropic.md` lists them) is omitted.

use std::borrow::Cow;

use super::content::{self, Messages};
use super::output_config::{output_config, schema};
use crate::config::Thinking;
use crate::dialect::chat_request::ChatRequest;
use crate::dialect::json::{Fit, Refusal, boolean, elements, inside, members, required, string};
use crate::dialect::output::{Output, Separated};
use crate::dialect::raw::Raw;
use crate::limits::MAX_USER_ID;

/// Upper bound of the translated size in multiples of the request, besides [`ROOM`]: it is allocated once.
const MOST_TIMES: usize = 2;
/// Bytes besides the translated content.
const ROOM: usize = 512;

/// The chat request that says what a Messages request says, in at most `limit` bytes. `body` is a JSON object.
/// `thinking`: what the provider takes of what a model has thought.
///
/// # Errors
/// What has no place in a chat request, or is not what the Messages API asks for, and where; or it is too large.
pub fn chat_request(body: Raw<'_>, limit: usize, thinking: Thinking) -> Fit<ChatRequest> {
    let top = Top::of(body)?;
    let max_tokens = required(top.max_tokens, "max_tokens")?;
    let max_tokens: u64 = max_tokens.get().parse().unwrap_or(0);
    if max_tokens == 0 {
        return Err(Refusal::expected("max_tokens", "a positive integer"));
    }
    let mut rest = Output::with_capacity(limit, MOST_TIMES * body.get().len() + ROOM);
    rest.write(&[",\"messages\":["]);
    let mut messages = Messages::new(thinking);
    if let Some(system) = top.system {
        content::write_system(&mut rest, &mut messages, system)
            .map_err(|refusal| refusal.within("system"))?;
    }
    content::write_messages(&mut rest, &mut messages, required(top.messages, "messages")?)
        .map_err(|refusal| refusal.within("messages"))?;
    rest.write(&["]"]);
    top.write_settings(&mut rest)?;
    let request = ChatRequest::new(Some(max_tokens.to_string()), rest, limit, top.stream)?;
    Ok(request.with(messages.attached))
}

/// The members of the request.
#[derive(Default)]
struct Top<'a> {
    max_tokens: Option<Raw<'a>>,
    system: Option<Raw<'a>>,
    messages: Option<Raw<'a>>,
    tools: Option<Raw<'a>>,
    tool_choice: Option<Raw<'a>>,
    stop_sequences: Option<Raw<'a>>,
    temperature: Option<Raw<'a>>,
    top_p: Option<Raw<'a>>,
    user: Option<Raw<'a>>,
    /// The schema for the model's output.
    schema: Option<Raw<'a>>,
    default_tier: bool,
    stream: bool,
}

impl<'a> Top<'a> {
    fn of(body: Raw<'a>) -> Fit<Self> {
        let mut top = Self::default();
        members(body, |key, value| {
            match key {
                "model" => {}
                "max_tokens" => top.max_tokens = Some(value),
                "system" => top.system = Some(value),
                "messages" => top.messages = Some(value),
                "tools" => top.tools = Some(value),
                "tool_choice" => top.tool_choice = Some(value),
                "stop_sequences" => top.stop_sequences = Some(value),
                "temperature" => top.temperature = Some(number(value)?),
                "top_p" => top.top_p = Some(number(value)?),
                "stream" => top.stream = boolean(value)?,
                "metadata" => members(value, |key, value| match key {
                    // OpenAI and others refuse a longer one; it means nothing to the model.
                    "user_id" => string(value).map(|id| {
                        top.user = Some(value).filter(|_| id.chars().count() <= MAX_USER_ID);
                    }),
                    _ => Err(Refusal::not_carried("")),
                })?,
                "output_config" => top.schema = output_config(value)?.or(top.schema),
                "output_format" => top.schema = Some(schema(value)?),
                "service_tier" => match &*string(value)? {
                    "auto" => top.default_tier = false,
                    "standard_only" => top.default_tier = true,
                    _ => return Err(Refusal::expected("", "auto or standard_only")),
                },
                // Hints about thinking, caching and context editing.
                "thinking" | "cache_control" | "context_management" | "diagnostics" | "speed"
                | "task_budget" => {}
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        Ok(top)
    }

    fn write_settings(&self, out: &mut Output) -> Fit<()> {
        if let Some(tools) = self.tools {
            write_tools(out, tools).map_err(|refusal| refusal.within("tools"))?;
        }
        if let Some(choice) = self.tool_choice {
            write_tool_choice(out, choice).map_err(|refusal| refusal.within("tool_choice"))?;
        }
        if let Some(stop) = self.stop_sequences {
            let mut count = 0;
            elements(stop, |_, word| inside(word).map(|_| count += 1))
                .map_err(|refusal| refusal.within("stop_sequences"))?;
            if count > 0 {
                out.write(&[",\"stop\":", stop.get()]);
            }
        }
        let copied = [("temperature", self.temperature), ("top_p", self.top_p), ("user", self.user)];
        for (key, value) in copied {
            if let Some(value) = value {
                out.write(&[",\"", key, "\":", value.get()]);
            }
        }
        if let Some(schema) = self.schema {
            let lead = ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true,\"schema\":";
            out.write(&[lead, schema.get(), "}}"]);
        }
        if self.default_tier {
            out.write(&[",\"service_tier\":\"default\""]);
        }
        if self.stream {
            out.write(&[",\"stream\":true"]);
        }
        Ok(())
    }
}

fn number(value: Raw<'_>) -> Fit<Raw<'_>> {
    let is_number = value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number.then_some(value).ok_or_else(|| Refusal::expected("", "a number"))
}

fn write_tools(out: &mut Output, tools: Raw<'_>) -> Fit<()> {
    let mut list = Separated::default();
    elements(tools, |_, tool| {
        out.write(if list.is_begun() { &[] } else { &[",\"tools\":["] });
        list.next(out);
        write_tool(out, tool)
    })?;
    out.write(if list.is_begun() { &["]"] } else { &[] });
    Ok(())
}

fn write_tool(out: &mut Output, tool: Raw<'_>) -> Fit<()> {
    let (mut name, mut description, mut schema, mut strict) = (None, None, None, false);
    members(tool, |key, value| {
        match key {
            "type" => match &*string(value)? {
                "custom" => {}
                other => return Err(Refusal::of_value(other)),
            },
            "name" => name = Some(inside(value)?),
            "description" => description = Some(inside(value)?),
            "input_schema" => members(value, |_, _| Ok(())).map(|()| schema = Some(value))?,
            "strict" => strict = boolean(value)?,
            "cache_control" | "eager_input_streaming" => {}
            // Chat has no tool search: the tool is available from the start.
            "defer_loading" => drop(boolean(value)?),
            "allowed_callers" => elements(value, |_, caller| match &*string(caller)? {
                "direct" => Ok(()),
                other => Err(Refusal::of_value(other)),
            })?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| Refusal::expected("name", "a string"))?;
    out.write(&["{\"type\":\"function\",\"function\":{\"name\":\"", name, "\""]);
    if let Some(description) = description {
        out.write(&[",\"description\":\"", description, "\""]);
    }
    out.write(&[",\"parameters\":", required(schema, "input_schema")?.get()]);
    out.write(&[if strict { ",\"strict\":true}}" } else { "}}" }]);
    Ok(())
}

fn write_tool_choice(out: &mut Output, choice: Raw<'_>) -> Fit<()> {
    let (mut kind, mut name, mut one_at_once) = (Cow::default(), None, false);
    members(choice, |key, value| {
        match key {
            "type" => kind = string(value)?,
            "name" => name = Some(inside(value)?),
            "disable_parallel_tool_use" => one_at_once = boolean(value)?,
            _ => return Err(Refusal::not_carried("")),
        }
        Ok(())
    })?;
    match (&*kind, name) {
        ("auto" | "none", _) => out.write(&[",\"tool_choice\":\"", &kind, "\""]),
        ("any", _) => out.write(&[",\"tool_choice\":\"required\""]),
        ("tool", Some(name)) => {
            let lead = ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"";
            out.write(&[lead, name, "\"}}"]);
        }
        ("tool", None) => return Err(Refusal::expected("name", "a string")),
        _ => return Err(Refusal::expected("type", "auto, any, tool or none")),
    }
    if one_at_once {
        out.write(&[",\"parallel_tool_calls\":false"]);
    }
    Ok(())
}
