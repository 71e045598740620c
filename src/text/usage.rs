//! Sentences about the arguments of the command line, in both languages.

use super::Language;

/// Why the arguments cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageProblem {
    /// An argument is not UTF-8.
    NotUtf8,
    /// `--config` has no value.
    NoPath,
    /// `--port` has no value.
    NoPort,
    /// The value of `--port` is no port.
    BadPort(String),
    /// No such argument here.
    Unknown(String),
}

impl UsageProblem {
    /// The sentence in that language, and where to read more.
    pub fn say(&self, language: Language) -> String {
        match language {
            Language::Zh => format!("ai-proxy: {}\n用法见 ai-proxy --help", self.zh()),
            Language::En => format!("ai-proxy: {}\nTry 'ai-proxy --help'.", self.en()),
        }
    }

    fn zh(&self) -> String {
        match self {
            Self::NotUtf8 => "有参数不是 UTF-8 文本".into(),
            Self::NoPath => "--config 之后应为路径".into(),
            Self::NoPort => "--port 之后应为端口".into(),
            Self::BadPort(value) => format!("--port: 不接受 {value}；应为 0 到 65535"),
            Self::Unknown(argument) => format!("未知的参数: {argument}"),
        }
    }

    fn en(&self) -> String {
        match self {
            Self::NotUtf8 => "an argument is not UTF-8".into(),
            Self::NoPath => "--config needs a path".into(),
            Self::NoPort => "--port needs a number".into(),
            Self::BadPort(value) => format!("--port: {value} is not allowed; expected 0 to 65535"),
            Self::Unknown(argument) => format!("unknown argument: {argument}"),
        }
    }
}
