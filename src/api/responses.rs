//! Stored responses (`/v1/responses/{id}`): which replica a call about one of them goes to.
//!
//! ai-proxy remembers the replica that made it. A prefix on the id would survive a restart too, but would change bytes of every
//! response and event, and the provider would not know the client's id. After a restart, or at another instance,
//! ai-proxy asks the providers in turn: ids are random and their provider's own, so a provider without the
//! response says 404.

use std::time::Instant;

use percent_encoding::percent_decode_str;
use ureq::http::Method;

use super::admitted::Admitted;
use super::error::ApiError;
use super::{Action, RequestContext, filters};
use crate::catalog::{Lists, Model};
use crate::config::{Config, Format, Provider, Replica, ReplicaId, Token};
use crate::dialect::Refusal;
use crate::front::Request;
use crate::gateway::{Gateway, ResponseOwner};
use crate::limits::{MAX_REACH, MAX_RESPONSE_ID};
use crate::routing::{self, Choice, Route};

/// Where a stored response may be.
pub struct Found {
    /// The model that made it, in the client's words; empty where it is unknown.
    pub model: String,
    /// The routes to try, in that order.
    pub routes: Vec<Route>,
    /// Any of the routes may have it.
    pub is_search: bool,
}

/// The id that a path below `/v1/responses/` names, decoded.
pub fn id_of(path: &str) -> String {
    let segment = path.strip_prefix("/v1/responses/").and_then(|rest| rest.split('/').next());
    percent_decode_str(segment.unwrap_or_default()).decode_utf8_lossy().into_owned()
}

/// Whether this segment of a path can be an id: one without characters that would change the provider's path.
pub fn is_id(segment: &str) -> bool {
    let id = percent_decode_str(segment).decode_utf8_lossy();
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.=~+:".contains(byte);
    (1..=MAX_RESPONSE_ID).contains(&id.len()) && !id.starts_with('.') && id.as_bytes().iter().all(may_stand)
}

/// The routes for the stored response that `path` names.
///
/// # Errors
/// The token may not call any provider that could have it.
pub fn find(gateway: &Gateway, config: &Config, token: &Token, path: &str) -> Result<Found, ApiError> {
    let lists = gateway.board.lists();
    let owner = gateway.response_owners.of(&id_of(path));
    let place = owner.and_then(|owner| Some((place_of(config, owner.replica)?, owner.model)));
    let mut reach = Reach::of(config, token, &lists);
    let now = Instant::now();
    let keeps_some = |provider: &Provider| {
        provider.replicas.iter().any(|replica| gateway.board.is_native(replica, Format::OpenAi, now))
    };
    let mut may_have = |provider: &Provider, model: &str| reach.includes(provider, model);
    if let Some(((provider, replica), model)) = place {
        if !may_have(provider, &model) {
            return Err(ApiError::NotFound(path.to_owned(), None));
        }
        let route = Route::new(config, &provider.name, "").map(|route| Route { pin: Some(replica), ..route });
        return Ok(Found { model, routes: route.into_iter().collect(), is_search: false });
    }
    let able = config.providers.iter().filter(|provider| may_have(provider, ""));
    let mut able = able.peekable();
    if able.peek().is_none() {
        return Err(ApiError::NotFound(path.to_owned(), None));
    }
    let able = able.filter(|provider| keeps_some(provider));
    let routes: Vec<Route> = able.filter_map(|provider| Route::new(config, &provider.name, "")).collect();
    if routes.is_empty() {
        return Err(ApiError::Refused(Refusal::not_carried("stored responses")));
    }
    let is_search = routes.len() > 1 || routes[0].provider(config).replicas.len() > 1;
    Ok(Found { model: String::new(), routes, is_search })
}

/// Reduces the routes to the one of the response that a call continues, if it is among them.
pub fn pin(gateway: &Gateway, config: &Config, routes: &mut Vec<Route>, previous: &str) {
    let Some(owner) = gateway.response_owners.of(previous) else { return };
    let Some((provider, replica)) = place_of(config, owner.replica) else { return };
    if let Some(at) = routes.iter().position(|route| route.provider(config).name == provider.name) {
        let route = Route { pin: Some(replica), ..routes.swap_remove(at) };
        *routes = vec![route];
    }
}

