//! The processes of a run: started on free loopback ports, stopped when their guard goes.

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::load::Spec;
use crate::plan::{Between, Scenario};

/// The token of ai-proxy's clients; nginx requires none.
pub const CLIENT_TOKEN: &str = "sk-bench-client-token";

/// Longest that a server may take to be ready.
const START_MAX: Duration = Duration::from_secs(10);

/// Longest that one load process may take, warm-up and window included.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// A child process that does not outlive this value.
pub struct Guard {
    child: Child,
    /// It leads a process group, which goes with it.
    leads: bool,
}

impl Guard {
    fn spawn(command: &mut Command) -> io::Result<Guard> {
        Ok(Guard { child: command.stdin(Stdio::null()).spawn()?, leads: false })
    }

    /// With a process group of its own, which holds what it starts and does not outlive this value either.
    pub fn spawn_group(command: &mut Command) -> io::Result<Guard> {
        let mut guard = Guard::spawn(command.process_group(0))?;
        guard.leads = true;
        Ok(guard)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has: a tool that it runs under writes its results then.
    pub fn terminate(mut self) -> io::Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.leads {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        // Each fails only where the child has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This very binary as `role`; it dies with us (see `main`), even where no guard can run.
pub fn this_binary(role: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(role);
    Ok(command)
}

/// `program`, which cannot be asked to die with us: this binary does that first and then becomes it.
fn server_command(program: &Path, setup: Setup) -> io::Result<Command> {
    if setup == Setup::Default {
        return Ok(Command::new(program));
    }
    becoming(program)
}

/// Like [`server_command`], for any setup.
pub fn becoming(program: &Path) -> io::Result<Command> {
    let mut command = this_binary("become")?;
    command.arg(program);
    Ok(command)
}

/// A server that responds at `address`.
pub struct Server {
    pub guard: Guard,
    /// Its children count as well.
    pub tree: bool,
    /// The time right before its process started.
    pub spawned_at: Instant,
    pub address: String,
    /// The name that it knows the upstream's model by.
    pub model: &'static str,
    /// More lines that the heads of requests to it need, each with its end.
    pub headers: String,
}

/// The upstream of everything.
pub fn start_upstream() -> io::Result<Server> {
    let spawned_at = Instant::now();
    let mut guard = Guard::spawn(this_binary("upstream")?.stdout(Stdio::piped()))?;
    let stdout = guard.child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
    let mut port = String::new();
    BufReader::new(stdout).read_line(&mut port)?;
    Ok(Server {
        guard,
        tree: false,
        spawned_at,
        address: format!("127.0.0.1:{}", port.trim()),
        model: "test-model",
        headers: String::new(),
    })
}

/// Runs a load process to its end and gives its outcome.
pub fn run_load(spec: &Spec) -> io::Result<Value> {
    let mut command = this_binary("load")?;
    let mut guard = Guard::spawn(command.arg(spec.to_json().to_string()).stdout(Stdio::piped()))?;
    let mut stdout = guard.child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let result = stdout.read_to_string(&mut text).map(|_| text);
        // The receiver is gone only after LOAD_MAX, when the outcome no longer matters.
        let _ = sender.send(result);
    });
    let text = receiver.recv_timeout(LOAD_MAX).map_err(|_| io::Error::other("load took too long"))??;
    serde_json::from_str(&text).map_err(|_| io::Error::other(format!("load failed: {spec:?}")))
}

/// How a server is set up.
#[derive(Clone, Copy, PartialEq)]
pub enum Setup {
    /// Its defaults; started without a process of ours in between, because the start is timed.
    Default,
    /// Room for 600 streams.
    Streams,
    /// The same on two event loops.
    TwoWorkers,
    /// As [`Setup::Streams`], to an upstream that speaks TLS.
    Tls,
    /// As [`Setup::Streams`], with a line in the log for each request.
    Logged,
    /// As [`Setup::Streams`], beside another ai-proxy with the same setup.
    Itself,
    /// Room for 1,000 requests at once.
    Crowd,
    /// Room for 10,000 idle clients and no more workers than by default.
    IdleClients,
}

impl Setup {
    /// Event loops.
    pub fn workers(self) -> u32 {
        if self == Setup::TwoWorkers { 2 } else { 1 }
    }

