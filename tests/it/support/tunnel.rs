//! A forward proxy as a provider's `proxy` may name it: HTTP CONNECT and SOCKS5 on one port, by the first byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::DEADLINE;

/// Serves for the rest of the test run; its threads end with their connections.
pub struct Tunnel {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    opened: AtomicUsize,
    heads: Mutex<Vec<String>>,
    targets: Mutex<Vec<String>>,
    leads_to: Mutex<Option<SocketAddr>>,
}

impl Tunnel {
    pub fn new() -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let tunnel = Tunnel { address: listener.local_addr().expect("address"), shared: Arc::default() };
        let shared = Arc::clone(&tunnel.shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // Any error closes the connection, which is all a test needs to see.
                    let _ = open(client, &shared);
                });
            }
        });
        tunnel
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections went through.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// From now on every target leads to that address, as if its DNS said so.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.shared.leads_to.lock().expect("address") = Some(address);
    }

    /// The requested targets of its connections.
    pub fn targets(&self) -> Vec<String> {
        self.shared.targets.lock().expect("targets").clone()
    }

    /// The CONNECT requests seen.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().expect("heads").clone()
    }
}

fn open(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_read_timeout(Some(DEADLINE))?;
    let mut first = [0];
    client.read_exact(&mut first)?;
    let target =
        if first[0] == 5 { socks(&mut client)? } else { connect(&mut client, first[0], &shared.heads)? };
    shared.targets.lock().expect("targets").push(target.clone());
    let known = *shared.leads_to.lock().expect("address");
    let upstream = known.map_or_else(|| TcpStream::connect(target), TcpStream::connect)?;
    client.write_all(if first[0] == 5 {
        &[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]
    } else {
        b"HTTP/1.1 200 Connected\r\n\r\n"
    })?;
    shared.opened.fetch_add(1, Ordering::SeqCst);
    client.set_read_timeout(None)?;
    let (back_from, back_to) = (upstream.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || pass(back_from, back_to));
    pass(client, upstream);
    Ok(())
}

/// RFC 1928, without authentication.
fn socks(client: &mut TcpStream) -> std::io::Result<String> {
    let mut count = [0];
    client.read_exact(&mut count)?;
    client.read_exact(&mut vec![0; usize::from(count[0])])?;
    client.write_all(&[5, 0])?;
    let mut head = [0; 4];
    client.read_exact(&mut head)?;
    let host = if head[3] == 1 {
        let mut address = [0; 4];
        client.read_exact(&mut address)?;
        std::net::Ipv4Addr::from(address).to_string()
    } else {
        client.read_exact(&mut count)?;
        let mut name = vec![0; usize::from(count[0])];
        client.read_exact(&mut name)?;
        String::from_utf8_lossy(&name).into_owned()
    };
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    Ok(format!("{host}:{}", u16::from_be_bytes(port)))
}

/// RFC 9110 section 9.3.6.
fn connect(client: &mut TcpStream, first: u8, heads: &Mutex<Vec<String>>) -> std::io::Result<String> {
    let mut head = vec![first];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().expect("heads").push(text);
    Ok(target)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16384];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}
