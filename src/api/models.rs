//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use percent_encoding::percent_decode_str;

use super::{Api, ApiError, RequestContext, filters, hints, json_response, refuse};
use crate::catalog::{self, Lists};
use crate::config::{Config, Filter};
use crate::core::BodyError;
use crate::front::{Request, Response};
use crate::gateway::Exclusive;
use crate::limits::{CHECK_TIMEOUT, CONTROL_TIMEOUT, MAX_KEPT_LISTS, MAX_MODEL, QUICK_FILTER};
use crate::memory::{Holder, Share, Size};

/// The merged list. Before the first round of checks has ended it waits for that round, no longer than a check may take.
pub fn list(api: &Api, request: &Request<RequestContext>) -> Response {
    let RequestContext { config, token, response_context, .. } = &request.context;
    api.gateway.board.wait_for_first_round(CHECK_TIMEOUT);
    let filter = token.and_then(|index| config.tokens[index].models.as_ref());
    let for_codex = parameters(request.head.query()).any(|name| name == "client_version");
    let body = api.rendered.get(config, &api.gateway.board.lists(), filter, for_codex);
    match body {
        Some(body) => {
            Response { status: 200, fields: response_context.fields("application/json"), body: body.into() }
        }
        None => refuse(&api.gateway, &ApiError::Overloaded(""), response_context),
    }
}

/// The names of a query's parameters.
fn parameters(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.unwrap_or_default().split('&').filter_map(|parameter| parameter.split('=').next())
}

/// One entry of the list.
pub fn retrieve(api: &Api, request: &Request<RequestContext>) -> Response {
    let RequestContext { config, token, response_context, .. } = &request.context;
    let segment = request.head.path().strip_prefix("/v1/models/").unwrap_or_default();
    let id = percent_decode_str(segment).decode_utf8_lossy();
    if id.len() > MAX_MODEL {
        return refuse(&api.gateway, &ApiError::Body(BodyError::ModelTooLong), response_context);
    }
    api.gateway.board.wait_for_first_round(CHECK_TIMEOUT);
    let token = token.map(|index| &config.tokens[index]);
    let takes_long = id.len().saturating_mul(filters::cost(config, token)) > QUICK_FILTER;
    let timeout = config.queue_timeout.min(CONTROL_TIMEOUT);
    let permit = takes_long.then(|| api.rendered.rendering.acquire(timeout));
    if matches!(permit, Some(None)) {
        return refuse(&api.gateway, &ApiError::Overloaded(""), response_context);
    }
    let lists = api.gateway.board.lists();
    let allowed = |id: &str| token.is_none_or(|token| token.allows(id));
    match catalog::find(config, &lists, &id).filter(|entry| allowed(&entry.id)) {
        Some(entry) => json_response(200, response_context, &entry),
        None => {
            let meant = hints::models(config, &lists, token, &id);
            refuse(&api.gateway, &ApiError::ModelNotFound(id.into_owned(), meant), response_context)
        }
    }
}

/// The rendered list: made once for each configuration, filter and state of the lists, and shared by all
/// responses.
pub struct Rendered {
    inner: Mutex<Inner>,
    /// One list at a time is rendered, or one entry searched with filters that take long: several would keep every processor from the
    /// workers.
    rendering: Exclusive,
}

struct Inner {
    /// Most bytes of all lists together.
    most: usize,
    /// The input of `kept`.
    source: Option<(Arc<Config>, Arc<Lists>)>,
    /// The least recently used one first.
    kept: Vec<Rendering>,
    /// Lists from earlier sources, while responses still use them.
    earlier: Vec<(Arc<[u8]>, Share)>,
}

struct Rendering {
    for_codex: bool,
    filter: Option<Filter>,
    body: Arc<[u8]>,
    /// Its share of the budget.
    share: Share,
}

impl Rendered {
    /// No list yet; all lists together may have `most` bytes.
    pub fn new(most: usize) -> Self {
        let inner = Inner { most, source: None, kept: Vec::new(), earlier: Vec::new() };
        Self { inner: Mutex::new(inner), rendering: Exclusive::default() }
    }

