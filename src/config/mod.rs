//! The checked configuration: what the rest of the program may rely on.
//!
//! [`load`] makes it from the file, with all problems at once; [`live`] holds the one in force.

mod filter;
mod known;
pub mod live;
pub mod load;
mod network;
mod proxy_url;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use crate::core::credential::{Credential, sha256};
pub use crate::core::mask::{Mask, Scope};
pub use crate::core::relayed_headers::HOP_BY_HOP;
pub use crate::core::secret::{Secret, is_placeholder};
pub use filter::{Filter, Pattern};
pub use known::{Known, Thinking, anthropic_url, base_url_meant, known};
pub use live::Live;
pub use network::{Network, TrustedProxy};
pub use proxy_url::ProxyUrl;

use crate::logging::LogFormat;
use crate::text::Language;

/// A configuration that passed every check. Field names are those of `config.json` (`docs/config.md`, "Keys").
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on. A change needs a restart. Default `localhost`.
    pub host: Host,
    /// TCP port; 0 picks a free one. A change needs a restart. Default 8080.
    pub port: u16,
    /// Least severe level in the log. `CRITICAL` is `Off`: no line is above `ERROR`. Default `Warn`.
    pub log_level: log::LevelFilter,
    /// Log file, appended to; `None` logs to stderr alone. Default `ai_proxy.log`.
    pub log_file: Option<PathBuf>,
    /// Format of log lines. Default text.
    pub log_format: LogFormat,
    /// Language of API messages and log lines. Default Chinese.
    pub language: Language,
    /// Providers in the order of their first entry, with their replicas; at least one, with unique names.
    pub providers: Vec<Provider>,
    /// Client tokens; with none every guarded call is refused.
    pub tokens: Vec<Token>,
    /// A model is available when any pattern matches anywhere in its full id; empty: all.
    pub supported_models: Filter,
    /// Virtual models, sorted by name.
    pub models: Vec<VirtualModel>,
    /// Threads that serve connections: 1 to 64. A change needs a restart. Default one per core.
    pub workers: usize,
    /// Requests handled at once over all workers, including running streams. A change needs a restart.
    /// Default 100.
    pub max_connections: usize,
    /// Idle upstream connections kept. Default 20.
    pub max_keepalive_connections: usize,
    /// Idle time after which an upstream connection is closed. Default 30 s.
    pub keepalive_expiry: Duration,
    /// Longest silence of the provider in a streamed response. Default 300 s.
    pub stream_timeout: Duration,
    /// Total time of a buffered response, all attempts together. Default 30 s.
    pub non_stream_timeout: Duration,
    /// Largest buffered response, bytes. Default 10 MiB.
    pub max_response_size: usize,
    /// Largest stream, bytes: events, or media relayed as they come. Default 256 MiB.
    pub max_stream_size: usize,
    /// Largest request body, bytes. Default 32 MiB.
    pub max_request_size: usize,
    /// Memory of the whole process, bytes. A change needs a restart. Default: what is available
    /// ([`crate::memory::available`]), at most 2 GiB.
    pub max_memory: usize,
    /// Longest wait for a permit. Default 5 s.
    pub queue_timeout: Duration,
    /// Time for the whole request head, for each further 64 KiB of body, and for each write to the client.
    /// Default 15 s.
    pub client_timeout: Duration,
    /// Idle time after which a client connection is closed. Default 75 s.
    pub idle_timeout: Duration,
    /// Open client connections. A change needs a restart. Default 10,000.
    pub max_clients: usize,
    /// Longest drain. Default 30 s.
    pub shutdown_timeout: Duration,
    /// Time between two `: keep-alive` comments while the provider of a stream is silent; `None` (0 in the
    /// file): never. Default 15 s.
    pub stream_heartbeat: Option<Duration>,
    /// Interval of health checks. Default 30 s.
    pub health_interval: Duration,
    /// Interval of model list fetches. Default 300 s.
    pub models_interval: Duration,
    /// Further attempts after a failed one, as long as the client has received no byte. Default 2.
    pub max_retries: u32,
    /// File that keeps the tokens' daily counts over a restart; `None`: no file. Default `None`.
    pub state_file: Option<PathBuf>,
    /// Longest wait for the head of an attempt's response while another available replica is left to try;
    /// `None` (null in the file): as long as the call has. Default `None`.
    pub attempt_timeout: Option<Duration>,
    /// Browser origins allowed (`*` for any). Default none.
    pub cors_origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` names the client in the log; it gives nobody a right. Default none.
    pub trusted_proxies: Vec<TrustedProxy>,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address; a name binds every address it resolves to.
    Name(String),
    /// `unix:/path`: a Unix socket; `port` is not used.
    Unix(PathBuf),
}

/// One provider: a name that stands before the `/` of a model id.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Not empty; no `/`, no white space, no control character.
    pub name: String,
    /// Its replicas in the order of the file, at least one.
    pub replicas: Vec<Replica>,
    mask: OnceLock<Arc<Mask>>,
}

/// One entry of `providers`: a URL and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Identifies it over reloads; [`Replica::identified`] sets it.
    pub id: ReplicaId,
    /// Base URL, `http` or `https`, without a trailing slash, query, fragment or user info.
    pub url: String,
    /// Base URL for Anthropic's format, checked like `url`; `None`: calls in it are translated. Default: `url`
    /// where its host is `api.anthropic.com`.
    pub anthropic_url: Option<String>,
    /// API key; with an empty one no `Authorization` is sent.
    pub key: Secret,
    /// Model ids that replace its fetched list.
    pub models: Option<Vec<String>>,
    /// Header fields of each request to it; they replace the client's of the same name. Names are valid and
    /// in lower case, values are valid.
    pub headers: Vec<(String, Secret)>,
    /// Proxy URL (`http://…` or `socks5://…`), its own or the environment's; it may hold a password.
    pub proxy: Option<ProxyUrl>,
    /// Proxy URL for `anthropic_url`: the environment may name another one there, or none.
    pub anthropic_proxy: Option<ProxyUrl>,
    /// Certificate authorities to trust instead of Mozilla's.
    pub ca_file: Option<CaFile>,
    /// Its share of the load relative to the other replicas, at least 1. Default 1.
    pub weight: u32,
    /// Whether its chat streams report usage where the client does not ask for it. Default auto.
    pub stream_usage: StreamUsage,
    /// Whether it serves `/responses` itself. Default auto.
    pub responses: ResponsesApi,
}

