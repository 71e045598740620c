//! A request whose body is arriving.

use std::io;
use std::time::Instant;

use super::client_stream::{ClientStream, Input};
use super::{Head, Lane, Rejection, sys};
use crate::core::body::{Decoder, Piece};
use crate::limits::SLOT_MEMORY;
use crate::memory::{Holder, Share, Shortage, Size};

/// A complete request.
#[derive(Debug)]
pub struct Request<T> {
    pub head: Head,
    /// Its body, decoded.
    pub body: Vec<u8>,
    /// Result of its admission.
    pub context: T,
    /// Time when its head was complete.
    pub received: Instant,
    /// Memory of its body.
    share: Share,
    /// Memory of its head, and of its processing.
    slot: Share,
}

/// A request whose body is arriving.
pub struct Incoming<T> {
    pub(super) request: Box<Request<T>>,
    pub(super) lane: Lane,
    pub(super) decoder: Decoder,
    /// Body length at which the client gets more time.
    pub(super) step: usize,
    /// It waits for memory; nothing more of it is read.
    pub(super) is_short: bool,
}

impl<T> Request<T> {
    /// A request without its body.
    pub(super) fn new(head: Head, context: T, received: Instant) -> Self {
        let (share, slot) = (Share::new(Holder::Request), Share::new(Holder::Slot));
        Self { head, body: Vec::new(), context, received, share, slot }
    }

    /// Reserves memory for its head. Returns whether there is room.
    pub(super) fn reserve_head(&mut self) -> bool {
        self.slot.set(self.head.size())
    }

    /// Reserves memory for its processing. Returns whether there is room.
    pub(super) fn reserve_slot(&mut self) -> bool {
        self.slot.set(SLOT_MEMORY + self.head.size())
    }

    /// A complete request of a unit test.
    #[cfg(test)]
    pub fn in_memory(head: Head, context: T, body: &[u8], received: Instant) -> Box<Self> {
        Box::new(Self { body: body.to_vec(), ..Self::new(head, context, received) })
    }

    /// Drops the body and its memory.
    pub fn drop_body(&mut self) {
        self.body = Vec::new();
        self.share.give_back();
    }
}

impl<T> Incoming<T> {
    /// A complete request.
    pub(super) fn whole(request: Box<Request<T>>, lane: Lane) -> Self {
        Self { request, lane, decoder: Decoder::done(), step: 0, is_short: false }
    }

    /// Moves the body's bytes out of `input` if there is memory for them; else sets `is_short`, and they stay
    /// there.
    pub(super) fn take(&mut self, input: &mut Input, max_body: usize) -> Result<(), Rejection> {
        let bytes = input.rest();
        self.is_short = !self.has_room(bytes.len(), max_body)?;
        if self.is_short {
            return Ok(());
        }
        let mut at = 0;
        let mut taken = Ok(());
        while taken.is_ok() && at < bytes.len() && !self.decoder.is_done() {
            match self.decoder.next(&bytes[at..])? {
                Piece::Framing(count) => {
                    at += count;
                    // A chunk over the limit is refused by its size, before its bytes come.
                    if self.decoder.due() > max_body.saturating_sub(self.request.body.len()) as u64 {
                        taken = Err(Rejection::BodyTooLarge);
                    }
                }
                Piece::Payload(count) => {
                    taken = self.append(&bytes[at..at + count], max_body);
                    at += count;
                }
            }
        }
        // The input moves past the decoded bytes even after a refusal: draining continues there.
        input.use_up(at);
        taken
    }

    /// Reads once into the body itself, if only bytes of the body can arrive and the buffer has room; returns the number of bytes, and the
    /// number that had room.
    pub(super) fn fill(&mut self, stream: &mut ClientStream) -> Option<io::Result<(usize, usize)>> {
        let body = &mut self.request.body;
        let (before, room) = (body.len(), body.capacity() - body.len());
        // Bytes after the body belong to the next request.
        if room == 0 || self.decoder.announced()? < room as u64 || !stream.input.rest().is_empty() {
            return None;
        }
        let read = stream.read(|client| sys::receive_behind(client, body));
        // A body with a length has no framing that the decoder could refuse.
        let taken = self.decoder.next(&body[before..]);
        debug_assert_eq!(taken, Ok(Piece::Payload(body.len() - before)));
        Some(read.map(|count| (count, room)))
    }

    /// Makes room for so many bytes, including their framing. An announced length alone reserves nothing.
    fn has_room(&mut self, come: usize, max_body: usize) -> Result<bool, Rejection> {
        let Request { body, share, .. } = &mut *self.request;
        let left = self.decoder.announced().map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        let size = match left {
            Some(left) => Size::Known(body.len().saturating_add(left).min(max_body)),
            None => Size::AtMost(max_body),
        };
        match share.make_room(body, come.min(left.unwrap_or(usize::MAX)), size) {
            Ok(()) => Ok(true),
            Err(Shortage::Passing) => Ok(false),
            Err(Shortage::Lasting) => Err(Rejection::NoMemory),
        }
    }

    fn append(&mut self, payload: &[u8], max_body: usize) -> Result<(), Rejection> {
        let body = &mut self.request.body;
        if body.len() + payload.len() > max_body {
            return Err(Rejection::BodyTooLarge);
        }
        body.extend_from_slice(payload);
        Ok(())
    }
}
