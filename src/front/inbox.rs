//! What other threads have for a worker: it is woken for the first piece, and takes all of them in one turn.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use super::client::Client;
use super::sys::Waker;
use super::{Handled, Lane, Peer};

/// What others have for a worker. There is no more of it than there are connections, requests that wait for a permit, and jobs.
pub struct Inbox {
    posts: Mutex<Vec<Post>>,
    waker: Waker,
}

/// A piece of news for a worker. Tokens are of its own connections.
pub enum Post {
    /// A new connection; `true`: it only gets the response that refuses it.
    Accepted(Client, Peer, bool),
    /// A request that waits has its permit, of that number.
    Granted(Lane, u64, u64),
    /// A control thread has handled a request.
    Handled(u64, Handled),
    /// A task's job is done.
    Ran(u64),
}

impl Inbox {
    /// An empty one.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { posts: Mutex::default(), waker: Waker::new()? })
    }

    /// Puts something in.
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

    /// Takes what is here. The wake-up is taken back first: what comes from here on wakes the worker again.
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
