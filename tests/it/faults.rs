//! Every fault of a provider in one table: the exact response and log line, and in the end no worker, thread
//! or descriptor is still in use.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::calls::{
    DONE, KEY, ask, ask_streamed, assert_error, assert_error_event, completion, event,
};
use crate::support::client::{Client, End, Response};
use crate::support::eventually;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::tls::{Tls, certificate};
use crate::support::upstream::Upstream;

const WORKERS: usize = 4;
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// The response that a client must get.
enum Due {
    /// An error of the proxy's own: status and reason.
    Error(u16, &'static str),
    /// The provider's response, unchanged.
    Passed(u16, &'static str),
    /// A stream that begins and breaks off with an error event: status and reason.
    Broken(u16, &'static str),
    /// A stream to its end.
    Whole,
}

/// The name of a fault, whether a stream is asked for, the script, the client's response, the text of the one
/// warning in the log (empty: none).
type Fault = (&'static str, bool, Script, Due, &'static str);

fn faults() -> Vec<Fault> {
    use Due::{Broken, Error, Passed, Whole};
    let broken = || Error(502, "upstream_broken");
    let late = || Error(504, "upstream_timeout");
    let length = |length: usize| Script::raw(format!("{HEAD}Content-Length: {length}\r\n\r\n"));
    let begun = || Script::sse().chunk(event("a"));
    let flood = |bytes: &str| Step::Flood(bytes.repeat(200).into_bytes());
    let gzip = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    vec![
        ("end before the head", false, Script::default().then(Step::Fin), broken(), "Broken: "),
        ("reset before the head", false, Script::default().then(Step::Reset), broken(), "Broken: "),
        ("reset before a stream's head", true, Script::default().then(Step::Reset), broken(), "Broken: "),
        (
            "reset inside the head",
            false,
            Script::raw("HTTP/1.1 200 OK\r\nX-A").then(Step::Reset),
            broken(),
            "Broken: ",
        ),
        ("end inside the body", false, length(100).send("{").then(Step::Fin), broken(), "CutOff: "),
        ("reset inside the body", false, length(100).send("{").then(Step::Reset), broken(), "CutOff: "),
        (
            "reset inside a stream",
            true,
            begun().then(Step::Reset),
            Broken(502, "upstream_broken"),
            "CutOff: ",
        ),
        ("end inside a stream", true, begun().then(Step::Fin), Broken(502, "upstream_broken"), "CutOff: "),
        ("a length too long", false, length(9).send("{}").then(Step::Fin), broken(), "CutOff: "),
        ("a length too short", false, length(2).send("{}{\"more\": 1}"), Passed(200, "{}"), ""),
        (
            "a length that is none",
            false,
            Script::raw(format!("{HEAD}Content-Length: 2x\r\n\r\n{{}}")),
            broken(),
            "Broken: ",
        ),
        ("garbage", false, Script::raw("SSH-2.0-OpenSSH_9.6\r\n").then(Step::Fin), broken(), "Broken: "),
        (
            "garbage in chunks",
            false,
            Script::raw(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
            broken(),
            "CutOff: ",
        ),
        (
            "an endless head",
            false,
            Script::raw("HTTP/1.1 200 OK\r\n").then(flood("X-More: and more\r\n")),
            broken(),
            "Broken: ",
        ),
        ("an endless line", false, Script::raw("HTTP/1.1 200 ").then(flood("x")), broken(), "Broken: "),
        (
            "an endless body",
            false,
            Script::raw(format!("{HEAD}\r\n")).then(flood("x")),
            Error(502, "response_too_large"),
            "TooLarge: ",
        ),
        (
            "an endless stream",
            true,
            Script::sse().then(flood("9\r\ndata: x\n\n\r\n")),
            Broken(502, "response_too_large"),
            "TooLarge: ",
        ),
        (
            "interim responses without end",
            false,
            Script::default().then(flood("HTTP/1.1 102 Processing\r\n\r\n")),
            broken(),
            "Broken: ",
        ),
        (
            "some interim responses",
            false,
            Script::raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3) + HEAD + "Content-Length: 2\r\n\r\n{}"),
            Passed(200, "{}"),
            "",
        ),
        ("silence before the head", false, Script::default().then(Step::Silence), late(), "TimedOut: "),
        ("silence inside the body", false, length(100).send("{").then(Step::Silence), late(), "TimedOut: "),
        (
            "silence inside a stream",
            true,
            begun().then(Step::Silence),
            Broken(504, "upstream_timeout"),
            "TimedOut: ",
        ),
        (
            "compressed though not asked",
            false,
            Script::whole(200, &gzip, b"\x1f\x8b\x08\x00zip"),
            Error(502, "upstream_encoding"),
            "Content-Encoding: gzip",
        ),
        (
            "a redirect",
            false,
            Script::whole(
                307,
                &[("Location", "http://127.0.0.1:1/"), ("Content-Type", "application/json")],
                "{}",
            ),
            Error(502, "upstream_redirect"),
            "Redirected: ",
        ),
        (
            "trailers",
            false,
            Script::raw(format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nX-Trailer: 1\r\n\r\n"
            )),
            Passed(200, "{}"),
            "",
        ),
        (
            "endless trailers",
            false,
            Script::raw(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n"))
                .then(flood("X-Trailer: 1\r\n")),
            broken(),
            "CutOff: ",
        ),
        ("a stream with trailers", true, begun().chunk(DONE).send("0\r\nX-Trailer: 1\r\n\r\n"), Whole, ""),
    ]
}

#[test]
fn each_fault_has_its_response_and_its_line_and_holds_nothing() {
    let upstream = Upstream::new(&["m"]);
    let changes = json!({
        "max_connections": WORKERS, "max_retries": 0, "non_stream_timeout": 1.5, "stream_timeout": 1.5,
        "stream_heartbeat": 0, "max_response_size": 100_000, "max_stream_size": 100_000, "keepalive_expiry": 1, "idle_timeout": 2,
        "health_interval": 3600, "models_interval": 3600,
    });
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), changes));
    assert_eq!(proxy.get("/health").status, 200);
    // All lines of a request are in the log once its last one is.
    let wait_logged = |count: usize| {
        let is_last = |line: &&String| line.contains(" INFO ") && line.contains("耗时:");
        eventually("the last line", || {
            (proxy.stderr.all().iter().filter(is_last).count() == count).then_some(())
        });
    };
    let mut count = 0;
    // Each fault meets a provider outside cooldown.
    let mend = |count: &mut usize| {
        upstream.chat(Script::json(200, &completion("hello")));
        at_once(&proxy);
        *count += WORKERS;
        wait_logged(*count);
    };
    mend(&mut count);
    let before = settled(&proxy, None);
    for (name, streamed, script, due, said) in faults() {
        let lines = proxy.stderr.all().len();
        upstream.chat(script);
        let response = proxy.call(if streamed { ask_streamed("p1/m") } else { ask("p1/m") });
        check(name, &response, &due);
        count += 1;
        wait_logged(count);
        let lines = proxy.stderr.all().split_off(lines);
        let warnings: Vec<_> = lines.iter().filter(|line| line.contains(" WARNING ")).collect();
        assert_eq!(warnings.len(), usize::from(!said.is_empty()), "{name}: {lines:#?}");
        let is_logged =
            |line: &&String| line.contains("provider=p1 replica=1 model=m") && line.contains(said);
        assert!(warnings.iter().all(is_logged), "{name}: no {said:?} in {warnings:?}");
        mend(&mut count);
    }
    settled(&proxy, Some(before));
}

