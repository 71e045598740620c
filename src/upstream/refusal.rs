//! What a provider says no with: the error documents of the OpenAI API and of those who differ from it a little.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::json::{elements, members, scan, text};
use crate::text::beginning;

/// What a provider's error document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP error status it names, or that its kind stands for; 401 where it says that the key is wrong; 502 where it says
    /// none of these.
    pub status: u16,
    /// Its own word for it: `insufficient_quota`, say; may be empty.
    pub word: String,
    /// The account behind the key has nothing left to pay with. Retrying after a minute does not help.
    pub out_of_funds: bool,
}

/// What each refusal holds; made once, for making one costs as much as searching a small response.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("error"));

/// Longest word kept, bytes.
const MAX_WORD: usize = 64;

/// Bytes of a message that are searched for what it tells.
const MAX_SEARCHED_MESSAGE: usize = 2048;

/// The status that an error's kind stands for where it names none: OpenAI's and Anthropic's kinds, Google's statuses.
const KINDS: &[(&str, u16)] = &[
    ("api_error", 500),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("insufficient_quota", 429),
    ("internal", 500),
    ("invalid_argument", 400),
    ("invalid_api_key", 401),
    ("invalid_prompt", 400),
    ("invalid_request_error", 400),
    ("not_found", 404),
    ("not_found_error", 404),
    ("overloaded_error", 529),
    ("permission_denied", 403),
    ("permission_error", 403),
    ("rate_limit_error", 429),
    ("rate_limit_exceeded", 429),
    ("request_too_large", 413),
    ("resource_exhausted", 429),
    ("server_error", 500),
    ("timeout_error", 504),
    ("unauthenticated", 401),
    ("unavailable", 503),
];

/// How providers say that an account has nothing left, in lower case. (OpenAI, Moonshot, DeepSeek and others, Zhipu,
/// Alibaba, Volcengine.) Not "exceeded your current quota": Google says so of a minute's.
const OUT_OF_FUNDS: &[&str] = &[
    "insufficient_quota",
    "exceeded_current_quota",
    "billing_hard_limit",
    "insufficient balance",
    "insufficient_balance",
    "insufficient credit",
    "余额不足",
    "欠费",
    "arrearage",
    "accountoverdue",
];

/// How the messages of providers begin that refuse a key with 400, in lower case. (xAI, Google, Alibaba.)
const BAD_KEY: &[&str] = &[
    "incorrect api key",
    "invalid api key",
    "invalid api-key",
    "api key not valid",
    "api key not found",
    "api key expired",
];

impl Default for Refusal {
    fn default() -> Self {
        Self { status: 502, word: String::new(), out_of_funds: false }
    }
}

impl Refusal {
    /// The refusal that a JSON document is, if it is one: an object with an `error` that says something and nothing of a
    /// response beside it, or Anthropic's and OpenAI's `"type":"error"`; Google puts it into an array.
    pub fn in_document(document: &[u8]) -> Option<Self> {
        ERROR.find(document)?;
        let document = std::str::from_utf8(document).ok()?;
        Self::in_facts(&Facts::of_document(document)?)
    }

    /// The refusal that the data of an event are: as a document's, or a response that has failed.
    pub fn in_event(facts: &Facts<'_>) -> Option<Self> {
        if !facts.is("response.failed") {
            return Self::in_facts(facts);
        }
        let response = facts.response.and_then(Facts::of).unwrap_or_default();
        Some(Self::of(&response.error_facts(), response.error.and_then(text), &response))
    }

    fn in_facts(facts: &Facts<'_>) -> Option<Self> {
        if facts.is_response {
            return None;
        }
        if facts.error.is_some_and(says_something) {
            return Some(Self::of(&facts.error_facts(), facts.error.and_then(text), facts));
        }
        // An error without a shell: what would stand in it stands beside its type.
        facts.is("error").then(|| Self::of(facts, None, facts))
    }

    /// Of an error that is an object with these facts, or a `plain` text, and of what stands around it.
    fn of(error: &Facts<'_>, plain: Option<String>, around: &Facts<'_>) -> Self {
        let words: Vec<String> = [error.code, error.status, error.kind]
            .into_iter()
            .filter_map(|word| text(word?))
            .chain(plain.clone())
            .filter(|word| word.len() <= MAX_WORD && word != "error")
            .collect();
        let numbers = [error.code, error.status, around.code, around.status];
        let number = numbers.into_iter().find_map(|number| error_status(number?));
        let kind = |word: &String| {
            KINDS.iter().find(|(kind, _)| kind.eq_ignore_ascii_case(word)).map(|(_, status)| *status)
        };
        let message = error.message.and_then(text).or(plain).unwrap_or_default();
        let message = beginning(&message, MAX_SEARCHED_MESSAGE);
        let text = [&words.join(" "), message].join(" ").to_lowercase();
        let status = number.or_else(|| words.iter().find_map(kind));
        let begins =
            |start: &&str| message.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start));
        let bad_key = status.is_none_or(|status| status == 400) && BAD_KEY.iter().any(begins);
        Self {
            status: if bad_key { 401 } else { status.unwrap_or(502) },
            word: words.into_iter().find(|word| number_of(word).is_none()).unwrap_or_default(),
            out_of_funds: OUT_OF_FUNDS.iter().any(|sign| text.contains(sign)),
        }
    }
}

/// The members of an object that tell whether it is an error, as they are written, which is valid JSON; of repeated ones the last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub(super) kind: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) response: Option<&'a str>,
    pub(super) choices: Option<&'a str>,
    code: Option<&'a str>,
    status: Option<&'a str>,
    message: Option<&'a str>,
    /// It has a member that only a response has.
    is_response: bool,
}

