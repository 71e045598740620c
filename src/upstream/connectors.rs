//! How connections to providers are made: a connector for each pair of proxy and trusted certificate authorities.
//!
//! Each connector keeps its prepared TLS configuration and the sessions that it can resume. It blocks, so helpers run it.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustls::ClientConfig;
use ureq::config::Config as Settings;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector as _, Either, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error, Proxy, ProxyProtocol};

#[cfg(test)]
use super::in_memory::Network;
use super::link::Link;
use super::resolver::{CachingResolver, LimitedResolver};
use super::tcp;
use super::timeouts::Limit;
use super::tls::{self, TlsTransport};
use super::transport::TcpTransport;
use crate::config::{CaFile, Config, ProxyUrl, Replica};
use crate::front::Source;
use crate::limits::{UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// Every connector that has been used, and always the plain one.
#[derive(Debug)]
pub struct Connectors {
    plain: Arc<Connector>,
    others: RwLock<Others>,
    resolver: CachingResolver,
}

/// How a connection is made.
pub struct Connector {
    /// Identifies it.
    pub number: usize,
    settings: Settings,
    resolver: CachingResolver,
    /// The TLS configuration, made at the first use.
    trust: OnceLock<Arc<ClientConfig>>,
    ca_file: Option<CaFile>,
    /// TLS to a proxy, and within the proxy's connection.
    proxied_tls: RustlsConnector,
    /// Where connections lead to in a unit test.
    #[cfg(test)]
    network: Option<Network>,
}

#[derive(Debug, Default)]
struct Others {
    known: Vec<Other>,
    /// Number of all connectors so far.
    count: usize,
}

/// A connector with a proxy, or with certificate authorities of its own.
#[derive(Debug)]
struct Other {
    proxy: Option<ProxyUrl>,
    ca_file: Option<CaFile>,
    connector: Arc<Connector>,
}

impl Connectors {
    /// The number of the connector without proxy or authorities of its own.
    pub const PLAIN: usize = 0;

    /// Only the plain connector.
    pub fn new() -> Self {
        let resolver = CachingResolver::default();
        let plain = Arc::new(Connector::new(Self::PLAIN, &resolver, None, None));
        Self { plain, others: RwLock::default(), resolver }
    }

    /// Connectors whose connections lead into that network.
    #[cfg(test)]
    pub fn in_memory(network: Network) -> Self {
        let mut connectors = Self::new();
        let plain = Connector::new(Self::PLAIN, &connectors.resolver, None, None);
        connectors.plain = Arc::new(Connector { network: Some(network), ..plain });
        connectors
    }

    /// A resolver that takes no longer than `limit`.
    pub fn resolver(&self, limit: Arc<Limit>) -> LimitedResolver {
        LimitedResolver { resolver: self.resolver.clone(), limit }
    }

    /// The connector through that proxy, with trust in those authorities.
    ///
    /// # Errors
    /// The proxy's URL is invalid; the configuration's loader has excluded that.
    pub fn of(&self, proxy: Option<&ProxyUrl>, ca_file: Option<&CaFile>) -> Result<Arc<Connector>, Error> {
        if proxy.is_none() && ca_file.is_none() {
            return Ok(Arc::clone(&self.plain));
        }
        let find = |others: &Others| {
            others.known.iter().find(|it| it.is(proxy, ca_file)).map(|it| Arc::clone(&it.connector))
        };
        if let Some(connector) = find(&self.others.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(connector);
        }
        let through = proxy.map(|proxy| Proxy::new(proxy.expose())).transpose()?;
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = find(&others) {
            return Ok(connector);
        }
        others.count += 1;
        let connector = Arc::new(Connector::new(others.count, &self.resolver, through, ca_file));
        let (proxy, ca_file) = (proxy.cloned(), ca_file.cloned());
        others.known.push(Other { proxy, ca_file, connector: Arc::clone(&connector) });
        Ok(connector)
    }

    /// Forgets the connectors that no replica of `config` uses.
    pub fn retain(&self, config: &Config) {
        let takes = |replica: &Replica, other: &Other| {
            [&replica.proxy, &replica.anthropic_proxy]
                .into_iter()
                .any(|proxy| other.is(proxy.as_ref(), replica.ca_file.as_ref()))
        };
        let taken = |other: &Other| {
            config.providers.iter().flat_map(|provider| &provider.replicas).any(|it| takes(it, other))
        };
        self.others.write().unwrap_or_else(PoisonError::into_inner).known.retain(taken);
    }
}

impl Other {
    fn is(&self, proxy: Option<&ProxyUrl>, ca_file: Option<&CaFile>) -> bool {
        self.proxy.as_ref() == proxy && self.ca_file.as_ref() == ca_file
    }
}

impl Connector {
    fn new(
        number: usize,
        resolver: &CachingResolver,
        proxy: Option<Proxy>,
        ca_file: Option<&CaFile>,
    ) -> Self {
        // Sets every option that the product depends on, instead of the library's defaults.
        let settings = Agent::config_builder()
            .proxy(proxy)
            .tls_config(tls_config(ca_file))
            .user_agent("")
            .input_buffer_size(UPSTREAM_READ_BUFFER)
            .output_buffer_size(UPSTREAM_WRITE_BUFFER)
            .build();
        Self {
            number,
            settings,
            resolver: resolver.clone(),
            trust: OnceLock::new(),
            ca_file: ca_file.cloned(),
            proxied_tls: RustlsConnector::default(),
            #[cfg(test)]
            network: None,
        }
    }

    /// Makes a connection to the host of `uri`, with TLS if its scheme asks for that; returns it with its socket. It blocks, no longer than `limit`.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub fn connect(self: &Arc<Self>, uri: &Uri, limit: &Arc<Limit>) -> Result<(Link, Arc<Source>), Error> {
        #[cfg(test)]
        if let Some(network) = &self.network {
            return network.connect();
        }
        let opening = Arc::new(Opening {
            connector: Arc::clone(self),
            resolver: LimitedResolver { resolver: self.resolver.clone(), limit: Arc::clone(limit) },
            is_clear: self.settings.proxy().is_none() && uri.scheme_str() == Some("http"),
            source: OnceLock::new(),
        });
        let resolver = &opening.resolver;
        // Any timeout allows the transport to wait; the limit decides how long.
        let timeout = NextTimeout { after: Duration::from_secs(u64::MAX), ..NextTimeout::default() };
        // A proxy resolves the name itself, unless its scheme leaves that to the client.
        let addrs = match self.settings.proxy().is_none_or(Proxy::resolve_target) {
            true => resolver.resolve(uri, &self.settings, timeout)?,
            false => resolver.empty(),
        };
        let through = Arc::clone(&opening);
        let link = opening.link(&ConnectionDetails {
            uri,
            addrs,
            config: &self.settings,
            request_level: false,
            resolver,
            now: Instant::now(),
            timeout,
            current_time: Arc::new(Instant::now),
            run_connector: Arc::new(move |details| through.to_proxy(details)),
            register_shutdown: Arc::new(|_| Ok(())),
        })?;
        let source = opening.source.get().ok_or(Error::ConnectionFailed)?;
        Ok((link, Arc::clone(source)))
    }

    fn trust(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(trust) = self.trust.get() {
            return Ok(Arc::clone(trust));
        }
        let made = tls::config(self.ca_file.as_ref())?;
        Ok(Arc::clone(self.trust.get_or_init(|| made)))
    }
}

