//! A streamed answer on its way: complete events are sent on the moment they are complete, so that a heartbeat or an
//! error never falls inside one.

use std::cell::RefCell;
use std::rc::Rc;

use ureq::http::{HeaderMap, header};

use super::usage::{self, Usage};
use super::{Exchange, Failure, Fault, Reply};
use crate::front::Fields;
use crate::limits::{MAX_HELD_EVENT, MAX_USAGE_SCAN, RELAY_PIECE};

/// How a stream went.
#[derive(Debug)]
pub struct Ended {
    /// Why it broke off; `None`: it is complete.
    pub failure: Option<Failure>,
    /// Tokens it reported.
    pub usage: Option<Usage>,
}

/// Whether the answer is a stream of events in the clear.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii());
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    plain
        && kind.is_some_and(|kind| {
            kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
        })
}

/// Relays a stream to its end. The client's answer begins with the first bytes, so that until then a failure can
/// still become another attempt: [`Reply::is_begun`] tells. It is not ended here.
pub fn relay(exchange: &mut Exchange, reply: &Rc<RefCell<Reply>>, fields: &Fields, max_size: usize) -> Ended {
    let mut events = is_event_stream(&exchange.headers).then(Events::default);
    let mut piece = vec![0; RELAY_PIECE];
    let mut size = 0;
    let failure = loop {
        let count = match exchange.read(&mut piece) {
            Err(failure) => break Some(failure),
            Ok(0) => break end(exchange, reply, fields, events.as_mut()).err(),
            Ok(count) => count,
        };
        // What is under the limit still goes, so that where a stream ends does not depend on how it was cut.
        let passed = count.min(max_size - size);
        size += passed;
        let mut reply = reply.borrow_mut();
        reply.begin(exchange.status, fields);
        let sent = match &mut events {
            Some(events) => events.pass(&piece[..passed], |part, mid_event| reply.write(part, mid_event)),
            // No comment fits into what is no stream of events.
            None => reply.write(&piece[..passed], true),
        };
        if let Err(error) = sent {
            break Some(Failure { fault: Fault::ClientGone, detail: error.to_string() });
        }
        if passed < count {
            break Some(Failure { fault: Fault::TooLarge, detail: format!("more than {max_size} bytes") });
        }
    };
    // Clients leave as soon as they have read the last event: nothing was lost then.
    let said_goodbye = events.as_ref().is_some_and(|events| events.said_goodbye);
    let failure = failure.filter(|failure| !(said_goodbye && failure.fault == Fault::ClientGone));
    Ended { failure, usage: events.and_then(|events| events.usage) }
}

/// The provider's end: clean where its framing or its last event says so.
fn end(
    exchange: &Exchange,
    reply: &Rc<RefCell<Reply>>,
    fields: &Fields,
    events: Option<&mut Events>,
) -> Result<(), Failure> {
    let Some(events) = events else {
        reply.borrow_mut().begin(exchange.status, fields);
        return Ok(());
    };
    let rest = std::mem::take(&mut events.held);
    events.look_at(&rest);
    if exchange.is_close_delimited() && !events.said_goodbye {
        return Err(Failure { fault: Fault::CutOff, detail: "closed before [DONE]".to_owned() });
    }
    let mut reply = reply.borrow_mut();
    reply.begin(exchange.status, fields);
    if rest.is_empty() {
        return Ok(());
    }
    let sent = reply.write(&rest, false);
    sent.map_err(|error| Failure { fault: Fault::ClientGone, detail: error.to_string() })
}

/// Cuts a stream of bytes behind its last complete event.
#[derive(Debug, Default)]
struct Events {
    /// The beginning of an event, at most [`MAX_HELD_EVENT`] bytes.
    held: Vec<u8>,
    /// An event over that size is being passed on in pieces.
    mid_event: bool,
    said_goodbye: bool,
    usage: Option<Usage>,
    /// The end of an event that is passed on in pieces, at most [`MAX_USAGE_SCAN`] bytes.
    end_of_event: Vec<u8>,
}

impl Events {
    /// Sends on what is complete with `bytes`, keeps the rest.
    fn pass<E>(&mut self, bytes: &[u8], mut send: impl FnMut(&[u8], bool) -> Result<(), E>) -> Result<(), E> {
        let joined;
        let (all, searched) = if self.held.is_empty() {
            (bytes, 0)
        } else {
            // A terminator may have begun in the last three bytes that were searched before.
            let searched = self.held.len().saturating_sub(3);
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            (&joined[..], searched)
        };
        let complete = searched + end_of_last_event(&all[searched..]).unwrap_or(0);
        let complete = if complete == searched { 0 } else { complete };
        let (events, rest) = all.split_at(complete);
        if !events.is_empty() {
            if self.mid_event {
                self.remember_end(events);
                self.learn(usage::in_end_of_event(&self.end_of_event));
            }
            self.look_at(events);
            self.mid_event = false;
            send(events, false)?;
        }
        if rest.len() > MAX_HELD_EVENT || (self.mid_event && !rest.is_empty()) {
            if !self.mid_event {
                // Its name is at its beginning; its end will not be looked at.
                self.look_at(rest);
                self.end_of_event.clear();
            }
            self.mid_event = true;
            self.remember_end(rest);
            return send(rest, true);
        }
        self.held = rest.to_vec();
        Ok(())
    }

    fn look_at(&mut self, events: &[u8]) {
        self.learn(usage::in_events(events));
        self.said_goodbye |= says_goodbye(events);
    }

