//! How an attempt ended, and its consequences: whether another may follow, and the verdict for the replica's record.

use std::time::{Duration, SystemTime};

use super::error::ApiError;
use crate::core::date::{self, DateTime};
use crate::limits::{MAX_COOLDOWN, MAX_RETRY_WAIT};
use crate::routing::Verdict;
use crate::upstream::refusal::Refusal;
use crate::upstream::{Failure, Fault, Headers};

/// The result in metrics of an attempt that succeeded.
pub const SUCCESS: &str = "success";

/// How an attempt ended.
pub enum Outcome {
    /// The end of the call for its client; no other attempt follows.
    Finished(Finish),
    /// Nothing has left for the client: another attempt may follow.
    Failed(Failed),
    /// The same replica is tried once more, with the call translated.
    Again,
}

/// How a call ends for its client.
pub enum Finish {
    /// A buffered response.
    Response(BufferedResponse),
    /// No response.
    Fault(Fault),
    /// An error of the call itself.
    Error(ApiError),
    /// A complete stream with that status.
    Complete(u16),
    /// A stream broke off.
    Broken {
        status: u16,
        fault: Fault,
        /// The client gets events: one more can report the fault.
        is_events: bool,
        /// The number of that event on `/v1/responses`.
        sequence: u64,
    },
}

/// The result of a failed attempt.
pub enum Failed {
    /// No response, or none that can be relayed.
    Fault(Failure),
    /// A buffered response.
    Response(BufferedResponse),
}

impl From<Failed> for Finish {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Fault(failure) => Self::Fault(failure.fault),
            Failed::Response(response) => Self::Response(response),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(Failed::Fault(failure))
    }
}

/// A response that was read to its end.
pub struct BufferedResponse {
    pub status: u16,
    /// Unchanged header fields.
    pub headers: Headers,
    pub body: Vec<u8>,
    /// The error in its body, if there is one; it may come with a status of success (OpenRouter).
    pub refusal: Option<Refusal>,
}

impl BufferedResponse {
    /// The status with which the provider refuses ai-proxy's key (401) or its rights (403); the client's token is valid.
    pub fn refusal_of_us(&self) -> Option<u16> {
        Some(self.telling_status()).filter(|status| matches!(status, 401 | 403))
    }

    /// The status that its body means: of an error with a status of success, or of a refused key with 400.
    fn telling_status(&self) -> u16 {
        match &self.refusal {
            Some(refusal) if self.status < 400 || (self.status == 400 && refusal.status == 401) => {
                refusal.status
            }
            _ => self.status,
        }
    }
}

/// The consequence of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Consequence {
    /// Another replica may succeed.
    elsewhere: bool,
    /// The verdict for the replica's record.
    verdict: Verdict,
}

const fn elsewhere(verdict: Verdict) -> Consequence {
    Consequence { elsewhere: true, verdict }
}

const fn to_the_client(verdict: Verdict) -> Consequence {
    Consequence { elsewhere: false, verdict }
}

/// The table of retries (`docs/models.md`, "Replicas and retries"), for attempts of which nothing has left for the client.
fn consequence_of_fault(fault: Fault) -> Consequence {
    match fault {
        // No request has left yet.
        Fault::Unreachable => elsewhere(Verdict::Unreachable),
        // The provider has died with the request, or because of it. A response that is cut off counts as
        // none.
        Fault::Broken | Fault::CutOff => elsewhere(Verdict::Failed),
        // It may hang, or the client has asked for much. Time for another attempt is left only where this one had a part of it.
        Fault::TimedOut => elsewhere(Verdict::Failed),
        // The client's path or parameter may cause it: only the checks say whether the replica is well.
        Fault::Redirected => elsewhere(Verdict::Unknown),
        Fault::Coded(_) => elsewhere(Verdict::Failed),
        // Another replica sends as large a response.
        Fault::TooLarge | Fault::StreamTooLarge => to_the_client(Verdict::Unknown),
        // The response of another replica needs as much memory.
        Fault::Overloaded => to_the_client(Verdict::Unknown),
        // The response is complete, and another would be untranslatable as well.
        Fault::Untranslatable => to_the_client(Verdict::Succeeded),
        // The replica got no request, so nothing is known about it.
        Fault::NotCarried => elsewhere(Verdict::Unknown),
        // The client has left.
        Fault::ClientGone => to_the_client(Verdict::Unknown),
    }
}

