//! A chat completion as a response, and a streamed one as the events of one.

use std::sync::Arc;

use super::context::Translation;
use super::events::Events;
use super::object::Object;
use crate::dialect::completion::Completion;
use crate::dialect::output::Output;
use crate::dialect::stream::Translator;
use crate::dialect::unfit::Unfit;
use crate::dialect::writer::Writer;

/// Facts of the request for its response, besides the translated ones.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The model that the client asked for.
    pub model: &'a str,
    /// The request's id, used if the provider gives none.
    pub id: &'a str,
    /// Time of the request, Unix time in seconds.
    pub at: u64,
}

impl Asked<'_> {
    fn object(&self) -> Object {
        Object::new(self.model, self.id, self.at)
    }
}

/// Turns a streamed chat completion into the events of a response; at most `limit` bytes of it are held.
pub fn translator(request: &Arc<Translation>, asked: Asked<'_>, limit: usize) -> Translator {
    let items = Events::new(Arc::clone(request), asked.object(), limit, true);
    Translator::new(Box::new(items), asked.id, limit)
}

/// A buffered chat completion as a response of at most `limit` bytes.
///
/// # Errors
/// [`Unfit`].
pub fn response(
    body: &[u8],
    request: &Arc<Translation>,
    asked: Asked<'_>,
    limit: usize,
) -> Result<Vec<u8>, Unfit> {
    let mut items = Events::new(Arc::clone(request), asked.object(), limit, false);
    let Completion { id, mut blocks, finish, usage } = Completion::of(body, asked.id, items.rules(), limit)?;
    let finish = blocks.finish(finish.as_deref())?;
    let mut out = Output::new(limit);
    items.begin(&id, &mut out);
    blocks.end(finish.is_cut(), &mut items, &mut out)?;
    items.end(&finish, usage, &mut out);
    Ok(out.into_bytes()?)
}
