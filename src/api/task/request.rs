//! The request for a replica, and its body.

use crate::api::messages;
use crate::api::relay::Relay;
use crate::config::{Format, known};
use crate::core::relayed_headers;
use crate::core::splice::json;
use crate::routing::Choice;
use crate::upstream::{Call, Failure, Outgoing, PendingResponse, Timeouts};

impl Relay {
    /// The request for a replica without its body, which has that length, on an idle connection for the worker `idle_of`; inner error:
    /// there is no idle connection.
    pub(super) fn request(
        &self,
        choice: &Choice,
        length: usize,
        timeouts: Timeouts,
        idle_of: Option<usize>,
    ) -> Result<Result<PendingResponse, Outgoing>, Failure> {
        let is_translated = self.is_translated;
        let (format, path) = match is_translated {
            false => (self.client_call.response_context.format, &*self.call.path),
            true => (Format::OpenAi, messages::CHAT),
        };
        let fields = |kept_back: &dyn Fn(&str) -> bool| {
            let request = &self.client_call.request;
            let kind = self.call.kind;
            let mut fields =
                relayed_headers::of_request(&request.head, &request.context.response_context.id, &|name| {
                    kept_back(name)
                        || (is_translated && messages::is_field_of_its_own(name))
                        || (kind.is_some() && name.eq_ignore_ascii_case("content-type"))
                });
            if let Some(kind) = kind {
                fields.push("content-type", kind);
            }
            fields
        };
        let method = self.call.method.clone();
        let replica = &choice.provider().replicas[choice.replica];
        let call = Call { method, format, path, fields: &fields, length };
        self.gateway.upstream().request(replica, &call, timeouts, idle_of, self.now)
    }

    /// Makes the body for a replica, in pieces.
    pub(super) fn with_body<T>(&self, choice: &Choice, send: impl FnOnce(&[&[u8]]) -> T) -> T {
        let replica = &choice.provider().replicas[choice.replica];
        let model = self.call.body.written(&choice.model);
        let model = model.as_bytes();
        let (body, bytes) = (&self.call.body, &*self.client_call.request.body);
        match self.chat() {
            None if !self.call.cuts.is_empty() => send(&body.with_model_less(bytes, model, &self.call.cuts)),
            None if self.adds_usage => send(&body.with_model_and_usage(bytes, model)),
            None => send(&body.with_model(bytes, model)),
            Some(chat) => {
                // The translated APIs report the usage of every stream.
                let limit = known(&replica.url).token_limit;
                let model = json(&choice.model);
                send(&chat.request.with_model(model.as_bytes(), limit, replica.asks_for_usage(true)))
            }
        }
    }
}
