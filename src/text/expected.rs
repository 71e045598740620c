//! What a config value should be: the one rule that it breaks, in both languages.

use super::Language;

/// The rule that a value breaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    // ── types and bounds ──
    /// An integer between two bounds, both allowed.
    Integer(u64, u64),
    /// An integer number of bytes between two bounds, both allowed.
    Bytes(u64, u64),
    /// Seconds between two bounds, both allowed.
    Seconds(f64, f64),
    /// 0 for never, or seconds between two bounds.
    SecondsOrNever(f64, f64),
    /// Null, or seconds between two bounds.
    SecondsOrNull(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    Array,
    Object,
    String,
    PathOrNull,
    /// A provider entry.
    Provider,
    /// A token entry.
    Token,
    /// An array of one or more patterns.
    Patterns,
    /// Targets of a virtual model: one, or at most this many.
    Targets(usize),

    // ── texts ──
    NotEmpty,
    /// At most this many bytes.
    AtMost(usize),
    NoControl,
    /// A name without this character or kind of character.
    NameWithout(Forbidden),
    VisibleAscii,
    /// No space at either end.
    Trimmed,
    TokenHash,
    /// A header's name.
    HeaderName,
    Target,

    // ── addresses ──
    /// The scheme of a provider's URL.
    UrlScheme,
    /// A provider's URL.
    Url(UrlRule),
    /// The scheme of a proxy's URL.
    ProxyScheme,
    /// A proxy's URL.
    ProxyUrl(UrlRule),
    /// A host name or an IP address.
    Host,
    /// The same without a port.
    HostWithoutPort,
    /// The same, not a URL.
    HostNotUrl,
    /// The absolute path of a Unix socket.
    SocketPath,
    /// A browser origin.
    Origin,
    /// A proxy of `trusted_proxies`.
    TrustedProxy,
    /// The same with nothing after host and port.
    OriginWithoutPath,
}

/// What a name may not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    Slash,
    Bar,
    WhiteSpace,
}

/// What a URL breaks besides its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlRule {
    /// It may have neither user nor password.
    NoUser,
    /// It may have neither query nor fragment.
    NoQuery,
    NoPath,
    /// A character that must be percent-encoded.
    Characters,
    Port,
    Host,
}

impl Expected {
    /// What follows "expected" in that language.
    pub fn say(&self, language: Language) -> String {
        match language {
            Language::Zh => self.zh(),
            Language::En => self.en(),
        }
    }

    fn zh(&self) -> String {
        match self {
            Self::Integer(least, most) => format!(" {least} 到 {most} 之间的整数"),
            Self::Bytes(least, most) => format!(" {least} 到 {most} 之间的整数（字节）"),
            Self::Seconds(least, most) => format!(" {least} 到 {most} 之间的秒数"),
            Self::SecondsOrNever(least, most) => format!(" 0（从不）或 {least} 到 {most} 之间的秒数"),
            Self::SecondsOrNull(least, most) => format!(" null 或 {least} 到 {most} 之间的秒数"),
            Self::OneOf(words) => format!("以下之一: {}", words.join("、")),
            Self::Array => "数组".into(),
            Self::Object => "对象".into(),
            Self::String => "字符串".into(),
            Self::PathOrNull => "文件路径或 null".into(),
            Self::Provider => " \"名称|API_URL|API_KEY\" 字符串或对象".into(),
            Self::Token => " \"描述|token\" 字符串或对象".into(),
            Self::Patterns => "至少含一个正则表达式的数组（允许全部模型时请省略此项）".into(),
            Self::Targets(most) => format!(" provider/model 字符串，或 1 到 {most} 个这样的字符串组成的数组"),
            Self::NotEmpty => "非空的文本".into(),
            Self::AtMost(most) => format!("最长 {most} 字节的文本"),
            Self::NoControl => "不含控制字符的文本".into(),
            Self::NameWithout(Forbidden::Slash) => "不含 / 的名称".into(),
            Self::NameWithout(Forbidden::Bar) => "不含 | 的名称".into(),
            Self::NameWithout(Forbidden::WhiteSpace) => "不含空白的名称".into(),
            Self::VisibleAscii => "只含可见 ASCII 字符的文本".into(),
            Self::Trimmed => "首尾不含空格的文本".into(),
            Self::TokenHash => "sha256: 之后为 64 个十六进制数字".into(),
            Self::HeaderName => "有效的请求头名称".into(),
            Self::Target => " provider/model，两部分都不能为空".into(),
            Self::UrlScheme => " http:// 或 https:// 开头的 URL".into(),
            Self::Url(rule) => format!("{} URL", rule.zh()),
            Self::ProxyScheme => {
                " http://、https://、socks5:// 或 socks5h:// 开头的代理 URL，或 direct".into()
            }
            Self::ProxyUrl(rule) => format!("{}代理 URL", rule.zh()),
            Self::Host => "主机名（字母、数字、-、.、_）或 IP 地址".into(),
            Self::HostWithoutPort => "不含端口的主机名或 IP 地址（端口由 port 指定）".into(),
            Self::HostNotUrl => "主机名或 IP 地址，而不是 URL".into(),
            Self::SocketPath => " unix: 加套接字的绝对路径".into(),
            Self::Origin => " * 或 scheme://host[:port]".into(),
            Self::TrustedProxy => " unix、IP 地址或 10.0.0.0/8 这样的网络".into(),
            Self::OriginWithoutPath => "不含路径、末尾没有 / 的 scheme://host[:port]".into(),
        }
    }

