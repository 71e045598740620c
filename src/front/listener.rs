//! Binding and accepting.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, getsockname,
    listen, socket_with, sockopt,
};

use super::Peer;
use crate::core::sort::sort_by;
use crate::limits::{BACKLOG, PORT_TRIES};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A host name or address and a port; every address of the name is bound. Port 0 picks a free one, the
    /// same for all.
    Tcp(String, u16),
    /// Path of a Unix socket; the stale socket of a killed process is replaced.
    Unix(PathBuf),
}

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// From another process, which also removes it.
    Inherited(String),
}

impl Listener {
    /// Takes over a socket that already listens.
    ///
    /// # Errors
    /// The socket is no listening stream socket.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        if !sockopt::socket_acceptconn(&socket)? || sockopt::socket_type(&socket)? != SocketType::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        let address = getsockname(&socket)?;
        let name = match SocketAddr::try_from(address.clone()) {
            Ok(address) => {
                sockopt::set_tcp_nodelay(&socket, true)?;
                format!("http://{address}")
            }
            Err(_) => {
                let path = SocketAddrUnix::try_from(address)?;
                format!("unix:{}", String::from_utf8_lossy(path.path_bytes().unwrap_or_default()))
            }
        };
        Ok(Self { socket, place: Place::Inherited(name) })
    }

    /// Binds everything `listen` names.
    ///
    /// # Errors
    /// The name does not resolve; an address is taken or not ours; `AddrInUse` names the address.
    pub fn bind(listen: &Listen) -> io::Result<Vec<Self>> {
        match listen {
            Listen::Unix(path) => Ok(vec![bind_unix(path)?]),
            Listen::Tcp(host, port) => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let mut addresses: Vec<SocketAddr> = (bare, *port)
                    .to_socket_addrs()
                    .map_err(|error| io::Error::new(error.kind(), format!("{host}: {error}")))?
                    .collect();
                sort_by(&mut addresses, Ord::cmp);
                addresses.dedup();
                bind_all(&addresses)
            }
        }
    }

    /// Its name for people: `http://127.0.0.1:8080`, `unix:/run/ai-proxy.sock`.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
            Place::Inherited(name) => name.clone(),
        }
    }

    /// Accepts a waiting connection; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let (socket, address) = acceptfrom_with(&self.socket, SocketFlags::CLOEXEC)?;
        let peer = match address.map(SocketAddr::try_from) {
            Some(Ok(address)) => Peer::Ip(canonical(address.ip())),
            _ => Peer::Unix,
        };
        Ok((socket, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Unix(path) = &self.place {
            // An operator may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<Listener>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for _ in 0..PORT_TRIES {
        let mut bound: Vec<Listener> = Vec::new();
        let mut port = None;
        for &address in addresses {
            let wanted = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
            match bind_tcp(wanted) {
                Ok(listener) => {
                    if let Place::Tcp(address) = listener.place {
                        port = Some(address.port());
                    }
                    bound.push(listener);
                }
                Err(error) => {
                    last = io::Error::new(error.kind(), format!("{wanted}: {error}"));
                    // Without IPv6 `localhost` may still resolve to ::1.
                    if !is_missing_family(&error) {
                        bound.clear();
                        break;
                    }
                }
            }
        }
        if !bound.is_empty() {
            return Ok(bound);
        }
        if addresses.iter().all(|address| address.port() != 0) {
            break;
        }
    }
    Err(last)
}

fn is_missing_family(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit it on Linux, which saves a call for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok(Listener { socket, place: Place::Tcp(bound) })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("unix:{}: {error}", path.display()));
    let address = SocketAddrUnix::new(path).map_err(|error| named(error.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) if is_stale(path) => {
            std::fs::remove_file(path).map_err(named)?;
            bind(&socket, &address).map_err(|error| named(error.into()))?;
        }
        other => other.map_err(|error| named(error.into()))?,
    }
    listen(&socket, BACKLOG)?;
    Ok(Listener { socket, place: Place::Unix(path.to_owned()) })
}

/// Whether `path` is a socket without a listener.
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = matches!(
        std::os::unix::net::UnixStream::connect(path),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused
    );
    is_socket && refused
}

/// Reads and drops what a refused client has sent, so that closing does not reset the connection before the
/// client reads the response.
pub fn discard_input(socket: impl AsFd) {
    let mut bytes = [0u8; 4096];
    let _ = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT);
}
