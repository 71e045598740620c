//! TLS to a provider, by rustls, over a transport that is there. What is sent is encrypted from where it is, a turn's bound at a time, and
//! leaves for the socket as it stands then; ureq's own would copy each byte three times more.

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

/// A TLS connection. It waits only while it is made.
pub struct TlsTransport {
    session: ClientConnection,
    /// What comes is read from there. Nothing is written there: records go to `socket`.
    below: TransportAdapter,
    socket: Arc<Source>,
    buffers: LazyBuffers,
}

/// The trust in those authorities alone, or in the public ones.
///
/// # Errors
/// rustls does not have the versions of TLS that it comes with.
pub fn config(ca_file: Option<&CaFile>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        // The loader of the configuration has checked each.
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
    /// TLS over `below`, between which and `socket` is nothing that changes a byte. Waits as long as the details say.
    ///
    /// # Errors
    /// The other end is not who it has to be, or whatever kept the connection from standing.
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
        // Its last words are sent with the request.
        while tls.session.is_handshaking() {
            tls.flush();
            if tls.session.is_handshaking() && tls.read_records()? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        tls.below.set_timeout(NextTimeout::default());
        Ok(tls)
    }

    /// Takes as many bytes of these parts as it can at once; how many.
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

    /// Sends the records that are here, as far as the socket takes them.
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

    /// Reads once from below and decrypts what is whole; 0 at the connection's end.
    fn read_records(&mut self) -> io::Result<usize> {
        let count = self.session.read_tls(&mut self.below)?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert that tells the other end, where it still listens.
            self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    /// What has come, decrypted.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends what has to leave, then takes what has come; `false` at its end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing more has come. What the connection failed with, a missing farewell (`close_notify`) included.
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
            // An update of keys has to be answered.
            self.flush();
        }
    }

    /// Whether it can take another request.
    pub fn is_open(&mut self) -> bool {
        self.below.get_mut().is_open()
    }
}

/// Where records leave.
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
