//! Which models a call may reach besides the one in `model`. Where a filter applies (a token's `models`, or
//! `supported_models`), each member by which some provider is known to choose another model is checked like `model`, or refused
//! by its name. Where none applies, every call passes.

use std::cell::Cell;

use percent_encoding::percent_decode_str;

use super::RequestContext;
use super::error::ApiError;
use crate::config::{Config, Filter, Token};
use crate::core::choosers::reads_as_model;
use crate::core::splice::Body;
use crate::front::Request;
use crate::limits::{MAX_MODEL, MAX_TARGETS, QUICK_FILTER};
use crate::routing::Route;

/// Whether the filters take too long over a call for its worker: each of their patterns may meet each byte of each id.
pub fn takes_long(config: &Config, token: &Token, body: &Body) -> bool {
    let cost = cost(config, Some(token));
    if cost == 0 {
        return false;
    }
    let targets = config.virtual_model(&body.model).map_or(0, |model| model.targets.len());
    let others: usize =
        body.choosers().iter().filter_map(|(_, span)| span.as_ref()).map(ExactSizeIterator::len).sum();
    let bytes = id_bytes(config, &body.model) + others.saturating_mul(targets.max(1));
    bytes.saturating_mul(cost) > QUICK_FILTER
}

/// Bytes that the filters are compared with where a client names `id`: its own, and those of a virtual model's targets.
pub fn id_bytes(config: &Config, id: &str) -> usize {
    let targets = config.virtual_model(id).map_or(&[][..], |model| &model.targets);
    id.len() + targets.iter().map(|target| target.provider.len() + 1 + target.model.len()).sum::<usize>()
}

/// Most that it costs to compare a byte with the filters of that token ([`Filter::cost`]).
pub fn cost(config: &Config, token: Option<&Token>) -> usize {
    let models = token.and_then(|token| token.models.as_ref());
    config.supported_models.cost() + models.map_or(0, Filter::cost)
}

/// Refuses a call that could reach a model which the filters exclude. `routes`: its routes.
///
/// # Errors
/// [`ApiError::OtherModel`] names the member.
pub fn check(
    config: &Config,
    token: &Token,
    request: &Request<RequestContext>,
    body: &Body,
    routes: &[Route],
) -> Result<(), ApiError> {
    if token.models.is_none() && config.supported_models.is_empty() {
        return Ok(());
    }
    // The configuration itself names the targets of a virtual model.
    if config.virtual_model(&body.model).is_none() && is_indirect(&body.model) {
        return Err(ApiError::OtherModel("model"));
    }
    if request.head.query().is_some_and(names_model) {
        return Err(ApiError::OtherModel("?model="));
    }
    let named = Cell::new(0);
    let may = |id: &str| {
        named.set(named.get() + 1);
        named.get() <= MAX_TARGETS
            && id.len() <= MAX_MODEL
            && !is_indirect(id)
            && routes.iter().all(|route| {
                let id = format!("{}/{id}", route.provider(config).name);
                config.supports(&id) && token.allows(&id)
            })
    };
    for (chooser, span) in body.choosers() {
        named.set(0);
        let value = span.as_ref().and_then(|span| std::str::from_utf8(&request.body[span.clone()]).ok());
        if !value.is_some_and(|value| chooser.is_within(value, &may)) {
            return Err(ApiError::OtherModel(chooser.name));
        }
    }
    Ok(())
}

/// Whether a model id leads to others: OpenRouter's presets, and LiteLLM's lists.
fn is_indirect(id: &str) -> bool {
    id.contains("@preset/") || id.contains(',')
}

/// Whether a query names a model: LiteLLM would call that one.
fn names_model(query: &str) -> bool {
    query.split('&').any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        reads_as_model(percent_decode_str(name).decode_utf8_lossy().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::{names_model, takes_long};
    use crate::config::load;
    use crate::core::splice::Body;

    #[test]
    fn takes_long_follows_patterns_and_every_id_that_meets_them() {
        let config = |filter: &str, targets: usize| {
            let targets: Vec<String> = (0..targets).map(|number| format!("\"p/{number:0>100}\"")).collect();
            let text = format!(
                r#"{{"providers": ["p|http://127.0.0.1:1|"], "tokens": [{{"name": "t", "token": "sk-t", {filter}}}],
                    "models": {{"v": [{}]}}}}"#,
                targets.join(",")
            );
            load::from_text(&text, &|_| None).expect("a good config")
        };
        let (none, quick) = (r#""rpm": 1"#, r#""models": ["^p/", "gpt"]"#);
        let slow = r#""models": ["(a|x){1,200}y"]"#;
        let (short, long) = (r#"{"model":"p/m"}"#, format!(r#"{{"model":"p/{}"}}"#, "a".repeat(250)));
        let others = format!(r#"{{"model":"v","models":["{}"]}}"#, "a".repeat(250));
        for (filter, targets, body, expected) in [
            (none, 16, &*others, false),
            (quick, 1, short, false),
            (quick, 1, &long, false),
            (quick, 1, r#"{"model":"v"}"#, false),
            (quick, 16, &others, true),
            (slow, 1, short, false),
            (slow, 1, &long, true),
            (slow, 1, r#"{"model":"v"}"#, true),
        ] {
            let config = config(filter, targets);
            let body = Body::parse(body.as_bytes()).expect("a good body");
            assert_eq!(
                takes_long(&config, &config.tokens[0], &body),
                expected,
                "{filter} {targets} {}",
                body.model
            );
        }
    }

    #[test]
    fn query_that_names_a_model_is_known() {
        for query in ["model=x", "a=b&model=x", "m%6Fdel=x", "Model", "x&MODEL=&y"] {
            assert!(names_model(query), "{query}");
        }
        for query in ["", "models=x", "x=model", "api-version=1&x=%6Dodel"] {
            assert!(!names_model(query), "{query}");
        }
    }
}
