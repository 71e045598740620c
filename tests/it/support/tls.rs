//! TLS in front of a scripted upstream; everything else is the upstream's business.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::upstream::Upstream;

/// How often a connection looks from one side to the other.
const TICK: Duration = Duration::from_millis(5);

/// The path of one of the committed certificates; `certificates/make` says what each is.
pub fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates").join(name)
}

/// Serves for the rest of the test run; its threads end with their connections.
pub struct Tls {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    full: AtomicUsize,
    resumed: AtomicUsize,
}

impl Tls {
    /// Presents the certificate of that name and forwards the bytes to `upstream`.
    pub fn new(upstream: &Upstream, name: &str) -> Tls {
        Self::to(upstream.address(), name)
    }

    /// The same before anything else.
    pub fn to(address: SocketAddr, name: &str) -> Tls {
        Self::start(address, name, true)
    }

    /// The same without TLS's `close_notify` before it closes.
    pub fn that_just_closes(upstream: &Upstream, name: &str) -> Tls {
        Self::start(upstream.address(), name, false)
    }

    fn start(to: SocketAddr, name: &str, says_so: bool) -> Tls {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(certificate(name)).expect("certificate").collect();
        let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("certificates"), key)
            .expect("a key that fits");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let tls = Tls { address: listener.local_addr().expect("address"), seen: Arc::default() };
        let seen = Arc::clone(&tls.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                std::thread::spawn(move || {
                    // Any error closes both connections, which is all a test needs to see.
                    let _ = pass(stream, config, to, &seen, says_so);
                });
            }
        });
        tls
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to configure, by name or address of this machine.
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/v1", self.address.port())
    }

    /// Successful handshakes: full, resumed.
    pub fn handshakes(&self) -> (usize, usize) {
        (self.seen.full.load(Ordering::SeqCst), self.seen.resumed.load(Ordering::SeqCst))
    }
}

fn pass(
    client: TcpStream,
    config: Arc<ServerConfig>,
    to: SocketAddr,
    seen: &Seen,
    says_so: bool,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    match client.conn.handshake_kind() {
        Some(HandshakeKind::Resumed) => seen.resumed.fetch_add(1, Ordering::SeqCst),
        _ => seen.full.fetch_add(1, Ordering::SeqCst),
    };
    let mut upstream = TcpStream::connect(to)?;
    client.sock.set_read_timeout(Some(TICK))?;
    upstream.set_read_timeout(Some(TICK))?;
    while copy_some(&mut client, &mut upstream)? && copy_some(&mut upstream, &mut client)? {}
    if says_so {
        client.conn.send_close_notify();
    }
    client.flush()
}

/// Forwards available bytes; `false` at their end.
fn copy_some(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<bool> {
    let mut bytes = [0; 16384];
    match from.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(count) => to.write_all(&bytes[..count]).and_then(|()| to.flush()).map(|()| true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(error) => Err(error),
    }
}
