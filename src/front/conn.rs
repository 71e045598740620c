//! A client connection between two requests: received bytes, unsent bytes, and the deadline.

use std::io;
use std::time::{Duration, Instant};

use super::client_stream::ClientStream;
use super::incoming::{Incoming, Request};
use super::response::Shape;
use super::sys::{self, Interest};
use super::{Admission, Head, Lane, Limits, Rejection, Service, after};
use crate::core::body::{Decoder, Piece};
use crate::core::request_head::Scan;
use crate::limits::{
    BODY_STEP, LINGER, MAX_DRAIN, MAX_EMPTY_LINES, MAX_LINGER, MAX_LINGER_TIME, REQUESTS_A_TURN,
};

/// What a connection needs to advance.
pub struct Context<'a, S> {
    pub(super) service: &'a S,
    pub(super) limits: Limits,
    /// The current time, for deadlines.
    pub(super) now: Instant,
    pub(super) draining: bool,
    /// The drain's grace is over: a connection that has had a response gets no further one.
    pub(super) refusing: bool,
}

/// A connection without a request in a handler.
pub struct Conn<T> {
    pub(super) stream: Box<ClientStream>,
    phase: Phase<T>,
    /// At least one of its requests has reached a handler.
    is_kept: bool,
    /// End of the current wait.
    pub(super) deadline: Instant,
}

enum Phase<T> {
    /// For a request head: when its first byte came, whether the idle timeout runs already, and the bytes of
    /// empty lines before it.
    Head { scan: Scan, since: Option<Instant>, is_idle: bool, skipped: usize },
    /// For the rest of its body.
    Body(Incoming<T>),
    /// For the rest of a refused body, at most `left` bytes.
    Drain { decoder: Decoder, left: usize },
    /// For the response to leave and the client to read it: up to `left` more bytes are read and dropped.
    Linger { left: usize, until: Option<Instant>, is_shut: bool },
}

pub enum Step<T> {
    /// Wait for the socket.
    Wait(Interest),
    /// Retry later: no memory is free for its body.
    Short,
    /// Continue after other connections had their turn.
    Again,
    /// Give the request to a handler.
    Ready(Lane, Box<Request<T>>),
    /// Close the connection.
    Close,
}

impl<T> Conn<T> {
    /// A connection that waits for a request.
    pub(super) fn new(stream: Box<ClientStream>, limits: Limits, now: Instant) -> Self {
        // While the client has still to take a response, the wait is for a write and not idle.
        let timeout = if stream.has_output() { limits.client_timeout } else { limits.idle_timeout };
        Self { stream, phase: Phase::idle(), is_kept: false, deadline: after(now, timeout) }
    }

    /// A connection after a response. After the last response the front reads on for a while: a close with
    /// unread bytes would take the response from the client (RFC 9112 section 9.6).
    pub(super) fn after_response(
        stream: Box<ClientStream>,
        keep: bool,
        limits: Limits,
        now: Instant,
    ) -> Self {
        if keep {
            return Self { is_kept: true, ..Self::new(stream, limits, now) };
        }
        Self { stream, phase: Phase::LINGER, is_kept: true, deadline: after(now, limits.client_timeout) }
    }

    /// A connection that only receives its refusal and then closes soon.
    pub(super) fn refused(stream: Box<ClientStream>) -> Self {
        let until = Instant::now() + LINGER;
        Self {
            stream,
            phase: Phase::Linger { left: MAX_LINGER, until: Some(until), is_shut: false },
            is_kept: false,
            deadline: until,
        }
    }

    /// Sets the deadline for the client to take the kept bytes.
    pub(super) fn settle_until(&mut self, by: Instant) {
        self.stream.settle_by = Some(by);
        self.deadline = by;
    }

    /// Whether its body waits for memory.
    pub(super) fn is_short(&self) -> bool {
        matches!(&self.phase, Phase::Body(incoming) if incoming.is_short)
    }

