//! Three replicas fail in turn under the load of 32 clients, and no client notices.

use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::calls::{DONE, KEY, ask, ask_streamed, completion, event};
use crate::support::client::{Client, End};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::Upstream;

const CLIENTS: usize = 32;
/// Length of each failure, and of the quiet time to compare with.
const SPELL: Duration = Duration::from_millis(1000);
/// Time a replica takes for a response: some request is always in flight.
const WORK: Duration = Duration::from_millis(10);

/// Ways of failing.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The replica is killed: requests in flight are lost, new connections are refused.
    Dies,
    Hangs,
    Responds(u16),
    ClosesIdleConnections,
    BreaksOff,
}

fn whole() -> Script {
    let body = completion("hello").to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    Script::default().then(Step::Pause(WORK)).send(response)
}

fn streamed() -> Script {
    Script::sse().then(Step::Pause(WORK)).chunk(event("hello")).chunk(DONE).end()
}

/// Every request gets `whole` or `streamed`, as it asks.
fn serve(upstream: &Upstream, whole: Script, streamed: Script) {
    upstream.handle("/v1/chat/completions", move |request| {
        if request.text().contains("\"stream\":true") { streamed.clone() } else { whole.clone() }
    });
}

fn trouble(upstream: &Upstream, trouble: Trouble) {
    match trouble {
        Trouble::Dies => upstream.go_down(),
        Trouble::Hangs => {
            serve(upstream, Script::default().then(Step::Silence), Script::sse().then(Step::Silence));
        }
        Trouble::Responds(status) => {
            let refusal = Script::json(status, &json!({"error": {"message": "scripted"}}));
            serve(upstream, refusal.clone(), refusal);
        }
        Trouble::ClosesIdleConnections => {
            let idle = Step::IdleClose(Duration::from_millis(1));
            serve(upstream, whole().then(idle.clone()), streamed().then(idle));
        }
        Trouble::BreaksOff => {
            let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
            let events = Script::sse().chunk("data: {\"half").then(Step::Reset);
            serve(upstream, Script::raw(half).then(Step::Reset), events);
        }
    }
}

fn heal(upstream: &Upstream, trouble: Trouble) {
    if matches!(trouble, Trouble::Dies) {
        upstream.come_up();
    }
    serve(upstream, whole(), streamed());
}

/// Sends requests on one connection until `stop`. Returns their times, and the bad responses.
fn load(mut client: Client, number: usize, stop: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    for turn in number.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let is_streamed = turn % 2 == 0;
        let begun = Instant::now();
        let response = client.call(if is_streamed { ask_streamed("p1/m") } else { ask("p1/m") });
        times.push(begun.elapsed());
        let expected = if is_streamed { event("hello") + DONE } else { completion("hello").to_string() };
        if response.status != 200 || response.text() != expected || response.end == End::Cut {
            errors.push(format!("{} {}", response.status, response.text()));
        }
    }
    (times, errors)
}

/// Times of the load while `act` runs.
fn under_load(proxy: &Proxy, act: impl FnOnce()) -> (Vec<Duration>, Vec<String>) {
    let (stop, all) = (AtomicBool::new(false), Mutex::new((Vec::new(), Vec::new())));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stop, all, client) = (&stop, &all, proxy.client());
            scope.spawn(move || {
                let (times, errors) = load(client, number, stop);
                let mut all = all.lock().expect("results");
                all.0.extend(times);
                all.1.extend(errors);
            });
        }
        act();
        stop.store(true, Ordering::Relaxed);
    });
    all.into_inner().expect("results")
}

/// The given percentile, ms.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// Three replicas of one provider, each with a key of its own, and a proxy in front.
fn cluster() -> (Vec<Upstream>, Proxy) {
    let replicas: Vec<Upstream> = (0..3).map(|_| Upstream::new(&["m"])).collect();
    for replica in &replicas {
        serve(replica, whole(), streamed());
    }
    let entries: Vec<String> = (0..3).map(|i| format!("p1|{}|{KEY}{i}", replicas[i].url())).collect();
    let changes = json!({
        "providers": entries, "attempt_timeout": 1, "max_connections": 2 * CLIENTS, "log_level": "WARNING",
    });
    let proxy = Proxy::start(&with(config(&[]), changes));
    (replicas, proxy)
}

/// One replica fails for a while under load, and recovers.
fn suffer(proxy: &Proxy, replica: &Upstream, kind: Trouble) -> Vec<Duration> {
    let (times, errors) = under_load(proxy, || {
        thread::sleep(SPELL / 4);
        trouble(replica, kind);
        thread::sleep(SPELL);
        heal(replica, kind);
        thread::sleep(SPELL / 4);
    });
    assert!(errors.is_empty(), "{kind:?}: {} errors of {}: {:?}", errors.len(), times.len(), errors.first());
    times
}

#[test]
fn a_replica_in_trouble_is_nothing_a_client_sees() {
    for (kind, said) in [
        (Trouble::Dies, Some("Unreachable")),
        (Trouble::Hangs, Some("TimedOut")),
        (Trouble::Responds(429), Some("HTTP 429")),
        (Trouble::Responds(500), Some("HTTP 500")),
        (Trouble::Responds(401), Some("HTTP 401")),
        (Trouble::ClosesIdleConnections, None),
        (Trouble::BreaksOff, Some("Broken")),
    ] {
        let (replicas, proxy) = cluster();
        under_load(&proxy, || thread::sleep(SPELL / 4));
        let (mut quiet, errors) = under_load(&proxy, || thread::sleep(SPELL));
        assert_eq!(errors, Vec::<String>::new(), "without any trouble");
        let mut times = suffer(&proxy, &replicas[1], kind);
        if let Some(said) = said {
            proxy.log_line(&["attempt=", "provider=p1", "replica=2", said]);
        }
        let (before, now) = (percentile(&mut quiet, 99), percentile(&mut times, 99));
        eprintln!(
            "{kind:?}: {} requests, no error; p99 {now:.1} ms, {:.2} times that of the quiet run ({before:.1} ms); longest {:.0} ms",
            times.len(),
            now / before,
            percentile(&mut times, 100),
        );
    }
}

/// One after another, faster than a cooldown ends: at times only the failing replica is out of cooldown.
#[test]
fn replicas_in_trouble_in_turn_are_nothing_a_client_sees() {
    let (replicas, proxy) = cluster();
    for (turn, kind) in [
        Trouble::Responds(500),
        Trouble::Dies,
        Trouble::Hangs,
        Trouble::BreaksOff,
        Trouble::Hangs,
        Trouble::Responds(429),
        Trouble::ClosesIdleConnections,
    ]
    .into_iter()
    .enumerate()
    {
        suffer(&proxy, &replicas[turn % replicas.len()], kind);
    }
}
