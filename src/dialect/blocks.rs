//! The blocks of a message while it comes: they follow one another, where chat mixes text and parallel tool calls as it
//! likes. The block in front leaves as it comes, what belongs after it is held until it is complete.

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

/// The blocks that have not left, in order.
#[derive(Debug)]
pub(super) struct Blocks {
    rules: Rules,
    queue: VecDeque<Block>,
    /// The number of the first of them.
    first: usize,
    /// Tool calls so far.
    calls: usize,
    /// The number of the last call with that id, and of that index.
    by_id: HashMap<String, usize>,
    by_index: HashMap<u64, usize>,
    last_call: Option<usize>,
    refused: bool,
    /// Bytes of text in the queue, of at most so many.
    held: usize,
    limit: usize,
}

impl Blocks {
    /// No blocks, of which at most `limit` bytes are held.
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

    /// Bytes of the text that is held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// What the provider's word for the end means after them.
    ///
    /// # Errors
    /// The provider gave up.
    pub(super) fn finish<'a>(&self, word: Option<&'a str>) -> Result<Finish<'a>, Unfit> {
        Finish::of(word, self.calls > 0, self.refused)
    }

    /// Adds text to the last block, or to a new one where that is of another kind.
    ///
    /// # Errors
    /// It is too much.
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

    /// Adds annotations to the last text that is held. Those of a text that has left are lost, and those above [`MAX_ANNOTATIONS`].
    ///
    /// # Errors
    /// They are too much.
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

    /// Adds to the call this is a piece of, or begins one.
    ///
    /// # Errors
    /// It is a piece of no call, or too much.
    pub(super) fn piece_of_call(&mut self, piece: &ToolCall<'_>, message: &str) -> Result<(), Unfit> {
        let function = piece.function.as_ref();
        let arguments = function.map(chat::Function::arguments).unwrap_or_default();
        let given = chat::word(piece.id);
        let name = chat::word(function.and_then(|function| function.name)).unwrap_or_default();
        let Some(at) = self.known(piece.number(), given.as_deref(), &name) else {
            // White space after arguments that are complete already.
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
    /// It has no name, or is too much.
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

    /// Where in the queue the call stands that a piece belongs to. An id tells a new one, also where its index is an old
    /// one's; but some providers give each piece an id of its own.
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
            // Nothing but a name after a call that is complete tells the next one.
            (None, None) => !tool.is_closed(),
            (_, Some(_)) => block.is_amid() && name == tool.name,
        };
        is_piece.then_some(at)
    }

    /// Counts what is about to be held.
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

    /// Sends what can be sent: of the first block all there is, and of the next where the first is complete.
    ///
    /// # Errors
    /// As [`Writer::close`].
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
    /// As [`Writer::close`].
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

    /// All of them, complete.
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

/// Sends what is new of a block; tells how many bytes are forgotten.
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

/// Bytes of the events of a block around its text.
const EVENTS_ROOM: usize = 384;

/// The id of a call whose provider gives none that can be used: a client sends it back with the result.
fn made_id(message: &str, at: usize) -> String {
    /// Room for the words and the number around it.
    const ROOM: usize = 32;
    format!("call_{}_{at}", beginning(message, MAX_ID - ROOM))
}
