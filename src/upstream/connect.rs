//! A TCP connection to one of a name's addresses, according to RFC 8305: while one address is silent, the next is tried in
//! parallel, and the first that connects is used.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use ureq::Error;

use super::timeouts::Limit;
use crate::front::Want;
use crate::limits::{CONNECT_DELAY, CONNECT_TIMEOUT};

/// A non-blocking connection to the first of `addresses` that connects. Each is tried [`CONNECT_DELAY`] after the one before it,
/// or as soon as one has failed; all together have [`CONNECT_TIMEOUT`]. The other sockets are closed.
///
/// # Errors
/// The error of the last address where none connects; `TimedOut`: the time is over.
pub fn to_any(addresses: &[SocketAddr], limit: &Limit) -> Result<TcpStream, Error> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    match addresses {
        [] => Err(Error::HostNotFound),
        [address] => Ok(to_one(*address, deadline, limit)?),
        several => Ok(race(several, deadline, limit)?),
    }
}

fn to_one(address: SocketAddr, deadline: Instant, limit: &Limit) -> io::Result<TcpStream> {
    let socket = begin(address)?;
    match limit.wait(socket.as_fd(), Want::Write, Some(deadline))? {
        true => finish(socket),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn race(addresses: &[SocketAddr], deadline: Instant, limit: &Limit) -> io::Result<TcpStream> {
    let mut race = Race::new()?;
    let mut left = addresses.iter();
    let mut due = Instant::now();
    let mut last = io::ErrorKind::NotFound.into();
    loop {
        if Instant::now() >= due {
            match left.next().map(|address| race.start(*address)) {
                Some(Ok(())) => due = Instant::now() + CONNECT_DELAY,
                Some(Err(error)) => {
                    last = error;
                    continue;
                }
                None if race.is_over() => return Err(last),
                None => due = deadline,
            }
        }
        match race.wait(due.min(deadline), limit)? {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => {
                last = error;
                due = Instant::now();
            }
            None if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
            None => {}
        }
    }
}

/// Begins to connect a non-blocking socket.
fn begin(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The result for a socket that has become writable.
fn finish(socket: OwnedFd) -> io::Result<TcpStream> {
    rustix::net::sockopt::socket_error(&socket)??;
    Ok(TcpStream::from(socket))
}

/// Sockets that connect in parallel: at most one for each address of the name.
struct Race {
    /// `None`: it has failed.
    sockets: Vec<Option<OwnedFd>>,
    /// Reports them by their places.
    epoll: OwnedFd,
}

impl Race {
    fn new() -> io::Result<Self> {
        Ok(Self { sockets: Vec::new(), epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    fn start(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = begin(address)?;
        let place = epoll::EventData::new_u64(self.sockets.len() as u64);
        epoll::add(&self.epoll, &socket, place, epoll::EventFlags::OUT)?;
        self.sockets.push(Some(socket));
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.sockets.iter().all(Option::is_none)
    }

    /// The result for the first that is ready; `None` at `until`.
    fn wait(&mut self, until: Instant, limit: &Limit) -> io::Result<Option<io::Result<TcpStream>>> {
        if !limit.wait(self.epoll.as_fd(), Want::Read, Some(until))? {
            return Ok(None);
        }
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty];
        if epoll::wait(&self.epoll, &mut events[..], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
            return Ok(None);
        }
        // The structure is packed: its fields are copied, not borrowed.
        let place = usize::try_from({ events[0].data }.u64()).unwrap_or(usize::MAX);
        Ok(self.sockets.get_mut(place).and_then(Option::take).map(finish))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use ureq::Error;

    use super::to_any;
    use crate::limits::{CONNECT_DELAY, CONNECT_TIMEOUT};
    use crate::upstream::timeouts::Limit;

    /// An address that neither accepts nor refuses connections: its queue is full.
    struct BlackHole {
        address: SocketAddr,
        _held: (TcpListener, TcpStream),
    }

    impl BlackHole {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            rustix::net::listen(&listener, 0).expect("listen");
            let address = listener.local_addr().expect("an address");
            let held = TcpStream::connect(address).expect("the first has room");
            Self { address, _held: (listener, held) }
        }
    }

    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
    }

    fn peer(addresses: &[SocketAddr]) -> SocketAddr {
        to_any(addresses, &plenty()).expect("a connection").peer_addr().expect("a peer")
    }

    fn plenty() -> std::sync::Arc<Limit> {
        Limit::until(Instant::now() + 2 * CONNECT_TIMEOUT)
    }

    /// Where a good one listens.
    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    #[test]
    fn silent_address_gives_way_to_the_next_one() {
        let (holes, (_listener, good)) = ([BlackHole::new(), BlackHole::new()], listening());
        let begun = Instant::now();
        assert_eq!(peer(&[holes[0].address, holes[1].address, good]), good);
        assert!(begun.elapsed() >= 2 * CONNECT_DELAY && begun.elapsed() < CONNECT_TIMEOUT / 2);
        // A connected socket needs no wait.
        assert_eq!(peer(&[good, holes[0].address]), good);
        assert_eq!(peer(&[good]), good);
    }

    #[test]
    fn refused_address_gives_way_at_once() {
        let (hole, (_listener, good)) = (BlackHole::new(), listening());
        let mut addresses: Vec<SocketAddr> = (0..7).map(|_| refusing()).collect();
        addresses.push(good);
        let begun = Instant::now();
        assert_eq!(peer(&addresses), good);
        assert!(begun.elapsed() < 6 * CONNECT_DELAY, "{:?}", begun.elapsed());
        // Also while an earlier one is silent.
        assert_eq!(peer(&[hole.address, refusing(), good]), good);
    }

    #[test]
    fn refusal_of_all_addresses_is_an_error() {
        for addresses in [vec![refusing()], vec![refusing(), refusing(), refusing()]] {
            let error = to_any(&addresses, &plenty()).expect_err("nobody listens");
            assert!(
                matches!(&error, Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused),
                "{error}"
            );
        }
        assert!(matches!(to_any(&[], &plenty()), Err(Error::HostNotFound)));
    }

    #[test]
    fn call_that_runs_out_of_time_leaves_the_race() {
        let holes = [BlackHole::new(), BlackHole::new()];
        for count in [1, 2] {
            let addresses: Vec<SocketAddr> = holes[..count].iter().map(|hole| hole.address).collect();
            let limit = Limit::until(Instant::now() + CONNECT_DELAY + Duration::from_millis(50));
            let error = to_any(&addresses, &limit).expect_err("nobody takes it");
            assert!(matches!(&error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut), "{error}");
        }
    }
}