/// A connection that is being made.
struct Opening {
    connector: Arc<Connector>,
    resolver: LimitedResolver,
    /// It will carry plain HTTP: no TLS, no proxy.
    is_clear: bool,
    source: OnceLock<Arc<Source>>,
}

impl Opening {
    /// The link to the provider.
    fn link(&self, details: &ConnectionDetails<'_>) -> Result<Link, Error> {
        let transport = self.open(details)?;
        if !details.needs_tls() {
            return Ok(Link::Other(transport));
        }
        let proxy = self.connector.settings.proxy().map(Proxy::protocol);
        match self.source.get() {
            Some(source) if proxy != Some(ProxyProtocol::Https) => {
                let (trust, source) = (self.connector.trust()?, Arc::clone(source));
                Ok(Link::Tls(Box::new(TlsTransport::connect(trust, details, transport, source)?)))
            }
            _ => Ok(Link::Other(self.with_tls(details, transport)?)),
        }
    }

    fn to_proxy(&self, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        let transport = self.open(details)?;
        self.with_tls(details, transport)
    }

    /// Opens a connection without TLS of its own: to the provider, to a proxy, or through one.
    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        if let Some(Either::B(tunnel)) = ConnectProxyConnector::default().connect(details, None::<()>)? {
            return Ok(tunnel);
        }
        let stream = tcp::open(&self.resolver, details)?;
        let transport = TcpTransport::new(stream, self.is_clear, Arc::clone(&self.resolver.limit));
        // Only one socket stays open.
        drop(self.source.set(Arc::clone(transport.source())));
        Ok(Box::new(transport))
    }

    /// ureq's TLS on that transport, where the details ask for it.
    fn with_tls(
        &self,
        details: &ConnectionDetails<'_>,
        transport: Box<dyn Transport>,
    ) -> Result<Box<dyn Transport>, Error> {
        match self.connector.proxied_tls.connect(details, Some(transport))? {
            Some(Either::A(_)) if details.needs_tls() => Err(Error::TlsRequired),
            Some(Either::A(transport)) => Ok(transport),
            Some(Either::B(transport)) => Ok(Box::new(transport)),
            None => Err(Error::ConnectionFailed),
        }
    }
}

/// Like [`tls::config`], for ureq's own TLS.
pub fn tls_config(ca_file: Option<&CaFile>) -> TlsConfig {
    let roots = ca_file.map_or(RootCerts::WebPki, |ca| {
        ca.certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
    });
    TlsConfig::builder().root_certs(roots).build()
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connector").field("number", &self.number).finish_non_exhaustive()
    }
}
