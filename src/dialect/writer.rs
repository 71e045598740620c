//! The output of a message in one API.

use std::fmt::Debug;

use super::block::Block;
use super::finish::Finish;
use super::output::Output;
use super::unfit::Unfit;
use super::usage::ChatUsage;

/// Requirements of an API for the blocks of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// A refusal is a block of its own instead of text.
    pub(super) has_refusals: bool,
    /// Text has annotations.
    pub(super) has_annotations: bool,
    /// Sent text is needed again.
    pub(super) keeps_text: bool,
}

/// Writes the events of a message: its beginning; the start, deltas and end of each block in turn; and its
/// end.
pub(super) trait Writer: Debug + Send {
    fn rules(&self) -> Rules;

    /// The message begins; `id` is the provider's, else the request's.
    fn begin(&mut self, id: &str, out: &mut Output);

    fn open(&mut self, index: usize, block: &Block, out: &mut Output);

    /// `new` is the new part of the block's text.
    fn delta(&mut self, index: usize, block: &Block, new: &str, out: &mut Output);

    /// The block has another annotation, its `at`th.
    fn annotate(&mut self, _index: usize, _block: &Block, _at: usize, _out: &mut Output) {}

    /// The block ends; `may_lack`: the message reached its limit there.
    ///
    /// # Errors
    /// The API has no counterpart of the block.
    fn close(&mut self, index: usize, block: &Block, may_lack: bool, out: &mut Output) -> Result<(), Unfit>;

    fn end(&mut self, finish: &Finish<'_>, usage: Option<ChatUsage>, out: &mut Output);

    /// The provider's stream has an error: its document and status. No event follows.
    fn fail(&mut self, status: u16, document: &[u8], out: &mut Output);

    /// The number of the next event, where the API numbers them.
    fn next_sequence(&self) -> u64 {
        0
    }

    /// Bytes that are held: by the writer, as the blocks' `open` bytes of text, and for the repetition at the
    /// end.
    fn held(&self, open: usize) -> usize;
}
