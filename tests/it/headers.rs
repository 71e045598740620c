//! Header fields that cross the proxy in both directions, and responses of every status.

use serde_json::json;

use crate::support::calls::{
    KEY, TOKEN, ask, ask_streamed, assert_error, authorized, completion, media_type, post,
};
use crate::support::client::{End, Response};
use crate::support::proxy::{Proxy, config, with};
use crate::support::script::{Script, Step};
use crate::support::upstream::{Request, Upstream};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"p1/m"}"#;

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    (upstream, proxy)
}

/// The request that the upstream gets when a client sends these header fields and a token.
fn forwarded(headers: &[(&str, &str)]) -> Request {
    let (upstream, proxy) = start();
    let bearer = format!("Bearer {TOKEN}");
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    let response = proxy.call(post(CHAT, &all, BODY));
    assert_eq!(response.status, 200, "{}", response.text());
    upstream.last()
}

#[test]
fn the_key_takes_the_place_of_the_token() {
    let seen = forwarded(&[("X-Api-Key", TOKEN), ("Api-Key", TOKEN), ("Cookie", "session=1")]);
    assert_eq!(seen.head.all("authorization"), [format!("Bearer {KEY}")]);
    for name in ["x-api-key", "api-key", "cookie"] {
        assert!(seen.head.all(name).is_empty(), "{name}");
    }
    assert!(!String::from_utf8_lossy(&seen.head.raw).contains(TOKEN));
}

#[test]
fn what_describes_the_clients_connection_stays_here() {
    let seen = forwarded(&[
        ("Connection", "keep-alive, X-Hop, x-other-hop"),
        ("X-Hop", "1"),
        ("X-Other-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Authenticate", "Basic"),
        ("TE", "trailers"),
        ("Trailer", "X-Checksum"),
        ("Upgrade", "h2c"),
        ("Forwarded", "for=192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "public.test"),
        ("X-Forwarded-Anything", "x"),
        ("X-Real-Ip", "192.0.2.1"),
    ]);
    for name in [
        "x-hop",
        "x-other-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-anything",
        "x-real-ip",
        "expect",
        "transfer-encoding",
    ] {
        assert!(seen.head.all(name).is_empty(), "{name} was forwarded: {:?}", seen.head.headers);
    }
}

#[test]
fn credentials_and_account_selectors_of_the_client_are_not_forwarded() {
    let names = [
        "OpenAI-Organization",
        "OpenAI-Project",
        "OpenAI_Organization",
        "X-Goog-Api-Key",
        "x-goog-user-project",
        "Ocp-Apim-Subscription-Key",
        "Helicone-Auth",
        "cf-aig-authorization",
        "x-portkey-virtual-key",
        "X-Amz-Security-Token",
        "X-Auth-Email",
        "X-HF-Bill-To",
        "Origin",
    ];
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (*name, "https://mine.test")).collect();
    let seen = forwarded(&headers);
    assert!(!String::from_utf8_lossy(&seen.head.raw).contains("mine.test"), "{:?}", seen.head.headers);

    let (upstream, proxy) = start();
    let target = format!("{CHAT}?key=mine&api-version=2&%61pi_key=mine&x=a%2Fb");
    assert_eq!(proxy.call(authorized(&target, BODY)).status, 200);
    assert_eq!(upstream.last().target, format!("{CHAT}?api-version=2&x=a%2Fb"));
}

/// To a CGI or WSGI provider `Content_Length` and `Content-Length` are one variable.
#[test]
fn an_underscore_does_not_bring_in_what_a_hyphen_may_not() {
    let seen = forwarded(&[
        ("Content_Length", "1"),
        ("Transfer_Encoding", "chunked"),
        ("X_Forwarded_For", "192.0.2.1"),
        ("X-Forwarded_Host", "public.test"),
        ("X_Api_Key", TOKEN),
        ("X_Request_Id", "another"),
        ("X_Mine", "kept"),
    ]);
    let mut names = seen.head.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    assert!(names.all(|name| name == "x_mine" || !name.contains('_')), "{:?}", seen.head.headers);
    assert_eq!(seen.head.get("x_mine"), Some("kept"));
}

