//! What a connection is written to and read from, which does not wait once the connection stands.

use std::io::IoSlice;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::tls::TlsTransport;

/// A link to a provider.
pub enum Link {
    /// TLS on its socket, or on a proxy's that passes every byte.
    Tls(Box<TlsTransport>),
    /// Without TLS, or with TLS in that of a proxy.
    Other(Box<dyn Transport>),
}

impl Link {
    /// What has come.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        match self {
            Self::Tls(tls) => tls.buffers(),
            Self::Other(transport) => transport.buffers(),
        }
    }

    /// Sends what has to leave, then takes what has come; `false` at its end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing more has come. What the connection failed with.
    pub fn await_input(&mut self) -> Result<bool, Error> {
        match self {
            Self::Tls(tls) => tls.await_input(),
            Self::Other(transport) => transport.await_input(NextTimeout::default()),
        }
    }

    /// Takes as many bytes of these parts as it can at once; how many.
    ///
    /// # Errors
    /// What the connection failed with.
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
