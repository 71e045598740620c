//! TLS to a provider by rustls, over an existing transport. It encrypts a request in place, at most a turn's bound at a time, and the
//! socket takes the records without another copy; ureq's own TLS would copy each byte three times more.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::config::CaFile;
use crate::front::Source;
use crate::limits::{MAX_ENCRYPTED, UPSTREAM_READ_BUFFER};

/// A TLS connection. It blocks only during its handshake.
pub struct TlsTransport {
    session: ClientConnection,
    /// The source of the input. Records leave by `socket`, not by this.
    below: TransportAdapter,
    socket: Arc<Source>,
    buffers: LazyBuffers,
}

/// A configuration with trust in those authorities alone, or in the public ones.
///
/// # Errors
/// rustls lacks its own default versions of TLS.
pub fn config(ca_file: Option<&CaFile>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        // The loader of the configuration has checked each certificate.
        Some(ca) => {
            roots.add_parsable_certificates(ca.certificates.iter().map(|der| CertificateDer::from(&der[..])));
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl TlsTransport {
    /// Makes TLS over `below`, which relays the bytes of `socket` unchanged. Blocks as long as the details allow.
    ///
    /// # Errors
    /// The certificate of the other end is not trusted, or the connection cannot be made.
    pub fn connect(
        config: Arc<ClientConfig>,
        details: &ConnectionDetails<'_>,
        below: Box<dyn Transport>,
        socket: Arc<Source>,
    ) -> Result<Self, Error> {
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host).map_err(|_| Error::Tls("no name of a server"))?.to_owned();
        let mut session = ClientConnection::new(config, name)?;
        session.set_buffer_limit(Some(MAX_ENCRYPTED));
        let mut below = TransportAdapter::new(below, Arc::clone(&details.current_time));
        below.set_timeout(details.timeout);
        let mut tls = Self { session, below, socket, buffers: LazyBuffers::new(UPSTREAM_READ_BUFFER, 1) };
        // The last message of the handshake leaves with the request.
        while tls.session.is_handshaking() {
            tls.flush();
            if tls.session.is_handshaking() && tls.read_records()? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        tls.below.set_timeout(NextTimeout::default());
        Ok(tls)
    }

    /// Sends as many bytes of these parts as it can at once; returns how many.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.socket.is_deaf() {
            return Ok(parts.iter().map(|part| part.len()).sum());
        }
        let taken = self.session.writer().write_vectored(parts)?;
        self.flush();
        Ok(taken)
    }

    /// Sends the records at hand, as far as the socket takes them.
    fn flush(&mut self) {
        let Self { session, socket, .. } = self;
        while session.wants_write() && !socket.is_deaf() {
            match session.write_tls(&mut Socket(socket)) {
                Ok(0) => return socket.set_unsent(true),
                Ok(_) => {}
                Err(_) => socket.set_deaf(),
            }
        }
        socket.set_unsent(false);
    }

    /// Reads once from below and decrypts complete records; 0 at the connection's end.
    fn read_records(&mut self) -> io::Result<usize> {
        let count = self.session.read_tls(&mut self.below)?;
        if let Err(error) = self.session.process_new_packets() {
            // Sends the alert to the other end, if it still reads.
            self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    /// The buffers with the decrypted input.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends the output that waits, then reads the input at hand; `false` at the connection's end.
    ///
    /// # Errors
    /// `WouldBlock`: no more input yet. The connection has failed; a missing `close_notify` counts as a failure.
    pub fn await_input(&mut self) -> Result<bool, Error> {
        self.flush();
        loop {
            let room = self.buffers.input_append_buf();
            match self.session.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let count = read?;
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
            }
            self.read_records()?;
            // An update of keys needs a reply.
            self.flush();
        }
    }

    /// Whether it can take another request.
    pub fn is_open(&mut self) -> bool {
        self.below.get_mut().is_open()
    }
}

/// Writes records to the socket.
struct Socket<'a>(&'a Source);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
