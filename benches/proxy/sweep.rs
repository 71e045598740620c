//! What a request costs from 1 to 1,000 clients.

use std::io;

use crate::Bench;
use crate::plan::{Between, CPU_PER_REQUEST, Scenario};
use crate::report::{Contender, Report, Row};
use crate::request::Body;
use crate::servers::{self, Setup};

pub const KEY: &str = "sweep";
pub const TITLE: &str = "buffered responses, upstream takes 20 ms, 1 to 1,000 clients";

/// (clients, name of the row, whether a quick run has it)
const POINTS: [(u64, &str, bool); 6] = [
    (1, "CPU per request, 1 client", true),
    (4, "CPU per request, 4 clients", false),
    (16, "CPU per request, 16 clients", false),
    (64, "CPU per request, 64 clients", true),
    (256, "CPU per request, 256 clients", false),
    (1_000, "CPU per request, 1,000 clients", true),
];

/// Descriptors for 1,000 clients, as many connections to the upstream, and everything else.
const FILES_MIN: u64 = 2_500;

/// Appends a row per number of clients; `files_max` is the limit of open files.
pub fn measure(bench: &Bench, files_max: u64, report: &mut Report) -> io::Result<()> {
    if files_max < FILES_MIN {
        report.notes.push(format!("{TITLE}: skipped, no more than {files_max} open files allowed"));
        return Ok(());
    }
    let nginx = servers::start_nginx(&bench.nginx, Setup::Crowd, &bench.upstream.address)?;
    let ai_proxy = servers::start_ai_proxy(Setup::Crowd, &bench.upstream.address)?;
    for (clients, name, _) in POINTS.into_iter().filter(|(_, _, is_quick)| *is_quick || !bench.quick) {
        eprintln!("bench: {TITLE}: {clients}");
        let scenario = Scenario {
            key: KEY,
            title: TITLE,
            clients,
            latency_us: 20_000,
            chunks: 0,
            gap_us: 0,
            body: Body::Question,
            workers: 1,
            between: Between::Nginx,
            figures: &[CPU_PER_REQUEST],
        };
        let mut row = Row::new(KEY, TITLE, name, CPU_PER_REQUEST.unit, None).at(clients);
        for _ in 0..bench.rounds {
            for (contender, server) in [(Contender::Nginx, &nginx), (Contender::AiProxy, &ai_proxy)] {
                let outcome = bench.run(&bench.spec(&scenario, server), report)?;
                row.push(contender, (CPU_PER_REQUEST.read)(&outcome).unwrap_or(f64::NAN));
            }
        }
        report.rows.push(row);
    }
    Ok(())
}
