//! From the model a client names to the replicas that may serve it. Pure but for the counters of [`Balance`]; `now` is
//! an argument.

mod balance;

pub use balance::{Balance, Condition, Lease, Verdict};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Provider, Token};

/// A provider and the model to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The provider.
    pub provider: String,
    /// Its own id of the model.
    pub model: String,
    /// The one replica that can serve, by its place among the provider's.
    pub pin: Option<usize>,
}

/// The routes for a model id, in the order they are to be tried; none: there is no such model for this caller.
///
/// A virtual model goes first. Else what stands before the first `/` is the provider; without a `/` it is the one
/// provider that lists the model, which `owner` knows. `supported_models` and the token's `models` may exclude a full
/// id; a virtual model whose own name they let through keeps all its targets, else those they let through.
pub fn resolve<'a>(
    config: &'a Config,
    token: &Token,
    id: &str,
    owner: impl FnOnce(&str) -> Option<&'a str>,
) -> Vec<Route> {
    if let Some(model) = config.virtual_model(id) {
        let targets =
            config.targets_supported(model).filter(|target| token.allows(id) || token.allows(&target.id()));
        return targets.map(|target| Route::new(&target.provider, &target.model)).collect();
    }
    let route = match id.split_once('/') {
        Some((provider, model)) => Route::new(provider, model),
        None => match owner(id) {
            Some(provider) => Route::new(provider, id),
            None => return Vec::new(),
        },
    };
    let known = config.provider(&route.provider).is_some() && !route.model.is_empty();
    let full = format!("{}/{}", route.provider, route.model);
    if known && config.supports(&full) && token.allows(&full) { vec![route] } else { Vec::new() }
}

impl Route {
    /// A route that any replica can serve.
    pub fn new(provider: &str, model: &str) -> Self {
        Self { provider: provider.to_owned(), model: model.to_owned(), pin: None }
    }

    /// The replicas that are not to be tried: those that were, and those that cannot serve.
    fn passed_over<'a>(&self, provider: &Provider, tried: &'a [usize]) -> Cow<'a, [usize]> {
        match self.pin {
            None => tried.into(),
            Some(pin) => {
                let all = 0..provider.replicas.len();
                all.filter(|index| *index != pin || tried.contains(index)).collect::<Vec<_>>().into()
            }
        }
    }
}

/// Which replicas of which routes were tried for one request, and which is next.
#[derive(Debug)]
pub struct Plan<'a> {
    config: &'a Config,
    routes: Vec<&'a Route>,
    /// The route in hand, and its replicas tried.
    at: usize,
    tried: Vec<usize>,
}

/// A replica to try.
pub struct Choice<'a> {
    /// The provider it belongs to.
    pub provider: &'a Provider,
    /// Its place among the provider's replicas.
    pub replica: usize,
    /// The model to ask it for.
    pub model: &'a str,
    /// Its place in the balance, held while it is in use.
    pub lease: Lease,
}

impl<'a> Plan<'a> {
    /// A plan over `routes` in their order, but for those whose replicas are all cooling down: they come last.
    pub fn new(config: &'a Config, routes: &'a [Route], balance: &Balance, now: Instant) -> Self {
        let mut plan = Self { config, routes: routes.iter().collect(), at: 0, tried: Vec::new() };
        plan.again(balance, now);
        plan
    }

    /// Whether there is but one replica for the request: it alone may be tried again.
    pub fn is_lone(&self) -> bool {
        let replicas = |route: &&Route| match route.pin {
            Some(_) => 1,
            None => self.config.provider(&route.provider).map_or(0, |p| p.replicas.len()),
        };
        self.routes.iter().map(replicas).sum::<usize>() == 1
    }

    /// The next replica: another of the route in hand, else the best of the next route.
    pub fn next(&mut self, balance: &Arc<Balance>, now: Instant) -> Option<Choice<'a>> {
        while let Some(route) = self.routes.get(self.at) {
            let provider = self.config.provider(&route.provider);
            let chosen = provider.and_then(|provider| {
                let passed_over = route.passed_over(provider, &self.tried);
                Some((provider, balance.choose(provider, &passed_over, now)?))
            });
            if let Some((provider, (replica, lease))) = chosen {
                self.tried.push(replica);
                return Some(Choice { provider, replica, model: &route.model, lease });
            }
            self.at += 1;
            self.tried.clear();
        }
        None
    }

    /// Whether a replica is left behind the one in hand that may serve.
    pub fn has_hope_left(&self, balance: &Balance, now: Instant) -> bool {
        let tried = |place: usize| if place == self.at { &self.tried[..] } else { &[] };
        !self.is_lone()
            && self.routes.iter().enumerate().skip(self.at).any(|(place, route)| {
                let provider = self.config.provider(&route.provider);
                provider.is_some_and(|provider| balance.has_hope(provider, tried(place), now))
            })
    }

    /// Begins anew: every replica may be tried again, those that are fit first.
    pub fn again(&mut self, balance: &Balance, now: Instant) {
        let config = self.config;
        self.routes.sort_by_key(|route| {
            config.provider(&route.provider).is_none_or(|provider| !balance.has_fit(provider, now))
        });
        self.at = 0;
        self.tried.clear();
    }
}
