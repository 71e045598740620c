//! Names to addresses, from a cache: only the first request for a name waits for a look-up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::timeouts::Limit;
use crate::limits::{DNS_TTL, MAX_ADDRESSES, MAX_DNS_NAMES, NEGATIVE_TTL, THREAD_STACK};

/// Interval at which a thread that waits for a look-up checks its limit.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// A resolver that remembers. Addresses older than [`DNS_TTL`] are still used while one thread looks them up anew, and
/// remain in use when that fails.
#[derive(Debug, Clone, Default)]
pub struct CachingResolver(Arc<Cache>);

#[derive(Debug, Default)]
struct Cache {
    names: Mutex<HashMap<String, Entry>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Entry {
    /// In the order of the attempts.
    addresses: Vec<IpAddr>,
    /// The address that connected last, if it was not the first: it stays ahead as long as the name is in the cache.
    preferred: Option<IpAddr>,
    looked_up: Instant,
    looking: bool,
}

/// A resolver with a limit of its wait.
#[derive(Debug, Clone)]
pub struct LimitedResolver {
    pub resolver: CachingResolver,
    pub limit: Arc<Limit>,
}

impl Resolver for LimitedResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            found.push(SocketAddr::new(address, port));
            return Ok(found);
        }
        for address in self.resolver.addresses(host, &self.limit)? {
            found.push(SocketAddr::new(address, port));
        }
        Ok(found)
    }
}

impl CachingResolver {
    /// Tries this address of `host` before the others from now on; if it disappears, another of its family.
    pub fn prefer(&self, host: &str, address: IpAddr) {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = names.get_mut(host) else { return };
        if entry.addresses.first() != Some(&address) {
            entry.preferred = Some(address);
            entry.addresses = in_turn(std::mem::take(&mut entry.addresses), entry.preferred);
        }
    }

    fn addresses(&self, host: &str, limit: &Limit) -> Result<Vec<IpAddr>, Error> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            make_room(&mut names, host);
            let entry = names.entry(host.to_owned()).or_insert_with(|| Entry {
                addresses: Vec::new(),
                preferred: None,
                looked_up: now.checked_sub(DNS_TTL).unwrap_or(now),
                looking: false,
            });
            let age = now.duration_since(entry.looked_up);
            let known = !entry.addresses.is_empty();
            if !entry.looking && age >= if known { DNS_TTL } else { NEGATIVE_TTL } {
                entry.looking = self.look_up(host);
                if !entry.looking {
                    entry.looked_up = now;
                }
            }
            if known {
                return Ok(entry.addresses.clone());
            }
            if !entry.looking {
                return Err(Error::HostNotFound);
            }
            drop(self.0.changed.wait_timeout(names, LOOK_AROUND).unwrap_or_else(PoisonError::into_inner));
            if Instant::now() >= limit.end() {
                return Err(Error::HostNotFound);
            }
            names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts a look-up on a thread of its own, one a name at a time; `false`: no thread can be created.
    fn look_up(&self, host: &str) -> bool {
        let (cache, host) = (Arc::clone(&self.0), host.to_owned());
        let started =
            thread::Builder::new().stack_size(THREAD_STACK).name("resolver".to_owned()).spawn(move || {
                let found = (host.as_str(), 0).to_socket_addrs();
                let addresses: Vec<IpAddr> = found.into_iter().flatten().map(|found| found.ip()).collect();
                let mut names = cache.names.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = names.get_mut(&host) {
                    if !addresses.is_empty() {
                        entry.addresses = in_turn(addresses, entry.preferred);
                    }
                    entry.looked_up = Instant::now();
                    entry.looking = false;
                }
                drop(names);
                cache.changed.notify_all();
            });
        started.is_ok()
    }
}

/// Addresses with the two families in turn (RFC 8305 section 4), the preferred one ahead, else one of its family; in each family
/// the resolver's order stays. At most [`MAX_ADDRESSES`].
fn in_turn(addresses: Vec<IpAddr>, preferred: Option<IpAddr>) -> Vec<IpAddr> {
    let is_v6 = preferred.or(addresses.first().copied()).is_some_and(|address| address.is_ipv6());
    let (mut ahead, behind): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6);
    if let Some(place) = ahead.iter().position(|address| Some(*address) == preferred) {
        ahead[..=place].rotate_right(1);
    }
    let (mut ahead, mut behind) = (ahead.into_iter(), behind.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [ahead.next(), behind.next()];
        if pair == [None, None] || all.len() >= MAX_ADDRESSES {
            all.truncate(MAX_ADDRESSES);
            return all;
        }
        for address in pair.into_iter().flatten() {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
}

/// Keeps the cache bounded: drops the name that was looked up longest ago.
fn make_room(names: &mut HashMap<String, Entry>, host: &str) {
    if names.len() < MAX_DNS_NAMES || names.contains_key(host) {
        return;
    }
    let oldest = names.iter().filter(|(_, entry)| !entry.looking).min_by_key(|(_, entry)| entry.looked_up);
    if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
        names.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::in_turn;
    use crate::limits::MAX_ADDRESSES;

    fn order(addresses: &[&str], preferred: Option<&str>) -> Vec<String> {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        let addresses = addresses.iter().map(|text| parse(text)).collect();
        in_turn(addresses, preferred.map(parse)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_two_families_are_tried_in_turn() {
        let all = ["::1", "::2", "::1", "::3", "1.1.1.1", "2.2.2.2"];
        assert_eq!(order(&all, None), ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]);
        assert_eq!(order(&["1.1.1.1", "::1", "::2"], None), ["1.1.1.1", "::1", "::2"]);
        assert_eq!(order(&[], None), [""; 0]);
        let many: Vec<String> = (1..20).map(|number| format!("::{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["1.1.1.1"]).collect();
        assert_eq!(order(&many, None)[..3], ["::1", "1.1.1.1", "::2"]);
        assert_eq!(order(&many, None).len(), MAX_ADDRESSES);
    }

    #[test]
    fn preferred_address_stays_ahead_or_its_family_does() {
        let all = ["::1", "::2", "1.1.1.1", "2.2.2.2"];
        assert_eq!(order(&all, Some("2.2.2.2")), ["2.2.2.2", "::1", "1.1.1.1", "::2"]);
        assert_eq!(order(&all, Some("3.3.3.3")), ["1.1.1.1", "::1", "2.2.2.2", "::2"]);
        assert_eq!(order(&all, Some("::2")), ["::2", "1.1.1.1", "::1", "2.2.2.2"]);
    }
}
