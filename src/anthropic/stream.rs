//! A streamed chat completion as the events of the Messages API. Its blocks follow one another, each with a start and an
//! end, where chat mixes text and parallel tool calls as it likes: the block in front goes out as it comes, what belongs behind
//! it is held until it is complete.

use std::collections::{BTreeMap, VecDeque};

use super::answer::{self, ChatUsage, ToolCall, Unfit, Usage};
use super::event::{Beginning, Delta, Event, Start, Stop};

/// Turns data of chat events into events of the Messages API.
#[derive(Debug)]
pub struct Translator {
    model: String,
    /// The message's: the provider's id, where it gives none the request's.
    id: String,
    started: bool,
    /// It comes in deltas: what some providers say whole at its end (MiniMax) has been said.
    in_deltas: bool,
    /// Blocks that are not complete, in order; the first is the client's.
    blocks: VecDeque<Block>,
    /// The number of the first of them.
    first: usize,
    /// Tool calls so far.
    calls: usize,
    refused: bool,
    finish: Option<String>,
    usage: Option<ChatUsage>,
    over: bool,
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    /// Its start was sent.
    open: bool,
    /// Text: what was not sent yet. Arguments: all of them.
    text: String,
    /// So much of it was sent.
    sent: usize,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thinking,
    Tool { index: Option<u64>, id: String, name: String, braces: Braces },
}

