//! SOCKS5 (RFC 1928, with the user name and password of RFC 1929) on our own connection, which has a limit of its wait; ureq's own
//! SOCKS connection has none.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use ureq::Proxy;

use super::timeouts::Limit;
use crate::front::Want;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_NAME_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const DOMAIN_NAME: u8 = 3;
const IPV6: u8 = 4;

/// Requests a connection to `host` and `port` from the proxy at the other end of `stream`. `host`: an address, or a name that the
/// proxy resolves.
///
/// # Errors
/// The proxy refuses, or does not speak SOCKS5, or the time is over.
pub fn negotiate(stream: &TcpStream, proxy: &Proxy, host: &str, port: u16, limit: &Limit) -> io::Result<()> {
    let stream = &Proxied { stream, limit };
    let user = proxy.username().unwrap_or_default();
    let password = proxy.password().unwrap_or_default();
    let offered: &[u8] = if user.is_empty() {
        &[VERSION, 1, NO_AUTHENTICATION]
    } else {
        &[VERSION, 2, NO_AUTHENTICATION, USER_NAME_AND_PASSWORD]
    };
    write_all(stream, offered)?;
    let [version, chosen] = read_exact(stream)?;
    if version != VERSION || !offered[2..].contains(&chosen) {
        return Err(refused("takes none of our ways to log in"));
    }
    if chosen == USER_NAME_AND_PASSWORD {
        let mut login = vec![1];
        push_counted(&mut login, user)?;
        push_counted(&mut login, password)?;
        write_all(stream, &login)?;
        let [_, status] = read_exact(stream)?;
        if status != 0 {
            return Err(refused("refuses the user name or password"));
        }
    }
    let mut request = vec![VERSION, CONNECT, 0];
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(DOMAIN_NAME);
            push_counted(&mut request, bare)?;
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    write_all(stream, &request)?;
    read_reply(stream)
}

/// The connection to a proxy, and the limit of its waits.
struct Proxied<'a> {
    stream: &'a TcpStream,
    limit: &'a Limit,
}

fn read_reply(stream: &Proxied<'_>) -> io::Result<()> {
    let [version, status, _, kind] = read_exact(stream)?;
    if version != VERSION {
        return Err(refused("does not speak SOCKS5"));
    }
    if status != 0 {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("the SOCKS proxy says: error {status}"),
        ));
    }
    // The bound address and port, which are not needed.
    match kind {
        IPV4 => read_exact::<6>(stream).map(drop),
        IPV6 => read_exact::<18>(stream).map(drop),
        DOMAIN_NAME => {
            let [length] = read_exact(stream)?;
            (0..usize::from(length) + 2).try_for_each(|_| read_exact::<1>(stream).map(drop))
        }
        _ => Err(refused("answers with an unknown kind of address")),
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("the SOCKS proxy {what}"))
}

fn push_counted(bytes: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(|_| refused("takes no text over 255 bytes"))?;
    bytes.push(length);
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

fn write_all(Proxied { stream, limit }: &Proxied<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                limit.wait(stream.as_fd(), Want::Write, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read_exact<const N: usize>(Proxied { stream, limit }: &Proxied<'_>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        limit.wait(stream.as_fd(), Want::Read, None)?;
        match recv(stream, &mut bytes[filled..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => filled += count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
