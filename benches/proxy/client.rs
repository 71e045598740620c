//! One response while it arrives: buffered or streamed.

use std::io;

use crate::upstream::SENT_KEY;
use crate::wire::{self, Chunk, Framing};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    More,
    Done,
}

#[derive(Default)]
enum State {
    /// No request is on its way.
    #[default]
    Idle,
    Head,
    /// Bytes still to come.
    Whole(usize),
    Stream,
}

/// The part of a response that has arrived and is not parsed yet.
#[derive(Default)]
pub struct Response {
    state: State,
    asked: bool,
    /// Head or chunks, incomplete.
    input: Vec<u8>,
    /// Event stream without its chunk framing, incomplete.
    events: Vec<u8>,
    had_event: bool,
}

impl Response {
    /// A request was sent, its response begins.
    pub fn begin(&mut self) {
        self.state = State::Head;
        self.asked = true;
        self.input.clear();
        self.events.clear();
        self.had_event = false;
    }

    /// Whether there ever was a request.
    pub fn was_asked(&self) -> bool {
        self.asked
    }

    /// Parses `bytes`. `on_event` gets, for each event, the time it was sent (nanoseconds), if the event has it, and
    /// whether it is the first of its stream.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(Option<u64>, bool),
    ) -> io::Result<Progress> {
        self.input.extend_from_slice(bytes);
        loop {
            match self.state {
                State::Idle => return Err(wire::invalid("bytes after the response")),
                State::Head => {
                    let Some(head) = wire::parse_head(&self.input)? else {
                        return Ok(Progress::More);
                    };
                    if !head.first_line.starts_with("HTTP/1.1 200") {
                        return Err(wire::invalid(head.first_line));
                    }
                    self.state = match head.framing {
                        Framing::Length(length) => State::Whole(length),
                        Framing::Chunked => State::Stream,
                    };
                    let len = head.len;
                    self.input.drain(..len);
                }
                State::Whole(length) if self.input.len() < length => return Ok(Progress::More),
                State::Whole(length) => return self.end(length),
                State::Stream => match wire::parse_chunk(&self.input)? {
                    Chunk::Incomplete => return Ok(Progress::More),
                    Chunk::End(len) => return self.end(len),
                    Chunk::Data(data, len) => {
                        self.events.extend_from_slice(data);
                        self.input.drain(..len);
                        self.take_events(&mut on_event);
                    }
                },
            }
        }
    }

    fn take_events(&mut self, on_event: &mut impl FnMut(Option<u64>, bool)) {
        let mut start = 0;
        while let Some(len) = wire::find(&self.events[start..], b"\n\n") {
            let event = &self.events[start..start + len];
            // Comments and `[DONE]` do not count. Some APIs name an event before its data.
            if event.starts_with(b"data: {") || wire::find(event, b"\ndata: {").is_some() {
                on_event(wire::number_after(event, SENT_KEY), !self.had_event);
                self.had_event = true;
            }
            start += len + 2;
        }
        self.events.drain(..start);
    }

    /// The response ends `len` bytes into the input; further bytes are an error.
    fn end(&mut self, len: usize) -> io::Result<Progress> {
        self.state = State::Idle;
        if self.input.len() != len {
            return Err(wire::invalid("bytes after the response"));
        }
        Ok(Progress::Done)
    }
}