#[test]
fn everything_else_goes_through() {
    let seen = forwarded(&[
        ("Content-Type", "application/json; charset=utf-8"),
        ("Accept", "text/event-stream"),
        ("Accept-Language", "zh-CN"),
        ("User-Agent", "OpenAI/Python 3.3.1"),
        ("OpenAI-Beta", "assistants=v2"),
        ("Idempotency-Key", "1"),
        ("X-Stainless-Retry-Count", "0"),
        ("X-Empty", ""),
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("X-Utf8", "é"),
    ]);
    assert_eq!(seen.head.get("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(seen.head.get("accept"), Some("text/event-stream"));
    assert_eq!(seen.head.get("accept-language"), Some("zh-CN"));
    assert_eq!(seen.head.get("user-agent"), Some("OpenAI/Python 3.3.1"));
    assert_eq!(seen.head.get("openai-beta"), Some("assistants=v2"));
    assert_eq!(seen.head.get("idempotency-key"), Some("1"));
    assert_eq!(seen.head.get("x-stainless-retry-count"), Some("0"));
    assert_eq!(seen.head.get("x-empty"), Some(""));
    assert_eq!(seen.head.all("x-twice"), ["a", "b"]);
    assert_eq!(seen.head.get("x-utf8"), Some("é"));
}

#[test]
fn the_proxy_names_its_own_host_length_and_encoding() {
    let (upstream, proxy) = start();
    proxy.call(post(CHAT, &[("X-Api-Key", TOKEN), ("Accept-Encoding", "gzip, br")], BODY));
    let seen = upstream.last();
    assert_eq!(seen.head.get("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(seen.head.content_length(), Some(BODY.len() - "p1/".len()));
    assert_eq!(seen.head.get("accept-encoding"), Some("identity"));
    let expected = ["accept-encoding", "authorization", "content-length", "host"];
    for (name, value) in &seen.head.headers {
        let known = expected.contains(&name.as_str());
        assert!(known || name == "connection" || name == "x-request-id", "invented {name}: {value}");
    }
}

#[test]
fn a_providers_own_headers_win() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let headers = json!({"X-Tenant": "blue", "User-Agent": "configured"});
    let object = json!({"name": "p1", "url": upstream.url(), "key": KEY, "headers": headers});
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": [object]})));
    let sent = [("X-Api-Key", TOKEN), ("User-Agent", "client"), ("x-tenant", "red"), ("X-Other", "1")];
    assert_eq!(proxy.call(post(CHAT, &sent, BODY)).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.head.all("x-tenant"), ["blue"]);
    assert_eq!(seen.head.all("user-agent"), ["configured"]);
    assert_eq!(seen.head.all("x-other"), ["1"]);
}

/// Fields that a browser would keep for our origin, or act upon.
const BOUND_TO_AN_ORIGIN: [&str; 28] = [
    "accept-ch",
    "activate-storage-access",
    "alt-svc",
    "attribution-reporting-register-source",
    "attribution-reporting-register-trigger",
    "clear-site-data",
    "critical-ch",
    "cross-origin-resource-policy",
    "expect-ct",
    "nel",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "public-key-pins",
    "public-key-pins-report-only",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "sourcemap",
    "speculation-rules",
    "strict-transport-security",
    "timing-allow-origin",
    "use-as-dictionary",
    "x-permitted-cross-domain-policies",
    "x-sourcemap",
];

/// Fields that only restrict a response.
const PROTECTIVE: [&str; 6] = [
    "content-security-policy",
    "cross-origin-opener-policy",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
];

#[test]
fn head_of_64_kib_comes_back_and_a_larger_one_is_502() {
    let (upstream, proxy) = start();
    let body = completion("hello").to_string();
    let start = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
    let whole = |size: usize| {
        let cookies =
            "Set-Cookie: a=b; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=31536000; x=yyyyyyyyyyyy\r\n";
        let mut head = start.clone();
        while head.len() + cookies.len() < 9000 {
            head.push_str(cookies);
        }
        let last = "X-Long: ";
        let filler = "l".repeat(size - head.len() - last.len() - 4);
        (format!("{head}{last}{filler}\r\n\r\n"), filler)
    };
    for size in [16_383, 16_384, 16_385, 18_000, 32_768, 65_535, 65_536] {
        let (head, filler) = whole(size);
        assert_eq!(head.len(), size);
        let whole = Script::raw(format!("{head}{body}"));
        // Cut in the head and in its end, with an interim head before it.
        let cut = |at: usize| {
            let pause = Step::Pause(std::time::Duration::from_millis(5));
            Script::raw(&head[..at]).then(pause).send(format!("{}{body}", &head[at..]))
        };
        let interim = Script::raw(format!("HTTP/1.1 103 Early\r\n\r\n{head}{body}"));
        for script in [whole, cut(size - 1), cut(size - 2), cut(size - 3), cut(size / 2), interim] {
            upstream.chat(script);
            let response = proxy.call(ask("p1/m"));
            assert_eq!((response.status, response.text()), (200, body.clone()), "{size}");
            assert_eq!(response.header("x-long"), Some(&*filler), "{size}");
        }
    }
    for size in [65_537, 80_000] {
        let (head, _) = whole(size);
        upstream.chat(Script::raw(format!("{head}{body}")));
        assert_error(&proxy.call(ask("p1/m")), 502, "upstream_broken");
    }
    upstream.chat(Script::json(200, &completion("hello")));
    assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"));
}

/// Each piece with a blank line was once read together with everything before it.
#[test]
fn blank_lines_ahead_of_a_head_are_no_part_of_it() {
    let (upstream, proxy) = start();
    let body = completion("hello").to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    for (blank, count, status) in
        [("\r\n", 1, 200), ("\r\n", 20_000, 200), ("\n", 90_000, 200), ("\r\n", 80_000, 502)]
    {
        let interim = "HTTP/1.1 103 Early\r\n\r\n";
        let lines = blank.repeat(count);
        for start in [lines.clone(), format!("{interim}{lines}")] {
            upstream.chat(Script::raw(format!("{start}{head}{body}")));
            let response = proxy.call(ask("p1/m"));
            assert_eq!(response.status, status, "{count} {}", response.text());
            assert!(status != 200 || response.text() == body);
        }
    }
}

#[test]
fn response_headers_come_back() {
    let (upstream, proxy) = start();
    let long = "l".repeat(6000);
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("X-RateLimit-Remaining", "7"),
        ("Openai-Processing-Ms", "12"),
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("Server", "scripted"),
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Cache-Control", "private"),
        ("X-Empty", ""),
        ("X-Utf8", "é"),
        ("X-Long", &long),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X-Checksum"),
        ("Upgrade", "h2c"),
    ];
    let bound = BOUND_TO_AN_ORIGIN.map(|name| (name, "a=1"));
    let protective = PROTECTIVE.map(|name| (name, "a"));
    let fields = [&headers[..], &bound, &bound[..1], &protective].concat();
    upstream.chat(Script::whole(200, &fields, "{ \"odd\" : 1 }"));
    let response = proxy.call(ask("p1/m"));
    assert_eq!((response.status, response.text().as_str()), (200, "{ \"odd\" : 1 }"));
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("x-ratelimit-remaining", "7"),
        ("openai-processing-ms", "12"),
        ("cache-control", "private"),
        ("x-empty", ""),
        ("x-utf8", "é"),
        ("x-long", &long),
        ("content-length", "13"),
        ("x-ai-proxy-provider", "p1"),
        ("server", "scripted"),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ] {
        assert_eq!(response.head.all(name), [value], "{name}");
    }
    assert_eq!(response.head.all("x-twice"), ["a", "b"]);
    for name in PROTECTIVE {
        assert_eq!(response.head.all(name), ["a"], "{name}");
    }
    let stays = ["x-hop", "keep-alive", "proxy-authenticate", "trailer", "upgrade"];
    for name in BOUND_TO_AN_ORIGIN.into_iter().chain(stays) {
        assert!(response.head.all(name).is_empty(), "{name}: {:?}", response.head.headers);
    }
    assert!(response.header("x-should-retry").is_none(), "not the proxy's to say here");
}

#[test]
fn every_status_comes_through() {
    let (upstream, proxy) = start();
    let body = json!({"error": {"message": "scripted", "type": "x", "code": null}});
    for status in [
        200, 201, 202, 400, 401, 402, 403, 404, 405, 409, 413, 418, 422, 429, 451, 500, 501, 502, 503, 504,
        529,
    ] {
        upstream.chat(Script::json(status, &body));
        let before = upstream.requests().len();
        let response = proxy.call(ask("p1/m"));
        assert_eq!((response.status, response.json()), (status, body.clone()));
        assert_eq!(response.header("x-ai-proxy-provider"), Some("p1"));
        assert!(response.header("x-request-id").is_some());
        assert_eq!(upstream.requests().len(), before + 1, "{status}: a lone replica is asked once");
    }
}

#[test]
fn responses_without_a_body_have_none() {
    let (upstream, proxy) = start();
    let mut client = proxy.client();
    upstream.chat(Script::raw("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"));
    let response = client.call(ask("p1/m"));
    assert_eq!((response.status, response.end), (204, End::NoBody));
    assert_eq!(response.header("content-length"), None, "RFC 9110 section 8.6");
    assert_eq!(response.header("transfer-encoding"), None);
    upstream.chat(Script::whole(200, &[], ""));
    let response = client.call(ask("p1/m"));
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.header("content-length"), Some("0"));
    upstream.chat(Script::json(200, &completion("hello")));
    assert_eq!(client.call(ask("p1/m")).status, 200, "the connection is still in step");
}

