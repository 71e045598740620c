//! Proxies of the environment by curl's rules: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, lower
//! case first; an empty variable counts as unset.

use std::net::IpAddr;

use super::authority::split_port;
use crate::config::ProxyUrl;

#[derive(Debug, Default)]
pub(super) struct EnvProxies {
    http: Option<Variable>,
    https: Option<Variable>,
    all: Option<Variable>,
    exceptions: Vec<Exception>,
}

/// A proxy from the environment.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    /// Name of the variable.
    pub(super) name: &'static str,
    /// Its value, with a scheme; not checked yet.
    pub(super) value: ProxyUrl,
}

/// A part of `no_proxy`.
#[derive(Debug)]
enum Exception {
    /// `*`: everything.
    All,
    /// A domain and its subdomains, with that port alone where one is given.
    Domain(String, Option<u16>),
    /// A block of addresses by the length of its prefix; a single address is a full prefix.
    Block(IpAddr, u32, Option<u16>),
}

impl EnvProxies {
    pub(super) fn read(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let set =
            |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let variable = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = set(name)?;
                let value = if value.contains("://") { value } else { format!("http://{value}") };
                Some(Variable { name, value: ProxyUrl::new(value) })
            })
        };
        // Under CGI a client's `Proxy` header would set this one (CVE-2016-5385).
        let cgi = env("REQUEST_METHOD").is_some();
        let no_proxy = ["no_proxy", "NO_PROXY"].into_iter().find_map(set).unwrap_or_default();
        Self {
            http: variable(["http_proxy", if cgi { "http_proxy" } else { "HTTP_PROXY" }]),
            https: variable(["https_proxy", "HTTPS_PROXY"]),
            all: variable(["all_proxy", "ALL_PROXY"]),
            exceptions: no_proxy
                .split(|separator: char| separator == ',' || separator.is_whitespace())
                .filter_map(Exception::read)
                .collect(),
        }
    }

    /// The proxy for a provider's base URL; `None`: a direct connection.
    pub(super) fn proxy(&self, url: &str) -> Option<&Variable> {
        let (scheme, rest) = url.split_once("://")?;
        let secure = scheme == "https";
        let chosen = if secure { &self.https } else { &self.http }.as_ref().or(self.all.as_ref())?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        let excepted = self.exceptions.iter().any(|exception| exception.covers(host, port));
        (!excepted).then_some(chosen)
    }
}

impl Exception {
    fn read(part: &str) -> Option<Self> {
        if part == "*" {
            return Some(Self::All);
        }
        if let Some((address, prefix)) = part.split_once('/') {
            let address = address.parse::<IpAddr>().ok()?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= width(address))?;
            return Some(Self::Block(address, prefix, None));
        }
        if let Some(address) = address(part) {
            return Some(Self::Block(address, width(address), None));
        }
        let (host, port) = split_port(part)?;
        if let Some(address) = address(host) {
            return Some(Self::Block(address, width(address), port));
        }
        let name = host.strip_prefix('*').unwrap_or(host).trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Domain(name, port))
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let fits = |asked: &Option<u16>| asked.is_none_or(|asked| asked == port);
        match self {
            Self::All => true,
            Self::Domain(name, asked) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let below = || host.strip_suffix(name.as_str()).is_some_and(|left| left.ends_with('.'));
                fits(asked) && (host == *name || below())
            }
            Self::Block(block, prefix, asked) => {
                fits(asked) && address(host).is_some_and(|address| is_within(address, *block, *prefix))
            }
        }
    }
}

/// An address, with or without the brackets of a URL.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(address: IpAddr, block: IpAddr, prefix: u32) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let behind = width(block) - prefix;
    let head = |address| bits(address).checked_shr(behind).unwrap_or(0);
    address.is_ipv4() == block.is_ipv4() && head(address) == head(block)
}

#[cfg(test)]
mod tests {
    use super::EnvProxies;

    /// The variable and value that apply to `url` in an environment of `set`.
    fn chosen(set: &[(&str, &str)], url: &str) -> Option<(&'static str, String)> {
        let env =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let env_proxies = EnvProxies::read(&env);
        env_proxies.proxy(url).map(|variable| (variable.name, variable.value.expose().to_owned()))
    }

    #[test]
    fn the_variable_is_chosen_by_scheme_lower_case_first_and_empty_is_unset() {
        let (http, https) = ("http://a.example/v1", "https://a.example/v1");
        let both = [("http_proxy", "http://h:1"), ("https_proxy", "socks5://s:2"), ("ALL_PROXY", "all:3")];
        assert_eq!(chosen(&both, http), Some(("http_proxy", "http://h:1".into())));
        assert_eq!(chosen(&both, https), Some(("https_proxy", "socks5://s:2".into())));
        assert_eq!(chosen(&both[2..], https), Some(("ALL_PROXY", "http://all:3".into())));
        let cases = [("HTTPS_PROXY", "http://upper"), ("https_proxy", "http://lower")];
        assert_eq!(chosen(&cases, https), Some(("https_proxy", "http://lower".into())));
        let empty = [("https_proxy", " "), ("all_proxy", "")];
        assert_eq!(chosen(&empty, https), None);
        assert_eq!(chosen(&[], http), None);
    }

    #[test]
    fn upper_case_http_proxy_does_not_count_under_cgi() {
        let set = [("HTTP_PROXY", "http://h:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(chosen(&set[..1], "http://a"), Some(("HTTP_PROXY", "http://h:1".into())));
        assert_eq!(chosen(&set, "http://a"), None);
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_blocks_and_ports() {
        let free =
            |list: &str, url: &str| chosen(&[("all_proxy", "http://p:1"), ("NO_PROXY", list)], url).is_none();
        for (list, url) in [
            ("*", "https://anything"),
            ("a.example", "https://a.example/v1"),
            ("A.Example", "https://b.a.example:8443/v1"),
            (".a.example", "https://a.example"),
            ("*.a.example", "https://b.a.example"),
            ("x, y  a.example.", "https://a.example"),
            ("localhost:11434", "http://localhost:11434/v1"),
            ("127.0.0.1", "http://127.0.0.1:8000"),
            ("10.0.0.0/8", "http://10.1.2.3"),
            ("0.0.0.0/0", "http://10.1.2.3"),
            ("::1", "http://[::1]:8000/v1"),
            ("[::1]:8000", "http://[::1]:8000/v1"),
            ("fd00::/8", "http://[fd12::1]/v1"),
        ] {
            assert!(free(list, url), "{list} does not cover {url}");
        }
        for (list, url) in [
            ("", "https://a.example"),
            ("a.example", "https://aa.example"),
            ("a.example", "https://ba.example"),
            ("a.example", "https://a.example.com"),
            ("b.a.example", "https://a.example"),
            ("localhost:11434", "http://localhost:8000/v1"),
            ("10.0.0.0/8", "http://11.1.2.3"),
            ("10.0.0.0/8", "http://10.example"),
            ("10.0.0.0/33", "http://10.0.0.0"),
            ("::/0", "http://10.0.0.0"),
            ("[::1]:8000", "http://[::1]:8001/v1"),
            (".", "https://a.example"),
        ] {
            assert!(!free(list, url), "{list} covers {url}");
        }
    }
}
