//! A socket that an answer comes from, as the front watches it.

use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::sys::Epoll;

/// A provider's socket. Its connection may serve one answer after the other.
#[derive(Debug)]
pub struct Source {
    stream: TcpStream,
    /// Where it is watched for an answer.
    watched: Mutex<Option<Arc<Epoll>>>,
}

impl Source {
    /// A socket that no answer waits for yet.
    pub fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream, watched: Mutex::default() })
    }

    /// No answer waits for it any more: what happens on it is nobody's. Has to be called before another may use it.
    pub fn release(&self) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(epoll) = watched {
            // Fails only where it was not watched.
            let _ = epoll.remove(&self.stream);
        }
    }

    /// An answer waits for it there.
    pub(super) fn watch(&self, epoll: &Arc<Epoll>) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(epoll));
    }
}

impl Deref for Source {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
