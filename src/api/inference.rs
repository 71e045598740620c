//! A relayed call as it comes: whether it may be made, and what its task begins with. What takes long to find out, a helper
//! computes.

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

/// A client that has waited so long may have left: the provider is skipped then.
const QUEUED_LONG: Duration = Duration::from_millis(50);

/// A call of which it is not yet known where it goes.
struct Call {
    gateway: Arc<Gateway>,
    client_call: Box<ClientCall>,
    /// Its token is over a limit.
    refused: Option<ApiError>,
}

/// A call that a helper prepares.
struct Preparing {
    call: Call,
    computing: Computing<Prepared>,
}

/// What a request is prepared from.
struct Unprepared {
    gateway: Arc<Gateway>,
    request: Arc<Request<RequestContext>>,
    /// What its body says, where that is known.
    body: Option<Body>,
    /// Its token's limits admit it.
    is_admitted: bool,
}

/// What was found out about a request.
struct Prepared {
    /// The model that it names, and whether it asks for a stream.
    asked: Option<(Arc<str>, bool)>,
    call: Result<Found, ApiError>,
}

enum Found {
    /// Where it goes, and what of it.
    Call(Box<Admitted>),
    /// What its body says: its filters take long, or its token is over a limit.
    Body(Body),
}

/// Relays a call to the provider that its model names.
pub fn relay(gateway: &Arc<Gateway>, request: Box<Request<RequestContext>>, responder: Responder) -> Handled {
    let mut response_context = request.context.response_context.clone();
    // What is refused counts too.
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

/// Finds out what a request says and where it goes. A call whose filters take long gets no further than its body; a second run, with
/// that `body`, takes the time.
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
    // What costs more than its own bytes (filters, lists) comes after the count.
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
    /// Has a helper prepare it. Where its body is known already, its filters take long: that is computed alone.
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

/// Whether nobody has waited for a call that was queued for long.
fn client_has_left(relay: &Relay) -> bool {
    let client_call = &relay.client_call;
    let queued = relay.begun.saturating_duration_since(client_call.request.received);
    queued > QUEUED_LONG && client_call.response.client().is_gone()
}
