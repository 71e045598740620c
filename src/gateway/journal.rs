//! The daily token counts on disk: a small file, written under another name and renamed, so that a crash
//! leaves the old or the new file whole. It holds names and numbers, no secrets.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::auth::Quotas;
use crate::auth::quota::{Clock, Spent};
use crate::config::{Config, Token, TokenId};
use crate::core::date::{DAY, DateTime};
use crate::files::{self, Accept};
use crate::limits::{JOURNAL_INTERVAL, MAX_STATE_FILE};
use crate::text::Text;
use crate::text::file::FileProblem;

/// State of the file.
#[derive(Debug, Default)]
pub struct Journal {
    /// Its path, and [`Quotas::changes`] at the last write.
    written: Option<(PathBuf, u64)>,
    /// Time of the last look at the counts.
    looked: Option<Instant>,
    /// The last write failed, and the log says so.
    is_failing: bool,
}

#[derive(Serialize, Deserialize)]
struct Document {
    /// Version of the layout.
    version: u32,
    tokens: Vec<Row>,
}

/// One token's count. Tokens with the same name keep the order of the config.
#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    /// Day in UTC, `2026-01-31`.
    day: String,
    tokens: u64,
}

const VERSION: u32 = 1;

impl Journal {
    /// Restores the counts from the file that `config` names. A missing file is no error. The log names a
    /// file that cannot be read, and the counts begin at zero.
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
            Err(FileProblem::System(io::ErrorKind::NotFound, _)) => {}
            Err(problem) => {
                let (path, reason) = (path.display().to_string(), problem.say(config.language));
                log::error!("{}", Text::StateUnreadable(&path, &reason).say(config.language));
            }
        }
    }

    /// Whether the counts have changed; looks at most every [`JOURNAL_INTERVAL`].
    pub fn is_due(&mut self, config: &Config, quotas: &Quotas) -> bool {
        if self.looked.is_some_and(|at| at.elapsed() < JOURNAL_INTERVAL) {
            return false;
        }
        self.looked = Some(Instant::now());
        config.state_file.as_ref().is_some_and(|path| self.has_news(path, quotas.changes()))
    }

    fn has_news(&self, path: &Path, changes: u64) -> bool {
        let is_known = |(written, at): &(PathBuf, u64)| written == path && *at == changes;
        changes > 0 && !self.written.as_ref().is_some_and(is_known)
    }

    /// Writes the counts if they have changed. A hanging disk blocks the caller.
    pub fn save(&mut self, config: &Config, quotas: &Quotas) {
        let Some(path) = &config.state_file else { return };
        let changes = quotas.changes();
        if !self.has_news(path, changes) {
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
            Err(problem) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let reason = problem.say(config.language);
                    log::error!("{}", Text::StateUnwritable(&shown, &reason).say(config.language));
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
        let mut day = String::new();
        DateTime::of(spent.day * DAY).push_date(&mut day);
        Self { name: token.name.clone(), day, tokens: spent.tokens }
    }

    fn spent(&self) -> Option<Spent> {
        let midnight = DateTime::from_date(&self.day)?;
        Some(Spent { day: midnight.seconds().div_euclid(DAY), tokens: self.tokens })
    }
}

fn read(path: &Path) -> Result<Document, FileProblem> {
    let text = files::read(path, MAX_STATE_FILE)?;
    let document: Document = serde_json::from_slice(&text).map_err(io::Error::from)?;
    if document.version != VERSION {
        let reason = format!("version {}; known is {VERSION}", document.version);
        return Err(io::Error::other(reason).into());
    }
    Ok(document)
}

/// Writes the file whole or not at all, even in a power failure: file and name are on the disk before this
/// returns.
fn write(path: &Path, document: &Document) -> Result<(), FileProblem> {
    let mut text = serde_json::to_vec_pretty(document).map_err(io::Error::from)?;
    text.push(b'\n');
    files::check(path, Accept::Regular)?;
    let new = files::new_beside(path);
    // Never write into an existing file: a crash may have left it, or somebody may have put a pipe or a link
    // there.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
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
