//! The relay of a stream: every byte goes through once and in order, pieces end where events end, and what is learnt of
//! the events does not depend on how they came.

use ai_proxy::limits::MAX_HELD_EVENT;
use ai_proxy::upstream::assembly::assemble;
use ai_proxy::upstream::events::Events;
use ai_proxy::upstream::opening::{Opening, error_among};
use ai_proxy::upstream::usage::Reported;

use super::{cut, with_runs};

/// Most runs of one input: the targets are to stay fast.
const MAX_RUNS: usize = 3;

/// Longest input that is also passed byte by byte.
const BYTE_BY_BYTE: usize = 4096;

/// Passes it whole, in pieces, and byte by byte.
pub fn check(data: &[u8]) {
    let (step, bytes) = cut(data);
    let bytes = with_runs(bytes, MAX_RUNS, MAX_HELD_EVENT / 2 + 1);
    // Fewer pieces of what is large: cuts at each place are for small inputs.
    let step = if bytes.len() > MAX_HELD_EVENT { step * 257 } else { step };
    if let Ok(document) = assemble(&bytes) {
        // A byte of a character that is never complete is replaced by three.
        assert!(document.len() <= 3 * bytes.len() + 64, "{} bytes of {}", document.len(), bytes.len());
    }
    let is_error = matches!(Opening::of(&bytes), Opening::Refusal(..));
    assert!(!is_error || error_among(&bytes).is_some());
    let whole = pass(&bytes, bytes.len().max(1));
    let learnt = pass(&bytes, step);
    if bytes.len() <= MAX_HELD_EVENT {
        assert_eq!(learnt, whole, "in pieces of {step}");
    }
    if bytes.len() <= BYTE_BY_BYTE {
        assert_eq!(pass(&bytes, 1), whole, "byte by byte");
    }
}

fn pass(bytes: &[u8], step: usize) -> (bool, Reported) {
    let mut events = Events::default();
    let mut sent = Vec::with_capacity(bytes.len());
    let mut come = 0;
    let mut inside = false;
    for piece in bytes.chunks(step) {
        come += piece.len();
        let passed: Result<(), ()> = events.pass(piece, |part, mid_event| {
            assert!(!part.is_empty());
            sent.extend_from_slice(part);
            inside = mid_event;
            let ends = [&b"\n\n"[..], b"\n\r\n", b"\r\r"].iter().any(|blank| sent.ends_with(blank));
            assert!(mid_event || ends, "a piece that is no whole event");
            Ok(())
        });
        passed.expect("nothing fails");
        let held = come - sent.len();
        assert!(held <= MAX_HELD_EVENT, "{held} bytes held back");
        assert!(!inside || held <= 3, "an event that has begun to leave is held back");
    }
    sent.extend(events.end());
    assert_eq!(sent, bytes);
    assert!(!bytes.ends_with(b"\n\ndata: [DONE]\n\n") || events.is_over());
    (events.is_over(), events.measured().reported)
}
