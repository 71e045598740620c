//! `make bench`: what ai-proxy costs beside nginx as a plain reverse proxy, in one run on one machine.
//!
//! The upstream, the load generator and the proxies are processes of their own; this binary is the
//! first two as well, under another first argument. Runs alternate between no proxy, nginx and ai-proxy,
//! so that a machine that changes its pace does so under all of them. Figures of different runs or
//! machines must not be compared, ratios may.
//!
//! `make bench-peers` puts other gateways beside the two; `benches/peers/install` brings them.
//!
//! `make instructions` counts instructions instead, and fails where they have grown.
//!
//! Arguments name the measurements wanted (`whole_20ms_64`, `footprint`, a part of a name), none: all.
//! `AI_PROXY_BENCH_QUICK=1` shows within a minute that everything works, and little more.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the report goes there, and what the processes tell each other")]

mod chart;
mod client;
mod fairness;
mod footprint;
mod gateways;
mod growth;
mod instructions;
mod load;
mod peers;
mod plan;
mod poller;
mod procfs;
mod report;
mod request;
mod scrape;
mod servers;
mod sweep;
mod upstream;
mod wire;

/// The readers that the checks of cost run.
#[path = "../../fuzz/src"]
#[allow(dead_code, reason = "memory is counted elsewhere")]
mod documents {
    pub mod grown;
    pub mod readers;
    pub mod seeds;
}

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use crate::load::Spec;
use crate::plan::{Between, SCENARIOS, Scenario};
use crate::report::{Contender, Report, Row};
use crate::request::Api;
use crate::servers::{Server, Setup};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["upstream"] => die_with_parent().and_then(|()| upstream::run()),
        ["instructions"] => servers::start_upstream()
            .and_then(|upstream| instructions::run(&upstream))
            .and_then(|()| growth::run()),
        ["growth"] => growth::run(),
        ["read", reader] => die_with_parent().and_then(|()| growth::read(reader)),
        ["peers"] => peers(),
        ["load", spec] => die_with_parent().and_then(|()| load::run(spec)),
        ["become", program, ..] => {
            die_with_parent().and_then(|()| Err(Command::new(program).args(&words[2..]).exec()))
        }
        _ => run(&words),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lets the kernel end this process with the one that started it; survives `exec`.
fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Nanoseconds since 1970.
fn wall_clock_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// What all measurements share.
struct Bench {
    nginx: PathBuf,
    upstream: Server,
    rounds: usize,
    warmup_ms: u64,
    window_ms: u64,
    /// Everything once or twice, and less of it.
    quick: bool,
}

/// Everything once or twice, and less of it.
fn is_quick() -> bool {
    env::var_os("AI_PROXY_BENCH_QUICK").is_some_and(|value| value == "1")
}

/// Other gateways beside us. The slowest handles some hundred requests a second: its windows must be long.
fn peers() -> io::Result<()> {
    raise_files_limit()?;
    let (rounds, warmup_ms, window_ms) = if is_quick() { (1, 500, 1_000) } else { (3, 2_000, 3_000) };
    peers::run(&Bench::new(rounds, warmup_ms, window_ms)?)
}

fn run(wanted: &[&str]) -> io::Result<()> {
    let files_max = raise_files_limit()?;
    let quick = is_quick();
    let (rounds, warmup_ms, window_ms) = if quick { (1, 300, 500) } else { (5, 500, 1_200) };
    let bench = Bench::new(rounds, warmup_ms, window_ms)?;

    let mut report = Report { machine: machine(&bench), ..Report::default() };
    if quick {
        report.notes.push("quick run: the windows are too short for figures worth keeping".to_string());
    }
    let is_wanted = |key: &str| wanted.is_empty() || wanted.iter().any(|part| key.contains(part));
    if SCENARIOS.iter().any(|scenario| is_wanted(scenario.key)) {
        for setup in [Setup::Streams, Setup::Tls, Setup::Logged, Setup::Itself, Setup::TwoWorkers] {
            let wanted = |scenario: &&Scenario| setup.suits(scenario) && is_wanted(scenario.key);
            if SCENARIOS.iter().any(|scenario| wanted(&scenario)) {
                let terminator = servers::start_terminator(&bench.nginx, setup, &bench.upstream.address)?;
                let upstream = terminator.as_ref().unwrap_or(&bench.upstream).address.as_str();
                let nginx = match setup {
                    Setup::Logged | Setup::Itself => servers::start_ai_proxy(Setup::Streams, upstream)?,
                    _ => servers::start_nginx(&bench.nginx, setup, upstream)?,
                };
                let ai_proxy = servers::start_ai_proxy(setup, upstream)?;
                for scenario in SCENARIOS.iter().filter(wanted) {
                    let result = bench.measure(scenario, &nginx, &ai_proxy, &mut report);
                    report.keep_error(scenario.title, result);
                }
            }
        }
    }
    if is_wanted(fairness::KEY) {
        let result = fairness::measure(&bench, &mut report);
        report.keep_error(fairness::TITLE, result);
    }
    if is_wanted(sweep::KEY) {
        let result = sweep::measure(&bench, files_max, &mut report);
        report.keep_error(sweep::TITLE, result);
    }
    if is_wanted("footprint") {
        let result = footprint::measure(&bench, files_max, &mut report);
        report.keep_error(footprint::TITLE, result);
    }
    finish(report)
}

