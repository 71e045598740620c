//! The blocks of a message in progress. They follow one another, while chat may mix text and parallel tool
//! calls. The first block is sent as it arrives; later ones are held until it is complete.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::block::{Block, Kind};
use super::chat::{self, Said, TOO_MANY_CALLS, ToolCall};
use super::finish::Finish;
use super::output::Output;
use super::pieces::Piece;
use super::unfit::Unfit;
use super::writer::{Rules, Writer};
use crate::limits::{MAX_ANNOTATIONS, MAX_ID, MAX_RESPONSE_BLOCKS, MAX_TOOL_CALLS};
use crate::text::beginning;

/// The blocks not sent completely, in order.
#[derive(Debug)]
pub(super) struct Blocks {
    rules: Rules,
    queue: VecDeque<Block>,
    /// Index of the first of them.
    first: usize,
    /// Tool calls so far.
    calls: usize,
    /// Index of the last call with that id, and with that index in chat.
    by_id: HashMap<String, usize>,
    by_index: HashMap<u64, usize>,
    last_call: Option<usize>,
    refused: bool,
    /// Bytes of held text, and their limit.
    held: usize,
    limit: usize,
}

impl Blocks {
    /// No blocks; at most `limit` bytes are held.
    pub(super) fn new(rules: Rules, limit: usize) -> Self {
        Self {
            rules,
            queue: VecDeque::new(),
            first: 0,
            calls: 0,
            by_id: HashMap::new(),
            by_index: HashMap::new(),
            last_call: None,
            refused: false,
            held: 0,
            limit,
        }
    }

