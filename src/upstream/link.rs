//! The transport of a connection, which never waits after the connection is made.

use std::io::IoSlice;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::tls::TlsTransport;

/// A link to a provider.
pub enum Link {
    /// TLS on the socket, or on that of a proxy which relays every byte.
    Tls(Box<TlsTransport>),
    /// Without TLS, or with TLS in that of a proxy.
    Other(Box<dyn Transport>),
}

impl Link {
    /// The buffers with the input.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        match self {
            Self::Tls(tls) => tls.buffers(),
            Self::Other(transport) => transport.buffers(),
        }
    }

    /// Sends the output that waits, then reads the input at hand; `false` at the connection's end.
    ///
    /// # Errors
    /// `WouldBlock`: no more input yet. The connection has failed.
    pub fn await_input(&mut self) -> Result<bool, Error> {
        match self {
            Self::Tls(tls) => tls.await_input(),
            Self::Other(transport) => transport.await_input(NextTimeout::default()),
        }
    }

    /// Sends as many bytes of these parts as it can at once; returns how many.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        let transport = match self {
            Self::Tls(tls) => return Ok(tls.send(parts)?),
            Self::Other(transport) => transport,
        };
        let room = transport.buffers().output();
        let mut taken = 0;
        for part in parts {
            let count = part.len().min(room.len() - taken);
            room[taken..taken + count].copy_from_slice(&part[..count]);
            taken += count;
        }
        transport.transmit_output(taken, NextTimeout::default())?;
        Ok(taken)
    }

    /// Whether it can take another request.
    pub fn is_open(&mut self) -> bool {
        match self {
            Self::Tls(tls) => tls.is_open(),
            Self::Other(transport) => transport.is_open(),
        }
    }
}
