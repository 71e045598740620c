//! `check --probe`: asks every provider entry for its model list, as the health check of a serving process does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::table::table;
use crate::catalog;
use crate::config::{Config, Provider, Replica, Secret, known};
use crate::limits::{CHECK_TIMEOUT, MAX_LISTS, MAX_PLACE, MAX_PROBES, MAX_QUOTED, THREAD_STACK};
use crate::memory;
use crate::monitor::{self, Asked};
use crate::text::Language;
use crate::text::probe::{Column, Fact, Failed};
use crate::text::quoted;
use crate::upstream::Upstream;
use crate::upstream::refusal::Refusal;

/// The results as a table in the config's language, without secrets, and whether every entry passed. An entry has
/// [`CHECK_TIMEOUT`]; [`MAX_PROBES`] are asked at once.
pub fn probe(config: &Config) -> (String, bool) {
    memory::set_budget(config.max_memory);
    let upstream = Upstream::new(config);
    let entries: Vec<(&Provider, &Replica)> = config
        .providers
        .iter()
        .flat_map(|provider| provider.replicas.iter().map(move |replica| (provider, replica)))
        .collect();
    let found: Mutex<Vec<Option<Found>>> = Mutex::new(entries.iter().map(|_| None).collect());
    let next = AtomicUsize::new(0);
    let work = || {
        for at in std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)) {
            let Some((provider, replica)) = entries.get(at) else { return };
            let result = examine(&upstream, config, provider, replica);
            found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
        }
    };
    thread::scope(|scope| {
        let start = || thread::Builder::new().stack_size(THREAD_STACK).spawn_scoped(scope, work);
        let threads: Vec<_> = (0..entries.len().min(MAX_PROBES)).map_while(|_| start().ok()).collect();
        // A panic leaves its entry without a result.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&entries, found, config.language)
}

/// What a probe has found out about an entry.
#[derive(Default)]
struct Found {
    is_reachable: bool,
    tls: Fact,
    key: Fact,
    models: Option<usize>,
    /// To the end of the list, milliseconds.
    latency: u128,
    failed: Option<Failed>,
}

fn examine(upstream: &Upstream, config: &Config, provider: &Provider, replica: &Replica) -> Found {
    let begun = Instant::now();
    let deadline = begun + CHECK_TIMEOUT;
    let Asked { status, is_tls_failure, is_malformed, body } =
        monitor::ask(upstream, config, provider, replica, deadline);
    let latency = begun.elapsed().as_millis();
    let is_reachable = status.is_some() || is_tls_failure || is_malformed;
    let tls = match replica.url.starts_with("https:") {
        true if status.is_some() => Fact::Yes,
        true if is_tls_failure => Fact::No,
        _ => Fact::None,
    };
    let found = Found { is_reachable, tls, latency, ..Found::default() };
    let (Some(status), Ok(body)) = (status, &body) else {
        let reason = body.err().unwrap_or_default();
        let failed = if is_malformed { Failed::NotHttp(reason) } else { Failed::Because(reason) };
        return Found { failed: Some(failed), ..found };
    };
    let named = replica.models.as_ref().map(Vec::len);
    match status {
        200..300 => {
            let list = catalog::parse_list(known(&replica.url).listed_prefix, body, MAX_LISTS);
            let listed = list.map(|list| list.models.len());
            let key = accepted(upstream, config, provider, replica, deadline);
            match (named, listed) {
                (Some(count), _) | (None, Ok(count)) => Found { key, models: Some(count), ..found },
                (None, Err(reason)) => Found { key, failed: Some(Failed::List(reason)), ..found },
            }
        }
        _ if is_key_refused(status, body) => {
            Found { key: Fact::Refused, failed: Some(Failed::Key(status)), ..found }
        }
        // Without a list, which is no fault where the entry names the models.
        404 | 405 | 501 if named.is_some() => Found { key: Fact::Unchecked, models: named, ..found },
        404 | 405 | 501 => Found { key: Fact::Unchecked, failed: Some(Failed::NoList(status)), ..found },
        _ => Found { key: Fact::Unchecked, failed: Some(Failed::Status(status)), ..found },
    }
}

/// Some providers refuse a key by 400 and a message.
fn is_key_refused(status: u16, body: &[u8]) -> bool {
    matches!(status, 401 | 403) || Refusal::in_document(body).is_some_and(|refusal| refusal.status == 401)
}

/// What a list says of the key it was asked for with: nothing where it comes without a key as well.
fn accepted(
    upstream: &Upstream,
    config: &Config,
    provider: &Provider,
    replica: &Replica,
    deadline: Instant,
) -> Fact {
    if replica.key.is_empty() && replica.headers.is_empty() {
        return Fact::None;
    }
    let anonymous = Replica { key: Secret::default(), headers: Vec::new(), ..replica.clone() };
    let asked = monitor::ask(upstream, config, provider, &anonymous, deadline);
    let refused = |status| is_key_refused(status, asked.body.as_deref().unwrap_or_default());
    if asked.status.is_some_and(refused) { Fact::Accepted } else { Fact::Unchecked }
}

fn report(
    entries: &[(&Provider, &Replica)],
    found: Vec<Option<Found>>,
    language: Language,
) -> (String, bool) {
    let say = |fact: Fact| fact.say(language).to_owned();
    let mut rows = vec![Column::ALL.map(|column| column.say(language).to_owned())];
    let mut failures = 0;
    for ((provider, replica), found) in entries.iter().zip(found) {
        let panicked = || Some(Failed::Because("internal error".to_owned()));
        let found = found.unwrap_or_else(|| Found { failed: panicked(), ..Found::default() });
        failures += usize::from(found.failed.is_some());
        let place = match found.failed {
            Some(failed) => format!("{}: {}", replica.url, failed.say(language)),
            None => replica.url.clone(),
        };
        rows.push([
            quoted(&provider.name, MAX_QUOTED),
            say(if found.is_reachable { Fact::Yes } else { Fact::No }),
            say(found.tls),
            say(found.key),
            found.models.map_or_else(|| say(Fact::None), |count| count.to_string()),
            format!("{} ms", found.latency),
            quoted(&provider.without_secrets(&place), MAX_PLACE),
        ]);
    }
    (table(&rows) + &Failed::sum(failures, entries.len(), language), failures == 0)
}
