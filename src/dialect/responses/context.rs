//! What the way back needs to know of a translated request.

use serde_json::value::RawValue;

use crate::limits::MAX_ECHO;

/// What the way back needs to know of a request that was translated. It is held to the end of its response: bounded by
/// [`MAX_ECHO`] and [`MAX_TOOLS`](crate::limits::MAX_TOOLS).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// See [`Translation::echo`].
    echo: String,
    /// The tools that are no plain functions, sorted by their name in chat.
    tools: Vec<Tool>,
}

/// A tool that chat calls by another name, or takes for a function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    /// The function's name in chat.
    pub chat_name: String,
    /// Its name for the client.
    pub name: String,
    /// The namespace that it stands in.
    pub namespace: Option<String>,
    /// The client has it as a free-form (`custom`) tool: the function takes one string, `input`.
    pub is_custom: bool,
}

impl Translation {
    /// `tools` are the tools that are no plain functions.
    pub(super) fn new(echo: Echo, mut tools: Vec<Tool>) -> Self {
        tools.sort_unstable();
        Self { echo: echo.0, tools }
    }

    /// The members of the response that repeat the request or its defaults, as JSON has them, without braces:
    /// `"instructions":null,"tools":[…],…`. All of the response that is neither `id`, `object`, `created_at`, `status`, `error`,
    /// `incomplete_details`, `model`, `output` nor `usage`. It has no line ends.
    pub fn echo(&self) -> &str {
        &self.echo
    }

    /// What the client knows the function of that name as, where that is no function of the same name.
    pub fn tool(&self, chat_name: &str) -> Option<&Tool> {
        let at = self.tools.binary_search_by(|tool| tool.chat_name.as_str().cmp(chat_name)).ok()?;
        self.tools.get(at)
    }

    /// Bytes that it holds.
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

/// Members of a response, while they are written.
#[derive(Debug, Default)]
pub(super) struct Echo(String);

impl Echo {
    /// Adds a member: what the request says, or else the default. What has no room is left out.
    pub(super) fn add(&mut self, key: &str, said: Option<&RawValue>, default: &str) {
        let said = said.map(RawValue::get).filter(|said| self.0.len() + said.len() <= MAX_ECHO);
        let comma = if self.0.is_empty() { "" } else { "," };
        for piece in [comma, "\"", key, "\":"] {
            self.0.push_str(piece);
        }
        // An event's data is one line.
        self.0.extend(said.unwrap_or(default).split(['\r', '\n']));
    }
}
