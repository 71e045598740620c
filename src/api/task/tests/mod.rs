//! The stages on a network, a client and a clock in memory: no socket, no thread, no wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::config::load;
use crate::front::{
    Admission, Done, Handled, Head, Io, Job, Load, Next, Peer, Request, Responder, Service, Source, Task,
    in_memory,
};
use crate::gateway::Gateway;
use crate::limits::{QUICK_BODY, READ_CHUNK};
use crate::upstream::Upstream;
use crate::upstream::in_memory::{Network, Peer as Provider};

mod attempts;
mod bodies;
mod clients;
mod streams;

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

/// A body that a worker does not look at.
fn large(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "x".repeat(QUICK_BODY)}]}).to_string()
}
