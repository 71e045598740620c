//! Wake-ups of a worker: none is lost, and none is without a reason.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ai_proxy::front::{
    Admission, Handled, Head, Lane, Limits, Notice, Peer, Rejection, Request, Responder, Response, Service,
    Settings, Stats,
};

use serde_json::json;

use crate::support::calls::{ask_streamed, event, get};
use crate::support::client::{Client, HEARTBEAT};
use crate::support::front::{by_job, response, serve};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;
use crate::support::{DEADLINE, eventually};

/// Time for an event on another thread. If it takes longer, the test checks nothing and does not fail.
const MOMENT: Duration = Duration::from_millis(30);

/// Reports each beginning, and ends when the test allows it: `/held` on the worker, the others on helpers.
struct Gated {
    /// Locked by the test: no turn begins.
    turn: Mutex<()>,
    begun: Sender<String>,
    gates: [(&'static str, Gate); 4],
}

impl Gated {
    fn new() -> (Arc<Self>, Receiver<String>) {
        let (begun, paths) = channel();
        let gates = ["/held", "/first", "/second", "/next"].map(|path| (path, Gate::new()));
        (Arc::new(Self { turn: Mutex::default(), begun, gates }), paths)
    }

    fn gate(&self, path: &str) -> &Gate {
        &self.gates.iter().find(|(of, _)| *of == path).expect("a gate").1
    }

    /// Makes the response of that path.
    fn make(&self, path: &str) -> impl FnOnce() -> Response + use<> {
        let (path, begun, gate) = (path.to_owned(), self.begun.clone(), self.gate(path).clone());
        move || {
            begun.send(path).expect("the path is received");
            assert!(gate.pass(DEADLINE), "it is let through");
            response(200, "")
        }
    }
}

impl Service for Gated {
    type RequestContext = ();

    fn limits(&self) -> Limits {
        if thread::current().name() == Some("worker") {
            drop(self.turn.lock().expect("the lock"));
        }
        Limits { max_body: 0, client_timeout: DEADLINE, idle_timeout: DEADLINE, queue_timeout: DEADLINE }
    }

    fn admit(&self, head: &mut Head, _: Peer) -> Admission<()> {
        if head.path() == "/held" {
            return Admission::Respond(self.make("/held")());
        }
        Admission::Run(Lane::Worker, ())
    }

    fn handle(&self, request: Box<Request<()>>, responder: Responder) -> Handled {
        by_job(responder, false, self.make(request.head.path()))
    }

    fn reject(&self, rejection: Rejection, _: Peer, _: Option<&Head>) -> Response {
        panic!("unexpected {rejection:?}")
    }

    fn notice(&self, notice: Notice) {
        panic!("unexpected {notice:?}")
    }
}

/// How long the second of two requests in the queue waits, when its permit is returned in the middle of a
/// turn, between taking an earlier one and the end of the wake-up for that.
fn wait_for_a_permit() -> Duration {
    let (service, begun) = Gated::new();
    let stats = Arc::<Stats>::default();
    let (running, address) =
        serve(&service, Settings { workers: 1, max_connections: 2, max_clients: 10 }, &stats);
    let send = |path: &str| {
        let mut client = Client::connect(address);
        client.send(get(path));
        client
    };
    let wait_for = |path: &str| while begun.recv_timeout(DEADLINE).expect("it begins") != path {};

    let mut held = Client::connect(address);
    let _first = send("/first");
    wait_for("/first");
    let _second = send("/second");
    wait_for("/second");
    let _waiting = [send("/next"), send("/next")];
    eventually("two wait", || (stats.queue_length() == 2).then_some(()));

    let turn = service.turn.lock().expect("the lock");
    let _begins_a_turn = Client::connect(address);
    thread::sleep(MOMENT);
    held.send(get("/held"));
    thread::sleep(MOMENT);
    service.gate("/first").open();
    thread::sleep(MOMENT);
    drop(turn);
    wait_for("/held");
    service.gate("/second").open();
    thread::sleep(MOMENT);
    let start = Instant::now();
    service.gate("/held").open();
    eventually("nobody waits", || (stats.queue_length() == 0).then_some(()));
    let waited = start.elapsed();

    service.gate("/next").open_for(2);
    drop(running);
    waited
}

#[test]
fn a_place_that_is_given_back_in_the_middle_of_a_turn_is_known_of_at_once() {
    let shortest = (0..5).map(|_| wait_for_a_permit()).min().expect("some rounds");
    // A worker that missed it would stay asleep.
    assert!(shortest < Duration::from_millis(100), "{shortest:?}");
}

#[test]
fn worker_with_silent_streams_and_idle_connections_wakes_at_their_deadlines_alone() {
    const SILENCE: Duration = Duration::from_secs(3);
    let upstream = Upstream::new(&["m"]);
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate));
    for (heartbeat, most) in [(0, 0), (1, 8)] {
        let changes = json!({"workers": 1, "stream_heartbeat": heartbeat});
        let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
        let mut idle: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
        idle.iter_mut().for_each(|client| assert_eq!(client.call(get("/")).status, 200));
        let mut clients = [proxy.client(), proxy.client()];
        let mut streams = clients.each_mut().map(|client| {
            client.send(ask_streamed("p1/m"));
            client.streamed()
        });
        streams.iter_mut().for_each(|stream| assert_eq!(stream.next_event(), Some(event("a"))));
        thread::sleep(Duration::from_millis(300));
        let before = proxy.sleeps_of_workers();
        thread::sleep(SILENCE);
        let sleeps = proxy.sleeps_of_workers() - before;
        // The process waits for nothing else; ten looks a second would make 30.
        assert!(sleeps <= most + 3, "{sleeps} times in {SILENCE:?} with a heartbeat of {heartbeat} s");
        if heartbeat > 0 {
            assert_eq!(streams[0].next_event().as_deref(), Some(HEARTBEAT));
        }
    }
    gate.open_for(4);
}
