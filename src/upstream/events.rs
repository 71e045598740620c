//! Server-sent events (WHATWG HTML section 9.2) in a stream that arrives in pieces: their ends, and the facts in them that the relay
//! needs.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::IgnoredAny;

use super::meter::{Measured, Meter};
use super::response_id;
use super::terminal::Terminal;
use crate::core::sse;
use crate::limits::{MAX_EVENT_END, MAX_HELD_EVENT, MAX_RECENT_EVENTS};

/// Bytes of a blank line that may have come without its last byte.
const BEGUN_BLANK: usize = 3;

/// A word in most events that others follow, in every API that streams text: such an event shows that no earlier one was the last.
static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"delta\":"));

/// Cuts a stream of bytes after its last complete event.
#[derive(Debug, Default)]
pub struct Events {
    /// The beginning of an event, at most [`MAX_HELD_EVENT`] bytes.
    held: Vec<u8>,
    /// An event over that size is passing in pieces.
    mid_event: bool,
    /// The last complete events, at most [`MAX_RECENT_EVENTS`] bytes, not read yet: to read many together costs less.
    recent: Vec<u8>,
    terminal: Terminal,
    meter: Meter,
    is_truncated: bool,
    /// An event with data has come.
    opened: bool,
    response_id: Option<String>,
    /// The end of an event that passes in pieces, at most [`MAX_EVENT_END`] bytes.
    end_of_event: Vec<u8>,
}

impl Events {
    /// A stream without events so far, and the meter for them.
    pub fn new(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }

    /// Sends the events that `bytes` complete, and keeps the rest. `send` gets a piece, and whether it ends inside an event
    /// (one over [`MAX_HELD_EVENT`]).
    ///
    /// # Errors
    /// Those of `send`.
    pub fn pass<E>(
        &mut self,
        bytes: &[u8],
        mut send: impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut held = std::mem::take(&mut self.held);
        let searched = held.len().saturating_sub(BEGUN_BLANK);
        let all = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held[..]
        };
        let complete = sse::end_of_last_event(&all[searched..]).map_or(0, |end| searched + end);
        if complete == 0 && all.len() <= MAX_HELD_EVENT && !self.mid_event {
            if held.is_empty() {
                held = bytes.to_vec();
            }
            self.held = held;
            return Ok(());
        }
        let (events, rest) = all.split_at(complete);
        if !events.is_empty() {
            if self.mid_event {
                self.meter.large(events);
                self.remember_end(events);
                self.terminal.note_end(&self.end_of_event);
            }
            self.sample(events);
            self.keep(events);
            self.mid_event = false;
            send(events, false)?;
        }
        if rest.len() > MAX_HELD_EVENT || (self.mid_event && !rest.is_empty()) {
            if !self.mid_event {
                // Its name is in its beginning, and its end is read alone.
                self.read();
                self.sample(rest);
                self.meter.report(rest);
                self.terminal.note_beginning(rest);
                self.end_of_event.clear();
                self.meter.begin_large();
            }
            self.mid_event = true;
            let (part, kept) = rest.split_at(rest.len().saturating_sub(BEGUN_BLANK));
            self.remember_end(part);
            self.meter.large(part);
            self.held = kept.to_vec();
            return if part.is_empty() { Ok(()) } else { send(part, true) };
        }
        self.held = rest.to_vec();
        Ok(())
    }

    /// Ends the stream; returns the beginning of an event without an end, which the client has not got yet.
    pub fn end(&mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.held);
        self.read();
        self.sample(&rest);
        self.meter.report(&rest);
        // Some providers leave out the last line end; a name alone cannot show whether the event was cut.
        if is_whole(&rest) {
            self.terminal.read(&rest);
        } else if self.mid_event || !rest.trim_ascii().is_empty() {
            self.terminal.note_truncated();
            self.is_truncated =
                !self.mid_event && last_data(&rest).is_some_and(|data| data.starts_with(b"{"));
        }
        rest
    }

    /// Whether the stream has ended within a JSON document.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Whether the terminal event has passed.
    pub fn is_over(&mut self) -> bool {
        self.read();
        self.terminal.is_over()
    }

    /// The number that a further event of the Responses API would have.
    pub fn next_sequence(&mut self) -> u64 {
        self.read();
        self.terminal.next_sequence()
    }

    /// The tokens so far.
    pub fn measured(&mut self) -> Measured {
        self.read();
        self.meter.measured()
    }

    /// The id of the response that the first event holds.
    pub fn response_id(&mut self) -> Option<String> {
        self.response_id.take()
    }

    /// Samples the text of events; the last may be cut.
    fn sample(&mut self, events: &[u8]) {
        if !self.opened && memchr::memmem::find(events, b"data:").is_some() {
            self.opened = true;
            self.response_id = response_id::in_events(events);
        }
        self.meter.sample(events);
    }

    /// Keeps complete events until they are read together with others, or reads them at once where they are large.
    fn keep(&mut self, events: &[u8]) {
        if events.len() > MAX_RECENT_EVENTS / 2 {
            self.read();
            self.meter.report(events);
            self.terminal.read(events);
            return;
        }
        if self.recent.len() + events.len() > MAX_RECENT_EVENTS {
            if DELTA.find(events).is_none() {
                self.terminal.read(&self.recent);
            }
            self.meter.report(&self.recent);
            self.recent.clear();
        }
        if self.recent.capacity() == 0 {
            self.recent.reserve_exact(MAX_RECENT_EVENTS);
        }
        self.recent.extend_from_slice(events);
    }

    /// Reads the kept events.
    fn read(&mut self) {
        self.meter.report(&self.recent);
        self.terminal.read(&self.recent);
        self.recent.clear();
    }

    /// Keeps the end of an event that passes in pieces.
    fn remember_end(&mut self, bytes: &[u8]) {
        self.end_of_event.extend_from_slice(&bytes[bytes.len().saturating_sub(MAX_EVENT_END)..]);
        let excess = self.end_of_event.len().saturating_sub(MAX_EVENT_END);
        self.end_of_event.drain(..excess);
    }
}