impl Bench {
    fn new(rounds: usize, warmup_ms: u64, window_ms: u64) -> io::Result<Bench> {
        let nginx = servers::find_nginx().map_err(io::Error::other)?;
        let upstream = servers::start_upstream()?;
        Ok(Bench { nginx, upstream, rounds, warmup_ms, window_ms, quick: is_quick() })
    }

    /// Rounds of one scenario: direct, nginx, ai-proxy, and again.
    fn measure(
        &self,
        scenario: &Scenario,
        nginx: &Server,
        ai_proxy: &Server,
        report: &mut Report,
    ) -> io::Result<()> {
        eprintln!("bench: {}", scenario.title);
        let mut rows: Vec<Row> = scenario
            .figures
            .iter()
            .map(|figure| Row::new(scenario.key, scenario.title, figure.name, figure.unit, figure.bounds))
            .collect();
        let contenders =
            [(Contender::Direct, &self.upstream), (Contender::Nginx, nginx), (Contender::AiProxy, ai_proxy)];
        for _ in 0..self.rounds {
            let mut direct = serde_json::Value::Null;
            for (contender, server) in contenders {
                let spec = self.spec(scenario, server);
                let outcome = match (scenario.between, contender) {
                    (Between::Scraped, Contender::AiProxy) => {
                        scrape::beside(&server.address, || self.run(&spec, report))?
                    }
                    (Between::Translated(api), Contender::AiProxy) => {
                        self.run(&Spec { api, ..spec }, report)?
                    }
                    _ => self.run(&spec, report)?,
                };
                for (row, figure) in rows.iter_mut().zip(scenario.figures) {
                    let base = match (figure.over_direct, contender) {
                        (true, Contender::Nginx | Contender::AiProxy) => (figure.read)(&direct),
                        _ => Some(0.0),
                    };
                    let value = (figure.read)(&outcome).zip(base).map(|(value, base)| value - base);
                    row.push(contender, value.unwrap_or(f64::NAN));
                }
                if contender == Contender::Direct {
                    direct = outcome;
                }
            }
        }
        report.rows.extend(rows);
        Ok(())
    }

    fn spec(&self, scenario: &Scenario, server: &Server) -> Spec {
        Spec {
            address: server.address.clone(),
            pid: server.guard.pid(),
            tree: server.tree,
            headers: server.headers.clone(),
            upstream_pid: self.upstream.guard.pid(),
            model: server.model.to_string(),
            clients: scenario.clients,
            latency_us: scenario.latency_us,
            chunks: scenario.chunks,
            gap_us: scenario.gap_us,
            body: scenario.body,
            api: Api::Chat,
            pause_us: 0,
            warmup_ms: self.warmup_ms,
            window_ms: self.window_ms,
        }
    }

    /// One load run; what went wrong in it goes into the report.
    fn run(&self, spec: &Spec, report: &mut Report) -> io::Result<serde_json::Value> {
        let outcome = servers::run_load(spec)?;
        keep_errors(spec, &outcome, report);
        let cores = thread::available_parallelism()?.get() as f64;
        if let Some((foreign_ns, window_s)) =
            outcome["foreign_cpu_ns"].as_f64().zip(outcome["window_s"].as_f64())
        {
            report.foreign_percent.push(foreign_ns / 1e9 / window_s / cores * 100.0);
        }
        Ok(outcome)
    }
}

/// Adds the errors of a load run to the report.
fn keep_errors(spec: &Spec, outcome: &serde_json::Value, report: &mut Report) {
    let errors = outcome["errors"].as_u64().unwrap_or(0);
    if errors > 0 {
        report.errors += errors;
        report.notes.push(format!(
            "{errors} errors, the first {}, in {} clients at {} of {}",
            outcome["first_error"], spec.clients, spec.address, spec.model
        ));
    }
}

/// Raises the limit of open files as far as allowed; children inherit it.
fn raise_files_limit() -> io::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

fn machine(bench: &Bench) -> Vec<(&'static str, String)> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let nginx_version = servers::first_line_of(Command::new(&bench.nginx).arg("-v"));
    vec![
        ("machine", format!("{cores} cores, {}, Linux {}", procfs::cpu_model(), procfs::kernel())),
        ("nginx", nginx_version.trim_start_matches("nginx version: ").to_owned()),
        ("ai-proxy", servers::first_line_of(Command::new(env!("CARGO_BIN_EXE_ai-proxy")).arg("--version"))),
        ("rounds", format!("{} of {} ms", bench.rounds, bench.window_ms)),
    ]
}

/// The folder for the results of every run, created where it is missing.
fn results_folder() -> io::Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Prints the report and keeps it as JSON and as a chart; failed responses make the run fail.
fn finish(mut report: Report) -> io::Result<()> {
    report.note_foreign();
    println!("{}", report.text());
    let folder = results_folder()?;
    let file = folder.join("results.json");
    fs::write(&file, serde_json::to_string_pretty(&report.json())?)?;
    println!("as JSON: {}", file.display());
    let file = folder.join("results.md");
    fs::write(&file, report.markdown())?;
    println!("as Markdown: {}", file.display());
    let chart = report.chart();
    if !chart.is_empty() {
        let file = folder.join("results.svg");
        fs::write(&file, chart.svg())?;
        println!("as a chart: {}", file.display());
    }
    report.verdict()
}
