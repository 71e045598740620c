//! The log's thread: the only one that opens and writes the log, or waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::queue::Entry;
use super::{Destination, Logger};
use crate::files::{self, Accept};
use crate::limits::{LOG_PAUSE, LOG_PIECE};
use crate::text::Text;
use crate::text::file::FileProblem;

/// Handles the queue's entries for ever.
pub fn run(logger: &Logger) {
    let mut writer = Writer::new(logger);
    loop {
        writer.handle(logger.queue.pop());
    }
}

struct Writer<'a> {
    logger: &'a Logger,
    destination: Destination,
    /// `None`: stderr.
    file: Option<File>,
    /// A write may block on a reader: true for all but regular files.
    waits: bool,
    /// A write has failed and stderr says so; the next failure is reported only after a success.
    is_failing: bool,
    /// Lost lines that the log does not mention yet.
    missing: u64,
}

impl<'a> Writer<'a> {
    fn new(logger: &'a Logger) -> Self {
        let destination = Destination::default();
        Self { logger, destination, file: None, waits: true, is_failing: false, missing: 0 }
    }

    fn handle(&mut self, entry: Entry) {
        match entry {
            Entry::Open(destination) => self.open(destination),
            Entry::Dropped(lines) => {
                self.missing += lines;
                self.report();
            }
            Entry::Line(mut lines) => {
                let count = 1 + self.logger.queue.pop_lines(&mut lines);
                self.report();
                if !self.write(&lines) {
                    self.missing += count;
                    self.logger.queue.lose(count);
                }
            }
        }
    }

    /// Opens the file; if that fails, stderr says so and becomes the log.
    fn open(&mut self, destination: Destination) {
        let language = destination.language;
        let opened = destination.path.as_deref().map(open).transpose();
        self.destination = destination;
        self.is_failing = false;
        let is_regular = |file: &File| file.metadata().is_ok_and(|found| found.is_file());
        self.waits = !matches!(&opened, Ok(Some(file)) if is_regular(file));
        match opened {
            Ok(file) => self.file = file,
            Err(problem) => {
                self.file = None;
                let path = self.destination.path.take().unwrap_or_default().display().to_string();
                let text = Text::LogFileUnusable(&path, &problem.say(language)).say(language);
                self.handle(Entry::Line(self.logger.own_line(Level::Error, &text)));
            }
        }
    }

    /// Writes how many lines are missing, if any are and the log takes a line.
    fn report(&mut self) {
        if self.missing == 0 {
            return;
        }
        let text = Text::LogLinesDropped(self.missing).say(self.destination.language);
        if log::max_level() < Level::Warn || self.write(&self.logger.own_line(Level::Warn, &text)) {
            self.missing = 0;
        }
    }

    /// Returns whether the lines were written. Whole lines in each write, where the system takes it whole, so that
    /// lines of several processes and a truncating logrotate do not mix.
    fn write(&mut self, lines: &str) -> bool {
        match (self.write_all(lines.as_bytes()), &self.destination.path) {
            (Ok(()), _) => {
                self.is_failing = false;
                return true;
            }
            (Err(error), Some(path)) if !self.is_failing => {
                // If stderr is gone too, no place is left to report it.
                let _ = say(io::stderr(), Duration::ZERO, &format!("ai-proxy: {}: {error}", path.display()));
            }
            (Err(_), _) => {}
        }
        self.is_failing = true;
        false
    }

    fn write_all(&self, mut left: &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            if self.waits {
                self.wait()?;
            }
            let piece = if self.waits { &left[..left.len().min(LOG_PIECE)] } else { left };
            let written = match &self.file {
                Some(file) => (&*file).write(piece),
                None => io::stderr().write(piece),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A full terminal claims to have room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.check_destination()?;
                    std::thread::sleep(LOG_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fails when a change of destination waits: the rest for the old one is lost then.
    fn check_destination(&self) -> io::Result<()> {
        if self.logger.queue.has_open() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Waits for the log's reader or for a change of destination.
    fn wait(&self) -> io::Result<()> {
        let stderr = io::stderr();
        let output = self.file.as_ref().map_or_else(|| stderr.as_fd(), AsFd::as_fd);
        let mut timeout = Duration::ZERO;
        while !has_room(output, timeout) {
            self.check_destination()?;
            timeout = LOG_PAUSE;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, FileProblem> {
    files::open(path, OpenOptions::new().append(true).create(true), Accept::Log)
}

/// Writes a line of text to an output that may have no reader: the line is dropped after `timeout`.
///
/// # Errors
/// The output is closed or full.
pub fn say(mut output: impl AsFd + Write, timeout: Duration, text: &str) -> io::Result<()> {
    let line = format!("{text}\n");
    for piece in line.as_bytes().chunks(LOG_PIECE) {
        if !has_room(output.as_fd(), timeout) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        output.write_all(piece)?;
    }
    output.flush()
}

/// Whether [`LOG_PIECE`] bytes can be written without blocking, within `timeout`.
fn has_room(output: BorrowedFd<'_>, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut [PollFd::new(&output, PollFlags::OUT)], timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => false,
        // For an output without `poll`, the write itself shows it.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::path::PathBuf;

    use super::{Entry, Writer};
    use crate::logging::{Destination, Logger};
    use crate::text::Language;

    fn to(path: &str) -> Entry {
        let path = Some(PathBuf::from(path));
        Entry::Open(Destination { path, language: Language::En })
    }

    fn line(text: &str) -> Entry {
        Entry::Line(format!("{text}\n"))
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported_before_the_next_that_can() {
        log::set_max_level(log::LevelFilter::Warn);
        let logger = Logger::new();
        let mut writer = Writer::new(&logger);
        writer.handle(to("/dev/full"));
        writer.handle(line("lost"));
        writer.handle(line("lost too"));
        assert_eq!((writer.is_failing, writer.missing, logger.queue.lost()), (true, 2, 2));

        let path = std::env::temp_dir().join(format!("ai-proxy-writer-{}", std::process::id()));
        writer.handle(to(path.to_str().expect("text")));
        writer.handle(Entry::Dropped(3));
        writer.handle(line("written"));
        assert_eq!((writer.is_failing, writer.missing, logger.queue.lost()), (false, 0, 2));
        let mut text = String::new();
        File::open(&path).and_then(|mut file| file.read_to_string(&mut text)).expect("read");
        drop(std::fs::remove_file(path));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with(" WARNING 5 log lines are missing here"), "{text}");
        assert_eq!(lines[1], "written");
    }

    #[test]
    fn destination_of_another_kind_is_not_opened() {
        let logger = Logger::new();
        let mut writer = Writer::new(&logger);
        writer.handle(to("/dev/null"));
        assert!(writer.file.is_some() && writer.waits);
        writer.handle(to("/"));
        assert!(writer.file.is_none() && writer.waits, "stderr instead");
    }
}
