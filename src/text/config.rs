//! Every sentence about a configuration that is refused, and the labels of `ai-proxy check`; `warning` has those about one
//! that is accepted.
//!
//! All facts in a [`ConfigText`] may be shown: its maker masks the secrets.

use super::expected::Expected;
use super::file::FileProblem;
use super::{Language, reason};

/// A sentence about the configuration, with its facts.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigText {
    // ── the file as a whole ──
    /// The file cannot be opened or read.
    CannotRead(FileProblem),
    /// The file is over the limit, bytes.
    FileTooLarge(u64),
    /// The file is not UTF-8; the fact is the line of the first wrong byte.
    NotUtf8(usize),
    /// The file is UTF-16.
    Utf16,
    /// The file is not JSON.
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in characters.
        column: usize,
        problem: SyntaxProblem,
    },
    /// The file is JSON but not an object; the fact is its type.
    NotAnObject(String),
    /// Problems beyond those listed; the fact is their number.
    MoreProblems(usize),

    // ── keys ──
    /// No such key; the fact is the closest known key, if one is close.
    UnknownKey(Option<&'static str>),
    /// The key stands twice in its object.
    DuplicateKey,
    /// A required key is missing.
    MissingKey,

    // ── values ──
    /// The value is not allowed.
    Unfit {
        /// The value, masked when secret.
        value: String,
        /// What was expected.
        expected: Expected,
    },
    /// An environment variable that the value names is not set.
    MissingVariable(String),
    /// More entries than the limit.
    TooMany {
        /// Entries found.
        found: usize,
        /// Entries allowed.
        limit: usize,
    },
    /// The regular expression does not compile.
    BadRegex {
        pattern: String,
        /// The regex crate's reason.
        reason: String,
    },
    /// The regular expression compiles to more than the limit, bytes.
    RegexTooBig {
        pattern: String,
        /// Bytes allowed.
        limit: usize,
    },

    // ── providers, tokens, virtual models ──
    /// There is no provider entry at all.
    NoProviders,
    /// A provider string that is not `name|API_URL|API_KEY`; the fact is the number of its parts.
    ProviderParts(usize),
    /// A token string without its `|`.
    TokenParts,
    /// A header of a provider that the proxy sets itself.
    HeaderRefused,
    /// A repeated header, perhaps in another case.
    DuplicateHeader,
    /// A provider's `ca_file` cannot be used.
    CaFile { path: String, problem: CaProblem },
    /// `log_file` cannot be used.
    LogFile { path: String, problem: FileProblem },
    /// `state_file` cannot be used.
    StateFile { path: String, problem: FileProblem },
    /// The proxy would write a file that it also reads, or that it writes under another key.
    SameFile {
        path: String,
        /// The key of the other file; `None`: the config itself.
        other: Option<&'static str>,
    },
    /// The token equals another entry's; the fact is that entry's place.
    SameToken(String),
    /// A target whose provider does not exist.
    UnknownProvider { target: String, provider: String },
    /// A target that is itself a virtual model.
    AliasOfAlias(String),
}

/// Why the file is not JSON. What people write most often has a variant of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum SyntaxProblem {
    /// The file holds nothing but white space.
    Empty,
    /// `//`, `/*` or `#`.
    Comment,
    /// A comma before a closing bracket.
    TrailingComma,
    /// A string in single quotes.
    SingleQuotes,
    /// The parser's reason.
    Other(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum CaProblem {
    /// It cannot be read.
    File(FileProblem),
    /// It holds no certificate in PEM.
    NoCertificate,
    /// A certificate is unusable; the fact is its number, from 1.
    BadCertificate(usize),
}

/// A label in the output of `ai-proxy check` and of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Config,
    Listen,
    StatusPage,
    Log,
    LogStderr,
    LogLevel,
    Language,
    Providers,
    Replicas,
    Key,
    NoKey,
    Headers,
    Proxy,
    CaFile,
    Weight,
    Models,
    Tokens,
    Filters,
    All,
    Good,
    VirtualModels,
    Workers,
    /// `max_connections`.
    Slots,
    Clients,
    Memory,
    Retries,
    StateFile,
    Origins,
    TrustedProxies,
    More,
    Warning,
}

impl ConfigText {
    /// The sentence in that language.
    pub fn say(&self, language: Language) -> String {
        match language {
            Language::Zh => self.zh(),
            Language::En => self.en(),
        }
    }

