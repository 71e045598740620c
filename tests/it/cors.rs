//! Browsers: preflights and the headers that let a page read a response.

use serde_json::json;

use crate::support::calls::{DONE, TOKEN, assert_error, bare, completion, event, post};
use crate::support::client::Response;
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::Script;
use crate::support::upstream::Upstream;

const CHAT: &str = "/v1/chat/completions";
const PAGE: &str = "https://app.example";

fn start(origins: &[&str]) -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&with(config(&[("p1", &upstream)]), json!({"cors_origins": origins})));
    (upstream, proxy)
}

fn preflight(proxy: &Proxy, origin: &str) -> Response {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization, content-type, x-custom"),
    ];
    proxy.call(bare("OPTIONS", CHAT, &headers))
}

fn allowed(response: &Response) -> Option<&str> {
    response.header("access-control-allow-origin")
}

#[test]
fn a_preflight_of_an_allowed_origin_succeeds() {
    for origins in [&[PAGE][..], &["*"], &["https://other.example", PAGE]] {
        let (_upstream, proxy) = start(origins);
        let response = preflight(&proxy, PAGE);
        assert!(matches!(response.status, 200 | 204), "{}", response.text());
        assert!(matches!(allowed(&response), Some("*" | PAGE)), "{:?}", response.head.headers);
        let methods = response.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains("POST"), "{methods}");
        let names = response.header("access-control-allow-headers").expect("headers").to_lowercase();
        // A wildcard does not cover Authorization (Fetch standard).
        assert!(
            names.contains("authorization") && (names.contains("content-type") || names.contains('*')),
            "{names}"
        );
    }
}

#[test]
fn a_preflight_allows_every_method_and_header_that_clients_use() {
    let (_upstream, proxy) = start(&[PAGE]);
    let wanted =
        "authorization,content-type,x-stainless-os,x-stainless-retry-count,openai-beta,anthropic-version";
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let headers = [
            ("Origin", PAGE),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", wanted),
            ("Access-Control-Request-Private-Network", "true"),
        ];
        let response = proxy.call(bare("OPTIONS", "/v1/responses/resp_1", &headers));
        assert_eq!((response.status, allowed(&response)), (204, Some(PAGE)));
        let methods = response.header("access-control-allow-methods").expect("methods");
        assert!(methods.split(", ").any(|allowed| allowed == method), "{methods}");
        assert_eq!(response.header("access-control-allow-headers"), Some(wanted));
        assert_eq!(response.header("access-control-allow-private-network"), Some("true"));
        assert!(response.header("access-control-max-age").is_some());
    }
    assert_eq!(preflight(&proxy, PAGE).header("access-control-allow-private-network"), None, "nobody asked");
}

#[test]
fn vary_says_that_another_origin_gets_another_response() {
    let vary = |response: &Response| response.head.all("vary").join(", ").to_lowercase();
    let (_upstream, proxy) = start(&[PAGE]);
    for origin in [PAGE, "https://evil.example"] {
        assert!(vary(&proxy.call(bare("GET", "/v1/models", &[("Origin", origin)]))).contains("origin"));
    }
    assert!(vary(&proxy.get("/v1/models")).contains("origin"), "also where no browser asks");
    let (_upstream, any) = start(&["*"]);
    let response = any.call(bare("GET", "/v1/models", &[("Origin", PAGE)]));
    assert_eq!((allowed(&response), vary(&response).contains("origin")), (Some("*"), false));
}

