//! A relayed call on arrival: admits it and begins its task. A helper prepares a call that takes long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admitted::Admitted;
use super::client_call::ClientCall;
use super::error::ApiError;
use super::outcome::Finish;
use super::record::Record;
use super::relay::Relay;
use super::task::{self, Computing};
use super::{RequestContext, admission};
use crate::auth::Permit;
use crate::core::splice::Body;
use crate::front::{self, Client, Done, Handled, Io, Next, Request, Responder};
use crate::gateway::Gateway;
use crate::limits::QUICK_BODY;
use crate::memory::{Holder, Share};
use crate::routing::Plan;
use crate::upstream::{ClientResponse, Fault};

/// A client that has waited this long may have left; the call checks that before it goes to a provider.
const QUEUED_LONG: Duration = Duration::from_millis(50);

/// A call without routes yet.
struct Call {
    gateway: Arc<Gateway>,
    client_call: Box<ClientCall>,
    /// The error where its token is over a limit.
    refused: Option<ApiError>,
}

/// A call that a helper prepares.
struct Preparing {
    call: Call,
    computing: Computing<Prepared>,
}

/// The input of a preparation.
struct Unprepared {
    gateway: Arc<Gateway>,
    request: Arc<Request<RequestContext>>,
    /// Its parsed body, if that exists already.
    body: Option<Body>,
    /// Its token's limits admit it.
    is_admitted: bool,
}

/// The result of a preparation.
struct Prepared {
    /// The model that it names, and whether it asks for a stream.
    asked: Option<(Arc<str>, bool)>,
    call: Result<Found, ApiError>,
}

enum Found {
    /// The call is ready.
    Call(Box<Admitted>),
    /// Only the body is parsed: the filters take long, or the token is over a limit.
    Body(Body),
}

/// Relays a call to the provider that its model names.
pub fn relay(gateway: &Arc<Gateway>, request: Box<Request<RequestContext>>, responder: Responder) -> Handled {
    let mut response_context = request.context.response_context.clone();
    // A refused call counts too.
    let admitted = admission::admit(gateway, request.context.token(), &mut response_context);
    let (permit, refused) = match admitted {
        Ok(permit) => (permit, None),
        Err(error) => (Permit::UNLIMITED, Some(error)),
    };
    let client_call = Box::new(ClientCall {
        response: ClientResponse::new(responder, request.received),
        record: Record::new(&request),
        request: request.into(),
        permit,
        in_flight: gateway.metrics.enter(),
        response_context,
        estimated_prompt: 0,
        charge: 0,
    });
    let call = Call { gateway: Arc::clone(gateway), client_call, refused };
    let request = &call.client_call.request;
    if request.body.len() > QUICK_BODY {
        return call.prepare_on_helper(None);
    }
    let prepared = prepare(gateway, request, None, call.refused.is_none());
    call.on_prepared(prepared)
}

/// Prepares a request. For a call whose filters take long it only parses the body; a second run, with
/// that `body`, does the rest.
fn prepare(
    gateway: &Gateway,
    request: &Request<RequestContext>,
    body: Option<Body>,
    is_admitted: bool,
) -> Prepared {
    let may_take_long = body.is_some();
    let body = match body.map_or_else(|| admission::parse(request), Ok) {
        Ok(body) => body,
        Err(error) => return Prepared { asked: None, call: Err(error) },
    };
    let asked = Some((Arc::clone(&body.model), body.stream));
    // Work beyond the bytes of the call (filters, lists) comes after the token's limits.
    let call = match is_admitted && (may_take_long || !admission::takes_long(request, &body)) {
        true => admission::prepare(gateway, request, body).map(|call| Found::Call(Box::new(call))),
        false => Ok(Found::Body(body)),
    };
    Prepared { asked, call }
}

impl Unprepared {
    fn prepare(self) -> Prepared {
        prepare(&self.gateway, &self.request, self.body, self.is_admitted)
    }
}

impl Call {
    /// Has a helper prepare the call. Where its body is parsed already, its filters take long: such calls run one at a time.
    fn prepare_on_helper(self, body: Option<Body>) -> Handled {
        let is_alone = body.is_some();
        let unprepared = Unprepared {
            gateway: Arc::clone(&self.gateway),
            request: Arc::clone(&self.client_call.request),
            body,
            is_admitted: self.refused.is_none(),
        };
        let until = Instant::now() + self.client_call.config().queue_timeout;
        let computing = Computing::new(unprepared, Unprepared::prepare, is_alone, until);
        Handled::Task(Box::new(Preparing { call: self, computing }))
    }

    fn on_prepared(mut self, prepared: Prepared) -> Handled {
        if let Some((model, streamed)) = prepared.asked {
            let record = &mut self.client_call.record;
            (record.model, record.streamed) = (model, streamed);
        }
        match (self.refused.take(), prepared.call) {
            (Some(error), _) | (None, Err(error)) => self.refuse(error).into(),
            (None, Ok(Found::Call(call))) => self.begin(call),
            (None, Ok(Found::Body(body))) => self.prepare_on_helper(Some(body)),
        }
    }

    fn refuse(mut self, error: ApiError) -> Done {
        self.client_call.response.begin_turn(Instant::now());
        self.client_call.finish(Finish::Error(error), &self.gateway)
    }

    fn begin(self, mut call: Box<Admitted>) -> Handled {
        let (Self { gateway, mut client_call, .. }, now) = (self, Instant::now());
        client_call.record.model.clone_from(&call.body.model);
        client_call.estimated_prompt = call.estimated_prompt;
        let context = &client_call.request.context;
        let heartbeat = context.config.stream_heartbeat.filter(|_| call.body.stream);
        client_call.response.expect_stream(heartbeat, now);
        let plan = Plan::new(&context.config, std::mem::take(&mut call.routes), context.token());
        let (adds_usage, is_translated, is_short) = (false, false, false);
        let share = Share::new(Holder::Response);
        let (last, begun) = (None, now);
        let relay = Relay {
            gateway,
            call,
            plan,
            last,
            begun,
            now,
            adds_usage,
            is_translated,
            lacks_api: false,
            is_untranslatable: false,
            is_short,
            share,
            client_call,
        };
        match client_has_left(&relay) {
            true => relay.finish(Finish::Fault(Fault::ClientGone)).into(),
            false => task::begin(relay),
        }
    }
}

impl front::Task for Preparing {
    fn client(&self) -> &Arc<Client> {
        self.call.client_call.response.client()
    }

    fn advance(mut self: Box<Self>, io: &mut dyn Io) -> Next {
        let now = io.now();
        let handled = match self.computing.poll(io, now) {
            Ok(None) => return Next::Park(self),
            Ok(Some(prepared)) => self.call.on_prepared(prepared),
            Err(error) => self.call.refuse(error).into(),
        };
        match handled {
            Handled::Done(done) => Next::Done(done),
            Handled::Task(task) => task.advance(io),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.computing.deadline()
    }

    fn cancel(self: Box<Self>) -> Done {
        let Call { gateway, client_call, .. } = self.call;
        client_call.finish(Finish::Fault(Fault::ClientGone), &gateway)
    }
}

/// Whether a call was queued for long and its client has left meanwhile.
fn client_has_left(relay: &Relay) -> bool {
    let client_call = &relay.client_call;
    let queued = relay.begun.saturating_duration_since(client_call.request.received);
    queued > QUEUED_LONG && client_call.response.client().is_gone()
}
