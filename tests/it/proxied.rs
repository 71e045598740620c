//! A provider reached through a forward proxy: the same results as without one.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::WITHIN_A_SECOND;
use crate::support::calls::{
    DONE, KEY, ask, ask_streamed, assert_error, assert_error_event, authorized, completion, event,
};
use crate::support::client::{End, HEARTBEAT, timed};
use crate::support::gate::Gate;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::{Script, Step};
use crate::support::temp::TempDir;
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Upstream;

const SCHEMES: [&str; 3] = ["http", "socks5", "socks5h"];

fn start(scheme: &str, changes: serde_json::Value) -> (Upstream, Tunnel, Proxy) {
    let (upstream, tunnel) = (Upstream::new(&["m"]), Tunnel::new());
    let forward = format!("{scheme}://{}", tunnel.address());
    let provider = json!({"name": "p1", "url": upstream.url(), "key": KEY, "proxy": forward});
    let defaults = json!({"providers": [provider], "max_retries": 0, "stream_heartbeat": 0});
    let proxy = Proxy::start(&with(with(config(&[]), defaults), changes));
    (upstream, tunnel, proxy)
}

#[test]
fn calls_go_through_it() {
    for scheme in SCHEMES {
        let (upstream, tunnel, proxy) = start(scheme, json!({}));
        upstream.chat(Script::json(200, &completion("hello")));
        for _ in 0..3 {
            assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{scheme}");
        }
        assert!(proxy.get("/v1/models").text().contains("p1/m"), "lists as well");
        assert!(tunnel.opened() >= 1, "{scheme}");
        assert_eq!(upstream.last().target, "/v1/chat/completions");
        let heads = tunnel.heads().concat();
        assert!(!heads.contains(KEY), "the proxy on the way learns no key: {heads}");
    }
}

/// Serves `p1` at `url` with those variables set.
fn start_around(provider: &Value, variables: &[(&str, String)]) -> Proxy {
    let config = with(config(&[]), json!({"providers": [provider], "max_retries": 0}));
    Proxy::start_in(TempDir::new(), &config, |command| {
        command.envs(variables.iter().map(|(name, value)| (name, value)));
    })
}

#[test]
fn the_environment_names_it_where_the_provider_does_not() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let (around, own) = (Tunnel::new(), Tunnel::new());
    let around_url = |scheme: &str| format!("{scheme}{}", around.address());
    let own_url = format!("http://{}", own.address());
    let dead = "http://127.0.0.1:9".to_owned();
    let provider = json!({"name": "p1", "url": upstream.url(), "key": KEY});
    let other = |proxy: &str| with(provider.clone(), json!({"proxy": proxy}));
    // The variables; the provider; whether its calls use the environment's proxy, and its own.
    let cases = [
        (vec![("HTTP_PROXY", around_url("http://"))], provider.clone(), true, false),
        (vec![("http_proxy", around_url(""))], provider.clone(), true, false),
        (vec![("all_proxy", around_url("socks5h://"))], provider.clone(), true, false),
        (
            vec![("ALL_PROXY", dead.clone()), ("http_proxy", around_url("socks5://"))],
            provider.clone(),
            true,
            false,
        ),
        (vec![("HTTPS_PROXY", dead.clone())], provider.clone(), false, false),
        (
            vec![("HTTP_PROXY", dead.clone()), ("REQUEST_METHOD", "GET".to_owned())],
            provider.clone(),
            false,
            false,
        ),
        (
            vec![("ALL_PROXY", dead.clone()), ("NO_PROXY", "127.0.0.0/8".to_owned())],
            provider.clone(),
            false,
            false,
        ),
        (vec![("ALL_PROXY", dead.clone())], other("direct"), false, false),
        (vec![("ALL_PROXY", dead)], other(&own_url), false, true),
    ];
    for (variables, provider, through_around, through_own) in cases {
        let before = (around.opened(), own.opened());
        let proxy = start_around(&provider, &variables);
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{variables:?}");
        let went = (around.opened() > before.0, own.opened() > before.1);
        assert_eq!(went, (through_around, through_own), "{variables:?}");
    }
}

#[test]
fn each_of_a_providers_two_urls_has_the_proxy_that_the_environment_asks_for_there() {
    let (one, other) = (Upstream::new(&["m"]), Upstream::new(&[]));
    one.chat(Script::json(200, &completion("one")));
    other.respond("/v1/messages", Script::json(200, &json!({"type": "message"})));
    let provider = json!({"name": "p1", "url": one.url(), "anthropic_url": other.url(), "key": KEY});
    for (spared, proxied) in [(&one, &other), (&other, &one)] {
        let tunnel = Tunnel::new();
        let http_proxy = format!("http://{}", tunnel.address());
        let variables = [("http_proxy", http_proxy), ("no_proxy", spared.address().to_string())];
        let proxy = start_around(&provider, &variables);
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let body = json!({"model": "p1/m", "max_tokens": 1, "messages": []});
            assert_eq!(proxy.call(authorized(path, body.to_string())).status, 200);
        }
        let targets = tunnel.targets();
        assert!(targets.contains(&proxied.address().to_string()), "{targets:?}");
        assert!(!targets.contains(&spared.address().to_string()), "{targets:?}");
    }
}

