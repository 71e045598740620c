//! Every error a client can get: one exhaustive match from error to status, reason and words (`docs/api.md`, "Errors").

use std::time::Duration;

use serde::Serialize;

use super::response_context::ResponseContext;
use crate::auth::quota::Limit;
use crate::config::{Config, Format};
use crate::core::BodyError;
use crate::dialect::{Problem, Refusal, anthropic};
use crate::front::{Rejection, Response};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_MODEL, MAX_QUOTED, MAX_TARGET};
use crate::text::{Language, Text, quoted};
use crate::upstream::Fault;

/// An error with its facts. [`ApiError::response`] alone makes sentences of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// No token.
    MissingToken,
    /// A wrong token.
    InvalidToken,
    /// An admin call without right.
    Forbidden,
    /// No such path; the path that may be meant.
    NotFound(String, Option<&'static str>),
    /// A Messages request that cannot be translated for its provider.
    Refused(Refusal),
    /// The model exists, but its provider does not support the format of this path.
    NotSpoken(String),
    /// No such model for this caller; the models that it may mean.
    ModelNotFound(String, Vec<String>),
    /// The path exists, the method does not; names the methods that do.
    MethodNotAllowed(String, String),
    /// Malformed HTTP; names the part.
    BadRequest(&'static str),
    /// TLS on a port of plain HTTP.
    Tls,
    /// The body is refused.
    Body(BodyError),
    /// This member, by which a provider chooses a model, is not within the caller's filters.
    OtherModel(&'static str),
    /// The body is compressed.
    UnsupportedEncoding,
    /// The client asks for a WebSocket.
    UpgradeRequired,
    /// The request did not arrive in time.
    ClientTimeout,
    /// The body is over the limit.
    BodyTooLarge(usize),
    /// The target is over the limit.
    UriTooLong,
    /// The head is over the limit.
    HeadTooLarge,
    /// An unknown `Expect`.
    ExpectationFailed,
    /// An unknown transfer coding.
    NotImplemented,
    /// Not HTTP/1.x.
    VersionNotSupported,
    /// The token is over a limit; the time until a retry.
    RateLimited(Limit, Duration),
    /// No connection to this provider.
    Unreachable(String),
    /// This provider's response was cut off or malformed.
    Broken(String),
    /// This provider's response cannot be translated into the format of the call. A retry would be charged as well.
    Untranslatable(String),
    /// This provider's response is over the limit: the provider, the config key of the limit, bytes.
    ResponseTooLarge(String, &'static str, usize),
    /// This provider redirects the call.
    Redirected(String),
    /// This provider's response has this content coding.
    Coded(String, &'static str),
    /// This provider did not respond in time.
    UpstreamTimeout(String),
    /// A limit is reached: its config key, or nothing where it has none.
    Overloaded(&'static str),
    /// Draining.
    ShuttingDown,
    /// A fault of our own.
    Internal,
    /// A reload was refused; every problem.
    ReloadRefused(Vec<String>),
    /// A provider responded with this error status and a text that is not JSON: the status, the provider, the text.
    Upstream(u16, String, String),
}

/// The shape of an error, as `docs/api.md` shows it under "Errors".
#[derive(Serialize)]
struct Wrapped<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: u16,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<&'a [String]>,
}

/// Whether a retry of the same request may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Hopeless,
    MayHelp,
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl ApiError {
    /// The error for a provider's fault; none where the client has left.
    pub fn of_fault(fault: Fault, provider: &str, config: &Config) -> Option<Self> {
        let provider = provider.to_owned();
        match fault {
            Fault::ClientGone => None,
            Fault::Unreachable => Some(Self::Unreachable(provider)),
            Fault::Broken | Fault::CutOff => Some(Self::Broken(provider)),
            Fault::Untranslatable | Fault::NotCarried => Some(Self::Untranslatable(provider)),
            Fault::TimedOut => Some(Self::UpstreamTimeout(provider)),
            Fault::Redirected => Some(Self::Redirected(provider)),
            Fault::Coded(coding) => Some(Self::Coded(provider, coding)),
            Fault::TooLarge => {
                Some(Self::ResponseTooLarge(provider, "max_response_size", config.max_response_size))
            }
            Fault::StreamTooLarge => {
                Some(Self::ResponseTooLarge(provider, "max_stream_size", config.max_stream_size))
            }
            Fault::Overloaded => Some(Self::Overloaded("")),
        }
    }

    /// The error for a request the front refuses.
    pub fn of_rejection(rejection: Rejection, max_body: usize) -> Self {
        match rejection {
            Rejection::Malformed(part) => Self::BadRequest(part),
            Rejection::Tls => Self::Tls,
            Rejection::UriTooLong => Self::UriTooLong,
            Rejection::HeadTooLarge => Self::HeadTooLarge,
            Rejection::BodyTooLarge => Self::BodyTooLarge(max_body),
            Rejection::ExpectationFailed => Self::ExpectationFailed,
            Rejection::UnknownCoding => Self::NotImplemented,
            Rejection::VersionNotSupported => Self::VersionNotSupported,
            Rejection::Timeout => Self::ClientTimeout,
            Rejection::NoPermit => Self::Overloaded("max_connections"),
            Rejection::NoMemory => Self::Overloaded("max_memory"),
            Rejection::TooManyClients => Self::Overloaded("max_clients"),
            Rejection::Overloaded => Self::Overloaded(""),
            Rejection::ShuttingDown => Self::ShuttingDown,
            Rejection::Panicked => Self::Internal,
        }
    }

    pub fn status(&self) -> u16 {
        self.facts().0
    }

    /// The stable English word for it.
    pub fn reason(&self) -> &'static str {
        self.facts().1
    }

    fn facts(&self) -> (u16, &'static str, Retry) {
        use Retry::{Hopeless, MayHelp};
        match self {
            Self::BadRequest(_) | Self::Tls => (400, "bad_request", Hopeless),
            Self::Body(error) => match error {
                BodyError::InvalidForm(_) => (400, "bad_request", Hopeless),
                BodyError::Empty | BodyError::InvalidJson(_) => (400, "invalid_json", Hopeless),
                BodyError::MissingModel => (400, "missing_model", Hopeless),
                BodyError::InvalidModel | BodyError::ModelTooLong | BodyError::AmbiguousModel => {
                    (400, "invalid_model", Hopeless)
                }
                BodyError::ResponseIdTooLong => (400, "invalid_parameter", Hopeless),
            },
            Self::OtherModel(_) => (400, "invalid_model", Hopeless),
            Self::MissingToken => (401, "missing_token", Hopeless),
            Self::InvalidToken => (401, "invalid_token", Hopeless),
            Self::Forbidden => (403, "forbidden", Hopeless),
            Self::NotFound(..) => (404, "not_found", Hopeless),
            Self::ModelNotFound(..) => (404, "model_not_found", Hopeless),
            Self::Refused(refusal) => match refusal.problem {
                Problem::NotCarried => (400, "unsupported_parameter", Hopeless),
                Problem::Expected(_) => (400, "invalid_parameter", Hopeless),
                Problem::TooLarge(_) => (413, "body_too_large", Hopeless),
            },
            Self::NotSpoken(_) => (404, "unsupported_endpoint", Hopeless),
            Self::MethodNotAllowed(..) => (405, "method_not_allowed", Hopeless),
            Self::ClientTimeout => (408, "client_timeout", MayHelp),
            Self::BodyTooLarge(_) => (413, "body_too_large", Hopeless),
            Self::UriTooLong => (414, "uri_too_long", Hopeless),
            Self::UnsupportedEncoding => (415, "unsupported_encoding", Hopeless),
            Self::UpgradeRequired => (426, "upgrade_required", Hopeless),
            Self::ExpectationFailed => (417, "expectation_failed", Hopeless),
            Self::ReloadRefused(_) => (422, "invalid_config", Hopeless),
            Self::RateLimited(..) => (429, "rate_limited", MayHelp),
            Self::HeadTooLarge => (431, "head_too_large", Hopeless),
            Self::Internal => (500, "internal_error", MayHelp),
            Self::NotImplemented => (501, "not_implemented", Hopeless),
            Self::Unreachable(_) => (502, "upstream_unreachable", MayHelp),
            Self::Broken(_) => (502, "upstream_broken", MayHelp),
            Self::Untranslatable(_) => (502, "upstream_broken", Hopeless),
            Self::ResponseTooLarge(..) => (502, "response_too_large", Hopeless),
            Self::Overloaded(_) => (503, "overloaded", MayHelp),
            Self::ShuttingDown => (503, "shutting_down", MayHelp),
            Self::Redirected(_) => (502, "upstream_redirect", Hopeless),
            Self::Coded(..) => (502, "upstream_encoding", Hopeless),
            // The next attempt is as slow, and the provider charges for each.
            Self::UpstreamTimeout(_) => (504, "upstream_timeout", Hopeless),
            Self::VersionNotSupported => (505, "version_not_supported", Hopeless),
            // The provider's own headers say whether a retry helps.
            Self::Upstream(status, ..) => (*status, "upstream_error", MayHelp),
        }
    }

    /// The message in that language.
    pub(super) fn words(&self, language: Language) -> String {
        let owned;
        let text = match self {
            Self::MissingToken => Text::MissingToken,
            Self::InvalidToken => Text::InvalidToken,
            Self::Forbidden => Text::Forbidden,
            Self::NotFound(path, meant) => {
                owned = quoted(path, MAX_QUOTED);
                Text::NotFound(&owned, *meant)
            }
            Self::ModelNotFound(model, meant) => {
                owned = quoted(model, MAX_QUOTED);
                Text::ModelNotFound(&owned, meant)
            }
            Self::Refused(refusal) => {
                owned = quoted(&refusal.place, MAX_QUOTED);
                match refusal.problem {
                    Problem::NotCarried => Text::NotTranslatable(&owned),
                    Problem::Expected(what) => Text::InvalidParameter(&owned, what),
                    Problem::TooLarge(limit) => Text::BodyTooLarge(limit),
                }
            }
            Self::NotSpoken(path) => {
                owned = quoted(path, MAX_QUOTED);
                Text::NotSpoken(&owned)
            }
            Self::MethodNotAllowed(method, _) => {
                owned = quoted(method, MAX_QUOTED);
                Text::MethodNotAllowed(&owned)
            }
            Self::BadRequest(part) => Text::MalformedRequest(part),
            Self::Tls => Text::PlainHttpOnly,
            Self::Body(error) => match error {
                BodyError::InvalidForm(part) => Text::MalformedRequest(part),
                BodyError::Empty => Text::EmptyBody,
                BodyError::InvalidJson(reason) => Text::InvalidJson(reason),
                BodyError::MissingModel => Text::MissingModel,
                BodyError::InvalidModel => Text::InvalidModel,
                BodyError::ModelTooLong => Text::ModelTooLong(MAX_MODEL),
                BodyError::AmbiguousModel => Text::AmbiguousModel,
                BodyError::ResponseIdTooLong => {
                    Text::InvalidParameter("previous_response_id", "an id of at most 512 bytes")
                }
            },
            Self::OtherModel(member) => Text::OtherModel(member),
            Self::UnsupportedEncoding => Text::UnsupportedEncoding,
            Self::UpgradeRequired => Text::UpgradeRequired,
            Self::ClientTimeout => Text::ClientTimeout,
            Self::BodyTooLarge(limit) => Text::BodyTooLarge(*limit),
            Self::UriTooLong => Text::UriTooLong(MAX_TARGET),
            Self::HeadTooLarge => Text::HeadTooLarge(MAX_HEAD, MAX_HEADERS),
            Self::ExpectationFailed => Text::ExpectationFailed,
            Self::NotImplemented => Text::NotImplemented,
            Self::VersionNotSupported => Text::VersionNotSupported,
            Self::RateLimited(Limit::Rate(limit), _) => Text::OverRate(*limit),
            Self::RateLimited(Limit::Parallel(limit), _) => Text::OverParallel(*limit),
            Self::RateLimited(Limit::Day(limit), _) => Text::OverDay(*limit),
            Self::Unreachable(provider) => Text::UpstreamUnreachable(provider),
            Self::Broken(provider) | Self::Untranslatable(provider) => Text::UpstreamBroken(provider),
            Self::ResponseTooLarge(provider, key, limit) => Text::ResponseTooLarge(provider, key, *limit),
            Self::Redirected(provider) => Text::UpstreamRedirect(provider),
            Self::Coded(provider, coding) => Text::UpstreamEncoding(provider, coding),
            Self::UpstreamTimeout(provider) => Text::UpstreamTimeout(provider),
            Self::Overloaded(limit) => Text::Overloaded(limit),
            Self::ShuttingDown => Text::ShuttingDown,
            Self::Internal => Text::InternalError,
            Self::ReloadRefused(problems) => {
                owned = problems.join("; ");
                Text::ReloadRefused(&owned)
            }
            Self::Upstream(401, provider, text) => Text::KeyRefused(provider, text),
            Self::Upstream(403, provider, text) => Text::CallRefused(provider, text),
            Self::Upstream(_, _, text) => Text::UpstreamError(text),
        };
        text.say(language)
    }

    /// The JSON object of every error, in the caller's format.
    pub fn body(&self, context: &ResponseContext) -> Vec<u8> {
        self.body_of_kind(context, "http_error")
    }

    /// Like [`ApiError::body`], with that `type` in OpenAI's format.
    pub(super) fn body_of_kind(&self, context: &ResponseContext, kind: &'static str) -> Vec<u8> {
        let (code, reason, _) = self.facts();
        let mut message = self.words(context.language);
        if context.is_refused_preflight {
            message = Text::PreflightRefused(&message).say(context.language);
        }
        if context.format == Format::Anthropic {
            let id = &context.id;
            return super::to_json(&anthropic::error::Error::new(code, &message, Some(reason), id));
        }
        let problems = match self {
            Self::ReloadRefused(problems) => Some(&problems[..]),
            _ => None,
        };
        let error = ErrorObject { message, kind, param: None, code, reason, problems };
        super::to_json(&Wrapped { error })
    }

    pub fn response(&self, context: &ResponseContext) -> Response {
        let (status, _, retry) = self.facts();
        let mut fields = context.fields("application/json");
        if retry == Retry::Hopeless {
            fields.push("x-should-retry", "false");
        }
        match self {
            Self::MissingToken | Self::InvalidToken => fields.push("www-authenticate", "Bearer"),
            Self::MethodNotAllowed(_, allow) => fields.push("allow", allow),
            // RFC 9110 section 15.5.16.
            Self::UnsupportedEncoding => fields.push("accept-encoding", "identity"),
            // RFC 9110 sections 15.5.22 and 7.8.
            Self::UpgradeRequired => {
                fields.push("upgrade", "HTTP/1.1");
                fields.push("connection", "upgrade");
            }
            Self::Overloaded(_) | Self::ShuttingDown => fields.push("retry-after", "1"),
            Self::RateLimited(_, wait) => {
                fields.push("retry-after", wait.as_secs_f64().ceil().max(1.0).to_string());
            }
            _ => {}
        }
        Response { status, fields, body: self.body(context).into() }
    }
}
