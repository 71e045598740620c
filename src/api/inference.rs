//! A relayed call as it comes: whether it may be made, and what its task begins with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admitted::Admitted;
use super::client_call::ClientCall;
use super::outcome::Finish;
use super::record::Record;
use super::relay::Relay;
use super::{RequestContext, admission, charge, task};
use crate::auth::Permit;
use crate::core::splice::Body;
use crate::front::{Handled, Request, Responder};
use crate::gateway::Gateway;
use crate::memory::{Holder, Share};
use crate::routing::Plan;
use crate::upstream::{ClientResponse, Fault};

/// A client that has waited so long may have left: the provider is skipped then.
const QUEUED_LONG: Duration = Duration::from_millis(50);

/// Relays a call to the provider that its model names.
pub fn relay(gateway: &Arc<Gateway>, request: Box<Request<RequestContext>>, responder: Responder) -> Handled {
    let mut record = Record::new(&request);
    let in_flight = gateway.metrics.enter();
    let body = admission::parse(&request);
    if let Ok(body) = &body {
        record.model.clone_from(&body.model);
        record.streamed = body.stream;
    }
    let mut response_context = request.context.response_context.clone();
    let token = request.context.token();
    // What is refused counts too, and what costs more than its own bytes (filters, lists) comes after the count.
    let admitted =
        admission::admit(gateway, token, &mut response_context).and_then(|permit| Ok((body?, permit)));
    let is_long = |(body, _): &(Body, Permit)| admission::takes_long(&request, body);
    // Computed alone, in its turn.
    let since = admitted.as_ref().is_ok_and(is_long).then(Instant::now);
    let gateway = Arc::clone(gateway);
    let begin = move || {
        let has_left = || responder.client().is_gone();
        let prepare =
            |(body, permit)| Ok((admission::prepare(&gateway, &request, body, since, &has_left)?, permit));
        let (mut call, permit) = match admitted.and_then(prepare) {
            Ok(prepared) => prepared,
            Err(error) => {
                record.fail(&error);
                record.end(&gateway.metrics, &request.context.token().name);
                return responder.send(error.response(&response_context)).into();
            }
        };
        let now = Instant::now();
        let response = new_response(&request, &call, responder, now);
        record.model.clone_from(&call.body.model);
        let estimated_prompt = charge::estimated_prompt(&request);
        let client_call = ClientCall {
            request,
            permit,
            in_flight,
            response_context,
            response,
            record,
            estimated_prompt,
            charge: 0,
        };
        let context = &client_call.request.context;
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
            lacks_responses: false,
            is_untranslatable: false,
            is_short,
            share,
            client_call,
        };
        match client_has_left(&relay) {
            true => relay.finish(Finish::Fault(Fault::ClientGone)).into(),
            false => task::begin(relay),
        }
    };
    if since.is_some() { Handled::Compute(Box::new(begin)) } else { begin() }
}

/// The client's side. A client that asked for a stream hears a heartbeat while nothing else comes.
fn new_response(
    request: &Request<RequestContext>,
    call: &Admitted,
    responder: Responder,
    now: Instant,
) -> ClientResponse {
    let heartbeat = request.context.config.stream_heartbeat.filter(|_| call.body.stream);
    ClientResponse::new(responder, heartbeat, now)
}

/// Whether nobody has waited for a call that was queued for long.
fn client_has_left(relay: &Relay) -> bool {
    let client_call = &relay.client_call;
    let queued = relay.begun.saturating_duration_since(client_call.request.received);
    queued > QUEUED_LONG && client_call.response.client().is_gone()
}