    /// The list for callers with that filter of models. `None`: lists that clients are still reading leave no room for it, or others
    /// were being rendered for all of [`CONTROL_TIMEOUT`].
    fn get(
        &self,
        config: &Arc<Config>,
        lists: &Arc<Lists>,
        filter: Option<&Filter>,
        for_codex: bool,
    ) -> Option<Arc<[u8]>> {
        let kept = || self.inner().kept(config, lists, filter, for_codex);
        if let Some(body) = kept() {
            return Some(body);
        }
        let _permit = self.rendering.acquire(CONTROL_TIMEOUT)?;
        if let Some(body) = kept() {
            return Some(body);
        }
        let allowed = |id: &str| filter.is_none_or(|models| models.matches(id));
        let entries = catalog::merge(config, lists).filter(|entry| allowed(&entry.id));
        let (mut share, most) = (Share::new(Holder::Own), Size::AtMost(self.inner().most));
        // A filter may take long over many models: requests for a kept list do not wait for it.
        let bytes = catalog::render(entries, for_codex, |bytes, more| {
            self.inner().until(|| share.make_room(bytes, more, most).is_ok())
        })?;
        let mut inner = self.inner();
        // The bytes are copied once.
        let both = bytes.capacity() + bytes.len();
        if !inner.make_room(bytes.len()) || !inner.until(|| share.set(both)) {
            return None;
        }
        let body: Arc<[u8]> = bytes.into();
        share.admit(body.len());
        if inner.is_from(config, lists) {
            let (filter, body) = (filter.cloned(), Arc::clone(&body));
            inner.kept.push(Rendering { for_codex, filter, body, share });
        } else {
            inner.earlier.push((Arc::clone(&body), share));
        }
        Some(body)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The list kept for these callers. Lists from another source are no longer kept.
    fn kept(
        &mut self,
        config: &Arc<Config>,
        lists: &Arc<Lists>,
        filter: Option<&Filter>,
        for_codex: bool,
    ) -> Option<Arc<[u8]>> {
        self.earlier.retain(|(body, _)| is_read(body));
        if !self.is_from(config, lists) {
            self.source = Some((Arc::clone(config), Arc::clone(lists)));
            self.earlier
                .extend(self.kept.drain(..).map(|it| (it.body, it.share)).filter(|(body, _)| is_read(body)));
        }
        let is_it = |it: &Rendering| it.for_codex == for_codex && same(it.filter.as_ref(), filter);
        let found = self.kept.iter().position(is_it)?;
        let found = self.kept.remove(found);
        let body = Arc::clone(&found.body);
        self.kept.push(found);
        Some(body)
    }

    /// Whether `kept` was rendered from these.
    fn is_from(&self, config: &Arc<Config>, lists: &Arc<Lists>) -> bool {
        self.source.as_ref().is_some_and(|(old_config, old_lists)| {
            Arc::ptr_eq(old_config, config) && Arc::ptr_eq(old_lists, lists)
        })
    }

    /// Drops renderings without a reader, the least recently used one first, until there is room for `size` bytes; whether
    /// there is room. A single list always has room.
    fn make_room(&mut self, size: usize) -> bool {
        while self.bytes() + size > self.most || self.kept.len() >= MAX_KEPT_LISTS {
            if !self.forget_one() {
                break;
            }
        }
        self.bytes() == 0 || self.bytes() + size <= self.most
    }

    /// Drops renderings without a reader until there is room in the budget; whether there is.
    fn until(&mut self, mut has_room: impl FnMut() -> bool) -> bool {
        loop {
            if has_room() {
                return true;
            }
            if !self.forget_one() {
                return false;
            }
        }
    }

    fn forget_one(&mut self) -> bool {
        let oldest = self.kept.iter().position(|it| !is_read(&it.body));
        oldest.map(|at| self.kept.remove(at)).is_some()
    }

    fn bytes(&self) -> usize {
        let kept = self.kept.iter().map(|it| it.body.len());
        kept.chain(self.earlier.iter().map(|(body, _)| body.len())).sum()
    }
}

/// Whether a response is using it.
fn is_read(body: &Arc<[u8]>) -> bool {
    Arc::strong_count(body) > 1
}

fn same(one: Option<&Filter>, other: Option<&Filter>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.patterns().eq(other.patterns()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Rendered;
    use crate::catalog::{Lists, Model};
    use crate::config::{Config, Filter, Pattern, load};
    use crate::limits::{CONTROL_TIMEOUT, MAX_KEPT_LISTS};

    const MOST: usize = 200_000;

    fn source(models: usize, length: usize) -> (Arc<Config>, Arc<Lists>) {
        let config = load::from_text(r#"{"providers": ["p|http://127.0.0.1:1|"]}"#, &|_| None);
        let mut lists = Lists::default();
        let model = |number| Model { id: format!("{number:0>length$}").into(), created: 0 };
        lists.put("p", (0..models).map(model).collect());
        (Arc::new(config.expect("a good config")), Arc::new(lists))
    }

    fn filter(text: &str) -> Filter {
        [Pattern::new(text).expect("a pattern")].into_iter().collect()
    }

    #[test]
    fn rendered_list_is_shared_for_as_long_as_nothing_changes() {
        let (rendered, (config, lists)) = (Rendered::new(MOST), source(10, 3));
        let get = |text: Option<&str>, for_codex| {
            let models = text.map(filter);
            rendered.get(&config, &lists, models.as_ref(), for_codex).expect("room")
        };
        let all = get(None, false);
        assert!(Arc::ptr_eq(&all, &get(None, false)));
        assert!(Arc::ptr_eq(&get(Some("1"), false), &get(Some("1"), false)));
        assert_ne!(all, get(Some("1"), false));
        assert_ne!(all, get(None, true));
        let (config, other) = (Arc::clone(&config), source(11, 3).1);
        assert_ne!(rendered.get(&config, &other, None, false).expect("room"), all);
    }

    #[test]
    fn rendered_list_is_returned_while_another_is_rendered_and_another_waits_for_a_second() {
        let (rendered, (config, lists)) = (Rendered::new(MOST), source(10, 3));
        let all = rendered.get(&config, &lists, None, false).expect("room");
        let slow = rendered.rendering.acquire(CONTROL_TIMEOUT).expect("free");
        std::thread::scope(|scope| {
            let get = |for_codex| rendered.get(&config, &lists, None, for_codex);
            assert!(scope.spawn(move || get(false)).join().is_ok_and(|body| body == Some(all)));
            assert!(scope.spawn(move || get(true)).join().is_ok_and(|body| body.is_none()));
        });
        drop(slow);
        assert!(rendered.get(&config, &lists, None, true).is_some());
    }

    #[test]
    fn rendered_list_without_reader_is_forgotten() {
        let (rendered, (config, lists)) = (Rendered::new(MOST), source(100, 3));
        for number in 0..3 * MAX_KEPT_LISTS {
            let filter = filter(&number.to_string());
            assert!(rendered.get(&config, &lists, Some(&filter), false).is_some());
        }
        assert_eq!(rendered.inner().kept.len(), MAX_KEPT_LISTS);
    }

    #[test]
    fn rendered_lists_that_are_read_are_bounded_together() {
        let (rendered, (config, _)) = (Rendered::new(MOST), source(0, 0));
        let mut held = Vec::new();
        // Each is rendered from lists of its own, as after a change, and stays in use.
        let refused = (0..100).any(|_| {
            let body = rendered.get(&config, &source(100, 50).1, None, false);
            held.extend(body.clone());
            body.is_none()
        });
        let bytes: usize = held.iter().map(|body: &Arc<[u8]>| body.len()).sum();
        assert!(refused && bytes <= MOST, "{bytes} bytes");
        held.pop();
        assert!(rendered.get(&config, &source(100, 50).1, None, false).is_some());
    }
}
