//! `GET /`: name and endpoints as JSON, or the status page for a client that prefers HTML.

use serde::Serialize;

use super::response_context::{ResponseContext, new_id};
use super::{ENDPOINTS, json_response};
use crate::front::{Fields, Head, Response};

/// The whole status page, which must work without any other host. Its script fetches the figures.
const PAGE: &str = include_str!("page.html");

/// The response in the format that the client prefers; `Vary` names the field that decides.
pub fn index(head: &Head, context: &ResponseContext) -> Response {
    let mut response = if prefers_html(head) { page(context) } else { document(context) };
    response.fields.push("vary", "Accept");
    response
}

fn document(context: &ResponseContext) -> Response {
    #[derive(Serialize)]
    struct Index {
        name: &'static str,
        version: &'static str,
        endpoints: Vec<String>,
    }
    let endpoints = ENDPOINTS.iter().map(|endpoint| {
        let id = if endpoint.path.len() > 1 && endpoint.path.ends_with('/') { "{id}" } else { "" };
        format!("{} {}{id}{}", endpoint.method, endpoint.path, endpoint.behind_id.unwrap_or_default())
    });
    let index = Index {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        endpoints: endpoints.collect(),
    };
    json_response(200, context, &index)
}

/// The page runs no script but its own and fetches nothing from elsewhere, whatever the names of a provider's models contain.
fn page(context: &ResponseContext) -> Response {
    let nonce = new_id();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut fields: Fields = context.fields("text/html; charset=utf-8");
    fields.push("content-security-policy", policy);
    fields.push("x-content-type-options", "nosniff");
    fields.push("referrer-policy", "no-referrer");
    fields.push("cache-control", "no-store");
    Response { status: 200, fields, body: PAGE.replace("{nonce}", &nonce).into_bytes().into() }
}

/// Whether the client prefers HTML by `Accept`. Other clients get JSON.
fn prefers_html(head: &Head) -> bool {
    let accepted = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
    let ranges: Vec<&str> = accepted
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .collect();
    let html = liking(&ranges, "text", "html");
    html.0 > 0 && html > liking(&ranges, "application", "json")
}

/// How much the client prefers a media type (RFC 9110 section 12.5.1): by its weight in thousandths, then by how exactly it is named. The most exact
/// range that matches counts.
fn liking(ranges: &[&str], kind: &str, subtype: &str) -> (u16, u8) {
    let matching = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let exactness = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (found, "*") if found.eq_ignore_ascii_case(kind) => 1,
            (found, sub) if found.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((exactness, weight.map_or(1000, thousandths)))
    });
    let (exactness, weight) = matching.max_by_key(|&(exactness, _)| exactness).unwrap_or((0, 0));
    (weight, exactness)
}

/// A weight between 0 and 1; anything else counts as 0.
fn thousandths(weight: &str) -> u16 {
    let weight = weight.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    // At most 1000.
    weight.map_or(0, |weight| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::{PAGE, prefers_html};
    use crate::front::Head;

    fn prefers(accept: &[&str]) -> bool {
        let fields: String = accept.iter().map(|value| format!("Accept: {value}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        prefers_html(&Head::parse(head.as_bytes()).expect("a head"))
    }

    #[test]
    fn prefers_html_only_where_accept_ranks_it_above_json() {
        for browser in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "text/html",
            "TEXT/HTML;charset=utf-8",
            "text/*",
            "text/html, */*",
            "application/json;q=0.5, text/html;q=0.501",
            "*/*;q=0.1, text/html ; q=0.2",
        ] {
            assert!(prefers(&[browser]), "{browser}");
        }
        assert!(prefers(&["application/json;q=0.1", "text/html"]));
        for program in [
            "*/*",
            "",
            "application/json",
            "application/json, text/plain, */*",
            "text/html, application/json",
            "text/html;q=0.5, application/json",
            "text/html;q=0, */*",
            "text/html;q=nan",
            "text/html;q=2",
            "application/*, text/html;q=0.9",
            "image/png",
        ] {
            assert!(!prefers(&[program]), "{program}");
        }
        assert!(!prefers(&[]));
    }

    #[test]
    fn page_is_small_and_loads_nothing_from_elsewhere() {
        assert!(PAGE.len() < 30 * 1024, "{} bytes", PAGE.len());
        let elsewhere = PAGE.match_indices("//").filter(|(at, _)| PAGE[..*at].ends_with("http:"));
        // The name of a vocabulary, which no browser fetches.
        assert!(elsewhere.clone().all(|(at, _)| PAGE[at..].starts_with("//www.w3.org/2000/svg")));
        assert!(!PAGE.contains("https:") && !PAGE.contains("innerHTML") && !PAGE.contains(" style="));
        assert_eq!(PAGE.matches("nonce=\"{nonce}\"").count(), 2);
        assert_eq!(PAGE.matches("{nonce}").count(), 2);
    }
}
