//! The `ai-proxy` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ai_proxy::cli::run(std::env::args_os().skip(1))
}
