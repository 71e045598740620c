//! A buffered chat completion.

use super::blocks::Blocks;
use super::chat;
use super::unfit::Unfit;
use super::usage::ChatUsage;
use super::writer::Rules;

/// The relevant parts of a chat completion.
pub(super) struct Completion {
    /// The provider's, else the request's.
    pub(super) id: String,
    pub(super) blocks: Blocks,
    /// The provider's `finish_reason`.
    pub(super) finish: Option<String>,
    pub(super) usage: Option<ChatUsage>,
}

impl Completion {
    /// Reads one; `id` is the request's. At most `limit` bytes are held.
    ///
    /// # Errors
    /// [`Unfit`].
    pub(super) fn of(body: &[u8], id: &str, rules: Rules, limit: usize) -> Result<Self, Unfit> {
        let document = chat::utf8(body)?;
        let mut chat = chat::parse(&document)?;
        let choice =
            chat.choices.take().and_then(|choices| choices.0).ok_or(Unfit::Malformed("no choices"))?;
        let mut said = choice.message.ok_or(Unfit::Malformed("no message"))?;
        let id = chat::id(chat.id).unwrap_or(id.into()).into_owned();
        let mut blocks = Blocks::new(rules, limit);
        said.pieces(|piece, text| blocks.say(piece, text))?;
        blocks.annotate(&said)?;
        for call in said.calls()? {
            blocks.call(&call, &id)?;
        }
        let finish = chat::word(choice.finish_reason).map(std::borrow::Cow::into_owned);
        Ok(Self { id, blocks, finish, usage: chat.usage() })
    }
}
