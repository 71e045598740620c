//! Cost in proportion: known documents, with each of their places grown and with several at once, are read for memory and
//! output in proportion to their size. `make fuzz` looks for more; `make instructions` counts instructions.

use super::corpora::targets::cost::check_grown;
use super::corpora::targets::grown::{GROWTHS, places};
use super::corpora::targets::readers::READERS;

/// Documents grown in one place, for each seed at most; a seed with fewer has each of its places grown in each way.
const SINGLE: usize = 40;
/// Documents grown in several places at once, for each seed.
const MIXED: usize = 8;

/// Knuth's generator: the same documents in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }
}

#[test]
fn grown_documents_cost_their_size_to_read() {
    std::thread::scope(|scope| {
        for reader in READERS {
            let sweep = move || {
                let mut grown = 0;
                for seed in (reader.seeds)() {
                    let (count, mut dice) = (places(&seed), Dice(grown));
                    let every = (count * GROWTHS.len()).div_ceil(SINGLE).max(1);
                    for step in (0..count * GROWTHS.len()).step_by(every) {
                        check_grown(reader, &seed, &[(step % GROWTHS.len(), step / GROWTHS.len())]);
                        grown += 1;
                    }
                    for _ in 0..MIXED.min(count) {
                        check_grown(reader, &seed, &[(); 3].map(|()| (dice.roll(), dice.roll())));
                        grown += 1;
                    }
                }
                assert!(grown > 20, "{}: {grown} documents", reader.name);
            };
            std::thread::Builder::new()
                .name(reader.name.to_owned())
                .spawn_scoped(scope, sweep)
                .expect("a thread");
        }
    });
}