/// Follows the arguments of a call to the brace that closes them.
#[derive(Debug, Default)]
struct Braces {
    depth: u32,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Braces {
    fn follow(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    self.closed |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

impl Translator {
    /// For a client that asked for `model`; `id` is the request's.
    pub fn new(model: &str, id: &str) -> Self {
        Self {
            model: model.to_owned(),
            id: id.to_owned(),
            started: false,
            in_deltas: false,
            blocks: VecDeque::new(),
            first: 0,
            calls: 0,
            refused: false,
            finish: None,
            usage: None,
            over: false,
        }
    }

    /// An error was sent: nothing follows it.
    pub fn stop(&mut self) {
        self.over = true;
    }

    /// Whether the message is complete, or its error told: nothing more is sent.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the provider has said why its answer ended.
    pub fn has_finished(&self) -> bool {
        self.finish.as_deref().is_some_and(|reason| !reason.is_empty())
    }

    /// Tokens of the prompt and of the completion, where the provider has told them.
    pub fn tokens(&self) -> Option<(u64, u64)> {
        self.usage.map(ChatUsage::tokens)
    }

    /// Takes the data of one event; what is to be sent is added to `out`.
    ///
    /// # Errors
    /// It is no event of a chat completion.
    pub fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
        if self.over || data.trim_ascii().is_empty() {
            return Ok(());
        }
        if data.trim_ascii() == b"[DONE]" {
            // Some providers leave the reason empty in every event.
            if self.finish.as_deref() == Some("") {
                self.finish = Some("stop".to_owned());
            }
            return self.finish(out);
        }
        let chat = answer::parse(data)?;
        if !self.started {
            if let Some(id) = chat.id.filter(|id| !id.is_empty()) {
                self.id = id;
            }
            self.start(out);
        }
        self.usage = chat.usage.or(self.usage);
        for choice in chat.choices.into_iter().flatten().filter(|choice| choice.index.unwrap_or(0) == 0) {
            self.in_deltas |= choice.delta.is_some();
            if let Some(said) = choice.delta.or(choice.message.filter(|_| !self.in_deltas)) {
                if let Some(thought) = said.thought() {
                    self.say(thought, || Kind::Thinking, |kind| matches!(kind, Kind::Thinking));
                }
                let text = said.text()?;
                self.refused |= said.refusal.is_some();
                for text in [text, said.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
                    self.say(&text, || Kind::Text, |kind| matches!(kind, Kind::Text));
                }
                for call in said.tool_calls.into_iter().flatten() {
                    self.call(&call)?;
                }
            }
            // An empty one says nothing, and takes back nothing.
            let told = choice.finish_reason.filter(|told| !told.is_empty() || self.finish.is_none());
            self.finish = told.or(self.finish.take());
        }
        self.send(out)
    }

    /// The provider's stream is over.
    ///
    /// # Errors
    /// The message is not: nothing says why it stopped, or a call's arguments are no JSON.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unfit> {
        if self.over {
            return Ok(());
        }
        let Some(finish) = self.finish.take().filter(|told| !told.is_empty()) else {
            return Err(Unfit::Malformed("no finish_reason"));
        };
        let stop_reason = answer::stop_reason(Some(&finish), self.calls > 0, self.refused)?;
        // Where the limit was met, a call ends where it was cut: the client knows by the reason.
        let cut = stop_reason == "max_tokens";
        while !self.blocks.is_empty() {
            self.open(out);
            self.close(out, cut)?;
        }
        let usage = Usage::from(self.usage.unwrap_or_default());
        Event::MessageDelta { delta: Stop::new(stop_reason), usage }.write(out);
        Event::MessageStop.write(out);
        self.over = true;
        Ok(())
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        self.started = true;
        // What the prompt took is known at the end; the last event but one tells it.
        let usage = Usage::from(ChatUsage::default());
        let message = Beginning::new(&self.id, &self.model, usage);
        Event::MessageStart { message }.write(out);
    }

    /// Adds text to the last block, or to a new one where that is of another kind.
    fn say(&mut self, text: &str, new: impl Fn() -> Kind, same: impl Fn(&Kind) -> bool) {
        match self.blocks.back_mut().filter(|block| same(&block.kind)) {
            Some(block) => block.text.push_str(text),
            None => self.blocks.push_back(Block::new(new(), text)),
        }
    }

    /// Adds to the call this is a piece of, or begins one: an id tells a new one, also where its index is an old one's.
    fn call(&mut self, piece: &ToolCall<'_>) -> Result<(), Unfit> {
        let function = piece.function.as_ref();
        let arguments = function.map(answer::Function::arguments).transpose()?.unwrap_or_default();
        let given = piece.id.as_deref().filter(|id| !id.is_empty());
        let name = function.and_then(|function| function.name.as_deref()).unwrap_or_default();
        let same = |block: &&mut Block| match (&block.kind, piece.index, given) {
            (Kind::Text | Kind::Thinking, ..) => false,
            // Nothing but a name behind a call that is complete tells the next one.
            (Kind::Tool { braces, .. }, None, None) => name.is_empty() || !braces.closed,
            (Kind::Tool { index, id, .. }, at, given) => {
                (at.is_none() || *index == at) && given.is_none_or(|given| given == id)
            }
        };
        if let Some(block) = self.blocks.iter_mut().rev().find(same) {
            block.add_arguments(&arguments);
            return Ok(());
        }
        if name.is_empty() {
            // White space behind arguments that are complete already.
            let nothing = arguments.trim().is_empty();
            return if nothing { Ok(()) } else { Err(Unfit::Malformed("arguments of no tool call")) };
        }
        let id = answer::call_id(given, &self.id, self.calls).into_owned();
        self.calls += 1;
        let kind = Kind::Tool { index: piece.index, id, name: name.to_owned(), braces: Braces::default() };
        let mut block = Block::new(kind, "");
        block.add_arguments(&arguments);
        self.blocks.push_back(block);
        Ok(())
    }

    /// Sends what can be sent: of the first block all there is, and of the next where the first is complete.
    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Unfit> {
        while !self.blocks.is_empty() {
            self.open(out);
            let complete = self.blocks.len() > 1 && self.blocks[0].is_complete();
            if !complete {
                return Ok(());
            }
            self.close(out, false)?;
        }
        Ok(())
    }

    /// Sends of the first block what is there and not sent yet.
    fn open(&mut self, out: &mut Vec<u8>) {
        let index = self.first;
        let Some(block) = self.blocks.front_mut() else { return };
        if !std::mem::replace(&mut block.open, true) {
            Event::ContentBlockStart { index, content_block: block.start() }.write(out);
        }
        if let Some(delta) = block.delta() {
            Event::ContentBlockDelta { index, delta }.write(out);
            block.sent();
        }
    }

    /// Ends the first block; `cut`: its arguments may be incomplete.
    fn close(&mut self, out: &mut Vec<u8>, cut: bool) -> Result<(), Unfit> {
        let Some(block) = self.blocks.pop_front() else { return Ok(()) };
        if matches!(block.kind, Kind::Tool { .. }) && !cut && answer::object(&block.text).is_none() {
            return Err(Unfit::Malformed("a tool call's arguments are no JSON object"));
        }
        Event::ContentBlockStop { index: self.first }.write(out);
        self.first += 1;
        Ok(())
    }
}

impl Block {
    fn new(kind: Kind, text: &str) -> Self {
        Self { kind, open: false, text: text.to_owned(), sent: 0 }
    }

    fn add_arguments(&mut self, more: &str) {
        if let Kind::Tool { braces, .. } = &mut self.kind {
            braces.follow(more);
        }
        self.text.push_str(more);
    }

    /// Whether nothing more of it can come, once another has begun.
    fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Text | Kind::Thinking => true,
            Kind::Tool { braces, .. } => braces.closed,
        }
    }

    fn start(&self) -> Start<'_> {
        match &self.kind {
            Kind::Text => Start::Text { text: "" },
            Kind::Thinking => Start::Thinking { thinking: "", signature: "" },
            Kind::Tool { id, name, .. } => Start::ToolUse { id, name, input: BTreeMap::new() },
        }
    }

    fn delta(&self) -> Option<Delta<'_>> {
        let new = &self.text[self.sent..];
        match &self.kind {
            _ if new.is_empty() => None,
            Kind::Text => Some(Delta::Text { text: new }),
            Kind::Thinking => Some(Delta::Thinking { thinking: new }),
            Kind::Tool { .. } => Some(Delta::InputJson { partial_json: new }),
        }
    }

    /// All of it was sent; arguments are kept, to be looked at whole.
    fn sent(&mut self) {
        match &self.kind {
            Kind::Text | Kind::Thinking => self.text.clear(),
            Kind::Tool { .. } => self.sent = self.text.len(),
        }
    }
}
