//! The checked configuration: what the rest of the program may rely on.
//!
//! [`load`] makes it from the file, with all problems at once; [`live`] holds the one in force.

mod filter;
mod known;
pub mod live;
pub mod load;
mod proxy_url;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use crate::core::credential::{Credential, sha256};
pub use crate::core::mask::{Mask, Scope};
pub use crate::core::relayed_headers::HOP_BY_HOP;
pub use crate::core::secret::Secret;
pub use filter::{Filter, Pattern};
pub use known::{Known, base_url_meant, known};
pub use live::Live;
pub use proxy_url::ProxyUrl;

use crate::logging::LogFormat;
use crate::text::Language;

/// A configuration that passed every check. Field names are those of `config.json` (README, "Config reference").
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Needs a restart to change. Default `localhost`.
    pub host: Host,
    /// TCP port; 0 picks a free one. Needs a restart to change. Default 8080.
    pub port: u16,
    /// Least severe level that is logged; `CRITICAL` is `Off`, for nothing is logged above `ERROR`. Default `Warn`.
    pub log_level: log::LevelFilter,
    /// Log file, appended; `None` logs to stderr alone. Default `ai_proxy.log`.
    pub log_file: Option<PathBuf>,
    /// How a line of the log is written. Default text.
    pub log_format: LogFormat,
    /// Language of API messages and log lines. Default Chinese.
    pub language: Language,
    /// Providers in the order of their first entry; at least one, names unique, replicas inside.
    pub providers: Vec<Provider>,
    /// Client tokens; none refuses every guarded call.
    pub tokens: Vec<Token>,
    /// A model is available when any matches somewhere in its full id; empty: all.
    pub supported_models: Filter,
    /// Virtual models, sorted by name.
    pub models: Vec<VirtualModel>,
    /// Threads that serve connections: 1 to 64. Needs a restart to change. Default one a core.
    pub workers: usize,
    /// Requests handled at once, running streams among them, over all workers. Needs a restart to change. Default 100.
    pub max_connections: usize,
    /// Idle upstream connections kept. Default 20.
    pub max_keepalive_connections: usize,
    /// An idle upstream connection is closed after this. Default 30 s.
    pub keepalive_expiry: Duration,
    /// Longest silence of the upstream in a streamed response. Default 300 s.
    pub stream_timeout: Duration,
    /// Total time of a buffered response, all attempts together. Default 30 s.
    pub non_stream_timeout: Duration,
    /// Largest buffered response, bytes. Default 10 MiB.
    pub max_response_size: usize,
    /// Largest stream, bytes: events, or media passed on as they come. Default 256 MiB.
    pub max_stream_size: usize,
    /// Largest request body, bytes. Default 32 MiB.
    pub max_request_size: usize,
    /// What the process may hold in all, bytes. Needs a restart to change. Default: what there is ([`crate::memory::available`]), 2 GiB
    /// at most.
    pub max_memory: usize,
    /// Longest wait for a free worker. Default 5 s.
    pub queue_timeout: Duration,
    /// For the whole request head, for each further 64 KiB of body, for each write to the client. Default 15 s.
    pub client_timeout: Duration,
    /// An idle client connection is closed after this. Default 75 s.
    pub idle_timeout: Duration,
    /// Open client connections. Needs a restart to change. Default 10,000.
    pub max_clients: usize,
    /// Longest drain. Default 30 s.
    pub shutdown_timeout: Duration,
    /// Between two `: keep-alive` comments while a stream's upstream is silent; `None` (0 in the file): never. Default 15 s.
    pub stream_heartbeat: Option<Duration>,
    /// How often each provider is checked. Default 30 s.
    pub health_interval: Duration,
    /// How often each provider's model list is fetched. Default 300 s.
    pub models_interval: Duration,
    /// Further attempts after a failed one, before any byte reached the client. Default 2.
    pub max_retries: u32,
    /// Where the tokens' daily counts are kept over a restart; `None`: they are not. Default `None`.
    pub state_file: Option<PathBuf>,
    /// Longest wait for an attempt's response to begin while another available replica may still be asked; `None` (null in the
    /// file): as long as the call has. Default `None`.
    pub attempt_timeout: Option<Duration>,
    /// Browser origins allowed (`*` for any). Default none.
    pub cors_origins: Vec<String>,
}

/// Where the front listens.
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
    /// Name: not empty, no `/`, no white space, no control character.
    pub name: String,
    /// One or more places that serve it, in the order of the file.
    pub replicas: Vec<Replica>,
    mask: OnceLock<Arc<Mask>>,
}

/// One entry of `providers`: a URL and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// What it is known by; [`Replica::identified`] sets it.
    pub id: ReplicaId,
    /// Base URL, `http` or `https`, without a trailing slash, query, fragment or user info.
    pub url: String,
    /// Base URL at which it speaks Anthropic's format, checked like `url`; `None`: it does not. Default: `url` where its
    /// host is `api.anthropic.com`.
    pub anthropic_url: Option<String>,
    /// API key; empty sends no `Authorization`.
    pub key: Secret,
    /// Model ids that replace the fetched list.
    pub models: Option<Vec<String>>,
    /// Headers added to each request to it, over the client's own of the same name. Names are lower case and valid,
    /// values are valid.
    pub headers: Vec<(String, Secret)>,
    /// Proxy URL (`http://…` or `socks5://…`), its own or the environment's, may hold a password.
    pub proxy: Option<ProxyUrl>,
    /// The same on the way to `anthropic_url`: the environment may ask for another there, or for none.
    pub anthropic_proxy: Option<ProxyUrl>,
    /// Whom to trust instead of Mozilla's certificate authorities.
    pub ca_file: Option<CaFile>,
    /// Share of the load against the other replicas, 1 or more. Default 1.
    pub weight: u32,
    /// Whether its chat streams are asked for usage where the client does not ask. Default auto.
    pub stream_usage: StreamUsage,
    /// Whether it serves `/responses` itself. Default auto.
    pub responses: ResponsesApi,
}

