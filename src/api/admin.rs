//! `POST /v1/reload`.

use serde::Serialize;

use super::{ApiError, RequestContext, json_response, refuse};
use crate::front::Response;
use crate::gateway::Gateway;
use crate::text::Text;

/// Reloads the configuration.
pub fn reload(gateway: &Gateway, context: &RequestContext) -> Response {
    #[derive(Serialize)]
    struct Done {
        message: String,
        providers_count: usize,
        restart_required: Vec<&'static str>,
    }
    match gateway.reload() {
        Ok(reloaded) => {
            let document = Done {
                message: Text::Reloaded.say(reloaded.config.language),
                providers_count: reloaded.config.providers.len(),
                restart_required: reloaded.restart_required,
            };
            json_response(200, &context.response_context, &document)
        }
        Err(problems) => refuse(gateway, &ApiError::ReloadRefused(problems), &context.response_context),
    }
}
