//! Mixed traffic with faults for a given time. In the end nothing has grown, and every request without a
//! fault has succeeded. `make soak SECONDS=60` runs it; it takes a minute or more, so `make test` does not.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use ai_proxy::limits::CONTROL_THREADS;

use crate::support::calls::{
    DONE, KEY, TOKEN, ask, ask_streamed, authorized, bare, chat, completion, event, get, post,
};
use crate::support::client::{Client, End};
use crate::support::eventually;
use crate::support::proxy::{Proxy, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const CLIENTS: usize = 8;
const WORKERS: usize = 24;
/// A client's pause between two calls: the goal is variety and duration, not load.
const PAUSE: Duration = Duration::from_millis(5);
/// `max_memory`: an upload of 20 MB never fits, and all other requests do.
const MEMORY: usize = 64 << 20;
/// Most memory of rendered model lists in a quiet moment, bytes.
const LISTS: usize = 1 << 20;
/// Interval of the dying provider's deaths and of reloads.
const UPHEAVAL: Duration = Duration::from_secs(3);

/// Resident memory may differ by this much between two quiet moments: the allocator keeps some memory, and
/// threads meet at different times. A leak of 300 bytes per request shows in CI's minute (some 15,000
/// requests), one of 10 bytes in half an hour.
const MEMORY_NOISE: usize = 4 << 20;

/// A quiet moment: no request is in flight, and idle connections are closed.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// Without the control threads: they start when several control requests come at once, up to their limit,
    /// at any time.
    threads: usize,
    descriptors: usize,
    resident: usize,
    /// Of the memory budget, bytes.
    held: usize,
}

/// Shared by all threads.
struct Storm {
    address: SocketAddr,
    paused: AtomicBool,
    over: AtomicBool,
    /// Clients between two calls while paused.
    resting: AtomicUsize,
    /// Index in [`client`]'s table of each client's current call, and its start: for the message of a test
    /// that times out.
    calls: Mutex<BTreeMap<usize, (u64, Instant)>>,
    seen: Mutex<BTreeMap<String, usize>>,
}

impl Storm {
    fn count(&self, what: &str) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default() += 1;
    }

    fn note_call(&self, client: usize, call: u64) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(client, (call, Instant::now()));
    }

    /// Waits while paused. Returns whether to continue.
    fn goes_on(&self) -> bool {
        if self.paused.load(Ordering::SeqCst) {
            self.resting.fetch_add(1, Ordering::SeqCst);
            while self.paused.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                std::thread::sleep(PAUSE);
            }
            self.resting.fetch_sub(1, Ordering::SeqCst);
        }
        std::thread::sleep(PAUSE);
        !self.over.load(Ordering::SeqCst)
    }
}

