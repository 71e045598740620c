//! A relayed call that was admitted.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ureq::http::Method;

use super::error::ApiError;
use super::messages::Chat;
use crate::core::splice::Body;
use crate::routing::Route;

/// An admitted call.
pub struct Admitted {
    /// The provider's method.
    pub method: Method,
    /// The parsed body.
    pub body: Body,
    /// The call for providers that do not speak its API, where it is one of Anthropic's or the Responses API.
    pub(super) chat: Option<Arc<Chat>>,
    /// Why those providers are skipped, where the call cannot be translated.
    pub refused: Option<ApiError>,
    /// See [`Translated`](super::messages::Translated).
    pub(super) cuts: Vec<Range<usize>>,
    /// See [`Translated`](super::messages::Translated).
    pub(super) uncounting: Option<String>,
    /// The models to ask for, in their order.
    pub routes: Vec<Route>,
    /// The call searches a stored response: any of the routes may have it.
    pub is_search: bool,
    /// Path and query after the provider's base URL.
    pub path: Cow<'static, str>,
    /// Replaces the client's `Content-Type`.
    pub kind: Option<&'static str>,
    /// Tokens of its prompt, estimated from its body.
    pub(super) estimated_prompt: u64,
}

impl Admitted {
    /// No further attempt follows: frees the data for one.
    pub fn settle(&mut self) {
        self.chat = None;
    }
}
