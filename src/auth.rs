//! Client tokens: the caller of a request, and the caller's limits.

pub mod quota;

pub use quota::{Permit, Quotas};

use crate::config::Config;
use crate::core::credential;
pub use crate::core::credential::{Denial, is_presented};
use crate::front::{Head, Peer};

/// Header fields that a reverse proxy adds, besides those that begin with `x-forwarded-`.
const SIGNS_OF_A_PROXY: &[&str] = &["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];

/// The caller's token, as its index in `config.tokens`.
///
/// # Errors
/// [`Denial`].
pub fn identify(config: &Config, head: &Head) -> Result<usize, Denial> {
    credential::identify(config.tokens.iter().map(|token| &token.token), head)
}

/// Admits an administrator: a caller on this machine that no proxy forwards, or a caller with a valid token.
/// A page of another site in a browser on this machine is no administrator.
///
/// # Errors
/// [`Denial`]; a repeated token is refused on this machine as well.
pub fn admit_admin(config: &Config, head: &Head, peer: Peer) -> Result<(), Denial> {
    let is_operator = peer.is_local() && !is_proxied(head) && !is_foreign(head);
    match identify(config, head) {
        Ok(_) => Ok(()),
        Err(Denial::Missing | Denial::Invalid) if is_operator => Ok(()),
        Err(denial) => Err(denial),
    }
}

/// Whether a proxy forwarded the request.
fn is_proxied(head: &Head) -> bool {
    let start = "x-forwarded-";
    head.fields().any(|(name, _)| {
        SIGNS_OF_A_PROXY.iter().any(|sign| sign.eq_ignore_ascii_case(name))
            || name.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
    })
}

/// Whether a page of another origin made the request (Fetch standard, section 3.1).
fn is_foreign(head: &Head) -> bool {
    let Some(origin) = head.field("origin") else { return false };
    let own = head.field("host").unwrap_or_default();
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(own))
}