/// Remembers where a response was made (`made` is its id) or found; forgets a deleted one.
pub fn learn(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    call: &Admitted,
    choice: &Choice,
    made: impl FnOnce() -> Option<String>,
) {
    let (id, model) = match request.context.endpoint.action {
        Action::CreateResponse => (made(), &*call.body.model),
        Action::StoredResponse if call.method == Method::DELETE => {
            return gateway.response_owners.forget(&id_of(request.head.path()));
        }
        // The client's name of its model is unknown.
        Action::StoredResponse if call.is_search => (Some(id_of(request.head.path())), ""),
        _ => return,
    };
    let Some(id) = id else { return };
    let replica = choice.provider().replicas[choice.replica].id;
    gateway.response_owners.remember(id, ResponseOwner { replica, model: model.to_owned() });
}

fn place_of(config: &Config, id: ReplicaId) -> Option<(&Provider, usize)> {
    config.providers.iter().find_map(|provider| {
        let is_it = |replica: &Replica| replica.id == id;
        Some((provider, provider.replicas.iter().position(is_it)?))
    })
}

/// The providers that a token may call.
struct Reach<'a> {
    config: &'a Config,
    token: &'a Token,
    lists: &'a Lists,
    /// Cost of a byte of an id, and the rest of [`MAX_REACH`].
    cost: usize,
    left: usize,
}

impl<'a> Reach<'a> {
    fn of(config: &'a Config, token: &'a Token, lists: &'a Lists) -> Self {
        Self { config, token, lists, cost: filters::cost(config, Some(token)), left: MAX_REACH }
    }

    /// Whether the token may call a model of this provider: `model`, or any that is configured or listed.
    fn includes(&mut self, provider: &Provider, model: &str) -> bool {
        let Self { config, token, lists, .. } = *self;
        let of_list = |model: &Model| format!("{}/{}", provider.name, model.id);
        token.models.is_none()
            || self.leads_to(provider, model)
            || config.models.iter().any(|model| self.leads_to(provider, &model.name))
            || lists.of(&provider.name).iter().any(|model| self.leads_to(provider, &of_list(model)))
    }

    fn leads_to(&mut self, provider: &Provider, id: &str) -> bool {
        if self.left == 0 {
            return false;
        }
        let cost = filters::id_bytes(self.config, id).saturating_mul(self.cost);
        self.left = self.left.saturating_sub(cost);
        let routes = || routing::resolve(self.config, self.token, id, |_| None);
        self.left > 0 && routes().iter().any(|route| route.provider(self.config).name == provider.name)
    }
}

#[cfg(test)]
mod tests {
    use super::{Reach, id_of};
    use crate::catalog::{Lists, Model};
    use crate::config::load;

    #[test]
    fn id_in_a_path_is_decoded_and_what_is_no_escape_stays() {
        for (segment, id) in
            [("a%2Fb%2fc/d", "a/b/c"), ("%E6%A8%A1", "模"), ("100%", "100%"), ("%zz%2", "%zz%2")]
        {
            assert_eq!(id_of(&format!("/v1/responses/{segment}")), id);
        }
    }

    #[test]
    fn reach_is_found_among_all_models_as_far_as_the_filters_may_cost() {
        let config = |filter: &str| {
            let text = format!(
                r#"{{"providers": ["a|http://127.0.0.1:1|", "b|http://127.0.0.1:2|"], "models": {{"v": "b/hidden"}},
                    "tokens": [{{"name": "t", "token": "sk-token-0123456789", "models": {filter}}}]}}"#
            );
            load::from_text(&text, &|_| None).expect("a good config")
        };
        let mut lists = Lists::default();
        let ids = (0..400).map(|number| format!("m{number:03}")).chain(["z".to_owned()]);
        lists.put("a", ids.map(|id| Model { id: id.into(), created: 0 }).collect());
        // The cost of such a pattern is its compiled size, although it fails at the first byte of an id.
        let costly = "^(x|y){1,1000}z";
        for (filter, a, b) in [
            (r#"["^a/z$"]"#.to_owned(), true, false),
            (r#"["^v$"]"#.to_owned(), false, true),
            (r#"["hidden"]"#.to_owned(), false, true),
            (format!(r#"["^a/m000$", "{costly}"]"#), true, false),
            (format!(r#"["^a/z$", "{costly}"]"#), false, false),
        ] {
            let config = config(&filter);
            let includes = |provider: usize| {
                Reach::of(&config, &config.tokens[0], &lists).includes(&config.providers[provider], "")
            };
            assert_eq!((includes(0), includes(1)), (a, b), "{filter}");
        }
    }
}
