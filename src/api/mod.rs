//! The endpoints: one table of routes, admission by the head alone, dispatch to a handler each.

mod admin;
mod admission;
mod admitted;
mod allowance;
mod charge;
mod client_address;
mod client_call;
mod error;
mod error_event;
mod filters;
mod health;
mod hints;
mod index;
mod inference;
mod masking;
mod messages;
mod models;
mod outcome;
mod paths;
mod promised;
mod record;
mod refusals;
mod relay;
mod response_context;
mod responses;
mod scrape;
mod status;
mod task;
mod worded_refusal;

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::auth::{self, Denial};
use crate::config::{Config, Token};
use crate::front::{
    Admission, Handled, Head, Lane, Limits, Notice, Peer, Rejection, Request, Responder, Response, Service,
    Stats,
};
use crate::gateway::{Gateway, LastError};
use crate::limits::MAX_RENDERED_LISTS;
use crate::text::Text;
pub use error::ApiError;
use refusals::Refusals;
use response_context::ResponseContext;

#[derive(Debug)]
struct Endpoint {
    method: &'static str,
    /// The path; where it ends in `/`, anything may follow.
    path: &'static str,
    /// After such a path only an id and then this.
    behind_id: Option<&'static str>,
    guard: Guard,
    action: Action,
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Anyone.
    Open,
    /// Anyone without a token; a wrong one is refused.
    Optional,
    /// A valid token.
    Token,
    /// A caller on this machine, or a valid token.
    Admin,
}

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Index,
    Liveness,
    Health,
    ListModels,
    RetrieveModel,
    Relay,
    RelayForm,
    CreateResponse,
    StoredResponse,
    Reload,
    Metrics,
    Status,
}

const fn get(path: &'static str, guard: Guard, action: Action) -> Endpoint {
    Endpoint { method: "GET", path, behind_id: None, guard, action }
}

const fn post(path: &'static str, guard: Guard, action: Action) -> Endpoint {
    Endpoint { method: "POST", path, behind_id: None, guard, action }
}

const fn relayed(path: &'static str) -> Endpoint {
    post(path, Guard::Token, Action::Relay)
}

const fn relayed_form(path: &'static str) -> Endpoint {
    post(path, Guard::Token, Action::RelayForm)
}

const fn stored_response(method: &'static str, behind_id: &'static str) -> Endpoint {
    let (path, behind_id) = ("/v1/responses/", Some(behind_id));
    Endpoint { method, path, behind_id, guard: Guard::Token, action: Action::StoredResponse }
}

/// Every endpoint (`docs/api.md`, "Endpoints"). Adding one is adding a row.
const ENDPOINTS: &[Endpoint] = &[
    relayed("/v1/chat/completions"),
    get("/", Guard::Open, Action::Index),
    get("/health", Guard::Open, Action::Health),
    get("/healthz", Guard::Open, Action::Liveness),
    get("/metrics", Guard::Admin, Action::Metrics),
    get("/v1/models", Guard::Optional, Action::ListModels),
    get("/v1/models/", Guard::Optional, Action::RetrieveModel),
    relayed("/v1/completions"),
    relayed("/v1/embeddings"),
    post("/v1/responses", Guard::Token, Action::CreateResponse),
    relayed("/v1/moderations"),
    relayed("/v1/images/generations"),
    relayed("/v1/audio/speech"),
    relayed("/v1/rerank"),
    relayed_form("/v1/audio/transcriptions"),
    relayed_form("/v1/audio/translations"),
    relayed_form("/v1/images/edits"),
    relayed_form("/v1/images/variations"),
    relayed("/v1/messages"),
    relayed("/v1/messages/count_tokens"),
    get("/v1/status", Guard::Admin, Action::Status),
    relayed("/v1/responses/input_tokens"),
    relayed("/v1/responses/compact"),
    stored_response("GET", ""),
    stored_response("DELETE", ""),
    stored_response("GET", "/input_items"),
    stored_response("POST", "/cancel"),
    post("/v1/reload", Guard::Admin, Action::Reload),
];

impl Endpoint {
    fn is_at(&self, path: &str) -> bool {
        match self.path {
            "/" => path == "/",
            prefix if prefix.ends_with('/') => match (path.strip_prefix(prefix), self.behind_id) {
                (Some(rest), Some(behind)) => rest.strip_suffix(behind).is_some_and(responses::is_id),
                (rest, _) => rest.is_some_and(paths::is_whole),
            },
            exact => path == exact,
        }
    }

    fn is_relayed(&self) -> bool {
        use Action::{CreateResponse, Relay, RelayForm, StoredResponse};
        matches!(self.action, Relay | RelayForm | CreateResponse | StoredResponse)
    }

