//! The ways to providers: how a connection is made, for each pair of proxy and trusted certificate authorities.
//!
//! A way of its own keeps what a TLS handshake costs to prepare and what it can resume.

use std::sync::{Arc, PoisonError, RwLock};

use ureq::config::Config as Settings;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error, Proxy};

use super::resolver::CachingResolver;
use super::transport::TcpConnector;
use crate::config::{CaFile, Config, Replica, Secret};
use crate::limits::{UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// Every way that has been gone, the plain one always at hand.
#[derive(Debug)]
pub struct Ways {
    plain: Arc<Way>,
    detours: RwLock<Detours>,
    resolver: CachingResolver,
}

/// How a connection is made.
pub struct Way {
    /// Tells it from the others.
    pub number: usize,
    settings: Settings,
    resolver: CachingResolver,
    /// ureq's connectors, one behind the other.
    connect: Arc<Connect>,
}

type Connect = dyn Fn(&ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> + Send + Sync;

#[derive(Debug, Default)]
struct Detours {
    known: Vec<Detour>,
    /// How many there have ever been.
    count: usize,
}

/// A way with a proxy on it, or with certificate authorities of its own.
#[derive(Debug)]
struct Detour {
    proxy: Option<Secret>,
    ca_file: Option<CaFile>,
    way: Arc<Way>,
}

impl Ways {
    /// The number of the way without proxy or authorities of its own.
    pub const PLAIN: usize = 0;

    /// None gone yet.
    pub fn new() -> Self {
        let resolver = CachingResolver::default();
        let plain = Arc::new(Way::new(Self::PLAIN, &resolver, None, None));
        Self { plain, detours: RwLock::default(), resolver }
    }

    /// The way through that proxy to whom those authorities vouch for.
    ///
    /// # Errors
    /// The proxy's URL is none; the configuration's loader has checked it.
    pub fn of(&self, proxy: Option<&Secret>, ca_file: Option<&CaFile>) -> Result<Arc<Way>, Error> {
        if proxy.is_none() && ca_file.is_none() {
            return Ok(Arc::clone(&self.plain));
        }
        let find = |detours: &Detours| {
            detours.known.iter().find(|it| it.is(proxy, ca_file)).map(|it| Arc::clone(&it.way))
        };
        if let Some(way) = find(&self.detours.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(way);
        }
        let through = proxy.map(|proxy| Proxy::new(proxy.expose())).transpose()?;
        let mut detours = self.detours.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = find(&detours) {
            return Ok(way);
        }
        detours.count += 1;
        let way = Arc::new(Way::new(detours.count, &self.resolver, through, ca_file));
        let (proxy, ca_file) = (proxy.cloned(), ca_file.cloned());
        detours.known.push(Detour { proxy, ca_file, way: Arc::clone(&way) });
        Ok(way)
    }

    /// Forgets the ways that no replica of `config` takes.
    pub fn retain(&self, config: &Config) {
        let takes = |replica: &Replica, detour: &Detour| {
            [&replica.proxy, &replica.anthropic_proxy]
                .into_iter()
                .any(|proxy| detour.is(proxy.as_ref(), replica.ca_file.as_ref()))
        };
        let taken = |detour: &Detour| {
            config.providers.iter().flat_map(|provider| &provider.replicas).any(|it| takes(it, detour))
        };
        self.detours.write().unwrap_or_else(PoisonError::into_inner).known.retain(taken);
    }
}

impl Detour {
    fn is(&self, proxy: Option<&Secret>, ca_file: Option<&CaFile>) -> bool {
        self.proxy.as_ref() == proxy && self.ca_file.as_ref() == ca_file
    }
}

impl Way {
    fn new(
        number: usize,
        resolver: &CachingResolver,
        proxy: Option<Proxy>,
        ca_file: Option<&CaFile>,
    ) -> Self {
        let roots = ca_file.map_or(RootCerts::WebPki, |ca| {
            ca.certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
        });
        // Whatever the product depends on is said here, not left to the library's defaults.
        let settings = Agent::config_builder()
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent("")
            .input_buffer_size(UPSTREAM_READ_BUFFER)
            .output_buffer_size(UPSTREAM_WRITE_BUFFER)
            .build();
        let connectors =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector(resolver.clone()))
                .chain(RustlsConnector::default());
        let connect = move |details: &ConnectionDetails<'_>| match connectors.connect(details, None)? {
            Some(transport) => Ok(Box::new(transport) as Box<dyn Transport>),
            None => Err(Error::ConnectionFailed),
        };
        Self { number, settings, resolver: resolver.clone(), connect: Arc::new(connect) }
    }

    /// A new connection to the host of `uri`, TLS included where it asks for that.
    ///
    /// # Errors
    /// Whatever kept it from standing.
    pub fn connect(&self, uri: &Uri) -> Result<Box<dyn Transport>, Error> {
        let timeout = NextTimeout::default();
        // A proxy resolves the name itself, unless its scheme leaves that to the client.
        let addrs = match self.settings.proxy().is_none_or(Proxy::resolve_target) {
            true => self.resolver.resolve(uri, &self.settings, timeout)?,
            false => self.resolver.empty(),
        };
        let transport = (self.connect)(&ConnectionDetails {
            uri,
            addrs,
            config: &self.settings,
            request_level: false,
            resolver: &self.resolver,
            now: Instant::now(),
            timeout,
            current_time: Arc::new(Instant::now),
            run_connector: Arc::clone(&self.connect),
            register_shutdown: Arc::new(|_| Ok(())),
        })?;
        if uri.scheme_str() == Some("https") && !transport.is_tls() {
            return Err(Error::TlsRequired);
        }
        Ok(transport)
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Way").field("number", &self.number).finish_non_exhaustive()
    }
}