/// When `stream_options.include_usage` is added to a streamed chat call that lacks it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamUsage {
    /// Where the token has a limit of tokens a day or the stream is translated, unless the provider is known to refuse it.
    #[default]
    Auto,
    Always,
    Never,
}

/// Whether a provider serves the Responses API, or its calls are translated into chat completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResponsesApi {
    /// As its host is known to; else it is asked, and its refusal remembered.
    #[default]
    Auto,
    /// It does.
    Native,
    /// They are translated.
    Chat,
}

/// The two formats a call may come in. They differ in their bodies, their events, their errors, and where the key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The OpenAI API: every relayed path but Anthropic's.
    OpenAi,
    /// Anthropic's Messages API: `/v1/messages` and what is below it.
    Anthropic,
}

impl Provider {
    /// A provider of that name with these replicas.
    pub fn new(name: String, replicas: Vec<Replica>) -> Self {
        Self { name, replicas, mask: OnceLock::new() }
    }

    /// What finds its secrets; made when it is first asked for, so `replicas` do not change from then on.
    pub fn mask(&self) -> &Arc<Mask> {
        let replicas = self.replicas.iter().map(|it| (&it.key, &it.headers[..]));
        self.mask.get_or_init(|| Arc::new(Mask::of(replicas)))
    }

    /// Whether every replica of it speaks that format.
    pub fn speaks(&self, format: Format) -> bool {
        self.replicas.iter().all(|replica| replica.base_url(format).is_some())
    }
}

impl Replica {
    /// The same with its id, as a replica of that provider.
    #[must_use]
    pub fn identified(self, provider: &str) -> Self {
        Self { id: ReplicaId::of(provider, &self), ..self }
    }

    /// The URL before the path of a call in that format.
    pub fn base_url(&self, format: Format) -> Option<&str> {
        match format {
            Format::OpenAi => Some(&self.url),
            Format::Anthropic => self.anthropic_url.as_deref(),
        }
    }

    /// Whether it serves `/responses` itself; none: that is to be found out.
    pub fn serves_responses(&self) -> Option<bool> {
        match self.responses {
            ResponsesApi::Auto => known(&self.url).serves_responses,
            ResponsesApi::Native => Some(true),
            ResponsesApi::Chat => Some(false),
        }
    }

    /// Whether a stream is asked for its usage. `is_needed`: its token has a daily limit, or it is translated.
    pub fn asks_for_usage(&self, is_needed: bool) -> bool {
        match self.stream_usage {
            StreamUsage::Auto => is_needed && !known(&self.url).refuses_stream_options,
            StreamUsage::Always => true,
            StreamUsage::Never => false,
        }
    }

    /// The proxy on the way there.
    pub fn proxy_for(&self, format: Format) -> Option<&ProxyUrl> {
        match format {
            Format::OpenAi => self.proxy.as_ref(),
            Format::Anthropic => self.anthropic_proxy.as_ref(),
        }
    }
}

/// Certificate authorities out of a file. They are known by a digest: each request looks whether two are the same.
#[derive(Clone)]
pub struct CaFile {
    /// The file, as the config names it.
    pub path: PathBuf,
    /// What it held when the configuration was loaded, in DER; at least one, each usable.
    pub certificates: Arc<[Vec<u8>]>,
    digest: [u8; 32],
}

impl CaFile {
    /// That file, with what it held.
    pub fn new(path: PathBuf, certificates: Vec<Vec<u8>>) -> Self {
        // DER tells where a certificate ends.
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

/// A replica, by provider name and every setting that its responses depend on: what is known of one is known of the
/// other over a reload. A hash, so that no key lies about.
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

/// A client's token and its rights.
#[derive(Debug, Clone)]
pub struct Token {
    /// What the log calls it; never the token itself.
    pub name: String,
    /// What a client sends, or its hash.
    pub token: Credential,
    /// A model is allowed when any matches somewhere in its full id; `None`: all.
    pub models: Option<Filter>,
    /// Requests a minute; `None`: no limit.
    pub rpm: Option<u32>,
    /// Requests at once; `None`: no limit.
    pub max_parallel: Option<u32>,
    /// Tokens a day (UTC), prompt and completion, as reported or estimated; `None`: no limit.
    pub tokens_per_day: Option<u64>,
}

/// A token, by a hash of its secret: what it has used is known over a reload, and no secret lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId(u64);

impl TokenId {
    /// The id of a token.
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

/// A name that stands for other models.
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
    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// The virtual model of that name.
    pub fn virtual_model(&self, name: &str) -> Option<&VirtualModel> {
        let at = self.models.binary_search_by(|model| (*model.name).cmp(name)).ok()?;
        self.models.get(at)
    }

    /// Whether `supported_models` lets this full id through.
    pub fn supports(&self, id: &str) -> bool {
        self.supported_models.is_empty() || self.supported_models.matches(id)
    }

    /// The targets of a virtual model that `supported_models` lets through: all where it lets the virtual name through.
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
    /// Whether it has a limit of any kind.
    pub fn is_limited(&self) -> bool {
        self.rpm.is_some() || self.max_parallel.is_some() || self.tokens_per_day.is_some()
    }

    /// Whether the token's own `models` let this full id through.
    pub fn allows(&self, id: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.matches(id))
    }
}
