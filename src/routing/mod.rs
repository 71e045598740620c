//! From the model that a client names to the replicas that may serve it. Pure but for the counters of
//! [`Balance`]; `now` is an argument.

mod balance;

pub use balance::{Balance, Condition, Lease, Verdict};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Provider, Token, TokenId};

/// A provider, and the id of the model there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Index of the provider in the configuration.
    pub provider: usize,
    /// The provider's own id of the model.
    pub model: Arc<str>,
    /// Index of the one replica that can serve; `None`: any can.
    pub pin: Option<usize>,
}

/// The routes for a model id, in the order of the attempts. Empty: the caller has no such model.
///
/// A virtual model takes precedence. Else the part before the first `/` names the provider; an id without a
/// `/` belongs to the one provider that lists the model (`owner`). `supported_models` and the token's
/// `models` may exclude a full id. A virtual model whose own name passes both keeps all its targets; else it
/// keeps the targets that pass.
pub fn resolve<'a>(
    config: &'a Config,
    token: &Token,
    id: &str,
    owner: impl FnOnce(&str) -> Option<&'a str>,
) -> Vec<Route> {
    if let Some(model) = config.virtual_model(id) {
        let targets =
            config.targets_supported(model).filter(|target| token.allows(id) || token.allows(&target.id()));
        return targets.filter_map(|target| Route::new(config, &target.provider, &target.model)).collect();
    }
    let (provider, model, full) = match id.split_once('/') {
        Some((provider, model)) => (provider, model, Cow::Borrowed(id)),
        None => match owner(id) {
            Some(provider) => (provider, id, Cow::Owned(format!("{provider}/{id}"))),
            None => return Vec::new(),
        },
    };
    let route = Route::new(config, provider, model).filter(|_| !model.is_empty());
    match route.filter(|_| config.supports(&full) && token.allows(&full)) {
        Some(route) => vec![route],
        None => Vec::new(),
    }
}

impl Route {
    /// A route that any replica can serve; `None`: there is no such provider.
    pub fn new(config: &Config, provider: &str, model: &str) -> Option<Self> {
        Some(Self { provider: config.place(provider)?, model: model.into(), pin: None })
    }

    /// Its provider, in the configuration that it was made from.
    pub fn provider<'a>(&self, config: &'a Config) -> &'a Provider {
        &config.providers[self.provider]
    }
}

/// The replicas that one request has tried, and which comes next.
#[derive(Debug)]
pub struct Plan {
    config: Arc<Config>,
    routes: Vec<Route>,
    /// The caller's token; `None`: there is no other token.
    token: Option<TokenId>,
    /// Indices of routes, each with the index of a replica of its provider.
    tried: Vec<(usize, usize)>,
    /// The one that is being tried: for most requests, it is the only one.
    last: Option<(usize, usize)>,
}

/// The untried part of a route.
struct Left<'a> {
    place: usize,
    route: &'a Route,
    provider: &'a Provider,
    /// Replicas not to try: those that were tried, and those that cannot serve.
    passed_over: Vec<usize>,
}

/// A replica for the next attempt.
pub struct Choice {
    config: Arc<Config>,
    /// Index of the provider in the configuration.
    provider: usize,
    /// Index among the provider's replicas.
    pub replica: usize,
    /// The provider's own id of the model.
    pub model: Arc<str>,
    /// Counts the attempt as in flight until it is dropped.
    pub lease: Lease,
}

impl Choice {
    pub fn provider(&self) -> &Provider {
        &self.config.providers[self.provider]
    }
}

impl Plan {
    /// A plan over `routes` for a request of that token, with no replica tried yet.
    pub fn new(config: &Arc<Config>, routes: Vec<Route>, token: &Token) -> Self {
        let token = (config.tokens.len() > 1).then(|| TokenId::of(token));
        Self { config: Arc::clone(config), routes, token, tried: Vec::new(), last: None }
    }

    /// Whether only one replica can take the request: then it may be tried again.
    pub fn is_lone(&self) -> bool {
        let replicas = |route: &Route| match route.pin {
            Some(_) => 1,
            None => route.provider(&self.config).replicas.len(),
        };
        self.routes.iter().map(replicas).sum::<usize>() == 1
    }

