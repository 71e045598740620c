//! A connection's socket and buffers, wherever the connection is at the moment.

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

/// Bytes that came and were not used yet; what is used is left where it is until there is more of it than of the rest.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    /// What is still to be looked at.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// So many bytes of it have been used.
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

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops it all; how much it was.
    pub(super) fn discard(&mut self) -> usize {
        let count = self.rest().len();
        *self = Self::default();
        count
    }
}

/// A connection's socket and buffers, wherever the connection is at the moment.
pub struct ClientStream {
    pub(super) client: Arc<Client>,
    pub(super) peer: Peer,
    pub(super) input: Input,
    /// Bytes the client has still to take, in parts none of which is empty; of the first, from `sent` on.
    output: VecDeque<Content>,
    sent: usize,
    /// What its buffers hold.
    share: Option<Share>,
    /// A write failed: there is no use in another.
    pub(super) broken: bool,
    /// The client will send no more.
    pub(super) ended: bool,
    /// The permit of the current request, until its response has been sent or is kept elsewhere.
    pub(super) permit: Option<Permit>,
    /// By then the client must have taken what is kept: there is no memory for it beside what others hold.
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

    /// Keeps `bytes[from..]` to be sent later.
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

    /// Sends what is kept, as far as the client takes it; whether any of it left.
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

    /// Counts what is kept for the client, if there is room for it beside what others hold. It is counted in any case: it is there.
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

    /// Bytes of what is kept; shared ones are counted where they are made, once for all clients.
    fn output_size(&self) -> usize {
        self.output.iter().map(Content::owned).sum()
    }

    /// Counts what its buffers hold while it waits; whether there is room for that.
    pub(super) fn hold(&mut self) -> bool {
        self.release();
        let size = self.input.size() + self.output_size();
        if size == 0 {
            self.share = None;
            return true;
        }
        let share = self.share.get_or_insert_with(|| Share::new(Holder::Request));
        let fits = share.set(size);
        // What leaves is not refused any more.
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

    /// Reads once; how many bytes came. A client that does not take its response is not read.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        if self.has_output() {
            return Ok(0);
        }
        match sys::receive(&*self.client, scratch)? {
            None => Ok(0),
            Some(0) => {
                self.ended = true;
                Ok(0)
            }
            Some(count) => {
                self.input.bytes.extend_from_slice(&scratch[..count]);
                Ok(count)
            }
        }
    }

    /// Skips empty lines ahead of a request line (RFC 9112 section 2.2); how many bytes they were.
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
