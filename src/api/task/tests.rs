//! The stages on a network, a client and a clock in memory: no socket, no thread, no wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Computing;
use crate::api::{Api, ApiError};
use crate::auth::quota::Clock;
use crate::config::{Format, load};
use crate::front::{
    Admission, Done, Handled, Head, Io, Job, Load, Next, Peer, Request, Responder, Service, Source, Task,
    in_memory,
};
use crate::gateway::Gateway;
use crate::limits::{MAX_HELD_EVENT, QUICK_BODY, READ_CHUNK};
use crate::upstream::Upstream;
use crate::upstream::in_memory::{Network, Peer as Provider};

/// A gateway, and all that is around one request at a time.
struct World {
    api: Api,
    network: Network,
    client: in_memory::Peer,
    now: Instant,
    /// How much later than `now` a request may have begun.
    slack: Duration,
    task: Option<Box<dyn Task>>,
    /// The task has said in this turn that its deadline has not come nearer.
    keeps_deadline: bool,
    /// Its deadline after its last turn.
    last_deadline: Option<Instant>,
    /// Turns in which it was not asked for its deadline.
    unasked: usize,
    /// Whether the client's connection can take the next request, once this one has ended.
    is_kept: Option<bool>,
    jobs: Vec<Job>,
    /// Helpers do nothing.
    holds_jobs: bool,
    scratch: Vec<u8>,
}

const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer sk-client\r\n\
                       X-Request-Id: r1\r\nContent-Type: application/json\r\n\r\n";
const BODY: &str = r#"{"model":"p/m","messages":[]}"#;
const STREAMED: &str = r#"{"model":"p/m","messages":[],"stream":true}"#;
/// Longer than a provider of a stream may be silent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(50);

/// A provider with so many replicas.
fn config(replicas: usize) -> Value {
    let entries: Vec<String> = (0..replicas).map(|at| format!("p|http://r{at}.test/v1|sk-p{at}")).collect();
    json!({
        "providers": entries, "tokens": ["t|sk-client"], "language": "en", "max_retries": 2,
        "non_stream_timeout": 60, "stream_timeout": 40, "stream_heartbeat": 15,
    })
}

impl World {
    fn new(replicas: usize) -> Self {
        Self::with(&config(replicas))
    }

    fn with(config: &Value) -> Self {
        let config = load::from_text(&config.to_string(), &|_| None).expect("a good config");
        let network = Network::default();
        let upstream = Upstream::in_memory(&config, network.clone());
        let api = Api::new(Arc::new(Gateway::in_memory(config, upstream)), Arc::default(), 1);
        Self {
            api,
            network,
            client: in_memory::Peer::open(),
            now: Instant::now(),
            slack: Duration::ZERO,
            task: None,
            keeps_deadline: false,
            last_deadline: None,
            unasked: 0,
            is_kept: None,
            jobs: Vec::new(),
            holds_jobs: false,
            scratch: vec![0; READ_CHUNK],
        }
    }

    /// A request with that body begins, and goes as far as it can at once.
    fn request(&mut self, body: &str) {
        self.request_at("/v1/chat/completions", body);
    }

    fn request_at(&mut self, path: &str, body: &str) {
        let head = REQUEST.replace("/v1/chat/completions", path);
        let mut head = Head::parse(head.as_bytes()).expect("a good head");
        let Admission::Run(_, context) = self.api.admit(&mut head, Peer::Unix) else {
            panic!("it is admitted")
        };
        self.now = Instant::now();
        let responder = Responder::in_memory(&self.client, &head, CLIENT_TIMEOUT);
        let request = Request::in_memory(head, context, body.as_bytes(), self.now);
        let handled = self.api.handle(request, responder);
        self.slack = self.now.elapsed();
        self.handled(handled);
        self.run();
    }

    fn handled(&mut self, handled: Handled) {
        match handled {
            Handled::Done(done) => self.end(done),
            Handled::Task(task) => self.task = Some(task),
        }
    }

    fn end(&mut self, done: Done) {
        self.is_kept = Some(done.settle());
    }

    /// Lets the request go as far as it can at once.
    fn run(&mut self) {
        while let Some(task) = self.task.take() {
            self.keeps_deadline = false;
            let next = task.advance(self);
            self.check_deadline(&next);
            match next {
                Next::Park(task) => {
                    self.task = Some(task);
                    if self.holds_jobs || self.jobs.is_empty() {
                        return;
                    }
                    self.jobs.drain(..).for_each(|job| job());
                }
                Next::Yield(task) => self.task = Some(task),
                Next::Done(done) => self.end(done),
            }
        }
    }

