//! A directory of a test's own, removed when the test ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Distinguishes the directories of one run.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Removed with all it holds on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Under Cargo's own directory for integration tests.
    pub fn new() -> TempDir {
        TempDir::under(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// Under the system's directory: the path of a Unix socket may hold 107 bytes only.
    pub fn short() -> TempDir {
        TempDir::under(&std::env::temp_dir())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn under(parent: &Path) -> TempDir {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temp dir");
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
