//! The relevant parts of a chat completion, or of an event of one. Providers differ: members that a
//! translation does not need are skipped with any value, and of a repeated member the last one counts.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::escapes::unescaped;
use super::json::{inside, members};
use super::raw::Raw;
use super::unfit::Unfit;
use super::usage::ChatUsage;
use crate::limits::{MAX_CHAT_EVENT, MAX_ID, MAX_TOOL_CALLS};

/// An object with these members; a member that is null counts as absent.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name<'a> { $($(#[$field_doc])* pub(super) $field: Option<$type>,)* }

        impl<'a> Deserialize<'a> for $name<'a> {
            fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
                struct Members;
                impl<'a> Visitor<'a> for Members {
                    type Value = $name<'a>;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_str<E: Error>(self, _: &str) -> Result<$name<'a>, E> {
                        Err(not_quoted())
                    }

                    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<$name<'a>, A::Error> {
                        let mut object = $name::default();
                        while let Some(Name(name)) = map.next_key()? {
                            match &*name {
                                $(name if name == stringify!($field).as_bytes() => {
                                    object.$field = map.next_value()?;
                                })*
                                _ => drop(map.next_value::<IgnoredAny>()?),
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
    };
}

/// The name of a member, without its escapes. As bytes, for it may hold surrogates.
struct Name<'a>(Cow<'a, [u8]>);

/// Longer than every name here, bytes: of a longer one that has escapes no copy is made.
const LONGEST_NAME: usize = 64;

impl<'a> Deserialize<'a> for Name<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'a> Visitor<'a> for Bytes {
            type Value = Name<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_borrowed_bytes<E: Error>(self, name: &'a [u8]) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name<'a>, E> {
                let is_short = name.len() <= LONGEST_NAME;
                Ok(Name(if is_short { Cow::Owned(name.to_vec()) } else { Cow::Borrowed(b"") }))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The error for a string of the wrong type: serde's own would quote all of it.
fn not_quoted<E: Error>() -> E {
    E::custom("a string")
}

object! {
    /// Common members of a chat completion and of each streamed event.
    Chat {
        id: Raw<'a>,
        choices: First<'a>,
        usage: Raw<'a>,
        /// Groq's member for the usage of a stream.
        x_groq: Raw<'a>,
        error: Raw<'a>,
    }
}

object! {
    Choice {
        index: Raw<'a>,
        /// The complete message.
        message: Said<'a>,
        /// The new part of the message.
        delta: Said<'a>,
        finish_reason: Raw<'a>,
    }
}

object! {
    Said {
        content: Raw<'a>,
        refusal: Raw<'a>,
        reasoning_content: Raw<'a>,
        reasoning: Raw<'a>,
        reasoning_details: Raw<'a>,
        tool_calls: Calls<'a>,
        /// The older form of tool calls.
        function_call: Raw<'a>,
        /// Citations of the text.
        annotations: Raw<'a>,
        images: Raw<'a>,
        audio: Raw<'a>,
    }
}

object! {
    ToolCall {
        index: Raw<'a>,
        id: Raw<'a>,
        function: Function<'a>,
    }
}

object! {
    Function {
        name: Raw<'a>,
        /// JSON in a string; some providers send the object itself.
        arguments: Raw<'a>,
    }
}

/// The first choice of index 0, else the first.
#[derive(Default)]
pub(super) struct First<'a>(pub(super) Option<Choice<'a>>);

/// Tool calls, at most [`MAX_TOOL_CALLS`].
#[derive(Default)]
pub(super) struct Calls<'a> {
    list: Vec<ToolCall<'a>>,
    too_many: bool,
}

/// Most bytes of an event that may be parts of cut characters: more of them are no text.
const MAX_CUT: usize = 64;

/// A document as text. In an event, bytes that are not UTF-8 become lone surrogates (`\udc80` to `\udcff`):
/// they may be part of a character whose rest is in the next event.
///
/// # Errors
/// A whole document is not UTF-8.
pub(super) fn utf8(document: &[u8]) -> Result<Cow<'_, str>, Unfit> {
    let document = document.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(document);
    match std::str::from_utf8(document) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if document.len() > MAX_CHAT_EVENT => Err(Unfit::Broken("no UTF-8")),
        Err(_) => {
            let (mut text, mut cut) = (String::with_capacity(document.len() * 2), 0);
            for chunk in document.utf8_chunks() {
                text.push_str(chunk.valid());
                cut += chunk.invalid().len();
                if cut > MAX_CUT {
                    text.extend((!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER));
                    continue;
                }
                for byte in chunk.invalid() {
                    // A write into memory cannot fail.
                    let _ = write!(text, "\\udc{byte:02x}");
                }
            }
            Ok(Cow::Owned(text))
        }
    }
}

/// Reads a completion, or an event of one.
///
/// # Errors
/// It is an error, or another document.
pub(super) fn parse(document: &str) -> Result<Chat<'_>, Unfit> {
    let chat: Chat<'_> = serde_json::from_str(document).map_err(|error| match error.classify() {
        Category::Data => Unfit::Malformed("no chat completion"),
        Category::Syntax | Category::Eof | Category::Io => Unfit::Broken("no JSON"),
    })?;
    if chat.error.is_some_and(is_error) { Err(Unfit::Error) } else { Ok(chat) }
}

