//! Instructions for reading a document and one twice as large: twice the size must not cost much more than twice as
//! much. Callgrind counts each reading by itself; the documents are those of `tests/it/cost.rs`.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::Stdio;

use crate::documents::grown::{GROWTHS, grow, steps};
use crate::documents::readers::{READERS, Reader};
use crate::servers;

/// Bytes added to the smaller document: enough that a cost quadratic in its elements outweighs the rest.
const BUDGET: usize = 128 * 1024;
/// Most places at which the documents of one reader grow.
const PLACES: usize = 12;
/// Most that twice the size may cost, as a ratio: two, and some for tables that happen to grow.
const DOUBLED_MAX: f64 = 2.6;
/// Instructions per byte of the document, below which the reader has refused it at its beginning.
const REFUSED: f64 = 0.1;

/// Counts for every reader; fails where the cost grows more than [`DOUBLED_MAX`].
pub fn run() -> io::Result<()> {
    let directory = servers::fresh_directory("growth")?;
    let mut failed = Vec::new();
    for (number, reader) in READERS.iter().enumerate() {
        let costs = count(number, &directory)?;
        let ratios = costs.chunks_exact(2).filter_map(|pair| {
            let (small, large) = (pair[0], pair[1]);
            (large > REFUSED * BUDGET as f64).then_some(large / small.max(REFUSED * BUDGET as f64 / 2.0))
        });
        let most = ratios.fold(0.0, f64::max);
        println!("{}: twice the size costs {most:.2} times the instructions at most", reader.name);
        if costs.is_empty() || most > DOUBLED_MAX {
            failed.push(reader.name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("costs more than {DOUBLED_MAX} times: {}", failed.join(", "))))
}

/// The instructions of each reading, the small document's before the large one's.
fn count(reader: usize, directory: &Path) -> io::Result<Vec<f64>> {
    let out = directory.join(format!("{reader}.out"));
    let mut command = servers::this_binary("become")?;
    command.args(["valgrind", "--quiet", "--tool=callgrind", "--dump-before=*growth*counted*"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).args(["read", &reader.to_string()]);
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("callgrind ended with {status}")));
    }
    // Dumps are numbered from one; every second one holds a reading.
    let mut costs = Vec::new();
    for number in (2..).step_by(2) {
        let Ok(text) = fs::read_to_string(format!("{}.{number}", out.display())) else { break };
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
        costs.push(total.ok_or_else(|| io::Error::other("a dump without totals"))?);
    }
    Ok(costs)
}

/// Runs under callgrind: reads the documents of both sizes.
pub fn read(reader: &str) -> io::Result<()> {
    let reader = reader.parse().ok().and_then(|number: usize| READERS.get(number));
    let reader = reader.ok_or_else(|| io::Error::other("no such reader"))?;
    let seeds = (reader.seeds)();
    // The largest seed has the most places to grow.
    let Some(seed) = seeds.iter().max_by_key(|seed| steps(seed).len()) else { return Ok(()) };
    let steps = steps(seed);
    // An odd stride reaches every kind of growth.
    let every = steps.len().div_ceil(PLACES).max(1) | 1;
    for (growth, place) in steps.into_iter().step_by(every) {
        for budget in [BUDGET, 2 * BUDGET] {
            let input =
                grow(seed, place, GROWTHS[growth], budget).and_then(|document| (reader.render)(&document));
            counted_end(counted_reading(reader, &input.unwrap_or_default()));
        }
    }
    Ok(())
}

/// Callgrind counts from this function, found by its name,
#[inline(never)]
fn counted_reading(reader: &Reader, input: &[u8]) -> usize {
    (reader.read)(black_box(input))
}

/// to this one.
#[inline(never)]
fn counted_end(written: usize) {
    black_box(written);
}