    /// Whether it reads the rest of a refused body.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Drain { .. })
    }

    /// Stops reading the rest of a refused body.
    pub(super) fn stop_draining(&mut self) {
        self.phase = Phase::LINGER;
    }

    /// Whether no part of a request has come and no part of a response is left.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head { since: None, .. })
            && matches!(self.stream.input.rest(), [] | [b'\r'])
            && !self.stream.has_output()
    }

    /// Reads once; returns the number of bytes, and the number that had room.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<(usize, usize)> {
        let body = match &mut self.phase {
            Phase::Body(incoming) => incoming.fill(&mut self.stream),
            _ => None,
        };
        body.unwrap_or_else(|| self.stream.fill(scratch))
    }

    /// Advances as far as the available bytes allow, and counts the rest.
    pub(super) fn advance<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) -> Step<T> {
        let step = self.advance_uncounted(context);
        if matches!(step, Step::Close) || self.stream.hold() {
            return step;
        }
        if let Step::Ready(lane, request) = step {
            self.phase = Phase::Body(Incoming::whole(request, lane));
        }
        self.stream.input.discard();
        self.refuse(context, Rejection::NoMemory);
        self.advance_uncounted(context)
    }

    fn advance_uncounted<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) -> Step<T> {
        let mut requests = 0;
        loop {
            if self.stream.broken {
                return Step::Close;
            }
            if self.stream.has_output() {
                match self.stream.flush() {
                    Err(_) => return Step::Close,
                    Ok(true) => self.allow(context, context.limits.client_timeout),
                    Ok(false) => {}
                }
                if self.stream.has_output() {
                    return Step::Wait(Interest::Write);
                }
                // The client has taken the response.
                (self.stream.permit, self.stream.settle_by) = (None, None);
            }
            let step = match &mut self.phase {
                Phase::Head { .. } if requests == REQUESTS_A_TURN => {
                    self.allow(context, context.limits.client_timeout);
                    Some(Step::Again)
                }
                Phase::Head { .. } => {
                    requests += 1;
                    self.advance_head(context)
                }
                Phase::Body(_) => self.advance_body(context),
                Phase::Drain { .. } => self.advance_drain(),
                Phase::Linger { .. } => Some(self.advance_linger(context.now)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// The next step once the deadline has passed.
    pub(super) fn expire<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) -> Step<T> {
        if self.stream.settle_by.is_some_and(|by| by <= context.now) {
            return Step::Close;
        }
        // The system reports room only once a third of its buffer is free: a slow client may have taken less.
        if self.stream.has_output() && matches!(self.stream.flush(), Ok(true)) {
            self.allow(context, context.limits.client_timeout);
            return self.advance(context);
        }
        let late = !self.stream.has_output()
            && matches!(self.phase, Phase::Head { since: Some(_), .. } | Phase::Body(_));
        if !late {
            return Step::Close;
        }
        self.refuse(context, if self.is_short() { Rejection::NoMemory } else { Rejection::Timeout });
        self.advance(context)
    }

    fn allow<S>(&mut self, context: &Context<'_, S>, timeout: Duration) {
        let deadline = after(context.now, timeout);
        self.deadline = self.stream.settle_by.map_or(deadline, |by| by.min(deadline));
    }

    fn advance_head<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) -> Option<Step<T>> {
        let Phase::Head { scan, since, is_idle, skipped } = &mut self.phase else { return None };
        *skipped += self.stream.skip_empty_lines();
        if *skipped > MAX_EMPTY_LINES {
            self.refuse(context, Rejection::Malformed("empty lines"));
            return None;
        }
        // Half of an empty line does not begin a request.
        if matches!(self.stream.input.rest(), [] | [b'\r']) {
            self.stream.release();
            if self.stream.ended {
                return Some(Step::Close);
            }
            *since = None;
            // A client that sends only empty lines is idle.
            if !std::mem::replace(is_idle, true) {
                self.allow(context, context.limits.idle_timeout);
            }
            return Some(Step::Wait(Interest::Read));
        }
        let parsed = scan.find_end(self.stream.input.rest()).and_then(|end| match end {
            None if self.stream.ended => Err(Rejection::Malformed("the request was cut off")),
            None => Ok(None),
            Some(end) => Head::parse(&self.stream.input.rest()[..end]).map(|head| Some((head, end))),
        });
        match parsed {
            Err(rejection) => self.refuse(context, rejection),
            Ok(None) => {
                let begun = *since.get_or_insert(context.now);
                self.deadline = after(begun, context.limits.client_timeout);
                return Some(Step::Wait(Interest::Read));
            }
            Ok(Some((head, end))) => {
                self.stream.input.use_up(end);
                self.admit(context, head);
            }
        }
        None
    }

    fn admit<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>, mut head: Head) {
        if context.refusing && self.is_kept {
            let response = context.service.reject(Rejection::ShuttingDown, self.stream.peer, Some(&head));
            return self.respond_early(context, &head, Shape::of(&head).closing(), response);
        }
        let shape = if context.draining { Shape::of(&head).closing() } else { Shape::of(&head) };
        match context.service.admit(&mut head, self.stream.peer) {
            Admission::Respond(response) => {
                self.respond_early(context, &head, shape, response);
            }
            Admission::Run(lane, request_context) => self.begin_body(context, head, lane, request_context),
        }
    }

    fn begin_body<S: Service<RequestContext = T>>(
        &mut self,
        context: &Context<'_, S>,
        head: Head,
        lane: Lane,
        request_context: T,
    ) {
        let decoder = Decoder::new(head.framing());
        let announced = decoder.as_ref().and_then(Decoder::announced).unwrap_or(0);
        if announced > context.limits.max_body as u64 {
            let response = context.service.reject(Rejection::BodyTooLarge, self.stream.peer, Some(&head));
            let shape = Shape::of(&head);
            return self.respond_early(context, &head, shape, response);
        }
        if head.expects_continue() && self.stream.input.rest().is_empty() {
            self.stream.keep(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 0);
        }
        let mut request = Box::new(Request::new(head, request_context, context.now));
        if !request.reserve_head() {
            let response = context.service.reject(Rejection::NoMemory, self.stream.peer, Some(&request.head));
            let shape = Shape::of(&request.head);
            return self.respond_early(context, &request.head, shape, response);
        }
        let decoder = decoder.unwrap_or_else(Decoder::done);
        self.phase = Phase::Body(Incoming { request, lane, decoder, step: BODY_STEP, is_short: false });
        self.allow(context, context.limits.client_timeout);
    }

    /// Responds before the body is read. A short rest of the body is drained; else the connection ends once
    /// the client has had time to read the response.
    fn respond_early<S>(
        &mut self,
        context: &Context<'_, S>,
        head: &Head,
        shape: Shape,
        response: super::Response,
    ) {
        let decoder = Decoder::new(head.framing());
        let announced = decoder.as_ref().and_then(Decoder::announced).unwrap_or(0);
        // After a refused expectation the client may or may not send its body: only closing is unambiguous.
        let keep = shape.keep_alive && announced <= MAX_DRAIN as u64 && !head.expects_continue();
        self.stream.respond(if keep { shape } else { shape.closing() }, response);
        self.phase = match decoder {
            Some(decoder) if keep => Phase::Drain { decoder, left: MAX_DRAIN },
            None if keep => Phase::idle(),
            _ => Phase::LINGER,
        };
        self.allow(context, context.limits.client_timeout);
    }

    /// Refuses the current request and ends the connection, because later bytes may not begin at a request.
    fn refuse<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>, rejection: Rejection) {
        let head = match &self.phase {
            Phase::Body(incoming) => Some(&incoming.request.head),
            _ => None,
        };
        let response = context.service.reject(rejection, self.stream.peer, head);
        let shape = head.map_or(Shape::UNKNOWN, |head| Shape::of(head).closing());
        self.stream.respond(shape, response);
        self.phase = Phase::LINGER;
        self.allow(context, context.limits.client_timeout);
    }

    /// Refuses a body that is too large. Its framing is sound, so the connection stays open if the rest is
    /// short.
    fn refuse_body<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) {
        let Phase::Body(incoming) = std::mem::replace(&mut self.phase, Phase::idle()) else { return };
        let head = &incoming.request.head;
        let keep = head.keep_alive() && incoming.decoder.due() <= MAX_DRAIN as u64;
        let shape = Shape::of(head);
        let response = context.service.reject(Rejection::BodyTooLarge, self.stream.peer, Some(head));
        self.stream.respond(if keep { shape } else { shape.closing() }, response);
        self.phase =
            if keep { Phase::Drain { decoder: incoming.decoder, left: MAX_DRAIN } } else { Phase::LINGER };
        self.allow(context, context.limits.client_timeout);
    }

    fn advance_body<S: Service<RequestContext = T>>(&mut self, context: &Context<'_, S>) -> Option<Step<T>> {
        let Phase::Body(incoming) = &mut self.phase else { return None };
        let was_short = incoming.is_short;
        match incoming.take(&mut self.stream.input, context.limits.max_body) {
            Ok(()) if incoming.is_short => {
                if !was_short {
                    self.allow(context, context.limits.queue_timeout);
                }
                return Some(Step::Short);
            }
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
            return Some(Step::Ready(incoming.lane, incoming.request));
        }
        if self.stream.ended {
            self.refuse(context, Rejection::Malformed("the request was cut off"));
            return None;
        }
        if was_short || incoming.request.body.len() >= incoming.step {
            incoming.step = incoming.request.body.len() + BODY_STEP;
            self.allow(context, context.limits.client_timeout);
        }
        self.stream.release();
        Some(Step::Wait(Interest::Read))
    }

    fn advance_drain(&mut self) -> Option<Step<T>> {
        let Phase::Drain { decoder, left } = &mut self.phase else { return None };
        let bytes = self.stream.input.rest();
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
        self.stream.input.use_up(at);
        if decoder.is_done() {
            self.phase = Phase::idle();
            return None;
        }
        match left.checked_sub(at) {
            Some(rest) if !self.stream.ended => {
                *left = rest;
                Some(Step::Wait(Interest::Read))
            }
            _ => {
                self.phase = Phase::LINGER;
                None
            }
        }
    }

    fn advance_linger(&mut self, now: Instant) -> Step<T> {
        let Phase::Linger { left, until, is_shut } = &mut self.phase else { return Step::Close };
        // Only once, because each shutdown is an event of the socket.
        if !std::mem::replace(is_shut, true) {
            sys::shut_write(&*self.stream.client);
        }
        self.deadline = (*until.get_or_insert(now + MAX_LINGER_TIME)).min(now + LINGER);
        let read = self.stream.input.discard();
        match left.checked_sub(read) {
            Some(rest) if !self.stream.ended => {
                *left = rest;
                Step::Wait(Interest::Read)
            }
            _ => Step::Close,
        }
    }
}

impl<T> Phase<T> {
    const LINGER: Self = Self::Linger { left: MAX_LINGER, until: None, is_shut: false };

    fn idle() -> Self {
        Self::Head { scan: Scan::default(), since: None, is_idle: false, skipped: 0 }
    }
}