impl<'a> Facts<'a> {
    /// Of a JSON object; `None`: it is none.
    pub(super) fn of(object: &'a str) -> Option<Self> {
        let mut facts = Self::default();
        // What it has noted of an object that it is not certain of is noted again.
        if scan(object, &mut |name, value| facts.note(name, value)).is_none() {
            members(object, |name, value| facts.note(name, value.get())).ok()?;
        }
        Some(facts)
    }

    fn note(&mut self, name: &str, value: &'a str) {
        match name {
            "type" => self.kind = Some(value),
            "error" => self.error = Some(value).filter(|value| *value != "null"),
            "response" => self.response = Some(value),
            "choices" => self.choices = Some(value),
            "code" => self.code = Some(value),
            "status" => self.status = Some(value),
            "message" => self.message = Some(value),
            "output" | "data" | "content" => self.is_response = true,
            _ => {}
        }
    }

    /// Of a JSON object, or of the first in an array; `None`: there is none.
    pub fn of_document(document: &'a str) -> Option<Self> {
        Self::of(document).or_else(|| Self::of(first_element(document)?))
    }

    /// Whether its `type` is this.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.and_then(text).is_some_and(|it| it == kind)
    }

    fn error_facts(&self) -> Self {
        self.error.and_then(Facts::of).unwrap_or_default()
    }
}

/// The first element of an array.
pub fn first_element(array: &str) -> Option<&str> {
    let mut first = None;
    elements(array, |element| {
        first.get_or_insert(element.get());
    })
    .ok()?;
    first
}

/// Whether the value of `error` is one: some providers write an empty one into every response.
fn says_something(error: &str) -> bool {
    match error.as_bytes() {
        [b'{', inside @ .., b'}'] => !inside.trim_ascii().is_empty(),
        [b'"', inside @ .., b'"'] => !inside.is_empty(),
        _ => false,
    }
}

/// An HTTP error status, as a number or as text.
fn error_status(value: &str) -> Option<u16> {
    text(value).map_or_else(|| number_of(value), |text| number_of(&text))
}

fn number_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    fn status(document: &str) -> Option<u16> {
        Refusal::in_document(document.as_bytes()).map(|refusal| refusal.status)
    }

    #[test]
    fn the_status_is_the_one_named_else_the_one_its_kind_stands_for_else_502() {
        for (document, expected) in [
            (r#"{"error":{"message":"x","type":"server_error","code":null}}"#, 500),
            (r#"{"error":{"message":"x","code":429}}"#, 429),
            (r#"{"error":{"message":"x","code":"503"}}"#, 503),
            (r#"{"error":{"message":"x","type":"invalid_request_error","code":"invalid_api_key"}}"#, 401),
            (r#"{"id":"gen","error":{"code":502,"message":"x"},"choices":[{"finish_reason":"error"}]}"#, 502),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#, 529),
            (r#"{"type":"error","code":"rate_limit_exceeded","message":"x"}"#, 429),
            (r#"[{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"x"}}]"#, 400),
            (r#"{"error":{"status":"UNAVAILABLE"}}"#, 503),
            (r#"{"error":"something"}"#, 502),
            (r#"{"code":"invalid argument","error":"Incorrect API key provided: xa***. See"}"#, 401),
            (
                r#"[{"error":{"code":400,"message":"API key not valid. Pass","status":"INVALID_ARGUMENT"}}]"#,
                401,
            ),
            (r#"{"error":{"code":400,"message":"x: \"Incorrect API key provided\""}}"#, 400),
            (r#"{"error":{"code":429,"message":"Invalid API key"}}"#, 429),
            (r#"{"error":{"code":200}}"#, 502),
            (r#"{"error":{"code":"1113","message":"x"}}"#, 502),
        ] {
            assert_eq!(status(document), Some(expected), "{document}");
        }
    }

    #[test]
    fn document_without_error_is_no_refusal() {
        for document in [
            r#"{"choices":[{"message":{"content":"{\"error\":1}"}}]}"#,
            r#"{"object":"response","error":null,"output":[]}"#,
            r#"{"object":"response","status":"failed","error":{"code":"server_error"},"output":[]}"#,
            r#"{"type":"message","content":[{"type":"error"}]}"#,
            r#""error""#,
            "error",
            "",
        ] {
            assert_eq!(status(document), None, "{document}");
        }
    }

    #[test]
    fn empty_error_is_no_refusal() {
        for error in ["\"\"", "false", "true", "0", "1", "{}", "[]", "[1]", "null"] {
            for document in [
                format!(r#"{{"choices":[{{"message":{{"content":"hi"}}}}],"error":{error}}}"#),
                format!(r#"{{"error":{error}}}"#),
            ] {
                assert_eq!(status(&document), None, "{document}");
            }
        }
        assert_eq!(status(r#"{"choices":[],"error":{"code":503}}"#), Some(503));
        assert_eq!(status(r#"{"error":"no"}"#), Some(502));
    }

    #[test]
    fn empty_account_differs_from_rate_limit() {
        let empty =
            |document: &str| Refusal::in_document(document.as_bytes()).expect("a refusal").out_of_funds;
        assert!(empty(
            r#"{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}"#
        ));
        assert!(empty(r#"{"error":{"message":"Insufficient Balance","type":"unknown_error"}}"#));
        assert!(empty(r#"{"error":{"code":"1113","message":"您的账户已欠费，请充值后重试。"}}"#));
        assert!(!empty(
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"exceeded your current quota"}}"#
        ));
        assert!(!empty(r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#));
    }
}
