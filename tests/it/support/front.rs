//! The front alone, in this process, with a service of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;

use ai_proxy::front::{Bound, Listen, Running, Service, Settings, Stats};

/// Serves on a free port; where.
pub fn serve<S: Service>(service: &Arc<S>, settings: Settings, stats: &Arc<Stats>) -> (Running, SocketAddr) {
    let bound = Bound::new(&Listen::Tcp("127.0.0.1".to_owned(), 0)).expect("bind");
    let name = bound.names().remove(0);
    let running = bound.serve(Arc::clone(service), settings, Arc::clone(stats)).expect("serve");
    (running, name.strip_prefix("http://").expect("a URL").parse().expect("an address"))
}