/// xorshift: the same storm each time, as far as threads allow.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
#[ignore = "takes as long as it is told to: make soak"]
fn nothing_grows_and_no_good_request_fails() {
    let seconds =
        std::env::var("AI_PROXY_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let good = Upstream::new(&["m"]);
    good.handle("/v1/chat/completions", |request| whole_or_stream(&request.text()));
    good.respond("/v1/images/generations", large_image());
    let odd = Upstream::new(&[]);
    let lists = AtomicUsize::new(0);
    odd.handle("/v1/models", move |_| odd_list(lists.fetch_add(1, Ordering::Relaxed)));
    let faulty = Upstream::new(&["m"]);
    let turns = AtomicUsize::new(0);
    faulty.handle("/v1/chat/completions", move |_| fault(turns.fetch_add(1, Ordering::Relaxed)));
    let mut dying = Upstream::new(&["m"]);
    dying.chat(Script::json(200, &completion("still here")));
    let config = |dying: &Upstream| config(&good, &faulty, dying, &odd);
    let mut proxy = Proxy::start_in(TempDir::new(), &config(&dying), |_| {});
    let storm = Storm {
        address: proxy.address(),
        paused: AtomicBool::new(false),
        over: AtomicBool::new(false),
        resting: AtomicUsize::new(0),
        calls: Mutex::default(),
        seen: Mutex::default(),
    };

    let (before, after) = std::thread::scope(|scope| {
        let _over = OnDrop(&storm.over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let storm = &storm;
                    move || client(storm, number)
                })
            })
            .collect();
        let start_all_workers = || {
            let mut many: Vec<Client> = (0..WORKERS * 2).map(|_| proxy.client()).collect();
            many.iter_mut().for_each(|client| client.send(ask("good/slow")));
            many.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        };
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        // The first quarter, at most a minute, makes what is made once: threads, buffers, caches.
        let warm = begun + Duration::from_secs((seconds / 4).min(60));
        start_all_workers();
        let mut before = None;
        while Instant::now() < end {
            std::thread::sleep(UPHEAVAL.min(end.saturating_duration_since(Instant::now())));
            assert!(clients.iter().all(|client| !client.is_finished()), "a client met what it may not meet");
            [&good, &faulty, &dying, &odd].into_iter().for_each(Upstream::forget);
            // It dies with its connections, is missing for a moment, and comes back elsewhere.
            dying = Upstream::new(&["m"]);
            dying.chat(Script::json(200, &completion("still here")));
            std::thread::sleep(Duration::from_millis(300));
            proxy.write_config(&config(&dying));
            reload(&proxy, &storm);
            if before.is_none() && Instant::now() > warm {
                before = Some(quiet(&proxy, &storm));
            }
        }
        start_all_workers();
        let after = quiet(&proxy, &storm);
        (before.expect("long enough for a warm-up"), after)
    });

    let mut report = format!("soak of {seconds} s\n before {before:?}\n after  {after:?}\n");
    for (what, count) in &*storm.seen.lock().expect("counts") {
        writeln!(report, " {count:8} {what}").expect("a string takes all");
    }
    eprintln!("{report}");
    assert!(proxy.is_running());
    assert_eq!(proxy.get("/health").status, 200);
    assert!(after.threads <= before.threads, "{report}");
    assert!(proxy.threads_named("control") <= CONTROL_THREADS, "{report}");
    assert!(proxy.threads_named("helper") <= WORKERS, "{report}");
    assert!(after.descriptors <= before.descriptors, "{report}");
    assert!(after.resident <= before.resident + MEMORY_NOISE, "{report}");
    assert!(after.held <= LISTS, "{report}");
    check_log(&proxy.directory.join("soak.log"));
    assert_eq!(proxy.stderr.all().iter().filter(|line| line.contains("panic")).count(), 0);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0), "it drains");
}

/// Sets a flag even if the test fails, so that the others end.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn config(good: &Upstream, faulty: &Upstream, dying: &Upstream, odd: &Upstream) -> Value {
    let providers = [("good", good), ("faulty", faulty), ("dying", dying), ("odd", odd)];
    let base = crate::support::proxy::config(&providers);
    let changes = json!({
        "log_file": "soak.log",
        "max_connections": WORKERS,
        // So that a quiet moment comes soon.
        "keepalive_expiry": 1,
        "idle_timeout": 5,
        // Enough for a busy machine: the good provider runs on it too.
        "client_timeout": 5,
        "non_stream_timeout": 15,
        "stream_timeout": 5,
        "stream_heartbeat": 0.2,
        "max_response_size": 200_000,
        "max_stream_size": 8_000_000,
        "max_memory": MEMORY,
        "health_interval": 1,
        "models_interval": 2,
        "models": {"either": ["faulty/m", "dying/m", "good/m"]},
    });
    with(base, changes)
}

/// The good provider responds as asked.
fn whole_or_stream(request: &str) -> Script {
    if request.contains("\"stream\":true") {
        let events = (0..5).fold(Script::sse(), |script, n| {
            script.chunk(event(&format!("event {n}"))).then(Step::Pause(Duration::from_millis(2)))
        });
        return events.chunk(DONE).end();
    }
    let pause = if request.contains("slow") { 300 } else { 1 };
    let response = Script::json(200, &completion("hello"));
    Script::default().then(Step::Pause(Duration::from_millis(pause))).then(response.0[0].clone())
}

/// The faulty provider fails differently each time.
fn fault(turn: usize) -> Script {
    static FAULTS: LazyLock<Vec<Script>> = LazyLock::new(faults);
    FAULTS[turn % FAULTS.len()].clone()
}

