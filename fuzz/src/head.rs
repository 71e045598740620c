//! The head of a request: where it ends and what it says does not depend on how it came, and what was accepted is in
//! the one form that leaves nothing to guess.

use ai_proxy::core::framing::Framing;
use ai_proxy::core::request_head::{Head, Scan};
use ai_proxy::limits::{MAX_HEAD, MAX_HEADERS, MAX_TARGET};

use super::cut;

/// Reads it whole and in pieces.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let whole = Scan::default().find_end(bytes);
    let pieces = find_end_in_pieces(bytes, step);
    match (&whole, &pieces) {
        (Ok(end), Ok(other)) => assert_eq!(end, other, "the end depends on the cut"),
        // What is refused first may differ, for a limit strikes before the rest has come; that it is refused may not.
        (Err(_), Err(_)) => {}
        _ => panic!("whole {whole:?}, in pieces of {step} {pieces:?}"),
    }
    let Ok(Some(end)) = whole else { return };
    assert!(end <= MAX_HEAD && bytes[..end].ends_with(b"\r\n\r\n"));
    let Ok(head) = Head::parse(&bytes[..end]) else { return };
    check_fields(&head);
    check_framing(&head);
    check_again(&head);
}

fn find_end_in_pieces(bytes: &[u8], step: usize) -> Result<Option<usize>, ai_proxy::front::Rejection> {
    let mut scan = Scan::default();
    let mut come = 0;
    while come < bytes.len() {
        come = (come + step).min(bytes.len());
        if let Some(end) = scan.find_end(&bytes[..come])? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

fn check_fields(head: &Head) {
    assert!(head.target().len() <= MAX_TARGET);
    assert!(head.target() == "*" || head.target().starts_with('/'), "{:?}", head.target());
    assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    assert!(!head.path().contains('?'));
    assert!(head.fields().count() <= MAX_HEADERS);
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
        assert_eq!(value.trim_ascii(), value, "{name}");
    }
}

/// Against a second reading of RFC 9112 section 6.3, over all fields of a name.
fn check_framing(head: &Head) {
    let all = |wanted: &str| -> Vec<Vec<u8>> {
        let same = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        same.map(|(_, value)| value.to_vec()).collect()
    };
    let (lengths, codings, hosts) = (all("content-length"), all("transfer-encoding"), all("host"));
    assert!(hosts.len() <= 1 && (hosts.len() == 1 || head.minor() == 0));
    assert!(lengths.is_empty() || codings.is_empty(), "both");
    // A length past 64 bits is over any limit, whatever it is.
    let digits = |value: &Vec<u8>| -> Option<u64> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX))
    };
    match head.framing() {
        Framing::None => {
            assert!(codings.is_empty() && lengths.iter().all(|value| digits(value) == Some(0u64)));
        }
        Framing::Length(length) => {
            assert!(length > 0 && !lengths.is_empty() && codings.is_empty());
            assert!(lengths.iter().all(|value| digits(value) == Some(length)), "{lengths:?}");
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && head.minor() == 1);
            assert!(codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"), "{codings:?}");
        }
    }
}

/// What was understood, written down again, is understood the same.
fn check_again(head: &Head) {
    let mut text = format!("{} {} HTTP/1.{}\r\n", head.method(), head.target(), head.minor()).into_bytes();
    for (name, value) in head.fields() {
        text.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    if text.len() > MAX_HEAD {
        return;
    }
    let again = Head::parse(&text).expect("what was accepted is accepted");
    assert_eq!((again.method(), again.target(), again.minor()), (head.method(), head.target(), head.minor()));
    assert_eq!((again.framing(), again.keep_alive()), (head.framing(), head.keep_alive()));
    assert_eq!(again.expects_continue(), head.expects_continue());
    assert!(again.fields().eq(head.fields()));
}
