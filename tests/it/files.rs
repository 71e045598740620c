//! Unsuitable files, and files that take no bytes: they block neither the start, a signal, a reload nor a
//! request.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::calls::{TOKEN, ask, completion, post};
use crate::support::client::{Client, timed};
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;
use crate::support::{WITHIN_A_SECOND, eventually};

fn upstream() -> Upstream {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    upstream
}

fn make_pipe(path: &Path) {
    drop(std::fs::remove_file(path));
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `check` and serving both exit at once with code 2 and print all of `parts`.
fn assert_refused(directory: &TempDir, config: &Value, parts: &[&str]) {
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    for args in [&["check"][..], &[]] {
        let (took, finished) = timed(|| run(command(directory.path()).args(args)));
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.output());
        assert!(took < WITHIN_A_SECOND, "{took:?}");
        for part in parts {
            assert!(
                finished.output().contains(part),
                "{args:?} does not say {part:?}: {}",
                finished.output()
            );
        }
    }
}

#[test]
fn file_of_another_kind_is_refused_at_once_whichever_key_names_it() {
    let (directory, upstream) = (TempDir::short(), upstream());
    make_pipe(&directory.join("pipe"));
    symlink("pipe", directory.join("link")).expect("link");
    let _socket = UnixListener::bind(directory.join("socket")).expect("bind");
    std::fs::create_dir(directory.join("folder")).expect("folder");
    let good = config(&[("p1", &upstream)]);
    for (name, en, zh) in [
        ("pipe", "a pipe (FIFO)", "管道"),
        ("link", "a pipe (FIFO)", "管道"),
        ("socket", "a socket", "套接字"),
        ("folder", "a directory", "目录"),
        ("/dev/zero", "a device", "设备"),
    ] {
        let provider = json!({"name": "p1", "url": upstream.url(), "key": "k", "ca_file": name});
        for changes in
            [json!({"log_file": name}), json!({"state_file": name}), json!({"providers": [provider]})]
        {
            let key = changes.as_object().and_then(|changes| changes.keys().next()).expect("a key").clone();
            if name == "/dev/zero" && key == "log_file" {
                continue;
            }
            let changed = with(good.clone(), changes);
            assert_refused(&directory, &changed, &[&key, name, en]);
            assert_refused(&directory, &with(changed, json!({"language": "zh"})), &[&key, name, zh]);
        }
        let named = ["--config", name];
        for args in [&[&["check"][..], &named[..]].concat()[..], &named] {
            let finished = run(command(directory.path()).args(args));
            assert_eq!(finished.code, Some(2), "{}", finished.output());
            assert!(finished.stderr.contains(name) && finished.stderr.contains(zh), "{}", finished.stderr);
        }
    }
    // The message names a remedy.
    assert_refused(&directory, &with(good, json!({"log_file": "pipe"})), &["null logs to stderr"]);
}

#[test]
fn links_to_regular_files_and_character_devices_for_the_log_are_taken() {
    let (directory, upstream) = (TempDir::new(), upstream());
    let state = json!({"tokens": [{"name": "t", "token": TOKEN, "tokens_per_day": 1000}]});
    let config = with(config(&[("p1", &upstream)]), state);
    std::fs::create_dir(directory.join("data")).expect("folder");
    // As Kubernetes mounts a config map.
    for (link, target) in [("config.json", "data/config.json"), ("log", "data/log")] {
        symlink(target, directory.join(link)).expect("link");
    }
    for log in ["log", "/dev/null"] {
        let config = with(config.clone(), json!({"log_file": log, "state_file": "state"}));
        std::fs::write(directory.join("data/config.json"), config.to_string()).expect("write");
        let finished = run(command(directory.path()).arg("check"));
        assert_eq!(finished.code, Some(0), "{}", finished.output());
    }
    // A write of the state never follows a link at its temporary path.
    make_pipe(&directory.join("state.new"));
    let config = with(config, json!({"log_file": "log", "state_file": "state"}));
    let mut proxy = Proxy::start_in(directory, &config, |_| {});
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let (state, log) = (proxy.directory.join("state"), proxy.directory.join("data/log"));
    assert!(text_of(&state).contains("\"tokens\": 8"), "{}", text_of(&state));
    assert!(text_of(&log).lines().any(|line| line.ends_with("stopped")), "{}", text_of(&log));
}