#[test]
fn a_bad_variable_is_a_problem_of_the_config_and_its_password_is_not_shown() {
    let directory = TempDir::new();
    let path = directory.join("config.json");
    let check = |providers: Value, value: &str| {
        std::fs::write(&path, with(config(&[]), json!({"providers": providers})).to_string()).expect("write");
        run(command(directory.path()).args(["check", "--config"]).arg(&path).env("https_proxy", value))
    };
    let two = json!(["a|https://a.example/v1|", "b|https://b.example/v1|", "c|http://c.example/v1|"]);
    for bad in ["socks4://u:Hidden-5ecret@h:1", "u:Hidden-5ecret@h:99999", "http://u:Hidden-5ecret@h/path"] {
        let said = check(two.clone(), bad).output();
        assert_eq!(said.matches("https_proxy: ").count(), 1, "{bad}: {said}");
        assert!(said.contains("***@h") && said.contains("expected a proxy URL"), "{bad}: {said}");
        assert!(!said.contains("Hidden"), "{bad}: {said}");
    }
    let unused = check(json!(["c|http://c.example/v1|"]), "nonsense://");
    assert_eq!(unused.code, Some(0), "{}", unused.output());
    let good = check(two, "user:Hidden-5ecret@h:8080");
    assert_eq!(good.code, Some(0), "{}", good.output());
    assert_eq!(good.stdout.matches("proxy http://***@h:8080").count(), 2, "{}", good.stdout);
    assert!(!good.output().contains("Hidden"), "{}", good.output());
}

#[test]
fn a_name_is_looked_up_here_for_socks5_and_there_for_socks5h() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let tunnel = Tunnel::new();
    tunnel.lead_to(upstream.address());
    for (scheme, host, asked) in [
        ("socks5", "localhost", "127.0.0.1"),
        ("socks5h", "localhost", "localhost"),
        ("socks5h", "known-there.invalid", "known-there.invalid"),
        ("http", "known-there.invalid", "known-there.invalid"),
    ] {
        let url = format!("http://{host}:{}/v1", upstream.address().port());
        let forward = format!("{scheme}://{}", tunnel.address());
        let proxy = start_around(&json!({"name": "p1", "url": url, "key": KEY, "proxy": forward}), &[]);
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{scheme} {host}");
        assert!(
            tunnel.targets().contains(&format!("{asked}:{}", upstream.address().port())),
            "{scheme} {host}"
        );
    }
}

#[test]
fn events_pass_one_by_one() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({}));
        let gate = Gate::new();
        upstream.chat(Script::sse().chunk(event("a")).wait(&gate).chunk(DONE).end());
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")), "{scheme}");
        gate.open();
        assert_eq!(stream.events(), [DONE]);
        assert_eq!(stream.end(), End::FinalChunk);
    }
}

#[test]
fn a_dead_one_is_502() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port");
    for scheme in SCHEMES {
        let upstream = Upstream::new(&["m"]);
        let forward = format!("{scheme}://{port}");
        let provider = json!({"name": "p1", "url": upstream.url(), "key": KEY, "proxy": forward});
        let changes = json!({"providers": [provider], "max_retries": 0});
        let proxy = Proxy::start(&with(config(&[]), changes));
        assert_error(&proxy.call(ask("p1/m")), 502, "upstream_unreachable");
        assert!(upstream.requests().is_empty(), "nothing goes around it");
    }
}

#[test]
fn time_limits_hold() {
    for scheme in SCHEMES {
        let changes = json!({"non_stream_timeout": 0.8, "stream_timeout": 0.8});
        let (upstream, _tunnel, proxy) = start(scheme, changes);
        upstream.chat(Script::default().then(Step::Silence));
        for request in [ask("p1/m"), ask_streamed("p1/m")] {
            let (took, response) = timed(|| proxy.call(request));
            assert_error(&response, 504, "upstream_timeout");
            assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
        let drip = (0..100).fold(Script::raw(head), |script, _| {
            script.send("x").then(Step::Pause(Duration::from_millis(50)))
        });
        upstream.chat(drip);
        let (took, response) = timed(|| proxy.call(ask("p1/m")));
        assert_error(&response, 504, "upstream_timeout");
        assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");

        upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        assert_error_event(stream.next_event().as_ref(), 504, "upstream_timeout");
    }
}

#[test]
fn heartbeats_go_out() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({"stream_heartbeat": 0.3}));
        upstream.chat(Script::sse().chunk(event("a")).then(Step::Silence));
        let mut client = proxy.client();
        client.send(ask_streamed("p1/m"));
        let mut stream = client.streamed();
        assert_eq!(stream.next_event(), Some(event("a")));
        assert_eq!(stream.next_event().as_deref(), Some(HEARTBEAT), "{scheme}");
    }
}

#[test]
fn a_client_that_leaves_closes_the_upstream() {
    for scheme in SCHEMES {
        let (upstream, _tunnel, proxy) = start(scheme, json!({}));
        let took = proxy.leave_a_stream(&upstream, b"");
        assert!(took < WITHIN_A_SECOND, "{scheme}: {took:?}");
    }
}