#[test]
fn redirect_is_502_and_neither_followed_nor_passed_on() {
    let (upstream, proxy) = start();
    let location = format!("http://user:{TOKEN}@elsewhere.test/{KEY}/v1?key=1");
    for status in [300, 301, 302, 303, 307, 308] {
        let headers = [("Location", &*location), ("Content-Type", "text/plain")];
        upstream.chat(Script::whole(status, &headers, "over there"));
        for call in [ask("p1/m"), ask_streamed("p1/m")] {
            let response = proxy.call(call);
            assert_error(&response, 502, "upstream_redirect");
            assert_eq!(response.header("x-should-retry"), Some("false"));
            assert!(response.header("location").is_none());
        }
        let warning = format!("HTTP {status} to http://***@elsewhere.test/pk-***wq/v1");
        proxy.log_line(&["WARNING", "cooldown=-", &warning]);
    }
    assert!(upstream.requests().iter().all(|request| request.target == CHAT));
    assert!(!proxy.log().contains(TOKEN) && !proxy.log().contains(KEY));
    upstream.chat(Script::raw("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"));
    assert_eq!(proxy.call(ask("p1/m")).status, 304, "no redirect");
}

#[test]
fn unrequested_compression_is_502_that_names_the_coding() {
    let (upstream, proxy) = start();
    for coding in ["gzip", "BR", "zstd", "identity, deflate"] {
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", coding)];
        upstream.chat(Script::whole(200, &headers, b"\x1f\x8b\x08\x00zip"));
        let message = assert_error(&proxy.call(ask("p1/m")), 502, "upstream_encoding");
        let named = coding.rsplit(' ').next().expect("a coding").to_lowercase();
        assert!(message.contains(&named), "{message}");
        // The status still shows an error.
        upstream.chat(Script::whole(429, &headers, b"\x1f\x8b\x08\x00zip"));
        let response = proxy.call(ask("p1/m"));
        assert_eq!(
            response.json()["error"]["message"].as_str().map(|it| it.contains("HTTP 429")),
            Some(true)
        );
        assert_eq!((response.status, response.header("content-encoding")), (429, None));
    }
    for harmless in ["identity", "utf-8", ""] {
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", harmless)];
        upstream.chat(Script::whole(200, &headers, completion("hello").to_string()));
        assert_eq!(proxy.call(ask("p1/m")).json(), completion("hello"), "{harmless}");
    }
}