/// Found by issue 14: two SIGTERM had no effect, and reloads took all control threads.
#[test]
fn pipe_in_place_of_the_log_or_the_config_holds_no_reload_and_no_signal() {
    for replaced in ["log", "config.json"] {
        let upstream = upstream();
        let mut proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"log_file": "log"})));
        let path = proxy.directory.join(replaced);
        make_pipe(&path);
        for _ in 0..20 {
            proxy.signal(Signal::HUP);
            let response = proxy.call(post("/v1/reload", &[], ""));
            assert_eq!(response.status, 422, "{}", response.text());
            assert!(response.text().contains("a pipe (FIFO)"), "{}", response.text());
        }
        assert_eq!((proxy.call(ask("p1/m")).status, proxy.get("/health").status), (200, 200));
        if replaced == "log" {
            proxy.log_line(&["ERROR", "cannot open the log file", "a pipe (FIFO)"]);
            std::fs::remove_file(&path).expect("remove");
            assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
            eventually("the log is a file again", || text_of(&path).contains("reloaded").then_some(()));
            make_pipe(&path);
            proxy.signal(Signal::HUP);
        }
        proxy.signal(Signal::TERM);
        let (took, status) = timed(|| proxy.wait());
        assert_eq!(status.code(), Some(0));
        assert!(took < WITHIN_A_SECOND, "{replaced}: {took:?}");
    }
}

#[test]
fn written_file_that_is_read_or_written_elsewhere_is_refused() {
    let (directory, upstream) = (TempDir::new(), upstream());
    let good = with(config(&[("p1", &upstream)]), json!({"tokens": [format!("t|{TOKEN}")]}));
    let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates/ca.pem");
    std::fs::copy(certificate, directory.join("ca.pem")).expect("copy");
    std::fs::write(directory.join("config.json"), good.to_string()).expect("write");
    symlink("config.json", directory.join("soft")).expect("link");
    std::fs::hard_link(directory.join("config.json"), directory.join("hard")).expect("link");
    // The next state is written beside it and then renamed.
    std::fs::hard_link(directory.join("config.json"), directory.join("beside.new")).expect("link");
    std::fs::create_dir(directory.join("sub")).expect("folder");
    let itself = "is the config file itself";
    for name in ["config.json", "./sub/../config.json", "soft", "hard"] {
        for key in ["log_file", "state_file"] {
            assert_refused(&directory, &with(good.clone(), json!({key: name})), &[key, name, itself]);
        }
    }
    assert_refused(&directory, &with(good.clone(), json!({"state_file": "beside"})), &["beside.new", itself]);
    let same = json!({"log_file": "none", "state_file": "sub/../none"});
    assert_refused(&directory, &with(good.clone(), same), &["state_file", "the same file as log_file"]);
    let ca = json!({"name": "p1", "url": "https://x.example/v1", "key": "k", "ca_file": "ca.pem"});
    let same = json!({"providers": [ca], "log_file": "ca.pem", "language": "zh"});
    assert_refused(&directory, &with(good.clone(), same), &["log_file", "与 ca_file 是同一个文件"]);

    let proxy = Proxy::start_in(directory, &good, |_| {});
    proxy.write_config(&with(good, json!({"log_file": "soft"})));
    let written = text_of(&proxy.config_path());
    let response = proxy.call(post("/v1/reload", &[], ""));
    assert!(response.status == 422 && response.text().contains(itself), "{}", response.text());
    assert_eq!(text_of(&proxy.config_path()), written, "untouched");
}