#[test]
fn streams_forms_and_refusals_of_the_front_may_be_read_too() {
    let (upstream, proxy) = start(&[PAGE]);
    upstream.chat(Script::sse().chunk(event("hi")).chunk(DONE).end());
    let headers = [("Origin", PAGE), ("X-Api-Key", TOKEN)];
    let streamed = proxy.call(post(CHAT, &headers, r#"{"model":"p1/m","stream":true}"#));
    assert_eq!((streamed.status, allowed(&streamed)), (200, Some(PAGE)));
    assert!(
        streamed.header("access-control-expose-headers").is_some_and(|names| names.contains("x-request-id"))
    );
    let form = proxy.call(post("/v1/images/edits", &headers, "no form"));
    assert_eq!((form.status, allowed(&form)), (400, Some(PAGE)));
    let large = [("Origin", PAGE), ("X-Api-Key", TOKEN), ("Content-Length", "99999999999")];
    let refused = proxy.call(bare("POST", CHAT, &large));
    assert_eq!((refused.status, allowed(&refused)), (413, Some(PAGE)));
    let unknown = proxy.call(bare("GET", "/nowhere", &headers));
    assert_eq!((unknown.status, allowed(&unknown)), (404, Some(PAGE)));
}

#[test]
fn responses_to_an_allowed_origin_may_be_read() {
    let (_upstream, proxy) = start(&[PAGE]);
    let call = |headers: &[(&str, &str)]| proxy.call(post(CHAT, headers, r#"{"model":"p1/m"}"#));
    let response = call(&[("Origin", PAGE), ("X-Api-Key", TOKEN)]);
    assert_eq!((response.status, allowed(&response)), (200, Some(PAGE)));
    assert!(response.header("vary").is_some_and(|vary| vary.to_lowercase().contains("origin")));
    // A page must be able to read the reason of a refusal, too.
    let refused = call(&[("Origin", PAGE)]);
    assert_error(&refused, 401, "missing_token");
    assert_eq!(allowed(&refused), Some(PAGE));
    assert_eq!(allowed(&call(&[("X-Api-Key", TOKEN)])), None, "no browser asked");
}

#[test]
fn other_origins_get_nothing() {
    let (_upstream, proxy) = start(&[PAGE]);
    for origin in ["https://evil.example", "https://app.example.evil", "http://app.example", "null"] {
        assert_eq!(allowed(&preflight(&proxy, origin)), None, "{origin}");
        let headers = [("Origin", origin), ("X-Api-Key", TOKEN)];
        let response = proxy.call(post(CHAT, &headers, r#"{"model":"p1/m"}"#));
        assert_eq!(allowed(&response), None, "{origin}");
    }
    let (_upstream, closed) = start(&[]);
    assert_eq!(allowed(&preflight(&closed, PAGE)), None, "off unless asked for");
    assert_error(&preflight(&closed, PAGE), 405, "method_not_allowed");
}

#[test]
fn preflight_that_is_refused_mentions_cors_origins_in_response_and_log() {
    for (origins, origin) in [(&[][..], PAGE), (&[PAGE], "https://other.example")] {
        let (_upstream, proxy) = start(origins);
        let asked = ("Access-Control-Request-Method", "POST");
        for (target, status, reason) in [
            (CHAT, 405, "method_not_allowed"),
            ("/nowhere", 404, "not_found"),
            ("/v1/messages", 405, "method_not_allowed"),
        ] {
            let response = proxy.call(bare("OPTIONS", target, &[("Origin", origin), asked]));
            assert_eq!(response.status, status, "{}", response.text());
            assert!(response.text().contains("cors_origins"), "{}", response.text());
            let line =
                proxy.log_line(&[&format!("{status} {reason} "), &format!("path={target} "), "OPTIONS"]);
            assert!(line.contains(" detail=cors_origins "), "{line}");
        }
        // These come from no page.
        for fields in [&[("Origin", origin)][..], &[asked], &[]] {
            assert!(!proxy.call(bare("OPTIONS", CHAT, fields)).text().contains("cors_origins"));
        }
        assert!(
            !proxy
                .call(bare("GET", "/nowhere", &[("Origin", origin), asked]))
                .text()
                .contains("cors_origins")
        );
    }
}

#[test]
fn an_upstreams_own_cors_headers_do_not_double_ours() {
    let (upstream, proxy) = start(&[PAGE]);
    let headers = [("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*")];
    upstream.chat(Script::whole(200, &headers, "{}"));
    let call = [("Origin", PAGE), ("X-Api-Key", TOKEN)];
    let response = proxy.call(post(CHAT, &call, r#"{"model":"p1/m"}"#));
    assert_eq!(response.head.all("access-control-allow-origin"), [PAGE]);
}
