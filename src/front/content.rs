//! The content of a response: bytes of its own, or bytes that many responses share.

use std::ops::Deref;
use std::sync::Arc;

/// Bytes of a response body. A clone of shared ones copies nothing.
#[derive(Debug, Clone)]
pub enum Content {
    /// Bytes of this response alone.
    Owned(Vec<u8>),
    /// Bytes that several responses share; the service that makes them bounds them.
    Shared(Arc<[u8]>),
}

impl Content {
    /// Size of the bytes that this response alone holds.
    pub(super) fn owned(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.capacity(),
            Self::Shared(_) => 0,
        }
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}
