//! What an operator sees of a start: on stderr in one screen, and in the log.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use log::LevelFilter;

use super::Settings;
use crate::config::Config;
use crate::config::load::level_name;
use crate::limits::{MAX_QUOTED, SAY_TIMEOUT};
use crate::logging::{self, LogFormat};
use crate::text::config::Label;
use crate::text::quoted;

/// Shows version, files, addresses and limits of a process that listens under these `names`.
pub fn show(config: &Config, path: Option<&Path>, names: &[String], settings: &Settings) {
    let lines = lines(config, path, names, settings);
    log::info!("{}", lines.join(", "));
    say(config, &format!("{}\n", lines.join("\n  ")));
}

/// Prints a text on stderr, unless that is a log which has the text too, or whose readers expect JSON.
pub fn say(config: &Config, text: &str) {
    let is_in_log = config.log_level >= LevelFilter::Info;
    if config.log_file.is_some() || !is_in_log && config.log_format != LogFormat::Json {
        // It may have no reader.
        let _ = logging::say(io::stderr(), SAY_TIMEOUT, text.trim_end());
    }
}

fn lines(config: &Config, path: Option<&Path>, names: &[String], settings: &Settings) -> Vec<String> {
    let mut lines = vec![concat!("ai-proxy ", env!("CARGO_PKG_VERSION")).to_owned()];
    let mut add = |label: Label, value: &str| {
        lines.push(format!("{}: {value}", label.say(config.language)));
    };
    if let Some(path) = path {
        add(Label::Config, &shown(path));
    }
    add(Label::Listen, &names.join(" "));
    let log = config.log_file.as_deref().map_or_else(|| Label::LogStderr.say(config.language).into(), shown);
    add(Label::Log, &format!("{log} ({})", level_name(config.log_level)));
    if let Some(url) = names.iter().find_map(|name| status_page(name)) {
        add(Label::StatusPage, &url);
    }
    add(Label::Workers, &settings.workers.to_string());
    add(Label::Memory, &format!("{} MiB", config.max_memory >> 20));
    add(Label::Providers, &config.providers.len().to_string());
    lines
}

/// An absolute path: a supervisor's working directory is not the reader's.
fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    quoted(&absolute.as_deref().unwrap_or(path).display().to_string(), MAX_QUOTED)
}

/// URL of the status page for a browser on this machine; `None` for a Unix socket.
fn status_page(name: &str) -> Option<String> {
    let address: SocketAddr = name.strip_prefix("http://")?.parse().ok()?;
    Some(match address.ip().is_unspecified() {
        true => format!("http://localhost:{}/", address.port()),
        false => format!("{name}/"),
    })
}

#[cfg(test)]
mod tests {
    use super::status_page;

    #[test]
    fn status_page_of_an_address_is_one_that_a_browser_opens() {
        for (name, url) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080/")),
            ("http://[::1]:80", Some("http://[::1]:80/")),
            ("http://0.0.0.0:8080", Some("http://localhost:8080/")),
            ("http://[::]:8080", Some("http://localhost:8080/")),
            ("unix:/run/a.sock", None),
        ] {
            assert_eq!(status_page(name).as_deref(), url);
        }
    }
}
