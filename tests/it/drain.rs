//! The end of a front: the connections that it still serves. The front is the real one; the service is the
//! test's own.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ai_proxy::front::{
    Admission, Fields, Handled, Head, Limits, Notice, Peer, Rejection, Request, Responder, Response, Service,
    Settings,
};

use crate::support::DEADLINE;
use crate::support::calls::get;
use crate::support::client::Client;
use crate::support::front::serve;

/// Connections that wait when the drain begins: more than one turn accepts, and no more than one `epoll` wait
/// reports.
const WAITING: usize = 200;

/// Responds at once, but its front has no turn while the test holds the lock.
#[derive(Default)]
struct Held(Mutex<()>);

impl Service for Held {
    type RequestContext = ();

    fn limits(&self) -> Limits {
        drop(self.0.lock().expect("the lock"));
        Limits { max_body: 0, client_timeout: DEADLINE, idle_timeout: DEADLINE, queue_timeout: DEADLINE }
    }

    fn admit(&self, _: &mut Head, _: Peer) -> Admission<()> {
        Admission::Respond(Response { status: 200, fields: Fields::default(), body: Vec::new().into() })
    }

    fn handle(&self, _: Box<Request<()>>, _: Responder) -> Handled {
        unreachable!("each request has its response by its head")
    }

    fn reject(&self, rejection: Rejection, _: Peer, _: Option<&Head>) -> Response {
        panic!("unexpected {rejection:?}")
    }

    fn notice(&self, notice: Notice) {
        panic!("unexpected {notice:?}")
    }
}

#[test]
fn drain_handles_all_clients_that_connected_before_it() {
    let service = Arc::new(Held::default());
    let settings = Settings { workers: 2, max_connections: 1, max_clients: 2 * WAITING };
    let (running, address) = serve(&service, settings, &Arc::default());

    let turn = service.0.lock().expect("the lock");
    let mut clients: Vec<Client> = (0..WAITING).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    let drain = thread::spawn(move || running.drain(DEADLINE));
    // If the drain begins later than that, the test checks nothing and does not fail.
    thread::sleep(Duration::from_millis(100));
    drop(turn);
    for client in &mut clients {
        let response = client.response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    }
    // The drain does not wait for the clients to read on.
    drop(clients);
    assert_eq!(drain.join().expect("the drain"), 0);
}

#[test]
fn drain_handles_a_first_request_that_began_before_its_grace_was_over() {
    let service = Arc::new(Held::default());
    let settings = Settings { workers: 2, max_connections: 1, max_clients: 4 };
    let (running, address) = serve(&service, settings, &Arc::default());
    let (begun, rest) = (b"GET / HTTP/1.1\r\n".to_vec(), b"Host: x\r\n\r\n".to_vec());
    let mut idle: Vec<Client> = (0..2).map(|_| Client::connect(address)).collect();
    let mut slow: Vec<Client> = (0..2).map(|_| Client::connect(address)).collect();
    slow.iter_mut().for_each(|client| client.send(begun.clone()));
    let drain = thread::spawn(move || running.drain(DEADLINE));
    // The end of the grace closes the idle connections, on each worker.
    for client in &mut idle {
        assert!(client.rest().is_empty());
    }
    for client in &mut slow {
        client.send(rest.clone());
        let response = client.response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    }
    drop((idle, slow));
    assert_eq!(drain.join().expect("the drain"), 0);
}