    /// Whether that scenario is measured with it.
    pub fn suits(self, scenario: &Scenario) -> bool {
        self == match scenario.between {
            Between::Nginx if scenario.workers > 1 => Setup::TwoWorkers,
            Between::Nginx => Setup::Streams,
            Between::NginxOverTls => Setup::Tls,
            Between::LogLevels => Setup::Logged,
            Between::Scraped | Between::Translated(_) => Setup::Itself,
        }
    }
}

/// Where nginx is, or what to do about it.
pub fn find_nginx() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places
        .find_map(|place| Some(place.join("nginx")).filter(|file| file.is_file()))
        .ok_or_else(|| "nginx is missing: apt-get install nginx-light".to_string())
}

/// The contender: nginx as a plain reverse proxy; one process, or workers under a master.
pub fn start_nginx(nginx: &Path, setup: Setup, upstream: &str) -> io::Result<Server> {
    let (directory, port) = (fresh_directory("nginx")?, free_port()?);
    // nginx sets up every connection's record at its start: the number shows in its memory.
    let connections = match setup {
        Setup::Default => 1_024,
        Setup::Streams | Setup::TwoWorkers | Setup::Tls | Setup::Logged | Setup::Itself => 2_048,
        Setup::Crowd => 4_096,
        Setup::IdleClients => 16_000,
    };
    let kept = if setup == Setup::Crowd { 1_024 } else { 512 };
    let scheme = if setup == Setup::Tls { "https" } else { "http" };
    let conf =
        nginx_conf(&format!("{port} backlog=4096"), scheme, setup.workers(), (connections, kept), upstream);
    fs::write(directory.join("nginx.conf"), conf)?;
    let mut command = server_command(nginx, setup)?;
    command.arg("-p").arg(&directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    let spawned_at = Instant::now();
    let tree = setup.workers() > 1;
    let guard = if tree { Guard::spawn_group(&mut command)? } else { Guard::spawn(&mut command)? };
    let address = format!("127.0.0.1:{port}");
    wait_for(&address, START_MAX)?;
    Ok(Server { guard, tree, spawned_at, address, model: "bench/test-model", headers: String::new() })
}

/// nginx that takes TLS off ahead of `upstream`, where the setup asks for that. It is no contender: what it costs is in no figure.
pub fn start_terminator(nginx: &Path, setup: Setup, upstream: &str) -> io::Result<Option<Server>> {
    if setup != Setup::Tls {
        return Ok(None);
    }
    let (directory, port) = (fresh_directory("terminator")?, free_port()?);
    let certificates = Path::new(CERTIFICATES).display();
    let listen = format!(
        "{port} backlog=4096 ssl; ssl_certificate {certificates}/server.pem; ssl_certificate_key {certificates}/server.key"
    );
    fs::write(directory.join("nginx.conf"), nginx_conf(&listen, "http", 1, (2_048, 512), upstream))?;
    let mut command = becoming(nginx)?;
    command.arg("-p").arg(&directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    let spawned_at = Instant::now();
    let guard = Guard::spawn(&mut command)?;
    let address = format!("127.0.0.1:{port}");
    wait_for(&address, START_MAX)?;
    Ok(Some(Server { guard, tree: false, spawned_at, address, model: "", headers: String::new() }))
}

/// The certificates of the tests, for this machine's own address.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/certificates");

fn nginx_conf(
    listen: &str,
    scheme: &str,
    workers: u32,
    (connections, kept): (u32, u32),
    upstream: &str,
) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path temp_{name};\n"))
        .concat();
    let master = if workers > 1 { "on" } else { "off" };
    format!(
        "daemon off;
master_process {master};
worker_processes {workers};
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
{temporary}    client_max_body_size 0;
    client_body_buffer_size 4m;
    keepalive_timeout 120s;
    keepalive_requests 1000000000;
    upstream provider {{
        server {upstream};
        keepalive {kept};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{listen};
        location = /healthz {{ return 200 ok; }}
        location / {{
            proxy_pass {scheme}://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}

/// The proxy under test.
pub fn start_ai_proxy(setup: Setup, upstream: &str) -> io::Result<Server> {
    start_in(&mut server_command(Path::new(env!("CARGO_BIN_EXE_ai-proxy")), setup)?, setup, upstream)
}

/// The proxy under callgrind, which leaves what it counted in `out` when the proxy ends.
pub fn start_under_callgrind(upstream: &str, out: &Path) -> io::Result<Server> {
    let mut command = this_binary("become")?;
    command.args(["valgrind", "--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(env!("CARGO_BIN_EXE_ai-proxy"));
    start_in(&mut command, Setup::Default, upstream)
}

fn start_in(command: &mut Command, setup: Setup, upstream: &str) -> io::Result<Server> {
    let (directory, port) = (fresh_directory("ai-proxy")?, free_port()?);
    let scheme = if setup == Setup::Tls { "https" } else { "http" };
    let mut config = json!({
        "host": "127.0.0.1",
        "port": port,
        "log_level": "WARNING",
        "log_file": null,
        // As many as nginx has.
        "workers": setup.workers(),
        // It speaks chat completions alone: calls to other APIs are translated.
        "providers": [{"name": "bench", "url": format!("{scheme}://{upstream}/v1"), "key": "sk-bench-upstream-key",
            "responses": "chat"}],
        "tokens": [format!("bench|{CLIENT_TOKEN}")],
    });
    match setup {
        Setup::Default => {}
        Setup::Streams | Setup::TwoWorkers | Setup::Tls | Setup::Logged | Setup::Itself => {
            config["max_connections"] = json!(600);
            config["max_keepalive_connections"] = json!(600);
        }
        Setup::Crowd => {
            config["max_connections"] = json!(1_024);
            config["max_keepalive_connections"] = json!(1_024);
        }
        Setup::IdleClients => config["max_clients"] = json!(10_100),
    }
    if setup == Setup::Tls {
        config["providers"][0]["ca_file"] = json!(format!("{CERTIFICATES}/ca.pem"));
    }
    if setup == Setup::Logged {
        config["log_level"] = json!("INFO");
        config["log_file"] = json!(directory.join("requests.log"));
    }
    let file = directory.join("config.json");
    fs::write(&file, config.to_string())?;
    // ai-proxy warns where other users may read a file that holds keys.
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    let spawned_at = Instant::now();
    let guard = Guard::spawn(command.arg("--config").arg(file).stdout(Stdio::null()))?;
    let address = format!("127.0.0.1:{port}");
    wait_for(&address, START_MAX)?;
    Ok(Server { guard, tree: false, spawned_at, address, model: "bench/test-model", headers: String::new() })
}

/// An empty directory under cargo's own for temporary files.
pub fn fresh_directory(name: &str) -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Tries to connect until it works: the only sign of readiness that all servers share.
pub fn wait_for(address: &str, longest: Duration) -> io::Result<()> {
    let deadline = Instant::now() + longest;
    while let Err(error) = TcpStream::connect(address) {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("no server at {address}: {error}")));
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// The first line that `command` prints, on whichever of its outputs.
pub fn first_line_of(command: &mut Command) -> String {
    let text = match command.output() {
        Ok(output) if output.stdout.is_empty() => String::from_utf8_lossy(&output.stderr).into_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    };
    text.lines().next().unwrap_or_default().to_string()
}
