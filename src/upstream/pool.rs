//! Idle connections to providers: the freshest one of a destination is used first, and one that is idle for too long is closed in
//! time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::link::Link;
use crate::front::Source;

/// The idle connections, the longest idle one first.
pub struct Pool {
    idle: Mutex<VecDeque<Idle>>,
    max: usize,
    expiry: Duration,
}

/// An idle connection.
struct Idle {
    since: Instant,
    /// The worker that watches it.
    worker: Option<usize>,
    connection: Connection,
}

/// A connection, TLS included.
pub struct Connection {
    pub link: Link,
    /// Its socket.
    pub source: Arc<Source>,
    /// Scheme, host and port.
    origin: Box<str>,
    /// The number of its connector, which stands for the proxy and the trusted authorities.
    connector: usize,
}

impl Connection {
    /// A new connection to `origin` by the connector of that number.
    pub fn new((link, source): (Link, Arc<Source>), origin: &str, connector: usize) -> Self {
        Self { link, source, origin: origin.into(), connector }
    }

    /// Whether a request for that destination may use it.
    fn leads_to(&self, origin: &str, connector: usize) -> bool {
        *self.origin == *origin && self.connector == connector
    }
}

impl Pool {
    /// A pool for at most `max` connections, each idle no longer than `expiry`.
    pub fn new(max: usize, expiry: Duration) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), max, expiry })
    }

    /// Closes connections that have been idle for too long.
    pub fn close_idle(&self) {
        let mut idle = self.lock();
        let fresh = idle.partition_point(|idle| idle.since.elapsed() >= self.expiry);
        let expired: Vec<_> = idle.drain(..fresh).collect();
        drop(idle);
        // Closed without the lock.
        drop(expired);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The freshest connection there that is still open, preferably one that `worker` watches already: to take
    /// another worker's costs two system calls.
    pub fn take(&self, origin: &str, connector: usize, worker: usize) -> Option<Connection> {
        loop {
            let mut idle = self.lock();
            let leads_there = |idle: &Idle| idle.connection.leads_to(origin, connector);
            let is_own = |idle: &Idle| idle.worker == Some(worker) && leads_there(idle);
            let at = idle.iter().rposition(is_own).or_else(|| idle.iter().rposition(leads_there))?;
            let mut found = idle.remove(at)?;
            drop(idle);
            if found.since.elapsed() < self.expiry && found.connection.link.is_open() {
                return Some(found.connection);
            }
        }
    }

    /// Keeps a connection. A full pool closes the one that has been idle longest,
    /// of any destination, so that a busy provider cannot keep all places.
    pub fn put(&self, connection: Connection) {
        if self.max == 0 {
            return;
        }
        let mut idle = self.lock();
        let evicted = if idle.len() >= self.max { idle.pop_front() } else { None };
        idle.push_back(Idle { since: Instant::now(), worker: connection.source.worker(), connection });
        drop(idle);
        // Closed without the lock.
        drop(evicted);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("idle", &self.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Connection, Pool};
    use crate::upstream::in_memory::Peer;

    /// A connection that its provider has closed.
    fn to(origin: &str) -> Connection {
        let peer = Peer::open();
        peer.end();
        Connection::new(peer.link(), origin, 0)
    }

    fn kept(pool: &Pool, origin: &str) -> usize {
        pool.lock().iter().filter(|idle| idle.connection.leads_to(origin, 0)).count()
    }

    #[test]
    fn a_full_pool_gives_up_the_longest_idle_connection_wherever_it_leads() {
        let pool = Pool::new(2, Duration::from_secs(60));
        for origin in ["a", "b", "b"] {
            pool.put(to(origin));
        }
        assert_eq!((kept(&pool, "a"), kept(&pool, "b"), pool.lock().len()), (0, 2, 2));
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be_and_nothing_longer_than_it_may() {
        let none = Pool::new(0, Duration::from_secs(60));
        none.put(to("a"));
        assert_eq!((kept(&none, "a"), none.lock().len()), (0, 0));
        let short = Pool::new(5, Duration::ZERO);
        short.put(to("a"));
        short.close_idle();
        assert_eq!((kept(&short, "a"), short.lock().len()), (0, 0));
    }

    #[test]
    fn a_closed_connection_is_not_given_out_nor_one_of_another_connector() {
        let pool = Pool::new(5, Duration::from_secs(60));
        pool.put(to("a"));
        assert!(pool.take("a", 1, 0).is_none());
        assert_eq!(pool.lock().len(), 1);
        assert!(pool.take("a", 0, 0).is_none());
        assert_eq!(pool.lock().len(), 0);
    }
}
