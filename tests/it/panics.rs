//! A handler that panics: its request gets a 500, and nothing else notices. The front is the real one; the handler is the
//! test's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ai_proxy::front::{
    Admission, Answer, Bound, Fields, Handled, Head, Lane, Limits, Listen, Notice, Peer, Rejection, Request,
    Responder, Running, Service, Settings, Stats,
};

use crate::support::calls::{get, post};
use crate::support::client::{Client, End};
use crate::support::eventually;
use crate::support::gate::Gate;

const WORKERS: usize = 2;

#[derive(Default)]
struct Panicking {
    told: Mutex<Vec<String>>,
    held: AtomicUsize,
    gate: Gate,
}

/// Counts the requests that are being handled, as permits do.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, fields: Fields::default(), body: body.as_bytes().to_vec() }
}

impl Service for Panicking {
    type Ticket = ();

    fn limits(&self) -> Limits {
        let time = Duration::from_secs(20);
        Limits { max_body: 1 << 20, client_timeout: time, idle_timeout: time, queue_timeout: time }
    }

    fn admit(&self, head: &Head, _: Peer) -> Admission<()> {
        let control = head.path().starts_with("/control");
        Admission::Run(if control { Lane::Control } else { Lane::Worker }, ())
    }

    fn handle(&self, request: Request<()>, responder: Responder) -> Handled {
        self.held.fetch_add(1, Ordering::SeqCst);
        let _held = Held(&self.held);
        match request.head.path() {
            "/index" | "/control/index" => panic!("byte {} of the body", request.body[request.body.len()]),
            "/begun" => {
                let mut stream = responder.stream(200, &Fields::default(), None);
                stream.push(b"half");
                stream.flush().expect("the client is there");
                panic!("in the middle");
            }
            "/gate" => {
                assert!(self.gate.pass(Duration::from_secs(20)), "never opened");
                responder.send(answer(200, "held")).into()
            }
            _ => responder.send(answer(200, "good")).into(),
        }
    }

    fn reject(&self, rejection: Rejection, _: Option<&Head>) -> Answer {
        assert_eq!(rejection, Rejection::Panicked);
        answer(500, "internal error")
    }

    fn notice(&self, notice: Notice) {
        let Notice::Panicked(reason) = notice else { panic!("unexpected {notice:?}") };
        self.told.lock().expect("told").push(reason);
    }
}

struct Front {
    service: Arc<Panicking>,
    stats: Arc<Stats>,
    running: Running,
    name: String,
}

impl Front {
    fn start() -> Front {
        let bound = Bound::new(&Listen::Tcp("127.0.0.1".to_owned(), 0)).expect("bind");
        let name = bound.names().remove(0);
        let (service, stats) = (Arc::new(Panicking::default()), Arc::new(Stats::default()));
        let settings = Settings { workers: WORKERS, max_clients: 100 };
        let running = bound.serve(Arc::clone(&service), settings, Arc::clone(&stats)).expect("serve");
        Front { service, stats, running, name }
    }

    fn client(&self) -> Client {
        Client::connect(self.name.trim_start_matches("http://").parse().expect("an address"))
    }
}

#[test]
fn a_panic_costs_its_request_a_500_and_nothing_else() {
    let front = Front::start();
    // In the hands of the other worker all the while.
    let mut bystander = front.client();
    bystander.send(get("/gate"));
    eventually("the bystander is handled", || (front.service.held.load(Ordering::SeqCst) == 1).then_some(()));
    let mut rounds = 0;
    for path in ["/index", "/control/index"] {
        // More than there are threads: none of them is lost.
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
    front.service.gate.open();
    assert_eq!(bystander.response().text(), "held");
    // On the same connection, and both workers at once.
    assert_eq!(bystander.call(get("/")).text(), "good");
    let mut both = [front.client(), front.client()];
    both.iter_mut().for_each(|client| client.send(get("/gate")));
    eventually("both are handled", || (front.service.held.load(Ordering::SeqCst) == WORKERS).then_some(()));
    front.service.gate.open_for(WORKERS);
    both.iter_mut().for_each(|client| assert_eq!(client.response().text(), "held"));

    let told = front.service.told.lock().expect("told").clone();
    assert_eq!(told.len(), rounds, "the operator hears of each");
    assert!(told.iter().all(|reason| reason.contains("index out of bounds")), "{told:?}");
    eventually("no worker is busy, nothing is queued", || {
        (front.stats.busy_workers() == 0 && front.stats.queue_length() == 0).then_some(())
    });
    drop((bystander, both));
    eventually("no connection is left", || (front.stats.clients() == 0).then_some(()));
    assert_eq!(front.running.drain(Duration::from_secs(20)), 0);
}

#[test]
fn a_panic_in_the_middle_of_an_answer_never_looks_like_its_end() {
    let front = Front::start();
    for _ in 0..WORKERS + 1 {
        let response = front.client().call(get("/begun"));
        assert_eq!((response.status, response.end), (200, End::Cut));
        assert_eq!(response.text(), "half");
    }
    assert_eq!(front.client().call(get("/")).text(), "good");
    assert_eq!(front.service.told.lock().expect("told").len(), WORKERS + 1);
}
