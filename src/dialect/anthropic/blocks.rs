//! The blocks of a message while it comes: they follow one another, where chat mixes text and parallel tool calls as it
//! likes. The block in front leaves as it comes, what belongs after it is held until it is complete.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::block::{Block, Kind, is_object};
use super::event::Event;
use crate::dialect::chat::{self, TOO_MANY_CALLS, ToolCall};
use crate::dialect::output::Output;
use crate::dialect::pieces::Piece;
use crate::dialect::unfit::Unfit;
use crate::limits::{MAX_ID, MAX_RESPONSE_BLOCKS, MAX_TOOL_CALLS};
use crate::text::beginning;

/// The blocks that have not left, in order.
#[derive(Debug)]
pub(super) struct Blocks {
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
    pub(super) fn new(limit: usize) -> Self {
        Self {
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

    /// Whether there was a tool call.
    pub(super) fn has_calls(&self) -> bool {
        self.calls > 0
    }

    /// Bytes of the text that is held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether the model has refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
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
        let is_thought = piece == Piece::Thought;
        let same = |block: &&mut Block| match block.kind {
            Kind::Thinking => is_thought,
            Kind::Text => !is_thought,
            Kind::Tool(_) => false,
        };
        match self.queue.back_mut().filter(same) {
            Some(block) => block.text.push(text),
            None => {
                let mut block = Block::of_text(is_thought);
                block.text.push(text);
                self.begin(block)?;
            }
        }
        Ok(())
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
    /// A call's arguments are no JSON object.
    pub(super) fn send(&mut self, out: &mut Output) -> Result<(), Unfit> {
        while let Some(block) = self.queue.front_mut() {
            self.held = self.held.saturating_sub(block.send(self.first, false, out));
            if self.queue.len() == 1 || !self.queue[0].is_complete() {
                return Ok(());
            }
            self.close(false, out)?;
        }
        Ok(())
    }

    /// Sends all of them; `cut`: the last call may be incomplete.
    ///
    /// # Errors
    /// A call's arguments are no JSON object.
    pub(super) fn end(&mut self, cut: bool, out: &mut Output) -> Result<(), Unfit> {
        out.reserve(self.queue.iter().map(|block| EVENTS_ROOM + block.unsent()).sum());
        while !self.queue.is_empty() {
            self.close(cut, out)?;
        }
        Ok(())
    }

    /// Ends the first block.
    fn close(&mut self, cut: bool, out: &mut Output) -> Result<(), Unfit> {
        let Some(mut block) = self.queue.pop_front() else { return Ok(()) };
        block.text.end();
        let name = block.call().map_or(0, |tool| tool.name.len());
        let forgotten = block.send(self.first, true, out) + block.text.text().len() + name;
        self.held = self.held.saturating_sub(forgotten);
        if block.call().is_some() && !cut && !is_object(block.text.text()) {
            return Err(Unfit::Malformed("a tool call's arguments are no JSON object"));
        }
        Event::ContentBlockStop { index: self.first }.write(out);
        self.first += 1;
        Ok(())
    }

    /// Writes all of them as the content of a message; `cut`: the last call may be incomplete, and is left out then.
    ///
    /// # Errors
    /// A call's arguments are no JSON object.
    pub(super) fn write(mut self, cut: bool, out: &mut Output) -> Result<(), Unfit> {
        let count = self.queue.len();
        for (at, block) in self.queue.iter_mut().enumerate() {
            block.text.end();
            let text = block.text.text();
            let is_call = block.call().is_some();
            if is_call && !is_object(text) {
                if cut && at + 1 == count {
                    break;
                }
                return Err(Unfit::Malformed("a tool call's arguments are no JSON object"));
            }
            if at > 0 {
                out.write(&[","]);
            }
            block.write(out);
        }
        Ok(())
    }
}

/// Bytes of the events of a block around its text.
const EVENTS_ROOM: usize = 384;

/// The id of a call whose provider gives none that can be used: a client sends it back with the result.
fn made_id(message: &str, at: usize) -> String {
    /// Room for the words and the number around it.
    const ROOM: usize = 32;
    format!("call_{}_{at}", beginning(message, MAX_ID - ROOM))
}
