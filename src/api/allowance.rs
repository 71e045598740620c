//! How long one attempt may take: all there is where it is the last, a part of it while a fit replica is left.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::limits::SHORTEST_ATTEMPT;
use crate::upstream::Patience;

/// What an attempt may take.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// For the call.
    pub patience: Patience,
    /// It has less than a first attempt would have: that it did not make it says little of its replica.
    pub is_short: bool,
}

/// A call's time so far.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the provider's time began.
    pub begun: Instant,
    /// Now.
    pub now: Instant,
    /// When the first heartbeat commits the answer, if one may be sent.
    pub beat: Option<Instant>,
}

impl Times {
    /// What is left for a whole answer, or to a stream's first event.
    pub fn left(&self, config: &Config, streamed: bool) -> Duration {
        total(config, streamed).saturating_sub(self.now.saturating_duration_since(self.begun))
    }
}

fn total(config: &Config, streamed: bool) -> Duration {
    if streamed { config.stream_timeout } else { config.non_stream_timeout }
}

/// The allowance of an attempt. `others`: a fit replica is left, and may be asked.
///
/// While there are others, `attempt_timeout` or else two thirds of what is left is the time for the head of a whole answer,
/// or for the first event of a stream. For a stream, what is left ends where a heartbeat would commit the answer.
pub fn of(config: &Config, streamed: bool, times: Times, is_first: bool, others: bool) -> Allowance {
    let left = times.left(config, streamed);
    let before_beat = times.beat.filter(|_| streamed).map(|beat| beat.saturating_duration_since(times.now));
    let share = match config.attempt_timeout {
        Some(time) => Some(time.min(left)),
        None => Some(before_beat.map_or(left, |beat| beat.min(left)) * 2 / 3)
            .filter(|share| *share >= SHORTEST_ATTEMPT),
    };
    let share = share.filter(|_| others);
    let is_short = !is_first && config.attempt_timeout.is_none_or(|time| left < time);
    let patience = if streamed {
        Patience { until: None, silence: Some(config.stream_timeout), haste: share.or(Some(left)) }
    } else {
        Patience { until: times.begun.checked_add(config.non_stream_timeout), silence: None, haste: share }
    };
    Allowance { patience, is_short }
}