    /// HEAD works wherever GET does (RFC 9110 section 9.3.2).
    fn takes(&self, method: &str) -> bool {
        self.method == method || (self.method == "GET" && method == "HEAD")
    }

    /// Whether API clients call it. Each other endpoint has one path, so that a rule for it in a web server in front is complete.
    fn is_of_the_api(&self) -> bool {
        matches!(self.guard, Guard::Token | Guard::Optional)
    }

    fn allow(&self) -> &'static str {
        if self.method == "GET" { "GET, HEAD" } else { self.method }
    }
}

/// Its path in the log.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.path)?;
        self.behind_id.map_or(Ok(()), |behind| write!(formatter, "{{id}}{behind}"))
    }
}

/// The result of admission for a request.
pub struct RequestContext {
    config: Arc<Config>,
    endpoint: &'static Endpoint,
    /// The peer of its connection.
    peer: Peer,
    /// The caller's token, by its place in the configuration.
    token: Option<usize>,
    response_context: ResponseContext,
}

impl RequestContext {
    /// The caller's token.
    fn token(&self) -> &Token {
        &self.config.tokens[self.token.unwrap_or_default()]
    }
}

/// The service behind the front.
pub struct Api {
    gateway: Arc<Gateway>,
    /// The counters of the front.
    stats: Arc<Stats>,
    /// Requests that may be handled at once.
    permits: usize,
    started: Instant,
    /// Log lines about requests that no handler sees.
    refusals: Refusals,
    /// The rendered model list.
    rendered: models::Rendered,
}

impl Api {
    /// An API over that state, behind a front that keeps these `stats` and has so many permits.
    pub fn new(gateway: Arc<Gateway>, stats: Arc<Stats>, permits: usize) -> Self {
        Self {
            gateway,
            stats,
            permits,
            started: Instant::now(),
            refusals: Refusals::default(),
            rendered: models::Rendered::new(MAX_RENDERED_LISTS),
        }
    }

    fn admit_or_refuse(&self, head: &mut Head, peer: Peer) -> Admission<RequestContext> {
        let config = self.gateway.live.snapshot();
        let found = find(head);
        let mut response_context = ResponseContext::of(&config, Some(head));
        if head.method() == "OPTIONS" {
            if let Some(fields) = response_context.preflight_fields(head) {
                return Admission::Respond(Response { status: 204, fields, body: Vec::new().into() });
            }
            response_context.note_preflight(head);
        }
        let admitted = admission::check_upgrade(head).and_then(|()| {
            let endpoint = found?;
            let token = check_guard(endpoint.guard, &config, head, peer)?;
            if endpoint.is_relayed() {
                admission::check_encoding(head)?;
            }
            Ok((endpoint, token))
        });
        let (endpoint, token) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                self.refusals.log(&error, &config, peer, Some(head), &response_context);
                return Admission::Respond(refuse(&self.gateway, &error, &response_context));
            }
        };
        let lane = match endpoint.action {
            Action::Index => return Admission::Respond(index::index(head, &response_context)),
            Action::Liveness => return Admission::Respond(alive(&response_context)),
            _ if endpoint.is_relayed() => Lane::Worker,
            _ => Lane::Control,
        };
        Admission::Run(lane, RequestContext { config, endpoint, peer, token, response_context })
    }
}

/// The endpoint of a request. The path of an endpoint of the API is normalized first, and the head gets the normal form.
fn find(head: &mut Head) -> Result<&'static Endpoint, ApiError> {
    let found = find_at(head.path(), head.method());
    if matches!(found, Err(ApiError::NotFound(..))) {
        let meant = paths::meant(head.path());
        let is_one = ENDPOINTS.iter().any(|endpoint| endpoint.is_of_the_api() && endpoint.is_at(&meant));
        if is_one && head.set_path(&meant) {
            return find_at(&meant, head.method());
        }
        let whole = |endpoint: &&Endpoint| endpoint.is_of_the_api() && !endpoint.path.ends_with('/');
        let known: Vec<_> = ENDPOINTS.iter().filter(whole).map(|endpoint| endpoint.path).collect();
        return Err(ApiError::NotFound(head.path().to_owned(), hints::path(&meant, &known)));
    }
    found
}

fn find_at(path: &str, method: &str) -> Result<&'static Endpoint, ApiError> {
    let mut allow = Vec::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_at(path)) {
        if endpoint.takes(method) {
            return Ok(endpoint);
        }
        allow.push(endpoint.allow());
        // A path of the table is not an id: `/v1/responses/compact`.
        if endpoint.path == path {
            break;
        }
    }
    match &allow[..] {
        [] => Err(ApiError::NotFound(path.to_owned(), None)),
        some => Err(ApiError::MethodNotAllowed(method.to_owned(), some.join(", "))),
    }
}

