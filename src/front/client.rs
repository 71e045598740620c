//! The socket of a client.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

#[cfg(test)]
use super::in_memory::Peer;
use super::stats::Counted;
use super::sys;

/// The socket of a client, shared by every part that must notice when the client leaves.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// A byte of the current response has left.
    pub(super) started: AtomicBool,
    /// Counts the connection while it is open.
    pub(super) counted: Option<Counted>,
}

#[derive(Debug)]
enum Socket {
    System(OwnedFd),
    #[cfg(test)]
    Memory(Peer),
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self::on(Socket::System(socket))
    }

    /// A client of a unit test.
    #[cfg(test)]
    pub(super) fn in_memory(peer: Peer) -> Self {
        Self::on(Socket::Memory(peer))
    }

    fn on(socket: Socket) -> Self {
        Self { socket, started: AtomicBool::new(false), counted: None }
    }

    /// Writes what the client takes without waiting; returns 0 when it takes nothing now.
    pub(super) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.socket {
            Socket::System(socket) => sys::send_now(socket, parts),
            #[cfg(test)]
            Socket::Memory(peer) => peer.take(parts),
        }
    }

    /// Whether the client closed, half-closed or reset the connection.
    pub fn is_gone(&self) -> bool {
        match &self.socket {
            Socket::System(socket) => sys::is_gone(socket.as_fd()),
            #[cfg(test)]
            Socket::Memory(peer) => peer.is_gone(),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::System(socket) => socket.as_fd(),
            #[cfg(test)]
            Socket::Memory(_) => unreachable!("no worker watches a client in memory"),
        }
    }
}
