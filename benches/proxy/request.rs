//! The requests of the load: an API, and a body for it.

use serde_json::{Value, json};

/// The body of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Body {
    /// One question, some 300 bytes.
    #[default]
    Question,
    /// The history of a coding agent: at least so many bytes, of which so many in a hundred are backslashes.
    History { bytes: usize, backslashes: Backslashes },
}

/// The API that a request is for. A call to any but the first two is translated for the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Api {
    #[default]
    Chat,
    /// The proxy responds itself; the request has no body.
    Health,
    Messages,
    Responses,
}

impl Api {
    /// Where it is called.
    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Health => "/healthz",
            Api::Messages => "/v1/messages",
            Api::Responses => "/v1/responses",
        }
    }

    /// The API at that path.
    pub fn at(path: &str) -> Option<Api> {
        [Api::Chat, Api::Health, Api::Messages, Api::Responses].into_iter().find(|api| api.path() == path)
    }

    pub fn method(self) -> &'static str {
        if self == Api::Health { "GET" } else { "POST" }
    }

    /// A request's body. `wish` holds the orders for the upstream: in the text, because some gateways drop a field such as
    /// `user`.
    pub fn body(self, model: &str, wish: &str, body: Body, stream: bool) -> String {
        if self == Api::Health {
            return String::new();
        }
        let (messages_key, limit) = self.members();
        let mut messages = vec![
            json!({"role": "system", "content": "You are a helpful assistant that answers in one short sentence."}),
            json!({"role": "user", "content": format!("What does a reverse proxy do, and why would one want it? {wish}")}),
        ];
        messages.extend(body.texts().map(|text| self.result(&text)));
        let mut body =
            json!({"model": model, messages_key: messages, "temperature": 0.7, limit: 256, "stream": stream});
        if self != Api::Messages {
            body["user"] = json!("bench");
        }
        body.to_string()
    }

    /// The member that holds the messages, and the one that bounds the response.
    fn members(self) -> (&'static str, &'static str) {
        match self {
            Api::Chat | Api::Health | Api::Messages => ("messages", "max_tokens"),
            Api::Responses => ("input", "max_output_tokens"),
        }
    }

    /// A tool's result as a message.
    fn result(self, text: &str) -> Value {
        match self {
            Api::Chat | Api::Health => json!({"role": "tool", "tool_call_id": "call_1", "content": text}),
            Api::Messages => {
                let result = json!({"type": "tool_result", "tool_use_id": "call_1", "content": text});
                json!({"role": "user", "content": [result]})
            }
            Api::Responses => json!({"type": "function_call_output", "call_id": "call_1", "output": text}),
        }
    }
}

/// Share of backslashes in a history, which is what reading it costs most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backslashes {
    /// 4 to 5 in a hundred, as agents send.
    Usual,
    /// 8 in a hundred.
    Many,
}

impl Body {
    /// As words of a spec.
    pub fn to_json(self) -> Value {
        match self {
            Body::Question => json!({"bytes": 0, "many": false}),
            Body::History { bytes, backslashes } => {
                json!({"bytes": bytes, "many": backslashes == Backslashes::Many})
            }
        }
    }

    /// Parses the words of a spec.
    pub fn from_json(value: &Value) -> Option<Body> {
        let bytes = value["bytes"].as_u64()?.try_into().ok()?;
        let backslashes = if value["many"].as_bool()? { Backslashes::Many } else { Backslashes::Usual };
        Some(if bytes == 0 { Body::Question } else { Body::History { bytes, backslashes } })
    }

    /// The results of the agent's tools.
    fn texts(self) -> impl Iterator<Item = String> {
        let (bytes, line) = match self {
            Body::Question => (0, ""),
            Body::History { bytes, backslashes: Backslashes::Usual } => {
                (bytes, "    let name = read(\"value\", of, what, was, asked, for);\n")
            }
            Body::History { bytes, backslashes: Backslashes::Many } => {
                (bytes, "    let a = read(\"value\", of);\n")
            }
        };
        let file = line.repeat(HISTORY_LINES);
        std::iter::repeat_n(file.clone(), bytes.div_ceil(file.len().max(1)))
    }
}

/// Lines of one message of a history.
const HISTORY_LINES: usize = 40;
