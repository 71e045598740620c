//! A relayed call, once it is known that it may be made.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ureq::http::Method;

use super::error::ApiError;
use super::messages::Chat;
use crate::core::splice::Body;
use crate::routing::Route;

/// A call that may be made.
pub struct Admitted {
    /// The provider's method.
    pub method: Method,
    /// What the body says.
    pub body: Body,
    /// The call for providers that do not speak its API, where it is one of Anthropic's or the Responses API.
    pub(super) chat: Option<Arc<Chat>>,
    /// Why those providers are skipped, where the call cannot be translated.
    pub refused: Option<ApiError>,
    /// As [`Translated`](super::messages::Translated) has them.
    pub(super) cuts: Vec<Range<usize>>,
    /// As [`Translated`](super::messages::Translated) has it.
    pub(super) uncounting: Option<String>,
    /// The models to ask for, in their order.
    pub routes: Vec<Route>,
    /// A stored response is looked for: it is not known which of the routes has it.
    pub is_search: bool,
    /// Path and query after the provider's base URL.
    pub path: Cow<'static, str>,
    /// What the client's `Content-Type` gives way to.
    pub kind: Option<&'static str>,
    /// Tokens of its prompt, estimated from its body.
    pub(super) estimated_prompt: u64,
}

impl Admitted {
    /// No further attempt will be made: what only those need goes.
    pub fn settle(&mut self) {
        self.chat = None;
    }
}
