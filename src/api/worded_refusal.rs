//! A provider's error about ai-proxy's key or account, worded so that nobody suspects the client's token.

use std::borrow::Cow;

use crate::json::{Elements, Members};

/// What an error speaks of that makes its reader look for their own token.
const CREDENTIALS: &[&str] = &["auth", "credential", "key", "token", "令牌", "密钥", "认证", "鉴权"];

/// The error document with `words` ahead of its message; every other byte stays. A document without a message stays whole, and so does one that
/// speaks of no credentials.
pub fn with_words_ahead(document: Vec<u8>, words: &str) -> Vec<u8> {
    let Some(at) = message_in(&document).filter(|_| speaks_of_credentials(&document)) else {
        return document;
    };
    // Text can be written; its quotes are the message's.
    let words = serde_json::to_string(words).unwrap_or_default();
    let words = words.get(1..words.len() - 1).unwrap_or_default();
    [&document[..at], words.as_bytes(), &document[at..]].concat()
}

/// Where the text of the message begins, behind its quote: `error.message`, an `error` that is a text, or what some providers write
/// beside or instead of it.
fn message_in(document: &[u8]) -> Option<usize> {
    let object = document.trim_ascii_start();
    // Google puts its errors into an array.
    let object = Elements::of(object).and_then(|mut elements| elements.next()).unwrap_or(object);
    let error = member(object, "error");
    let places = [
        error,
        error.and_then(|error| member(error, "message")),
        member(object, "message"),
        member(object, "detail"),
    ];
    let text = places.into_iter().flatten().find_map(|value| value.strip_prefix(b"\""))?;
    Some(text.as_ptr() as usize - document.as_ptr() as usize)
}

fn speaks_of_credentials(document: &[u8]) -> bool {
    let text = String::from_utf8_lossy(document).to_ascii_lowercase();
    CREDENTIALS.iter().any(|word| text.contains(word))
}

/// The value of an object's member; of repeated ones the last, as most readers have it.
fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let is_it = |(key, _): &(Cow<'_, [u8]>, &[u8])| **key == *name.as_bytes();
    Some(Members::of(object)?.filter(is_it).last()?.1)
}

#[cfg(test)]
mod tests {
    use super::with_words_ahead;

    #[test]
    fn words_stand_ahead_of_the_message_and_nothing_else_changes() {
        for (document, expected) in [
            (
                r#"{"error":{"message":"no key","code":"x"}}"#,
                r#"{"error":{"message":"a \"b\": no key","code":"x"}}"#,
            ),
            (
                r#" {"x":"Key","error" : { "message" : "" } }"#,
                r#" {"x":"Key","error" : { "message" : "a \"b\": " } }"#,
            ),
            (r#"{"error":"No token"}"#, r#"{"error":"a \"b\": No token"}"#),
            (
                r#"[{"error":{"code":403,"message":"no key"}}]"#,
                r#"[{"error":{"code":403,"message":"a \"b\": no key"}}]"#,
            ),
            (
                r#"{"type":"error","error":{"type":"auth","message":"\u006eo"},"message":"other"}"#,
                r#"{"type":"error","error":{"type":"auth","message":"a \"b\": \u006eo"},"message":"other"}"#,
            ),
            (r#"{"code":401,"message":"no key"}"#, r#"{"code":401,"message":"a \"b\": no key"}"#),
            (r#"{"detail":"密钥"}"#, r#"{"detail":"a \"b\": 密钥"}"#),
            (
                r#"{"error":{"message":"1","message":"2 keys"}}"#,
                r#"{"error":{"message":"1","message":"a \"b\": 2 keys"}}"#,
            ),
        ] {
            let worded = with_words_ahead(document.as_bytes().to_vec(), "a \"b\": ");
            assert_eq!(String::from_utf8(worded).expect("text"), expected);
        }
        for document in [
            r#"{"error":{"message":"no","code":403}}"#,
            r#"{"error":{"message":null,"x":"key"}}"#,
            r#"{"error":{}}"#,
            r#"{"error":401}"#,
            "[]",
            "{}",
            "\"no\"",
            "[\"no\"]",
        ] {
            assert_eq!(with_words_ahead(document.as_bytes().to_vec(), "x"), document.as_bytes());
        }
    }
}