/// When `stream_options.include_usage` is added to a streamed chat call without it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamUsage {
    /// Where the token has a limit of tokens a day or the stream is translated, unless the provider refuses
    /// the member.
    #[default]
    Auto,
    Always,
    Never,
}

/// Whether a provider serves the Responses API, or its calls are translated to chat completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResponsesApi {
    /// As known for its host; else the first call shows it, and a refusal is remembered.
    #[default]
    Auto,
    /// It serves the API.
    Native,
    /// Calls are translated.
    Chat,
}

/// The two formats of a call. They differ in bodies, events, errors, and the header of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The OpenAI API: every relayed path but Anthropic's.
    OpenAi,
    /// Anthropic's Messages API: `/v1/messages` and the paths under it.
    Anthropic,
}

impl Provider {
    pub fn new(name: String, replicas: Vec<Replica>) -> Self {
        Self { name, replicas, mask: OnceLock::new() }
    }

    /// Finds the provider's secrets. It is made on the first call, so `replicas` must not change afterwards.
    pub fn mask(&self) -> &Arc<Mask> {
        let replicas = self.replicas.iter().map(|it| (&it.key, &it.headers[..]));
        self.mask.get_or_init(|| Arc::new(Mask::of(replicas)))
    }

    /// A text about the provider, without its secrets: a key may stand in the path of its URL.
    pub fn without_secrets(&self, text: &str) -> String {
        let hidden = self.mask().hide(text.as_bytes().to_vec(), Scope::All);
        String::from_utf8_lossy(&hidden).into_owned()
    }
}

impl Replica {
    /// This replica with its id within that provider.
    #[must_use]
    pub fn identified(self, provider: &str) -> Self {
        Self { id: ReplicaId::of(provider, &self), ..self }
    }

    /// URL before the path of a call in that format.
    pub fn base_url(&self, format: Format) -> Option<&str> {
        match format {
            Format::OpenAi => Some(&self.url),
            Format::Anthropic => self.anthropic_url.as_deref(),
        }
    }

    /// Whether it serves `/responses`, or `/messages` for Anthropic's format; `None`: unknown so far.
    pub fn is_native(&self, format: Format) -> Option<bool> {
        match (format, self.responses) {
            (Format::OpenAi, ResponsesApi::Auto) => known(&self.url).serves_responses,
            (Format::OpenAi, responses) => Some(responses == ResponsesApi::Native),
            (Format::Anthropic, _) => match &self.anthropic_url {
                None => Some(false),
                Some(url) => known(url).is_anthropic.then_some(true),
            },
        }
    }

