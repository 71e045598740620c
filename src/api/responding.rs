//! What a response is, and its next stage: a stream, or a body that is collected first.

use super::inference::{Attempt, Relay};
use super::messages;
use super::outcome::{BufferedResponse, Failed, Outcome};
use super::task::{Stage, Step};
use crate::limits::{MAX_ERROR_BODY, MAX_REFUSAL, TRANSLATED_COPIES};
use crate::memory::{Holder, Share};
use crate::routing::Choice;
use crate::upstream::assembly::{Unassembled, assemble};
use crate::upstream::meter::Measured;
use crate::upstream::opening::begins_like_events;
use crate::upstream::refusal::Refusal;
use crate::upstream::stream;
use crate::upstream::unusable;
use crate::upstream::{Failure, Fault, Headers, UpstreamResponse, Whole};

impl Relay {
    /// A response has begun: its next stage.
    pub(super) fn on_head(&mut self, response: UpstreamResponse, attempt: &Attempt) -> Step {
        self.client_call.adopt_id(Some(&response.headers), &attempt.choice.provider().name);
        let unusable = unusable::failure_of(response.status, &response.headers);
        // No bytes are coded in no way.
        let unusable = unusable.filter(|it| it.fault == Fault::Redirected || !response.is_over());
        if let Some(failure) = unusable {
            return Step::Ended(Outcome::Failed(Failed::Fault(failure)));
        }
        let asked = self.call.body.stream;
        let is_good = (200..300).contains(&response.status) && response.status != 204;
        let is_labelled = stream::is_event_stream(&response.headers);
        // Speech has another way to be asked for as events.
        let is_speech = self.call.path.starts_with("/audio/speech");
        let is_wanted = asked || is_speech;
        if is_good && is_labelled && is_wanted {
            return self.stream(response, Vec::new(), true, attempt);
        }
        self.client_call.response.keep_quiet();
        // Sound may begin as events do.
        let kind = content_type(&response);
        let may_be_events = !is_media(kind) || (is_binary(kind) && !is_speech);
        if is_good && asked && !is_labelled && may_be_events {
            return Step::To(Stage::AwaitBody(response, Vec::new()));
        }
        self.begun(response, Vec::new(), false, attempt)
    }

    /// What a response is, is known; `beginning` was read of its body.
    pub(super) fn begun(
        &mut self,
        mut response: UpstreamResponse,
        beginning: Vec<u8>,
        is_events: bool,
        attempt: &Attempt,
    ) -> Step {
        let is_translated = self.call.chat_for(attempt.choice.provider()).is_some();
        // A heartbeat has promised events, and what is translated is events or a document: nothing else.
        let may_pass = !self.client_call.is_committed() && !is_translated;
        if is_events || (may_pass && is_streamed(&response, self.call.body.stream)) {
            return self.stream(response, beginning, is_events, attempt);
        }
        // It has begun: it is no hanging replica.
        response.take_time();
        let whole = Whole::begun(beginning, self.client_call.config().max_response_size);
        Step::To(Stage::Collect(response, whole))
    }

    /// A buffered response: read to its end before any of it leaves.
    pub(super) fn document(
        &mut self,
        response: UpstreamResponse,
        mut body: Vec<u8>,
        choice: &Choice,
    ) -> Outcome {
        // What an error says cannot be read then, but its status can.
        if unusable::coding(&response.headers).is_some() {
            body.clear();
        }
        let status = response.status;
        // A transcript as plain text may begin as it likes.
        let may_be_events =
            stream::is_event_stream(&response.headers) || !self.call.path.starts_with("/audio/");
        let is_unasked = (200..300).contains(&status) && !self.call.body.stream && may_be_events;
        let answer = if is_unasked && begins_like_events(&body) == Some(true) {
            let held = self.hold_copies_of(&body);
            match held.and_then(|()| assembled(status, response.headers, &body)) {
                Ok(answer) => answer,
                Err(failure) => {
                    if failure.fault == Fault::Untranslatable {
                        let mut meter = self.meter();
                        meter.events(&body);
                        self.note_document(meter.measured(), &[]);
                    }
                    return Outcome::Failed(Failed::Fault(failure));
                }
            }
        } else {
            let refusal = refusal_in(status, &body);
            BufferedResponse { status, headers: response.headers, body, refusal }
        };
        let measured = Measured::of_document(&answer.body, self.output());
        if self.call.chat_for(choice.provider()).is_none() {
            return self.whole(answer, measured, choice);
        }
        if let Err(failure) = self.hold_copies_of(&answer.body) {
            return Outcome::Failed(Failed::Fault(failure));
        }
        // Asked again: the copies are counted in between.
        let Some(chat) = self.call.chat_for(choice.provider()) else {
            return self.whole(answer, measured, choice);
        };
        let (model, limit) = (&self.call.body.model, self.client_call.config().max_response_size);
        match messages::translate_response(answer, model, chat, &self.client_call.response_context.id, limit)
        {
            Ok(answer) => self.whole(answer, measured, choice),
            Err(failure) => {
                if failure.fault == Fault::Untranslatable {
                    // It was given, and is paid.
                    self.note_document(measured, &[]);
                }
                Outcome::Failed(Failed::Fault(failure))
            }
        }
    }

    /// Counts what a body becomes while another is made of it.
    fn hold_copies_of(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut copies = Share::new(Holder::Response);
        if !copies.set(body.len().saturating_mul(TRANSLATED_COPIES)) {
            let detail = "no memory to translate it".to_owned();
            return Err(Failure { fault: Fault::Overloaded, detail });
        }
        self.share.take_over(copies);
        Ok(())
    }
}

/// A response that is no stream of events is passed on as it comes where it is media, or where a stream was asked for and it is
/// neither JSON nor text.
fn is_streamed(response: &UpstreamResponse, asked: bool) -> bool {
    let kind = content_type(response);
    (200..300).contains(&response.status)
        && response.status != 204
        && (is_media(kind) || (asked && !is_document(kind)))
}

/// Empty where there is none.
fn content_type(response: &UpstreamResponse) -> &[u8] {
    response.headers.get("content-type").unwrap_or_default()
}

fn is_document(kind: &[u8]) -> bool {
    kind.is_empty() || begins_as(kind, &["application/json", "text/"])
}

fn is_media(kind: &[u8]) -> bool {
    is_binary(kind) || begins_as(kind, &["audio/", "image/", "video/"])
}

fn is_binary(kind: &[u8]) -> bool {
    begins_as(kind, &["application/octet-stream"])
}

fn begins_as(kind: &[u8], starts: &[&str]) -> bool {
    let begins =
        |start: &&str| kind.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start.as_bytes()));
    starts.iter().any(begins)
}

/// The document that unrequested events make.
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

/// The refusal in a buffered response. One of success is searched only where it is small.
fn refusal_in(status: u16, body: &[u8]) -> Option<Refusal> {
    let limit = if status < 400 { MAX_REFUSAL } else { MAX_ERROR_BODY };
    (body.len() <= limit).then(|| Refusal::in_document(body)).flatten()
}
