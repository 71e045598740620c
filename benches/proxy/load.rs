//! The load generator: one thread, many keep-alive clients, each of which asks again as soon as it has
//! its response. It also reads what the process under test used in the very window that it counts.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Progress, Response};
use crate::poller::Poller;
use crate::procfs::{self, CpuTime, Memory, Processes};
use crate::request::{Api, Body};

const READ_BYTES: usize = 64 * 1024;

/// Errors after which a run is aborted.
const ERRORS_MAX: u64 = 100;

/// Longest that a run may exceed its planned time.
const OVERTIME_MAX: Duration = Duration::from_secs(15);

/// Wait before memory is read, for the process under test to come to rest.
const SETTLE: Duration = Duration::from_millis(300);

/// The plan of a run; the load process gets it as JSON.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// `host:port` to send requests to.
    pub address: String,
    /// The process under test.
    pub pid: u32,
    /// Its children count as well.
    pub tree: bool,
    /// The upstream, to tell its use of CPU from that of strangers.
    pub upstream_pid: u32,
    pub model: String,
    /// More lines of the head, each with its end.
    pub headers: String,
    pub clients: u64,
    /// Wait of the upstream before its response.
    pub latency_us: u64,
    /// Events of a stream; 0 asks for buffered responses.
    pub chunks: u64,
    /// Wait of the upstream between two events.
    pub gap_us: u64,
    pub body: Body,
    pub api: Api,
    /// Wait of a lone client between a response and its next request.
    pub pause_us: u64,
    /// First requests are spread over the first half of this; over all of it where there is no window.
    pub warmup_ms: u64,
    /// Time that is counted; 0: every client sends one request and then stays idle.
    pub window_ms: u64,
}

impl Spec {
    pub fn to_json(&self) -> Value {
        json!({
            "address": self.address, "pid": self.pid, "tree": self.tree, "upstream_pid": self.upstream_pid,
            "model": self.model, "headers": self.headers,
            "clients": self.clients, "latency_us": self.latency_us, "chunks": self.chunks, "gap_us": self.gap_us,
            "body": self.body.to_json(), "path": self.api.path(), "pause_us": self.pause_us, "warmup_ms": self.warmup_ms, "window_ms": self.window_ms,
        })
    }

    fn from_json(value: &Value) -> Option<Spec> {
        let number = |key: &str| value[key].as_u64();
        Some(Spec {
            address: value["address"].as_str()?.to_string(),
            pid: number("pid")?.try_into().ok()?,
            tree: value["tree"].as_bool()?,
            upstream_pid: number("upstream_pid")?.try_into().ok()?,
            model: value["model"].as_str()?.to_string(),
            headers: value["headers"].as_str()?.to_string(),
            clients: number("clients")?,
            latency_us: number("latency_us")?,
            chunks: number("chunks")?,
            gap_us: number("gap_us")?,
            body: Body::from_json(&value["body"])?,
            api: Api::at(value["path"].as_str()?)?,
            pause_us: number("pause_us")?,
            warmup_ms: number("warmup_ms")?,
            window_ms: number("window_ms")?,
        })
    }

    fn processes(&self) -> Processes {
        if self.tree { Processes::Tree(self.pid) } else { Processes::One(self.pid) }
    }

    /// The request that every client sends, head and body.
    pub fn request(&self) -> Vec<u8> {
        let wish = format!("latency_us={} chunks={} gap_us={}", self.latency_us, self.chunks, self.gap_us);
        let body = self.api.body(&self.model, &wish, self.body, self.chunks > 0);
        format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nUser-Agent: ai-proxy-bench\r\n\
             Authorization: Bearer {}\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.api.method(),
            self.api.path(),
            self.address,
            crate::servers::CLIENT_TOKEN,
            self.headers,
            body.len()
        )
        .into_bytes()
    }
}

/// CPU time used so far.
struct Usage {
    under_test: CpuTime,
    /// None when the upstream itself is under test.
    upstream: Option<CpuTime>,
    load: CpuTime,
    machine_ns: u64,
}

impl Usage {
    fn now(spec: &Spec) -> io::Result<Usage> {
        let apart = spec.upstream_pid != spec.pid;
        Ok(Usage {
            under_test: CpuTime::now(spec.processes())?,
            upstream: if apart { Some(CpuTime::now(Processes::One(spec.upstream_pid))?) } else { None },
            load: CpuTime::now(Processes::One(std::process::id()))?,
            machine_ns: procfs::machine_busy_ns()?,
        })
    }

