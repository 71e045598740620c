//! What an API makes of a message.

use std::fmt::Debug;

use super::block::Block;
use super::finish::Finish;
use super::output::Output;
use super::unfit::Unfit;
use super::usage::ChatUsage;

/// What an API asks of the blocks of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// A refusal is a block of its own, and no text.
    pub(super) has_refusals: bool,
    /// Text has annotations.
    pub(super) has_annotations: bool,
    /// Text that was sent is needed again.
    pub(super) keeps_text: bool,
}

/// Writes the events of a message: its beginning, of each block in turn the opening, what is new and the end, and its end.
pub(super) trait Writer: Debug + Send {
    fn rules(&self) -> Rules;

    /// The message begins; `id` is the provider's for it, else the request's.
    fn begin(&mut self, id: &str, out: &mut Output);

    fn open(&mut self, index: usize, block: &Block, out: &mut Output);

    /// `new` is what is new of the block's text.
    fn delta(&mut self, index: usize, block: &Block, new: &str, out: &mut Output);

    /// The block has another annotation, its `at`th.
    fn annotate(&mut self, _index: usize, _block: &Block, _at: usize, _out: &mut Output) {}

    /// The block ends; `may_lack`: the message met its limit there.
    ///
    /// # Errors
    /// The API cannot carry the block.
    fn close(&mut self, index: usize, block: &Block, may_lack: bool, out: &mut Output) -> Result<(), Unfit>;

    fn end(&mut self, finish: &Finish<'_>, usage: Option<ChatUsage>, out: &mut Output);

    /// The provider's stream holds an error: its document, and the status that goes with it. Nothing follows.
    fn fail(&mut self, status: u16, document: &[u8], out: &mut Output);

    /// The number of the next event, where the API numbers them.
    fn next_sequence(&self) -> u64 {
        0
    }

    /// Bytes that are held, by it and as the blocks' `open` bytes of text, and those that it is going to repeat at once.
    fn held(&self, open: usize) -> usize;
}