    fn en(&self) -> String {
        match self {
            Self::Integer(least, most) => format!("an integer from {least} to {most}"),
            Self::Bytes(least, most) => format!("an integer number of bytes from {least} to {most}"),
            Self::Seconds(least, most) => format!("seconds from {least} to {most}"),
            Self::SecondsOrNever(least, most) => format!("0 (never) or seconds from {least} to {most}"),
            Self::SecondsOrNull(least, most) => format!("null, or seconds from {least} to {most}"),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Array => "an array".into(),
            Self::Object => "an object".into(),
            Self::String => "a string".into(),
            Self::PathOrNull => "a file path or null".into(),
            Self::Provider => "a string \"name|API_URL|API_KEY\" or an object".into(),
            Self::Token => "a string \"description|token\" or an object".into(),
            Self::Patterns => {
                "an array of one or more regular expressions (omit the key to allow all models)".into()
            }
            Self::Targets(most) => format!("provider/model, or an array of 1 to {most} of these"),
            Self::NotEmpty => "text that is not empty".into(),
            Self::AtMost(most) => format!("text of at most {most} bytes"),
            Self::NoControl => "text without control characters".into(),
            Self::NameWithout(Forbidden::Slash) => "a name without a slash".into(),
            Self::NameWithout(Forbidden::Bar) => "a name without a bar (|)".into(),
            Self::NameWithout(Forbidden::WhiteSpace) => "a name without white space".into(),
            Self::VisibleAscii => "visible ASCII characters alone".into(),
            Self::Trimmed => "text without a space at either end".into(),
            Self::TokenHash => "sha256: followed by 64 hexadecimal digits".into(),
            Self::HeaderName => "a valid header name".into(),
            Self::Target => "provider/model with both parts non-empty".into(),
            Self::UrlScheme => "a URL that begins with http:// or https://".into(),
            Self::Url(rule) => format!("a URL {}", rule.en()),
            Self::ProxyScheme => {
                "a proxy URL that begins with http://, https://, socks5:// or socks5h://, or direct".into()
            }
            Self::ProxyUrl(rule) => format!("a proxy URL {}", rule.en()),
            Self::Host => "a host name (letters, digits, -, ., _) or an IP address".into(),
            Self::HostWithoutPort => "a host name or IP address without a port (set port instead)".into(),
            Self::HostNotUrl => "a host name or IP address, not a URL".into(),
            Self::SocketPath => "unix: and the absolute path of a socket".into(),
            Self::Origin => "* or scheme://host[:port]".into(),
            Self::TrustedProxy => "unix, an IP address, or a network such as 10.0.0.0/8".into(),
            Self::OriginWithoutPath => "scheme://host[:port] without a path or a slash at its end".into(),
        }
    }
}

impl UrlRule {
    fn zh(self) -> &'static str {
        match self {
            Self::NoUser => "不含用户名和密码（@）的",
            Self::NoQuery => "不含查询参数和片段（?、#）的",
            Self::NoPath => "不含路径的",
            Self::Characters => "只含普通字符（其他字符写成 %XX）的",
            Self::Port => "端口在 1 到 65535 之间的",
            Self::Host => "有主机名的",
        }
    }

    fn en(self) -> &'static str {
        match self {
            Self::NoUser => "without a user or password (@)",
            Self::NoQuery => "without a query or fragment (?, #)",
            Self::NoPath => "without a path",
            Self::Characters => "of plain characters (write others as %XX)",
            Self::Port => "with a port from 1 to 65535",
            Self::Host => "with a valid host",
        }
    }
}
