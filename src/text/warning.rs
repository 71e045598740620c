//! Warnings about settings that are accepted but probably a mistake, in both languages.
//!
//! All facts in a [`Warning`] may be shown: its maker leaves the secrets out.

use super::Language;
use super::file::FileProblem;

/// A sentence that says what is probably wrong and what to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// No token is configured.
    NoTokens,
    /// A token has a limit of tokens a day, and no file keeps its count over a restart.
    NoStateFile,
    /// The file holds secrets and every user may access it.
    OpenFile {
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A value stands for another one: a variable that is not replaced, or a blank to fill in.
    Placeholder { owner: Owner, key: String },
    /// Easy to guess, while other machines may send it.
    WeakToken {
        token: String,
        /// Where ai-proxy listens.
        host: String,
        /// Characters that are wanted besides well-known words.
        least: usize,
    },
    /// A provider's URL is probably not its base URL.
    BaseUrl {
        provider: String,
        /// The key that holds the URL.
        key: &'static str,
        url: String,
        /// The base URL that is probably meant.
        meant: String,
    },
    /// A secret goes over the internet in clear text.
    PlainHttp {
        provider: String,
        /// The key that holds the URL.
        key: &'static str,
        url: String,
    },
    /// Two providers are one account.
    SameAccount { provider: String, other: String, url: String },
    /// `log_file` or `state_file` cannot be written.
    Unwritable { key: &'static str, path: String, problem: FileProblem },
    /// `max_clients` is below `max_connections`.
    IdleSlots {
        /// `max_clients`.
        clients: usize,
        /// `max_connections`.
        slots: usize,
    },
    /// `max_memory` has room for fewer requests at once than `max_connections`.
    LittleMemory {
        /// `max_memory`, MiB.
        most: usize,
        /// Requests that fit.
        room: usize,
        /// `max_connections`.
        slots: usize,
    },
    /// `max_memory` exceeds what the machine leaves to the process.
    MemoryNotThere {
        /// `max_memory`, MiB.
        asked: usize,
        /// What the machine leaves to the process, MiB.
        there: usize,
    },
}

/// Which entry a value is part of, by its name.
#[derive(Debug, Clone, PartialEq)]
pub enum Owner {
    Provider(String),
    Token(String),
}

impl Warning {
    /// The sentence in that language.
    pub fn say(&self, language: Language) -> String {
        match language {
            Language::Zh => self.zh(),
            Language::En => self.en(),
        }
    }

    fn zh(&self) -> String {
        match self {
            Self::NoTokens => "tokens: 没有配置任何 token，所有需要 token 的请求都会被拒绝".into(),
            Self::NoStateFile => "tokens_per_day: 没有配置 state_file，重启后当日用量从零计起".into(),
            Self::OpenFile { path, mode } => format!(
                "配置文件 {path} 含有密钥，但所有用户都可以访问（权限 {mode:04o}）；建议 chmod 640，属主 root，属组为服务所用的组"
            ),
            Self::Placeholder { owner, key } => {
                format!("{} 的 {key} 像是没有替换的变量或待填的空位；环境变量写作 ${{NAME}}", owner.zh())
            }
            Self::WeakToken { token, host, least } => format!(
                "token {token} 容易猜到（除常见词以外不足 {least} 个字符），而 ai-proxy 监听 {host}；可用 openssl rand -hex 24 生成新的"
            ),
            Self::BaseUrl { provider, key, url, meant } => {
                format!("提供商 {provider} 的 {key} ({url}) 可能不是 base URL；应为 {meant}")
            }
            Self::PlainHttp { provider, key, url } => {
                format!("提供商 {provider} 的 {key} ({url}) 会把密钥以明文送上互联网；请改用 https://")
            }
            Self::SameAccount { provider, other, url } => format!(
                "提供商 {provider} 与 {other} 的 URL ({url}) 和密钥相同；请更正其中一个，或为两者使用同一个名称"
            ),
            Self::Unwritable { key, path, problem } => format!(
                "{key}: 当前用户无法写入 {path}: {}；请创建所在目录并授予写权限，或更改 {key}",
                problem.say(Language::Zh)
            ),
            Self::IdleSlots { clients, slots } => {
                format!("max_clients ({clients}) 小于 max_connections ({slots})：部分名额永远不会用到")
            }
            Self::LittleMemory { most, room, slots } => format!(
                "max_memory ({most} MiB) 同时只容得下 {room} 个请求，少于 max_connections ({slots})：其余的排队等待"
            ),
            Self::MemoryNotThere { asked, there } => {
                format!("max_memory ({asked} MiB) 超过本机可给本进程的内存（{there} MiB）")
            }
        }
    }

    fn en(&self) -> String {
        match self {
            Self::NoTokens => "tokens: none configured; every request that needs a token is refused".into(),
            Self::NoStateFile => "tokens_per_day: without state_file a restart loses today's counts".into(),
            Self::OpenFile { path, mode } => format!(
                "the config file {path} holds secrets, but every user may access it (mode {mode:04o}); recommended: chmod 640, owner root, the service's group"
            ),
            Self::Placeholder { owner, key } => format!(
                "{}: {key} looks like a variable that is not replaced, or a blank to fill in; an environment variable is written ${{NAME}}",
                owner.en()
            ),
            Self::WeakToken { token, host, least } => format!(
                "token {token} is easy to guess (fewer than {least} characters besides well-known words), and ai-proxy listens on {host}; make a new one with openssl rand -hex 24"
            ),
            Self::BaseUrl { provider, key, url, meant } => format!(
                "provider {provider}: {key} ({url}) is probably not a base URL; the base URL is probably {meant}"
            ),
            Self::PlainHttp { provider, key, url } => format!(
                "provider {provider}: {key} ({url}) sends the key over the internet in clear text; use https://"
            ),
            Self::SameAccount { provider, other, url } => format!(
                "provider {provider} has the URL ({url}) and the key of provider {other}; correct one of them, or give both the same name"
            ),
            Self::Unwritable { key, path, problem } => format!(
                "{key}: this user cannot write {path}: {}; create its folder and allow the user to write there, or change {key}",
                problem.say(Language::En)
            ),
            Self::IdleSlots { clients, slots } => format!(
                "max_clients ({clients}) is less than max_connections ({slots}): some slots are never used"
            ),
            Self::LittleMemory { most, room, slots } => format!(
                "max_memory ({most} MiB) has room for {room} requests at once, fewer than max_connections ({slots}): further requests wait"
            ),
            Self::MemoryNotThere { asked, there } => format!(
                "max_memory ({asked} MiB) is more than this machine leaves to the process ({there} MiB)"
            ),
        }
    }
}

impl Owner {
    fn zh(&self) -> String {
        match self {
            Self::Provider(name) => format!("提供商 {name}"),
            Self::Token(name) => format!("token {name}"),
        }
    }

    fn en(&self) -> String {
        match self {
            Self::Provider(name) => format!("provider {name}"),
            Self::Token(name) => format!("token {name}"),
        }
    }
}
