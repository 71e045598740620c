//! Replays the fuzz targets' corpora: every build must pass what the fuzzers have found. `make fuzz` looks
//! for more.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

/// A larger corpus must be minimised (`fuzz/run`), so that the replay takes only seconds.
const MOST_FILES: usize = 1000;

#[test]
fn every_corpus_passes_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut directories: Vec<String> = fs::read_dir(&corpora)
        .expect("corpora")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("a plain name"))
        .collect();
    directories.sort();
    let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(directories, names, "a corpus for each target, a target for each corpus");
    for (name, check) in targets::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpora.join(name)).expect("corpus") {
            let path = entry.expect("entry").path();
            let bytes = fs::read(&path).expect("input");
            if let Err(panic) = std::panic::catch_unwind(|| check(&bytes)) {
                eprintln!("{} does not hold", path.display());
                std::panic::resume_unwind(panic);
            }
            count += 1;
        }
        assert!((5..=MOST_FILES).contains(&count), "{name}: {count} inputs");
    }
}
