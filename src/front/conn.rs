//! A client connection between two requests: what has come, what has still to leave, and what time is left.
//! The poller and the workers drive it by the same [`Conn::advance`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::body::{Decoder, Piece};
use super::idle::Slot;
use super::request::Scan;
use super::response::{Client, Shape};
use super::sys::{self, Interest};
use super::{Admission, Head, Lane, Limits, Peer, Rejection, Service, after};
use crate::limits::{
    BODY_STEP, LINGER, MAX_BODIES_IN_TRANSIT, MAX_DRAIN, MAX_LINGER, MAX_LINGER_TIME, REQUESTS_A_TURN,
};

/// Bytes that came and were not used yet; what is used is left where it is until there is more of it than of the rest.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    fn use_up(&mut self, count: usize) {
        self.used += count;
        if self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        } else if self.used > self.bytes.len() / 2 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
    }

    fn discard(&mut self) -> usize {
        let count = self.rest().len();
        *self = Self::default();
        count
    }
}

/// A connection's socket and buffers, wherever the connection is at the moment.
pub struct Wire {
    pub(super) client: Arc<Client>,
    pub(super) peer: Peer,
    input: Input,
    /// Bytes the client has still to take, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// A write failed: there is no use in another.
    pub(super) broken: bool,
    /// The client will send no more.
    ended: bool,
    pub(super) slot: Slot,
}

