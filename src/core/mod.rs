//! The part for an auditor: pure functions and state machines without sockets, threads or a clock. Bytes of clients and
//! providers become checked types here, and messages get their form on the wire here.

pub mod body;
pub mod choosers;
pub mod credential;
pub mod date;
pub mod fields;
pub mod framing;
pub mod headers;
pub mod mask;
pub mod multipart;
mod names;
pub mod provider_request;
pub mod relayed_headers;
pub mod request_head;
pub mod response_head;
pub mod secret;
pub mod sort;
pub mod splice;
pub mod sse;
mod usage_option;

/// Why a request is refused before a handler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Not HTTP according to RFC 9112; names the part.
    Malformed(&'static str),
    /// The client begins a TLS handshake.
    Tls,
    /// The target is over [`crate::limits::MAX_TARGET`].
    UriTooLong,
    /// The head is over [`crate::limits::MAX_HEAD`] or [`crate::limits::MAX_HEADERS`].
    HeadTooLarge,
    /// The body is over the limit of `max_request_size`.
    BodyTooLarge,
    /// An unknown `Expect`.
    ExpectationFailed,
    /// An unknown transfer coding.
    UnknownCoding,
    /// Not HTTP/1.x.
    VersionNotSupported,
    /// The request did not arrive in time.
    Timeout,
    /// No permit in time.
    NoPermit,
    /// No thread in time.
    Overloaded,
    /// No memory for the request.
    NoMemory,
    /// Over the limit of open connections.
    TooManyClients,
    /// Draining.
    ShuttingDown,
    /// The handler panicked.
    Panicked,
}

/// Why a relayed request is refused because of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// The body has nothing but white space.
    Empty,
    /// Not a JSON object; names the place.
    InvalidJson(String),
    /// Not a well-formed form; names the part.
    InvalidForm(&'static str),
    /// No `model`.
    MissingModel,
    /// `model` is not a non-empty string.
    InvalidModel,
    /// `model` is over [`crate::limits::MAX_MODEL`].
    ModelTooLong,
    /// More than one `model`, or one in another case: two readers could find two models.
    AmbiguousModel,
    /// `previous_response_id` is over [`crate::limits::MAX_RESPONSE_ID`].
    ResponseIdTooLong,
}