/// An error is a non-empty object or string.
fn is_error(error: Raw<'_>) -> bool {
    match error.get().as_bytes() {
        [b'{', inside @ .., b'}'] => !inside.trim_ascii().is_empty(),
        [b'"', inside @ .., b'"'] => !inside.is_empty(),
        _ => false,
    }
}

/// A string in WTF-8: UTF-8 that may hold surrogates, because a character may be cut in two.
pub(super) fn bytes(raw: Raw<'_>) -> Option<Cow<'_, [u8]>> {
    inside(raw).ok().map(unescaped)
}

/// A string; invalid characters are replaced.
pub(super) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    Some(match bytes(raw)? {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Cow::Owned(text),
            Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        },
    })
}

/// A word: a string, or a number as written. An empty one counts as absent.
pub(super) fn word(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    let raw = raw?;
    let number = || Some(raw.get()).filter(|text| text.as_bytes()[0].is_ascii_digit()).map(Cow::Borrowed);
    text(raw).or_else(number).filter(|word| !word.is_empty())
}

/// The id of a message, if it is usable.
pub(super) fn id(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    word(raw).filter(|id| id.len() <= MAX_ID)
}

impl Chat<'_> {
    /// Its token counts, if any.
    pub(super) fn usage(&self) -> Option<ChatUsage> {
        let groq = || {
            let mut usage = None;
            let note = |key: &str, value| {
                usage = Some(value).filter(|_| key == "usage").or(usage);
                Ok(())
            };
            // A value that is no object has none.
            let _ = members(self.x_groq?, note);
            usage
        };
        self.usage.and_then(ChatUsage::of).or_else(|| groq().and_then(ChatUsage::of))
    }
}

impl Choice<'_> {
    /// Its index; without one, 0.
    pub(super) fn number(&self) -> u64 {
        number(self.index).unwrap_or(0)
    }
}

impl ToolCall<'_> {
    pub(super) fn number(&self) -> Option<u64> {
        number(self.index)
    }
}

fn number(raw: Option<Raw<'_>>) -> Option<u64> {
    raw.and_then(|raw| raw.get().parse().ok())
}

impl<'a> Said<'a> {
    /// Takes its tool calls.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn calls(&mut self) -> Result<Vec<ToolCall<'a>>, Unfit> {
        let Calls { mut list, too_many } = self.tool_calls.take().unwrap_or_default();
        if too_many {
            return Err(TOO_MANY_CALLS);
        }
        if list.is_empty() {
            let function = self.function_call.and_then(|call| serde_json::from_str(call.get()).ok());
            list.extend(
                function.map(|function| ToolCall { function: Some(function), ..ToolCall::default() }),
            );
        }
        Ok(list)
    }
}

/// More than [`MAX_TOOL_CALLS`].
pub(super) const TOO_MANY_CALLS: Unfit = Unfit::Malformed("too many tool calls");

impl<'a> Function<'a> {
    /// The arguments' JSON so far.
    pub(super) fn arguments(&self) -> Cow<'a, [u8]> {
        match self.arguments {
            None => Cow::Borrowed(b""),
            Some(raw) => bytes(raw).unwrap_or(Cow::Borrowed(raw.get().as_bytes())),
        }
    }
}

impl<'a> Deserialize<'a> for First<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choices;
        impl<'a> Visitor<'a> for Choices {
            type Value = First<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<First<'a>, E> {
                Err(not_quoted())
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<First<'a>, A::Error> {
                let mut first: Option<Choice<'a>> = None;
                while let Some(choice) = seq.next_element::<Option<Choice<'a>>>()? {
                    let is_better = |choice: &Choice<'_>| {
                        first.as_ref().is_none_or(|first| first.number() != 0 && choice.number() == 0)
                    };
                    if let Some(choice) = choice.filter(is_better) {
                        first = Some(choice);
                    }
                }
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(Choices)
    }
}

impl<'a> Deserialize<'a> for Calls<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'a> Visitor<'a> for List {
            type Value = Calls<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Calls<'a>, E> {
                Err(not_quoted())
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Calls<'a>, A::Error> {
                let mut calls = Calls::default();
                while let Some(call) = seq.next_element::<Option<ToolCall<'a>>>()? {
                    if calls.list.len() == MAX_TOOL_CALLS {
                        calls.too_many = true;
                    } else {
                        calls.list.extend(call);
                    }
                }
                Ok(calls)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_CUT, utf8};

    #[test]
    fn bytes_of_cut_characters_are_kept_and_a_flood_of_them_is_replaced() {
        assert_eq!(utf8(b"\xF0\x9Fa").ok().as_deref(), Some("\\udcf0\\udc9fa"));
        let flood = [0xFF; 1000];
        let text = utf8(&flood).expect("small");
        assert_eq!(text.matches("\\udcff").count(), MAX_CUT);
        assert_eq!(text.matches('\u{fffd}').count(), flood.len() - MAX_CUT);
    }
}
