//! The command line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use signal_hook::consts::SIGPIPE;

use crate::config::load::{self, Problems};
use crate::limits::{LITTLE_MEMORY, MAX_QUOTED, SAY_TIMEOUT};
use crate::text::usage::UsageProblem;
use crate::text::{Language, in_language, quoted};
use crate::{check, demo, logging, serve};

/// Exit code: failed while running.
const FAILED: u8 = 1;
/// Exit code: bad usage or bad configuration.
const BAD_USAGE: u8 = 2;
/// Exit code: the configuration is valid, and a provider failed its probe.
const BAD_PROVIDER: u8 = 3;

const HELP: &str = "\
ai-proxy: one OpenAI-compatible endpoint in front of many AI providers

usage:
  ai-proxy [--config PATH]                   serve
  ai-proxy check [--probe] [--config PATH]   check the configuration, print a summary without secrets; --probe also asks its providers
  ai-proxy demo [--port N]                   serve a built-in provider on 127.0.0.1:8001: no file, no key, no internet
  ai-proxy --version
  ai-proxy --help

The configuration is config.json in the working directory, or what AI_PROXY_CONFIG names, or --config.
exit codes: 0 done, 1 failed while running, 2 bad usage or bad configuration, 3 a provider failed its probe
signals: SIGTERM, SIGINT drain and exit (a second one exits at once); SIGHUP reloads and reopens the log
";

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve(PathBuf),
    /// The path, and whether to ask the providers.
    Check(PathBuf, bool),
    Demo(u16),
    Version,
    Help,
}

pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let from_environment = std::env::var_os("AI_PROXY_CONFIG").filter(|path| !path.is_empty());
    let default_path = from_environment.map_or_else(|| PathBuf::from("config.json"), PathBuf::from);
    match parse(arguments, default_path) {
        Err(problem) => fail(&in_language(locale(), |language| problem.say(language)), BAD_USAGE),
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(concat!("ai-proxy ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Check(path, is_probed)) => check_config(&path, is_probed),
        Ok(Command::Serve(path)) => run_server(&path),
        Ok(Command::Demo(port)) => run_demo(port),
    }
}

fn parse(arguments: impl Iterator<Item = OsString>, default_path: PathBuf) -> Result<Command, UsageProblem> {
    let mut words = Vec::new();
    for argument in arguments {
        let text = argument.into_string().map_err(|_| UsageProblem::NotUtf8)?;
        // `--name=value` equals `--name value`.
        match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                words.extend([name.to_owned(), value.to_owned()]);
            }
            _ => words.push(text),
        }
    }
    let mut words = words.into_iter().peekable();
    let subcommand = words.next_if(|word| matches!(word.as_str(), "check" | "demo"));
    let (mut path, mut port, mut is_probed) = (default_path, demo::DEFAULT_PORT, false);
    let [is_check, is_demo] = ["check", "demo"].map(|name| subcommand.as_deref() == Some(name));
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" if subcommand.is_none() => return Ok(Command::Version),
            "--config" | "-c" if !is_demo => {
                path = PathBuf::from(words.next().ok_or(UsageProblem::NoPath)?);
            }
            "--probe" if is_check => is_probed = true,
            "--port" if is_demo => {
                let value = words.next().ok_or(UsageProblem::NoPort)?;
                port = value.parse().map_err(|_| UsageProblem::BadPort(quoted(&value, MAX_QUOTED)))?;
            }
            other => return Err(UsageProblem::Unknown(quoted(other, MAX_QUOTED))),
        }
    }
    Ok(match (is_check, is_demo) {
        (true, _) => Command::Check(path, is_probed),
        (_, true) => Command::Demo(port),
        _ => Command::Serve(path),
    })
}

fn check_config(path: &Path, is_probed: bool) -> ExitCode {
    let config = match load::from_file(path) {
        Ok(config) => config,
        Err(problems) => return bad_config(&problems),
    };
    serve::say(&check::summary(&config, path));
    if is_probed {
        let (table, is_good) = check::probe(&config);
        serve::say(&table);
        if !is_good {
            return ExitCode::from(BAD_PROVIDER);
        }
    }
    ExitCode::SUCCESS
}

fn run_server(path: &Path) -> ExitCode {
    let config = match load::from_file(path) {
        Ok(config) => config,
        Err(problems) => return bad_config(&problems),
    };
    use_one_arena(config.max_memory);
    let warnings = load::warnings(&config, path);
    exit_code(serve::run(config, Some(path), |_| warnings.iter().for_each(|warning| log::warn!("{warning}"))))
}

