//! Client tokens: who calls, and how much they may.

pub mod quota;

pub use quota::{Permit, Quotas};

use crate::config::Config;
use crate::core::credential;
pub use crate::core::credential::{Denial, is_presented};
use crate::front::{Head, Peer};

/// Header fields that a proxy in front adds (those that begin with `x-forwarded-` aside).
const SIGNS_OF_A_PROXY: &[&str] = &["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];

/// The caller's token: its place in `config.tokens`.
///
/// # Errors
/// [`Denial`].
pub fn identify(config: &Config, head: &Head) -> Result<usize, Denial> {
    credential::identify(config.tokens.iter().map(|token| &token.token), head)
}

/// Lets in who may administrate: a caller on this machine and not through a proxy, or one with any valid token. A browser on
/// this machine that another site's page has sent here is not the operator.
///
/// # Errors
/// [`Denial`]; a token that came twice is refused on this machine as well.
pub fn admit_admin(config: &Config, head: &Head, peer: Peer) -> Result<(), Denial> {
    let is_operator = peer.is_local() && !is_proxied(head) && !is_foreign(head);
    match identify(config, head) {
        Ok(_) => Ok(()),
        Err(Denial::Missing | Denial::Invalid) if is_operator => Ok(()),
        Err(denial) => Err(denial),
    }
}

/// Whether a proxy passed the request on.
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