    /// Whether a stream reports its usage. `is_needed`: its token has a daily limit, or it is translated.
    pub fn asks_for_usage(&self, is_needed: bool) -> bool {
        match self.stream_usage {
            StreamUsage::Auto => is_needed && !known(&self.url).refuses_stream_options,
            StreamUsage::Always => true,
            StreamUsage::Never => false,
        }
    }

    /// The proxy for requests in that format.
    pub fn proxy_for(&self, format: Format) -> Option<&ProxyUrl> {
        match format {
            Format::OpenAi => self.proxy.as_ref(),
            Format::Anthropic => self.anthropic_proxy.as_ref(),
        }
    }
}

/// Certificate authorities from a file. Their digest makes them cheap to compare, which each request does.
#[derive(Clone)]
pub struct CaFile {
    /// Path as in the config.
    pub path: PathBuf,
    /// Its certificates when the configuration was loaded, in DER; at least one, each usable.
    pub certificates: Arc<[Vec<u8>]>,
    digest: [u8; 32],
}

impl CaFile {
    /// A file with its certificates.
    pub fn new(path: PathBuf, certificates: Vec<Vec<u8>>) -> Self {
        // DER marks the end of each certificate.
        let digest = sha256(&certificates.concat());
        Self { path, certificates: certificates.into(), digest }
    }
}

impl PartialEq for CaFile {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.path == other.path
    }
}

impl Eq for CaFile {}

impl fmt::Debug for CaFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CaFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Id of a replica: provider name and every setting that its responses depend on. Two equal ids share health
/// and load over a reload. It is a hash, so that no key stays in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ReplicaId(u64);

impl ReplicaId {
    fn of(provider: &str, replica: &Replica) -> Self {
        let mut hasher = DefaultHasher::new();
        (provider, &replica.url, &replica.anthropic_url, &replica.key).hash(&mut hasher);
        (&replica.headers, &replica.proxy, &replica.anthropic_proxy).hash(&mut hasher);
        replica.ca_file.as_ref().map(|ca| ca.digest).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// A client's token, with its rights.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its name in the log; never the token itself.
    pub name: String,
    /// The token that clients send, or its hash.
    pub token: Credential,
    /// A model is allowed when any pattern matches anywhere in its full id; `None`: all.
    pub models: Option<Filter>,
    /// Requests a minute; `None`: no limit.
    pub rpm: Option<u32>,
    /// Requests at once; `None`: no limit.
    pub max_parallel: Option<u32>,
    /// Tokens a day (UTC), prompt and completion, as reported or estimated; `None`: no limit.
    pub tokens_per_day: Option<u64>,
}

/// Id of a token: a hash of its secret, so that its use survives a reload and no secret stays in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId(u64);

impl TokenId {
    pub fn of(token: &Token) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *token.token.digest();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Different ids for different numbers.
    #[cfg(test)]
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// A name that stands for models of providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualModel {
    /// The id a client names.
    pub name: String,
    /// Full ids `provider/model`, tried in order; at least one; never another virtual model.
    pub targets: Vec<Target>,
}

/// A full model id, split at its first slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of a provider.
    pub provider: String,
    /// The provider's own id of the model; may hold further slashes.
    pub model: String,
}

impl Config {
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.get(self.place(name)?)
    }

    /// The place of that provider among the others.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.providers.iter().position(|provider| provider.name == name)
    }

    pub fn virtual_model(&self, name: &str) -> Option<&VirtualModel> {
        let at = self.models.binary_search_by(|model| (*model.name).cmp(name)).ok()?;
        self.models.get(at)
    }

    /// Whether `supported_models` allows this full id.
    pub fn supports(&self, id: &str) -> bool {
        self.supported_models.is_empty() || self.supported_models.matches(id)
    }

    /// The targets of a virtual model that `supported_models` allows; all of them where it allows the virtual
    /// name.
    pub fn targets_supported<'a>(&'a self, model: &'a VirtualModel) -> impl Iterator<Item = &'a Target> {
        let all = self.supports(&model.name);
        model.targets.iter().filter(move |target| all || self.supports(&target.id()))
    }
}

impl Target {
    /// The full id.
    pub fn id(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }
}

impl Token {
    /// Whether it has any limit.
    pub fn is_limited(&self) -> bool {
        self.rpm.is_some() || self.max_parallel.is_some() || self.tokens_per_day.is_some()
    }

    /// Whether the token's own `models` allow this full id.
    pub fn allows(&self, id: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.matches(id))
    }
}
