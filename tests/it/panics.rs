//! A handler that panics: only its own request is affected, and gets a 500. The front is the real one; the
//! handler is the test's own.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ai_proxy::front::{
    Admission, Client as Socket, Done, Fields, Handled, Head, Io, Lane, Limits, Next, Notice, Peer,
    Rejection, Request, Responder, Response, Running, Service, Settings, Source, Stats, Task,
};

use crate::support::calls::{get, post};
use crate::support::client::{Client, End};
use crate::support::front::{by_job, response, serve};
use crate::support::gate::Gate;
use crate::support::{eventually, tcp_pair};

const WORKERS: usize = 2;

#[derive(Default)]
struct Panicking {
    notices: Mutex<Vec<String>>,
    gate: Gate,
    /// The other end of each task's source.
    sources: Mutex<Vec<TcpStream>>,
}

/// A response that follows its source: `p` panics, `e` ends it, other bytes continue.
struct Scripted {
    response: Responder,
    client: Arc<Socket>,
    source: Arc<Source>,
}

impl Task for Scripted {
    fn client(&self) -> &Arc<Socket> {
        &self.client
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        io.watch(&self.source);
        let scratch = io.scratch();
        match std::io::Read::read(&mut &**self.source, scratch) {
            Ok(1..) if scratch[0] == b'p' => panic!("as told"),
            Ok(1..) if scratch[0] == b'e' => {
                self.response.push(b" and half");
                Next::Done(self.response.finish())
            }
            _ => Next::Park(self),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel(self: Box<Self>) -> Done {
        self.response.abort()
    }
}

impl Service for Panicking {
    type RequestContext = ();

    fn limits(&self) -> Limits {
        let time = Duration::from_secs(20);
        Limits { max_body: 1 << 20, client_timeout: time, idle_timeout: time, queue_timeout: time }
    }

    fn admit(&self, head: &mut Head, _: Peer) -> Admission<()> {
        let control = head.path().starts_with("/control");
        Admission::Run(if control { Lane::Control } else { Lane::Worker }, ())
    }

    fn handle(&self, request: Box<Request<()>>, mut responder: Responder) -> Handled {
        let is_control = request.head.path().starts_with("/control");
        assert_eq!(std::thread::current().name(), Some(if is_control { "control" } else { "worker" }));
        match request.head.path() {
            "/index" | "/control/index" => panic!("byte {} of the body", request.body[request.body.len()]),
            "/job/index" => by_job(responder, false, || panic!("index out of bounds, in a job")),
            "/alone/index" => by_job(responder, true, || panic!("index out of bounds, alone")),
            "/begun" | "/control/begun" => {
                responder.begin(200, &Fields::default(), None);
                responder.push(b"half");
                responder.flush(Instant::now()).expect("the client is there");
                panic!("in the middle");
            }
            "/ongoing" | "/control/ongoing" => {
                responder.begin(200, &Fields::default(), None);
                responder.push(b"half");
                responder.flush(Instant::now()).expect("the client is there");
                let (source, other_end) = tcp_pair();
                self.sources.lock().expect("sources").push(other_end);
                let client = Arc::clone(responder.client());
                Handled::Task(Box::new(Scripted { response: responder, client, source }))
            }
            "/gate" => {
                let gate = self.gate.clone();
                by_job(responder, false, move || {
                    assert!(gate.pass(Duration::from_secs(20)), "never opened");
                    response(200, "held")
                })
            }
            _ => responder.send(response(200, "good")).into(),
        }
    }

    fn reject(&self, rejection: Rejection, _: Peer, _: Option<&Head>) -> Response {
        assert_eq!(rejection, Rejection::Panicked);
        response(500, "internal error")
    }

    fn notice(&self, notice: Notice) {
        let Notice::Panicked(reason) = notice else { panic!("unexpected {notice:?}") };
        self.notices.lock().expect("written").push(reason);
    }
}

struct Front {
    service: Arc<Panicking>,
    stats: Arc<Stats>,
    running: Running,
    address: SocketAddr,
}

impl Front {
    fn start() -> Front {
        let (service, stats) = (Arc::new(Panicking::default()), Arc::new(Stats::default()));
        let (running, address) =
            serve(&service, Settings { workers: 2, max_connections: WORKERS, max_clients: 100 }, &stats);
        Front { service, stats, running, address }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }
}

#[test]
fn a_panic_costs_its_request_a_500_and_nothing_else() {
    let front = Front::start();
    // A helper works on it the whole time.
    let mut bystander = front.client();
    bystander.send(get("/gate"));
    eventually("the bystander is handled", || (front.stats.busy() == 1).then_some(()));
    let mut rounds = 0;
    for path in ["/index", "/control/index"] {
        // More panics than threads: none of the threads is lost.
        for _ in 0..20 {
            let mut client = front.client();
            let response = client.call(post(path, &[], "body"));
            assert_eq!((response.status, response.text().as_str()), (500, "internal error"));
            assert_eq!(response.header("connection"), Some("close"));
            assert!(client.is_closed());
            assert_eq!(front.client().call(get("/")).text(), "good");
            rounds += 1;
        }
    }
    // A task survives the panic of its job.
    for path in ["/job/index", "/alone/index"] {
        for _ in 0..20 {
            let mut client = front.client();
            let response = client.call(get(path));
            assert_eq!((response.status, response.text().as_str()), (500, "no output"));
            assert_eq!(client.call(get("/")).text(), "good");
            rounds += 1;
        }
    }
    front.service.gate.open();
    assert_eq!(bystander.response().text(), "held");
    // On the same connection, and both workers at once.
    assert_eq!(bystander.call(get("/")).text(), "good");
    let mut both = [front.client(), front.client()];
    both.iter_mut().for_each(|client| client.send(get("/gate")));
    eventually("both are handled", || (front.stats.busy() == WORKERS).then_some(()));
    front.service.gate.open_for(WORKERS);
    both.iter_mut().for_each(|client| assert_eq!(client.response().text(), "held"));

    let notices = front.service.notices.lock().expect("written").clone();
    assert_eq!(notices.len(), rounds, "the operator hears of each");
    assert!(notices.iter().all(|reason| reason.contains("index out of bounds")), "{notices:?}");
    eventually("no worker is busy, nothing is queued", || {
        (front.stats.busy() == 0 && front.stats.queue_length() == 0).then_some(())
    });
    drop((bystander, both));
    eventually("no connection is left", || (front.stats.clients() == 0).then_some(()));
    assert_eq!(front.running.drain(Duration::from_secs(20)), 0);
}

#[test]
fn panic_in_the_middle_of_a_response_never_looks_like_its_end() {
    let front = Front::start();
    for path in ["/begun", "/control/begun"] {
        for _ in 0..WORKERS + 1 {
            let response = front.client().call(get(path));
            assert_eq!((response.status, response.end), (200, End::Cut));
            assert_eq!(response.text(), "half");
        }
    }
    assert_eq!(front.client().call(get("/")).text(), "good");
    assert_eq!(front.service.notices.lock().expect("written").len(), 2 * (WORKERS + 1));
}

/// A request whose job is still running keeps its permit, and its worker handles others.
#[test]
fn job_that_has_to_wait_holds_a_permit_and_never_a_worker() {
    let front = Front::start();
    let mut waiting: Vec<Client> = (0..WORKERS).map(|_| front.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(get("/gate")));
    eventually("both wait", || (front.stats.busy() == WORKERS).then_some(()));
    // No permit is free: another request waits for one, and control requests do not.
    let mut queued = front.client();
    queued.send(get("/good"));
    eventually("it is queued", || (front.stats.queue_length() == 1).then_some(()));
    assert_eq!(front.client().call(get("/control")).text(), "good");
    front.service.gate.open_for(1);
    assert_eq!(queued.response().text(), "good");
    front.service.gate.open_for(WORKERS - 1);
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().text(), "held"));
    // A client that leaves frees its permit, even while its job runs.
    let mut leaving: Vec<Client> = (0..WORKERS).map(|_| front.client()).collect();
    leaving.iter_mut().for_each(|client| client.send(get("/gate")));
    eventually("both wait", || (front.stats.busy() == WORKERS).then_some(()));
    drop(leaving);
    eventually("no permit is taken", || (front.stats.busy() == 0).then_some(()));
    assert_eq!(front.client().call(get("/good")).text(), "good");
    front.service.gate.open_for(WORKERS);
}

