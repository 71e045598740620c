//! Host and port of a URL's authority.

/// An authority's host and port; `None` when the port is not within 1 to 65535.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // A colon inside brackets belongs to an IPv6 address.
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].find(':').map(|at| at + after_brackets) else {
        return Some((authority, None));
    };
    let digits = &authority[colon + 1..];
    let port = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    port.filter(|port| *port != 0).map(|port| (&authority[..colon], Some(port)))
}
