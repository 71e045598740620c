//! The socket of a client.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use super::stats::Counted;
use super::sys;

/// The socket of a client, shared with whoever must notice that the client went away.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// A byte of the answer to the request in hand has left.
    pub(super) started: AtomicBool,
    /// It is counted for as long as it is open.
    pub(super) counted: Option<Counted>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, started: AtomicBool::new(false), counted: None }
    }

    /// Whether the client closed, half-closed or reset the connection.
    pub fn is_gone(&self) -> bool {
        sys::is_gone(self.as_fd())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