fn check_guard(guard: Guard, config: &Config, head: &Head, peer: Peer) -> Result<Option<usize>, ApiError> {
    let refused = |denial| match denial {
        Denial::Missing => ApiError::MissingToken,
        Denial::Invalid => ApiError::InvalidToken,
        Denial::Repeated => ApiError::BadRequest("a header field that holds a token came twice"),
    };
    match guard {
        Guard::Open => Ok(None),
        Guard::Optional if !auth::is_presented(head) => Ok(None),
        Guard::Optional | Guard::Token => auth::identify(config, head).map(Some).map_err(refused),
        Guard::Admin => match auth::admit_admin(config, head, peer) {
            Ok(()) => Ok(None),
            Err(denial @ Denial::Repeated) => Err(refused(denial)),
            Err(Denial::Missing | Denial::Invalid) => Err(ApiError::Forbidden),
        },
    }
}

impl Service for Api {
    type RequestContext = RequestContext;

    fn limits(&self) -> Limits {
        let config = self.gateway.live.snapshot();
        Limits {
            max_body: config.max_request_size,
            client_timeout: config.client_timeout,
            idle_timeout: config.idle_timeout,
            queue_timeout: config.queue_timeout,
        }
    }

    fn admit(&self, head: &mut Head, peer: Peer) -> Admission<RequestContext> {
        self.admit_or_refuse(head, peer)
    }

    fn handle(&self, request: Box<Request<RequestContext>>, responder: Responder) -> Handled {
        let response = match request.context.endpoint.action {
            Action::Relay | Action::RelayForm | Action::CreateResponse | Action::StoredResponse => {
                return inference::relay(&self.gateway, request, responder);
            }
            Action::Health => health::health(&self.gateway, &request.context),
            Action::ListModels => models::list(self, &request),
            Action::RetrieveModel => models::retrieve(self, &request),
            Action::Reload => admin::reload(&self.gateway, &request.context),
            Action::Metrics => scrape::metrics(self, &request.context),
            Action::Status => status::status(self, &request.context),
            Action::Index => index::index(&request.head, &request.context.response_context),
            Action::Liveness => alive(&request.context.response_context),
        };
        responder.send(response).into()
    }

    fn reject(&self, rejection: Rejection, peer: Peer, head: Option<&Head>) -> Response {
        let config = self.gateway.live.snapshot();
        let response_context = ResponseContext::of(&config, head);
        let error = ApiError::of_rejection(rejection, config.max_request_size);
        self.refusals.log(&error, &config, peer, head, &response_context);
        refuse(&self.gateway, &error, &response_context)
    }

    fn notice(&self, notice: Notice) {
        let language = self.gateway.live.snapshot().language;
        match notice {
            Notice::AcceptFailed(error) => {
                log::error!("{}", Text::AcceptFailed(&error.to_string()).say(language));
            }
            Notice::AcceptResumed => log::warn!("{}", Text::AcceptResumed.say(language)),
            Notice::TooManyClients(limit) => log::warn!("{}", Text::TooManyClients(limit).say(language)),
            Notice::ThreadRefused(error) => {
                log::error!("{}", Text::ThreadRefused(&error.to_string()).say(language));
            }
            Notice::Panicked(reason) => log::error!("{}", Text::HandlerPanicked(&reason).say(language)),
        }
    }
}

/// The response for an error, which it counts and notes.
fn refuse(gateway: &Gateway, error: &ApiError, response_context: &ResponseContext) -> Response {
    gateway.metrics.reject(error.reason());
    gateway.last_errors.note(LastError {
        at: SystemTime::now(),
        request_id: Arc::clone(&response_context.id),
        reason: Some(error.reason()),
        provider: String::new(),
        status: error.status(),
        model: String::new(),
        token: String::new(),
    });
    error.response(response_context)
}

/// A response that is a JSON document.
fn json_response(status: u16, response_context: &ResponseContext, document: &impl Serialize) -> Response {
    Response { status, fields: response_context.fields("application/json"), body: to_json(document).into() }
}

/// Our own documents have string keys and finite numbers: they always serialize.
fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// Liveness: any response shows it.
fn alive(response_context: &ResponseContext) -> Response {
    let fields = response_context.fields("application/json");
    Response { status: 200, fields, body: br#"{"status":"ok"}"#.to_vec().into() }
}
