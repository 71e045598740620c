//! An address or a network of the configuration.

use std::fmt;
use std::net::IpAddr;

/// A peer whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Every client of the Unix socket.
    Unix,
    Network(Network),
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => formatter.write_str("unix"),
            Self::Network(Network { address, prefix }) => write!(formatter, "{address}/{prefix}"),
        }
    }
}

/// The addresses that begin like this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// IPv4-mapped ones as IPv4.
    address: IpAddr,
    /// So many bits: at most 32 or 128.
    prefix: u32,
}

impl Network {
    /// An address, or one with the length of its prefix behind a slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(at, prefix)| (at, Some(prefix)));
        let written: IpAddr = address.parse().ok()?;
        let address = written.to_canonical();
        let width = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width(address),
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return None,
            // Of a mapped address 96 bits say that it is one.
            Some(digits) => digits.parse::<u32>().ok()?.checked_sub(width(written) - width(address))?,
        };
        (prefix <= width(address)).then_some(Self { address, prefix })
    }

    /// Whether that address, which is not an IPv4-mapped one, lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn network_contains_the_addresses_that_share_its_prefix() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:1"][..],
            ),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]),
            ("192.0.2.7/31", &["192.0.2.6", "192.0.2.7"], &["192.0.2.8"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::"]),
            ("::/0", &["::", "ffff::1"], &["10.0.0.1"]),
            ("2001:db8::/33", &["2001:db8:7fff::1"], &["2001:db8:8000::1"]),
            ("::1/128", &["::1"], &["::2", "0.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:10.0.0.1", &["10.0.0.1"], &["10.0.0.2"]),
        ] {
            let network = Network::parse(network).expect("a network");
            let contains = |text: &&str| network.contains(text.parse().expect("an address"));
            assert!(inside.iter().all(contains), "{network:?}");
            assert!(!outside.iter().any(contains), "{network:?}");
        }
    }

    #[test]
    fn text_that_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "::/129",
            "::ffff:10.0.0.0/95",
            "10.0.0.0/4294967297",
            "localhost",
            "10.0.0.1:80",
            "[::1]",
            "10.0.0.0 /8",
            "fe80::1%eth0",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