    /// Lets time pass to the request's deadline, which is in so many milliseconds; nothing happens before it.
    fn wait(&mut self, milliseconds: u64) {
        assert_eq!(self.received(), "", "what came earlier");
        let (deadline, expected) = (self.deadline(), self.now + Duration::from_millis(milliseconds));
        assert!(deadline >= expected && deadline <= expected + self.slack, "{:?}", deadline - self.now);
        self.now = deadline - Duration::from_nanos(1);
        self.run();
        assert_eq!((self.received(), self.deadline()), (String::new(), deadline));
        self.now = deadline;
        self.run();
    }

    /// A task that keeps its deadline would be late otherwise: its worker does not ask for the new one.
    fn check_deadline(&mut self, next: &Next) {
        let (Next::Park(task) | Next::Yield(task)) = next else { return };
        let deadline = task.deadline();
        if self.keeps_deadline {
            let is_late = |new: Instant| self.last_deadline.is_none_or(|last| new < last);
            assert!(!deadline.is_some_and(is_late), "{deadline:?} after {:?}", self.last_deadline);
            self.unasked += 1;
        }
        self.last_deadline = deadline;
    }

    fn deadline(&self) -> Instant {
        self.task.as_ref().and_then(|task| task.deadline()).expect("it waits")
    }

    /// The client leaves, and its worker learns it.
    fn leave(&mut self) {
        self.client.leave();
        let done = self.task.take().expect("it waits").cancel();
        self.end(done);
    }

    /// What the client got since this was last asked, but for the date.
    fn received(&self) -> String {
        let received = String::from_utf8(self.client.received()).expect("UTF-8");
        let lines = received.split_inclusive('\n').filter(|line| !line.starts_with("date: "));
        lines.collect()
    }
}