    fn zh(&self) -> String {
        match self {
            Self::CannotRead(problem) => format!(
                "无法读取配置文件: {}；可用 --config 指定其他文件，以 config.json.example 为样例，或运行 ai-proxy demo",
                problem.say(Language::Zh)
            ),
            Self::FileTooLarge(limit) => format!("配置文件超过上限 {limit} 字节"),
            Self::NotUtf8(line) => format!("第 {line} 行不是有效的 UTF-8 文本"),
            Self::Utf16 => "第 1 行不是 UTF-8 文本，而是 UTF-16；请将文件另存为 UTF-8".into(),
            Self::Syntax { line, column, problem } => {
                format!("第 {line} 行第 {column} 列不是有效的 JSON: {}", problem.zh())
            }
            Self::NotAnObject(found) => format!("配置必须是一个 JSON 对象，实际为 {found}"),
            Self::MoreProblems(more) => format!("另有 {more} 个问题未列出"),
            Self::UnknownKey(None) => "未知的配置项".into(),
            Self::UnknownKey(Some(nearest)) => format!("未知的配置项；最接近的是 {nearest}"),
            Self::DuplicateKey => "重复的配置项".into(),
            Self::MissingKey => "缺少此项".into(),
            Self::Unfit { value, expected } => format!("不接受 {value}；应为{}", expected.say(Language::Zh)),
            Self::MissingVariable(name) => format!("环境变量 {name} 未设置"),
            Self::TooMany { found, limit } => format!("共 {found} 项，最多允许 {limit} 项"),
            Self::BadRegex { pattern, reason } => {
                format!("正则表达式 {pattern} 无效: {}", reason::zh(reason))
            }
            Self::RegexTooBig { pattern, limit } => {
                format!("正则表达式 {pattern} 过于复杂，编译后超过 {limit} 字节")
            }
            Self::NoProviders => "至少需要一个提供商".into(),
            Self::ProviderParts(found) => {
                format!("应为以 | 分隔的三部分 \"名称|API_URL|API_KEY\"，实际只有 {found} 部分")
            }
            Self::TokenParts => "应为以 | 分隔的两部分 \"描述|token\"，实际没有 |".into(),
            Self::HeaderRefused => "此请求头由代理自身设置，不能配置".into(),
            Self::DuplicateHeader => "重复的请求头（不区分大小写）".into(),
            Self::CaFile { path, problem } => format!("无法使用 CA 文件 {path}: {}", problem.zh()),
            Self::LogFile { path, problem } => {
                format!(
                    "无法用作日志文件 {path}: {}；log_file 为 null 时写到 stderr",
                    problem.say(Language::Zh)
                )
            }
            Self::StateFile { path, problem } => {
                format!("无法用作状态文件 {path}: {}", problem.say(Language::Zh))
            }
            Self::SameFile { path, other: None } => format!("{path} 是配置文件本身"),
            Self::SameFile { path, other: Some(key) } => format!("{path} 与 {key} 是同一个文件"),
            Self::SameToken(other) => format!("token 与 {other} 相同"),
            Self::UnknownProvider { target, provider } => {
                format!("{target} 中的提供商 {provider} 没有配置")
            }
            Self::AliasOfAlias(target) => {
                format!("{target} 本身是虚拟模型；虚拟模型不能指向虚拟模型，应为 provider/model")
            }
        }
    }

    fn en(&self) -> String {
        match self {
            Self::CannotRead(problem) => format!(
                "cannot read the config file: {} (choose another with --config, start from config.json.example, or run ai-proxy demo)",
                problem.say(Language::En)
            ),
            Self::FileTooLarge(limit) => format!("the config file is over the limit of {limit} bytes"),
            Self::NotUtf8(line) => format!("line {line} is not valid UTF-8"),
            Self::Utf16 => "line 1 is UTF-16, not UTF-8; save the file as UTF-8".into(),
            Self::Syntax { line, column, problem } => {
                format!("not valid JSON at line {line} column {column}: {}", problem.en())
            }
            Self::NotAnObject(found) => format!("the config must be a JSON object; found {found}"),
            Self::MoreProblems(more) => format!("{more} more problems are not listed"),
            Self::UnknownKey(None) => "unknown key".into(),
            Self::UnknownKey(Some(nearest)) => format!("unknown key; the closest known key is {nearest}"),
            Self::DuplicateKey => "duplicate key".into(),
            Self::MissingKey => "missing".into(),
            Self::Unfit { value, expected } => {
                format!("{value} is not allowed; expected {}", expected.say(Language::En))
            }
            Self::MissingVariable(name) => format!("environment variable {name} is not set"),
            Self::TooMany { found, limit } => format!("{found} entries; at most {limit} are allowed"),
            Self::BadRegex { pattern, reason } => {
                format!("{pattern} is not a valid regular expression: {reason}")
            }
            Self::RegexTooBig { pattern, limit } => {
                format!(
                    "the regular expression {pattern} is too complex: it compiles to more than {limit} bytes"
                )
            }
            Self::NoProviders => "at least one provider is needed".into(),
            Self::ProviderParts(found) => {
                format!("expected three parts \"name|API_URL|API_KEY\" separated by |; found {found}")
            }
            Self::TokenParts => "expected two parts \"description|token\" separated by |; found no |".into(),
            Self::HeaderRefused => "the proxy sets this header itself; it cannot be configured".into(),
            Self::DuplicateHeader => "duplicate header (names ignore case)".into(),
            Self::CaFile { path, problem } => format!("cannot use the CA file {path}: {}", problem.en()),
            Self::LogFile { path, problem } => {
                format!("cannot log to {path}: {} (null logs to stderr)", problem.say(Language::En))
            }
            Self::StateFile { path, problem } => {
                format!("cannot use {path} as the state file: {}", problem.say(Language::En))
            }
            Self::SameFile { path, other: None } => format!("{path} is the config file itself"),
            Self::SameFile { path, other: Some(key) } => format!("{path} is the same file as {key}"),
            Self::SameToken(other) => format!("the same token as {other}"),
            Self::UnknownProvider { target, provider } => {
                format!("{target} names the provider {provider}, which is not configured")
            }
            Self::AliasOfAlias(target) => {
                format!("{target} is itself a virtual model; a target must be provider/model")
            }
        }
    }
}

