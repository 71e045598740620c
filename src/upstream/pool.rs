//! Idle upstream connections: our own pool around ureq's connectors.
//!
//! ureq's pool takes one lock for a look at every idle connection on each request, gives out the one that was idle
//! longest, and looks at ages on use alone. Here a connection is found by its destination, the freshest first, and
//! what has been idle too long is closed in time. ureq's own pool stays empty: a connection that it would put there is
//! taken out of it by [`Kept::is_open`], the question ureq asks before.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::http::uri::Authority;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::wait;

/// A connector that keeps what its inner connector has made for the next call to the same destination.
pub struct PoolingConnector<C> {
    inner: C,
    way: usize,
    pool: Arc<Pool>,
}

/// The idle connections, the longest idle first.
pub struct Pool {
    idle: Mutex<VecDeque<Idle>>,
    max: usize,
    expiry: Duration,
}

/// An idle connection.
struct Idle {
    destination: Destination,
    since: Instant,
    transport: Box<dyn Transport>,
}

/// What makes two connections exchangeable.
#[derive(Clone, PartialEq, Eq)]
struct Destination {
    tls: bool,
    authority: Authority,
    /// The number of the way there: by which proxy, and who vouches for the other end.
    way: usize,
}

impl Pool {
    /// A pool for at most `max` connections, each idle no longer than `expiry`.
    pub fn new(max: usize, expiry: Duration) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), max, expiry })
    }

    /// Connects through `inner` where no idle connection fits; `way` numbers what `inner` goes by.
    pub fn around<C>(self: &Arc<Self>, inner: C, way: usize) -> PoolingConnector<C> {
        PoolingConnector { inner, way, pool: Arc::clone(self) }
    }

    /// Closes what has been idle too long.
    pub fn close_idle(&self) {
        let mut idle = self.lock();
        let fresh = idle.partition_point(|connection| connection.since.elapsed() >= self.expiry);
        let expired: Vec<_> = idle.drain(..fresh).collect();
        drop(idle);
        // Closed without the lock.
        drop(expired);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The freshest connection there that is still open.
    fn take(&self, destination: &Destination) -> Option<Box<dyn Transport>> {
        loop {
            let mut idle = self.lock();
            let at = idle.iter().rposition(|connection| connection.destination == *destination)?;
            let mut found = idle.remove(at)?;
            drop(idle);
            if found.since.elapsed() < self.expiry && found.transport.is_open() {
                return Some(found.transport);
            }
        }
    }

    /// Keeps a connection; where there are as many as there may be, the one that has been idle longest makes room,
    /// wherever it leads: a busy provider must not take all places for good.
    fn put(&self, destination: Destination, transport: Box<dyn Transport>) {
        if self.max == 0 {
            return;
        }
        let mut idle = self.lock();
        let evicted = if idle.len() >= self.max { idle.pop_front() } else { None };
        idle.push_back(Idle { destination, since: Instant::now(), transport });
        drop(idle);
        // Closed without the lock.
        drop(evicted);
    }
}

impl<C: Connector> Connector for PoolingConnector<C> {
    type Out = Kept;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Kept>, Error> {
        let facts = wait::facts();
        // ureq connects once more inside a connect, to the HTTP proxy itself: that one belongs to the outer one.
        let nested = facts.proxied && details.config.proxy().is_none();
        let destination = if nested { None } else { self.destination(details) };
        if let Some(destination) = destination.as_ref().filter(|_| !facts.fresh)
            && let Some(transport) = self.pool.take(destination)
        {
            wait::note(|facts| facts.reused = true);
            return Ok(Some(Kept::new(transport, &self.pool, Some(destination.clone()))));
        }
        let Some(transport) = self.inner.connect(details, None)? else { return Ok(None) };
        if !nested {
            wait::note(|facts| facts.connected = true);
        }
        Ok(Some(Kept::new(Box::new(transport), &self.pool, destination)))
    }
}

impl<C> PoolingConnector<C> {
    fn destination(&self, details: &ConnectionDetails<'_>) -> Option<Destination> {
        let authority = details.uri.authority()?.clone();
        Some(Destination { tls: details.needs_tls(), authority, way: self.way })
    }
}

/// A connection that goes back to its pool when ureq is done with it.
pub struct Kept {
    transport: Box<dyn Transport>,
    home: Option<(Arc<Pool>, Destination)>,
}

impl Kept {
    fn new(transport: Box<dyn Transport>, pool: &Arc<Pool>, destination: Option<Destination>) -> Self {
        Self { transport, home: destination.map(|destination| (Arc::clone(pool), destination)) }
    }
}

impl Transport for Kept {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let came = self.transport.await_input(timeout)?;
        if self.home.is_some() {
            wait::note(|facts| if came { facts.answered = true } else { facts.ended_cleanly = true });
        }
        Ok(came)
    }

    /// ureq asks this behind an answer whose end it has read, to keep the connection. It is kept here instead; what
    /// ureq is left with is closed.
    fn is_open(&mut self) -> bool {
        match self.home.take() {
            None => self.transport.is_open(),
            Some((pool, destination)) => {
                let transport =
                    std::mem::replace(&mut self.transport, Box::new(Gone(LazyBuffers::new(1, 1))));
                wait::done_with_socket();
                pool.put(destination, transport);
                false
            }
        }
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

/// What is left of a connection that went to the pool.
#[derive(Debug)]
struct Gone(LazyBuffers);

impl Transport for Gone {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.0
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
        Err(Error::ConnectionFailed)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        Err(Error::ConnectionFailed)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("idle", &self.lock().len()).finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for PoolingConnector<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PoolingConnector").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kept").field("transport", &self.transport).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ureq::unversioned::transport::{LazyBuffers, Transport};

    use super::{Destination, Gone, Pool};

    fn to(host: &'static str) -> Destination {
        Destination { tls: false, authority: ureq::http::uri::Authority::from_static(host), way: 0 }
    }

    fn connection() -> Box<dyn Transport> {
        Box::new(Gone(LazyBuffers::new(1, 1)))
    }

    fn kept(pool: &Pool, host: &'static str) -> usize {
        pool.lock().iter().filter(|connection| connection.destination == to(host)).count()
    }

    #[test]
    fn a_full_pool_gives_up_the_longest_idle_connection_wherever_it_leads() {
        let pool = Pool::new(2, Duration::from_secs(60));
        for host in ["a", "b", "b"] {
            pool.put(to(host), connection());
        }
        assert_eq!((kept(&pool, "a"), kept(&pool, "b"), pool.lock().len()), (0, 2, 2));
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be_and_nothing_longer_than_it_may() {
        let none = Pool::new(0, Duration::from_secs(60));
        none.put(to("a"), connection());
        assert_eq!((kept(&none, "a"), none.lock().len()), (0, 0));
        let short = Pool::new(5, Duration::ZERO);
        short.put(to("a"), connection());
        short.close_idle();
        assert_eq!((kept(&short, "a"), short.lock().len()), (0, 0));
    }

    #[test]
    fn a_closed_connection_is_not_given_out() {
        let pool = Pool::new(5, Duration::from_secs(60));
        pool.put(to("a"), connection());
        assert!(pool.take(&to("a")).is_none());
        assert_eq!(pool.lock().len(), 0);
    }
}
