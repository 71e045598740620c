//! The events of a streamed response: each block of the message is an output item, and the last event holds all of them.

use std::sync::Arc;

use super::context::Translation;
use super::custom_input::CustomInput;
use super::failure::Failure;
use super::object::{Details, Object};
use super::output_item::{Item, Place};
use crate::dialect::block::{Block, Tool};
use crate::dialect::escapes::escaped_length;
use crate::dialect::finish::Finish;
use crate::dialect::output::Output;
use crate::dialect::unfit::Unfit;
use crate::dialect::usage::ChatUsage;
use crate::dialect::writer::{Rules, Writer};

/// Writes one response.
#[derive(Debug)]
pub(super) struct Events {
    request: Arc<Translation>,
    object: Object,
    /// Writes events; otherwise only the response.
    is_streamed: bool,
    /// Number of the next event.
    sequence: u64,
    /// The complete items, as in the response's list.
    complete: Output,
    /// Input of the current item, if it is the call of a free-form tool.
    custom: CustomInput,
    /// What surrounds the text in each delta of the current item.
    delta: Option<Delta>,
}

/// An event of new text, written once for all of an item: most events of a stream differ in their number and text alone.
#[derive(Debug)]
struct Delta {
    /// What precedes the number.
    before: Output,
    /// What stands between the number and the text.
    between: Output,
    /// What follows the text.
    after: Output,
}

/// Bytes of an item's events besides its text.
const ROOM: usize = 1024;

/// Number of events that repeat an item's whole text.
const COPIES: usize = 3;

impl Events {
    /// Writer for `request` with the response `object`; at most `limit` bytes are held.
    pub(super) fn new(request: Arc<Translation>, object: Object, limit: usize, is_streamed: bool) -> Self {
        let (complete, custom) = (Output::new(limit), CustomInput::default());
        Self { request, object, is_streamed, sequence: 0, complete, custom, delta: None }
    }

    /// Begins an event, which [`end`] ends.
    fn event(&mut self, kind: &str, out: &mut Output) {
        begin_event(kind, out);
        out.number(self.sequence);
        self.sequence += 1;
    }

    /// Begins an event of that item.
    fn item_event(&mut self, kind: &str, index: usize, out: &mut Output) {
        self.event(kind, out);
        out.write(&[",\"output_index\":"]);
        out.number(index as u64);
    }

    /// Begins an event of that item's text.
    fn text_event(&mut self, kind: &str, index: usize, item: &Item<'_>, out: &mut Output) {
        self.event(kind, out);
        self.write_place(index, item, out);
    }

    /// Writes the place of that item's text.
    fn write_place(&self, index: usize, item: &Item<'_>, out: &mut Output) {
        out.write(&[",\"output_index\":"]);
        out.number(index as u64);
        out.write(&[",\"item_id\":"]);
        item.write_id(Place { tag: &self.object.tag, index }, out);
        out.write(if item.part().is_some() { &[",\"content_index\":0"] } else { &[] });
    }

    fn delta_event(&mut self, index: usize, item: &Item<'_>, new: &str, out: &mut Output) {
        if self.is_streamed && !new.is_empty() {
            out.reserve(escaped_length(new) + ROOM);
            let delta = self.delta.take().unwrap_or_else(|| self.delta_of(index, item));
            out.add(delta.before.bytes());
            out.number(self.sequence);
            self.sequence += 1;
            out.add(delta.between.bytes());
            out.string(new);
            out.add(delta.after.bytes());
            self.delta = Some(delta);
        }
    }

    fn delta_of(&self, index: usize, item: &Item<'_>) -> Delta {
        let [mut before, mut between, mut after] = [(); 3].map(|()| Output::new(ROOM));
        begin_event(item.delta_event(), &mut before);
        self.write_place(index, item, &mut between);
        between.write(&[",\"delta\":"]);
        item.end_text(&mut after);
        end(&mut after);
        Delta { before, between, after }
    }

    fn part_event(&mut self, kind: &str, index: usize, item: &Item<'_>, text: &str, out: &mut Output) {
        if item.part().is_some() {
            self.text_event(kind, index, item, out);
            out.write(&[",\"part\":"]);
            item.write_part(text, out);
            end(out);
        }
    }

    /// Writes an event with the response, or only the response.
    fn response(&mut self, status: &str, details: &Details<'_>, out: &mut Output) {
        out.reserve(self.complete.bytes().len() + self.request.echo().len() + ROOM);
        if self.is_streamed {
            let kind = if status == "in_progress" { "created" } else { status };
            self.event(&["response.", kind].concat(), out);
            out.write(&[",\"response\":"]);
        }
        self.object.write(status, details, self.complete.bytes(), self.request.echo(), out);
        if self.is_streamed {
            end(out);
        }
    }

