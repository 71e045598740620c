//! `log_file` and `state_file`: the kind of file at each path, and that the proxy does not also read the
//! file.

use std::path::{Path, PathBuf};

use super::json::Json;
use super::reader::{Leaf, Reader};
use super::value::path_or_null;
use crate::config::Config;
use crate::files::{self, Accept, Identity};
use crate::limits::MAX_QUOTED;
use crate::text::config::ConfigText;
use crate::text::file::FileProblem;
use crate::text::quoted;

/// The log file; null for stderr.
pub(super) fn log_file(json: &Json) -> Leaf<Option<PathBuf>> {
    checked(json, Accept::Log, |path, problem| ConfigText::LogFile { path, problem })
}

/// The file of the daily counts; null for none.
pub(super) fn state_file(json: &Json) -> Leaf<Option<PathBuf>> {
    checked(json, Accept::Regular, |path, problem| ConfigText::StateFile { path, problem })
}

/// Only the kind of a file is a problem of the config. Another failure to open it may be over at the next
/// attempt.
fn checked(
    json: &Json,
    accept: Accept,
    text: impl Fn(String, FileProblem) -> ConfigText,
) -> Leaf<Option<PathBuf>> {
    let path = path_or_null(json)?;
    match path.as_deref().map_or(Ok(()), |path| files::check(path, accept)) {
        Ok(()) => Ok(path),
        Err(problem) => Err(text(path.as_deref().map(shown).unwrap_or_default(), problem)),
    }
}

/// Reports a file that the proxy would write over the config at `path`, over a `ca_file`, or over its other
/// file.
pub(super) fn check_distinct(reader: &mut Reader, config: &Config, path: &Path) {
    let replicas = config.providers.iter().flat_map(|provider| &provider.replicas);
    let ca_files = replicas.filter_map(|replica| replica.ca_file.as_ref());
    let mut known = vec![(None, Identity::of(path))];
    known.extend(ca_files.map(|ca| (Some("ca_file"), Identity::of(&ca.path))));
    let log = config.log_file.iter().map(|path| ("log_file", path.clone()));
    let state = config.state_file.iter().flat_map(|path| [path.clone(), files::new_beside(path)]);
    for (key, path) in log.chain(state.map(|path| ("state_file", path))) {
        let identity = Identity::of(&path);
        let same = known.iter().find(|(other, known)| *known == identity && *other != Some(key));
        if let Some((other, _)) = same {
            reader.report_once(key, ConfigText::SameFile { path: shown(&path), other: *other });
        }
        known.push((Some(key), identity));
    }
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string(), MAX_QUOTED)
}
