//! `ai-proxy check`: what the configuration says, what is probably wrong with it, and whether its providers respond.

mod probe;
mod table;

use std::path::Path;

use crate::config::{Config, load};
use crate::text::config::Label;

pub use probe::probe;

/// The summary of a valid config without secrets, then its warnings. `path` is the config file.
pub fn summary(config: &Config, path: &Path) -> String {
    let mut lines = vec![load::summary(config)];
    let warning = Label::Warning.say(config.language);
    lines.extend(load::warnings(config, path).iter().map(|text| format!("{warning}: {text}")));
    lines.push(Label::Good.say(config.language).to_owned());
    lines.join("\n")
}