fn check(name: &str, response: &Response, due: &Due) {
    match due {
        Due::Error(status, reason) => {
            assert_eq!(response.status, *status, "{name}: {}", response.text());
            assert_error(response, *status, reason);
        }
        Due::Passed(status, body) => {
            assert_eq!((response.status, response.text().as_str()), (*status, *body), "{name}");
            assert_eq!(response.header("x-trailer"), None, "{name}");
        }
        Due::Broken(status, reason) => {
            assert_eq!((response.status, response.end), (200, End::Cut), "{name}");
            let text = response.text();
            let error = text.rfind("data: {\"error\"").map(|at| text[at..].to_owned());
            assert_error_event(error.as_ref(), *status, reason);
        }
        Due::Whole => {
            assert_eq!((response.status, response.end), (200, End::FinalChunk), "{name}");
            assert!(response.text().ends_with(DONE), "{name}");
        }
    }
}

/// As many requests at once as there are permits: an earlier fault has leaked none.
fn at_once(proxy: &Proxy) {
    let mut clients: Vec<Client> = (0..WORKERS).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send(ask("p1/m")));
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
}

/// Threads and descriptors after idle connections have closed: no more than before.
fn settled(proxy: &Proxy, before: Option<(usize, usize)>) -> (usize, usize) {
    // Longer than idle connections of either side are kept.
    std::thread::sleep(Duration::from_secs(4));
    eventually("threads and descriptors as before", || {
        let now = (proxy.threads_outside_pools(), proxy.open_descriptors());
        before.is_none_or(|before| now.0 <= before.0 && now.1 <= before.1).then_some(now)
    })
}