/// glibc's allocator has an arena for each thread: 64 MiB of address space each, and memory freed in one is
/// useless to the others. With little memory the process executes itself again with a single arena, because
/// glibc reads the setting from the environment at the start. The process id, and the sockets and variables
/// of a supervisor, stay. If that fails, the arenas stay too, with no other harm.
fn use_one_arena(max_memory: usize) {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    let is_set = std::env::var_os(ARENAS).is_some();
    if !cfg!(target_env = "gnu") || max_memory >= LITTLE_MEMORY || is_set {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    if !is_called(&program, Path::new(&name)) {
        return;
    }
    let mut anew = std::process::Command::new(program);
    // Large blocks return to the system at once when freed.
    anew.arg0(name).args(arguments).env(ARENAS, "1").env("MALLOC_MMAP_THRESHOLD_", "131072");
    drop(anew.exec());
    // `exec` failed, and std has reset SIGPIPE for the new program: to the default, which is deadly.
    drop(signal_hook::flag::register(SIGPIPE, Arc::default()));
}

/// Whether `program` is the file called `name`: under a loader (`ld.so ai-proxy`) it is the loader.
fn is_called(program: &Path, name: &Path) -> bool {
    name.file_name() == program.file_name() || name.canonicalize().is_ok_and(|path| path == program)
}

fn run_demo(port: u16) -> ExitCode {
    let url = match demo::start_provider() {
        Ok(url) => url,
        Err(error) => return fail(&format!("ai-proxy: {error}"), FAILED),
    };
    match demo::config(&url, port) {
        Ok(config) => exit_code(serve::run(config, None, |url| serve::say(&demo::greeting(url)))),
        Err(problems) => bad_config(&problems),
    }
}

/// The rest of the log is written before the process ends.
fn exit_code(result: std::io::Result<()>) -> ExitCode {
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("ai-proxy: {error}"), FAILED),
    }
}

fn bad_config(problems: &Problems) -> ExitCode {
    let language = problems.language().or_else(locale);
    fail(&in_language(language, |language| problems.say(language).join("\n")), BAD_USAGE)
}

fn locale() -> Option<Language> {
    Language::of_locale(&|name| std::env::var(name).ok())
}

fn print(text: &str) -> ExitCode {
    serve::say(text.trim_end());
    ExitCode::SUCCESS
}

fn fail(text: &str, code: u8) -> ExitCode {
    // With stderr closed or full the exit code still shows the result.
    let _ = logging::say(std::io::stderr(), SAY_TIMEOUT, text);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::{Command, Language, UsageProblem, is_called, parse};
    use std::path::{Path, PathBuf};

    fn parsed(arguments: &[&str]) -> Result<Command, UsageProblem> {
        parse(arguments.iter().map(Into::into), PathBuf::from("default.json"))
    }

    #[test]
    fn calls_that_help_lists() {
        assert_eq!(parsed(&[]), Ok(Command::Serve("default.json".into())));
        assert_eq!(parsed(&["--config", "a"]), Ok(Command::Serve("a".into())));
        assert_eq!(parsed(&["--config=a=b"]), Ok(Command::Serve("a=b".into())));
        assert_eq!(parsed(&["check"]), Ok(Command::Check("default.json".into(), false)));
        assert_eq!(parsed(&["check", "--config", "a"]), Ok(Command::Check("a".into(), false)));
        assert_eq!(parsed(&["check", "--probe"]), Ok(Command::Check("default.json".into(), true)));
        assert_eq!(parsed(&["demo"]), Ok(Command::Demo(8001)));
        assert_eq!(parsed(&["demo", "--port", "0"]), Ok(Command::Demo(0)));
        assert_eq!(parsed(&["--version"]), Ok(Command::Version));
        assert_eq!(parsed(&["check", "--help"]), Ok(Command::Help));
    }

    #[test]
    fn bad_usage_is_named() {
        for (arguments, word) in [
            (&["--port", "1"][..], "--port"),
            (&["serve"][..], "serve"),
            (&["--config"][..], "--config"),
            (&["demo", "--port", "70000"][..], "70000"),
            (&["demo", "--config", "a"][..], "--config"),
            (&["check", "extra"][..], "extra"),
        ] {
            let problem = parsed(arguments).expect_err("bad usage");
            for said in [problem.say(Language::En), problem.say(Language::Zh)] {
                assert!(said.contains(word), "{said}");
            }
        }
    }

    #[test]
    fn program_behind_a_loader_is_not_what_was_called() {
        let called = |program: &str, name: &str| is_called(Path::new(program), Path::new(name));
        assert!(called("/opt/ai-proxy", "ai-proxy") && called("/opt/ai-proxy", "./ai-proxy"));
        for name in ["./ai-proxy", "/usr/bin/ai-proxy", "", "/"] {
            assert!(!called("/lib64/ld-linux-x86-64.so.2", name), "{name}");
        }
        assert!(!called("/opt/ai-proxy (deleted)", "/opt/ai-proxy"));
        // Called by another name.
        let (program, link) = (std::env::current_exe().expect("it"), std::env::temp_dir());
        let link = link.join(format!("ai-proxy-link-{}", std::process::id()));
        std::os::unix::fs::symlink(&program, &link).expect("a link");
        assert!(is_called(&program, &link));
        std::fs::remove_file(&link).expect("removed");
    }
}