impl Wire {
    pub(super) fn new(client: Client, peer: Peer, slot: Slot) -> Self {
        Self {
            client: Arc::new(client),
            peer,
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
            broken: false,
            ended: false,
            slot,
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Keeps `bytes[from..]` to be sent later.
    pub(super) fn keep(&mut self, bytes: Vec<u8>, from: usize) {
        if self.has_output() {
            self.output.extend_from_slice(&bytes[from..]);
        } else if from < bytes.len() {
            self.output = bytes;
            self.sent = from;
        }
    }

    /// Sends what is kept, as far as the client takes it; whether any of it left.
    fn flush(&mut self) -> io::Result<bool> {
        let sent = sys::send_now(&*self.client, &[io::IoSlice::new(&self.output[self.sent..])])?;
        self.sent += sent;
        if !self.has_output() {
            self.output = Vec::new();
            self.sent = 0;
        }
        Ok(sent > 0)
    }

    /// Reads once; how many bytes came. A client that does not take its answer is not read.
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

    /// Empty lines ahead of a request line are passed over (RFC 9112 section 2.2).
    fn skip_empty_lines(&mut self) {
        let lines = self.input.rest().chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        self.input.use_up(lines * 2);
    }

    /// An idle connection holds no buffer.
    fn release(&mut self) {
        if self.input.rest().is_empty() {
            self.input = Input::default();
        }
    }
}

/// Bytes of request bodies that all connections hold, against [`MAX_BODIES_IN_TRANSIT`].
#[derive(Debug, Default)]
pub struct Transit(AtomicUsize);

/// A share of [`Transit`], given back when dropped.
#[derive(Debug)]
struct Share {
    transit: Arc<Transit>,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        self.bytes += bytes;
        let total = self.transit.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > MAX_BODIES_IN_TRANSIT && self.bytes > BODY_STEP {
            return Err(Rejection::Overloaded);
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.transit.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole request.
#[derive(Debug)]
pub struct Request<T> {
    /// Its head.
    pub head: Head,
    /// Its body, decoded.
    pub body: Vec<u8>,
    /// What admission said of it.
    pub ticket: T,
    /// When its head was whole.
    pub received: Instant,
    _share: Share,
}

/// What surrounds a connection while it advances.
pub struct Context<'a, S> {
    pub(super) service: &'a S,
    pub(super) limits: Limits,
    pub(super) draining: bool,
    pub(super) transit: &'a Arc<Transit>,
}

/// A connection that is not in a handler's hands.
pub struct Conn<T> {
    pub(super) wire: Box<Wire>,
    phase: Phase<T>,
    /// When its wait is over.
    pub(super) deadline: Instant,
}

enum Phase<T> {
    /// For a request's head; since when a part of it is here.
    Head { scan: Scan, since: Option<Instant> },
    /// For the rest of its body.
    Body(Box<Incoming<T>>),
    /// For the rest of a body nobody wants: so many bytes may still come.
    Drain { decoder: Decoder, left: usize },
    /// For the answer to leave and the client to have read it: so many more bytes are read and dropped.
    Linger { left: usize, until: Option<Instant> },
}

/// A request whose body is coming.
struct Incoming<T> {
    request: Request<T>,
    lane: Lane,
    decoder: Decoder,
    /// Body length at which the client gets more time.
    step: usize,
}

/// What a connection needs next.
pub enum Step<T> {
    /// To be waited for.
    Wait(Interest),
    /// Another turn, after others had theirs.
    Again,
    /// A handler.
    Ready(Lane, Box<Request<T>>),
    /// Its end.
    Close,
}

impl<T> Conn<T> {
    /// A connection that waits for a request.
    pub(super) fn new(wire: Box<Wire>, limits: Limits) -> Self {
        // An answer that the client has still to take is a write, not idleness.
        let patience = if wire.has_output() { limits.client_timeout } else { limits.idle_timeout };
        Self { wire, phase: Phase::idle(), deadline: after(Instant::now(), patience) }
    }

    /// A connection that ends behind what it was sent last: it is read on for a while, for a close with unread bytes
    /// would take the answer from the client (RFC 9112 section 9.6).
    pub(super) fn closing(wire: Box<Wire>, client_timeout: Duration) -> Self {
        Self { wire, phase: Phase::LINGER, deadline: after(Instant::now(), client_timeout) }
    }

    /// Whether nobody loses anything when it ends now: no request is under way, no answer has still to leave.
    pub(super) fn is_expendable(&self) -> bool {
        let between =
            matches!(self.phase, Phase::Drain { .. } | Phase::Linger { .. }) && !self.wire.has_output();
        between || self.is_idle()
    }

    /// Whether nothing of a request has come and nothing of an answer is left.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head { since: None, .. })
            && self.wire.input.rest().is_empty()
            && !self.wire.has_output()
    }

    /// Goes on as far as the bytes at hand allow.
    pub(super) fn advance<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>) -> Step<T> {
        let mut answered = 0;
        loop {
            if self.wire.broken {
                return Step::Close;
            }
            if self.wire.has_output() {
                match self.wire.flush() {
                    Err(_) => return Step::Close,
                    Ok(true) => self.allow(context.limits.client_timeout),
                    Ok(false) => {}
                }
                if self.wire.has_output() {
                    return Step::Wait(Interest::Write);
                }
            }
            let step = match &mut self.phase {
                Phase::Head { .. } if answered == REQUESTS_A_TURN => {
                    self.allow(context.limits.client_timeout);
                    Some(Step::Again)
                }
                Phase::Head { .. } => {
                    answered += 1;
                    self.advance_head(context)
                }
                Phase::Body(_) => self.advance_body(context),
                Phase::Drain { .. } => self.advance_drain(),
                Phase::Linger { .. } => Some(self.advance_linger()),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// What to do when the deadline has passed.
    pub(super) fn expire<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>) -> Step<T> {
        let late = !self.wire.has_output()
            && matches!(self.phase, Phase::Head { since: Some(_), .. } | Phase::Body(_));
        if !late {
            return Step::Close;
        }
        self.refuse(context, Rejection::Timeout);
        self.advance(context)
    }

    fn allow(&mut self, patience: Duration) {
        self.deadline = after(Instant::now(), patience);
    }

    fn advance_head<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>) -> Option<Step<T>> {
        self.wire.skip_empty_lines();
        let Phase::Head { scan, since } = &mut self.phase else { return None };
        // Half of an empty line is not yet the beginning of a request.
        if matches!(self.wire.input.rest(), [] | [b'\r']) {
            self.wire.release();
            if self.wire.ended {
                return Some(Step::Close);
            }
            *since = None;
            self.allow(context.limits.idle_timeout);
            return Some(Step::Wait(Interest::Read));
        }
        let parsed = scan.find_end(self.wire.input.rest()).and_then(|end| match end {
            None if self.wire.ended => Err(Rejection::Malformed("the request was cut off")),
            None => Ok(None),
            Some(end) => Head::parse(&self.wire.input.rest()[..end]).map(|head| Some((head, end))),
        });
        match parsed {
            Err(rejection) => self.refuse(context, rejection),
            Ok(None) => {
                let begun = *since.get_or_insert_with(Instant::now);
                self.deadline = after(begun, context.limits.client_timeout);
                return Some(Step::Wait(Interest::Read));
            }
            Ok(Some((head, end))) => {
                self.wire.input.use_up(end);
                self.admit(context, head);
            }
        }
        None
    }

    fn admit<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>, head: Head) {
        if context.draining {
            let answer = context.service.reject(Rejection::ShuttingDown, Some(&head));
            return self.answer_early(
                &head,
                Shape::of(&head).closing(),
                answer,
                context.limits.client_timeout,
            );
        }
        let shape = Shape::of(&head);
        match context.service.admit(&head, self.wire.peer) {
            Admission::Answer(answer) => {
                self.answer_early(&head, shape, answer, context.limits.client_timeout);
            }
            Admission::Run(lane, ticket) => self.begin_body(context, head, lane, ticket),
        }
    }

    fn begin_body<S: Service<Ticket = T>>(
        &mut self,
        context: &Context<'_, S>,
        head: Head,
        lane: Lane,
        ticket: T,
    ) {
        let decoder = Decoder::new(head.framing);
        let announced = decoder.as_ref().and_then(Decoder::announced).unwrap_or(0);
        if announced > context.limits.max_body as u64 {
            let answer = context.service.reject(Rejection::BodyTooLarge, Some(&head));
            let shape = Shape::of(&head);
            return self.answer_early(&head, shape, answer, context.limits.client_timeout);
        }
        if head.expects_continue && self.wire.input.rest().is_empty() {
            self.wire.keep(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 0);
        }
        let share = Share { transit: Arc::clone(context.transit), bytes: 0 };
        let request = Request { head, body: Vec::new(), ticket, received: Instant::now(), _share: share };
        let decoder = decoder.unwrap_or_else(Decoder::done);
        self.phase = Phase::Body(Box::new(Incoming { request, lane, decoder, step: BODY_STEP }));
        self.allow(context.limits.client_timeout);
    }

    /// Answers before the body has been read; what is left of it is drained where that is little, else the
    /// connection ends once the client has had time to read the answer.
    fn answer_early(&mut self, head: &Head, shape: Shape, answer: super::Answer, client_timeout: Duration) {
        let decoder = Decoder::new(head.framing);
        let announced = decoder.as_ref().and_then(Decoder::announced).unwrap_or(0);
        // After a refused expectation the client may or may not send its body: only closing is unambiguous.
        let keep = shape.keep_alive && announced <= MAX_DRAIN as u64 && !head.expects_continue;
        self.wire.answer(if keep { shape } else { shape.closing() }, answer);
        self.phase = match decoder {
            Some(decoder) if keep => Phase::Drain { decoder, left: MAX_DRAIN },
            None if keep => Phase::idle(),
            _ => Phase::LINGER,
        };
        self.allow(client_timeout);
    }

    /// Refuses what is being read and ends the connection: after it, nothing that comes can be trusted to begin a request.
    fn refuse<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>, rejection: Rejection) {
        let head = match &self.phase {
            Phase::Body(incoming) => Some(&incoming.request.head),
            _ => None,
        };
        let answer = context.service.reject(rejection, head);
        let shape = head.map_or(Shape::UNKNOWN, |head| Shape::of(head).closing());
        self.wire.answer(shape, answer);
        self.phase = Phase::LINGER;
    }

