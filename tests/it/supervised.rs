//! Messages to a supervisor, and what it passes: readiness, reload, stop, watchdog, sockets.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::calls::{DONE, ask, ask_streamed, completion, event};
use crate::support::client::{Client, End};
use crate::support::gate::Gate;
use crate::support::proxy::{Finished, Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;
use crate::support::{DEADLINE, eventually};

/// The supervisor's notification socket.
struct Ear(UnixDatagram);

impl Ear {
    fn at(directory: &TempDir) -> Ear {
        Ear::over(UnixDatagram::bind(directory.join("notify")).expect("bind"))
    }

    fn over(socket: UnixDatagram) -> Ear {
        socket.set_read_timeout(Some(DEADLINE)).expect("time limit");
        Ear(socket)
    }

    /// The next message, line by line.
    fn hear(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).expect("text").lines().map(str::to_owned).collect()
    }
}

fn start(directory: TempDir, adjust: impl FnOnce(&mut Command)) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start_in(directory, &config(&[("p1", &upstream)]), adjust);
    (upstream, proxy)
}

#[test]
fn ready_reload_and_stop_are_notified_in_order() {
    let directory = TempDir::new();
    let (ear, address) = (Ear::at(&directory), directory.join("notify"));
    let (_upstream, mut proxy) = start(directory, |command| {
        command.env("NOTIFY_SOCKET", address);
    });
    assert_eq!(ear.hear(), ["READY=1".to_owned(), format!("STATUS=listening on http://{}", proxy.address())]);

    for (text, status) in
        [(None, "STATUS=configuration reloaded"), (Some("{}"), "STATUS=the new configuration has errors")]
    {
        if let Some(text) = text {
            std::fs::write(proxy.config_path(), text).expect("write");
        }
        proxy.signal(Signal::HUP);
        let reloading = ear.hear();
        assert_eq!(reloading[0], "RELOADING=1");
        let stamp: u64 =
            reloading[1].strip_prefix("MONOTONIC_USEC=").expect("stamp").parse().expect("number");
        assert!(stamp > 0);
        let ready = ear.hear();
        assert_eq!(ready[0], "READY=1");
        assert!(ready[1].starts_with(status), "{ready:?}");
    }
    assert_eq!(proxy.call(ask("p1/m")).status, 200, "the bad config changed nothing");

    proxy.signal(Signal::TERM);
    let stopping = ear.hear();
    assert_eq!(stopping[..2], ["STOPPING=1".to_owned(), "EXTEND_TIMEOUT_USEC=31000000".to_owned()]);
    assert!(stopping[2].starts_with("STATUS="), "{stopping:?}");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_name_in_the_abstract_namespace_and_the_sign_of_life() {
    let directory = TempDir::new();
    let name = format!("ai-proxy-test-{}", directory.path().file_name().expect("name").to_string_lossy());
    let address = SocketAddr::from_abstract_name(&name).expect("address");
    let ear = Ear::over(UnixDatagram::bind_addr(&address).expect("bind"));
    let (_upstream, _proxy) = start(directory, |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "200000");
    });
    // Without any client: the sign of life must not need one.
    let mut alive = 0;
    while alive < 3 {
        alive += usize::from(ear.hear() == ["WATCHDOG=1"]);
    }
}

#[test]
fn a_watchdog_for_another_process_is_left_alone() {
    let directory = TempDir::new();
    let (ear, address) = (Ear::at(&directory), directory.join("notify"));
    let (_upstream, proxy) = start(directory, |command| {
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "20000").env("WATCHDOG_PID", "1");
    });
    assert_eq!(ear.hear()[0], "READY=1");
    std::thread::sleep(Duration::from_millis(100));
    proxy.signal(Signal::TERM);
    assert_eq!(ear.hear()[0], "STOPPING=1");
}

#[test]
fn a_supervisor_that_is_deaf_is_survived_and_a_bad_address_is_named() {
    let directory = TempDir::new();
    let nobody = directory.join("nobody");
    let (_upstream, proxy) = start(directory, |command| {
        command.env("NOTIFY_SOCKET", nobody).env("WATCHDOG_USEC", "1000");
    });
    assert_eq!(proxy.call(ask("p1/m")).status, 200);

    let finished = refused(|command| {
        command.env("NOTIFY_SOCKET", "relative");
    });
    assert!(finished.stderr.contains("NOTIFY_SOCKET: relative"), "{}", finished.stderr);
}

/// The output of a start that must fail.
fn refused(adjust: impl FnOnce(&mut Command)) -> Finished {
    let directory = TempDir::new();
    let upstream = Upstream::new(&["m"]);
    std::fs::write(directory.join("config.json"), config(&[("p1", &upstream)]).to_string()).expect("write");
    let mut command = command(directory.path());
    adjust(&mut command);
    let finished = run(&mut command);
    assert_eq!(finished.code, Some(1), "{}", finished.output());
    finished
}

/// The binary as a supervisor starts it with `socket` as descriptor 3, for the process with that id.
fn activated(
    directory: TempDir,
    upstream: &Upstream,
    socket: impl Into<OwnedFd>,
    count: &str,
) -> (TempDir, Command) {
    // Another address than the socket's: the socket must win.
    let config = with(config(&[("p1", upstream)]), json!({"host": "unix:/nonexistent/socket"}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" 3<&0 </dev/null", env!("CARGO_BIN_EXE_ai-proxy")]);
    shell.current_dir(directory.path()).env("LISTEN_FDS", count).stdin(Stdio::from(socket.into()));
    (directory, shell)
}

