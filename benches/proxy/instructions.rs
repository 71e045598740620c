//! Instructions that the proxy runs for a request and for a streamed event, counted by callgrind: a figure that no
//! other load on the machine moves, so that CI can hold it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Progress, Response};
use crate::load::Spec;
use crate::plan::{Api, Backslashes, Body};
use crate::servers::{self, Server};

/// Whole requests counted.
const REQUESTS: u32 = 1_000;
/// A request as a coding agent sends it early in a session.
const LARGE: Body = Body::History { bytes: 28_000, backslashes: Backslashes::Usual };
/// Large requests counted.
const LARGE_REQUESTS: u32 = 200;
/// Streamed events counted.
const EVENTS: u64 = 300;
/// Time between two events: far more than one takes under callgrind, so that each is relayed alone.
const GAP_US: u64 = 10_000;
/// Requests before the counted part, so that one-time work (connections, threads, tables) is not counted.
const WARM_UP: u32 = 100;
/// Growth over the committed figure that fails.
const GROWTH_MAX: f64 = 0.10;
/// Longest wait for a byte of the proxy under callgrind.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Counts, compares with the committed figures, and says so.
pub fn run(upstream: &Server) -> io::Result<()> {
    let base = count(upstream, Body::Question, 0, None)?;
    let request = (count(upstream, Body::Question, REQUESTS, None)? - base) / f64::from(REQUESTS);
    let large = (count(upstream, LARGE, LARGE_REQUESTS, None)? - base) / f64::from(LARGE_REQUESTS);
    // A stream of one event costs about as much as a whole request: only further events are counted.
    let events = |api, events| count(upstream, Body::Question, 0, Some((api, events)));
    let event = |api| Ok::<f64, io::Error>((events(api, EVENTS)? - events(api, 1)?) / (EVENTS - 1) as f64);
    compare(&[
        ("request", request),
        ("request_28kb", large),
        ("event", event(Api::Chat)?),
        ("event_to_messages", event(Api::Messages)?),
        ("event_to_responses", event(Api::Responses)?),
    ])
}

/// Instructions of a proxy from start to end, with `requests` of `body` and one stream of so many events to an API.
fn count(upstream: &Server, body: Body, requests: u32, stream: Option<(Api, u64)>) -> io::Result<f64> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    let proxy = servers::start_under_callgrind(&upstream.address, &out)?;
    let mut client = Client::new(&proxy)?;
    let ask_for = |body, (api, chunks)| {
        Spec {
            gap_us: GAP_US,
            body,
            api,
            chunks,
            address: proxy.address.clone(),
            model: proxy.model.to_owned(),
            ..Spec::default()
        }
        .request()
    };
    for (times, body) in [(WARM_UP, Body::Question), (requests, body)] {
        let request = ask_for(body, (Api::Chat, 0));
        for _ in 0..times {
            client.ask(&request)?;
        }
    }
    if let Some(stream) = stream {
        client.ask(&ask_for(Body::Question, stream))?;
    }
    proxy.guard.terminate()?;
    let text = fs::read_to_string(&out)?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    totals.ok_or_else(|| io::Error::other("callgrind wrote no totals"))
}

/// One client that waits for each response.
struct Client(TcpStream);

impl Client {
    fn new(proxy: &Server) -> io::Result<Self> {
        let stream = TcpStream::connect(&proxy.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(stream))
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.0.write_all(request)?;
        let mut response = Response::default();
        response.begin();
        let mut bytes = [0; 16 * 1024];
        loop {
            let count = self.0.read(&mut bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if response.feed(&bytes[..count], |_, _| {})? == Progress::Done {
                return Ok(());
            }
        }
    }
}

fn figures_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

fn compare(counted: &[(&str, f64)]) -> io::Result<()> {
    let committed: Value = serde_json::from_str(&fs::read_to_string(figures_file())?)?;
    let mut grown = Vec::new();
    for (name, now) in counted {
        let then =
            committed[*name].as_f64().ok_or_else(|| io::Error::other(format!("no figure for {name}")))?;
        let growth = now / then - 1.0;
        println!("{name}: {now:.0} instructions, committed {then:.0} ({:+.1}%)", growth * 100.0);
        if growth > GROWTH_MAX {
            grown.push(*name);
        }
    }
    let now: serde_json::Map<_, _> =
        counted.iter().map(|(name, now)| ((*name).to_owned(), json!(now.round()))).collect();
    println!("as committed in benches/instructions.json: {}", Value::Object(now));
    if grown.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "more than {:.0}% over the committed figure: {}",
        GROWTH_MAX * 100.0,
        grown.join(", ")
    )))
}
