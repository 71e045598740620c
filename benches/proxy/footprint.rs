//! Memory at rest, with streams, with idle clients; and the time from start to first response.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Bench;
use crate::client::{Progress, Response};
use crate::load::Spec;
use crate::plan::Bound;
use crate::procfs::{Memory, Processes};
use crate::report::{Contender, Report, Row};
use crate::servers::{self, Server, Setup};

const STREAMS: u64 = 200;
const IDLE_CLIENTS: u64 = 10_000;

/// Descriptors for 10,000 connections and everything else.
const IDLE_CLIENTS_FILES_MIN: u64 = 10_500;

/// Time over which the first requests of the idle clients are spread: this measures memory, not a burst.
const IDLE_CLIENTS_SPREAD_MS: u64 = 3_000;

/// Time between two events of a silent stream, microseconds: longer than the measurement.
const SILENCE_US: u64 = 60_000_000;

/// Memory varies little.
const ROUNDS: usize = 3;

/// Starts timed in each round; the median counts.
const STARTS: usize = 7;

/// Wait after a start, until work that happens only once is done.
const SETTLE: Duration = Duration::from_millis(500);

pub const TITLE: &str = "start and memory";

/// Appends a row per figure; `files_max` is the limit of open files.
pub fn measure(bench: &Bench, files_max: u64, report: &mut Report) -> io::Result<()> {
    let row = |name, unit, aim, dream| {
        Row::new("footprint", TITLE, name, unit, Some((Bound::AtMost(aim), Bound::AtMost(dream))))
    };
    let mut start = row("start to first response", "ms", 10.0, 5.0);
    let mut idle = row("RSS after start", "MiB", 5.0, 3.0);
    let mut idle_pss = Row::new("footprint", TITLE, "PSS after start", "MiB", None);
    let mut stream = row("RSS per stream, 200 of them", "KiB", 64.0, 40.0);
    let mut silent = Row::new("footprint", TITLE, "RSS per silent stream, 200", "KiB", None);
    let mut clients = row("RSS for 10,000 idle clients", "MiB", 4.0, 2.0);
    let rounds = if bench.quick { 1 } else { ROUNDS };
    for round in 1..=rounds {
        eprintln!("bench: {TITLE}, round {round}");
        for contender in [Contender::Nginx, Contender::AiProxy] {
            let launch = |setup| match contender {
                Contender::Nginx => servers::start_nginx(&bench.nginx, setup, &bench.upstream.address),
                _ => servers::start_ai_proxy(setup, &bench.upstream.address),
            };
            start.push(contender, start_ms(launch)?);
            let memory = settled(&launch(Setup::Default)?)?;
            idle.push(contender, memory.rss_kib as f64 / 1024.0);
            idle_pss.push(contender, memory.pss_kib as f64 / 1024.0);

            let load = Spec { upstream_pid: bench.upstream.guard.pid(), warmup_ms: 1_000, ..Spec::default() };
            let streams =
                Spec { clients: STREAMS, chunks: 1_000, gap_us: 40_000, window_ms: 400, ..load.clone() };
            let grown_kib = growth_kib(bench, report, &launch(Setup::Streams)?, &streams)?;
            stream.push(contender, grown_kib / STREAMS as f64);
            let streams = Spec { gap_us: SILENCE_US, ..streams };
            let grown_kib = growth_kib(bench, report, &launch(Setup::Streams)?, &streams)?;
            silent.push(contender, grown_kib / STREAMS as f64);
            if files_max >= IDLE_CLIENTS_FILES_MIN {
                let server = launch(Setup::IdleClients)?;
                let load = Spec { clients: IDLE_CLIENTS, warmup_ms: IDLE_CLIENTS_SPREAD_MS, ..load };
                let grown_kib = growth_kib(bench, report, &server, &load)?;
                clients.push(contender, grown_kib / 1024.0);
            }
        }
    }
    report.rows.extend([start, idle, idle_pss, stream, silent]);
    if files_max >= IDLE_CLIENTS_FILES_MIN {
        report.rows.push(clients);
    } else {
        report
            .notes
            .push(format!("10,000 idle clients skipped: no more than {files_max} open files allowed"));
    }
    Ok(())
}

fn settled(server: &Server) -> io::Result<Memory> {
    thread::sleep(SETTLE);
    Memory::now(Processes::One(server.guard.pid()))
}

/// Resident memory that the load adds to a server that has just started, KiB.
fn growth_kib(bench: &Bench, report: &mut Report, server: &Server, load: &Spec) -> io::Result<f64> {
    let before = settled(server)?;
    let spec = Spec {
        address: server.address.clone(),
        pid: server.guard.pid(),
        model: server.model.to_string(),
        ..load.clone()
    };
    let outcome = bench.run(&spec, report)?;
    let after = outcome["rss_kib"].as_f64().ok_or_else(|| io::Error::other("no memory measured"))?;
    Ok(after - before.rss_kib as f64)
}

/// Median time from before the start of the process to its first complete relayed response.
fn start_ms(launch: impl Fn(Setup) -> io::Result<Server>) -> io::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let server = launch(Setup::Default)?;
        first_response(&server)?;
        times.push(server.spawned_at.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[STARTS / 2])
}

fn first_response(server: &Server) -> io::Result<()> {
    let mut stream = TcpStream::connect(&server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let spec = Spec { address: server.address.clone(), model: server.model.to_string(), ..Spec::default() };
    stream.write_all(&spec.request())?;
    let mut response = Response::default();
    response.begin();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if response.feed(&buffer[..count], |_, _| {})? == Progress::Done {
            return Ok(());
        }
    }
}
