//! A TCP connection to a provider, or through its SOCKS proxy.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::ConnectionDetails;
use ureq::{Error, Proxy, ProxyProtocol};

use super::resolver::LimitedResolver;
use super::{connect, socks};

/// Opens a non-blocking connection. It blocks no longer than the resolver's limit.
///
/// # Errors
/// The connection cannot be made.
pub fn open(resolver: &LimitedResolver, details: &ConnectionDetails<'_>) -> Result<TcpStream, Error> {
    match details.config.proxy().filter(|proxy| is_socks(proxy)) {
        Some(proxy) => through_socks(resolver, proxy, details),
        None => to_any(resolver, details.uri.host(), &details.addrs),
    }
}

fn is_socks(proxy: &Proxy) -> bool {
    !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
}

/// `socks5h` has the proxy resolve the provider's name; `socks5` resolves it here, as curl does, and tries each address.
fn through_socks(
    resolver: &LimitedResolver,
    proxy: &Proxy,
    details: &ConnectionDetails<'_>,
) -> Result<TcpStream, Error> {
    let mut addresses = resolver.resolve(proxy.uri(), details.config, details.timeout)?;
    for address in addresses.iter_mut() {
        address.set_port(proxy.port());
    }
    let targets: Vec<String> = if proxy.resolve_target() {
        details.addrs.iter().map(|address| address.ip().to_string()).collect()
    } else {
        details.uri.host().map(str::to_owned).into_iter().collect()
    };
    let port = details.uri.port_u16().unwrap_or(if details.needs_tls() { 443 } else { 80 });
    let mut last = Error::HostNotFound;
    for host in targets {
        let stream = to_any(resolver, proxy.uri().host(), &addresses)?;
        match socks::negotiate(&stream, proxy, &host, port, &resolver.limit) {
            Ok(()) => return Ok(stream),
            Err(error) => last = Error::Io(error),
        }
        if Instant::now() >= resolver.limit.end() {
            break;
        }
    }
    Err(last)
}

/// A connection to one of the addresses of `host`; the resolver prefers that address from then on.
fn to_any(
    resolver: &LimitedResolver,
    host: Option<&str>,
    addresses: &[SocketAddr],
) -> Result<TcpStream, Error> {
    let stream = connect::to_any(addresses, &resolver.limit)?;
    if let (Some(host), Ok(peer), 2..) = (host, stream.peer_addr(), addresses.len()) {
        resolver.resolver.prefer(host, peer.ip());
    }
    Ok(stream)
}
