//! The checks of a relayed call before a provider gets it: its body, its routes, the limits of its token.

use std::borrow::Cow;

use ureq::http::Method;
use ureq::http::uri::PathAndQuery;

use super::admitted::Admitted;
use super::error::ApiError;
use super::messages::Translated;
use super::response_context::ResponseContext;
use super::{Action, RequestContext, charge, filters, hints, messages, responses};
use crate::auth::Permit;
use crate::auth::quota::Clock;
use crate::catalog;
use crate::config::Token;
use crate::core::BodyError;
use crate::core::splice::Body;
use crate::core::{multipart, relayed_headers};
use crate::front::{Head, Request};
use crate::gateway::Gateway;
use crate::routing::{self, Route};

/// The path whose call needs no `model`.
const MODERATIONS: &str = "/v1/moderations";
/// OpenAI's default model for a call that names none.
const MODERATION_MODEL: &str = "omni-moderation-latest";

/// Parses the body in the format of its endpoint.
///
/// # Errors
/// It is not in that format, or names no model.
pub fn parse(request: &Request<RequestContext>) -> Result<Body, ApiError> {
    let kind = content_type(&request.head)?.unwrap_or_default();
    Ok(match request.context.endpoint.action {
        Action::RelayForm if !is_json(media_type(kind)) => multipart::parse(kind, &request.body)?,
        Action::StoredResponse => {
            let mut asked = request.head.query().unwrap_or_default().split('&');
            Body::untouched(asked.any(|parameter| parameter == "stream=true"))
        }
        _ if request.head.path() == MODERATIONS => Body::parse_or(&request.body, Some(MODERATION_MODEL))?,
        _ => Body::parse(&request.body)?,
    })
}

/// Refuses a WebSocket (RFC 6455 section 4.1): no endpoint supports it, and a client that gets 426 sends plain requests. An
/// HTTP/1.0 request cannot ask for one (RFC 9110 section 7.8).
///
/// # Errors
/// The request asks for one.
pub fn check_upgrade(head: &Head) -> Result<(), ApiError> {
    let is_websocket = |protocol: &[u8]| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket");
    let asks = head.method() == "GET"
        && head.minor() >= 1
        && values(head, "upgrade").any(|value| value.split(|byte| *byte == b',').any(is_websocket));
    if asks { Err(ApiError::UpgradeRequired) } else { Ok(()) }
}

/// Refuses a compressed body, which ai-proxy could not read.
///
/// # Errors
/// `Content-Encoding` names a coding.
pub fn check_encoding(head: &Head) -> Result<(), ApiError> {
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    let is_plain = values(head, "content-encoding")
        .all(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(is_none));
    if is_plain { Ok(()) } else { Err(ApiError::UnsupportedEncoding) }
}

/// The values of the fields of that name. A provider behind CGI or WSGI reads `_` as `-`.
fn values<'a>(head: &'a Head, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let is_same =
        |(sent, letter): (u8, u8)| sent.eq_ignore_ascii_case(&letter) || (sent, letter) == (b'_', b'-');
    let is_it = move |sent: &str| sent.bytes().zip(name.bytes()).all(is_same);
    head.fields_of_length(name.len()).filter(move |(sent, _)| is_it(sent)).map(|(_, value)| value)
}

fn content_type(head: &Head) -> Result<Option<&[u8]>, ApiError> {
    let mut kinds = values(head, "content-type");
    match (kinds.next(), kinds.next()) {
        (kind, None) => Ok(kind),
        (_, Some(_)) => Err(ApiError::BadRequest("Content-Type must come once")),
    }
}

/// A `Content-Type` without its parameters.
fn media_type(kind: &[u8]) -> &[u8] {
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_json(media_type: &[u8]) -> bool {
    media_type.eq_ignore_ascii_case(b"application/json")
}

/// The `Content-Type` for a JSON body, where the client's own names another type: some providers would read the body as a form (curl's
/// `-d` labels it so), or in another character set, and find another model than the one that was checked.
fn announced(head: &Head, body: &Body) -> Result<Option<&'static str>, ApiError> {
    let Some(kind) = content_type(head)?.filter(|_| body.is_json()) else { return Ok(None) };
    let parameter = kind[media_type(kind).len()..].trim_ascii();
    let is_plain = [&b""[..], b"; charset=utf-8", b";charset=utf-8"]
        .iter()
        .any(|plain| parameter.eq_ignore_ascii_case(plain));
    Ok((!is_json(media_type(kind)) || !is_plain).then_some("application/json"))
}

