//! A streamed chat completion as the events of another API.

use super::blocks::Blocks;
use super::chat;
use super::output::Output;
use super::repeated::Repeated;
use super::unfit::Unfit;
use super::usage::ChatUsage;
use super::writer::Writer;

/// Turns data of chat events into events of another API.
#[derive(Debug)]
pub struct Translator {
    writer: Box<dyn Writer>,
    /// Id of the message: the provider's, else the request's.
    id: String,
    /// An event has arrived.
    is_begun: bool,
    /// The message's start has been sent.
    is_started: bool,
    /// The message comes in deltas, so the complete message that some providers repeat at its end (MiniMax)
    /// is skipped.
    in_deltas: bool,
    repeated: Repeated,
    blocks: Blocks,
    finish: Option<String>,
    usage: Option<ChatUsage>,
    over: bool,
}

impl Translator {
    /// A translator to `writer`; `id` is the request's. At most `limit` bytes of the message are held.
    pub(super) fn new(writer: Box<dyn Writer>, id: &str, limit: usize) -> Self {
        Self {
            blocks: Blocks::new(writer.rules(), limit),
            writer,
            id: id.to_owned(),
            is_begun: false,
            is_started: false,
            in_deltas: false,
            repeated: Repeated::new(),
            finish: None,
            usage: None,
            over: false,
        }
    }

    /// Ends the message with a provider's error: its document and status.
    pub fn fail(&mut self, status: u16, document: &[u8], out: &mut Output) {
        if !std::mem::replace(&mut self.over, true) {
            self.writer.fail(status, document, out);
        }
    }

    /// Whether the message is complete or has failed: nothing more is sent.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Held bytes of the message: calls with incomplete arguments, the blocks after them, and the text that
    /// the API repeats.
    pub fn held(&self) -> usize {
        self.writer.held(self.blocks.held())
    }

    /// The number of the next event, where the API numbers them.
    pub fn next_sequence(&self) -> u64 {
        self.writer.next_sequence()
    }

    /// Whether the provider has given its `finish_reason`.
    pub fn has_finished(&self) -> bool {
        self.finish.as_deref().is_some_and(|reason| !reason.is_empty())
    }

    /// Handles the data of one event; the output is added to `out`.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn take(&mut self, data: &[u8], out: &mut Output) -> Result<(), Unfit> {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            // Some providers never give a reason.
            return self.end(out);
        }
        if let Some((piece, text)) = self.repeated.text_of(data) {
            self.blocks.say(piece, text.as_bytes())?;
            return self.send(out);
        }
        let document = chat::utf8(data)?;
        let mut chat = chat::parse(&document)?;
        self.repeated.learn(&document, &chat);
        if !std::mem::replace(&mut self.is_begun, true) {
            if let Some(id) = chat::id(chat.id) {
                self.id = id.into_owned();
            }
        }
        self.usage = chat.usage().or(self.usage);
        let choice = chat.choices.take().and_then(|choices| choices.0);
        if let Some(choice) = choice.filter(|choice| choice.number() == 0) {
            self.hear(choice)?;
        }
        self.send(out)
    }

    /// Writes what there is to send.
    fn send(&mut self, out: &mut Output) -> Result<(), Unfit> {
        self.start(out);
        self.blocks.send(&mut *self.writer, out)?;
        checked(out)
    }

    /// Handles the end of the provider's stream.
    ///
    /// # Errors
    /// The message is incomplete: it has no reason for its end, or the API has no counterpart of a block.
    pub fn finish(&mut self, out: &mut Output) -> Result<(), Unfit> {
        if !self.over && self.finish.is_none() {
            return Err(Unfit::Broken("no finish_reason"));
        }
        self.end(out)
    }

    fn end(&mut self, out: &mut Output) -> Result<(), Unfit> {
        if self.over {
            return Ok(());
        }
        if !self.is_begun {
            return Err(Unfit::Broken("nothing was said"));
        }
        let word = self.finish.take();
        let finish = self.blocks.finish(word.as_deref())?;
        self.start(out);
        // When the limit or a filter ended the message, a call ends where it was cut: the reason shows that
        // to the client.
        self.blocks.end(finish.is_cut(), &mut *self.writer, out)?;
        self.writer.end(&finish, self.usage, out);
        self.over = true;
        checked(out)
    }

    fn start(&mut self, out: &mut Output) {
        if !std::mem::replace(&mut self.is_started, true) {
            self.writer.begin(&self.id, out);
        }
    }

    /// Handles the new part of the message.
    fn hear(&mut self, choice: chat::Choice<'_>) -> Result<(), Unfit> {
        self.in_deltas |= choice.delta.is_some();
        let whole = choice.message.filter(|_| !self.in_deltas);
        let is_whole = whole.is_some();
        if let Some(mut said) = choice.delta.or(whole) {
            said.pieces(|piece, text| self.blocks.say(piece, text))?;
            self.blocks.annotate(&said)?;
            for call in said.calls()? {
                if is_whole {
                    self.blocks.call(&call, &self.id)?;
                } else {
                    self.blocks.piece_of_call(&call, &self.id)?;
                }
            }
        }
        // An empty word means nothing, and does not replace an earlier one.
        if let Some(word) = chat::word(choice.finish_reason) {
            self.finish = Some(word.into_owned());
        }
        Ok(())
    }
}

fn checked(out: &Output) -> Result<(), Unfit> {
    if out.is_over() { Err(Unfit::TooLarge) } else { Ok(()) }
}