    /// Refuses a body that turned out too large; its framing is sound, so the connection lives on if little is left.
    fn refuse_body<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>) {
        let Phase::Body(incoming) = std::mem::replace(&mut self.phase, Phase::idle()) else { return };
        let head = &incoming.request.head;
        self.wire.answer(Shape::of(head), context.service.reject(Rejection::BodyTooLarge, Some(head)));
        self.phase = if head.keep_alive {
            Phase::Drain { decoder: incoming.decoder, left: MAX_DRAIN }
        } else {
            Phase::LINGER
        };
        self.allow(context.limits.client_timeout);
    }

    fn advance_body<S: Service<Ticket = T>>(&mut self, context: &Context<'_, S>) -> Option<Step<T>> {
        let Phase::Body(incoming) = &mut self.phase else { return None };
        match incoming.take(&mut self.wire.input, context.limits.max_body) {
            Ok(()) => {}
            Err(Rejection::BodyTooLarge) => {
                self.refuse_body(context);
                return None;
            }
            Err(rejection) => {
                self.refuse(context, rejection);
                return None;
            }
        }
        if incoming.decoder.is_done() {
            let Phase::Body(incoming) = std::mem::replace(&mut self.phase, Phase::idle()) else {
                return None;
            };
            return Some(Step::Ready(incoming.lane, Box::new(incoming.request)));
        }
        if self.wire.ended {
            self.refuse(context, Rejection::Malformed("the request was cut off"));
            return None;
        }
        if incoming.request.body.len() >= incoming.step {
            incoming.step = incoming.request.body.len() + BODY_STEP;
            self.allow(context.limits.client_timeout);
        }
        self.wire.release();
        Some(Step::Wait(Interest::Read))
    }

    fn advance_drain(&mut self) -> Option<Step<T>> {
        let Phase::Drain { decoder, left } = &mut self.phase else { return None };
        let bytes = self.wire.input.rest();
        let mut at = 0;
        while at < bytes.len() && !decoder.is_done() {
            match decoder.next(&bytes[at..]) {
                Ok(Piece::Framing(count) | Piece::Payload(count)) => at += count,
                Err(_) => {
                    self.phase = Phase::LINGER;
                    return None;
                }
            }
        }
        self.wire.input.use_up(at);
        if decoder.is_done() {
            self.phase = Phase::idle();
            return None;
        }
        match left.checked_sub(at) {
            Some(rest) if !self.wire.ended => {
                *left = rest;
                Some(Step::Wait(Interest::Read))
            }
            _ => {
                self.phase = Phase::LINGER;
                None
            }
        }
    }

    fn advance_linger(&mut self) -> Step<T> {
        let Phase::Linger { left, until } = &mut self.phase else { return Step::Close };
        if until.is_none() {
            sys::shut_write(&*self.wire.client);
        }
        let now = Instant::now();
        self.deadline = (*until.get_or_insert(now + MAX_LINGER_TIME)).min(now + LINGER);
        let read = self.wire.input.discard();
        match left.checked_sub(read) {
            Some(rest) if !self.wire.ended => {
                *left = rest;
                Step::Wait(Interest::Read)
            }
            _ => Step::Close,
        }
    }
}