    /// Ends an item with its complete text.
    fn end_item(&mut self, index: usize, item: &Item<'_>, status: &str, text: &str, out: &mut Output) {
        let start = self.complete.bytes().len();
        if start > 0 {
            self.complete.write(&[","]);
        }
        let from = self.complete.bytes().len();
        item.write(Place { tag: &self.object.tag, index }, status, Some(text), &mut self.complete);
        if self.is_streamed {
            out.reserve(COPIES * (self.complete.bytes().len() - start) + ROOM);
            self.text_event(item.done_event(), index, item, out);
            item.write_text(text, out);
            end(out);
            self.part_event("response.content_part.done", index, item, text, out);
            self.item_event("response.output_item.done", index, out);
            out.write(&[",\"item\":"]);
            out.add(&self.complete.bytes()[from..]);
            end(out);
        }
    }
}

/// Begins an event up to its number.
fn begin_event(kind: &str, out: &mut Output) {
    out.write(&["event: ", kind, "\ndata: {\"type\":\"", kind, "\",\"sequence_number\":"]);
}

fn end(out: &mut Output) {
    out.write(&["}\n\n"]);
}

impl Writer for Events {
    fn rules(&self) -> Rules {
        Rules { has_refusals: true, has_annotations: true, keeps_text: true }
    }

    fn begin(&mut self, id: &str, out: &mut Output) {
        self.object.name(id);
        if self.is_streamed {
            self.response("in_progress", &Details::Begun, out);
            self.event("response.in_progress", out);
            out.write(&[",\"response\":"]);
            self.object.write("in_progress", &Details::Begun, &[], self.request.echo(), out);
            end(out);
        }
    }

    fn open(&mut self, index: usize, block: &Block, out: &mut Output) {
        self.custom = CustomInput::default();
        self.delta = None;
        if self.is_streamed {
            let request = Arc::clone(&self.request);
            let item = Item::of(block, &request);
            self.item_event("response.output_item.added", index, out);
            out.write(&[",\"item\":"]);
            item.write(Place { tag: &self.object.tag, index }, "in_progress", None, out);
            end(out);
            self.part_event("response.content_part.added", index, &item, "", out);
        }
    }

    fn delta(&mut self, index: usize, block: &Block, new: &str, out: &mut Output) {
        let request = Arc::clone(&self.request);
        let item = Item::of(block, &request);
        if item.is_custom() {
            let mut custom = std::mem::take(&mut self.custom);
            self.delta_event(index, &item, custom.take(block.text.text(), false), out);
            self.custom = custom;
        } else {
            self.delta_event(index, &item, new, out);
        }
    }

    fn annotate(&mut self, index: usize, block: &Block, at: usize, out: &mut Output) {
        if self.is_streamed {
            let request = Arc::clone(&self.request);
            self.text_event("response.output_text.annotation.added", index, &Item::of(block, &request), out);
            out.write(&[",\"annotation_index\":"]);
            out.number(at as u64);
            out.write(&[",\"annotation\":", &block.annotations[at]]);
            end(out);
        }
    }

    fn close(&mut self, index: usize, block: &Block, may_lack: bool, out: &mut Output) -> Result<(), Unfit> {
        let request = Arc::clone(&self.request);
        let item = Item::of(block, &request);
        let is_cut = may_lack && !block.call().is_some_and(Tool::is_closed);
        let status = if is_cut { "incomplete" } else { "completed" };
        let text = block.text.text();
        if item.is_custom() {
            let mut custom = std::mem::take(&mut self.custom);
            self.delta_event(index, &item, custom.take(text, true), out);
            self.end_item(index, &item, status, custom.text(), out);
        } else if block.call().is_some() && text.trim_ascii().is_empty() {
            // A call without arguments.
            self.delta_event(index, &item, "{}", out);
            self.end_item(index, &item, status, "{}", out);
        } else {
            self.end_item(index, &item, status, text, out);
        }
        if self.complete.is_over() { Err(Unfit::TooLarge) } else { Ok(()) }
    }

    fn end(&mut self, finish: &Finish<'_>, usage: Option<ChatUsage>, out: &mut Output) {
        match finish {
            Finish::Length => {
                self.response("incomplete", &Details::Incomplete("max_output_tokens", usage), out);
            }
            Finish::Filtered => {
                self.response("incomplete", &Details::Incomplete("content_filter", usage), out);
            }
            _ => self.response("completed", &Details::Complete(usage), out),
        }
    }

    fn fail(&mut self, status: u16, document: &[u8], out: &mut Output) {
        if self.sequence == 0 {
            // SDKs accept no stream with another beginning.
            self.begin(&self.object.request_id.clone(), out);
        }
        let failure = Failure::of(status, document);
        self.response("failed", &Details::Failed(&failure), out);
    }

    fn next_sequence(&self) -> u64 {
        self.sequence
    }

    fn held(&self, open: usize) -> usize {
        // An item's end repeats its text, and the last event repeats all complete items.
        let complete = open + self.complete.bytes().len();
        open + COPIES * open + 2 * complete + self.custom.text().len() + self.request.held()
    }
}