fn faults() -> Vec<Script> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", event("x").len(), event("x")).into_bytes();
    vec![
        Script::json(200, &completion("for once")),
        Script::default().then(Step::Fin),
        Script::default().then(Step::Reset),
        Script::raw("HTTP/1.1 200 OK\r\nX-Half: ").then(Step::Reset),
        Script::raw(format!("{head}Content-Length: 100\r\n\r\n{{")).then(Step::Fin),
        Script::raw(format!("{head}Content-Length: 1\r\n\r\n{{\"more\": true}}")),
        Script::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
        Script::raw("SSH-2.0-OpenSSH_9.6\r\n").then(Step::Fin),
        Script::raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(20)).then(Step::Fin),
        Script::raw("HTTP/1.1 200 OK\r\n").then(Step::Flood(b"X-More: and more\r\n".repeat(100))),
        Script::sse().then(Step::Flood(chunk)),
        Script::sse().chunk(event("a")).then(Step::Reset),
        Script::sse().chunk(event("a")).then(Step::Silence),
        Script::sse_until_close().send(event("a")).then(Step::Fin),
        Script::chunked(200, &[("Content-Type", "text/plain")]).chunk(event("a")).chunk(DONE).end(),
        Script::sse()
            .chunk("data: {\"type\":\"ping\"}\n\n")
            .chunk("data: {\"error\":{\"code\":503}}\n\n")
            .end(),
        Script::sse().chunk("data: {\"error\":\"").then(Step::Flood(b"8\r\nxxxxxxxx\r\n".repeat(100))),
        Script::sse().end(),
        Script::json(429, &json!({"error": {"message": "slow down"}})),
        Script::whole(500, &[("Content-Type", "text/html")], "<h1>oh</h1>"),
        Script::whole(307, &[("Location", "http://127.0.0.1:1/")], ""),
        // Errors that quote the key: at once, after content, and in an event too large to be held.
        Script::sse().chunk(key_error("")).end(),
        Script::sse().chunk(event("a")).chunk(key_error("")).end(),
        Script::sse().chunk(event("a")).chunk(key_error(&"x".repeat(70_000))).end(),
        Script::json(401, &json!({"error": {"message": format!("Incorrect API key provided: {KEY}")}})),
        // Events for every client, including one that asked for a document.
        Script::sse().chunk(event("a").repeat(50)).chunk(DONE).end(),
        Script::sse().chunk(tool_calls(1000)).chunk(DONE).end(),
        Script::sse().chunk(event(&"x".repeat(300_000))).chunk(DONE).end(),
        Script::sse().chunk("data: {\"type\":\"response.created\"}\n\n".repeat(5000)).end(),
        Script::whole(200, &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")], "zip"),
        Script::raw(format!("{head}X-Large: {}\r\nContent-Length: 2\r\n\r\n{{}}", "x".repeat(40_000))),
        Script::json(200, &completion("and gone")).then(Step::IdleClose(Duration::from_millis(10))),
    ]
}

fn key_error(padding: &str) -> String {
    format!("data: {{\"error\":{{\"message\":\"{padding} bad key {KEY}\",\"code\":400}}}}\n\n")
}

fn tool_calls(count: usize) -> String {
    let call = |index| json!({"index": index, "function": {"name": "f", "arguments": "{}"}});
    let calls: Vec<Value> = (0..count).map(call).collect();
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}))
}

/// Two events of 3 MB.
fn large_image() -> Script {
    let image = "A".repeat(3_000_000);
    let event = |kind: &str| {
        format!(
            "event: {kind}\ndata: {}\n\n",
            json!({"type": kind, "b64_json": image, "partial_image_index": 0})
        )
    };
    let events = ["image_generation.partial_image", "image_generation.completed"];
    events.iter().fold(Script::sse(), |script, kind| script.chunk(event(kind))).end()
}

/// A list of models, each time odd in another way.
fn odd_list(turn: usize) -> Script {
    let json = |text: String| Script::whole(200, &[("Content-Type", "application/json")], text);
    match turn % 8 {
        0 => json("[".repeat(100_000)),
        1 => json(
            json!({"data": [{"id": "x".repeat(100_000)}, {"id": 7}, null, {"id": "a"}, {"id": "a"}]})
                .to_string(),
        ),
        2 => json(json!({"data": {"id": "a"}}).to_string()),
        3 => json(format!("{{\"data\":[{}{{\"id\":\"z\"}}]}}", "{\"id\":\"\\u0000\\n\"},".repeat(1000))),
        4 => Script::whole(200, &[("Content-Encoding", "gzip")], "zip"),
        5 => json(json!(["a", {"name": "models/b"}, {"id": KEY}]).to_string()),
        6 => Script::whole(401, &[], format!("bad key {KEY}")),
        _ => json(
            json!({"data": (0..500).map(|n| json!({"id": n.to_string()})).collect::<Vec<_>>()}).to_string(),
        ),
    }
}

