//! Listening on a Unix socket.

use serde_json::json;

use crate::support::calls::{ask, completion, get};
use crate::support::client::Client;
use crate::support::proxy::{Proxy, command, config, run, with};
use crate::support::script::Script;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

fn unix_config(upstream: &Upstream, directory: &TempDir) -> serde_json::Value {
    let host = format!("unix:{}", directory.join("s").display());
    with(config(&[("p1", upstream)]), json!({"host": host}))
}

#[test]
fn serves_on_a_unix_socket_and_takes_over_a_stale_one() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let sockets = TempDir::short();
    let path = sockets.join("s");
    let config = unix_config(&upstream, &sockets);

    let proxy = Proxy::start(&config);
    assert_eq!(proxy.bound, [format!("unix:{}", path.display())]);
    let mut client = Client::connect_unix(&path);
    assert_eq!(client.call(get("/healthz")).status, 200);
    assert_eq!(client.call(ask("p1/m")).status, 200);
    assert_eq!(client.call(get("/v1/models")).status, 200);

    drop(proxy.kill());
    assert!(path.exists(), "a killed process leaves its socket");
    let _proxy = Proxy::start(&config);
    assert_eq!(Client::connect_unix(&path).call(get("/healthz")).status, 200);
}

#[test]
fn socket_in_use_is_left_alone() {
    let upstream = Upstream::new(&["m"]);
    let sockets = TempDir::short();
    let config = unix_config(&upstream, &sockets);
    let first = Proxy::start(&config);

    let second = run(command(first.directory.path()).arg("--config").arg(first.config_path()));
    assert_eq!(second.code, Some(1), "{}", second.output());
    assert_eq!(Client::connect_unix(&sockets.join("s")).call(get("/healthz")).status, 200);
}

#[test]
fn leaves_a_file_alone_that_is_no_socket() {
    let upstream = Upstream::new(&["m"]);
    let sockets = TempDir::short();
    std::fs::write(sockets.join("s"), "precious").expect("write");
    let config = unix_config(&upstream, &sockets);
    std::fs::write(sockets.join("config.json"), config.to_string()).expect("write");

    let finished = run(&mut command(sockets.path()));
    assert_eq!(finished.code, Some(1), "{}", finished.output());
    let kept = std::fs::read_to_string(sockets.join("s")).expect("still there");
    assert_eq!(kept, "precious");
}