/// The consequence of a status. `wait`: the wait that `Retry-After` asks for; most statuses need none.
fn consequence_of_status(
    status: u16,
    out_of_funds: bool,
    wait: impl FnOnce() -> Option<Duration>,
) -> Consequence {
    let asked = |otherwise| wait().filter(|wait| !wait.is_zero()).map_or(otherwise, Verdict::CoolDown);
    match status {
        // An account without funds stays so until someone pays: its replica gets the longest cooldown.
        402 => elsewhere(Verdict::CoolDown(MAX_COOLDOWN)),
        403 | 429 if out_of_funds => elsewhere(Verdict::CoolDown(MAX_COOLDOWN)),
        // A bad key stays bad until someone changes the config; a changed key begins with a new record.
        401 => elsewhere(Verdict::CoolDown(MAX_COOLDOWN)),
        // This key lacks a right that another may have. Or a filter refuses the request: then the short cooldown does little harm.
        403 => elsewhere(asked(Verdict::Refused)),
        // The request did not arrive there in time: the network may be slow.
        408 => elsewhere(asked(Verdict::Failed)),
        // Another key or account has a rate of its own.
        429 => elsewhere(asked(Verdict::Failed)),
        // Faults of the provider: 520 to 524 are Cloudflare's statuses for an origin that is down, 529 is Anthropic's
        // for an overload. 501 and 505 do not count: a retry gets the same.
        500 | 502 | 503 | 504 | 520..=524 | 529 => elsewhere(asked(Verdict::Failed)),
        // The request itself is refused (400, 404, 413, 422 and the like), or has succeeded.
        _ => to_the_client(Verdict::Succeeded),
    }
}

impl Failed {
    fn consequence(&self) -> Consequence {
        match self {
            Self::Fault(failure) => consequence_of_fault(failure.fault),
            Self::Response(response) => {
                let out_of_funds = response.refusal.as_ref().is_some_and(|refusal| refusal.out_of_funds);
                let wait = || retry_after(&response.headers);
                consequence_of_status(response.telling_status(), out_of_funds, wait)
            }
        }
    }

    /// A stream of that status in which an event after the first is an error.
    pub fn refused(status: u16, refusal: Refusal) -> Self {
        let (headers, body) = (Headers::default(), Vec::new());
        Self::Response(BufferedResponse { status, headers, body, refusal: Some(refusal) })
    }

    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Fault(failure) => Some(failure.fault),
            Self::Response(_) => None,
        }
    }

    /// Header fields of the response, where there was one.
    pub fn headers(&self) -> Option<&Headers> {
        match self {
            Self::Fault(_) => None,
            Self::Response(response) => Some(&response.headers),
        }
    }

    /// The wait that a response asks for, where it is short enough.
    pub fn short_wait(&self) -> Option<Duration> {
        match self {
            Self::Fault(_) => None,
            Self::Response(response) => retry_after(&response.headers).filter(|wait| *wait <= MAX_RETRY_WAIT),
        }
    }

    /// The provider could not be reached.
    pub fn is_unreachable(&self) -> bool {
        self.fault() == Some(Fault::Unreachable)
    }

    /// Whether only another target could help now. A response with `Retry-After` promises more.
    pub fn leaves_it_to_others(&self) -> bool {
        let asks_to_wait = |response: &BufferedResponse| {
            response.telling_status() == 429 || retry_after(&response.headers).is_some()
        };
        self.is_retryable() && !matches!(self, Self::Response(response) if asks_to_wait(response))
    }

    /// Whether the provider gave no response: the client would get a 502.
    pub fn is_without_response(&self) -> bool {
        matches!(self.fault(), Some(Fault::Unreachable | Fault::Broken | Fault::CutOff | Fault::NotCarried))
    }

    /// Whether an attempt at another replica may succeed.
    pub fn is_retryable(&self) -> bool {
        self.consequence().elsewhere
    }

    /// Its weight in the search of a stored response: 0 where the response is not there, 1 without information, 2 for an error
    /// of the call.
    pub fn weight_in_search(&self) -> u8 {
        match self {
            Self::Fault(_) => 1,
            Self::Response(response) => match response.telling_status() {
                404 | 405 | 501 => 0,
                401 | 403 | 408 | 429 | 500.. => 1,
                _ => 2,
            },
        }
    }

    /// Its result in the metrics.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Fault(failure) => match failure.fault {
                Fault::Unreachable => "unreachable",
                Fault::Broken | Fault::CutOff | Fault::Coded(_) => "broken",
                Fault::Redirected => "redirected",
                Fault::TimedOut => "timeout",
                Fault::TooLarge | Fault::StreamTooLarge => "too_large",
                Fault::Overloaded => "overloaded",
                Fault::Untranslatable | Fault::NotCarried => "untranslatable",
                Fault::ClientGone => "client_gone",
            },
            Self::Response(response) => match response.telling_status() {
                ..400 => SUCCESS,
                429 => "rate_limited",
                400..500 => "client_error",
                500.. => "server_error",
            },
        }
    }

    /// Its verdict for the replica's record.
    pub fn verdict(&self) -> Verdict {
        self.consequence().verdict
    }

    /// A short description for the operator.
    pub fn what(&self) -> String {
        match self {
            Self::Fault(failure) => format!("{:?}: {}", failure.fault, failure.detail),
            Self::Response(response) => match &response.refusal {
                Some(refusal) if response.status < 400 => {
                    format!("HTTP {} with error {} {}", response.status, refusal.status, refusal.word)
                }
                Some(refusal) => format!("HTTP {} {}", response.status, refusal.word),
                None => format!("HTTP {}", response.status),
            }
            .trim_end()
            .to_owned(),
        }
    }
}

