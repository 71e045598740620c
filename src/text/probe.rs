//! The table of `ai-proxy check --probe`, in both languages.

use super::Language;

/// A column of the table.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    Provider,
    Reachable,
    Tls,
    Key,
    Models,
    Latency,
    Url,
}

/// What a cell says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fact {
    /// Nothing to say.
    #[default]
    None,
    Yes,
    No,
    /// The key was checked, and is good.
    Accepted,
    Refused,
    /// No response depended on the key.
    Unchecked,
}

/// Why an entry failed its probe.
#[derive(Debug)]
pub enum Failed {
    /// The reason in the words of the system.
    Because(String),
    /// What responds does not speak HTTP: the parser's reason.
    NotHttp(String),
    /// This status refuses the key.
    Key(u16),
    /// This status stands for a list that does not exist.
    NoList(u16),
    /// The list cannot be read: the reason.
    List(String),
    /// A status that says nothing of the entry.
    Status(u16),
}

impl Column {
    /// From left to right.
    pub const ALL: [Self; 7] =
        [Self::Provider, Self::Reachable, Self::Tls, Self::Key, Self::Models, Self::Latency, Self::Url];

    /// Its head in that language.
    pub fn say(self, language: Language) -> &'static str {
        let (zh, en) = match self {
            Self::Provider => ("提供商", "provider"),
            Self::Reachable => ("可达", "reachable"),
            Self::Tls => ("TLS", "TLS"),
            Self::Key => ("密钥", "key"),
            Self::Models => ("模型", "models"),
            Self::Latency => ("延迟", "latency"),
            Self::Url => ("URL", "URL"),
        };
        if language == Language::Zh { zh } else { en }
    }
}

impl Fact {
    /// The word in that language.
    pub fn say(self, language: Language) -> &'static str {
        let (zh, en) = match self {
            Self::None => ("-", "-"),
            Self::Yes => ("是", "yes"),
            Self::No => ("否", "no"),
            Self::Accepted => ("有效", "accepted"),
            Self::Refused => ("被拒绝", "refused"),
            Self::Unchecked => ("未验证", "unchecked"),
        };
        if language == Language::Zh { zh } else { en }
    }
}

impl Failed {
    /// The sentence in that language.
    pub fn say(self, language: Language) -> String {
        match (self, language) {
            (Self::Because(reason), _) => reason,
            (Self::NotHttp(reason), Language::Zh) => format!("有响应，但不是有效的 HTTP: {reason}"),
            (Self::NotHttp(reason), Language::En) => {
                format!("it responds, but not with valid HTTP: {reason}")
            }
            (Self::Key(status), Language::Zh) => format!("提供商拒绝了密钥（HTTP {status}）"),
            (Self::Key(status), Language::En) => format!("the provider refuses the key (HTTP {status})"),
            (Self::NoList(status), Language::Zh) => {
                format!("没有模型列表（HTTP {status}）；请更正 URL，或在配置里写 models")
            }
            (Self::NoList(status), Language::En) => {
                format!("no model list there (HTTP {status}); correct the URL, or name the entry's models")
            }
            (Self::List(reason), Language::Zh) => format!("模型列表无法读取: {reason}"),
            (Self::List(reason), Language::En) => format!("the model list cannot be read: {reason}"),
            (Self::Status(status), _) => format!("HTTP {status}"),
        }
    }

    /// How many entries failed, of how many.
    pub fn sum(failed: usize, all: usize, language: Language) -> String {
        match (failed, language) {
            (0, Language::Zh) => format!("{all} 个提供商均通过探测"),
            (0, Language::En) => format!("all provider entries passed their probe ({all})"),
            (_, Language::Zh) => format!("{all} 个提供商中有 {failed} 个未通过探测"),
            (_, Language::En) => format!("{failed} of {all} provider entries failed their probe"),
        }
    }
}
