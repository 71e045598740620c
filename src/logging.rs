//! The log: one line an event, to a file that is reopened on demand, or to stderr.
//!
//! A backend of our own for the `log` facade: the promised format has no brackets around the level, and
//! local time must follow daylight saving while the process runs for years.

mod json;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::tz::TimeZone;
use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Only our own lines: libraries log request heads, which hold keys.
const OWN_TARGET: &str = "ai_proxy";

/// How long a line may wait for whoever reads the log: all connections may wait with it.
const PATIENCE: Duration = Duration::from_millis(10);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// How a line is written (config key `log_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Words, for people and `awk`.
    #[default]
    Text,
    /// A JSON object, for collectors.
    Json,
}

struct Logger {
    sink: Mutex<Sink>,
    json: AtomicBool,
    zone: RwLock<TimeZone>,
}

#[derive(Default)]
struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
    /// A write may have to wait for a reader: it goes to anything but a regular file.
    waits: bool,
    /// A write failed and was told of; it is told of again only after one has worked.
    failing: bool,
}

/// Sends the log of this process to `path` (`None`: stderr) from now on, at `level` and above. Called again to change
/// any of them, to reopen a file that was renamed, and to take the system's time zone where that was changed.
///
/// # Errors
/// The file cannot be opened; the log goes to stderr then.
pub fn start(path: Option<&Path>, level: LevelFilter, format: LogFormat) -> io::Result<()> {
    let logger = LOGGER.get_or_init(|| Logger {
        sink: Mutex::default(),
        json: AtomicBool::default(),
        zone: RwLock::new(TimeZone::UTC),
    });
    *logger.zone.write().unwrap_or_else(PoisonError::into_inner) = local_zone();
    // Refused when it is set already, by an earlier call.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    logger.json.store(format == LogFormat::Json, Ordering::Relaxed);
    let opened = path.map(|path| OpenOptions::new().append(true).create(true).open(path)).transpose();
    let mut sink = logger.lock();
    sink.path = path.map(Path::to_path_buf);
    sink.failing = false;
    sink.waits = !matches!(&opened, Ok(Some(file)) if file.metadata().is_ok_and(|file| file.is_file()));
    match opened {
        Ok(file) => {
            sink.file = file;
            Ok(())
        }
        Err(error) => {
            sink.file = None;
            Err(error)
        }
    }
}

/// The time zone that the environment names (POSIX.1 section 8.3, and a zone's name as every system takes it), else the
/// system's. jiff would find both, but lists all zones there are for it, which takes longer than everything else at the start.
fn local_zone() -> TimeZone {
    let zone_in = |path: &Path| TimeZone::tzif("", &fs::read(path).ok()?).ok();
    let named = std::env::var("TZ").ok();
    let zone = match named.as_deref().map(|name| name.trim_start_matches(':')) {
        None => zone_in(Path::new("/etc/localtime")),
        Some("") => None,
        // A path stands for itself, a name for the file of that name.
        Some(name) => {
            zone_in(&Path::new("/usr/share/zoneinfo").join(name)).or_else(|| TimeZone::posix(name).ok())
        }
    };
    zone.unwrap_or(TimeZone::UTC)
}

impl Logger {
    fn lock(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OWN_TARGET)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = if record.level() == log::Level::Warn { "WARNING" } else { record.level().as_str() };
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner).clone();
        let now = jiff::Timestamp::now().to_zoned(zone);
        let line = if self.json.load(Ordering::Relaxed) {
            json::line(&now, level, record)
        } else {
            format!("{} {level} {}\n", now.strftime("%Y-%m-%d %H:%M:%S%.3f"), record.args())
        };
        self.lock().write(line.as_bytes());
    }

    fn flush(&self) {}
}

impl Sink {
    /// One write a line, so that lines of several processes and a truncating logrotate do not mix.
    fn write(&mut self, line: &[u8]) {
        let ready = if self.waits { self.wait() } else { Ok(()) };
        let written = ready.and_then(|()| match &mut self.file {
            Some(file) => file.write_all(line),
            None => io::stderr().write_all(line),
        });
        match (written, &self.path) {
            (Ok(()), _) => self.failing = false,
            (Err(error), Some(path)) if !std::mem::replace(&mut self.failing, true) => {
                // With stderr gone too there is nobody left to tell.
                let _ = takes(io::stderr(), PATIENCE)
                    .and_then(|()| writeln!(io::stderr(), "ai-proxy: {}: {error}", path.display()));
            }
            (Err(_), _) => self.failing = true,
        }
    }

    /// Waits a moment for whoever reads the log, and no more once that was in vain: it must not hold those who have to
    /// answer.
    fn wait(&self) -> io::Result<()> {
        let patience = if self.failing { Duration::ZERO } else { PATIENCE };
        match &self.file {
            Some(file) => takes(file, patience),
            None => takes(io::stderr(), patience),
        }
    }
}

/// Whether a line can be written without waiting longer than `patience`: a pipe nobody reads is full some day.
fn takes(log: impl AsFd, patience: Duration) -> io::Result<()> {
    let patience = Timespec::try_from(patience).ok();
    match poll(&mut [PollFd::new(&log, PollFlags::OUT)], patience.as_ref()) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it")),
        // A signal, or a log that cannot be asked: the write says more.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Sink;
    use std::fs::OpenOptions;

    #[test]
    fn a_line_that_cannot_be_written_is_told_of_once_and_again_after_one_that_could() {
        let path = std::path::PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).ok();
        let mut sink = Sink { path: Some(path), file, waits: true, failing: false };
        sink.write(b"lost\n");
        assert!(sink.failing);
        sink.file = OpenOptions::new().append(true).open("/dev/null").ok();
        sink.write(b"written\n");
        assert!(!sink.failing);
    }
}