    /// Nanoseconds since `earlier`: of the process under test, and of processes that are no part of this.
    fn since(&self, earlier: &Usage) -> (u64, u64) {
        let cpu_ns = self.under_test.since(&earlier.under_test);
        let upstream_ns = match (&self.upstream, &earlier.upstream) {
            (Some(now), Some(then)) => now.since(then),
            _ => 0,
        };
        let ours_ns = cpu_ns + upstream_ns + self.load.since(&earlier.load);
        (cpu_ns, (self.machine_ns - earlier.machine_ns).saturating_sub(ours_ns))
    }
}

struct Client {
    stream: TcpStream,
    response: Response,
    /// Bytes of the request that have still to leave.
    unsent: usize,
    /// When the request on its way was sent.
    asked_at: Instant,
}

/// What was seen inside the window.
#[derive(Default)]
struct Tally {
    /// Buffered responses, or streams that came to their end.
    responses: u64,
    events: u64,
    errors: u64,
    first_error: Option<String>,
    /// For each response: time to its end, of a stream to its first event.
    latencies_ns: Vec<u64>,
    /// Per event: from its sending by the upstream to its arrival.
    delays_ns: Vec<u64>,
}

struct Run {
    spec: Spec,
    request: Vec<u8>,
    poller: Poller,
    clients: Vec<Client>,
    tally: Tally,
    buffer: Vec<u8>,
}

/// Runs the `Spec` in `text` and prints the outcome as one line of JSON.
pub fn run(text: &str) -> io::Result<()> {
    let spec = serde_json::from_str(text).ok().as_ref().and_then(Spec::from_json);
    let spec = spec.ok_or_else(|| io::Error::other("bad load spec"))?;
    let poller = Poller::new()?;
    let mut clients = Vec::new();
    for id in 0..spec.clients {
        let stream = connect(&spec.address, &poller, id)?;
        clients.push(Client { stream, response: Response::default(), unsent: 0, asked_at: Instant::now() });
    }
    let request = spec.request();
    let mut run =
        Run { spec, request, poller, clients, tally: Tally::default(), buffer: vec![0; READ_BYTES] };
    let outcome = if run.spec.window_ms == 0 { run.ask_once()? } else { run.measure()? };
    println!("{outcome}");
    Ok(())
}

fn connect(address: &str, poller: &Poller, id: u64) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    poller.add(&stream, id)?;
    Ok(stream)
}

impl Run {
    /// Warm-up, then the window, with the use of CPU read at its two ends.
    fn measure(&mut self) -> io::Result<Value> {
        let warmup = Duration::from_millis(self.spec.warmup_ms);
        self.drive(Instant::now(), warmup / 2, Instant::now() + warmup)?;

        let before = Usage::now(&self.spec)?;
        self.tally = Tally::default();
        let start = Instant::now();
        self.drive(start, Duration::ZERO, start + Duration::from_millis(self.spec.window_ms))?;
        let window = start.elapsed();
        let (cpu_ns, foreign_ns) = Usage::now(&self.spec)?.since(&before);
        let memory = Memory::now(self.spec.processes())?;

        let tally = &mut self.tally;
        tally.latencies_ns.sort_unstable();
        tally.delays_ns.sort_unstable();
        Ok(json!({
            "window_s": window.as_secs_f64(),
            "answers": tally.responses,
            "events": tally.events,
            "errors": tally.errors,
            "first_error": tally.first_error,
            "cpu_ns": cpu_ns,
            "foreign_cpu_ns": foreign_ns,
            "latency_p50_us": percentile_us(&tally.latencies_ns, 0.50),
            "latency_p99_us": percentile_us(&tally.latencies_ns, 0.99),
            "delay_p50_us": percentile_us(&tally.delays_ns, 0.50),
            "delay_p99_us": percentile_us(&tally.delays_ns, 0.99),
            "rss_kib": memory.rss_kib,
            "pss_kib": memory.pss_kib,
        }))
    }