/// Many requests in one write: each gets its response, in order, and others get theirs meanwhile.
#[test]
fn pipelined_requests_get_responses_in_order_without_a_helper() {
    const MANY: usize = 500;
    let front = Front::start();
    let mut client = front.client();
    client.send(get("/good").repeat(MANY));
    assert_eq!(front.client().call(get("/good")).text(), "good");
    for _ in 0..MANY {
        assert_eq!(client.response().text(), "good");
    }
    assert_eq!(client.call(get("/good")).text(), "good", "nothing is left over");
}

#[test]
fn panic_in_a_task_costs_that_response_alone() {
    let front = Front::start();
    let mut bystander = front.client();
    bystander.send(get("/ongoing"));
    let fed = || front.service.sources.lock().expect("sources").pop();
    let mut source = eventually("the bystander's response continues", fed);
    let rounds = 2 * (WORKERS + 1);
    for round in 0..rounds {
        let mut client = front.client();
        client.send(get(["/ongoing", "/control/ongoing"][round % 2]));
        eventually("a response continues", fed).write_all(b"p").expect("written");
        let response = client.response();
        assert_eq!((response.status, response.end, response.text().as_str()), (200, End::Cut, "half"));
    }
    // A client that leaves frees its permit, and so do the responses that panicked.
    let mut leaving = front.client();
    leaving.send(get("/ongoing"));
    eventually("a response continues", fed);
    leaving.leave();
    eventually("one response is left", || (front.stats.busy() == 1).then_some(()));
    source.write_all(b"e").expect("written");
    assert_eq!(bystander.response().text(), "half and half");
    assert_eq!(bystander.call(get("/")).text(), "good");
    assert_eq!(front.service.notices.lock().expect("written").len(), rounds);
}