/// A proxy whose stderr the test reads only later.
struct Unread {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Unread {
    fn start(changes: Value, upstream: &Upstream) -> Unread {
        let directory = TempDir::new();
        let config = with(config(&[("p1", upstream)]), changes);
        std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
        let mut command = command(directory.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect("an address");
        let address = address.parse().expect("an address");
        Unread { child, address, directory }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }

    /// More requests than the lines that pipe and queue have room for.
    fn fill(&self) {
        let mut client = Client::connect(self.address);
        for _ in 0..50 {
            client.send(ask("p1/m").repeat(100));
            for _ in 0..100 {
                assert_eq!(client.response().status, 200);
            }
        }
    }

    fn dropped(&self) -> u64 {
        let metrics = Client::connect(self.address).call(crate::support::calls::get("/metrics")).text();
        let value = metrics.lines().find_map(|line| line.strip_prefix("ai_proxy_log_lines_dropped_total "));
        value.expect("the metric").parse().expect("a number")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn unread_log_lines_are_dropped_and_counted() {
    let upstream = upstream();
    let mut proxy = Unread::start(json!({}), &upstream);
    proxy.fill();
    let dropped = proxy.dropped();
    assert!(dropped > 0);
    // The test reads again.
    let mut stderr = BufReader::new(proxy.child.stderr.take().expect("stderr")).lines();
    let (mut written, mut missing) = (0, 0);
    while written + missing < 5000 {
        let line = stderr.next().expect("a line").expect("text");
        written += u64::from(line.contains("耗时:"));
        let warning = line.split_once(" WARNING ").map(|(_, warning)| warning);
        if let Some(lines) = warning.and_then(|text| text.strip_suffix(" log lines are missing here")) {
            missing += lines.parse::<u64>().expect("a number");
        }
    }
    assert_eq!((written + missing, missing, proxy.dropped()), (5000, dropped, dropped));
    assert_eq!(Client::connect(proxy.address).call(ask("p1/m")).status, 200);
    assert!(stderr.next().expect("a line").expect("text").contains("耗时:"), "written as before");
}

#[test]
fn stderr_without_reader_blocks_neither_reloads_nor_the_end() {
    let upstream = upstream();
    let mut proxy = Unread::start(json!({}), &upstream);
    proxy.fill();
    // The log can go elsewhere.
    let config = with(config(&[("p1", &upstream)]), json!({"log_file": "log"}));
    std::fs::write(proxy.directory.join("config.json"), config.to_string()).expect("write");
    proxy.signal(Signal::HUP);
    let log = proxy.directory.join("log");
    eventually("it goes on in the file", || {
        assert_eq!(Client::connect(proxy.address).call(ask("p1/m")).status, 200);
        text_of(&log).contains("耗时:").then_some(())
    });
    assert!(text_of(&log).contains("log lines are missing here"), "{}", text_of(&log));
    // And back to a stderr without a reader.
    std::fs::write(proxy.directory.join("config.json"), with(config, json!({"log_file": null})).to_string())
        .expect("write");
    for _ in 0..500 {
        proxy.signal(Signal::HUP);
    }
    proxy.fill();
    proxy.signal(Signal::TERM);
    let (took, status) = timed(|| proxy.child.wait().expect("wait"));
    assert_eq!(status.code(), Some(0));
    assert!(took < WITHIN_A_SECOND, "{took:?}");
}

#[test]
fn start_that_fails_leaves_its_last_line_in_the_log() {
    let upstream = upstream();
    let directory = TempDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    let config = with(config(&[("p1", &upstream)]), json!({"port": port, "log_file": "log"}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let finished = run(&mut command(directory.path()));
    assert_eq!(finished.code, Some(1), "{}", finished.output());
    let log = text_of(&directory.join("log"));
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(" ERROR ") && last.contains(&port.to_string()), "{log}");
    assert!(finished.stderr.contains(&port.to_string()), "{}", finished.stderr);
}

#[test]
fn storm_of_reloads_keeps_no_stop_waiting() {
    let upstream = upstream();
    let mut proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"log_file": "log"})));
    for _ in 0..2000 {
        proxy.signal(Signal::HUP);
    }
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    for _ in 0..200 {
        proxy.signal(Signal::HUP);
    }
    proxy.signal(Signal::TERM);
    let (took, status) = timed(|| proxy.wait());
    assert_eq!(status.code(), Some(0));
    assert!(took < WITHIN_A_SECOND, "{took:?}");
    let log = text_of(&proxy.directory.join("log"));
    assert!(log.lines().last().is_some_and(|line| line.ends_with("stopped")), "{log}");
}

#[test]
fn log_that_cannot_be_written_goes_to_stderr_until_a_reload_finds_it() {
    let upstream = upstream();
    let directory = TempDir::new();
    std::fs::create_dir(directory.join("logs")).expect("folder");
    let config = with(config(&[("p1", &upstream)]), json!({"log_file": "logs/log"}));
    let proxy = Proxy::start_in(directory, &config, |_| {});
    let folder = proxy.directory.join("logs");
    std::fs::remove_dir_all(&folder).expect("remove");
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    proxy.signal(Signal::HUP);
    proxy.log_line(&["ERROR", "cannot open the log file logs/log"]);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    proxy.log_line(&["耗时:"]);
    std::fs::create_dir(&folder).expect("folder");
    proxy.signal(Signal::HUP);
    eventually("it is there again", || text_of(&folder.join("log")).contains("reloaded").then_some(()));

    // Root may write it anyway.
    std::fs::set_permissions(folder.join("log"), std::fs::Permissions::from_mode(0o400)).expect("chmod");
    assert_eq!(proxy.call(post("/v1/reload", &[], "")).status, 200);
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let logged =
        || text_of(&folder.join("log")).matches("耗时:").count() + proxy.log().matches("耗时:").count();
    eventually("no line is lost", || (logged() == 2).then_some(()));
}