/// Counts the call against its token's limits.
///
/// # Errors
/// The token is over a limit of its own.
pub fn admit(
    gateway: &Gateway,
    token: &Token,
    response_context: &mut ResponseContext,
) -> Result<Permit, ApiError> {
    if !token.is_limited() {
        return Ok(Permit::UNLIMITED);
    }
    let admitted = gateway.quotas.admit(token, Clock::now());
    (response_context.standing, response_context.day) = match &admitted {
        Ok(permit) => (permit.standing, permit.day),
        Err(refused) => (refused.standing, refused.day),
    };
    admitted.map_err(|refused| ApiError::RateLimited(refused.limit, refused.wait))
}

/// Whether the filters take too long over that call for its worker.
pub fn takes_long(request: &Request<RequestContext>, body: &Body) -> bool {
    let (config, token) = (&*request.context.config, request.context.token());
    let is_stored = request.context.endpoint.action == Action::StoredResponse;
    filters::takes_long(config, token, body) || (is_stored && token.models.is_some())
}

/// Prepares a call: its routes, and the request for the provider.
///
/// # Errors
/// The request is refused.
pub fn prepare(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    mut body: Body,
) -> Result<Admitted, ApiError> {
    let (config, token) = (&*request.context.config, request.context.token());
    let path = path_at_provider(request)?;
    let is_stored = request.context.endpoint.action == Action::StoredResponse;
    let (mut routes, is_search) = if is_stored {
        let found = responses::find(gateway, config, token, request.head.path())?;
        if !found.model.is_empty() {
            body.model = found.model.into();
        }
        (found.routes, found.is_search)
    } else {
        (routes_by_model(gateway, request, token, &body)?, false)
    };
    let kind = announced(&request.head, &body)?;
    let Translated { chat, refused, cuts, uncounting } = messages::translate(gateway, request, &mut routes)?;
    // Only a GET shows the header fields that HEAD has to return.
    let method = match request.head.method() {
        "POST" => Method::POST,
        "DELETE" => Method::DELETE,
        _ => Method::GET,
    };
    let estimated_prompt = charge::estimated_prompt(request);
    Ok(Admitted {
        method,
        body,
        chat: chat.map(std::sync::Arc::new),
        refused,
        cuts,
        uncounting,
        routes,
        is_search,
        path,
        kind,
        estimated_prompt,
    })
}

/// Path and query after the provider's base URL, without parameters that carry credentials.
fn path_at_provider(request: &Request<RequestContext>) -> Result<Cow<'static, str>, ApiError> {
    let (target, endpoint) = (request.head.target(), request.context.endpoint.path);
    if target == endpoint {
        return Ok(Cow::Borrowed(endpoint.strip_prefix("/v1").unwrap_or_default()));
    }
    let path = target.strip_prefix("/v1").unwrap_or_default();
    let path = relayed_headers::without_credentials(path).into_owned();
    match path.bytes().all(is_plain) || path.parse::<PathAndQuery>().is_ok() {
        true => Ok(Cow::Owned(path)),
        false => Err(ApiError::BadRequest("request target")),
    }
}

/// Whether a byte may stand anywhere in a request target.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.')
}

fn routes_by_model(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    token: &Token,
    body: &Body,
) -> Result<Vec<Route>, ApiError> {
    let config = &*request.context.config;
    let lists = gateway.board.lists();
    let lone = config.providers.first().filter(|_| config.providers.len() == 1 && body.lacks_model());
    let owner = |model: &str| {
        catalog::only_provider_of(config, &lists, model).or(lone.map(|provider| &*provider.name))
    };
    let mut routes = routing::resolve(config, token, &body.model, owner);
    if routes.is_empty() {
        return Err(match body.lacks_model() {
            true => BodyError::MissingModel.into(),
            false => {
                let meant = hints::models(config, &lists, Some(token), &body.model);
                ApiError::ModelNotFound(body.model.to_string(), meant)
            }
        });
    }
    filters::check(config, token, request, body, &routes)?;
    if let Some(previous) = &body.previous {
        responses::pin(gateway, config, &mut routes, previous);
    }
    Ok(routes)
}
