//! Stored responses (`/v1/responses/{id}`): which replica a call about one of them goes to.
//!
//! The replica that made it is remembered. A prefix on the id would survive a restart too, but would change bytes of every
//! answer and event, and the id in hand would be none that the provider knows. So where nothing is remembered, after
//! a restart or at another instance, the providers are asked in turn: an id is a random one of its provider's own, and
//! whoever does not have it says 404.

use ureq::http::Method;

use super::admission::Admitted;
use super::error::ApiError;
use super::models::percent_decode;
use super::{Action, Ticket};
use crate::catalog::Lists;
use crate::config::{Config, Format, Provider, Replica, ReplicaId, Token};
use crate::front::Request;
use crate::gateway::{Gateway, Origin};
use crate::limits::MAX_RESPONSE_ID;
use crate::routing::{self, Choice, Route};

/// Where a stored response may be.
pub struct Found {
    /// The model that made it, as the client named it; empty where that is not known.
    pub model: String,
    /// Where to ask, in that order.
    pub routes: Vec<Route>,
    /// It is not known which of them has it.
    pub is_search: bool,
}

/// The id that a path below `/v1/responses/` names, decoded.
pub fn id_of(path: &str) -> String {
    percent_decode(
        path.strip_prefix("/v1/responses/").and_then(|rest| rest.split('/').next()).unwrap_or_default(),
    )
}

/// Whether this segment of a path can be an id: nothing in it changes which path the provider sees.
pub fn is_id(segment: &str) -> bool {
    let id = percent_decode(segment);
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.=~+:".contains(byte);
    (1..=MAX_RESPONSE_ID).contains(&id.len()) && !id.starts_with('.') && id.as_bytes().iter().all(may_stand)
}

/// Where to ask for the response that `path` names.
///
/// # Errors
/// This token may call no provider that could have it.
pub fn find(gateway: &Gateway, config: &Config, token: &Token, path: &str) -> Result<Found, ApiError> {
    let lists = gateway.board.lists();
    let origin = gateway.origins.of(&id_of(path));
    let may_have = |provider: &Provider, model: &str| {
        provider.speaks(Format::OpenAi) && may_reach(config, token, &lists, provider, model)
    };
    if let Some(origin) = origin
        && let Some((provider, replica)) = place_of(config, origin.replica)
    {
        if !may_have(provider, &origin.model) {
            return Err(ApiError::NotFound(path.to_owned()));
        }
        let route = Route { pin: Some(replica), ..Route::new(&provider.name, "") };
        return Ok(Found { model: origin.model, routes: vec![route], is_search: false });
    }
    let able = config.providers.iter().filter(|provider| may_have(provider, ""));
    let routes: Vec<Route> = able.map(|provider| Route::new(&provider.name, "")).collect();
    if routes.is_empty() {
        return Err(ApiError::NotFound(path.to_owned()));
    }
    let is_search =
        routes.len() > 1 || config.provider(&routes[0].provider).is_some_and(|p| p.replicas.len() > 1);
    Ok(Found { model: String::new(), routes, is_search })
}

/// What continues a response goes where that response is, if one of the routes leads there.
pub fn pin(gateway: &Gateway, config: &Config, routes: &mut Vec<Route>, previous: &str) {
    let Some(origin) = gateway.origins.of(previous) else { return };
    let Some((provider, replica)) = place_of(config, origin.replica) else { return };
    if let Some(at) = routes.iter().position(|route| route.provider == provider.name) {
        let route = Route { pin: Some(replica), ..routes.swap_remove(at) };
        *routes = vec![route];
    }
}

/// Remembers where a response was made, which `made` gives the id of, or found; forgets one that was deleted.
pub fn learn(
    gateway: &Gateway,
    request: &Request<Ticket>,
    call: &Admitted,
    choice: &Choice,
    made: impl FnOnce() -> Option<String>,
) {
    let (id, model) = match request.ticket.action {
        Action::CreateResponse => (made(), &*call.body.model),
        Action::StoredResponse if call.method == Method::DELETE => {
            return gateway.origins.forget(&id_of(request.head.path()));
        }
        // Nothing tells what the client called its model.
        Action::StoredResponse if call.is_search => (Some(id_of(request.head.path())), ""),
        _ => return,
    };
    let Some(id) = id else { return };
    let replica = choice.provider().replicas[choice.replica].id;
    gateway.origins.remember(id, Origin { replica, model: model.to_owned() });
}

fn place_of(config: &Config, id: ReplicaId) -> Option<(&Provider, usize)> {
    config.providers.iter().find_map(|provider| {
        let is_it = |replica: &Replica| replica.id == id;
        Some((provider, provider.replicas.iter().position(is_it)?))
    })
}

/// Whether the token may call a model of this provider: `model`, or any that is configured or listed.
fn may_reach(config: &Config, token: &Token, lists: &Lists, provider: &Provider, model: &str) -> bool {
    let leads_there = |id: &str| {
        let routes = routing::resolve(config, token, id, |_| None);
        routes.iter().any(|route| route.provider == provider.name)
    };
    token.models.is_none()
        || leads_there(model)
        || config.models.iter().any(|model| leads_there(&model.name))
        || lists
            .of(&provider.name)
            .iter()
            .any(|model| leads_there(&format!("{}/{}", provider.name, model.id)))
}
