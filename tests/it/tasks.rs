//! The worker's turns: each task gets its share, and none more than another. The front is the real one; the
//! responses are the test's own.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ai_proxy::front::{
    Admission, Client as Socket, Done, Fields, Handled, Head, Io, Lane, Limits, Next, Notice, Peer,
    Rejection, Request, Responder, Response, Running, Service, Settings, Source, Task,
};

use crate::support::calls::get;
use crate::support::client::Client;
use crate::support::front::serve;
use crate::support::{eventually, tcp_pair};

/// The test's view of a response: the other end of its source, and the number of its turns.
struct Seen {
    feed: TcpStream,
    turns: Arc<AtomicUsize>,
}

impl Seen {
    fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    fn wait_turns(&self, count: usize) {
        let wanted = self.turns() + count;
        eventually("the response has its turns", || (self.turns() >= wanted).then_some(()));
    }
}

/// A response that always has more, and counts its turns.
struct Endless {
    response: Responder,
    client: Arc<Socket>,
    source: Arc<Source>,
    turns: Arc<AtomicUsize>,
    /// It counts only the turns in which its source is ready.
    waits: bool,
    is_watched: bool,
}

impl Task for Endless {
    fn client(&self) -> &Arc<Socket> {
        &self.client
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        if !std::mem::replace(&mut self.is_watched, true) {
            self.source.begin_request();
            io.watch(&self.source);
        }
        if self.waits {
            self.turns.fetch_add(usize::from(self.source.is_readable()), Ordering::SeqCst);
            self.source.drained(true);
            return Next::Park(self);
        }
        self.turns.fetch_add(1, Ordering::SeqCst);
        Next::Yield(self)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel(self: Box<Self>) -> Done {
        self.response.abort()
    }
}

/// Begins an endless response to every request.
#[derive(Default)]
struct Beginning {
    feeds: Mutex<Vec<Seen>>,
    /// From a source that cannot be watched.
    unwatched: bool,
}

impl Service for Beginning {
    type RequestContext = ();

    fn limits(&self) -> Limits {
        let time = Duration::from_secs(20);
        Limits { max_body: 1 << 20, client_timeout: time, idle_timeout: time, queue_timeout: time }
    }

    fn admit(&self, _: &mut Head, _: Peer) -> Admission<()> {
        Admission::Run(Lane::Worker, ())
    }

    fn handle(&self, _: Box<Request<()>>, mut responder: Responder) -> Handled {
        responder.begin(200, &Fields::default(), None);
        let client = Arc::clone(responder.client());
        let (source, feed) = tcp_pair();
        feed.set_nodelay(true).expect("nodelay");
        let source = if self.unwatched { unwatchable() } else { source };
        let turns = Arc::new(AtomicUsize::new(0));
        self.feeds.lock().expect("feeds").push(Seen { feed, turns: Arc::clone(&turns) });
        let waits = self.unwatched;
        Handled::Task(Box::new(Endless {
            response: responder,
            client,
            source,
            turns,
            waits,
            is_watched: false,
        }))
    }

    fn reject(&self, rejection: Rejection, _: Peer, _: Option<&Head>) -> Response {
        panic!("unexpected {rejection:?}")
    }

    fn notice(&self, notice: Notice) {
        panic!("unexpected {notice:?}")
    }
}

/// epoll refuses this source, as it refuses sockets when the kernel has no room for more of them.
fn unwatchable() -> Arc<Source> {
    let file = std::fs::File::open("/dev/null").expect("open");
    Source::new(std::os::fd::OwnedFd::from(file).into())
}

fn start(service: &Arc<Beginning>) -> (Running, SocketAddr) {
    serve(service, Settings { workers: 1, max_connections: 2, max_clients: 10 }, &Arc::default())
}

#[test]
fn response_whose_source_cannot_be_watched_is_polled() {
    let service = Arc::new(Beginning { unwatched: true, ..Beginning::default() });
    let (running, address) = start(&service);
    let mut client = Client::connect(address);
    client.send(get("/"));
    let feed = eventually("a response has begun", || service.feeds.lock().expect("feeds").pop());
    feed.wait_turns(3);
    drop(running);
}

#[test]
fn response_that_always_has_more_has_one_turn_an_event() {
    let service = Arc::new(Beginning::default());
    let (running, address) = start(&service);
    let begin = || {
        let mut client = Client::connect(address);
        client.send(get("/"));
        (eventually("a response has begun", || service.feeds.lock().expect("feeds").pop()), client)
    };
    let (quiet, _quiet_client) = begin();
    let (mut busy, _busy_client) = begin();
    for _ in 0..100 {
        busy.feed.write_all(b"x").expect("fed");
        // Its worker has an event for this byte, and another for the next one.
        busy.wait_turns(2);
    }
    let before = (quiet.turns(), busy.turns());
    quiet.wait_turns(100);
    let had = (quiet.turns() - before.0, busy.turns() - before.1);
    assert!(had.1 < 2 * had.0, "{} turns of the one while the other had {}", had.1, had.0);
    drop(running);
}