    /// Every client asks once; then the memory of the process under test, with all of them idle.
    fn ask_once(&mut self) -> io::Result<Value> {
        let start = Instant::now();
        let deadline = start + OVERTIME_MAX;
        let spread = Duration::from_millis(self.spec.warmup_ms);
        while self.tally.responses + self.tally.errors < self.spec.clients {
            if Instant::now() > deadline {
                return Err(io::Error::other("not every client got its response"));
            }
            self.drive(start, spread, Instant::now() + Duration::from_millis(20))?;
        }
        std::thread::sleep(SETTLE);
        let memory = Memory::now(self.spec.processes())?;
        let tally = &self.tally;
        Ok(json!({
            "answers": tally.responses, "errors": tally.errors, "first_error": tally.first_error,
            "rss_kib": memory.rss_kib, "pss_kib": memory.pss_kib,
        }))
    }

    /// Drives the clients until `end`. Their first requests are spread over `spread` from `start` on, so
    /// that they do not run in step; no client sends its first request twice.
    fn drive(&mut self, start: Instant, spread: Duration, end: Instant) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut next = self.clients.iter().take_while(|client| client.response.was_asked()).count();
        loop {
            let now = Instant::now();
            let wake = loop {
                let Some(client) = self.clients.get_mut(next) else {
                    break end;
                };
                let at = start + spread * next as u32 / self.spec.clients as u32;
                if at > now {
                    break at.min(end);
                }
                client.ask(&self.request, &self.poller, next as u64)?;
                next += 1;
            };
            if now >= end {
                return Ok(());
            }
            self.poller.wait(&mut ready, Some(wake.saturating_duration_since(now)))?;
            for &id in &ready {
                if let Err(error) = self.receive(id as usize) {
                    self.recover(id, error)?;
                }
            }
        }
    }

    fn receive(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        if client.unsent > 0 {
            client.send(&self.request, &self.poller, id as u64)?;
        }
        let count = match client.stream.read(&mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let arrived_ns = crate::wall_clock_ns();
        let waited_ns = client.asked_at.elapsed().as_nanos() as u64;
        let tally = &mut self.tally;
        let progress = client.response.feed(&self.buffer[..count], |sent_ns, is_first| {
            tally.events += 1;
            tally.delays_ns.extend(sent_ns.map(|sent_ns| arrived_ns.saturating_sub(sent_ns)));
            if is_first {
                tally.latencies_ns.push(waited_ns);
            }
        })?;
        if progress == Progress::Done {
            tally.responses += 1;
            if self.spec.chunks == 0 {
                tally.latencies_ns.push(waited_ns);
            }
            if self.spec.window_ms > 0 {
                std::thread::sleep(Duration::from_micros(self.spec.pause_us));
                client.ask(&self.request, &self.poller, id as u64)?;
            }
        }
        Ok(())
    }

    /// Counts what went wrong and gives the client a new connection.
    fn recover(&mut self, id: u64, error: io::Error) -> io::Result<()> {
        self.tally.errors += 1;
        self.tally.first_error.get_or_insert(error.to_string());
        if self.tally.errors > ERRORS_MAX {
            return Err(error);
        }
        let client = &mut self.clients[id as usize];
        client.stream = connect(&self.spec.address, &self.poller, id)?;
        client.ask(&self.request, &self.poller, id)
    }
}

impl Client {
    fn ask(&mut self, request: &[u8], poller: &Poller, id: u64) -> io::Result<()> {
        self.response.begin();
        self.asked_at = Instant::now();
        self.unsent = request.len();
        self.send(request, poller, id)
    }

    /// Sends as much as the socket takes; the poller reports when it takes more.
    fn send(&mut self, request: &[u8], poller: &Poller, id: u64) -> io::Result<()> {
        let was_waiting = self.unsent < request.len();
        while self.unsent > 0 {
            match self.stream.write(&request[request.len() - self.unsent..]) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if was_waiting || self.unsent > 0 {
            poller.watch_output(&self.stream, id, self.unsent > 0)?;
        }
        Ok(())
    }
}

/// The value that `share` of the sorted values do not exceed.
fn percentile_us(sorted_ns: &[u64], share: f64) -> Option<f64> {
    let last = sorted_ns.len().checked_sub(1)?;
    let index = (last as f64 * share).round() as usize;
    Some(sorted_ns[index] as f64 / 1000.0)
}
