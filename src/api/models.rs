//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde::Serialize;

use super::{ApiError, Ticket, json_answer, refuse};
use crate::catalog;
use crate::front::{Answer, Request};
use crate::gateway::Gateway;
use crate::limits::{CHECK_TIMEOUT, MAX_MODEL};

/// The merged list. Until every provider has been asked once it waits for their answers, no longer than a check may take.
pub fn list(gateway: &Gateway, ticket: &Ticket) -> Answer {
    #[derive(Serialize)]
    struct List {
        object: &'static str,
        data: Vec<catalog::Entry>,
    }
    json_answer(200, &ticket.envelope, &List { object: "list", data: entries(gateway, ticket) })
}

/// One entry of the list.
pub fn retrieve(gateway: &Gateway, request: &Request<Ticket>) -> Answer {
    let ticket = &request.ticket;
    let id = percent_decode(request.head.path().strip_prefix("/v1/models/").unwrap_or_default());
    if id.len() > MAX_MODEL {
        return refuse(gateway, &ApiError::ModelTooLong, &ticket.envelope);
    }
    match entries(gateway, ticket).into_iter().find(|entry| entry.id == id) {
        Some(entry) => json_answer(200, &ticket.envelope, &entry),
        None => refuse(gateway, &ApiError::ModelNotFound(id), &ticket.envelope),
    }
}

/// What this caller may list: all, or what its token may call.
fn entries(gateway: &Gateway, ticket: &Ticket) -> Vec<catalog::Entry> {
    gateway.board.wait_for_first_round(CHECK_TIMEOUT);
    let mut entries = catalog::merge(&ticket.config, &gateway.board.lists());
    if let Some(token) = ticket.token.map(|index| &ticket.config.tokens[index]) {
        entries.retain(|entry| token.allows(&entry.id));
    }
    entries
}

/// RFC 3986 section 2.1; what is no escape stays as it is.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|&byte| char::from(byte).to_digit(16));
        match (byte, digit(1), digit(2)) {
            // Two hex digits are at most 255.
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn escapes_are_decoded_and_everything_else_stays() {
        assert_eq!(percent_decode("a%2Fb%2fc/d"), "a/b/c/d");
        assert_eq!(percent_decode("%E6%A8%A1"), "模");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%2"), "%zz%2");
    }
}
