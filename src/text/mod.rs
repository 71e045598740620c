//! Every sentence for people, in both languages: API messages and log lines here, sentences about the
//! configuration in [`config`]. No other module holds prose for people.

pub mod alike;
pub mod config;
pub mod expected;
pub mod file;
pub mod probe;
pub mod reason;
pub mod usage;
pub mod warning;

/// Language of API messages and log lines (config key `language`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Chinese, the default.
    #[default]
    Zh,
    /// English.
    En,
}

impl Language {
    /// The language of the locale, for messages before the config says one: that of `LC_ALL`, else `LC_MESSAGES`,
    /// else `LANG`. All but Chinese is English. `None`: none of them is set.
    pub fn of_locale(env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &&str| env(name).filter(|locale| !locale.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(set)?;
        Some(if locale.to_ascii_lowercase().starts_with("zh") { Self::Zh } else { Self::En })
    }
}

/// Text in one language, or in both where none is known.
pub fn in_language(language: Option<Language>, say: impl Fn(Language) -> String) -> String {
    match language {
        Some(language) => say(language),
        None => format!("{}\n{}", say(Language::Zh), say(Language::En)),
    }
}

/// A sentence with its facts. [`Text::say`] puts it into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text<'a> {
    // ── responses to clients ──
    /// No token was sent.
    MissingToken,
    /// The token is not configured.
    InvalidToken,
    /// The caller is no administrator.
    Forbidden,
    /// No such path; the one that may be meant.
    NotFound(&'a str, Option<&'a str>),
    /// No such model, or the caller may not use it; those that it may mean.
    ModelNotFound(&'a str, &'a [String]),
    /// A field of the request has no counterpart in chat completions: its place.
    NotTranslatable(&'a str),
    /// A field has a wrong value: its place, and what it should be.
    InvalidParameter(&'a str, &'a str),
    /// The path exists, but the model's provider does not speak its format.
    NotSpoken(&'a str),
    /// The path exists, the method does not.
    MethodNotAllowed(&'a str),
    /// The request violates RFC 9112; the fact is the violated rule.
    MalformedRequest(&'a str),
    /// The body is empty.
    EmptyBody,
    /// The client begins a TLS handshake.
    PlainHttpOnly,
    /// A browser asks whether a page may call, and the page's origin is not allowed: why the request itself is refused.
    PreflightRefused(&'a str),
    /// The body is not a JSON object; the fact is the place and reason.
    InvalidJson(&'a str),
    /// The body has no `model`.
    MissingModel,
    /// `model` is not a non-empty string.
    InvalidModel,
    /// `model` is over its bound, bytes.
    ModelTooLong(usize),
    /// `model` is repeated, or in another case.
    AmbiguousModel,
    /// A member could select a model that the filters exclude.
    OtherModel(&'a str),
    /// The body is compressed.
    UnsupportedEncoding,
    /// The client asks for a WebSocket.
    UpgradeRequired,
    /// The request did not arrive in time.
    ClientTimeout,
    /// The body is over the limit, bytes.
    BodyTooLarge(usize),
    /// The target is over the limit, bytes.
    UriTooLong(usize),
    /// The head is over one of its limits: bytes, fields.
    HeadTooLarge(usize, usize),
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// A transfer coding other than `chunked`.
    NotImplemented,
    /// Not HTTP/1.x.
    VersionNotSupported,
    /// The token exceeds its requests a minute.
    OverRate(u32),
    /// The token exceeds its requests at once.
    OverParallel(u32),
    /// The token has used up its tokens for the day.
    OverDay(u64),
    /// No connection to the provider.
    UpstreamUnreachable(&'a str),
    /// The provider's response was cut off or is malformed.
    UpstreamBroken(&'a str),
    /// The provider's response is over the limit: the provider, the config key of the limit, bytes.
    ResponseTooLarge(&'a str, &'a str, usize),
    /// A provider redirects requests.
    UpstreamRedirect(&'a str),
    /// A provider's response has a content coding that the request does not allow: the provider, the coding.
    UpstreamEncoding(&'a str, &'a str),
    /// A provider redirects its health check: the status and the target.
    CheckRedirected(&'a str),
    /// The provider did not respond in time.
    UpstreamTimeout(&'a str),
    /// No permit, memory or connection is free; the config key of the limit, if it has one.
    Overloaded(&'a str),
    /// Draining.
    ShuttingDown,
    /// A fault of the proxy.
    InternalError,
    /// A provider's error response that is not JSON.
    UpstreamError(&'a str),
    /// A provider refused ai-proxy's key: the provider, its text.
    KeyRefused(&'a str, &'a str),
    /// A provider refused a call though it accepts the key: the provider, its text.
    CallRefused(&'a str, &'a str),
    /// A reload succeeded.
    Reloaded,
    /// Another reload is still running.
    ReloadBusy,
    /// A reload was refused; the fact holds every problem.
    ReloadRefused(&'a str),

    /// An address cannot be listened on: the address with the system's reason, and whether the machine lacks it.
    CannotListen(&'a str, bool),

    // ── log lines ──
    /// The server listens.
    Listening(&'a str),
    /// The drain began; the fact is its limit, seconds.
    Draining(u64),
    /// The drain ended with requests in flight.
    DrainTimedOut(usize),
    /// The server has stopped.
    Stopped,
    /// Keys that a reload could not apply.
    RestartRequired(&'a str),
    /// The log file cannot be opened: path, reason.
    LogFileUnusable(&'a str, &'a str),
    /// Number of lines missing at this place.
    LogLinesDropped(u64),
    /// The state file cannot be read or has other content: path, reason.
    StateUnreadable(&'a str, &'a str),
    /// The state file cannot be written: path, reason.
    StateUnwritable(&'a str, &'a str),
    /// The state file can be written again: path.
    StateWritable(&'a str),
    /// `accept` failed: reason.
    AcceptFailed(&'a str),
    /// `accept` works again.
    AcceptResumed,
    /// The limit of open connections was met.
    TooManyClients(usize),
    HandlerPanicked(&'a str),
    /// A thread panicked: where and why.
    Panicked(&'a str),
    /// No further thread could be started: reason.
    ThreadRefused(&'a str),
    /// A provider's health changed to good.
    ProviderHealthy(&'a str),
    /// A provider's health changed to bad: provider, reason.
    ProviderUnhealthy(&'a str, &'a str),
    /// A provider lacks an API, and calls to it are translated: provider, replica, path.
    ChatAlone(&'a str, usize, &'a str),
    /// A provider's model list cannot be read: provider, reason.
    ModelListUnusable(&'a str, &'a str),
    /// A provider lists more models than fit: provider, models listed, models omitted.
    ModelListCut(&'a str, usize, usize),
    /// Every provider has been checked once: those that are healthy, all, and the others with their errors.
    FirstChecks(usize, usize, &'a str),
    /// The limit of open files: the value reached, and the need of all limits together.
    Descriptors(u64, u64),
    /// `max_clients` was lowered to the limit of open files.
    ClientsFitted(usize),
    /// Memory in MiB: limit of the process, its part for requests and responses, and what the machine leaves.
    Memory(usize, usize, usize),
}

impl Text<'_> {
    /// The sentence in that language.
    pub fn say(&self, language: Language) -> String {
        match language {
            Language::Zh => self.zh(),
            Language::En => self.en(),
        }
    }

    fn zh(&self) -> String {
        match self {
            Self::MissingToken => "未提供API token".into(),
            Self::InvalidToken => "无效的API token".into(),
            Self::Forbidden => {
                "没有权限: 请用 Authorization: Bearer TOKEN 或 x-api-key: TOKEN 发送有效的 token".into()
            }
            Self::NotFound(path, None) => format!("路径不存在: {path}"),
            Self::NotFound(path, Some(meant)) => format!("路径不存在: {path}；是否应为 {meant}？"),
            Self::ModelNotFound(model, []) => format!("未找到模型: {model}"),
            Self::ModelNotFound(model, meant) => {
                format!("未找到模型: {model}；请写 {}", meant.join(" 或 "))
            }
            Self::NotTranslatable(place) => {
                format!("该模型的提供商只支持 OpenAI 的 chat completions，以下内容无法转换: {place}")
            }
            Self::InvalidParameter(place, expected) => format!("参数 {place} 应为: {}", reason::zh(expected)),
            Self::NotSpoken(path) => format!("该模型的提供商不支持 {path}"),
            Self::MethodNotAllowed(method) => format!("此路径不支持该方法: {method}"),
            Self::MalformedRequest(rule) => format!("请求格式错误: {rule}"),
            Self::EmptyBody => "请求体是空的；请发送 JSON 对象".into(),
            Self::PlainHttpOnly => "此端口使用 HTTP，不使用 TLS (https://)".into(),
            Self::PreflightRefused(refusal) => {
                format!("{refusal}；浏览器中其他来源的页面要调用，须将其来源列入 cors_origins")
            }
            Self::InvalidJson(reason) => {
                format!("请求体不是有效的 JSON 对象（{}）", reason::placed_zh(reason))
            }
            Self::MissingModel => "请求体缺少 model 字段".into(),
            Self::InvalidModel => "model 必须是非空字符串".into(),
            Self::ModelTooLong(limit) => format!("model 超过 {limit} 字节"),
            Self::AmbiguousModel => "model 只能出现一次，且必须小写".into(),
            Self::OtherModel(member) => format!("{member} 可能选用不允许的模型"),
            Self::UnsupportedEncoding => {
                "不支持压缩的请求体（Content-Encoding），请发送未压缩的请求体".into()
            }
            Self::UpgradeRequired => "不支持 WebSocket，请使用普通的 HTTP/1.1 请求".into(),
            Self::ClientTimeout => "请求未在规定时间内送达".into(),
            Self::BodyTooLarge(limit) => format!("请求体超过上限 {limit} 字节"),
            Self::UriTooLong(limit) => format!("请求目标超过上限 {limit} 字节"),
            Self::HeadTooLarge(bytes, fields) => format!("请求头超过上限 {bytes} 字节或 {fields} 个字段"),
            Self::ExpectationFailed => "不支持的 Expect".into(),
            Self::NotImplemented => "不支持的传输编码".into(),
            Self::VersionNotSupported => "只支持 HTTP/1.x".into(),
            Self::OverRate(limit) => format!("请求过于频繁：该 token 每分钟最多 {limit} 个请求，请稍后再试"),
            Self::OverParallel(limit) => {
                format!("请求过于频繁：该 token 最多同时 {limit} 个请求，请稍后再试")
            }
            Self::OverDay(limit) => format!("该 token 当日（UTC）用量已达 {limit} tokens，请明日再试"),
            Self::UpstreamUnreachable(name) => format!("无法连接提供商: {name}"),
            Self::UpstreamBroken(name) => format!("提供商的响应中断或格式错误: {name}"),
            Self::ResponseTooLarge(name, key, limit) => {
                format!("提供商 {name} 的响应超过上限 {limit} 字节（配置项 {key} 可提高上限）")
            }
            Self::UpstreamRedirect(name) => format!("提供商把请求重定向到别处，请检查其基础 URL: {name}"),
            Self::UpstreamEncoding(name, coding) => {
                format!("提供商 {name} 用 {coding} 压缩了响应，而请求不允许压缩")
            }
            Self::CheckRedirected(what) => format!("{what}（请检查基础 URL）"),
            Self::UpstreamTimeout(name) => format!("提供商响应超时: {name}"),
            Self::Overloaded("") => "服务器繁忙，请稍后再试".into(),
            Self::Overloaded(limit) => format!("服务器繁忙（{limit} 已达上限），请稍后再试"),
            Self::ShuttingDown => "服务器正在关闭".into(),
            Self::InternalError => "内部错误".into(),
            Self::UpstreamError(text) => (*text).to_owned(),
            Self::KeyRefused(name, text) => {
                format!("提供商 {name} 拒绝了 ai-proxy 使用的密钥（你的 token 有效）: {text}")
            }
            Self::CallRefused(name, text) => {
                format!("提供商 {name} 拒绝了此次调用（你的 token 有效）: {text}")
            }
            Self::Reloaded => "配置重新加载成功".into(),
            Self::ReloadBusy => "另一次重新加载尚未结束".into(),
            Self::ReloadRefused(problems) => format!("配置未通过检查，保持原配置: {problems}"),
            Self::CannotListen(what, is_elsewhere) => format!(
                "无法监听（配置项 host 和 port）: {what}{}",
                if *is_elsewhere { "；本机没有这个地址" } else { "" }
            ),
            Self::Listening(address) => format!("开始监听 {address}"),
            Self::Draining(seconds) => format!("停止接收新请求，等待进行中的请求，最长 {seconds} 秒"),
            Self::DrainTimedOut(left) => format!("等待超时，仍有 {left} 个请求未完成"),
            Self::Stopped => "已停止".into(),
            Self::RestartRequired(keys) => format!("以下配置需要重启才能生效: {keys}"),
            Self::LogFileUnusable(path, reason) => format!("无法打开日志文件 {path}: {reason}"),
            Self::LogLinesDropped(count) => format!("此处缺少 {count} 行日志"),
            Self::StateUnreadable(path, reason) => {
                format!("无法读取状态文件 {path}，当日用量从零计起: {reason}")
            }
            Self::StateUnwritable(path, reason) => {
                format!("无法写入状态文件 {path}，重启后会丢失当日用量: {reason}")
            }
            Self::StateWritable(path) => format!("状态文件恢复写入: {path}"),
            Self::AcceptFailed(reason) => format!("暂时无法接受新连接: {reason}"),
            Self::AcceptResumed => "恢复接受新连接".into(),
            Self::TooManyClients(limit) => format!("客户端连接数达到上限 {limit}"),
            Self::HandlerPanicked(place) => format!("处理请求时发生内部错误: {place}"),
            Self::Panicked(place) => format!("内部错误: {place}"),
            Self::ThreadRefused(reason) => format!("无法创建线程: {reason}"),
            Self::ProviderHealthy(name) => format!("提供商恢复健康: {name}"),
            Self::ProviderUnhealthy(name, reason) => format!("提供商不健康: {name}: {reason}"),
            Self::ChatAlone(name, replica, path) => {
                format!("提供商只支持 chat completions，{path} 请求将被转换: {name}，副本 {replica}")
            }
            Self::ModelListUnusable(name, reason) => format!("无法读取提供商的模型列表: {name}: {reason}"),
            Self::Memory(most, budget, there) => {
                format!("内存上限 {most} MiB，其中请求和响应 {budget} MiB；本机可用 {there} MiB")
            }
            Self::ModelListCut(name, kept, dropped) => {
                format!("提供商的模型列表过长: {name}: 列出 {kept} 个，略去 {dropped} 个")
            }
            Self::FirstChecks(healthy, total, "") => format!("首次检查: {total} 家提供商中 {healthy} 家健康"),
            Self::FirstChecks(healthy, total, others) => {
                format!("首次检查: {total} 家提供商中 {healthy} 家健康；尚不健康: {others}")
            }
            Self::Descriptors(got, needed) => format!("文件描述符上限 {got}，按配置最多需要 {needed}"),
            Self::ClientsFitted(clients) => format!("max_clients 按文件描述符上限调整为 {clients}"),
        }
    }

    fn en(&self) -> String {
        match self {
            Self::MissingToken => {
                "no API token was provided: send one as Authorization: Bearer TOKEN or x-api-key: TOKEN"
                    .into()
            }
            Self::InvalidToken => "the API token is not valid".into(),
            Self::Forbidden => {
                "not allowed: send a valid token as Authorization: Bearer TOKEN or x-api-key: TOKEN".into()
            }
            Self::NotFound(path, None) => format!("no such path: {path}"),
            Self::NotFound(path, Some(meant)) => format!("no such path: {path}; did you mean {meant}?"),
            Self::ModelNotFound(model, []) => format!("model not found: {model}"),
            Self::ModelNotFound(model, meant) => {
                format!("model not found: {model}; write {}", meant.join(" or "))
            }
            Self::NotTranslatable(place) => {
                format!(
                    "the provider of this model supports only chat completions, which cannot express {place}"
                )
            }
            Self::InvalidParameter(place, expected) => format!("{place}: expected {expected}"),
            Self::NotSpoken(path) => format!("the provider of this model does not support {path}"),
            Self::MethodNotAllowed(method) => format!("this path does not support the method {method}"),
            Self::MalformedRequest(rule) => format!("malformed request: {rule}"),
            Self::EmptyBody => "the body is empty; send a JSON object".into(),
            Self::PlainHttpOnly => "this port speaks plain HTTP, not TLS (https://)".into(),
            Self::PreflightRefused(refusal) => {
                format!("{refusal}; a page in a browser may call once its origin is in cors_origins")
            }
            Self::InvalidJson(reason) => format!("the body is not a valid JSON object: {reason}"),
            Self::MissingModel => "the body has no model".into(),
            Self::InvalidModel => "model must be a non-empty string".into(),
            Self::ModelTooLong(limit) => format!("model is longer than {limit} bytes"),
            Self::AmbiguousModel => "model must appear once, in lower case".into(),
            Self::OtherModel(member) => format!("{member} could select a model that is not allowed"),
            Self::UnsupportedEncoding => {
                "compressed bodies (Content-Encoding) are not supported: send the body uncompressed".into()
            }
            Self::UpgradeRequired => "WebSockets are not supported: send plain HTTP/1.1 requests".into(),
            Self::ClientTimeout => "the request did not arrive in time".into(),
            Self::BodyTooLarge(limit) => format!("the body is over the limit of {limit} bytes"),
            Self::UriTooLong(limit) => format!("the request target is over the limit of {limit} bytes"),
            Self::HeadTooLarge(bytes, fields) => {
                format!("the request head is over the limit of {bytes} bytes or {fields} fields")
            }
            Self::ExpectationFailed => "this Expect is not supported".into(),
            Self::NotImplemented => "this transfer coding is not supported".into(),
            Self::VersionNotSupported => "only HTTP/1.x is supported".into(),
            Self::OverRate(limit) => format!("too many requests: this token may send {limit} a minute"),
            Self::OverParallel(limit) => format!("too many requests: this token may have {limit} at once"),
            Self::OverDay(limit) => {
                format!(
                    "this token has used up its {limit} tokens for today; the next day begins at midnight UTC"
                )
            }
            Self::UpstreamUnreachable(name) => format!("the provider cannot be reached: {name}"),
            Self::UpstreamBroken(name) => {
                format!("the provider's response was cut off or is malformed: {name}")
            }
            Self::ResponseTooLarge(name, key, limit) => {
                format!(
                    "the response of provider {name} is over the limit of {limit} bytes ({key} in the config)"
                )
            }
            Self::UpstreamRedirect(name) => {
                format!("the provider redirects requests; check its base URL: {name}")
            }
            Self::UpstreamEncoding(name, coding) => {
                format!(
                    "provider {name} compressed its response with {coding}, which the request does not allow"
                )
            }
            Self::CheckRedirected(what) => format!("{what} (check the base URL)"),
            Self::UpstreamTimeout(name) => format!("the provider did not respond in time: {name}"),
            Self::Overloaded("") => "the server is busy, try again later".into(),
            Self::Overloaded(limit) => format!("the server is busy ({limit} is reached), try again later"),
            Self::ShuttingDown => "the server is shutting down".into(),
            Self::InternalError => "internal error".into(),
            Self::UpstreamError(text) => (*text).to_owned(),
            Self::KeyRefused(name, text) => {
                format!(
                    "provider {name} refused the key that ai-proxy has for it (your token is valid): {text}"
                )
            }
            Self::CallRefused(name, text) => {
                format!("provider {name} refused the call (your token is valid): {text}")
            }
            Self::Reloaded => "configuration reloaded".into(),
            Self::ReloadBusy => "another reload is still running".into(),
            Self::ReloadRefused(problems) => {
                format!("the new configuration has errors, the old one stays in force: {problems}")
            }
            Self::CannotListen(what, is_elsewhere) => format!(
                "cannot listen (host and port in the config): {what}{}",
                if *is_elsewhere { "; this machine does not have this address" } else { "" }
            ),
            Self::Listening(address) => format!("listening on {address}"),
            Self::Draining(seconds) => {
                format!("no new requests are taken; waiting up to {seconds} s for those in flight")
            }
            Self::DrainTimedOut(left) => format!("the drain timed out; {left} requests are not finished"),
            Self::Stopped => "stopped".into(),
            Self::RestartRequired(keys) => format!("these keys need a restart: {keys}"),
            Self::LogFileUnusable(path, reason) => format!("cannot open the log file {path}: {reason}"),
            Self::LogLinesDropped(count) => format!("{count} log lines are missing here"),
            Self::StateUnreadable(path, reason) => {
                format!("cannot read the state file {path}, so today's counts begin at zero: {reason}")
            }
            Self::StateUnwritable(path, reason) => {
                format!("cannot write the state file {path}, so a restart loses today's counts: {reason}")
            }
            Self::StateWritable(path) => format!("the state file can be written again: {path}"),
            Self::AcceptFailed(reason) => format!("cannot accept connections at the moment: {reason}"),
            Self::AcceptResumed => "accepting connections again".into(),
            Self::TooManyClients(limit) => format!("the limit of {limit} client connections is reached"),
            Self::HandlerPanicked(place) => format!("internal error while handling a request: {place}"),
            Self::Panicked(place) => format!("internal error: {place}"),
            Self::ThreadRefused(reason) => format!("cannot start a thread: {reason}"),
            Self::ProviderHealthy(name) => format!("provider is healthy again: {name}"),
            Self::ProviderUnhealthy(name, reason) => format!("provider is not healthy: {name}: {reason}"),
            Self::ChatAlone(name, replica, path) => {
                format!(
                    "provider supports only chat completions; calls to {path} are translated: {name}, replica {replica}"
                )
            }
            Self::ModelListUnusable(name, reason) => {
                format!("cannot read the model list of provider {name}: {reason}")
            }
            Self::Memory(most, budget, there) => format!(
                "memory limit: {most} MiB, {budget} MiB of it for requests and responses; this machine leaves {there} MiB"
            ),
            Self::ModelListCut(name, kept, dropped) => {
                format!(
                    "the model list of provider {name} is too long: {kept} are listed, {dropped} are omitted"
                )
            }
            Self::FirstChecks(healthy, total, "") => {
                format!("first checks: {healthy} of {total} providers are healthy")
            }
            Self::FirstChecks(healthy, total, others) => {
                format!("first checks: {healthy} of {total} providers are healthy; not healthy yet: {others}")
            }
            Self::Descriptors(got, needed) => {
                format!("limit of open files: {got}; the configuration needs up to {needed}")
            }
            Self::ClientsFitted(clients) => {
                format!("max_clients is lowered to {clients}, the most that the limit of open files allows")
            }
        }
    }
}

/// `text` in a form for a log line or a message: control characters (C0, DEL, C1), line separators and
/// backslashes are escaped, and text over `limit` bytes is cut with `…`, so that no peer can split or forge a
/// line.
pub fn quoted(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit) + 4);
    for character in text.chars() {
        if out.len() + character.len_utf8() > limit {
            out.push('…');
            break;
        }
        match character {
            '\\' => out.push_str("\\\\"),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// The beginning of `text`: as many whole characters as fit into `limit` bytes.
pub fn beginning(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::{Language, Text, beginning, in_language, quoted};

    #[test]
    fn language_of_the_locale_is_that_of_the_first_variable_that_is_set() {
        let of = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            Language::of_locale(&|name| value(name).map(str::to_owned))
        };
        for chinese in ["zh_CN.UTF-8", "zh", "zh_TW", "ZH_HK"] {
            assert_eq!(of(&[("LANG", chinese)]), Some(Language::Zh), "{chinese}");
        }
        for english in ["en_US.UTF-8", "C", "POSIX", "C.UTF-8", "de_DE"] {
            assert_eq!(of(&[("LANG", english)]), Some(Language::En), "{english}");
        }
        assert_eq!(of(&[("LANG", "zh_CN"), ("LC_MESSAGES", "en_US")]), Some(Language::En));
        assert_eq!(of(&[("LC_ALL", "zh_CN"), ("LC_MESSAGES", "en_US")]), Some(Language::Zh));
        assert_eq!(of(&[("LC_ALL", ""), ("LANG", "zh_CN")]), Some(Language::Zh));
        assert_eq!((of(&[]), of(&[("LC_ALL", "")])), (None, None));
    }

    #[test]
    fn text_of_no_known_language_is_said_in_both() {
        let say = |language| Text::Stopped.say(language);
        assert_eq!(in_language(Some(Language::En), say), "stopped");
        assert_eq!(in_language(None, say), "已停止\nstopped");
    }

    #[test]
    fn beginning_of_wide_characters_ends_before_the_one_that_is_cut() {
        let text = "a天😀";
        let ends: Vec<usize> = (0..=9).map(|limit| beginning(text, limit).len()).collect();
        assert_eq!(ends, [0, 1, 1, 1, 4, 4, 4, 4, 8, 8]);
    }

    #[test]
    fn promised_sentences_are_to_the_letter() {
        assert_eq!(Text::MissingToken.say(Language::Zh), "未提供API token");
        assert_eq!(Text::InvalidToken.say(Language::Zh), "无效的API token");
        assert_eq!(Text::ModelNotFound("a/b", &[]).say(Language::Zh), "未找到模型: a/b");
        assert_eq!(Text::Reloaded.say(Language::Zh), "配置重新加载成功");
    }

    #[test]
    fn control_characters_of_c0_and_c1_are_escaped_and_long_text_is_cut() {
        assert_eq!(quoted("a\r\nb\u{85}c\u{1b}[0m", 100), "a\\u{d}\\u{a}b\\u{85}c\\u{1b}[0m");
        assert_eq!(quoted("\u{2028}\u{202e}", 100), "\\u{2028}\\u{202e}");
        assert_eq!(quoted("日本語", 6), "日本…");
    }
}
