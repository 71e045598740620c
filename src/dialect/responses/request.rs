//! A Responses request as a chat completion request. A member without a counterpart is refused by name; a
//! mere hint that does not change the content (`docs/responses.md` lists them) is omitted.

use super::context::{Echo, Translation};
use super::input::write_messages;
use super::tools::{Tools, write_tool_choice};
use crate::config::Thinking;
use crate::dialect::chat_request::ChatRequest;
use crate::dialect::json::{Fit, Refusal, boolean, elements, inside, members, required, string};
use crate::dialect::output::Output;
use crate::dialect::raw::Raw;
use crate::limits::MAX_USER_ID;

/// A translated request has about the size of the request plus [`ROOM`], allocated once.
const ROOM: usize = 512;

/// Members that do not change what the model reads: storage, caching, accounting, the user, and a server's
/// own options. Nothing is stored here, and a response says so.
const HINTS: &[&str] = &[
    "model",
    "access_programs",
    "background_options",
    "client_metadata",
    "context_management",
    "max_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "stream_options",
    "truncation",
];

/// The chat request that says what a Responses request says, in at most `limit` bytes, and what the way back needs. `body` is
/// a JSON object. `thinking`: what the provider takes of what was thought before.
///
/// # Errors
/// What has no place in a chat request, or is not what the Responses API asks for, and where; or it is too large.
pub fn chat_request(body: Raw<'_>, limit: usize, thinking: Thinking) -> Fit<(ChatRequest, Translation)> {
    let top = Top::of(body)?;
    let mut rest = Output::with_capacity(limit, body.get().len() + ROOM);
    rest.write(&[",\"messages\":["]);
    write_messages(&mut rest, top.instructions, required(top.input, "input")?, thinking)?;
    rest.write(&["]"]);
    let tools = top.write_settings(&mut rest)?;
    let max_tokens = top.max_tokens.map(|tokens| tokens.to_string());
    let request = ChatRequest::new(max_tokens, rest, limit, top.stream)?;
    Ok((request, Translation::new(top.echo(body)?, tools)))
}

/// The members of the request.
#[derive(Default)]
struct Top<'a> {
    instructions: Option<Raw<'a>>,
    input: Option<Raw<'a>>,
    max_tokens: Option<u64>,
    tools: Option<Raw<'a>>,
    tool_choice: Option<Raw<'a>>,
    one_call_at_once: bool,
    temperature: Option<Raw<'a>>,
    top_p: Option<Raw<'a>>,
    effort: Option<Raw<'a>>,
    format: Option<Raw<'a>>,
    service_tier: Option<Raw<'a>>,
    user: Option<Raw<'a>>,
    stream: bool,
}