    fn learn(&mut self, told: Option<Usage>) {
        self.usage = told.map(|told| self.usage.map_or(told, |known| known.and(told))).or(self.usage);
    }

    /// Keeps the end of an event of which no more is held: usage stands there.
    fn remember_end(&mut self, bytes: &[u8]) {
        self.end_of_event.extend_from_slice(&bytes[bytes.len().saturating_sub(MAX_USAGE_SCAN)..]);
        let excess = self.end_of_event.len().saturating_sub(MAX_USAGE_SCAN);
        self.end_of_event.drain(..excess);
    }
}

/// Where the last complete event ends: behind its blank line. Lines end in LF, CRLF or CR.
fn end_of_last_event(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).rev().map(|last| last + 1).find(|&end| {
        let head = &bytes[..end];
        head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") || head.ends_with(b"\r\r")
    })
}

/// Whether the last event is one behind which a provider sends nothing more: `[DONE]`, or the last of `/v1/responses`.
fn says_goodbye(events: &[u8]) -> bool {
    // Most events hold neither word, and each event is looked at.
    if memchr::memmem::find(events, b"[DONE]").is_none() && memchr::memmem::find(events, b"event").is_none() {
        return false;
    }
    let mut lines = events.split(|&byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.any(|line| match line.split_at_checked(5) {
        Some((b"data:", data)) => data.trim_ascii() == b"[DONE]",
        Some((b"event", name)) => matches!(
            name.strip_prefix(b":").map(<[u8]>::trim_ascii),
            Some(b"response.completed" | b"response.incomplete" | b"response.failed" | b"message_stop")
        ),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{Events, end_of_last_event, says_goodbye};
    use crate::limits::{MAX_HELD_EVENT, MAX_USAGE_SCAN};
    use crate::upstream::usage::Usage;

    /// What leaves for each piece that comes, and whether it ended inside an event.
    fn pass(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut events = Events::default();
        let mut sent = Vec::new();
        for piece in pieces {
            let result: Result<(), ()> = events.pass(piece, |part, mid_event| {
                sent.push((part.to_vec(), mid_event));
                Ok(())
            });
            result.expect("nothing fails");
        }
        sent
    }

    #[test]
    fn an_event_leaves_when_it_is_complete_wherever_it_was_cut() {
        for terminator in ["\n\n", "\r\n\r\n", "\r\r"] {
            let stream = format!("data: a{terminator}: note{terminator}data: b{terminator}");
            let bytes = stream.as_bytes();
            for cut in 1..bytes.len() {
                let sent = pass(&[&bytes[..cut], &bytes[cut..]]);
                let all: Vec<u8> = sent.iter().flat_map(|(part, _)| part.clone()).collect();
                assert_eq!(all, bytes, "{terminator:?} cut at {cut}");
                assert!(sent.iter().all(|(part, mid)| part.ends_with(terminator.as_bytes()) && !mid));
            }
        }
    }

    #[test]
    fn a_byte_at_a_time_gives_one_piece_an_event() {
        let stream = b"data: one\n\ndata: two\n\n";
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        let sent = pass(&bytes);
        assert_eq!(sent, [(b"data: one\n\n".to_vec(), false), (b"data: two\n\n".to_vec(), false)]);
    }

    #[test]
    fn an_event_over_the_bound_is_passed_on_in_pieces_and_known_as_such() {
        let big = vec![b'x'; MAX_HELD_EVENT + 1];
        let sent = pass(&[b"data: ", &big, b"more", b"\n\ndata: y\n\n"]);
        let ends: Vec<bool> = sent.iter().map(|(_, mid)| *mid).collect();
        assert_eq!(ends, [true, true, false]);
        assert_eq!(sent.iter().map(|(part, _)| part.len()).sum::<usize>(), 6 + big.len() + 4 + 11);
    }

    #[test]
    fn the_usage_of_an_event_over_the_bound_is_read_from_its_end_wherever_it_was_cut() {
        let text = "x".repeat(MAX_HELD_EVENT + 1);
        let end = "],\"usage\":{\"input_tokens\":8,\"output_tokens\":9}}}\n\ndata: {\"usage\":null}\n\n";
        let begin = "event: response.completed\ndata: {\"response\":{\"output\":[\"";
        for cut in 0..end.len() {
            let mut events = Events::default();
            for piece in [begin, &text, "\"", &end[..cut], &end[cut..]] {
                let passed: Result<(), ()> = events.pass(piece.as_bytes(), |_, _| Ok(()));
                passed.expect("nothing fails");
            }
            assert_eq!(events.usage, Some(Usage { prompt: 8, completion: 9 }), "cut at {cut}");
            assert!(events.end_of_event.len() <= MAX_USAGE_SCAN);
        }
    }

    #[test]
    fn the_last_blank_line_counts() {
        assert_eq!(end_of_last_event(b"data: a\n\ndata: b"), Some(9));
        assert_eq!(end_of_last_event(b"data: a\ndata: b\n"), None);
        assert_eq!(end_of_last_event(b"\n"), None);
        assert_eq!(end_of_last_event(b""), None);
    }

    #[test]
    fn the_end_of_a_stream_is_known_by_its_last_event() {
        assert!(says_goodbye(b"data: {}\n\ndata: [DONE]\n\n"));
        assert!(says_goodbye(b"data:[DONE]\r\n\r\n"));
        assert!(says_goodbye(b"event: response.completed\ndata: {}\n\n"));
        assert!(!says_goodbye(b"data: \"[DONE]\"\n\n"));
        assert!(!says_goodbye(b"data: {}\n\n"));
    }
}
