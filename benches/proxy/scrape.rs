//! Scrapes `/metrics`, as Prometheus does, during another measurement.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work` and fetches the metrics at `address` each second, from its beginning on.
pub fn beside<T>(address: &str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let scraper = scope.spawn(move || {
            loop {
                fetch(address)?;
                if is_done.recv_timeout(INTERVAL) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        });
        let outcome = work();
        drop(done);
        let scraped: io::Result<()> =
            scraper.join().unwrap_or_else(|_| Err(io::Error::other("the scraper died")));
        scraped.and(outcome)
    })
}

fn fetch(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    if response.starts_with("HTTP/1.1 200") && response.contains("ai_proxy_requests_total") {
        return Ok(());
    }
    Err(io::Error::other(format!("no metrics: {}", response.lines().next().unwrap_or_default())))
}