/// The wait that a response asks for: `retry-after-ms` before `Retry-After`, which is seconds or a date (RFC 9110
/// section 10.2.3). A date counts from the response's own `Date`, because the clocks may differ; one in the past is a wait
/// of zero.
fn retry_after(headers: &Headers) -> Option<Duration> {
    let text =
        |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim);
    let number = |name: &str| text(name).and_then(|text| text.parse::<f64>().ok());
    let seconds = match number("retry-after-ms") {
        Some(milliseconds) => Some(milliseconds / 1000.0),
        None => number("retry-after"),
    };
    if let Some(seconds) = seconds {
        // Negative, infinite or none at all.
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTime::from_http(text("retry-after")?)?;
    let now = text("date").and_then(DateTime::from_http);
    let now = now.map_or_else(|| date::seconds(SystemTime::now()), DateTime::seconds);
    Some(Duration::from_secs(u64::try_from(date.seconds() - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{DateTime, consequence_of_status, date, retry_after};
    use crate::limits::MAX_COOLDOWN;
    use crate::routing::Verdict;
    use crate::upstream::Headers;

    fn wait(fields: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.set(name, value.as_bytes());
        }
        retry_after(&headers)
    }

    #[test]
    fn a_wait_is_read_in_seconds_milliseconds_or_as_a_date() {
        assert_eq!(wait(&[("retry-after", " 7 ")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(
            wait(&[("retry-after-ms", "250"), ("retry-after", "9")]),
            Some(Duration::from_millis(250))
        );
        let date = |seconds| DateTime::of(date::seconds(SystemTime::now()) + seconds).to_http();
        let left = wait(&[("retry-after", &date(100))]).expect("a date");
        assert!((90..=100).contains(&left.as_secs()), "{left:?}");
        assert_eq!(wait(&[("retry-after", &date(-100))]), Some(Duration::ZERO));
        let sent = [("date", "Sun, 06 Nov 1994 08:49:30 GMT")];
        for same in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(wait(&[sent[0], ("retry-after", same)]), Some(Duration::from_secs(7)), "{same}");
        }
        for nonsense in ["", "soon", "-1", "inf", "NaN", "1e400", "Mon, 99 Foo 2026 00:00:00 GMT"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense:?}");
        }
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn what_a_status_leads_to() {
        let wait = Some(Duration::from_secs(40));
        for (status, goes_elsewhere, verdict) in [
            (200, false, Verdict::Succeeded),
            (400, false, Verdict::Succeeded),
            (401, true, Verdict::CoolDown(MAX_COOLDOWN)),
            (402, true, Verdict::CoolDown(MAX_COOLDOWN)),
            (403, true, Verdict::Refused),
            (404, false, Verdict::Succeeded),
            (408, true, Verdict::Failed),
            (422, false, Verdict::Succeeded),
            (429, true, Verdict::Failed),
            (500, true, Verdict::Failed),
            (501, false, Verdict::Succeeded),
            (503, true, Verdict::Failed),
            (529, true, Verdict::Failed),
        ] {
            let consequence = consequence_of_status(status, false, || None);
            assert_eq!((consequence.elsewhere, consequence.verdict), (goes_elsewhere, verdict), "{status}");
            let waiting = consequence_of_status(status, false, || wait).verdict;
            if verdict == Verdict::Failed {
                assert_eq!(waiting, Verdict::CoolDown(Duration::from_secs(40)), "{status}");
            }
        }
        assert_eq!(consequence_of_status(429, true, || wait).verdict, Verdict::CoolDown(MAX_COOLDOWN));
        assert_eq!(consequence_of_status(429, false, || Some(Duration::ZERO)).verdict, Verdict::Failed);
    }
}
