//! Replays of the responses in each provider's public documentation: `tests/golden/providers`. Each provider
//! is configured as in `docs/providers.md`, host and TLS included; a forward proxy leads its connections to
//! the scripted upstream.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::support::calls::{KEY, TOKEN, authorized, without_clearing_words};
use crate::support::client::Response;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::tls::{Tls, certificate};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::{Request, Upstream};

/// `provider.json`: the requests for the files beside it, and the expected results. `KEY` stands for the
/// provider's key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    /// The entry of `providers`, as the documentation gives it.
    line: String,
    /// Sources of these files in the provider's documentation.
    sources: Vec<String>,
    /// Differences from the OpenAI API, for people.
    quirks: Vec<String>,
    /// The model of `request.json`.
    calls: String,
    /// The ids that the client must see.
    listed: Vec<String>,
    list_target: String,
    list_headers: BTreeMap<String, String>,
    chat_target: String,
    chat_headers: BTreeMap<String, String>,
    /// Header fields of `chat.json`.
    response_headers: BTreeMap<String, String>,
    tokens: Tokens,
    errors: BTreeMap<String, ErrorResponse>,
}

/// As the log counts them: prompt+completion.
#[derive(Deserialize)]
struct Tokens {
    whole: String,
    stream: String,
}

#[derive(Deserialize)]
struct ErrorResponse {
    status: u16,
    headers: BTreeMap<String, String>,
}

/// The list; a missing folder must fail.
const PROVIDERS: [&str; 11] = [
    "anthropic",
    "deepseek",
    "gemini",
    "llama.cpp",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "qwen",
    "vllm",
    "zhipu",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/providers")
}

/// One provider with everything between it and a client.
struct Scene {
    name: String,
    golden: Golden,
    folder: PathBuf,
    upstream: Upstream,
    proxy: Proxy,
}

impl Scene {
    fn set(name: &str) -> Scene {
        let folder = folder().join(name);
        let text = std::fs::read_to_string(folder.join("provider.json")).expect("provider.json");
        let golden: Golden = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (upstream, tunnel) = (Upstream::new(&[]), Tunnel::new());
        let tls = Tls::new(&upstream, "providers.pem");
        let mut parts = golden.line.split('|');
        let (Some(named), Some(url), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{name}: {}", golden.line)
        };
        assert_eq!(named, name);
        tunnel.lead_to(if url.starts_with("https://") { tls.address() } else { upstream.address() });
        upstream.respond(
            golden.list_target.split('?').next().expect("a path"),
            Script::whole(200, &[("content-type", "application/json")], read(&folder, "models.json")),
        );
        let provider = json!({
            "name": named, "url": url, "key": KEY,
            "proxy": format!("http://{}", tunnel.address()), "ca_file": certificate("ca.pem"),
        });
        let proxy = Proxy::start(&with(config(&[]), json!({"providers": [provider]})));
        Scene { name: name.to_owned(), golden, folder, upstream, proxy }
    }

    /// A client's request, made from the one that the provider must get: only the model differs.
    fn call(&self, streamed: bool) -> (Response, Request) {
        let expected = self.expected(streamed);
        let model = json!(self.golden.calls).to_string();
        let asked = json!(format!("{}/{}", self.name, self.golden.calls)).to_string();
        let body = expected.replacen(&format!("\"model\":{model}"), &format!("\"model\":{asked}"), 1);
        assert_ne!(body, expected);
        let response = self.proxy.call(authorized("/v1/chat/completions", body));
        (response, self.upstream.last())
    }

    fn expected(&self, streamed: bool) -> String {
        let request = String::from_utf8(read(&self.folder, "request.json")).expect("UTF-8");
        if streamed { request.replacen('{', "{\"stream\":true,", 1) } else { request }
    }

    fn script(&self, script: Script) {
        self.upstream.respond(&self.golden.chat_target, script);
    }

    fn assert_request(&self, request: &Request, streamed: bool) {
        assert_eq!(request.target, self.golden.chat_target, "{}", self.name);
        assert_eq!(request.text(), self.expected(streamed), "{}", self.name);
        assert_headers(&self.name, request, &self.golden.chat_headers);
        assert!(!format!("{:?}", request.head).contains(TOKEN), "{}: the client's token is ours", self.name);
    }
}

fn read(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{}/{file}: {error}", folder.display()))
}

