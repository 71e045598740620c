//! A chat completion as an answer of the Messages API.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Why an answer cannot be put into the other format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is an error, in spite of its status.
    Error,
    /// It is not what a chat completion has to be.
    Malformed(&'static str),
}

/// Tokens, as chat counts them.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
pub(super) struct ChatUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    /// DeepSeek's name for cached tokens.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
}

impl ChatUsage {
    /// Tokens of the prompt and of the completion.
    pub(super) fn tokens(self) -> (u64, u64) {
        (self.prompt_tokens.unwrap_or(0), self.completion_tokens.unwrap_or(0))
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// Tokens, as the Messages API counts them: those read from a cache stand apart.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<ChatUsage> for Usage {
    fn from(chat: ChatUsage) -> Self {
        let prompt = chat.prompt_tokens.unwrap_or(0);
        let details = chat.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let cached = details.or(chat.prompt_cache_hit_tokens).unwrap_or(0).min(prompt);
        Self {
            input_tokens: prompt - cached,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: chat.completion_tokens.unwrap_or(0),
        }
    }
}

/// What a chat completion and each event of a streamed one have in common.
#[derive(Deserialize)]
pub(super) struct Chat<'a> {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    pub(super) usage: Option<ChatUsage>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    /// Whole.
    #[serde(default, borrow)]
    pub(super) message: Option<Said<'a>>,
    /// What is new of it.
    #[serde(default, borrow)]
    pub(super) delta: Option<Said<'a>>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(default, borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    /// The newer name for it.
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, borrow)]
    pub(super) function: Option<Function<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(default)]
    pub(super) name: Option<String>,
    /// JSON in a string; some providers send the object itself.
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

impl Said<'_> {
    /// The model's reasoning; some providers send it under both names.
    pub(super) fn thought(&self) -> Option<&str> {
        let told = self.reasoning_content.as_deref().or(self.reasoning.as_deref());
        told.filter(|thought| !thought.is_empty())
    }

    /// The text: a string, or a list of parts with text alone.
    pub(super) fn text(&self) -> Result<Option<String>, Unfit> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Content {
            Text(String),
            Parts(Vec<Part>),
        }
        #[derive(Deserialize)]
        struct Part {
            text: String,
        }
        let Some(content) = self.content else { return Ok(None) };
        let content = serde_json::from_str(content.get());
        let text = match content.map_err(|_| Unfit::Malformed("content is no text"))? {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

impl<'a> Function<'a> {
    /// The arguments' JSON, as far as it is there.
    pub(super) fn arguments(&self) -> Result<Cow<'a, str>, Unfit> {
        match self.arguments.map(RawValue::get) {
            None | Some("null") => Ok(Cow::Borrowed("")),
            Some(text) if text.starts_with('"') => {
                serde_json::from_str(text).map(Cow::Owned).map_err(|_| Unfit::Malformed("arguments"))
            }
            Some(object) => Ok(Cow::Borrowed(object)),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: &'a str,
    /// Chat does not tell which stop sequence it was.
    stop_sequence: Option<&'a str>,
    usage: Usage,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Thinking { thinking: &'a str, signature: &'static str },
    Text { text: Cow<'a, str> },
    ToolUse { id: Cow<'a, str>, name: &'a str, input: &'a RawValue },
}

/// The answer for the client that asked for `model`. `id` serves where the provider gives none.
///
/// # Errors
/// [`Unfit`].
pub fn message(body: &[u8], model: &str, id: &str) -> Result<Vec<u8>, Unfit> {
    let chat = parse(body)?;
    let id = chat.id.as_deref().filter(|id| !id.is_empty()).unwrap_or(id);
    let choice = chat.choices.iter().flatten().next().ok_or(Unfit::Malformed("no choices"))?;
    let said = choice.message.as_ref().ok_or(Unfit::Malformed("no message"))?;
    let mut calls = said.tool_calls.as_deref().unwrap_or_default();
    let stop_reason =
        stop_reason(choice.finish_reason.as_deref(), !calls.is_empty(), said.refusal.is_some())?;
    // Where the limit was met, the last call may have been cut: there is no JSON that could stand for it.
    if let ([whole @ .., last], "max_tokens") = (calls, stop_reason)
        && input(last).is_err()
    {
        calls = whole;
    }
    let inputs = calls.iter().map(input).collect::<Result<Vec<_>, _>>()?;
    let mut content = Vec::new();
    content.extend(said.thought().map(|thinking| Block::Thinking { thinking, signature: "" }));
    content.extend(said.text()?.map(|text| Block::Text { text: text.into() }));
    content.extend(said.refusal.as_deref().map(|text| Block::Text { text: text.into() }));
    for (at, (call, (name, input))) in calls.iter().zip(&inputs).enumerate() {
        let id = call_id(call.id.as_deref(), id, at);
        content.push(Block::ToolUse { id, name, input });
    }
    let usage = chat.usage.unwrap_or_default().into();
    let (kind, role) = ("message", "assistant");
    let message = Message { id, kind, role, model, content, stop_reason, stop_sequence: None, usage };
    serde_json::to_vec(&message).map_err(|_| Unfit::Malformed("message"))
}

/// Reads a completion, or an event of one.
pub(super) fn parse(document: &[u8]) -> Result<Chat<'_>, Unfit> {
    let chat: Chat<'_> =
        serde_json::from_slice(document).map_err(|_| Unfit::Malformed("no chat completion"))?;
    match chat.error {
        Some(_) => Err(Unfit::Error),
        None => Ok(chat),
    }
}

/// A tool call's name and its input, which has to be a JSON object; nothing at all stands for an empty one.
fn input<'a>(call: &'a ToolCall<'_>) -> Result<(&'a str, Box<RawValue>), Unfit> {
    let function = call.function.as_ref().ok_or(Unfit::Malformed("a tool call without its function"))?;
    let name = function.name.as_deref().ok_or(Unfit::Malformed("a tool call without a name"))?;
    let arguments = function.arguments()?;
    Ok((name, object(&arguments).ok_or(Unfit::Malformed("a tool call's arguments are no JSON object"))?))
}

/// Arguments as a JSON object.
pub(super) fn object(arguments: &str) -> Option<Box<RawValue>> {
    let text = if arguments.trim().is_empty() { "{}" } else { arguments };
    let raw: Box<RawValue> = serde_json::from_str(text).ok()?;
    raw.get().starts_with('{').then_some(raw)
}

/// The id of a tool call. A client sends it back with the result, so that one is needed where the provider gives none.
pub(super) fn call_id<'a>(given: Option<&'a str>, message: &str, at: usize) -> Cow<'a, str> {
    match given {
        Some(id) if !id.is_empty() => Cow::Borrowed(id),
        _ => Cow::Owned(format!("call_{message}_{at}")),
    }
}

/// Why the model stopped. A word that has no counterpart passes as it is.
pub(super) fn stop_reason(finish: Option<&str>, calls: bool, refused: bool) -> Result<&str, Unfit> {
    Ok(match finish {
        // Providers differ in what they say when there are calls; a client runs them for this word alone.
        None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") if calls => "tool_use",
        Some("content_filter" | "sensitive") => "refusal",
        None | Some("" | "stop" | "eos") if refused => "refusal",
        None | Some("" | "stop" | "eos" | "tool_calls" | "function_call") => "end_turn",
        Some("length" | "model_length") => "max_tokens",
        Some("error" | "network_error" | "insufficient_system_resource" | "abort") => {
            return Err(Unfit::Malformed("the provider gave up"));
        }
        Some(other) => other,
    })
}