/// Whether the data of an event without an end is complete: `[DONE]`, or a JSON document.
fn is_whole(event: &[u8]) -> bool {
    last_data(event)
        .is_some_and(|data| data == b"[DONE]" || serde_json::from_slice::<IgnoredAny>(data).is_ok())
}

fn last_data(event: &[u8]) -> Option<&[u8]> {
    sse::data(event).last().map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::Events;
    use crate::limits::{MAX_EVENT_END, MAX_HELD_EVENT, MAX_RECENT_EVENTS};
    use crate::upstream::usage::Reported;

    /// The output for each piece, and whether it ended inside an event.
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
    fn usage_of_an_event_over_the_bound_is_read_wherever_it_was_cut() {
        let text = "x".repeat(MAX_HELD_EVENT + 1);
        let end = "],\"usage\":{\"input_tokens\":8,\"output_tokens\":9}}}\n\ndata: {\"usage\":null}\n\n";
        let begin = "event: response.completed\ndata: {\"response\":{\"output\":[\"";
        for cut in 0..end.len() {
            let mut events = Events::default();
            for piece in [begin, &text, "\"", &end[..cut], &end[cut..]] {
                let passed: Result<(), ()> = events.pass(piece.as_bytes(), |_, _| Ok(()));
                passed.expect("nothing fails");
            }
            let expected = Reported { prompt: Some(8), completion: Some(9) };
            assert_eq!(events.measured().reported, expected, "cut at {cut}");
            assert!(events.end_of_event.len() <= MAX_EVENT_END);
        }
    }

    #[test]
    fn report_is_found_wherever_in_a_stream_it_stands() {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"1234\"}}]}\n\n";
        let report = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n";
        let large = [event, report].concat().repeat(MAX_RECENT_EVENTS / event.len());
        for (report, place) in
            [(report, 0), (report, 50), (report, 99), (&report[..report.len() - 2], 99), (&large, 7)]
        {
            let mut events = Events::default();
            for number in 0..100 {
                let piece = if number == place { report } else { event };
                let passed: Result<(), ()> = events.pass(piece.as_bytes(), |_, _| Ok(()));
                passed.expect("nothing fails");
            }
            events.end();
            let expected = Reported { prompt: Some(3), completion: Some(5) };
            assert_eq!(events.measured().reported, expected, "{place}");
            assert!(events.recent.capacity() <= MAX_RECENT_EVENTS);
        }
    }

    #[test]
    fn terminal_event_is_seen_with_many_small_events_behind_it() {
        let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
        let stop = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        for (last, is_over) in [
            ("data: [DONE]\n\n", true),
            ("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true),
            (stop, true),
            (delta, false),
        ] {
            for small in [
                ": ping ping\n\n",
                ": {\"choices\":[{\"finish_reason\":null}]}\n\n",
                "data: {}\n\n",
                "data: {\"choices\":[],\"usage\":null}\n\n",
                "data: {\"model\":\"delta\",\"choices\":[]}\n\n",
            ] {
                // Each count puts the last event at another place among those that are read together.
                for before in 0..2 * MAX_RECENT_EVENTS / delta.len() {
                    let mut events = Events::default();
                    let behind = [small; 2 * MAX_RECENT_EVENTS / 10];
                    let pieces = std::iter::repeat_n(delta, before).chain([last]).chain(behind);
                    for piece in pieces {
                        let passed: Result<(), ()> = events.pass(piece.as_bytes(), |_, _| Ok(()));
                        passed.expect("nothing fails");
                    }
                    assert_eq!(events.is_over(), is_over, "{last} and {small} after {before}");
                }
            }
        }
    }

    #[test]
    fn terminal_event_is_seen_with_much_behind_it() {
        let mut events = Events::default();
        let filler = format!("data: \"{}\"\n\n", "x".repeat(MAX_RECENT_EVENTS));
        for piece in ["event: message_stop\ndata: {}\n\n", &filler, &filler, "data: {}\n\n"] {
            let passed: Result<(), ()> = events.pass(piece.as_bytes(), |_, _| Ok(()));
            passed.expect("nothing fails");
        }
        assert!(events.is_over());
    }

    #[test]
    fn the_end_of_an_event_over_the_bound_is_seen_wherever_it_was_cut() {
        let big = vec![b'x'; MAX_HELD_EVENT + 1];
        for blank in [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"] {
            for cut in 1..blank.len() {
                let sent = pass(&[&big, &blank[..cut], &blank[cut..]]);
                assert_eq!(sent.last().map(|(part, mid)| (part.ends_with(blank), *mid)), Some((true, false)));
            }
        }
    }

    #[test]
    fn terminal_event_cut_short_ends_no_stream() {
        let large = "z".repeat(MAX_HELD_EVENT);
        for (name, data) in [
            ("message_stop", r#"{"type":"message_stop"}"#.to_owned()),
            ("response.completed", format!(r#"{{"response":{{"output":["{large}"]}}}}"#)),
        ] {
            let event = format!("event: {name}\ndata: {data}\n\n");
            // Only the line ends of an event that is held may be missing.
            let enough = event.len() - if event.len() > MAX_HELD_EVENT { 0 } else { 2 };
            let cuts = (0..80).chain(event.len().saturating_sub(80)..=event.len());
            for cut in cuts.filter(|cut| *cut <= event.len()) {
                let mut events = Events::default();
                for piece in event.as_bytes()[..cut].chunks(MAX_HELD_EVENT - 100) {
                    let passed: Result<(), ()> = events.pass(piece, |_, _| Ok(()));
                    passed.expect("nothing fails");
                }
                events.end();
                assert_eq!(events.is_over(), cut >= enough, "{name} cut at {cut} of {}", event.len());
            }
        }
    }
}