    /// Bytes of held text.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// The meaning of the provider's `finish_reason` after these blocks.
    ///
    /// # Errors
    /// The provider stopped early.
    pub(super) fn finish<'a>(&self, word: Option<&'a str>) -> Result<Finish<'a>, Unfit> {
        Finish::of(word, self.calls > 0, self.refused)
    }

    /// Adds text to the last block, or to a new one if that is of another kind.
    ///
    /// # Errors
    /// The text exceeds the limit.
    pub(super) fn say(&mut self, piece: Piece, text: &[u8]) -> Result<(), Unfit> {
        if text.is_empty() {
            return Ok(());
        }
        self.refused |= piece == Piece::Refusal;
        self.hold(text.len())?;
        let kind = match piece {
            Piece::Thought => Kind::Thinking,
            Piece::Refusal if self.rules.has_refusals => Kind::Refusal,
            Piece::Text | Piece::Refusal => Kind::Text,
        };
        let is_same =
            |block: &&mut Block| std::mem::discriminant(&block.kind) == std::mem::discriminant(&kind);
        match self.queue.back_mut().filter(is_same) {
            Some(block) => block.text.push(text),
            None => {
                let mut block = Block::new(kind);
                block.text.push(text);
                self.begin(block)?;
            }
        }
        Ok(())
    }

    /// Adds annotations to the last held text. They are dropped if the text has been sent, and above
    /// [`MAX_ANNOTATIONS`].
    ///
    /// # Errors
    /// They exceed the limit.
    pub(super) fn annotate(&mut self, said: &Said<'_>) -> Result<(), Unfit> {
        if !self.rules.has_annotations || said.annotations.is_none() {
            return Ok(());
        }
        let last = self.queue.iter_mut().rev().find(|block| matches!(block.kind, Kind::Text));
        let Some(block) = last else { return Ok(()) };
        let before = block.annotations.len();
        said.each_annotation(MAX_ANNOTATIONS - before, |annotation| block.annotations.push(annotation));
        let size = block.annotations[before..].iter().map(String::len).sum();
        self.hold(size)
    }

    /// Adds a piece to its call, or begins a call.
    ///
    /// # Errors
    /// The piece belongs to no call, or exceeds the limit.
    pub(super) fn piece_of_call(&mut self, piece: &ToolCall<'_>, message: &str) -> Result<(), Unfit> {
        let function = piece.function.as_ref();
        let arguments = function.map(chat::Function::arguments).unwrap_or_default();
        let given = chat::word(piece.id);
        let name = chat::word(function.and_then(|function| function.name)).unwrap_or_default();
        let Some(at) = self.known(piece.number(), given.as_deref(), &name) else {
            // White space after complete arguments.
            let nothing = name.is_empty() && arguments.trim_ascii().is_empty();
            return if nothing { Ok(()) } else { self.begin_call(piece, &arguments, message) };
        };
        self.hold(arguments.len())?;
        self.held = self.held.saturating_sub(self.queue[at].add_arguments(&arguments));
        Ok(())
    }

    /// Begins a call.
    ///
    /// # Errors
    /// It has no name, or exceeds the limit.
    pub(super) fn call(&mut self, call: &ToolCall<'_>, message: &str) -> Result<(), Unfit> {
        let arguments = call.function.as_ref().map(chat::Function::arguments).unwrap_or_default();
        self.begin_call(call, &arguments, message)
    }

    fn begin_call(&mut self, call: &ToolCall<'_>, arguments: &[u8], message: &str) -> Result<(), Unfit> {
        let function = call.function.as_ref().ok_or(Unfit::Malformed("a tool call without its function"))?;
        let name =
            chat::word(function.name).ok_or(Unfit::Malformed("a tool call without a name"))?.into_owned();
        if self.calls == MAX_TOOL_CALLS {
            return Err(TOO_MANY_CALLS);
        }
        let given = chat::word(call.id).filter(|id| id.len() <= MAX_ID);
        let id = given.map_or_else(|| made_id(message, self.calls), Cow::into_owned);
        let index = call.number();
        let number = self.first + self.queue.len();
        self.calls += 1;
        self.last_call = Some(number);
        self.by_id.insert(id.clone(), number);
        self.by_index.extend(index.map(|index| (index, number)));
        self.hold(name.len() + arguments.len())?;
        let mut block = Block::of_call(index, id, name);
        block.add_arguments(arguments);
        self.begin(block)
    }

    /// Position in the queue of the call that a piece belongs to. A new id begins a new call even with an
    /// earlier index; but some providers give each piece an id of its own.
    fn known(&self, index: Option<u64>, given: Option<&str>, name: &str) -> Option<usize> {
        let queued = |number: &usize| {
            let at = number.checked_sub(self.first)?;
            let block = self.queue.get(at)?;
            Some((at, block, block.call()?))
        };
        let by_id = given.and_then(|id| self.by_id.get(id)).and_then(queued);
        if let Some((at, ..)) = by_id.filter(|(_, _, tool)| index.is_none() || tool.index == index) {
            return Some(at);
        }
        let last = match index {
            Some(index) => self.by_index.get(&index),
            None => self.last_call.as_ref(),
        };
        let (at, block, tool) = last.and_then(queued)?;
        let is_piece = match (index, given) {
            _ if name.is_empty() => true,
            (Some(_), None) => true,
            // After a complete call only a name begins the next one.
            (None, None) => !tool.is_closed(),
            (_, Some(_)) => block.is_amid() && name == tool.name,
        };
        is_piece.then_some(at)
    }

    /// Counts bytes before they are held.
    fn hold(&mut self, size: usize) -> Result<(), Unfit> {
        self.held += size;
        if self.held > self.limit { Err(Unfit::TooLarge) } else { Ok(()) }
    }

    fn begin(&mut self, block: Block) -> Result<(), Unfit> {
        if self.first + self.queue.len() == MAX_RESPONSE_BLOCKS {
            return Err(Unfit::Malformed("too many content blocks"));
        }
        if let Some(last) = self.queue.back_mut() {
            last.text.end();
        }
        self.queue.push_back(block);
        Ok(())
    }

    /// Sends as much as possible: of the first block everything, and of the next once the first is complete.
    ///
    /// # Errors
    /// As for [`Writer::close`].
    pub(super) fn send(&mut self, writer: &mut dyn Writer, out: &mut Output) -> Result<(), Unfit> {
        while let Some(first) = self.queue.front_mut() {
            self.held = self.held.saturating_sub(send(first, self.first, false, writer, out));
            if self.queue.len() == 1 || !self.queue[0].is_complete() {
                return Ok(());
            }
            self.close(false, writer, out)?;
        }
        Ok(())
    }

    /// Sends all of them; `is_cut`: the last text and calls may be incomplete.
    ///
    /// # Errors
    /// As for [`Writer::close`].
    pub(super) fn end(
        &mut self,
        is_cut: bool,
        writer: &mut dyn Writer,
        out: &mut Output,
    ) -> Result<(), Unfit> {
        out.reserve(self.queue.iter().map(|block| EVENTS_ROOM + block.unsent()).sum());
        while !self.queue.is_empty() {
            self.close(is_cut, writer, out)?;
        }
        Ok(())
    }

    /// All complete blocks.
    pub(super) fn into_complete(mut self) -> impl ExactSizeIterator<Item = Block> {
        for block in &mut self.queue {
            block.text.end();
        }
        self.queue.into_iter()
    }

    /// Ends the first block.
    fn close(&mut self, is_cut: bool, writer: &mut dyn Writer, out: &mut Output) -> Result<(), Unfit> {
        let Some(mut block) = self.queue.pop_front() else { return Ok(()) };
        block.text.end();
        let forgotten = send(&mut block, self.first, true, writer, out);
        let names = block.call().map_or(0, |tool| tool.name.len());
        let names = block.annotations.iter().map(String::len).sum::<usize>() + names;
        self.held = self.held.saturating_sub(forgotten + block.text.text().len() + names);
        let may_lack = is_cut && (block.call().is_some() || self.queue.is_empty());
        writer.close(self.first, &block, may_lack, out)?;
        self.first += 1;
        Ok(())
    }
}

/// Sends the new part of a block. Returns how many bytes are dropped.
fn send(block: &mut Block, index: usize, last: bool, writer: &mut dyn Writer, out: &mut Output) -> usize {
    if block.open() {
        writer.open(index, block, out);
    }
    let new = block.new_text(last);
    let is_new = !new.is_empty();
    if is_new {
        writer.delta(index, block, new, out);
    }
    for at in block.annotated..block.annotations.len() {
        writer.annotate(index, block, at, out);
    }
    block.annotated = block.annotations.len();
    if !is_new {
        return 0;
    }
    if block.call().is_some() || writer.rules().keeps_text {
        block.keep();
        return 0;
    }
    block.forget()
}

/// Bytes of a block's events besides its text.
const EVENTS_ROOM: usize = 384;

/// An id for a call whose provider gives no usable one: a client sends it back with the result.
fn made_id(message: &str, at: usize) -> String {
    /// Room for the fixed text and the number around it.
    const ROOM: usize = 32;
    format!("call_{}_{at}", beginning(message, MAX_ID - ROOM))
}