fn client(storm: &Storm, number: usize) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let mut kept = None;
    while storm.goes_on() {
        let call = dice.roll(20);
        storm.note_call(number, call);
        match call {
            0..=4 => ask_the_good(storm, &mut kept),
            5 => stream_from_the_good(storm),
            6 | 7 => ask_for(storm, &ask("faulty/m"), "faulty"),
            8 => ask_for(storm, &ask_streamed("faulty/m"), "faulty, streamed"),
            9 => ask_for(storm, &ask("dying/m"), "dying"),
            10 => ask_for(storm, &ask("either"), "either"),
            11 => leave_early(storm, &mut dice),
            12 => ask_for(storm, &get("/metrics"), "metrics"),
            13 => ask_for(storm, &get("/v1/models"), "models"),
            14 | 15 => refused(storm, &mut dice),
            16 => ask_for(storm, &ask_message("faulty/m", "call_1"), "faulty, translated"),
            17 => large_image_from_the_good(storm),
            18 => ask_for(storm, &chat(large(1 << 20)), "a large upload"),
            _ => pipelined(storm),
        }
    }
}

/// A call that must succeed, on a connection that is kept as long as it lasts.
fn ask_the_good(storm: &Storm, kept: &mut Option<(Client, Instant)>) {
    // A connection idle for a second may close at any time.
    let fresh = kept.take().filter(|(_, used)| used.elapsed() < Duration::from_secs(1));
    let mut client = fresh.map_or_else(|| Client::connect(storm.address), |(client, _)| client);
    let response = client.call(ask("good/m"));
    assert_eq!((response.status, response.json()), (200, completion("hello")));
    *kept = Some((client, Instant::now()));
    storm.count("good, whole");
}

fn stream_from_the_good(storm: &Storm) {
    let response = Client::connect(storm.address).call(ask_streamed("good/m"));
    assert_eq!((response.status, response.end), (200, End::FinalChunk), "{}", response.text());
    assert!(response.text().ends_with(DONE) && response.text().matches("event ").count() == 5);
    storm.count("good, streamed");
}

fn large_image_from_the_good(storm: &Storm) {
    let body = json!({"model": "good/m", "prompt": "a cat", "stream": true, "partial_images": 1});
    let response =
        Client::connect(storm.address).call(authorized("/v1/images/generations", body.to_string()));
    assert_eq!((response.status, response.end), (200, End::FinalChunk));
    assert!(response.body.len() > 6_000_000, "{} bytes", response.body.len());
    storm.count("good, images of 3 MB");
}

/// A chat of so many bytes.
fn large(size: usize) -> String {
    json!({"model": "good/m", "messages": [{"role": "user", "content": "x".repeat(size)}]}).to_string()
}

/// A message with the result of a tool, which is translated.
fn ask_message(model: &str, tool_use_id: &str) -> Vec<u8> {
    let call = json!({"type": "tool_use", "id": "call_1", "name": "f", "input": {}});
    let result = json!({"type": "tool_result", "tool_use_id": tool_use_id, "content": "7"});
    let messages = json!([
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}
    ]);
    let body = json!({"model": model, "max_tokens": 9, "messages": messages});
    authorized("/v1/messages", body.to_string())
}

/// A call with any result: the response comes in time, is valid HTTP, and contains no key.
fn ask_for(storm: &Storm, request: &[u8], what: &str) {
    let response = Client::connect(storm.address).call(request);
    assert!(memchr::memmem::find(&response.body, KEY.as_bytes()).is_none(), "a key in {what}");
    storm.count(&format!(
        "{what}: {}{}",
        response.status,
        if response.end == End::Cut { ", broken off" } else { "" }
    ));
}

/// Leaves at any point: before, within and after the request, and during the response.
fn leave_early(storm: &Storm, dice: &mut Dice) {
    let request = ask_streamed(if dice.roll(2) == 0 { "good/m" } else { "faulty/m" });
    let sent = usize::try_from(dice.roll(2 * request.len() as u64)).expect("small").min(request.len());
    let mut client = Client::connect(storm.address);
    client.send(&request[..sent]);
    if sent == request.len() && dice.roll(2) == 0 {
        let mut stream = client.streamed();
        if stream.status == 200 {
            drop(stream.next_data());
        }
    }
    drop(client);
    storm.count("left early");
}

/// Requests that the front refuses, or the proxy before any attempt.
fn refused(storm: &Storm, dice: &mut Dice) {
    static REQUESTS: LazyLock<Vec<(Vec<u8>, u16)>> = LazyLock::new(refused_requests);
    let which = usize::try_from(dice.roll(REQUESTS.len() as u64)).expect("small");
    let (request, status) = &REQUESTS[which];
    let mut client = Client::connect(storm.address);
    // It may be refused before it is sent completely.
    drop(client.try_send(request));
    let response = client.response();
    assert_eq!(response.status, *status, "{which}: {}", response.text());
    storm.count("refused");
}