#[test]
fn a_socket_that_the_supervisor_holds_outlives_the_process_and_no_client_is_refused() {
    let upstream = Upstream::new(&["m"]);
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let start = || {
        let handed = socket.try_clone().expect("clone");
        let (directory, command) = activated(TempDir::new(), &upstream, handed, "1");
        Proxy::spawn(directory, command)
    };
    let mut old = start();
    assert_eq!(old.bound, [format!("http://{address}")]);
    let mut client = Client::connect(address);
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));

    upstream.chat(Script::json(200, &completion("hello")));
    // The new process serves beside the old one; then the old one drains, and the new one gets all new
    // connections.
    let new = start();
    old.signal(Signal::TERM);
    for _ in 0..50 {
        assert_eq!(Client::connect(address).call(ask("p1/m")).status, 200);
    }
    assert!(old.is_running());
    gate.open();
    assert_eq!(stream.events(), [DONE]);
    assert_eq!(stream.end(), End::FinalChunk);
    assert_eq!(old.wait().code(), Some(0));

    // Without a process, callers wait in the socket's queue.
    drop(new.kill());
    let mut early = Client::connect(address);
    early.send(ask("p1/m"));
    let _new = start();
    assert_eq!(early.response().status, 200);
}

/// With little memory the process executes itself again, if it uses glibc: `cli.rs` has the reason.
#[test]
fn process_started_anew_keeps_its_id_its_sockets_and_its_supervisor() {
    let (directory, upstream) = (TempDir::new(), Upstream::new(&["m"]));
    upstream.chat(Script::json(200, &completion("hello")));
    let (ear, notify) = (Ear::at(&directory), directory.join("notify"));
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    // `LISTEN_PID` is the shell's, which becomes the proxy.
    let (directory, mut command) = activated(directory, &upstream, socket, "1");
    let path = directory.join("config.json");
    let config = std::fs::read_to_string(&path).expect("its config").parse().expect("JSON");
    std::fs::write(path, with(config, json!({"max_memory": 64 << 20})).to_string()).expect("write");
    command.env("NOTIFY_SOCKET", notify).env_remove("MALLOC_ARENA_MAX");
    let mut proxy = Proxy::spawn(directory, command);
    assert_eq!(proxy.has_variable("MALLOC_ARENA_MAX"), cfg!(target_env = "gnu"));
    assert_eq!(ear.hear(), ["READY=1".to_owned(), format!("STATUS=listening on http://{address}")]);
    assert_eq!(Client::connect(address).call(ask("p1/m")).status, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(ear.hear()[0], "STOPPING=1");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Its file is gone, and its name is the system's for such a file, so that it tries.
#[test]
fn process_that_cannot_start_anew_continues_and_outlives_the_reader_of_its_log() {
    let (directory, upstream) = (TempDir::new(), Upstream::new(&["m"]));
    upstream.chat(Script::json(200, &completion("hello")));
    let path = directory.join("ai-proxy");
    std::fs::copy(env!("CARGO_BIN_EXE_ai-proxy"), &path).expect("copy");
    let file = std::fs::File::open(&path).expect("open");
    std::fs::remove_file(path).expect("remove");
    let program = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let config = with(config(&[("p1", &upstream)]), json!({"max_memory": 64 << 20}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let (reader, writer) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(program);
    command.arg0("ai-proxy (deleted)").current_dir(directory.path()).env_remove("MALLOC_ARENA_MAX");
    let mut proxy = Proxy::spawn_with_log(directory, command, OwnedFd::from(writer));
    assert!(!proxy.has_variable("MALLOC_ARENA_MAX"));
    drop(reader);
    for _ in 0..3 {
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0), "no SIGPIPE ends it");
}

#[test]
fn a_unix_socket_that_was_handed_over_is_not_removed() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    let socket = UnixListener::bind(&path).expect("bind");
    let upstream = Upstream::new(&["m"]);
    let (directory, command) = activated(directory, &upstream, socket, "1");
    let mut proxy = Proxy::spawn(directory, command);
    assert_eq!(proxy.bound, [format!("unix:{}", path.display())]);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(path.exists());
}

#[test]
fn what_is_no_listening_socket_is_refused_and_sockets_of_another_are_left_alone() {
    let upstream = Upstream::new(&["m"]);
    let connected = UnixDatagram::unbound().expect("socket");
    let file = std::fs::File::open("/dev/null").expect("open");
    for (handed, count) in [(OwnedFd::from(connected), "1"), (OwnedFd::from(file), "1")] {
        let (_directory, mut command) = activated(TempDir::new(), &upstream, handed, count);
        let finished = run(&mut command);
        assert_eq!(finished.code, Some(1), "{}", finished.output());
    }
    for count in ["many", "17", "-1"] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (_directory, mut command) = activated(TempDir::new(), &upstream, socket, count);
        let finished = run(&mut command);
        assert_eq!(finished.code, Some(1), "{}", finished.output());
        let named = format!("LISTEN_FDS={count}: ");
        assert!(finished.stderr.contains(&named), "{}", finished.stderr);
    }
    let (_upstream, proxy) = start(TempDir::new(), |command| {
        command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    });
    assert_eq!(proxy.get("/healthz").status, 200);
}

#[test]
fn requests_on_their_way_when_a_drain_begins_succeed() {
    let (_upstream, mut proxy) = start(TempDir::new(), |_| {});
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    // All are connected once the last has its response.
    assert_eq!(proxy.get("/healthz").status, 200);
    let (early, late) = clients.split_at_mut(10);
    for client in early {
        client.send(ask("p1/m"));
    }
    proxy.signal(Signal::TERM);
    for client in late.iter_mut() {
        client.send(ask("p1/m"));
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
        assert!(client.is_closed());
    }
    assert_eq!(proxy.wait().code(), Some(0));
    let _ = eventually("it is gone", || std::net::TcpStream::connect(proxy.address()).err());
}
