//! The peers of `make bench-peers`, installed by `benches/peers/install`: how each is started and called.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::servers::{self, CLIENT_TOKEN, Guard, Server};

/// LiteLLM takes half a minute on a busy machine.
const START_MAX: Duration = Duration::from_secs(240);

/// Variables that would route loopback traffic through a proxy.
const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// LiteLLM's proxy with one worker, its default, in production mode, logging errors alone. It checks a token, as
/// ai-proxy does. `packages` is its virtual environment.
pub fn start_litellm(packages: &Path, upstream: &str) -> io::Result<Server> {
    let model = "bench/test-model";
    let config = json!({
        "model_list": [{
            "model_name": model,
            "litellm_params": {
                "model": "openai/test-model",
                "api_base": format!("http://{upstream}/v1"),
                "api_key": "sk-bench-upstream-key",
            },
        }],
        "general_settings": { "master_key": CLIENT_TOKEN },
    });
    let port = servers::free_port()?;
    let folder = servers::fresh_directory("litellm")?;
    // Its config is YAML, which JSON is.
    fs::write(folder.join("config.yaml"), config.to_string())?;
    let mut command = servers::becoming(&packages.join("bin/litellm"))?;
    command.args(["--config", "config.yaml", "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.envs([("LITELLM_MODE", "PRODUCTION"), ("LITELLM_LOG", "ERROR")]);
    command.envs([("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_TELEMETRY", "False")]);
    start(command, &folder, port, model, String::new())
}

/// Portkey's gateway, which learns the provider from headers of each request and checks no token. `packages` is the
/// folder of its `package.json`.
pub fn start_portkey(packages: &Path, upstream: &str) -> io::Result<Server> {
    let port = servers::free_port()?;
    let folder = servers::fresh_directory("portkey")?;
    let mut command = servers::becoming(Path::new("/usr/bin/env"))?;
    command.args(["node", "--import"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/loopback.mjs"));
    command.arg(packages.join("node_modules/@portkey-ai/gateway/build/start-server.js"));
    command.args(["--headless".to_owned(), format!("--port={port}")]).env("NODE_ENV", "production");
    let headers = format!("x-portkey-provider: openai\r\nx-portkey-custom-host: http://{upstream}/v1\r\n");
    start(command, &folder, port, "test-model", headers)
}

fn start(
    mut command: Command,
    folder: &Path,
    port: u16,
    model: &'static str,
    headers: String,
) -> io::Result<Server> {
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    let log = File::create(folder.join("log"))?;
    command.current_dir(folder).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    let spawned_at = Instant::now();
    let guard = Guard::spawn_group(&mut command)?;
    let address = format!("127.0.0.1:{port}");
    servers::wait_for(&address, START_MAX)
        .map_err(|error| io::Error::other(format!("{error}; its log: {}", folder.join("log").display())))?;
    Ok(Server { guard, tree: true, spawned_at, address, model, headers })
}

/// The version that `package.json` pins for `name`.
pub fn pinned_in_npm(name: &str) -> io::Result<String> {
    let pins: Value = serde_json::from_str(&fs::read_to_string(pins("package.json"))?)?;
    let version = pins["dependencies"][name].as_str();
    version.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no pin for {name}")))
}

/// The version that `requirements.txt` pins for `name`.
pub fn pinned_in_pip(name: &str) -> io::Result<String> {
    let pins = fs::read_to_string(pins("requirements.txt"))?;
    let version = pins.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=="));
    version
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| io::Error::other(format!("no pin for {name}")))
}

fn pins(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(file)
}
