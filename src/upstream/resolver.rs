//! Names to addresses, from a cache: a look-up never sits on the path of a request but the first for its name.

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

use super::wait;
use crate::limits::{DNS_TTL, MAX_ADDRESSES, MAX_DNS_NAMES, THREAD_STACK};

/// How long a failed look-up stands before the next is tried.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// How often a thread that waits for a look-up sees to its client.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// A resolver that remembers. Addresses older than [`DNS_TTL`] are still used while one thread looks them up anew, and
/// go on being used when that fails.
#[derive(Debug, Clone, Default)]
pub struct CachingResolver(Arc<Cache>);

#[derive(Debug, Default)]
struct Cache {
    names: Mutex<HashMap<String, Entry>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<IpAddr>,
    looked_up: Instant,
    looking: bool,
}

impl Resolver for CachingResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            found.push(SocketAddr::new(address, port));
            return Ok(found);
        }
        for address in self.addresses(host)? {
            found.push(SocketAddr::new(address, port));
        }
        Ok(found)
    }
}

impl CachingResolver {
    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            make_room(&mut names, host);
            let entry = names.entry(host.to_owned()).or_insert_with(|| Entry {
                addresses: Vec::new(),
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
            // Without the lock: a heartbeat to a slow client must not hold up other look-ups.
            if wait::is_over() {
                return Err(Error::HostNotFound);
            }
            names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts a look-up on a thread of its own, one a name at a time; `false` where no thread is to be had.
    fn look_up(&self, host: &str) -> bool {
        let (cache, host) = (Arc::clone(&self.0), host.to_owned());
        let started =
            thread::Builder::new().stack_size(THREAD_STACK).name("resolver".to_owned()).spawn(move || {
                let found = (host.as_str(), 0).to_socket_addrs();
                let addresses: Vec<IpAddr> = found.into_iter().flatten().map(|found| found.ip()).collect();
                let mut names = cache.names.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = names.get_mut(&host) {
                    if !addresses.is_empty() {
                        entry.addresses = addresses;
                        entry.addresses.dedup();
                        entry.addresses.truncate(MAX_ADDRESSES);
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

/// Keeps the cache bounded: the name that was looked up longest ago goes.
fn make_room(names: &mut HashMap<String, Entry>, host: &str) {
    if names.len() < MAX_DNS_NAMES || names.contains_key(host) {
        return;
    }
    let oldest = names.iter().filter(|(_, entry)| !entry.looking).min_by_key(|(_, entry)| entry.looked_up);
    if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
        names.remove(&oldest);
    }
}
