//! News for a worker from other threads. The first entry wakes the worker, which takes all of them in one
//! turn.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use super::client::Client;
use super::sys::Waker;
use super::{Handled, Lane, Peer};

/// News for a worker; bounded by the connections, the requests that wait for a permit, and the jobs.
pub struct Inbox {
    posts: Mutex<Vec<Post>>,
    waker: Waker,
}

/// An entry. Its tokens are those of the worker's own connections.
pub enum Post {
    /// A new connection; `true`: it only receives its refusal.
    Accepted(Client, Peer, bool),
    /// A queued request has its permit, with that number.
    Granted(Lane, u64, u64),
    /// A control thread has handled a request.
    Handled(u64, Handled),
    /// A task's job is done.
    Ran(u64),
}

impl Inbox {
    /// An empty inbox.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { posts: Mutex::default(), waker: Waker::new()? })
    }

    pub(super) fn post(&self, post: Post) {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = posts.is_empty();
        posts.push(post);
        drop(posts);
        if is_first {
            self.waker.wake();
        }
    }

    /// Wakes the worker.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Takes all entries. It clears the wake-up first, so that an entry from then on wakes the worker again.
    pub(super) fn take(&self) -> Vec<Post> {
        self.waker.clear();
        std::mem::take(&mut *self.posts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
