//! The day's counts of tokens on disk: a small file, written aside and renamed, so that a crash leaves the old one or
//! the new one whole. It holds names and numbers, no secrets.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::auth::Quotas;
use crate::auth::quota::{Clock, Spent};
use crate::config::{Config, Token, TokenId};
use crate::limits::{JOURNAL_INTERVAL, MAX_STATE_FILE};
use crate::text::Text;

/// What is known of the file.
#[derive(Debug, Default)]
pub struct Journal {
    /// The path and the state of the counts that it holds.
    written: Option<(PathBuf, u64)>,
    /// When it was last looked after.
    looked: Option<Instant>,
    /// It could not be written last time, and that was said.
    is_failing: bool,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Document {
    /// The layout of this document.
    version: u32,
    tokens: Vec<Row>,
}

/// One token's count. Several tokens of one name stand in the order of the config.
#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    /// The day in UTC, `2026-01-31`.
    day: String,
    tokens: u64,
}

const VERSION: u32 = 1;
const DAY: i64 = 86_400;

impl Journal {
    /// Reads the file that `config` names and takes its counts up. No file is no mistake; one that cannot be read is
    /// told of in the log, and the counts begin at zero.
    pub fn restore(&mut self, config: &Config, quotas: &Quotas) {
        let Some(path) = &config.state_file else { return };
        match read(path) {
            Ok(document) => {
                let mut rows: HashMap<String, Vec<Row>> = HashMap::new();
                for row in document.tokens.into_iter().rev() {
                    rows.entry(row.name.clone()).or_default().push(row);
                }
                for token in limited(config) {
                    let row = rows.get_mut(&token.name).and_then(Vec::pop);
                    if let Some(spent) = row.as_ref().and_then(Row::spent) {
                        quotas.restore(TokenId::of(token), spent, Clock::now());
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display().to_string();
                log::error!("{}", Text::StateUnreadable(&path, &error.to_string()).say(config.language));
            }
        }
    }

    /// Writes the counts if they have changed and the last look is [`JOURNAL_INTERVAL`] ago, or at once if `now`.
    pub fn save(&mut self, config: &Config, quotas: &Quotas, now: bool) {
        let Some(path) = &config.state_file else { return };
        if !now && self.looked.is_some_and(|at| at.elapsed() < JOURNAL_INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        let changes = quotas.changes();
        let is_known = |(written, at): &(PathBuf, u64)| written == path && *at == changes;
        if changes == 0 || self.written.as_ref().is_some_and(is_known) {
            return;
        }
        let rows = limited(config).map(|token| Row::of(token, quotas.spent(TokenId::of(token))));
        let shown = path.display().to_string();
        match write(path, &Document { version: VERSION, tokens: rows.collect() }) {
            Ok(()) => {
                self.written = Some((path.clone(), changes));
                if std::mem::take(&mut self.is_failing) {
                    log::warn!("{}", Text::StateWritable(&shown).say(config.language));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::error!("{}", Text::StateUnwritable(&shown, &error.to_string()).say(config.language));
                }
            }
        }
    }
}

fn limited(config: &Config) -> impl Iterator<Item = &Token> {
    config.tokens.iter().filter(|token| token.tokens_per_day.is_some())
}

impl Row {
    fn of(token: &Token, spent: Spent) -> Self {
        let date = jiff::Timestamp::from_second(spent.day * DAY).unwrap_or_default();
        let day = date.strftime("%Y-%m-%d").to_string();
        Self { name: token.name.clone(), day, tokens: spent.tokens }
    }

    fn spent(&self) -> Option<Spent> {
        let date: Date = self.day.parse().ok()?;
        let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Spent { day: midnight.as_second().div_euclid(DAY), tokens: self.tokens })
    }
}

fn read(path: &Path) -> io::Result<Document> {
    let mut text = Vec::new();
    // A pipe would let its reader wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let file = File::open(path)?;
    file.take(MAX_STATE_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_STATE_FILE {
        return Err(io::Error::other(format!("more than {MAX_STATE_FILE} bytes")));
    }
    let document: Document = serde_json::from_slice(&text)?;
    if document.version != VERSION {
        return Err(io::Error::other(format!("version {}; known is {VERSION}", document.version)));
    }
    Ok(document)
}

/// The file appears whole or not at all, also where the power fails: it and its name are on the disk before this returns.
fn write(path: &Path, document: &Document) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let aside = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Row, Spent};
    use crate::config::{Credential, Secret, Token};

    #[test]
    fn a_day_is_written_as_a_date_and_read_again() {
        let token = Token {
            name: "t".into(),
            token: Credential::read(Secret::new("sk-t".into())).expect("a token"),
            models: None,
            rpm: None,
            max_parallel: None,
            tokens_per_day: Some(1),
        };
        for (day, date) in [(0, "1970-01-01"), (20_484, "2026-01-31")] {
            let row = Row::of(&token, Spent { day, tokens: 7 });
            assert_eq!(row.day, date);
            assert_eq!(row.spent(), Some(Spent { day, tokens: 7 }));
        }
        assert_eq!(Row { name: String::new(), day: "soon".into(), tokens: 1 }.spent(), None);
    }
}
