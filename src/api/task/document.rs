//! Examines a buffered response: the result for the client, its tokens, the id of the response that it made. It is a function of values
//! alone, so that a helper can run it where the body is large.

use std::sync::Arc;

use serde::Deserialize;

use crate::api::masking;
use crate::api::messages::{self, Chat};
use crate::api::outcome::BufferedResponse;
use crate::config::Mask;
use crate::limits::{MAX_ERROR_BODY, MAX_REFUSAL, TRANSLATED_COPIES};
use crate::memory::{Holder, Share};
use crate::upstream::assembly::{Unassembled, assemble};
use crate::upstream::meter::{Measured, Meter};
use crate::upstream::opening::begins_like_events;
use crate::upstream::refusal::Refusal;
use crate::upstream::{Failure, Fault, Headers, Output, response_id};

/// A response read to its end, before it is examined.
pub struct Unread {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// The memory of its body.
    pub share: Share,
    /// The client asked for a document: events are assembled into one.
    pub is_document: bool,
    pub output: Output,
    /// Translates the response, where the call was sent translated.
    pub translated: Option<Translated>,
    /// Largest translated body, bytes.
    pub limit: usize,
    /// The call has made a response: its id is wanted.
    pub makes_response: bool,
    /// The call is about a stored response.
    pub is_stored: bool,
    /// Makes events of the document, where a heartbeat has promised events.
    pub promised: Option<Promised>,
    pub mask: Arc<Mask>,
}

/// Turns a document, which may be a refusal, into events; `None`: no events express it.
pub type Promised = fn(&[u8], bool) -> Option<Vec<u8>>;

/// The translation of the response to a translated call.
pub struct Translated {
    pub chat: Arc<Chat>,
    /// The model in the client's words.
    pub model: Arc<str>,
    /// The id of the request.
    pub id: Arc<str>,
}

/// An examined response.
pub struct Document {
    /// The response for the client. A success contains no secret of the provider; errors are masked when they are sent.
    pub response: Result<BufferedResponse, Failure>,
    pub measured: Measured,
    /// The id of the response that it made.
    pub made: Option<String>,
    /// It is a stored response that was made in the background.
    pub is_made_in_background: bool,
    /// Its memory.
    pub share: Share,
}

impl Document {
    /// An examined response without any other facts.
    pub fn of(response: Result<BufferedResponse, Failure>, share: Share) -> Self {
        Self { response, measured: Measured::default(), made: None, is_made_in_background: false, share }
    }

    /// Reserves memory for the copies that exist while a body is translated.
    fn hold_copies_of(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut copies = Share::new(Holder::Response);
        if !copies.set(body.len().saturating_mul(TRANSLATED_COPIES)) {
            return Err(overloaded("no memory to translate it"));
        }
        self.share.take_over(copies);
        Ok(())
    }
}

/// The failure for lack of memory or of a thread.
pub fn overloaded(detail: &str) -> Failure {
    Failure { fault: Fault::Overloaded, detail: detail.to_owned() }
}

impl Unread {
    pub fn examine(mut self) -> Document {
        let share = std::mem::replace(&mut self.share, Share::new(Holder::Response));
        let mut document = Document::of(Err(overloaded("")), share);
        document.response = self.examine_into(&mut document);
        document
    }

    fn examine_into(self, document: &mut Document) -> Result<BufferedResponse, Failure> {
        let Self { status, headers, body, .. } = self;
        let is_events = self.is_document && begins_like_events(&body) == Some(true);
        let mut buffered = if is_events {
            document.hold_copies_of(&body)?;
            assembled(status, headers, &body).inspect_err(|failure| {
                if failure.fault == Fault::Untranslatable {
                    let mut meter = Meter::new(self.output, true);
                    meter.sample(&body);
                    meter.report(&body);
                    document.measured = meter.measured();
                }
            })?
        } else {
            let refusal = refusal_in(status, &body);
            BufferedResponse { status, headers, body, refusal }
        };
        document.measured = Measured::of_document(&buffered.body, self.output);
        if let Some(Translated { chat, model, id }) = self.translated {
            document.hold_copies_of(&buffered.body)?;
            buffered = messages::translate_response(buffered, &model, &chat, &id, self.limit)?;
        } else if self.makes_response {
            document.made = response_id::in_document(&buffered.body);
        } else if self.is_stored && document.measured.is_reported() {
            document.is_made_in_background = is_made_in_background(&buffered.body);
        }
        if buffered.status < 400 && buffered.refusal.is_none() {
            buffered.body = masking::without_keys(&self.mask, buffered.body);
        }
        let promised = self.promised.filter(|_| buffered.status < 300);
        let events = promised.and_then(|events| events(&buffered.body, buffered.refusal.is_some()));
        if let Some(events) = events {
            buffered.headers.set("content-type", b"text/event-stream");
            buffered.body = events;
        }
        Ok(buffered)
    }
}

/// The document assembled from unrequested events.
fn assembled(status: u16, mut headers: Headers, events: &[u8]) -> Result<BufferedResponse, Failure> {
    headers.set("content-type", b"application/json");
    match assemble(events) {
        Ok(body) => Ok(BufferedResponse { status, headers, body, refusal: None }),
        Err(Unassembled::Refused(refusal, body)) => {
            Ok(BufferedResponse { status: refusal.status, headers, body, refusal: Some(refusal) })
        }
        Err(Unassembled::Broken(detail)) => Err(Failure { fault: Fault::CutOff, detail: detail.to_owned() }),
        Err(Unassembled::Unknown(detail)) => {
            Err(Failure { fault: Fault::Untranslatable, detail: detail.to_owned() })
        }
    }
}

/// The refusal in a buffered response. A response with a status of success is searched only where it is small.
fn refusal_in(status: u16, body: &[u8]) -> Option<Refusal> {
    let limit = if status < 400 { MAX_REFUSAL } else { MAX_ERROR_BODY };
    (body.len() <= limit).then(|| Refusal::in_document(body)).flatten()
}

/// Whether a stored response says that it is made in the background.
fn is_made_in_background(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Stored {
        background: bool,
    }
    serde_json::from_slice::<Stored>(body).is_ok_and(|stored| stored.background)
}
