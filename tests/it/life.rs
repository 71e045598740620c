//! Start, drain and end: signals, exit codes, and closed outputs.

use rustix::process::Signal;
use serde_json::json;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::calls::{DONE, ask, ask_streamed, completion, event, get};
use crate::support::client::{Client, End, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;
use crate::support::{DEADLINE, WITHIN_A_SECOND, eventually};

fn start(changes: serde_json::Value) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    (upstream, proxy)
}

/// Waits until nothing accepts connections at the proxy's address any more.
fn wait_for_refusal(proxy: &Proxy) {
    let address = proxy.address();
    eventually("new connections are refused", || {
        std::net::TcpStream::connect(address).is_err().then_some(())
    });
}

#[test]
fn a_drain_finishes_a_stream() {
    for signal in [Signal::TERM, Signal::INT] {
        let (upstream, mut proxy) = start(json!({}));
        let gate = Gate::new();
        upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(event("b")).chunk(DONE).end());
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));

        proxy.signal(signal);
        wait_for_refusal(&proxy);
        assert!(proxy.is_running());
        gate.open();
        assert_eq!(stream.events(), [event("b"), DONE.to_owned()]);
        assert_eq!(stream.end(), End::FinalChunk);
        let (took, status) = timed(|| proxy.wait());
        assert_eq!(status.code(), Some(0));
        assert!(took < DEADLINE / 2, "nothing was left to wait for: {took:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn drain_finishes_a_buffered_response_and_closes_idle_clients() {
    let (upstream, mut proxy) = start(json!({}));
    let gate = Gate::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Script::default().wait(&gate).send(head));
    let mut idle = proxy.client();
    assert_eq!(idle.call(get("/healthz")).status, 200);
    let mut client = proxy.client();
    client.send(ask("p1/m"));
    upstream.wait_requests(1);
    proxy.signal(Signal::TERM);
    wait_for_refusal(&proxy);
    assert!(idle.is_closed());
    gate.open();
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "{}"));
    assert_eq!(response.header("connection"), Some("close"), "the client knows it must not send another");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn an_idle_proxy_ends_at_once() {
    let (_upstream, mut proxy) = start(json!({}));
    assert_eq!(proxy.get("/healthz").status, 200);
    let _idle = proxy.client();
    proxy.signal(Signal::TERM);
    let (took, status) = timed(|| proxy.wait());
    assert_eq!(status.code(), Some(0));
    assert!(took < WITHIN_A_SECOND, "{took:?}");
}

#[test]
fn a_drain_has_an_end() {
    let (upstream, mut proxy) = start(json!({"shutdown_timeout": 0.7}));
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    proxy.signal(Signal::TERM);
    let (took, status) = timed(|| proxy.wait());
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_millis(500) && took < WITHIN_A_SECOND, "{took:?}");
    while stream.next_data().is_some() {}
    assert_eq!(stream.end(), End::Cut, "never a clean end");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (upstream, mut proxy) = start(json!({}));
    upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    assert_eq!(client.streamed().next_event(), Some(event("a")));
    proxy.signal(Signal::TERM);
    wait_for_refusal(&proxy);
    assert!(proxy.is_running());
    proxy.signal(Signal::TERM);
    let (took, _status) = timed(|| proxy.wait());
    assert!(took < WITHIN_A_SECOND, "{took:?}");
}

#[test]
fn a_request_on_a_kept_connection_while_draining_is_refused_or_closed() {
    let (upstream, mut proxy) = start(json!({}));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut client = proxy.client();
    // The second request is already waiting behind the first when the drain begins.
    client.send([ask_streamed("p1/m"), get("/healthz")].concat());
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    proxy.signal(Signal::TERM);
    wait_for_refusal(&proxy);
    gate.open();
    assert_eq!(stream.events(), [DONE]);
    let rest = String::from_utf8(client.rest()).expect("text");
    if rest.starts_with("HTTP/1.1 503") {
        assert!(
            rest.contains("shutting_down") && rest.to_lowercase().contains("retry-after: 1\r\n"),
            "{rest}"
        );
    }
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 503") || rest.starts_with("HTTP/1.1 200"),
        "{rest}"
    );
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_taken_port_is_exit_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let upstream = Upstream::new(&["m"]);
    let directory = TempDir::new();
    let config = with(config(&[("p1", &upstream)]), json!({"port": port}));
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let finished = run(&mut command(directory.path()));
    assert_eq!(finished.code, Some(1), "{}", finished.output());
    assert!(finished.stderr.contains(&port.to_string()), "{}", finished.stderr);
}

#[test]
fn start_is_shown_on_stderr_beside_the_log_in_one_screen() {
    let (good, bad) = (Upstream::new(&["m"]), Upstream::new(&["m"]));
    bad.respond("/v1/models", Script::json(401, &json!({"error": {"message": "no"}})));
    let changes = json!({"log_file": "log", "log_level": "WARNING", "workers": 2, "max_memory": 268_435_456});
    let proxy = Proxy::start(&with(config(&[("p1", &good), ("p2", &bad)]), changes));
    eventually("the first checks", || proxy.stderr.all().last()?.starts_with("first checks").then_some(()));
    let url = format!("http://{}", proxy.address());
    assert_eq!(
        proxy.stderr.all(),
        [
            concat!("ai-proxy ", env!("CARGO_PKG_VERSION")).to_owned(),
            format!("  config: {}", proxy.config_path().display()),
            format!("  listen: {url}"),
            format!("  log file: {} (WARNING)", proxy.directory.join("log").display()),
            format!("  status page: {url}/"),
            "  workers: 2".to_owned(),
            "  memory limit: 256 MiB".to_owned(),
            "  providers: 2".to_owned(),
            format!(
                "first checks: 1 of 2 providers are healthy; not healthy yet: p2: HTTP 401 (GET {}/models)",
                bad.url()
            ),
        ]
    );
}