impl SyntaxProblem {
    fn zh(&self) -> String {
        match self {
            Self::Empty => "文件是空的".into(),
            Self::Comment => "JSON 没有注释，请删除".into(),
            Self::TrailingComma => "最后一项之后不能有逗号，请删除".into(),
            Self::SingleQuotes => "请将单引号改为双引号".into(),
            Self::Other(reason) => reason::zh(reason),
        }
    }

    fn en(&self) -> &str {
        match self {
            Self::Empty => "the file is empty",
            Self::Comment => "JSON has no comments; remove it",
            Self::TrailingComma => "no comma may follow the last entry; remove it",
            Self::SingleQuotes => "write double quotes instead of single quotes",
            Self::Other(reason) => reason,
        }
    }
}

impl CaProblem {
    fn zh(&self) -> String {
        match self {
            Self::File(problem) => problem.say(Language::Zh),
            Self::NoCertificate => "其中没有 PEM 格式的证书（-----BEGIN CERTIFICATE-----）".into(),
            Self::BadCertificate(number) => format!("第 {number} 个证书无效"),
        }
    }

    fn en(&self) -> String {
        match self {
            Self::File(problem) => problem.say(Language::En),
            Self::NoCertificate => "it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".into(),
            Self::BadCertificate(number) => format!("its certificate {number} is not valid"),
        }
    }
}

impl Label {
    /// The label in that language.
    pub fn say(self, language: Language) -> &'static str {
        let (zh, en) = match self {
            Self::Config => ("配置文件", "config"),
            Self::Listen => ("监听地址", "listen"),
            Self::StatusPage => ("状态页", "status page"),
            Self::Log => ("日志文件", "log file"),
            Self::LogStderr => ("仅 stderr", "stderr only"),
            Self::LogLevel => ("日志级别", "log level"),
            Self::Language => ("语言", "language"),
            Self::Providers => ("提供商", "providers"),
            Self::Replicas => ("副本", "replicas"),
            Self::Key => ("密钥", "key"),
            Self::NoKey => ("无密钥", "no key"),
            Self::Headers => ("请求头", "headers"),
            Self::Proxy => ("代理", "proxy"),
            Self::CaFile => ("CA 文件", "CA file"),
            Self::Weight => ("权重", "weight"),
            Self::Models => ("模型", "models"),
            Self::Tokens => ("token", "tokens"),
            Self::Filters => ("模型过滤", "supported models"),
            Self::All => ("全部", "all"),
            Self::Good => ("配置有效", "the configuration is valid"),
            Self::VirtualModels => ("虚拟模型", "virtual models"),
            Self::Workers => ("工作线程", "workers"),
            Self::Slots => ("同时处理的请求", "requests at once"),
            Self::Clients => ("客户端连接", "clients"),
            Self::Memory => ("内存上限", "memory limit"),
            Self::Retries => ("重试", "retries"),
            Self::StateFile => ("状态文件", "state file"),
            Self::Origins => ("CORS 来源", "CORS origins"),
            Self::TrustedProxies => ("受信任的代理", "trusted proxies"),
            Self::More => ("其余", "more"),
            Self::Warning => ("警告", "warning"),
        };
        match language {
            Language::Zh => zh,
            Language::En => en,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigText, Expected};
    use crate::text::Language;

    #[test]
    fn a_bad_value_is_named_with_what_was_expected_in_both_languages() {
        let text = ConfigText::Unfit { value: "0".into(), expected: Expected::Seconds(0.001, 604_800.0) };
        assert_eq!(text.say(Language::En), "0 is not allowed; expected seconds from 0.001 to 604800");
        assert_eq!(text.say(Language::Zh), "不接受 0；应为 0.001 到 604800 之间的秒数");
    }
}
