//! `make bench-peers`: what other gateways cost over the same upstream and load; CPU time and memory of all processes
//! of each together.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::Spec;
use crate::plan::{
    CHUNKS_PER_SECOND, CPU_PER_CHUNK_UNBOUND, CPU_PER_REQUEST, Figure, RESPONSES_PER_SECOND, SCENARIOS,
    Scenario,
};
use crate::procfs::{self, Memory, Processes};
use crate::report::{Report, median, number};
use crate::servers::{self, Server, Setup};
use crate::{Bench, gateways};

/// Longest wait until a server has done with what the load left behind.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Interval over which its CPU time is read, and the CPU time that counts as none.
const QUIET_LOOK: Duration = Duration::from_millis(300);
const QUIET_NS: u64 = 15_000_000;

/// Wait after the last start, before memory at rest is read.
const SETTLE: Duration = Duration::from_secs(2);

struct Measure {
    /// Key of the scenario.
    key: &'static str,
    /// (name of the row, what is read)
    figures: [(&'static str, Figure); 2],
}

const MEASURES: [Measure; 2] = [
    Measure {
        key: "whole_0ms_16",
        figures: [
            ("CPU per request, 16 clients", CPU_PER_REQUEST),
            ("requests in that run", RESPONSES_PER_SECOND),
        ],
    },
    Measure {
        key: "stream_2ms_64",
        figures: [
            ("CPU per chunk, every 2 ms, 64 clients", CPU_PER_CHUNK_UNBOUND),
            ("chunks in that run", CHUNKS_PER_SECOND),
        ],
    },
];

/// A gateway that takes part.
struct Contender {
    name: &'static str,
    server: Server,
}

/// A figure of every contender, in their order, a value per round.
struct Row {
    name: &'static str,
    unit: &'static str,
    values: Vec<Vec<f64>>,
}

/// Measures, prints a table and writes it as JSON.
pub fn run(bench: &Bench) -> io::Result<()> {
    let mut report = Report { machine: crate::machine(bench), ..Report::default() };
    let packages = crate::results_folder()?.join("peers");
    report.machine.extend(versions(&packages)?);
    let contenders = start(bench, &packages)?;
    thread::sleep(SETTLE);
    let mut rows = vec![at_rest(&contenders)?];
    for contender in &contenders {
        warm_up(bench, contender, &mut report)?;
    }
    for measure in &MEASURES {
        rows.extend(bench.measure_peers(measure, &contenders, &mut report)?);
    }
    finish(&contenders, &rows, report)
}

fn versions(packages: &Path) -> io::Result<[(&'static str, String); 2]> {
    let says = |program: &Path| servers::first_line_of(Command::new(program).arg("--version"));
    let litellm = gateways::pinned_in_pip("litellm[proxy]")?;
    let portkey = gateways::pinned_in_npm("@portkey-ai/gateway")?;
    Ok([
        ("LiteLLM", format!("{litellm}, {}", says(&packages.join("litellm/bin/python")))),
        ("Portkey", format!("{portkey}, Node {}", says(Path::new("node")))),
    ])
}

/// Starts all of them side by side: at rest each uses little, and so all run under the same conditions.
fn start(bench: &Bench, packages: &Path) -> io::Result<Vec<Contender>> {
    let upstream = &bench.upstream.address;
    eprintln!("bench: starting the peers");
    Ok(vec![
        Contender { name: "nginx", server: servers::start_nginx(&bench.nginx, Setup::Streams, upstream)? },
        Contender { name: "ai-proxy", server: servers::start_ai_proxy(Setup::Streams, upstream)? },
        Contender { name: "LiteLLM", server: gateways::start_litellm(&packages.join("litellm"), upstream)? },
        Contender { name: "Portkey", server: gateways::start_portkey(&packages.join("portkey"), upstream)? },
    ])
}

fn at_rest(contenders: &[Contender]) -> io::Result<Row> {
    let rss_mib = |contender: &Contender| {
        let memory = Memory::now(Processes::Tree(contender.server.guard.pid()))?;
        Ok(vec![memory.rss_kib as f64 / 1024.0])
    };
    let values = contenders.iter().map(rss_mib).collect::<io::Result<_>>()?;
    Ok(Row { name: "RSS after start", unit: "MiB", values })
}

/// Sends the first request, which is slower than all others; a peer that cannot respond is not measured.
fn warm_up(bench: &Bench, contender: &Contender, report: &mut Report) -> io::Result<()> {
    for chunks in [0, 3] {
        let spec = Spec {
            clients: 4,
            chunks,
            gap_us: 2_000,
            warmup_ms: 50,
            window_ms: 0,
            ..bench.spec(&SCENARIOS[0], &contender.server)
        };
        let outcome = bench.run(&spec, report)?;
        if outcome["errors"].as_u64() != Some(0) {
            return Err(io::Error::other(format!("{} does not answer: {outcome}", contender.name)));
        }
    }
    Ok(())
}

impl Bench {
    fn measure_peers(
        &self,
        measure: &Measure,
        contenders: &[Contender],
        report: &mut Report,
    ) -> io::Result<Vec<Row>> {
        let scenario: &Scenario = SCENARIOS
            .iter()
            .find(|scenario| scenario.key == measure.key)
            .ok_or_else(|| io::Error::other(format!("no scenario {}", measure.key)))?;
        let mut rows = measure
            .figures
            .iter()
            .map(|(name, figure)| Row { name, unit: figure.unit, values: vec![Vec::new(); contenders.len()] })
            .collect::<Vec<_>>();
        for round in 1..=self.rounds {
            for (index, contender) in contenders.iter().enumerate() {
                eprintln!("bench: {}, round {round}: {}", scenario.title, contender.name);
                let spec = Spec { tree: true, ..self.spec(scenario, &contender.server) };
                let outcome = self.run(&spec, report)?;
                for (row, (_, figure)) in rows.iter_mut().zip(&measure.figures) {
                    row.values[index].push((figure.read)(&outcome).unwrap_or(f64::NAN));
                }
                if !comes_to_rest(contender)? {
                    report
                        .notes
                        .push(format!("{} was still busy when the next one's run began", contender.name));
                }
            }
        }
        Ok(rows)
    }
}

/// Waits until the server is idle: a slow one is busy for a while with the streams of clients that have left, which
/// must not count for the next one.
fn comes_to_rest(contender: &Contender) -> io::Result<bool> {
    let deadline = Instant::now() + QUIET_MAX;
    let processes = Processes::Tree(contender.server.guard.pid());
    loop {
        let before = procfs::CpuTime::now(processes)?;
        thread::sleep(QUIET_LOOK);
        if procfs::CpuTime::now(processes)?.since(&before) < QUIET_NS {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
    }
}

fn finish(contenders: &[Contender], rows: &[Row], mut report: Report) -> io::Result<()> {
    report.note_foreign();
    println!("{}", text(contenders, rows, &report));
    let file = crate::results_folder()?.join("peers.json");
    fs::write(&file, serde_json::to_string_pretty(&json_of(contenders, rows, &report))?)?;
    println!("as JSON: {}", file.display());
    report.verdict()
}

fn text(contenders: &[Contender], rows: &[Row], report: &Report) -> String {
    let mut out = report.head();
    let _ = write!(out, "\n  {:<38} {:>4}", "medians, and times nginx's", "");
    for contender in contenders {
        let _ = write!(out, " {:>18}", contender.name);
    }
    out.push('\n');
    for row in rows {
        let _ = write!(out, "  {:<38} {:>4}", row.name, row.unit);
        let nginx = median(&row.values[0]);
        for values in &row.values {
            let value = median(values);
            let times = value / nginx;
            let _ = write!(out, " {:>9} {:>8}", number(value), format!("{} x", number(times)));
        }
        out.push('\n');
    }
    out.push('\n');
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn json_of(contenders: &[Contender], rows: &[Row], report: &Report) -> Value {
    let rows = rows.iter().map(|row| {
        let values = contenders
            .iter()
            .zip(&row.values)
            .map(|(contender, values)| (contender.name.to_owned(), json!(values)));
        json!({"figure": row.name, "unit": row.unit, "values": values.collect::<serde_json::Map<_, _>>()})
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "machine": report.machine_json(),
        "rows": rows,
        "notes": report.notes,
        "errors": report.errors,
        "foreign_cpu_percent": report.foreign_percent,
    })
}