#[test]
fn start_is_a_line_of_the_log_where_that_is_stderr() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"language": "zh"})));
    let place = format!("配置文件: {}, 监听地址: http://", proxy.config_path().display());
    proxy.log_line(&["INFO ai-proxy ", &place, "日志文件: 仅 stderr (INFO), 状态页: http://", "提供商: 1"]);
    proxy.log_line(&["INFO 首次检查: 1 家提供商中 1 家健康"]);
    for words in ["ai-proxy ", "首次检查"] {
        let count = proxy.stderr.all().iter().filter(|line| line.contains(words)).count();
        assert_eq!(count, 1, "{words}: {:?}", proxy.stderr.all());
    }
}

#[test]
fn start_is_shown_on_stderr_where_that_is_a_log_without_it_and_not_of_json() {
    let upstream = Upstream::new(&["m"]);
    let start = |format: &str| {
        let changes = json!({"log_level": "ERROR", "log_format": format});
        Proxy::start(&with(config(&[("p1", &upstream)]), changes))
    };
    let (text, json) = (start("text"), start("json"));
    eventually("the first checks", || text.stderr.all().last()?.starts_with("first checks").then_some(()));
    assert_eq!(text.stderr.all()[0], concat!("ai-proxy ", env!("CARGO_PKG_VERSION")));
    assert_eq!(json.get("/health").status, 200);
    assert_eq!(json.log(), "");
}

#[test]
fn a_fixed_port_can_be_taken_again_at_once() {
    let (_upstream, proxy) = start(json!({}));
    let address = proxy.address();
    // The side that closes first is left in TIME_WAIT: make that the proxy's.
    for _ in 0..3 {
        let close = crate::support::calls::bare("GET", "/", &[("Connection", "close")]);
        assert_eq!(proxy.call(close).status, 200);
    }
    let directory = proxy.kill();
    let upstream = Upstream::new(&["m"]);
    let config = with(config(&[("p1", &upstream)]), json!({"port": address.port()}));
    let proxy = Proxy::start_in(directory, &config, |_| {});
    assert_eq!(proxy.address(), address);
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// A process that never outlives its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn closed_outputs_kill_no_process() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let directory = TempDir::new();
    // A fixed port, because closed outputs cannot tell one.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
    let changes = json!({"log_level": "DEBUG", "port": port});
    let config = with(config(&[("p1", &upstream)]), changes);
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let mut command = command(directory.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().expect("start"));
    drop((child.0.stdout.take(), child.0.stderr.take()));
    let address = ([127, 0, 0, 1], port).into();
    eventually("it serves", || std::net::TcpStream::connect(address).ok());
    for _ in 0..10 {
        assert_eq!(Client::connect(address).call(ask("p1/m")).status, 200);
        assert_eq!(Client::connect(address).call(get("/nowhere")).status, 404);
    }
    let pid = rustix::process::Pid::from_child(&child.0);
    for signal in [Signal::PIPE, Signal::HUP] {
        rustix::process::kill_process(pid, signal).expect("signal");
    }
    assert_eq!(Client::connect(address).call(ask("p1/m")).status, 200);
    rustix::process::kill_process(pid, Signal::TERM).expect("signal");
    assert_eq!(child.0.wait().expect("wait").code(), Some(0));
}

#[test]
fn the_address_is_logged_too() {
    let (_upstream, proxy) = start(json!({"log_level": "INFO"}));
    proxy.log_line(&[&format!("http://{}", proxy.address())]);
    let (_upstream, proxy) = start(json!({"log_level": "CRITICAL"}));
    assert_eq!(proxy.listening(), [format!("http://{}", proxy.address())]);
}

#[test]
fn drain_responds_to_requests_in_the_queue() {
    let (upstream, mut proxy) = start(json!({"max_connections": 1, "queue_timeout": 20}));
    let gate = Gate::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    upstream.chat(Script::default().wait(&gate).send(head));
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(ask("p1/m"));
    }
    upstream.wait_requests(1);
    // The response on a later connection shows that the others have been read.
    assert_eq!(proxy.get("/healthz").status, 200);
    proxy.signal(Signal::TERM);
    wait_for_refusal(&proxy);
    gate.open_for(3);
    let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "nobody is cut off: {statuses:?}");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn few_descriptors_are_survived() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let directory = TempDir::new();
    let changes = json!({"max_connections": 4, "max_keepalive_connections": 2});
    let config = with(config(&[("p1", &upstream)]), changes);
    std::fs::write(directory.join("config.json"), config.to_string()).expect("write");
    let mut shell = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_ai-proxy");
    shell.args(["-c", "ulimit -n 90 && exec \"$0\"", binary]).current_dir(directory.path());
    let mut proxy = Proxy::spawn(directory, shell);
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..150).map(|_| proxy.client()).collect();
        for client in &mut clients {
            // Some are over the limit: refused, or still in the kernel's queue.
            drop(client.try_send(get("/healthz")));
        }
        assert_eq!(clients[0].response().status, 200);
        drop(clients);
        eventually("served as before", || (proxy.call(ask("p1/m")).status == 200).then_some(()));
    }
    assert!(proxy.is_running());
}
