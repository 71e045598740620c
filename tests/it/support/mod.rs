//! Shared by all topics: a scriptable upstream, the real binary under test, a raw client.

pub mod calls;
pub mod client;
pub mod front;
pub mod gate;
pub mod golden;
pub mod proxy;
pub mod script;
pub mod temp;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod wire;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ai_proxy::front::Source;

/// How long a test waits for something that takes milliseconds. Generous: a noisy machine must never fail a
/// test, and a hang must still end.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The grace a promised bound gets ("within 1 s" is accepted up to this).
pub const WITHIN_A_SECOND: Duration = Duration::from_secs(3);

/// Polls until `ready` gives a value; panics with `what` after [`DEADLINE`].
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Both ends of a connection: a non-blocking one as the source of a response, and the other to feed it.
pub fn tcp_pair() -> (Arc<Source>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    one.set_nonblocking(true).expect("non-blocking");
    (Source::new(one), listener.accept().expect("accept").0)
}
