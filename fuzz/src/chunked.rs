//! A chunked body: payload and end do not depend on how it came, and are those that a plain reading of the grammar
//! finds.

use ai_proxy::core::body::{Decoder, Piece};
use ai_proxy::core::framing::Framing;
use ai_proxy::front::Rejection;

use super::cut;

/// Payload, and where the body ended.
type Decoded = (Vec<u8>, Option<usize>);

/// Decodes it whole, in pieces, and by other means.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(whole, decode(bytes, step), "in pieces of {step}");
    assert_eq!(whole, decode(bytes, 1), "byte by byte");
    if let Ok((payload, Some(end))) = whole {
        assert_eq!((payload, Some(&b""[..])), plainly(&bytes[..end]), "by the grammar");
    }
}

fn decode(bytes: &[u8], step: usize) -> Result<Decoded, Rejection> {
    let mut decoder = Decoder::new(Framing::Chunked).expect("chunked has a body");
    let mut payload = Vec::new();
    let mut used = 0;
    for window in bytes.chunks(step) {
        let mut at = 0;
        while at < window.len() {
            assert!(!decoder.is_done());
            let count = match decoder.next(&window[at..])? {
                Piece::Framing(count) => count,
                Piece::Payload(count) => {
                    payload.extend_from_slice(&window[at..at + count]);
                    count
                }
            };
            assert!(count > 0, "no progress");
            at += count;
            if decoder.is_done() {
                return Ok((payload, Some(used + at)));
            }
        }
        used += window.len();
    }
    Ok((payload, None))
}

/// RFC 9112 section 7.1, line by line: the payload that has come, and what stands behind the body where it is whole.
pub fn plainly(mut rest: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let mut payload = Vec::new();
    let whole = read(&mut rest, &mut payload).is_some();
    (payload, whole.then_some(rest))
}

fn read(rest: &mut &[u8], payload: &mut Vec<u8>) -> Option<()> {
    loop {
        let line = line(rest)?;
        let size = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        payload.extend_from_slice(chunk);
        *rest = behind.strip_prefix(b"\r\n")?;
    }
    while !line(rest)?.is_empty() {}
    Some(())
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
