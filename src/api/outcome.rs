//! How an attempt ended, and what follows from it: may another be made, what does the replica's record say.

use std::time::Duration;

use ureq::http::HeaderMap;

use crate::front::Done;
use crate::limits::MAX_RETRY_WAIT;
use crate::routing::Verdict;
use crate::upstream::{Failure, Fault};

/// What the metrics say of an attempt that served.
pub const SUCCESS: &str = "success";

/// How an attempt ended.
pub enum Outcome {
    /// The client has its answer, or has gone.
    Done(Done),
    /// Nothing has left for the client: another attempt may follow.
    Failed(Failed),
}

/// What a failed attempt left.
pub enum Failed {
    /// No answer, or none that can be given on.
    Fault(Failure),
    /// An answer with an error status.
    Answer(WholeAnswer),
}

/// An answer read to its end.
pub struct WholeAnswer {
    /// Status code.
    pub status: u16,
    /// Header fields as they came.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Failed {
    /// The fault, where it was one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Fault(failure) => Some(failure.fault),
            Self::Answer(_) => None,
        }
    }

    /// What an answer asks to be waited for, where it is short enough to wait for it (contract section 4).
    pub fn short_wait(&self) -> Option<Duration> {
        match self {
            Self::Fault(_) => None,
            Self::Answer(answer) => retry_after(&answer.headers).filter(|wait| *wait <= MAX_RETRY_WAIT),
        }
    }

    /// The provider could not be reached.
    pub fn is_unreachable(&self) -> bool {
        self.fault() == Some(Fault::Unreachable)
    }

    /// Contract section 4, "Retries".
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Fault(failure) => matches!(failure.fault, Fault::Unreachable | Fault::Broken),
            Self::Answer(answer) => matches!(answer.status, 408 | 429 | 500 | 502 | 503 | 504),
        }
    }

    /// What the metrics say of it.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Fault(failure) => match failure.fault {
                Fault::Unreachable => "unreachable",
                Fault::Broken | Fault::CutOff => "broken",
                Fault::TimedOut => "timeout",
                Fault::TooLarge => "too_large",
                Fault::ClientGone => "client_gone",
            },
            Self::Answer(answer) => match answer.status {
                ..400 => SUCCESS,
                429 => "rate_limited",
                400..500 => "client_error",
                500.. => "server_error",
            },
        }
    }

    /// What the replica's record says of it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Fault(failure) => match failure.fault {
                Fault::Unreachable | Fault::Broken | Fault::CutOff | Fault::TimedOut => Verdict::Failed,
                Fault::ClientGone | Fault::TooLarge => Verdict::Unknown,
            },
            Self::Answer(answer) if self.is_retryable() => {
                let wait =
                    answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                wait.map_or(Verdict::Failed, |seconds| Verdict::CoolDown(Duration::from_secs(seconds)))
            }
            Self::Answer(_) => Verdict::Served,
        }
    }
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
