//! Socket and buffers of a connection. They move with the connection between its stages.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::client::Client;
use super::content::Content;
use super::permits::Permit;
use super::places::Slot;
use super::sys;
use super::{Lane, Peer};
use crate::memory::{Holder, Share};

/// Received bytes that are not used yet. Used bytes are removed only once there are more of them than of the
/// rest.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    /// The bytes not used yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Marks so many bytes as used.
    pub(super) fn use_up(&mut self, count: usize) {
        self.used += count;
        if self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        } else if self.used > self.bytes.len() / 2 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops all bytes; returns how many.
    pub(super) fn discard(&mut self) -> usize {
        let count = self.rest().len();
        *self = Self::default();
        count
    }
}

/// Socket and buffers of a connection.
pub struct ClientStream {
    pub(super) client: Arc<Client>,
    pub(super) peer: Peer,
    pub(super) input: Input,
    /// Bytes that the client has still to take, in parts that are never empty; of the first part, those from
    /// `sent` on.
    output: VecDeque<Content>,
    sent: usize,
    /// Memory of its buffers.
    share: Option<Share>,
    /// A write failed: further ones are useless.
    pub(super) broken: bool,
    /// The client will send no more.
    pub(super) ended: bool,
    /// The permit of the current request, until its response is sent or the request's task holds it.
    pub(super) permit: Option<Permit>,
    /// Deadline for the client to take the kept bytes, because no memory is free for them.
    pub(super) settle_by: Option<Instant>,
    pub(super) slot: Slot,
}

impl ClientStream {
    pub(super) fn new(client: Client, peer: Peer, slot: Slot) -> Self {
        Self {
            client: Arc::new(client),
            peer,
            input: Input::default(),
            output: VecDeque::new(),
            sent: 0,
            share: None,
            broken: false,
            ended: false,
            permit: None,
            settle_by: None,
            slot,
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Keeps `bytes[from..]` to send later.
    pub(super) fn keep(&mut self, bytes: impl Into<Content>, from: usize) {
        let bytes = bytes.into();
        if from == bytes.len() {
            return;
        }
        if self.output.is_empty() {
            self.sent = from;
            self.output.push_back(bytes);
        } else if from == 0 {
            self.output.push_back(bytes);
        } else {
            self.output.push_back(bytes[from..].to_vec().into());
        }
    }

    /// Sends the kept bytes as far as the client takes them. Returns whether any left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let mut any = false;
        while let Some(part) = self.output.front() {
            let sent = self.client.send(&[io::IoSlice::new(&part[self.sent..])])?;
            any |= sent > 0;
            self.sent += sent;
            if self.sent < part.len() {
                return Ok(any);
            }
            self.output.pop_front();
            self.sent = 0;
        }
        self.drop_output();
        Ok(any)
    }

    /// Reserves memory for the kept bytes. Returns whether there is room; they are counted in any case,
    /// because they exist already.
    pub(super) fn leave(&mut self, lane: Lane) -> bool {
        let mut share = Share::new(if lane == Lane::Control { Holder::Own } else { Holder::Request });
        let size = self.output_size() + self.input.size();
        let fits = share.set(size);
        if !fits {
            share.admit(size);
        }
        self.share = Some(share);
        fits
    }

    /// Size of the kept bytes. Shared ones are counted where they are made, once for all clients.
    fn output_size(&self) -> usize {
        self.output.iter().map(Content::owned).sum()
    }

    /// Reserves memory for its buffers while it waits. Returns whether there is room.
    pub(super) fn hold(&mut self) -> bool {
        self.release();
        let size = self.input.size() + self.output_size();
        if size == 0 {
            self.share = None;
            return true;
        }
        let share = self.share.get_or_insert_with(|| Share::new(Holder::Request));
        let fits = share.set(size);
        // A response that is leaving is not refused any more.
        if !fits && !self.output.is_empty() {
            share.admit(size);
            return true;
        }
        fits
    }

    fn drop_output(&mut self) {
        self.output = VecDeque::new();
        self.sent = 0;
    }

    /// Reads once; returns the number of bytes, and the number that had room.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<(usize, usize)> {
        let count = self.read(|client| sys::receive(client, scratch))?;
        self.input.bytes.extend_from_slice(&scratch[..count]);
        Ok((count, scratch.len()))
    }

    /// Reads once by `receive`; returns the number of bytes. Nothing is read from a client that does not take its
    /// response.
    pub(super) fn read(
        &mut self,
        receive: impl FnOnce(&Client) -> io::Result<Option<usize>>,
    ) -> io::Result<usize> {
        if self.has_output() {
            return Ok(0);
        }
        let received = receive(&self.client)?;
        self.ended |= received == Some(0);
        Ok(received.unwrap_or(0))
    }

    /// Skips empty lines before a request line (RFC 9112 section 2.2); returns the number of bytes.
    pub(super) fn skip_empty_lines(&mut self) -> usize {
        let lines = self.input.rest().chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        self.input.use_up(lines * 2);
        lines * 2
    }

    /// An idle connection holds no buffer.
    pub(super) fn release(&mut self) {
        if self.input.rest().is_empty() {
            self.input = Input::default();
        }
    }
}
