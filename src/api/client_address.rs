//! The address of a client: that of its connection, or the one that a trusted proxy reports. It is for the log alone and decides nothing.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, TrustedProxy};
use crate::front::{Head, Peer};
use crate::limits::MAX_FORWARDED;

/// Walks `X-Forwarded-For` from its right, where the nearest proxy writes, to the first address that is no trusted proxy. It is the peer's
/// where the peer is no trusted proxy, where a value is no address, and where it is not among the last [`MAX_FORWARDED`] addresses.
pub fn of(config: &Config, head: &Head, peer: Peer) -> Peer {
    let proxies = &config.trusted_proxies[..];
    if proxies.is_empty() {
        return peer;
    }
    let values = head.values("x-forwarded-for").rev();
    let mut before = values.flat_map(|value| value.rsplit(|byte| *byte == b','));
    let mut client = peer;
    for _ in 0..=MAX_FORWARDED {
        if !is_trusted(proxies, client) {
            return client;
        }
        match before.next().map(address) {
            None => return client,
            Some(None) => return peer,
            Some(Some(address)) => client = Peer::Ip(address),
        }
    }
    peer
}

fn is_trusted(proxies: &[TrustedProxy], peer: Peer) -> bool {
    proxies.iter().any(|proxy| match (proxy, peer) {
        (TrustedProxy::Unix, Peer::Unix) => true,
        (TrustedProxy::Network(network), Peer::Ip(address)) => network.contains(address),
        _ => false,
    })
}

/// An address, which some proxies write with a port.
fn address(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let address = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::of;
    use crate::config::load;
    use crate::front::{Head, Peer};
    use crate::limits::MAX_FORWARDED;

    fn seen(proxies: &[&str], peer: &str, fields: &[&str]) -> String {
        let document = json!({"providers": ["p|http://p.test|"], "trusted_proxies": proxies});
        let config = load::from_text(&document.to_string(), &|_| None).expect("a good config");
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head =
            Head::parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).expect("a head");
        let peer = peer.parse().map_or(Peer::Unix, Peer::Ip);
        of(&config, &head, peer).to_string()
    }

    #[test]
    fn address_is_the_first_from_the_right_that_is_no_trusted_proxy() {
        let proxies = ["10.0.0.0/8", "2001:db8:1::/48", "unix"];
        for (peer, fields, client) in [
            ("10.0.0.1", &["X-Forwarded-For: 203.0.113.7"][..], "203.0.113.7"),
            ("10.0.0.1", &["x-forwarded-for: 192.0.2.1, 203.0.113.7 ,10.9.9.9"], "203.0.113.7"),
            ("10.0.0.1", &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.0.0.2"], "203.0.113.7"),
            ("unix", &["X-Forwarded-For: ::ffff:203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
            ("2001:db8:1::5", &["X-Forwarded-For: [2001:db8:2::5]:4711"], "2001:db8:2::5"),
            ("10.0.0.1", &["X-Forwarded-For: 203.0.113.7:4711"], "203.0.113.7"),
            // A client's own claims stand left of its address and are ignored.
            ("10.0.0.1", &["X-Forwarded-For: rubbish, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: unknown"], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: 203.0.113.7,"], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: 203.0.113.256, 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For:"], "10.0.0.1"),
            ("203.0.113.9", &["X-Forwarded-For: 192.0.2.1"], "203.0.113.9"),
        ] {
            assert_eq!(seen(&proxies, peer, fields), client, "{peer} {fields:?}");
        }
        assert_eq!(seen(&[], "unix", &["X-Forwarded-For: 192.0.2.1"]), "unix");
        assert_eq!(seen(&["10.0.0.0/8"], "unix", &["X-Forwarded-For: 192.0.2.1"]), "unix");
    }

    #[test]
    fn address_behind_more_proxies_than_the_bound_is_the_peers() {
        let behind = |proxies: usize| {
            let field = format!("X-Forwarded-For: 203.0.113.7{}", ", 10.0.0.2".repeat(proxies));
            seen(&["10.0.0.0/8"], "10.0.0.1", &[&field])
        };
        assert_eq!(behind(MAX_FORWARDED - 1), "203.0.113.7");
        assert_eq!(behind(MAX_FORWARDED), "10.0.0.1");
        assert_eq!(behind(3000), "10.0.0.1");
    }
}