fn pairs(headers: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn assert_headers(name: &str, request: &Request, expected: &BTreeMap<String, String>) {
    for (field, value) in expected {
        let value = value.replace("KEY", KEY);
        assert_eq!(request.head.get(field), Some(value.as_str()), "{name}: {field}");
    }
}

/// A stream as the provider sends it: one event per chunk.
fn events(bytes: &[u8]) -> Script {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    text.split_inclusive("\n\n").fold(Script::sse(), Script::chunk).end()
}

fn each(check: impl Fn(&Scene)) {
    for name in PROVIDERS {
        let scene = Scene::set(name);
        check(&scene);
    }
}

#[test]
fn every_provider_lists_models_that_can_be_retrieved() {
    each(|scene| {
        let Scene { name, golden, upstream, proxy, .. } = scene;
        let list = proxy.get("/v1/models").json();
        let listed: Vec<&str> =
            list["data"].as_array().expect("data").iter().filter_map(|model| model["id"].as_str()).collect();
        assert_eq!(listed, golden.listed, "{name}");
        for id in &golden.listed {
            let one = proxy.get(&format!("/v1/models/{}", id.replace('/', "%2F"))).json();
            assert_eq!(one["id"], **id, "{name}");
        }
        assert!(
            golden.listed.contains(&format!("{name}/{}", golden.calls)),
            "{name}: it calls what it lists"
        );
        let asked = upstream.list_requests().remove(0);
        assert_eq!(asked.target, golden.list_target, "{name}");
        assert_headers(name, &asked, &golden.list_headers);
        let health = proxy.get("/health");
        assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")), "{name}");
    });
}

#[test]
fn every_provider_gets_the_request_and_its_buffered_response_passes_to_the_byte() {
    each(|scene| {
        let Scene { name, golden, folder, proxy, .. } = scene;
        let body = read(folder, "chat.json");
        scene.script(Script::whole(200, &pairs(&golden.response_headers), &body));
        let (response, request) = scene.call(false);
        scene.assert_request(&request, false);
        assert_eq!(
            (response.status, response.text()),
            (200, String::from_utf8(body).expect("UTF-8")),
            "{name}"
        );
        for (field, value) in &golden.response_headers {
            assert_eq!(response.header(field), Some(value.as_str()), "{name}: {field}");
        }
        assert_eq!(response.header("x-ai-proxy-provider"), Some(name.as_str()));
        proxy.log_line(&[
            &format!("model={name}/"),
            "status=200",
            &format!("tokens={} ", golden.tokens.whole),
        ]);
    });
}

#[test]
fn every_providers_stream_passes_to_the_byte_and_ends_cleanly() {
    each(|scene| {
        let Scene { name, golden, folder, proxy, .. } = scene;
        for file in ["stream.sse", "stream-error.sse"] {
            if !folder.join(file).exists() {
                assert_eq!(file, "stream-error.sse", "{name}");
                continue;
            }
            let stream = read(folder, file);
            scene.script(events(&stream));
            let (response, request) = scene.call(true);
            scene.assert_request(&request, true);
            assert_eq!(
                (response.status, response.text()),
                (200, String::from_utf8(stream).expect("UTF-8")),
                "{name}"
            );
            assert_eq!(response.header("content-type"), Some("text/event-stream"), "{name}");
        }
        proxy.log_line(&["stream=true", &format!("tokens={} ", golden.tokens.stream)]);
    });
}

#[test]
fn every_providers_errors_pass_as_they_are_buffered_and_streamed() {
    each(|scene| {
        let Scene { name, golden, folder, .. } = scene;
        assert!(golden.errors.len() > 1, "{name}");
        for (file, error) in &golden.errors {
            let body = read(folder, file);
            scene.script(Script::whole(error.status, &pairs(&error.headers), &body));
            for streamed in [false, true] {
                let (response, request) = scene.call(streamed);
                scene.assert_request(&request, streamed);
                let text = String::from_utf8(body.clone()).expect("UTF-8");
                let sent = without_clearing_words(&response.text());
                assert_eq!((response.status, sent), (error.status, text), "{name} {file}");
                for (field, value) in &error.headers {
                    assert_eq!(response.header(field), Some(value.as_str()), "{name} {file}: {field}");
                }
            }
        }
    });
}

#[test]
fn the_documentation_has_each_providers_line_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
    let page = std::fs::read_to_string(page).expect("docs/providers.md");
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .expect("golden providers")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    found.sort();
    assert_eq!(found, PROVIDERS);
    for name in PROVIDERS {
        let text = std::fs::read_to_string(folder().join(name).join("provider.json")).expect("provider.json");
        let golden: Golden = serde_json::from_str(&text).expect("provider.json");
        assert!(page.contains(&format!("\"{}\"", golden.line)), "{name}: {}", golden.line);
        assert!(golden.sources.iter().all(|source| page.contains(source)), "{name}: its sources");
        assert!(golden.quirks.iter().all(|quirk| page.contains(quirk)), "{name}: its quirks");
    }
}
