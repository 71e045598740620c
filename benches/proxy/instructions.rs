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
use crate::request::{Api, Backslashes, Body};
use crate::servers::{self, Server};

/// Whole requests counted.
const REQUESTS: u32 = 1_000;
/// A request as a coding agent sends it early in a session, and late in one.
const LARGE: Body = Body::History { bytes: 28_000, backslashes: Backslashes::Usual };
const LARGEST: Body = Body::History { bytes: 262_000, backslashes: Backslashes::Usual };
/// Large requests counted.
const LARGE_REQUESTS: u32 = 200;
const LARGEST_REQUESTS: u32 = 50;
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
    let base = count(upstream, 0, (Api::Chat, Body::Question, 0))?;
    let request = |times, api, body| {
        Ok::<f64, io::Error>((count(upstream, times, (api, body, 0))? - base) / f64::from(times))
    };
    // A stream of one event costs about as much as a whole request: only further events are counted.
    let events = |api, events| count(upstream, 1, (api, Body::Question, events));
    let event = |api| Ok::<f64, io::Error>((events(api, EVENTS)? - events(api, 1)?) / (EVENTS - 1) as f64);
    compare(&[
        ("request", request(REQUESTS, Api::Chat, Body::Question)?),
        ("request_28kb", request(LARGE_REQUESTS, Api::Chat, LARGE)?),
        ("request_262kb", request(LARGEST_REQUESTS, Api::Chat, LARGEST)?),
        ("request_262kb_from_messages", request(LARGEST_REQUESTS, Api::Messages, LARGEST)?),
        ("request_262kb_from_responses", request(LARGEST_REQUESTS, Api::Responses, LARGEST)?),
        ("event", event(Api::Chat)?),
        ("event_to_messages", event(Api::Messages)?),
        ("event_to_responses", event(Api::Responses)?),
    ])
}

/// Instructions of a proxy from start to end, with so many requests to an API, each for so many events; 0: for a buffered response.
fn count(upstream: &Server, requests: u32, (api, body, chunks): (Api, Body, u64)) -> io::Result<f64> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    let proxy = servers::start_under_callgrind(&upstream.address, &out)?;
    let mut client = Client::new(&proxy)?;
    let small = Spec { address: proxy.address.clone(), model: proxy.model.to_owned(), ..Spec::default() };
    let counted = Spec { api, body, chunks, gap_us: GAP_US, ..small.clone() };
    for (times, spec) in [(WARM_UP, small), (requests, counted)] {
        let request = spec.request();
        for _ in 0..times {
            client.ask(&request)?;
        }
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