fn refused_requests() -> Vec<(Vec<u8>, u16)> {
    vec![
        (b"GARBAGE\r\n\r\n".to_vec(), 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            400,
        ),
        (
            bare(
                "POST",
                "/v1/chat/completions",
                &[("Authorization", "Bearer wrong"), ("Content-Length", "0")],
            ),
            401,
        ),
        (chat("{\"model\": \"good/m\""), 400),
        (ask("nobody/m"), 404),
        (authorized("/v1/nothing", "{}"), 404),
        (chat(vec![b' '; 300_000]), 400),
        (bare("GET", &format!("/{}", "x".repeat(9000)), &[]), 414),
        (chat(format!("{{{}\"x\":1}}", "\"model\":\"good/m\",".repeat(1000))), 400),
        (chat(r#"{"model": "good/m", "Model": "good/m"}"#), 400),
        (ask(&format!("good/{}", "m".repeat(100_000))), 400),
        (ask_message("good/m", &"t".repeat(100_000)), 400),
        (chat(large(20_000_000)), 503),
        ("\r\n".repeat(5000).into_bytes(), 400),
        (post("/v1/chat/completions", &[("X-Api-Key", TOKEN), ("Content-Encoding", "gzip")], "zip"), 415),
        (bare("GET", "/v1/realtime", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]), 426),
    ]
}

fn pipelined(storm: &Storm) {
    let mut client = Client::connect(storm.address);
    client.send([get("/healthz"), ask("good/m"), get("/healthz"), ask("good/m")].concat());
    for _ in 0..4 {
        assert_eq!(client.response().status, 200);
    }
    storm.count("good, pipelined");
}

fn check_log(path: &Path) {
    let log = std::fs::read_to_string(path).expect("log");
    assert!(!log.contains("panic") && !log.contains(KEY) && !log.contains(TOKEN));
}

/// By signal with a new log file, and by call, alternately.
fn reload(proxy: &Proxy, storm: &Storm) {
    let (log, old) = (proxy.directory.join("soak.log"), proxy.directory.join("soak.log.1"));
    std::fs::rename(&log, &old).expect("rotate");
    proxy.signal(Signal::HUP);
    eventually("a new log file", || log.exists().then_some(()));
    check_log(&old);
    let response = proxy.call(bare("POST", "/v1/reload", &[("Content-Length", "0")]));
    assert_eq!(response.status, 200, "{}", response.text());
    storm.count("reloads");
}

/// Longest time for a client to end its current call: a call of the faulty provider may last as long as
/// `non_stream_timeout`, and processing its response waits for the processor.
const REST: Duration = Duration::from_secs(60);

fn quiet(proxy: &Proxy, storm: &Storm) -> Quiet {
    storm.paused.store(true, Ordering::SeqCst);
    let end = Instant::now() + REST;
    while storm.resting.load(Ordering::SeqCst) < CLIENTS {
        assert!(Instant::now() < end, "some clients do not rest: {:?}", storm.calls);
        std::thread::sleep(Duration::from_millis(20));
    }
    let gauge = |name: &str, metrics: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect("a metric").to_owned();
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    eventually("nothing under way", || {
        let metrics = proxy.get("/metrics").text();
        let busy = gauge("ai_proxy_requests_in_flight", &metrics)
            + gauge("ai_proxy_workers{state=\"busy\"}", &metrics);
        (busy == 0.0 && gauge("ai_proxy_clients ", &metrics) <= 1.0).then_some(())
    });
    // Kept connections end within seconds, and health checks come and go: the minimum counts.
    let looks = (0..60).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Quiet {
            threads: proxy.threads_outside_pools(),
            descriptors: proxy.open_descriptors(),
            resident: proxy.resident(),
            held: gauge("ai_proxy_memory_held_bytes", &proxy.get("/metrics").text()) as usize,
        }
    });
    let least = looks.reduce(|one, other| Quiet {
        threads: one.threads.min(other.threads),
        descriptors: one.descriptors.min(other.descriptors),
        resident: one.resident.min(other.resident),
        held: one.held.min(other.held),
    });
    storm.paused.store(false, Ordering::SeqCst);
    least.expect("some looks")
}
