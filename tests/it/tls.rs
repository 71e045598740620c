//! Providers over TLS, and the trusted authorities: `ca_file`.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::calls::{DONE, KEY, ask, ask_streamed, assert_error, chat, completion, event};
use crate::support::client::{End, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::tls::{Tls, certificate};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Upstream;
use crate::support::{WITHIN_A_SECOND, eventually};

/// A config whose provider `p1` is at `url`, with more of its keys.
fn provider(url: &str, more: Value) -> Value {
    let provider = with(json!({"name": "p1", "url": url, "key": KEY}), more);
    with(config(&[]), json!({"providers": [provider], "max_retries": 0}))
}

fn trusting(url: &str, ca: &Path) -> Value {
    provider(url, json!({"ca_file": ca}))
}

fn upstream() -> Upstream {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    upstream
}

#[test]
fn a_provider_whose_authority_is_trusted_is_reached_by_name_and_by_address() {
    let upstream = upstream();
    let tls = Tls::new(&upstream, "server.pem");
    for host in ["localhost", "127.0.0.1"] {
        let proxy = Proxy::start(&trusting(&tls.url(host), &certificate("ca.pem")));
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{host}");
        assert!(proxy.get("/v1/models").text().contains("p1/m"), "{host}");
        assert_eq!(upstream.last().head.get("authorization"), Some(format!("Bearer {KEY}").as_str()));
    }
}

#[test]
fn no_other_certificate_is_trusted() {
    let upstream = upstream();
    let [server, expired, elsewhere] =
        ["server.pem", "expired.pem", "elsewhere.pem"].map(|name| Tls::new(&upstream, name));
    let ca = certificate("ca.pem");
    for (said, config) in [
        ("UnknownIssuer", provider(&server.url("localhost"), json!({}))),
        ("UnknownIssuer", trusting(&server.url("localhost"), &certificate("other-ca.pem"))),
        ("expired", trusting(&expired.url("localhost"), &ca)),
        ("not valid for name", trusting(&elsewhere.url("localhost"), &ca)),
    ] {
        let proxy = Proxy::start(&config);
        assert_error(&proxy.call(ask("p1/m")), 502, "upstream_unreachable");
        proxy.log_line(&["WARNING", "invalid peer certificate", said]);
        assert!(upstream.requests().is_empty(), "{said}: the key must not leave");
    }
}

#[test]
fn stream_with_done_is_complete_without_close_notify_and_no_other_is() {
    let upstream = upstream();
    let tls = Tls::that_just_closes(&upstream, "server.pem");
    let proxy = Proxy::start(&trusting(&tls.url("localhost"), &certificate("ca.pem")));
    for (text, end) in [(event("a") + DONE, End::FinalChunk), (event("a"), End::Cut)] {
        upstream.chat(Script::sse_until_close().send(&text).then(Step::Fin));
        let response = proxy.call(ask_streamed("p1/m"));
        assert_eq!(response.end, end, "{}", response.text());
        assert_eq!(response.text() == text, end == End::FinalChunk, "{}", response.text());
    }
}

#[test]
fn events_pass_one_by_one_and_a_leaving_client_closes_the_connection() {
    let upstream = upstream();
    let tls = Tls::new(&upstream, "server.pem");
    let proxy = Proxy::start(&trusting(&tls.url("localhost"), &certificate("ca.pem")));
    let gate = Gate::new();
    upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
    let mut client = proxy.client();
    client.send(ask_streamed("p1/m"));
    let mut stream = client.streamed();
    assert_eq!(stream.next_event(), Some(event("a")));
    gate.open();
    assert_eq!(stream.events(), [DONE]);
    assert_eq!(stream.end(), End::FinalChunk);

    let took = proxy.leave_a_stream(&upstream, b"");
    assert!(took < WITHIN_A_SECOND, "{took:?}");
}

#[test]
fn time_limits_hold_in_a_handshake_and_behind_it() {
    let changes = json!({"non_stream_timeout": 0.8, "stream_timeout": 0.8});
    // Accepts connections and never sends.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("https://{}/v1", silent.local_addr().expect("address"));
    let dumb = Proxy::start(&with(trusting(&url, &certificate("ca.pem")), changes.clone()));
    let upstream = upstream();
    upstream.chat(Script::default().then(Step::Silence));
    let tls = Tls::new(&upstream, "server.pem");
    let late = Proxy::start(&with(trusting(&tls.url("localhost"), &certificate("ca.pem")), changes));
    for proxy in [dumb, late] {
        for request in [ask("p1/m"), ask_streamed("p1/m")] {
            let (took, response) = timed(|| proxy.call(request));
            assert_error(&response, 504, "upstream_timeout");
            assert!(took < WITHIN_A_SECOND, "{took:?}");
        }
    }
}

#[test]
fn connections_are_kept_and_sessions_resumed() {
    let upstream = upstream();
    let tls = Tls::new(&upstream, "server.pem");
    let config = trusting(&tls.url("localhost"), &certificate("ca.pem"));
    let proxy = Proxy::start(&with(config, json!({"keepalive_expiry": 0.2})));
    // The first check fetches the list on a connection of its own.
    eventually("the list is there", || proxy.get("/v1/models").text().contains("p1/m").then_some(()));
    for _ in 0..5 {
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
    }
    let (full, resumed) = tls.handshakes();
    assert!(full + resumed < 5, "{full} full and {resumed} resumed handshakes for 5 requests");
    eventually("a resumed session", || {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(proxy.call(ask("p1/m")).status, 200);
        (tls.handshakes().1 > 0).then_some(())
    });
    assert_eq!(tls.handshakes().0, full, "one full handshake is enough");
}

#[test]
fn tls_goes_through_a_forward_proxy() {
    for scheme in ["http", "socks5", "socks5h"] {
        let (upstream, tunnel) = (upstream(), Tunnel::new());
        let tls = Tls::new(&upstream, "server.pem");
        let more = json!({
            "ca_file": certificate("ca.pem"),
            "proxy": format!("{scheme}://{}", tunnel.address()),
        });
        let proxy = Proxy::start(&provider(&tls.url("localhost"), more));
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{scheme}");
        assert!(tunnel.opened() >= 1, "{scheme}");
    }
}

#[test]
fn request_of_any_size_reaches_its_provider_whole_whatever_is_in_between() {
    let (upstream, tunnel) = (upstream(), Tunnel::new());
    let tls = Tls::new(&upstream, "server.pem");
    let around = Tls::to(tunnel.address(), "server.pem");
    let [clear, within] =
        [format!("http://{}", tunnel.address()), around.url("localhost").replace("/v1", "")];
    for forward in ["direct", &clear, &within] {
        let more = json!({"ca_file": certificate("ca.pem"), "proxy": forward});
        let proxy = Proxy::start(&provider(&tls.url("localhost"), more));
        // Below a record of TLS, over one, over what is encrypted at once, and over what a socket takes.
        for lines in [1, 2_000, 9_000, 700_000] {
            let filler: String = (0..lines).map(|n| format!("{n:07} ")).collect();
            let body = format!(r#"{{"x":"{filler}","model":"p1/m"}}"#);
            assert_eq!(proxy.call(chat(&body)).json(), completion("hello"), "{forward} {lines}");
            assert!(upstream.last().body == body.replace("p1/m", "m").as_bytes(), "{forward} {lines}");
        }
    }
    assert!(around.handshakes().0 >= 1 && tunnel.opened() >= 2);
}

#[test]
fn a_reload_reads_the_file_again() {
    let upstream = upstream();
    let tls = Tls::new(&upstream, "server.pem");
    let directory = TempDir::new();
    let ca = directory.join("ca.pem");
    std::fs::copy(certificate("other-ca.pem"), &ca).expect("copy");
    let proxy = Proxy::start(&trusting(&tls.url("localhost"), &ca));
    assert_error(&proxy.call(ask("p1/m")), 502, "upstream_unreachable");

    // Both, as during a change of authorities.
    let both =
        ["other-ca.pem", "ca.pem"].map(|name| std::fs::read_to_string(certificate(name)).expect("read"));
    std::fs::write(&ca, both.concat()).expect("write");
    proxy.signal(Signal::HUP);
    eventually("the new authority is trusted", || (proxy.call(ask("p1/m")).status == 200).then_some(()));

    // Removed authorities are no longer trusted, on idle connections either.
    std::fs::copy(certificate("other-ca.pem"), &ca).expect("copy");
    proxy.signal(Signal::HUP);
    eventually("it is trusted no longer", || (proxy.call(ask("p1/m")).status == 502).then_some(()));

    std::fs::write(&ca, "not a certificate").expect("write");
    proxy.signal(Signal::HUP);
    proxy.log_line(&["ERROR", "providers[0].ca_file", "holds no certificate in PEM"]);
    assert_error(&proxy.call(ask("p1/m")), 502, "upstream_unreachable");
}

#[test]
fn a_file_that_cannot_be_used_is_a_problem_of_the_config() {
    let directory = TempDir::new();
    let broken = directory.join("broken.pem");
    let good = std::fs::read_to_string(certificate("ca.pem")).expect("read");
    std::fs::write(&broken, good.replacen("-----\nM", "-----\nAAAA", 1) + &good).expect("write");
    let huge = directory.join("huge.pem");
    std::fs::write(&huge, "\n".repeat(1024 * 1024 + 1)).expect("write");
    for (file, problem) in [
        (json!(directory.join("none.pem")), "No such file"),
        (json!(directory.path()), "it is not a regular file"),
        (json!("/dev/zero"), "it is not a regular file"),
        (json!(certificate("server.key")), "it holds no certificate in PEM"),
        (json!(broken), "its certificate 1 is not valid"),
        (json!(huge), "it is over the limit of 1048576 bytes"),
        (json!(""), "expected text that is not empty"),
        (json!(7), "expected a string"),
    ] {
        let path = directory.join("config.json");
        let url = "https://127.0.0.1:1/v1";
        std::fs::write(&path, provider(url, json!({"ca_file": file})).to_string()).expect("write");
        let checked = run(command(directory.path()).args(["check", "--config"]).arg(&path));
        assert_eq!(checked.code, Some(2), "{file}");
        let said = checked.output();
        assert!(said.contains("providers[0].ca_file: ") && said.contains(problem), "{file}: {said}");
    }
    let path = directory.join("config.json");
    let good = trusting("https://127.0.0.1:1/v1", &certificate("ca.pem"));
    std::fs::write(&path, good.to_string()).expect("write");
    let checked = run(command(directory.path()).args(["check", "--config"]).arg(&path));
    assert_eq!(checked.code, Some(0), "{}", checked.output());
    assert!(
        checked.stdout.contains("CA file ") && checked.stdout.contains("ca.pem (1)"),
        "{}",
        checked.stdout
    );
}
