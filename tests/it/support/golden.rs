//! Files with the expected output for each input. `AI_PROXY_GOLDEN=write` writes the output again; then read
//! the difference.

use std::fs;
use std::path::{Path, PathBuf};

use ai_proxy::config::Thinking;
use ai_proxy::dialect::{Problem, Refusal};

/// A folder of such files.
pub fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Compares each output with its file.
pub fn hold(made: impl IntoIterator<Item = (PathBuf, String)>) {
    let mut wrong = Vec::new();
    for (path, made) in made {
        if std::env::var("AI_PROXY_GOLDEN").is_ok_and(|what| what == "write") {
            fs::write(&path, &made).expect("write");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if made != expected {
            wrong.push(format!("{}\n   made: {made}\nexpected: {expected}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A refusal as a line of such a file.
pub fn refused(refusal: &Refusal) -> String {
    let Refusal { place, problem } = refusal;
    match problem {
        Problem::NotCarried => format!("not carried: {place}\n"),
        Problem::Expected(what) => format!("{place}: expected {what}\n"),
        Problem::TooLarge(limit) => format!("over {limit} bytes\n"),
    }
}

/// The earlier thoughts that the provider accepts, by the name of a case.
pub fn thinking_of(name: &str) -> Thinking {
    match (name.contains("is_wanted"), name.contains("is_refused")) {
        (true, _) => Thinking::All,
        (_, true) => Thinking::Nothing,
        _ => Thinking::Unsigned,
    }
}
