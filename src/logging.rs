//! The log: one line per event, to a file that is reopened on demand, or to stderr.
//!
//! A backend of our own for the `log` facade: the documented format has no brackets around the level, and
//! local time must follow daylight saving while the process runs for years. The logging thread formats its
//! line and puts it into a bounded queue; the log's own thread writes it, so that a slow file blocks no other
//! thread.

mod json;
mod queue;
mod writer;

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use jiff::tz::TimeZone;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::core::date::LocalTime;
use crate::files;
use crate::limits::{LOG_FLUSH_TIMEOUT, MAX_TIME_ZONE, THREAD_STACK};
use crate::text::Language;
use queue::Queue;

pub use writer::say;

/// Only our own lines: libraries log request heads, which contain keys.
const OWN_TARGET: &str = "ai_proxy";

/// Room for most lines, bytes.
const USUAL_LINE: usize = 256;

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Format of log lines (config key `log_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Words, for people and `awk`.
    #[default]
    Text,
    /// A JSON object, for collectors.
    Json,
}

/// Destination of log lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destination {
    /// The file; `None`: stderr.
    pub path: Option<PathBuf>,
    /// The language of the log's own lines.
    pub language: Language,
}

struct Logger {
    queue: Queue,
    is_json: AtomicBool,
    zone: RwLock<TimeZone>,
}

/// Sends the log of this process to `destination` from now on, at `level` and above. A further call changes
/// any of them, reopens a renamed file, and reads the system's time zone again. A file that cannot be opened
/// is reported in the log, which is then stderr.
///
/// # Errors
/// The system refuses the log's thread.
pub fn start(destination: Destination, level: LevelFilter, format: LogFormat) -> io::Result<()> {
    let is_first = LOGGER.get().is_none();
    let logger = LOGGER.get_or_init(Logger::new);
    *logger.zone.write().unwrap_or_else(PoisonError::into_inner) = local_zone();
    logger.is_json.store(format == LogFormat::Json, Ordering::Relaxed);
    logger.queue.open(destination);
    // An earlier call has set it already.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    if is_first {
        std::thread::Builder::new()
            .stack_size(THREAD_STACK)
            .name("logger".to_owned())
            .spawn(|| writer::run(logger))?;
    }
    Ok(())
}

/// Waits until the lines logged so far are written, at most [`LOG_FLUSH_TIMEOUT`]: the process ends next.
pub fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.queue.flush(LOG_FLUSH_TIMEOUT);
    }
}

/// Lines lost since the start: the queue was full, or the log could not be written.
pub fn lost_lines() -> u64 {
    LOGGER.get().map_or(0, |logger| logger.queue.lost())
}

/// The time zone of the environment (POSIX.1 section 8.3, or a zone's name as every system takes it), else
/// the system's. jiff finds both too, but it lists all zones first, which takes longer than the rest of the
/// start.
fn local_zone() -> TimeZone {
    let zone_in = |path: &Path| TimeZone::tzif("", &files::read(path, MAX_TIME_ZONE).ok()?).ok();
    let named = std::env::var("TZ").ok();
    let zone = match named.as_deref().map(|name| name.trim_start_matches(':')) {
        None => zone_in(Path::new("/etc/localtime")),
        Some("") => None,
        // A path names a file directly, a name the file of that zone.
        Some(name) => {
            zone_in(&Path::new("/usr/share/zoneinfo").join(name)).or_else(|| TimeZone::posix(name).ok())
        }
    };
    zone.unwrap_or(TimeZone::UTC)
}

impl Logger {
    fn new() -> Self {
        Self { queue: Queue::default(), is_json: AtomicBool::default(), zone: RwLock::new(TimeZone::UTC) }
    }

    /// The line of an event at the current time.
    fn line(&self, record: &Record<'_>) -> String {
        let level = if record.level() == Level::Warn { "WARNING" } else { record.level().as_str() };
        let now = jiff::Timestamp::now();
        let ahead = self.zone.read().unwrap_or_else(PoisonError::into_inner).to_offset(now).seconds();
        let now = LocalTime::of((now.as_second(), now.subsec_millisecond()), ahead);
        let mut line = String::with_capacity(USUAL_LINE);
        if self.is_json.load(Ordering::Relaxed) {
            json::push_line(&mut line, now, level, record);
        } else {
            now.push(&mut line, " ");
            // A write into a string cannot fail.
            let _ = writeln!(line, " {level} {}", record.args());
        }
        line
    }

    /// A line about the log itself.
    fn own_line(&self, level: Level, text: &str) -> String {
        self.line(&Record::builder().level(level).args(format_args!("{text}")).build())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OWN_TARGET)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.queue.push(self.line(record));
        }
    }

    fn flush(&self) {
        flush();
    }
}
