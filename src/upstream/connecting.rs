//! Connections that a request waits for: a helper makes them, while the request stays with its worker.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, TryRecvError, sync_channel};
use std::time::Instant;

use ureq::http::Uri;

use super::connectors::Connector;
use super::pool::{Connection, Pool};
use super::timeouts::Limit;
use super::{Failure, Fault};
use crate::front::{Job, Load};

/// The destination of a request, and the connector for it.
pub struct Destination {
    /// Scheme, host and port.
    origin: Box<str>,
    connector: Arc<Connector>,
    pool: Arc<Pool>,
}

/// A connection that a helper makes. After a drop, the pool gets a connection that arrives later.
pub struct Connecting {
    made: Receiver<Result<Connection, Failure>>,
    limit: Arc<Limit>,
    pool: Arc<Pool>,
}

impl Destination {
    pub fn new(origin: &str, connector: Arc<Connector>, pool: &Arc<Pool>) -> Self {
        Self { origin: origin.into(), connector, pool: Arc::clone(pool) }
    }

    /// The pool of its connections.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// A new connection within the deadline: the job that makes it, and the place where it arrives.
    pub fn connect(&self, deadline: Instant, load: Arc<Load>) -> (Job, Connecting) {
        let (send, made) = sync_channel(1);
        let (limit, pool) = (Limit::of_helper(deadline, load), Arc::clone(&self.pool));
        let connecting = Connecting { made, limit: Arc::clone(&limit), pool: Arc::clone(&pool) };
        let (origin, connector) = (self.origin.clone(), Arc::clone(&self.connector));
        let job = move || {
            if limit.is_abandoned() {
                return;
            }
            let made = connect(&connector, &origin, &limit);
            if let Err(SendError(Ok(unwanted))) = send.send(made) {
                pool.put(unwanted);
            }
        };
        (Box::new(job), connecting)
    }
}

fn connect(connector: &Arc<Connector>, origin: &str, limit: &Arc<Limit>) -> Result<Connection, Failure> {
    let uri = origin.parse::<Uri>().map_err(|error| unreachable(error.to_string()))?;
    let made = connector.connect(&uri, limit).map_err(|error| unreachable(error.to_string()))?;
    Ok(Connection::new(made, origin, connector.number))
}

fn unreachable(detail: String) -> Failure {
    Failure { fault: Fault::Unreachable, detail }
}

impl Connecting {
    /// The connection; `None`: not yet.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn poll(&mut self) -> Result<Option<Connection>, Failure> {
        match self.made.try_recv() {
            Ok(made) => made.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            // The job has panicked, or was dropped.
            Err(TryRecvError::Disconnected) => Err(unreachable("no connection".to_owned())),
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.limit.abandon();
        if let Ok(Ok(connection)) = self.made.try_recv() {
            self.pool.put(connection);
        }
    }
}
