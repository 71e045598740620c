//! Facts of a translated request for the translation of its response.

use crate::core::sort::sort_by;
use crate::dialect::raw::Raw;
use crate::limits::MAX_ECHO;

/// Facts of a translated request for the translation of its response. They are held until the response ends:
/// bounded by [`MAX_ECHO`] and [`MAX_TOOLS`](crate::limits::MAX_TOOLS).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// See [`Translation::echo`].
    echo: String,
    /// The tools that are no plain functions, sorted by their name in chat.
    tools: Vec<Tool>,
}

/// A tool with another name in chat, or of another type than function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The function's name in chat.
    pub chat_name: String,
    /// Its name in the client's request.
    pub name: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// For the client it is a free-form (`custom`) tool: the function takes one string, `input`.
    pub is_custom: bool,
}

impl Translation {
    /// `tools` are the tools that are no plain functions.
    pub(super) fn new(echo: Echo, mut tools: Vec<Tool>) -> Self {
        sort_by(&mut tools, |a, b| a.chat_name.cmp(&b.chat_name));
        Self { echo: echo.0, tools }
    }

    /// Members of the response that repeat the request or its defaults, as JSON without braces:
    /// `"instructions":null,"tools":[…],…`. Everything except `id`, `object`, `created_at`, `status`,
    /// `error`, `incomplete_details`, `model`, `output` and `usage`. There are no line ends in it.
    pub fn echo(&self) -> &str {
        &self.echo
    }

    /// The client's tool behind the function of that name, unless it is a plain function.
    pub fn tool(&self, chat_name: &str) -> Option<&Tool> {
        let at = self.tools.binary_search_by(|tool| tool.chat_name.as_str().cmp(chat_name)).ok()?;
        self.tools.get(at)
    }

    /// Size, bytes.
    pub fn held(&self) -> usize {
        let of_tool = |tool: &Tool| {
            size_of::<Tool>()
                + tool.chat_name.len()
                + tool.name.len()
                + tool.namespace.as_ref().map_or(0, String::len)
        };
        self.echo.len() + self.tools.iter().map(of_tool).sum::<usize>()
    }
}

/// Members of a response in the output.
#[derive(Debug, Default)]
pub(super) struct Echo(String);

impl Echo {
    /// Adds a member with the request's value, or else the default. A member without room is omitted.
    pub(super) fn add(&mut self, key: &str, said: Option<Raw<'_>>, default: &str) {
        let said = said.map(Raw::get).filter(|said| self.0.len() + said.len() <= MAX_ECHO);
        let comma = if self.0.is_empty() { "" } else { "," };
        for piece in [comma, "\"", key, "\":"] {
            self.0.push_str(piece);
        }
        // The data of an event is one line.
        self.0.extend(said.unwrap_or(default).split(['\r', '\n']));
    }
}
