//! The HTTP/1.1 front: sockets, framing, limits, deadlines and threads. It knows nothing of AI.
//!
//! An [`acceptor`] hands each connection to one of a fixed number of workers ([`worker`]), which owns it from its first byte to
//! its last: while it waits for a request, for its response's source, for room to write, for its end. A request that is whole
//! takes a permit ([`permits`]) and is handled on its worker through the [`Service`]; what of it waits or takes long is a job for a
//! thread of a fixed pool ([`helper`]), to which it goes over a bounded channel. So slow and idle clients and slow providers hold
//! no thread, and overload has one place.

mod acceptor;
mod client;
mod client_stream;
mod conn;
mod content;
mod helper;
#[cfg(test)]
pub mod in_memory;
mod inbox;
mod incoming;
mod listener;
mod load;
mod permits;
mod places;
mod response;
mod running;
mod shared;
mod source;
mod stats;
mod sys;
mod table;
mod task;
mod timers;
mod worker;

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use crate::core::Rejection;
pub use crate::core::fields::Fields;
pub use crate::core::request_head::Head;
pub use acceptor::places_to_refuse;
pub use client::Client;
pub use content::Content;
pub use incoming::Request;
pub use listener::Listen;
pub use load::Load;
pub use response::{Done, Responder, Response};
pub use running::{Bound, Pulse, Running};
pub use source::Source;
pub use stats::Stats;
pub use sys::{Want, wait_for_peer};
pub use task::{Computation, Io, Job, Next, Task};

/// What is fixed for the life of a front.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads that serve connections: 1 or more.
    pub workers: usize,
    /// Requests that are handled at once, from their beginning to the end of their responses, over all workers: 1 or more.
    pub max_connections: usize,
    /// Open connections; above it new ones get 503.
    pub max_clients: usize,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body, bytes.
    pub max_body: usize,
    /// For a whole head, for each further [`crate::limits::BODY_STEP`] of body, for each write.
    pub client_timeout: Duration,
    /// For a connection on which nothing happens.
    pub idle_timeout: Duration,
    /// For a whole request to get a permit.
    pub queue_timeout: Duration,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address (IPv4-mapped ones as IPv4).
    Ip(IpAddr),
    /// Over the Unix socket.
    Unix,
}

impl Peer {
    /// Whether the peer is on this machine.
    pub fn is_local(self) -> bool {
        match self {
            Self::Ip(address) => address.is_loopback(),
            Self::Unix => true,
        }
    }
}

/// Which threads handle a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A worker, which it keeps neither waiting nor busy for long.
    Worker,
    /// A few threads of their own, for requests that may wait and need a response even when no permit is free.
    Control,
}

/// What becomes of a request once its head is known, before its body is read.
#[derive(Debug)]
pub enum Admission<T> {
    /// It gets this response now; its body is not read.
    Respond(Response),
    /// Its body is read, then [`Service::handle`] gets it with this context.
    Run(Lane, T),
}

/// What an operator should hear of, once each time it begins or ends.
#[derive(Debug)]
pub enum Notice {
    /// New connections cannot be accepted for now.
    AcceptFailed(io::Error),
    /// They can again.
    AcceptResumed,
    /// The limit of open connections is met.
    TooManyClients(usize),
    /// A helper thread could not be started.
    ThreadRefused(io::Error),
    /// A handler panicked: where and why.
    Panicked(String),
}

/// What a handler leaves behind.
pub enum Handled {
    /// The request has its response, or was cancelled.
    Done(Done),
    /// A request under way, which its worker advances from here on.
    Task(Box<dyn Task>),
}

impl From<Done> for Handled {
    fn from(done: Done) -> Self {
        Self::Done(done)
    }
}

/// What the front serves.
pub trait Service: Send + Sync + 'static {
    /// What admission found out about a request, for its handler.
    type RequestContext: Send + 'static;

    /// The limits in force; asked for often, must be cheap.
    fn limits(&self) -> Limits;

    /// Decides about a request by its head alone, whose path it may replace. Runs on a worker: it must neither wait nor
    /// take long.
    fn admit(&self, head: &mut Head, peer: Peer) -> Admission<Self::RequestContext>;

    /// Handles a request, or begins to: on its worker, where that is its lane. A panic costs this request a 500 and nothing else.
    fn handle(&self, request: Box<Request<Self::RequestContext>>, responder: Responder) -> Handled;

    /// The response to a request that the front refuses; `head` is there when it was valid.
    fn reject(&self, rejection: Rejection, head: Option<&Head>) -> Response;

    /// Tells the operator.
    fn notice(&self, notice: Notice);
}

/// `now` plus `timeout`, also where the sum does not exist.
fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}
