//! What must hold for any bytes whatever: one module a target, each with one `check` that panics where it does not.
//! The fuzzer calls them with what it invents, `tests/it/corpora.rs` with what the fuzzer once found worth keeping.

pub mod chunked;
pub mod config;
pub mod cost;
pub mod events;
pub mod grown;
pub mod head;
pub mod multipart;
pub mod readers;
pub mod response;
pub mod seeds;
pub mod splice;
pub mod translation;

/// Panics where something does not hold.
pub type Check = fn(&[u8]);

/// A target's name, which is also the name of its directory in `fuzz/corpus`, and its check.
pub const TARGETS: &[(&str, Check)] = &[
    ("chunked", chunked::check),
    ("config", config::check),
    ("cost", cost::check),
    ("events", events::check),
    ("head", head::check),
    ("multipart", multipart::check),
    ("response", response::check),
    ("splice", splice::check),
    ("translation", translation::check),
];

/// The input's first byte says into pieces of which size the rest is to be cut; 0: not at all.
fn cut(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((0, rest)) => (rest.len().max(1), rest),
        Some((&size, rest)) => (usize::from(size), rest),
        None => (1, data),
    }
}

/// Bytes that stand for a long run, so that a small input reaches a large bound.
const RUN: u8 = 0xff;

/// The input with the first `most` of its bytes that stand for a run as runs of that length.
fn with_runs(bytes: &[u8], most: usize, length: usize) -> Vec<u8> {
    let mut runs = 0;
    let expand = |&byte: &u8| {
        runs += usize::from(byte == RUN);
        std::iter::repeat_n(byte, if byte == RUN && runs <= most { length } else { 1 })
    };
    bytes.iter().flat_map(expand).collect()
}
