//! The ways to providers: an agent for each pair of proxy and trusted certificate authorities, all over one pool.
//!
//! An agent of its own keeps what a TLS handshake costs to prepare and what it can resume; settings of a single request
//! would have ureq prepare it anew for each connection.

use std::sync::{Arc, PoisonError, RwLock};

use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, Body, Error, Proxy, SendBody};

use super::pool::Pool;
use super::resolver::CachingResolver;
use super::transport::TcpConnector;
use crate::config::{CaFile, Config, Replica, Secret};
use crate::limits::{MAX_UPSTREAM_HEAD, UPSTREAM_READ_BUFFER, UPSTREAM_WRITE_BUFFER};

/// Every way that has been gone, the plain one always at hand.
#[derive(Debug)]
pub struct Ways {
    plain: Agent,
    detours: RwLock<Detours>,
    pool: Arc<Pool>,
    resolver: CachingResolver,
}

#[derive(Debug, Default)]
struct Detours {
    known: Vec<Detour>,
    /// How many there have ever been; the plain way is number 0.
    count: usize,
}

/// A way with a proxy on it, or with certificate authorities of its own.
#[derive(Debug)]
struct Detour {
    proxy: Option<Secret>,
    ca_file: Option<CaFile>,
    agent: Agent,
}

impl Ways {
    /// Ways whose idle connections lie in `pool`.
    pub fn new(pool: &Arc<Pool>) -> Self {
        let resolver = CachingResolver::default();
        let plain = agent(pool, &resolver, 0, None, None);
        Self { plain, detours: RwLock::default(), pool: Arc::clone(pool), resolver }
    }

    /// Sends a request through that proxy to whom those authorities vouch for, and gives the answer's head, its body unread.
    ///
    /// # Errors
    /// ureq's, whatever went wrong up to there.
    pub fn run(
        &self,
        proxy: Option<&Secret>,
        ca_file: Option<&CaFile>,
        request: Request<SendBody<'_>>,
    ) -> Result<Response<Body>, Error> {
        if proxy.is_none() && ca_file.is_none() {
            return self.plain.run(request);
        }
        self.detour(proxy, ca_file)?.run(request)
    }

    fn detour(&self, proxy: Option<&Secret>, ca_file: Option<&CaFile>) -> Result<Agent, Error> {
        let find = |detours: &Detours| {
            detours.known.iter().find(|it| it.is(proxy, ca_file)).map(|it| it.agent.clone())
        };
        if let Some(agent) = find(&self.detours.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(agent);
        }
        let through = proxy.map(|proxy| Proxy::new(proxy.expose())).transpose()?;
        let mut detours = self.detours.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = find(&detours) {
            return Ok(agent);
        }
        detours.count += 1;
        let agent = agent(&self.pool, &self.resolver, detours.count, through, ca_file);
        let (proxy, ca_file) = (proxy.cloned(), ca_file.cloned());
        detours.known.push(Detour { proxy, ca_file, agent: agent.clone() });
        Ok(agent)
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

fn agent(
    pool: &Arc<Pool>,
    resolver: &CachingResolver,
    way: usize,
    proxy: Option<Proxy>,
    ca_file: Option<&CaFile>,
) -> Agent {
    let roots = ca_file.map_or(RootCerts::WebPki, |ca| {
        ca.certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into()
    });
    let connectors =
        ().chain(ConnectProxyConnector::default()).chain(TcpConnector).chain(RustlsConnector::default());
    // Whatever the product depends on is said here, not left to the library's defaults.
    let settings = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .max_response_header_size(MAX_UPSTREAM_HEAD)
        .input_buffer_size(UPSTREAM_READ_BUFFER)
        .output_buffer_size(UPSTREAM_WRITE_BUFFER)
        // Idle connections are kept in our own pool.
        .max_idle_connections(0)
        .build();
    Agent::with_parts(settings, pool.around(connectors, way), resolver.clone())
}
