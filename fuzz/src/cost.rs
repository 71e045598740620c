//! What reading a document costs is in proportion to its size, whatever stands in it: the memory, the bytes written, and the
//! growth of both when the document doubles.

use allocation_counter::measure;

use super::grown::{GROWTHS, grow};
use super::readers::{READERS, Reader};

/// Bytes that a grown document has more than its seed; twice so many in the second measurement.
const BUDGET: usize = 24 * 1024;
/// Buffers of a fixed size, and what the shortest document takes.
const ROOM: usize = 64 * 1024;
/// What a larger document may allocate in all for each byte, relative to the smaller one, times four.
const GROWTH_QUARTERS: u64 = 5;
/// Times [`Reader::memory`] that may be allocated in all whatever the smaller document took: one that was refused early is no
/// measure for a larger one.
const LITTLE: usize = 2;
/// Places grown in one document at most.
const MAX_STEPS: usize = 3;
/// Largest seed, so that it is what grows that is measured.
const MAX_SEED: usize = BUDGET / 2;

/// Where a document grows, and how.
type Step = (usize, usize);

/// The input: a reader's number, how many steps, for each step its growth and the two bytes of its place, the document.
pub fn check(data: &[u8]) {
    let Some((&[reader, steps], rest)) = data.split_first_chunk::<2>() else { return };
    let steps = 1 + usize::from(steps) % MAX_STEPS;
    let Some((steps, document)) = rest.split_at_checked(3 * steps) else { return };
    let steps: Vec<Step> = steps
        .chunks_exact(3)
        .map(|step| (usize::from(step[0]), usize::from(u16::from_be_bytes([step[1], step[2]]))))
        .collect();
    let Ok(document) = std::str::from_utf8(document) else { return };
    if document.len() <= MAX_SEED {
        check_grown(&READERS[usize::from(reader) % READERS.len()], document, &steps);
    }
}

/// Holds what the reader takes for the grown document, and for one twice as large, to the bounds.
pub fn check_grown(reader: &Reader, document: &str, steps: &[Step]) {
    let Some((small, first)) = cost(reader, document, steps, BUDGET) else { return };
    let Some((large, second)) = cost(reader, document, steps, 2 * BUDGET) else { return };
    if large > 3 * small {
        return;
    }
    let as_before = first.max((LITTLE * reader.memory * small) as u64) * large as u64 / small.max(1) as u64;
    let most = as_before * GROWTH_QUARTERS / 4 + ROOM as u64;
    assert!(
        second <= most,
        "{}: {first} bytes allocated for {small}, {second} for {large}: {steps:?}",
        reader.name
    );
}

/// The size of the document and the bytes allocated for it in all.
fn cost(reader: &Reader, document: &str, steps: &[Step], budget: usize) -> Option<(usize, u64)> {
    let mut document = document.to_owned();
    for (growth, place) in steps {
        document = grow(&document, *place, GROWTHS[growth % GROWTHS.len()], budget / steps.len())?;
    }
    let input = (reader.render)(&document)?;
    let (size, mut written) = (input.len(), 0);
    let used = measure(|| written = (reader.read)(&input));
    let held = size as u64 + used.bytes_max;
    let name = reader.name;
    assert!(held <= (reader.memory * size + ROOM) as u64, "{name}: {held} bytes held for {size}: {steps:?}");
    assert!(written <= reader.memory * size + ROOM, "{name}: {written} bytes written for {size}: {steps:?}");
    Some((size, used.bytes_total))
}
