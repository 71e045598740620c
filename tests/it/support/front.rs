//! The front alone, in this process, with a service of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Instant;

use ai_proxy::front::{
    Bound, Client, Done, Fields, Handled, Io, Job, Listen, Next, Responder, Response, Running, Service,
    Settings, Stats, Task,
};

/// Serves on a free port. Returns its address.
pub fn serve<S: Service>(service: &Arc<S>, settings: Settings, stats: &Arc<Stats>) -> (Running, SocketAddr) {
    let bound = Bound::new(&Listen::Tcp("127.0.0.1".to_owned(), 0)).expect("bind");
    let name = bound.names().remove(0);
    let running = bound.serve(Arc::clone(service), settings, Arc::clone(stats)).expect("serve");
    (running, name.strip_prefix("http://").expect("a URL").parse().expect("an address"))
}

/// A response of that status and body.
pub fn response(status: u16, body: &str) -> Response {
    Response { status, fields: Fields::default(), body: body.as_bytes().to_vec().into() }
}

/// A request whose response a helper makes.
struct ByJob {
    responder: Responder,
    job: Option<Job>,
    made: Receiver<Response>,
    is_alone: bool,
}

/// Makes the response on a helper; 500 if that panics. `is_alone`: one of its kind runs at a time.
pub fn by_job(
    responder: Responder,
    is_alone: bool,
    make: impl FnOnce() -> Response + Send + 'static,
) -> Handled {
    let (send, made) = sync_channel(1);
    // Without a receiver the client has left.
    let job = move || drop(send.send(make()));
    Handled::Task(Box::new(ByJob { responder, job: Some(Box::new(job)), made, is_alone }))
}

impl Task for ByJob {
    fn client(&self) -> &Arc<Client> {
        self.responder.client()
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        if let Some(job) = self.job.take() {
            assert!(if self.is_alone { io.spawn_alone(job) } else { io.spawn(job) });
        }
        match self.made.try_recv() {
            Ok(made) => Next::Done(self.responder.send(made)),
            Err(TryRecvError::Empty) => Next::Park(self),
            Err(TryRecvError::Disconnected) => Next::Done(self.responder.send(response(500, "no output"))),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn cancel(self: Box<Self>) -> Done {
        self.responder.abort()
    }
}