#[test]
fn a_body_of_bytes_is_exact() {
    let (upstream, proxy) = start();
    let audio: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let headers = [("Content-Type", "audio/mpeg")];
    let chunked = audio.chunks(7777).fold(Script::chunked(200, &headers), Script::chunk).end();
    for script in [Script::whole(200, &headers, &audio), chunked] {
        upstream.respond("/v1/audio/speech", script);
        let response = proxy.call(authorized("/v1/audio/speech", r#"{"model":"p1/m","input":"x"}"#));
        assert_eq!((response.status, response.header("content-type")), (200, Some("audio/mpeg")));
        assert!(response.body == audio && response.end != End::Cut);
    }
}

#[test]
fn an_error_that_is_not_json_is_wrapped() {
    let (upstream, proxy) = start();
    for (status, content_type, body) in [
        (502, "text/html", "<html>Bad Gateway</html>"),
        (400, "text/plain", "no such thing: \"x\" \\ \u{1b}[31m"),
        (500, "application/json", "{\"error\": trunc"),
        (503, "text/plain", ""),
        (429, "text/plain", "slow down"),
    ] {
        upstream.chat(Script::whole(status, &[("Content-Type", content_type), ("Retry-After", "7")], body));
        let response = proxy.call(ask("p1/m"));
        assert_eq!(response.status, status);
        assert_eq!(response.header("content-type").map(media_type), Some("application/json"));
        assert_eq!(response.header("retry-after"), Some("7"), "the SDKs wait by it");
        let error = &response.json()["error"];
        assert_eq!((&error["code"], &error["type"]), (&json!(status), &json!("http_error")));
        assert_eq!(error["param"], json!(null));
        assert!(error["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        let message = error["message"].as_str().expect("message");
        let word = body.split([' ', '<', '>']).find(|word| word.len() > 3).unwrap_or_default();
        assert!(message.contains(word), "{message:?} tells what the upstream said: {body:?}");
    }
}

/// A client's own token is checked before: a 401 or 403 of the provider is about the operator's account.
#[test]
fn refusal_of_our_key_does_not_look_like_one_of_the_clients_token() {
    let (upstream, proxy) = start();
    let json = json!({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}});
    let refused = |response: &Response| response.header("x-ai-proxy-refused-by").map(str::to_owned);
    let key = "provider p1 refused the key that ai-proxy has for it (your token is valid): ";
    let call = "provider p1 refused the call (your token is valid): ";
    for (status, code, words) in [
        (401, "invalid_api_key", key),
        (403, "invalid_api_key", call),
        (400, "invalid_api_key", key),
        (404, "other", ""),
        (500, "other", ""),
    ] {
        let body =
            |words: &str| json!({"error": {"message": format!("{words}no"), "code": code}, "x": [1, {}]});
        upstream.chat(Script::json(status, &body("")));
        let response = proxy.call(ask("p1/m"));
        assert_eq!(
            (response.status, response.json()),
            (status, body(words)),
            "the rest as the provider has it"
        );
        assert_eq!(refused(&response), (!words.is_empty()).then(|| "provider".to_owned()), "{status}");
    }
    for (status, text, expected) in [
        (401, "bad key", format!("{key}bad key")),
        (401, "", format!("{key}HTTP 401")),
        (403, "not here", format!("{call}not here")),
        (404, "not there", "not there".to_owned()),
    ] {
        upstream.chat(Script::whole(status, &[("Content-Type", "text/plain")], text));
        let response = proxy.call(ask("p1/m"));
        let error = &response.json()["error"];
        assert_eq!((response.status, &error["reason"]), (status, &json!("upstream_error")));
        assert_eq!(error["message"].as_str(), Some(expected.as_str()));
        assert_eq!(refused(&response).is_some(), status != 404, "{status}");
    }
    // A provider cannot say it for ai-proxy.
    upstream.chat(Script::whole(404, &[("X-AI-Proxy-Refused-By", "x")], json.to_string()));
    assert_eq!(refused(&proxy.call(ask("p1/m"))), None);
    upstream.chat(Script::json(401, &json));
    let own = proxy.call(post(CHAT, &[("Authorization", "Bearer sk-wrong-token-000000")], BODY));
    assert_eq!((own.status, refused(&own)), (401, None), "this one is the client's own");
}

#[test]
fn a_wrapped_text_is_cut_at_2_kib() {
    let (upstream, proxy) = start();
    for unit in ["x", "é", "好"] {
        let body = unit.repeat(50_000);
        upstream.chat(Script::whole(500, &[("Content-Type", "text/plain")], &body));
        let response = proxy.call(ask("p1/m"));
        assert_eq!(response.status, 500);
        let message = response.json()["error"]["message"].as_str().expect("message").to_owned();
        let kept = message.matches(unit).count() * unit.len();
        assert!((2000..=2048).contains(&kept), "{kept} bytes of {unit:?} kept");
        assert!(!message.contains('\u{fffd}'), "cut between characters");
    }
    let body = [b"bytes: ".as_slice(), &[0xff, 0xfe, 0x80]].concat();
    upstream.chat(Script::whole(500, &[], body));
    assert!(proxy.call(ask("p1/m")).json()["error"]["message"].is_string());
}

#[test]
fn interim_response_is_not_the_response() {
    let (upstream, proxy) = start();
    for interim in ["100 Continue", "102 Processing", "103 Early Hints\r\nLink: </x>"] {
        let body = completion("hello").to_string();
        upstream.chat(Script::raw(format!(
            "HTTP/1.1 {interim}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )));
        let response = proxy.call(ask("p1/m"));
        assert_eq!((response.status, response.text()), (200, body), "{interim}");
    }
}

#[test]
fn a_connection_header_cannot_strip_what_the_proxy_says() {
    for names in
        ["authorization, host, content-length, accept-encoding", "close, Authorization", "transfer-encoding"]
    {
        let seen = forwarded(&[("Connection", names), ("Accept-Encoding", "gzip")]);
        assert_eq!(seen.head.all("authorization"), [format!("Bearer {KEY}")], "{names}");
        assert_eq!(seen.head.all("accept-encoding"), ["identity"]);
        assert_eq!(seen.text(), r#"{"model":"m"}"#);
    }
}

#[test]
fn odd_upstream_headers_harm_no_client() {
    let (upstream, proxy) = start();
    for (name, value) in [
        ("Retry-After", "18446744073709551615"),
        ("Retry-After", "99999999999999999999"),
        ("Retry-After", "-1"),
        ("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT"),
        ("X-Request-Id", "not \u{9b}sane at all"),
        ("Content-Type", ""),
        ("Content-Type", "\u{e9}"),
        ("X-Ai-Proxy-Provider", "forged"),
    ] {
        for status in [200, 429, 503] {
            upstream.chat(Script::whole(status, &[(name, value)], "{}"));
            let response = proxy.call(ask("p1/m"));
            assert_eq!((response.status, response.text().as_str()), (status, "{}"), "{name}: {value}");
            assert_eq!(response.head.all("x-ai-proxy-provider"), ["p1"]);
            let id = response.header("x-request-id").expect("x-request-id");
            assert!(id.bytes().all(|byte| byte.is_ascii_graphic()), "{id:?}");
        }
    }
}

#[test]
fn a_provider_without_a_key_gets_no_token_either() {
    let upstream = Upstream::new(&["m"]);
    upstream.chat(Script::json(200, &completion("hello")));
    let providers = json!([format!("p1|{}|", upstream.url())]);
    let proxy = Proxy::start(&with(config(&[]), json!({"providers": providers})));
    assert_eq!(proxy.call(ask("p1/m")).status, 200);
    let sent = [("X-Api-Key", TOKEN), ("Api-Key", TOKEN)];
    assert_eq!(proxy.call(post(CHAT, &sent, BODY)).status, 200);
    for request in upstream.requests() {
        assert!(request.head.all("authorization").is_empty(), "{:?}", request.head.headers);
        assert!(!String::from_utf8_lossy(&request.head.raw).contains(TOKEN));
    }
}