#[test]
fn a_provider_that_cannot_be_reached_is_502_or_504_in_time_and_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    let (full, _kept) = full_listener();
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let upstream = Upstream::new(&["m"]);
    let [good, expired, elsewhere] =
        ["server.pem", "expired.pem", "elsewhere.pem"].map(|name| Tls::new(&upstream, name));
    let ca = certificate("ca.pem");
    let of = |name: &str, url: String, ca: Option<&std::path::Path>| {
        with(json!({"name": name, "url": url, "key": KEY}), ca.map_or(json!({}), |ca| json!({"ca_file": ca})))
    };
    let plain = |scheme: &str, listener: &TcpListener| {
        format!("{scheme}://{}/v1", listener.local_addr().expect("address"))
    };
    let providers = json!([
        of("refused", format!("http://{closed}/v1"), None),
        of("black-hole", plain("http", &full), None),
        of("nameless", "http://no-such-host.invalid/v1".into(), None),
        of("self-signed", good.url("localhost"), None),
        of("expired", expired.url("localhost"), Some(&ca)),
        of("wrong-name", elsewhere.url("localhost"), Some(&ca)),
        of("no-tls", format!("https://{}/v1", upstream.address()), None),
        of("silent-tls", plain("https", &silent), None),
    ]);
    let changes = json!({"providers": providers, "max_connections": WORKERS, "max_retries": 0, "non_stream_timeout": 2,
        "stream_timeout": 2, "stream_heartbeat": 0, "health_interval": 3600, "models_interval": 3600});
    let proxy = Proxy::start(&with(config(&[]), changes));
    assert_eq!(proxy.get("/health").status, 503);
    let mut before = None;
    for _ in 0..2 {
        for (name, status, said) in [
            ("refused", 502, "refused"),
            ("black-hole", 504, ""),
            ("nameless", 502, "host not found"),
            ("self-signed", 502, "UnknownIssuer"),
            ("expired", 502, "expired"),
            ("wrong-name", 502, "not valid for name"),
            ("no-tls", 504, ""),
            ("silent-tls", 504, ""),
        ] {
            let reason = if status == 504 { "upstream_timeout" } else { "upstream_unreachable" };
            for request in [ask(&format!("{name}/m")), ask_streamed(&format!("{name}/m"))] {
                let response = proxy.call(request);
                assert_eq!(response.status, status, "{name}: {}", response.text());
                assert_error(&response, status, reason);
            }
            proxy.log_line(&["WARNING", &format!("provider={name}"), said]);
        }
        std::thread::sleep(Duration::from_secs(1));
        let now = (proxy.threads_outside_pools(), proxy.open_descriptors());
        let (threads, descriptors) = *before.get_or_insert(now);
        assert!(now.0 <= threads && now.1 <= descriptors, "{now:?} behind {before:?}");
    }
    assert!(upstream.requests().is_empty(), "no key has left");
}

/// A listener with a full queue, so that a connection is neither made nor refused; with the connections that
/// fill it.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    rustix::net::listen(&listener, 0).expect("a short queue");
    let address = listener.local_addr().expect("address");
    let mut kept = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => kept.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => return (listener, kept),
            Err(error) => panic!("{error}"),
        }
        assert!(kept.len() < 100, "its queue has no end");
    }
}

#[test]
fn two_hundred_requests_meet_connections_that_close_while_idle_and_none_fails() {
    let upstream = Upstream::new(&["m"]);
    let response = Script::json(200, &completion("hello"));
    // At once, and after the time that the next request takes to come.
    upstream.handle("/v1/chat/completions", move |request| {
        let idle = Duration::from_millis(request.connection as u64 % 4);
        response.clone().then(if idle.is_zero() { Step::Fin } else { Step::IdleClose(idle) })
    });
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"max_retries": 0})));
    let mut client = proxy.client();
    for number in 0..200 {
        let response = client.call(ask("p1/m"));
        assert_eq!(response.status, 200, "request {number}: {}", response.text());
    }
}