    /// The next replica in the order of the routes: the available ones of all routes first, then those in
    /// cooldown.
    pub fn next(&mut self, balance: &Arc<Balance>, now: Instant) -> Option<Choice> {
        let left = || self.left().filter(|left| left.passed_over.len() < left.provider.replicas.len());
        // With a lone replica its cooldown makes no difference.
        let available = |left: &Left<'_>| {
            self.is_lone() || balance.has_available(left.provider, &left.passed_over, self.token, now)
        };
        let Left { place, route, provider, passed_over } =
            left().find(available).or_else(|| left().next())?;
        let (replica, lease) = balance.choose(provider, &passed_over, self.token, now)?;
        let (config, model) = (Arc::clone(&self.config), Arc::clone(&route.model));
        let choice = Choice { config, provider: route.provider, replica, model, lease };
        self.tried.extend(self.last.replace((place, replica)));
        Some(choice)
    }

    /// Whether an untried replica may still take the request.
    pub fn has_hope_left(&self, balance: &Balance, now: Instant) -> bool {
        !self.is_lone()
            && self.left().any(|left| balance.has_hope(left.provider, &left.passed_over, self.token, now))
    }

    /// Starts again: every replica may be tried again.
    pub fn again(&mut self) {
        self.tried.clear();
        self.last = None;
    }

    fn left(&self) -> impl Iterator<Item = Left<'_>> {
        self.routes.iter().enumerate().map(|(place, route)| {
            let provider = route.provider(&self.config);
            let tried = self.tried.iter().chain(&self.last).filter(|(other, _)| *other == place);
            let tried = tried.map(|(_, replica)| *replica);
            let cannot =
                (0..provider.replicas.len()).filter(|index| route.pin.is_some_and(|pin| pin != *index));
            // Short, and no allocation before the first attempt.
            let mut passed_over: Vec<usize> = tried.chain(cannot).collect();
            passed_over.sort_unstable();
            passed_over.dedup();
            Left { place, route, provider, passed_over }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Balance, Plan, Route, Verdict};
    use crate::config::{Config, load};
    use crate::testing::Random;

    fn all_of(config: &Config) -> impl Iterator<Item = (String, usize)> {
        config
            .providers
            .iter()
            .flat_map(|provider| (0..provider.replicas.len()).map(|replica| (provider.name.clone(), replica)))
    }

    fn is_available(balance: &Balance, config: &Config, name: &str, replica: usize, now: Instant) -> bool {
        let provider = config.provider(name).expect("a provider");
        let others: Vec<usize> = (0..provider.replicas.len()).filter(|other| *other != replica).collect();
        balance.has_available(provider, &others, None, now)
    }

    /// Random clusters and histories: a plan offers every replica of every route once, in the order of the
    /// routes except that routes with all replicas in cooldown come last. It ends, and it knows whether
    /// replicas are left.
    #[test]
    fn every_plan_offers_each_replica_once_and_ends() {
        for seed in 1..200 {
            let mut random = Random::new(seed);
            let counts: Vec<u32> = (0..1 + random.below(4)).map(|_| 1 + random.below(3)).collect();
            let entries: Vec<String> = (0..counts.len())
                .flat_map(|p| (0..counts[p]).map(move |r| format!("\"p{p}|http://127.0.0.1:1{p}{r}|\"")))
                .collect();
            let config = load::from_text(
                &format!("{{\"providers\": [{}], \"tokens\": [\"t|sk-t\"]}}", entries.join(",")),
                &|_| None,
            )
            .map(Arc::new)
            .expect("a good config");
            let routes: Vec<Route> =
                (0..counts.len()).filter_map(|p| Route::new(&config, &format!("p{p}"), "m")).collect();
            let (balance, mut now) = (Arc::new(Balance::default()), Instant::now());
            for _ in 0..40 {
                now += Duration::from_secs(u64::from(random.below(15)));
                let available: Vec<bool> = config
                    .providers
                    .iter()
                    .map(|provider| balance.has_available(provider, &[], None, now))
                    .collect();
                let mut plan = Plan::new(&config, routes.clone(), &config.tokens[0]);
                let mut offered: Vec<(String, usize, bool)> = Vec::new();
                loop {
                    let available_left: Vec<(String, usize)> = all_of(&config)
                        .filter(|(name, replica)| !offered.iter().any(|(n, r, _)| (n, r) == (name, replica)))
                        .filter(|(name, replica)| is_available(&balance, &config, name, *replica, now))
                        .collect();
                    let Some(choice) = plan.next(&balance, now) else { break };
                    let chosen = (choice.provider().name.clone(), choice.replica);
                    assert!(
                        available_left.is_empty() || available_left.contains(&chosen),
                        "seed {seed}: in cooldown beside an available one"
                    );
                    let others = plan.has_hope_left(&balance, now);
                    let verdict = [Verdict::Succeeded, Verdict::Failed, Verdict::Refused, Verdict::Unknown];
                    choice.lease.report(verdict[random.below(4) as usize], now);
                    offered.push((choice.provider().name.clone(), choice.replica, others));
                }
                let total = counts.iter().sum::<u32>() as usize;
                assert_eq!(offered.len(), total, "seed {seed}");
                assert_eq!(
                    offered.last().map(|last| last.2),
                    Some(false),
                    "seed {seed}: the last has none after it"
                );
                let names: Vec<&str> = offered.iter().map(|(name, ..)| &**name).collect();
                let place = |name: &str| names.iter().position(|other| *other == name);
                for (p, q) in (0..counts.len()).flat_map(|p| (p + 1..counts.len()).map(move |q| (p, q))) {
                    let in_order = available[p] || !available[q];
                    assert_eq!(place(&format!("p{p}")) < place(&format!("p{q}")), in_order, "seed {seed}");
                }
                offered.sort();
                offered.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
                assert_eq!(offered.len(), total, "seed {seed}: one was offered twice");
            }
        }
    }
}