impl<'a> Top<'a> {
    fn of(body: Raw<'a>) -> Fit<Self> {
        let mut top = Self::default();
        members(body, |key, value| {
            match key {
                "instructions" => inside(value).map(|_| top.instructions = Some(value))?,
                "input" => top.input = Some(value),
                "max_output_tokens" => top.max_tokens = Some(positive(value)?),
                "tools" => top.tools = Some(value),
                "tool_choice" => top.tool_choice = Some(value),
                "parallel_tool_calls" => top.one_call_at_once = !boolean(value)?,
                "temperature" => top.temperature = Some(number(value)?),
                "top_p" => top.top_p = Some(number(value)?),
                "stream" => top.stream = boolean(value)?,
                "text" => members(value, |key, value| match key {
                    "format" => format(value).map(|()| top.format = Some(value)),
                    "verbosity" => Ok(()),
                    _ => Err(Refusal::not_carried("")),
                })?,
                "reasoning" => members(value, |key, value| match key {
                    "effort" => inside(value).map(|_| top.effort = Some(value)),
                    "summary" | "generate_summary" | "context" | "mode" => Ok(()),
                    _ => Err(Refusal::not_carried("")),
                })?,
                "service_tier" => {
                    top.service_tier = Some(value).filter(|_| string(value).is_ok_and(|tier| tier != "auto"));
                }
                // OpenAI and others refuse a longer one; it means nothing to the model.
                "user" => string(value).map(|user| {
                    top.user = Some(value).filter(|_| user.chars().count() <= MAX_USER_ID);
                })?,
                // Only the response repeats it: chat takes it only together with `store`.
                "metadata" => members(value, |_, value| inside(value).map(drop))?,
                "include" => elements(value, |_, value| match &*string(value)? {
                    logprobs @ "message.output_text.logprobs" => Err(Refusal::of_value(logprobs)),
                    _ => Ok(()),
                })?,
                "background" if !boolean(value)? => {}
                "top_logprobs" if value.get() == "0" => {}
                _ if HINTS.contains(&key) => {}
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        Ok(top)
    }

    fn write_settings(&self, out: &mut Output) -> Fit<Vec<super::Tool>> {
        let tools = Tools::write(out, self.tools).map_err(|refusal| refusal.within("tools"))?;
        if let Some(choice) = self.tool_choice {
            write_tool_choice(out, choice, tools.is_empty())
                .map_err(|refusal| refusal.within("tool_choice"))?;
        }
        if self.one_call_at_once && !tools.is_empty() {
            out.write(&[",\"parallel_tool_calls\":false"]);
        }
        let copied = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("reasoning_effort", self.effort),
            ("service_tier", self.service_tier),
            ("user", self.user),
        ];
        for (key, value) in copied {
            if let Some(value) = value {
                out.write(&[",\"", key, "\":", value.get()]);
            }
        }
        if let Some(format) = self.format {
            write_format(out, format)?;
        }
        if self.stream {
            out.write(&[",\"stream\":true"]);
        }
        Ok(tools.into_special())
    }

    /// The members of the response that repeat the request. Nothing is stored, even if the request asks for
    /// it.
    fn echo(&self, body: Raw<'_>) -> Fit<Echo> {
        let mut said = [None; ECHOED.len()];
        members(body, |key, value| {
            if let Some(at) = ECHOED.iter().position(|(echoed, _)| *echoed == key) {
                said[at] = Some(value);
            }
            Ok(())
        })?;
        let mut echo = Echo::default();
        for ((key, default), said) in ECHOED.iter().zip(said) {
            echo.add(key, said, default);
        }
        for (key, value) in [("background", "false"), ("previous_response_id", "null"), ("store", "false")] {
            echo.add(key, None, value);
        }
        Ok(echo)
    }
}

/// The members of a response that repeat the request's, with their defaults: the longest last, which may not
/// fit.
const ECHOED: &[(&str, &str)] = &[
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("parallel_tool_calls", "true"),
    ("prompt_cache_key", "null"),
    ("reasoning", "{\"effort\":null,\"summary\":null}"),
    ("safety_identifier", "null"),
    ("service_tier", "\"auto\""),
    ("temperature", "1.0"),
    ("tool_choice", "\"auto\""),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
    ("metadata", "{}"),
    ("text", "{\"format\":{\"type\":\"text\"}}"),
    ("instructions", "null"),
    ("tools", "[]"),
];

fn number(value: Raw<'_>) -> Fit<Raw<'_>> {
    let is_number = value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number.then_some(value).ok_or_else(|| Refusal::expected("", "a number"))
}

fn positive(value: Raw<'_>) -> Fit<u64> {
    let count = value.get().parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| Refusal::expected("", "a positive integer"))
}

/// Checks the format of the response.
fn format(format: Raw<'_>) -> Fit<()> {
    let (mut kind, mut name, mut schema) = (None, None, None);
    members(format, |key, value| match key {
        "type" => string(value).map(|it| kind = Some(it)),
        "name" | "description" => inside(value).map(|_| name = name.or((key == "name").then_some(value))),
        "schema" => members(value, |_, _| Ok(())).map(|()| schema = Some(value)),
        "strict" => boolean(value).map(drop),
        _ => Err(Refusal::not_carried("")),
    })?;
    match kind.as_deref() {
        Some("text" | "json_object") => Ok(()),
        Some("json_schema") => required(name, "name").and(required(schema, "schema")).map(drop),
        Some(other) => Err(Refusal::of_value(other).within("type")),
        None => Err(Refusal::expected("type", "a string")),
    }
}

/// Writes a checked format. Chat has the same members one level deeper.
fn write_format(out: &mut Output, format: Raw<'_>) -> Fit<()> {
    let is = |kind: &str| {
        let mut is = false;
        let _ = members(format, |key, value| {
            is |= key == "type" && string(value)? == kind;
            Ok(())
        });
        is
    };
    if is("json_object") {
        out.write(&[",\"response_format\":{\"type\":\"json_object\"}"]);
    }
    if !is("json_schema") {
        return Ok(());
    }
    out.write(&[",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"]);
    let mut begin = "{";
    members(format, |key, value| {
        if key != "type" {
            out.write(&[std::mem::replace(&mut begin, ","), "\"", key, "\":", value.get()]);
        }
        Ok(())
    })?;
    out.write(&["}}"]);
    Ok(())
}
