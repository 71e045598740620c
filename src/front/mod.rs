//! The HTTP/1.1 front: sockets, framing, limits, deadlines and threads. It knows nothing of AI.
//!
//! An [`acceptor`] gives each connection to one of a fixed number of workers ([`worker`]). The worker owns
//! the connection until it closes, also while it waits: for a request, for a provider, for room to write. A
//! complete request acquires a permit ([`permits`]), and its worker handles it through the [`Service`]. A
//! part that blocks or takes long is a job for a thread of a fixed pool ([`helper`]), sent over a bounded
//! channel. So slow and idle clients and slow providers hold no thread, and overload shows in one place.

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

use std::fmt;
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
pub use task::{Io, Job, Next, Task};

/// Settings that stay fixed for the life of a front.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads that serve connections; at least 1.
    pub workers: usize,
    /// Requests handled at once over all workers, each until its response has ended; at least 1.
    pub max_connections: usize,
    /// Open connections; further ones get 503.
    pub max_clients: usize,
}

/// Settings that a reload may change.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body, bytes.
    pub max_body: usize,
    /// Time for a whole head, for each further [`crate::limits::BODY_STEP`] of body, and for each write.
    pub client_timeout: Duration,
    /// Longest silence of a connection without a request.
    pub idle_timeout: Duration,
    /// Longest wait of a complete request for a permit.
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

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
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

/// The threads that handle a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A worker: the handler neither blocks nor takes long.
    Worker,
    /// A few separate threads, for requests that may block and need a response even when no permit is free.
    Control,
}

/// Decision about a request by its head, before its body is read.
#[derive(Debug)]
pub enum Admission<T> {
    /// Sends this response at once; the body is not read.
    Respond(Response),
    /// Reads the body, then calls [`Service::handle`] with this context.
    Run(Lane, T),
}

/// Events for the operator, once each time one begins or ends.
#[derive(Debug)]
pub enum Notice {
    /// New connections cannot be accepted at the moment.
    AcceptFailed(io::Error),
    /// New connections are accepted again.
    AcceptResumed,
    /// The limit of open connections is met.
    TooManyClients(usize),
    /// A helper thread could not be started.
    ThreadRefused(io::Error),
    /// A handler panicked: where and why.
    Panicked(String),
}

/// Result of a handler.
pub enum Handled {
    /// The request has its response, or was cancelled.
    Done(Done),
    /// A request in flight, which its worker advances from now on.
    Task(Box<dyn Task>),
}

impl From<Done> for Handled {
    fn from(done: Done) -> Self {
        Self::Done(done)
    }
}

/// The application behind the front.
pub trait Service: Send + Sync + 'static {
    /// Data that admission passes to the handler.
    type RequestContext: Send + 'static;

    /// The limits in force. Called often, so it must be cheap.
    fn limits(&self) -> Limits;

    /// Decides about a request by its head alone, whose path it may replace. Runs on a worker: it must
    /// neither block nor take long.
    fn admit(&self, head: &mut Head, peer: Peer) -> Admission<Self::RequestContext>;

    /// Handles a request or begins to, on the request's lane. A panic costs only this request, which gets a
    /// 500.
    fn handle(&self, request: Box<Request<Self::RequestContext>>, responder: Responder) -> Handled;

    /// Logs a request that the front refuses, and returns the response to it; `head` is present when it was valid.
    fn reject(&self, rejection: Rejection, peer: Peer, head: Option<&Head>) -> Response;

    /// Logs an event for the operator.
    fn notice(&self, notice: Notice);
}

/// `now` plus `timeout`, saturating.
fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}
