//! What must be known of a relayed call before a provider is asked: what its body says, where it goes, whether its token
//! has room for it.

use ureq::http::Method;
use ureq::http::uri::PathAndQuery;

use super::envelope::Envelope;
use super::error::ApiError;
use super::splice::Body;
use super::{Action, Ticket, filters, messages, multipart, relayed_headers, responses};
use crate::anthropic::ChatRequest;
use crate::auth::Permit;
use crate::auth::quota::Clock;
use crate::catalog;
use crate::config::{Format, Provider, Token};
use crate::front::Request;
use crate::gateway::Gateway;
use crate::routing::{self, Route};

/// A call that may be made.
pub struct Admitted {
    /// The provider's method.
    pub method: Method,
    /// What the body says.
    pub body: Body,
    /// The call for providers that do not speak Anthropic's format, where the client does.
    chat: Option<ChatRequest>,
    /// The models to ask for, in their order.
    pub routes: Vec<Route>,
    /// A stored response is looked for: it is not known which of the routes has it.
    pub is_search: bool,
    /// Path and query behind the provider's base URL.
    pub path: String,
}

impl Admitted {
    /// The translated call, where this provider needs it.
    pub fn chat_for(&self, provider: &Provider) -> Option<&ChatRequest> {
        self.chat.as_ref().filter(|_| !provider.speaks(Format::Anthropic))
    }

    /// No further attempt will be made: what only those need goes.
    pub fn settle(&mut self) {
        self.chat = None;
    }
}

/// What the body says, in the format of its endpoint.
///
/// # Errors
/// It is not in that format, or names no model.
pub fn parse(request: &Request<Ticket>) -> Result<Body, ApiError> {
    match request.ticket.action {
        Action::RelayForm => {}
        Action::StoredResponse => {
            let mut asked = request.head.query().unwrap_or_default().split('&');
            return Ok(Body::untouched(asked.any(|parameter| parameter == "stream=true")));
        }
        _ => return Body::parse(&request.body),
    }
    let mut kinds = request.head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    match (kinds.next(), kinds.next()) {
        (kind, None) => multipart::parse(kind.map_or(b"", |(_, value)| value), &request.body),
        (_, Some(_)) => Err(ApiError::BadRequest("Content-Type must come once")),
    }
}

/// Counts the call against its token's limits.
///
/// # Errors
/// The token is over a limit of its own.
pub fn admit(gateway: &Gateway, token: &Token, envelope: &mut Envelope) -> Result<Permit, ApiError> {
    let admitted = gateway.quotas.admit(token, Clock::now());
    envelope.standing = match &admitted {
        Ok(permit) => permit.standing,
        Err(refused) => refused.standing,
    };
    admitted.map_err(|refused| ApiError::RateLimited(refused.limit, refused.wait))
}

/// What it takes to relay a call: where to, and what of it.
///
/// # Errors
/// Whatever is wrong with the request.
pub fn prepare(
    gateway: &Gateway,
    request: &Request<Ticket>,
    token: &Token,
    mut body: Body,
) -> Result<Admitted, ApiError> {
    let config = &*request.ticket.config;
    let path = request.head.target().strip_prefix("/v1").unwrap_or_default();
    let path = relayed_headers::without_credentials(path).into_owned();
    if path.parse::<PathAndQuery>().is_err() {
        return Err(ApiError::BadRequest("request target"));
    }
    let (mut routes, is_search) = match request.ticket.action {
        Action::StoredResponse => {
            let found = responses::find(gateway, config, token, request.head.path())?;
            if !found.model.is_empty() {
                body.model = found.model;
            }
            (found.routes, found.is_search)
        }
        _ => (routes_by_model(gateway, request, token, &body)?, false),
    };
    let chat = messages::translate(config, request, &mut routes)?;
    // What a HEAD would have to tell of is known from a GET alone.
    let method = match request.head.method() {
        "POST" => Method::POST,
        "DELETE" => Method::DELETE,
        _ => Method::GET,
    };
    Ok(Admitted { method, body, chat, routes, is_search, path })
}

fn routes_by_model(
    gateway: &Gateway,
    request: &Request<Ticket>,
    token: &Token,
    body: &Body,
) -> Result<Vec<Route>, ApiError> {
    let config = &*request.ticket.config;
    let lists = gateway.board.lists();
    let owner = |model: &str| catalog::only_provider_of(config, &lists, model);
    let mut routes = routing::resolve(config, token, &body.model, owner);
    if routes.is_empty() {
        return Err(ApiError::ModelNotFound(body.model.clone()));
    }
    filters::check(config, token, request, body, &routes)?;
    if let Some(previous) = &body.previous {
        responses::pin(gateway, config, &mut routes, previous);
    }
    Ok(routes)
}