impl Io for World {
    fn worker(&self) -> usize {
        0
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    fn watch(&mut self, _: &Arc<Source>) {}

    fn keep_deadline(&mut self) {
        self.keeps_deadline = true;
    }

    fn load(&self) -> Arc<Load> {
        Arc::default()
    }

    fn spawn(&mut self, job: Job) -> bool {
        self.jobs.push(job);
        true
    }

    fn spawn_alone(&mut self, job: Job) -> bool {
        self.spawn(job)
    }
}

/// A request to a provider that takes it.
fn sent(body: &str) -> (World, Provider) {
    let mut world = World::new(2);
    let provider = world.network.lead_to();
    world.request(body);
    assert_eq!(
        text(&provider.received()).split_once("\r\n\r\n").expect("a head").1,
        body.replace("p/m", "m")
    );
    (world, provider)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn document(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What the client gets where a provider responds with that document.
fn relayed(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: r1\r\nx-ai-proxy-provider: p\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// The head of the client's response where it gets events.
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: r1\r\n\
                      x-ai-proxy-provider: p\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n\
                      transfer-encoding: chunked\r\n\r\n";
const HEARTBEAT: &str = "d\r\n: keep-alive\n\r\n";
const TIMED_OUT: &str = r#"{"error":{"message":"the provider did not respond in time: p","type":"http_error","param":null,"code":504,"reason":"upstream_timeout"}}"#;

fn event(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

fn chunk(piece: &str) -> String {
    format!("{:x}\r\n{piece}\r\n", piece.len())
}

/// The payload of a response in chunks, and whether it has its end.
fn payload(response: &str) -> (String, bool) {
    let mut rest = response.strip_prefix(STREAM).expect("the head of a stream");
    let mut payload = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return (payload, more == "\r\n");
        }
        payload.push_str(&more[..size]);
        rest = more[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    (payload, false)
}

#[test]
fn connect_that_is_refused_asks_another_replica() {
    let mut world = World::new(2);
    world.network.refuse();
    let provider = world.network.lead_to();
    world.request(BODY);
    let request = provider.received();
    let (head, body) = text(&request).split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\nhost: r"), "{head}");
    assert_eq!(body, r#"{"model":"m","messages":[]}"#);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
    assert!(!provider.is_closed(), "it serves the next request");
}

#[test]
fn connect_without_a_helper_ends_with_its_time() {
    let mut world = World::new(1);
    world.holds_jobs = true;
    world.request(BODY);
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
    assert_eq!(world.is_kept, Some(true));
}

#[test]
fn backoff_asks_a_lone_replica_again() {
    let mut world = World::new(1);
    world.network.refuse();
    world.request(BODY);
    let provider = world.network.lead_to();
    world.wait(100);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
}

#[test]
fn send_goes_as_far_as_the_provider_takes_it() {
    let (_, whole) = sent(BODY);
    drop(whole);
    let mut world = World::new(1);
    let provider = world.network.lead_to();
    provider.set_room(0);
    world.request(BODY);
    let mut request = Vec::new();
    while world.task.as_ref().is_some_and(|_| !request.ends_with(b"[]}")) {
        assert!(request.len() < 1000, "it has an end");
        provider.set_room(7);
        world.run();
        let part = provider.received();
        assert!((1..=7).contains(&part.len()));
        request.extend(part);
    }
    assert_eq!(
        text(&request),
        "POST /v1/chat/completions HTTP/1.1\r\nhost: r0.test\r\nContent-Type: application/json\r\n\
         x-request-id: r1\r\naccept-encoding: identity\r\nauthorization: Bearer sk-p0\r\n\
         content-length: 27\r\n\r\n{\"model\":\"m\",\"messages\":[]}"
    );
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!(world.received(), relayed("{}"));
}

#[test]
fn send_to_a_provider_that_takes_nothing_ends_with_its_time() {
    let mut world = World::new(1);
    world.network.lead_to().set_room(0);
    world.request(BODY);
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

#[test]
fn await_head_that_is_late_is_504() {
    let (mut world, provider) = sent(BODY);
    provider.send(b"HTTP/1.1 200");
    world.run();
    world.wait(60_000);
    let head = "HTTP/1.1 504 Gateway Timeout\r\ncontent-type: application/json\r\nx-request-id: r1\r\n\
                x-should-retry: false\r\nx-ai-proxy-provider: p\r\ncontent-length: 135\r\n\r\n";
    assert_eq!((world.received(), world.is_kept), (format!("{head}{TIMED_OUT}"), Some(true)));
    assert!(provider.is_closed());
}

#[test]
fn await_head_on_an_idle_connection_that_has_ended_begins_anew_on_a_fresh_one() {
    let (mut world, provider) = sent(BODY);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!(world.received(), relayed("{}"));
    // The same replica has an idle connection, and is one of two.
    for _ in 0..2 {
        let fresh = world.network.lead_to();
        world.request(BODY);
        if fresh.received().is_empty() {
            provider.end();
            world.run();
            assert!(provider.is_closed() && !fresh.received().is_empty());
            fresh.send(document("[]").as_bytes());
            world.run();
            assert_eq!(world.received(), relayed("[]"));
            return;
        }
        fresh.send(document("{}").as_bytes());
        world.run();
        assert_eq!(world.received(), relayed("{}"));
        world.network.clear();
    }
    panic!("two requests in turn meet both replicas");
}

#[test]
fn heartbeat_is_sent_when_it_is_due_and_no_attempt_follows_it() {
    let (mut world, provider) = sent(STREAMED);
    world.wait(15_000);
    assert_eq!(world.received(), format!("{STREAM}{HEARTBEAT}"));
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
    provider.end();
    world.run();
    let end = world.received();
    assert!(end.contains(r#""code":502,"reason":"upstream_broken""#) && !end.ends_with("0\r\n\r\n"), "{end}");
    assert_eq!(world.is_kept, Some(false));
}

#[test]
fn stream_is_the_same_wherever_it_is_cut() {
    let events =
        [event("one"), ": a comment\n\n".to_owned(), event("two"), "data: [DONE]\n\n".to_owned()].concat();
    let chunked = format!("{EVENTS}{}0\r\n\r\n", chunk(&events));
    let unlabelled = chunked.replace("text/event-stream", "application/json");
    for response in [chunked, unlabelled] {
        let bytes = response.as_bytes();
        let cuts = (0..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
        for pieces in cuts.chain([bytes.chunks(1).collect()]) {
            let (mut world, provider) = sent(STREAMED);
            for piece in &pieces {
                provider.send(piece);
                world.run();
            }
            let (payload, is_whole) = payload(&world.received());
            assert_eq!(
                (&*payload, is_whole, world.is_kept),
                (&*events, true, Some(true)),
                "{}",
                pieces[0].len()
            );
            assert!(!provider.is_closed(), "{}", pieces[0].len());
        }
    }
}

#[test]
fn stream_that_breaks_ends_in_the_words_of_its_api() {
    const BROKEN: &str = "the provider's response was cut off or is malformed: p";
    let delta = |number| {
        let data = json!({"type": "response.output_text.delta", "sequence_number": number});
        format!("event: response.output_text.delta\ndata: {data}\n\n")
    };
    let chat = format!(
        "data: {{\"error\":{{\"message\":\"{BROKEN}\",\"type\":\"server_error\",\"param\":null,\"code\":502,\
         \"reason\":\"upstream_broken\"}}}}\n\n"
    );
    let responses = format!(
        "event: error\ndata: {{\"type\":\"error\",\"code\":\"server_error\",\"message\":\"{BROKEN}\",\
         \"param\":null,\"sequence_number\":5,\"reason\":\"upstream_broken\"}}\n\n"
    );
    let messages = format!(
        "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"{BROKEN}\",\
         \"reason\":\"upstream_broken\"}},\"request_id\":\"r1\"}}\n\n"
    );
    let body = r#"{"model":"p/m","messages":[{"role":"user","content":"x"}],"max_tokens":9,"stream":true}"#;
    for (path, first, error) in [
        ("/v1/chat/completions", event("one"), chat),
        ("/v1/responses", delta(4), responses),
        ("/v1/messages", event("one"), messages),
    ] {
        let mut world = World::new(1);
        let provider = world.network.lead_to();
        world.request_at(path, body);
        let half = &first[..20];
        provider.send(format!("{EVENTS}{}{}", chunk(&first), chunk(half)).as_bytes());
        world.run();
        assert!(world.received().ends_with("\n\n\r\n"), "{path}: whole events alone");
        provider.end();
        world.run();
        assert_eq!((world.received(), world.is_kept), (chunk(&error), Some(false)), "{path}");
    }
}

#[test]
fn await_head_that_is_late_for_its_attempt_asks_another_replica() {
    let mut config = config(2);
    config["attempt_timeout"] = json!(5);
    let mut world = World::with(&config);
    let (slow, other) = (world.network.lead_to(), world.network.lead_to());
    world.request(BODY);
    assert!(!slow.received().is_empty());
    world.wait(5_000);
    assert!(slow.is_closed() && !other.received().is_empty());
    // The last one has the rest of the time.
    world.wait(55_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

#[test]
fn stream_without_an_event_is_tried_elsewhere() {
    let (mut world, provider) = sent(STREAMED);
    let other = world.network.lead_to();
    provider.send(EVENTS.as_bytes());
    provider.end();
    world.run();
    assert!(provider.is_closed() && !other.received().is_empty());
    other.send(format!("{EVENTS}{}0\r\n\r\n", chunk(&event("one"))).as_bytes());
    other.send(b"");
    world.run();
    assert_eq!(payload(&world.received()).0, event("one"));
}

#[test]
fn stream_that_falls_silent_has_heartbeats_and_then_an_end() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    assert_eq!(payload(&world.received()), (event("one"), false));
    for _ in 0..2 {
        world.wait(15_000);
        assert_eq!(world.received(), HEARTBEAT);
    }
    world.wait(10_000);
    assert!(world.received().contains(r#""code":504,"reason":"upstream_timeout""#));
    assert_eq!(world.is_kept, Some(false));
}

#[test]
fn stream_that_says_something_in_time_goes_on() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(EVENTS.as_bytes());
    let mut sent = String::new();
    for number in 0..5 {
        world.now += Duration::from_secs(14);
        let event = event(&number.to_string());
        provider.send(chunk(&event).as_bytes());
        sent.push_str(&event);
        world.run();
    }
    assert_eq!(payload(&world.received()), (sent, false));
    assert_eq!(world.unasked, 4, "each event after the first has moved its deadline to a later time");
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
}

#[test]
fn heartbeat_is_due_again_after_the_end_of_a_large_event() {
    let (mut world, provider) = sent(STREAMED);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    provider.send(chunk(&format!("data: {}", "x".repeat(MAX_HELD_EVENT))).as_bytes());
    world.run();
    // No comment may stand within it.
    assert_eq!(world.deadline() - world.now, Duration::from_secs(40));
    provider.send(chunk("\n\n").as_bytes());
    world.run();
    world.received();
    world.wait(15_000);
    assert_eq!(world.received(), HEARTBEAT);
}

#[test]
fn stream_waits_for_a_client_that_takes_little_and_ends_with_its_time() {
    let (mut world, provider) = sent(STREAMED);
    world.client.set_room(40);
    provider.send(format!("{EVENTS}{}", chunk(&event("one"))).as_bytes());
    world.run();
    let begun = world.received();
    assert_eq!(begun, STREAM[..40]);
    provider.send(chunk(&event("two")).as_bytes());
    world.run();
    world.client.set_room(usize::MAX);
    world.run();
    let rest = [begun, world.received()].concat();
    assert_eq!(payload(&rest), (event("one") + &event("two"), false));

    world.client.set_room(0);
    provider.send(chunk(&event("three")).as_bytes());
    world.run();
    // No heartbeat is for a client that does not take what there is.
    for milliseconds in [15_000, 15_000, 15_000, 5_000] {
        assert_eq!(world.is_kept, None);
        world.wait(milliseconds);
    }
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert!(provider.is_closed());
}

#[test]
fn collect_sends_nothing_before_the_body_is_whole() {
    let whole = document(r#"{"choices":[]}"#);
    for at in 0..whole.len() {
        let (mut world, provider) = sent(BODY);
        provider.send(&whole.as_bytes()[..at]);
        world.run();
        assert_eq!((world.received(), world.is_kept), (String::new(), None), "{at}");
        provider.send(&whole.as_bytes()[at..]);
        world.run();
        assert_eq!((world.received(), world.is_kept), (relayed(r#"{"choices":[]}"#), Some(true)), "{at}");
    }
}

#[test]
fn collect_of_a_body_that_stops_ends_with_its_time() {
    let (mut world, provider) = sent(BODY);
    provider.send(&document("{}").as_bytes()[..document("{}").len() - 1]);
    world.run();
    world.wait(60_000);
    assert!(world.received().ends_with(TIMED_OUT));
}

/// A body that a worker does not look at.
fn large(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "x".repeat(QUICK_BODY)}]}).to_string()
}

/// A request that a helper has to prepare, and has not.
fn unprepared() -> World {
    let mut world = World::new(1);
    world.holds_jobs = true;
    world.request(&large("p/m"));
    assert_eq!(world.jobs.len(), 1);
    world
}

#[test]
fn large_request_is_prepared_by_a_helper_and_ends_on_its_worker() {
    let mut world = unprepared();
    let provider = world.network.lead_to();
    world.holds_jobs = false;
    world.run();
    assert_eq!(text(&provider.received()).split_once("\r\n\r\n").expect("a head").1, large("m"));
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), world.is_kept), (relayed("{}"), Some(true)));
    world.request(&large("elsewhere/m"));
    assert!(world.received().contains(r#""reason":"model_not_found""#));
}

#[test]
fn large_request_whose_client_leaves_is_not_prepared_and_holds_nothing() {
    let mut world = unprepared();
    world.leave();
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    let gateway = Arc::strong_count(&world.api.gateway);
    assert_eq!((gateway, world.api.gateway.metrics.in_flight()), (1, 0), "the job that waits has nothing");
    world.jobs.drain(..).for_each(|job| job());
}

#[test]
fn large_request_that_no_helper_begins_within_queue_timeout_is_503() {
    let mut world = unprepared();
    world.wait(5_000);
    assert!(world.received().contains(r#""code":503,"reason":"overloaded""#));
    assert_eq!(world.is_kept, Some(true));
    // As where there are too many jobs already.
    let mut world = unprepared();
    world.jobs.clear();
    world.run();
    assert!(world.received().contains(r#""code":503,"reason":"overloaded""#));
}

/// A response that a helper has to look at, and has not; and what the client gets of it.
fn unread() -> (World, String) {
    let (mut world, provider) = sent(BODY);
    world.holds_jobs = true;
    let body = json!({"choices": [{"message": {"content": "x".repeat(QUICK_BODY)}}]}).to_string();
    provider.send(document(&body).as_bytes());
    world.run();
    assert_eq!((world.received(), world.jobs.len()), (String::new(), 1));
    (world, relayed(&body))
}

#[test]
fn large_response_is_looked_at_by_a_helper_and_ends_on_its_worker() {
    let (mut world, expected) = unread();
    world.holds_jobs = false;
    world.run();
    assert_eq!((world.received(), world.is_kept), (expected, Some(true)));
}

#[test]
fn large_response_whose_client_leaves_is_not_looked_at() {
    let (mut world, _) = unread();
    world.leave();
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert_eq!(Arc::strong_count(&world.api.gateway), 1);
}

#[test]
fn large_response_that_no_helper_begins_within_queue_timeout_is_looked_at_by_its_worker() {
    let (mut world, expected) = unread();
    world.wait(5_000);
    assert_eq!((world.received(), world.is_kept), (expected, Some(true)));
    world.jobs.drain(..).for_each(|job| job());
}

#[test]
fn heartbeats_go_on_while_a_document_is_collected_after_one() {
    let (mut world, provider) = sent(STREAMED);
    world.wait(15_000);
    assert!(world.received().ends_with(": keep-alive\n\r\n"));
    provider.send(&document(&"x".repeat(100)).as_bytes()[..120]);
    world.run();
    assert_eq!(world.deadline() - world.now, Duration::from_secs(15));
}

/// Of one provider: a replica for chat completions alone, and one that serves responses as well.
fn unlike_replicas() -> World {
    let mut config = config(0);
    config["providers"] = json!([
        {"name": "p", "url": "http://r0.test/v1", "key": "sk-p0", "responses": "chat"},
        {"name": "p", "url": "http://r1.test/v1", "key": "sk-p1", "responses": "native"},
    ]);
    World::with(&config)
}

#[test]
fn replica_that_cannot_take_a_call_keeps_its_cooldown() {
    let mut world = unlike_replicas();
    let (bad, good) = (world.network.lead_to(), world.network.lead_to());
    world.request(BODY);
    bad.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    world.run();
    good.send(document("{}").as_bytes());
    world.run();
    world.received();
    let id = world.api.gateway.live.snapshot().providers[0].replicas[0].id;
    let cooldown =
        |world: &World| world.api.gateway.balance.condition(id, Instant::now()).cooldown_until.is_some();
    assert!(cooldown(&world));
    world.request_at("/v1/responses", r#"{"model":"p/m","input":"x","conversation":"c"}"#);
    good.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    world.run();
    assert!(cooldown(&world) && !world.received().is_empty());
}

#[test]
fn replica_that_serves_an_api_after_all_is_asked_again() {
    let mut world = World::new(1);
    world.api.gateway.board.adopt(&world.api.gateway.live.snapshot());
    let is_native = |world: &World| {
        let config = world.api.gateway.live.snapshot();
        let replica = &config.providers[0].replicas[0];
        world.api.gateway.board.is_native(replica, Format::OpenAi, Instant::now())
    };
    let body = r#"{"model":"p/m","input":"x"}"#;
    let slow = world.network.lead_to();
    world.request_at("/v1/responses", body);
    let first = world.task.take().expect("it waits");
    world.client = in_memory::Peer::open();
    let quick = world.network.lead_to();
    world.request_at("/v1/responses", body);
    quick.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    world.run();
    let choices = r#"{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#;
    quick.send(document(choices).as_bytes());
    world.run();
    assert!(!is_native(&world));
    world.task = Some(first);
    slow.send(document(r#"{"id":"resp_1","object":"response"}"#).as_bytes());
    world.run();
    assert!(is_native(&world));
}

#[test]
fn hint_names_the_model_that_the_token_may_use() {
    let mut config = config(0);
    let provider = |name| json!({"name": name, "url": format!("http://{name}.test/v1"), "models": ["m"]});
    config["providers"] = ["a", "b", "c", "d"].map(provider).into();
    config["tokens"] = json!([{"name": "t", "token": "sk-client", "models": ["^d/"]}]);
    let mut world = World::with(&config);
    world.api.gateway.board.adopt(&world.api.gateway.live.snapshot());
    world.request(r#"{"model":"m","messages":[]}"#);
    assert!(world.received().contains("write d/m"));
}

#[test]
fn large_request_is_translated_by_a_helper_where_its_replica_turns_out_to_speak_chat_alone() {
    let mut world = World::new(1);
    let provider = world.network.lead_to();
    let body = json!({"model": "p/m", "input": "x".repeat(QUICK_BODY)}).to_string();
    world.request_at("/v1/responses", &body);
    assert!(text(&provider.received()).starts_with("POST /v1/responses "));
    world.holds_jobs = true;
    provider.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    world.run();
    assert_eq!((provider.received().len(), world.jobs.len()), (0, 1));
    world.holds_jobs = false;
    world.run();
    assert!(text(&provider.received()).starts_with("POST /v1/chat/completions "));
}

#[test]
fn computation_that_panics_is_an_error_of_ours() {
    let mut world = World::new(1);
    let until = world.now + Duration::from_secs(5);
    let mut computing = Computing::new("a", |text: &str| -> usize { panic!("{text}") }, false, until);
    assert_eq!((computing.poll(&mut world, until - Duration::from_nanos(1))), Ok(None));
    assert_eq!(computing.deadline(), Some(until));
    let job = world.jobs.pop().expect("it was sent to a helper");
    assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
    assert_eq!((computing.poll(&mut world, until), computing.deadline()), (Err(ApiError::Internal), None));
}

#[test]
fn client_that_leaves_ends_the_request_in_each_stage() {
    // What the provider has sent, for a request with that body.
    for (body, response) in [
        (BODY, String::new()),
        (BODY, document("{}").replace("{}", "{")),
        (STREAMED, EVENTS.replace("text/event-stream", "text/plain")),
        (STREAMED, format!("{EVENTS}{}", chunk(&event("one")))),
    ] {
        let (mut world, provider) = sent(body);
        provider.send(response.as_bytes());
        world.run();
        world.received();
        world.leave();
        assert!(provider.is_closed(), "{response}");
        assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)), "{response}");
    }
    let mut sending = World::new(1);
    let provider = sending.network.lead_to();
    provider.set_room(0);
    sending.request(BODY);
    sending.leave();
    assert!(provider.is_closed());

    let mut connecting = World::new(1);
    (connecting.holds_jobs, connecting.is_kept) = (true, None);
    let provider = connecting.network.lead_to();
    connecting.request(BODY);
    connecting.leave();
    connecting.jobs.drain(..).for_each(|job| job());
    assert_eq!(provider.received(), b"", "nobody wants its connection");

    let mut pausing = World::new(1);
    pausing.network.refuse();
    pausing.request(BODY);
    pausing.leave();
    for world in [sending, connecting, pausing] {
        assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    }
}

#[test]
fn client_that_leaves_unnoticed_ends_the_request_at_its_next_heartbeat() {
    let (mut world, provider) = sent(STREAMED);
    world.client.leave();
    world.wait(15_000);
    assert_eq!((world.received(), world.is_kept), (String::new(), Some(false)));
    assert!(provider.is_closed());
}

/// A gateway whose token may have one call at once, and what it and the gateway count before a byte arrives.
fn limited() -> (World, impl Fn() -> usize + Send + 'static + Clone) {
    let mut limited = config(1);
    limited["tokens"] = json!([{"name": "t", "token": "sk-client", "max_parallel": 1}]);
    let world = World::with(&limited);
    let gateway = Arc::clone(&world.api.gateway);
    let parallel = move || {
        let used = gateway.quotas.account(&gateway.live.snapshot().tokens[0], Clock::now()).parallel;
        usize::try_from(used).unwrap_or(usize::MAX)
            + usize::try_from(gateway.metrics.in_flight()).unwrap_or(usize::MAX)
    };
    (world, parallel)
}

/// Has what `parallel` says noted before a byte arrives at the client.
fn noted(world: &World, parallel: impl Fn() -> usize + Send + 'static) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(usize::MAX));
    let witness = Arc::clone(&seen);
    world.client.watch(move || witness.store(parallel(), Ordering::Relaxed));
    seen
}

#[test]
fn permit_is_free_before_the_last_byte_of_a_response_arrives() {
    let (mut world, parallel) = limited();
    let provider = world.network.lead_to();
    world.request(BODY);
    assert_eq!(parallel(), 2);
    let seen = noted(&world, parallel);
    provider.send(document("{}").as_bytes());
    world.run();
    assert_eq!((world.received(), seen.load(Ordering::Relaxed)), (relayed("{}"), 0));
}

#[test]
fn permit_is_free_before_a_refusal_arrives() {
    for body in [r#"{"model":"elsewhere/m"}"#, &large("elsewhere/m"), "{"] {
        let (mut world, parallel) = limited();
        let seen = noted(&world, parallel);
        world.request(body);
        assert!(world.received().starts_with("HTTP/1.1 40"));
        assert_eq!(seen.load(Ordering::Relaxed), 0, "{}", &body[..body.len().min(30)]);
    }
}