impl<T> Phase<T> {
    const LINGER: Self = Self::Linger { left: MAX_LINGER, until: None };

    fn idle() -> Self {
        Self::Head { scan: Scan::default(), since: None }
    }
}

impl<T> Incoming<T> {
    /// Moves the body's bytes out of `input`.
    fn take(&mut self, input: &mut Input, max_body: usize) -> Result<(), Rejection> {
        let bytes = input.rest();
        let mut at = 0;
        let mut taken = Ok(());
        while taken.is_ok() && at < bytes.len() && !self.decoder.is_done() {
            match self.decoder.next(&bytes[at..])? {
                Piece::Framing(count) => at += count,
                Piece::Payload(count) => {
                    taken = self.append(&bytes[at..at + count], max_body);
                    at += count;
                }
            }
        }
        // What the decoder has counted is gone also where it was refused: draining goes on behind it.
        input.use_up(at);
        taken
    }

    fn append(&mut self, payload: &[u8], max_body: usize) -> Result<(), Rejection> {
        let body = &mut self.request.body;
        let length = body.len() + payload.len();
        if length > max_body {
            return Err(Rejection::BodyTooLarge);
        }
        self.request._share.grow(payload.len())?;
        if length > body.capacity() {
            // Doubling, but never past what was announced: a claim alone reserves nothing.
            let left = self
                .decoder
                .announced()
                .map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let wanted =
                length.saturating_mul(2).max(BODY_STEP).min(length.saturating_add(left)).min(max_body);
            body.reserve_exact(wanted - body.len());
        }
        body.extend_from_slice(payload);
        Ok(())
    }
}
