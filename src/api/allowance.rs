//! How long one attempt may take: all the time left, or `attempt_timeout` while an available replica is left.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::upstream::Timeouts;

/// The time limits of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub timeouts: Timeouts,
    /// It has less time than a first attempt, so that a timeout says little about its replica.
    pub is_short: bool,
}

/// The times of a call.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the provider's time began.
    pub begun: Instant,
    pub now: Instant,
}

impl Times {
    /// The time left for a buffered response, or to a stream's first event.
    pub fn left(&self, config: &Config, streamed: bool) -> Duration {
        let total = if streamed { config.stream_timeout } else { config.non_stream_timeout };
        total.saturating_sub(self.now.saturating_duration_since(self.begun))
    }
}

/// The allowance of an attempt. `others`: another available replica may be tried; then `attempt_timeout`, where it is set, is the
/// time for the head of a buffered response, or for the first event of a stream. Without it no attempt is cancelled for being slow,
/// because the provider charges for a slow response too.
pub fn of(config: &Config, streamed: bool, times: Times, is_first: bool, others: bool) -> Allowance {
    let left = times.left(config, streamed);
    let share = config.attempt_timeout.filter(|_| others).map(|time| time.min(left));
    let is_short = !is_first && config.attempt_timeout.is_none_or(|time| left < time);
    let timeouts = if streamed {
        Timeouts { total: None, idle: Some(config.stream_timeout), first_byte: share.or(Some(left)) }
    } else {
        Timeouts { total: times.begun.checked_add(config.non_stream_timeout), idle: None, first_byte: share }
    };
    Allowance { timeouts, is_short }
}
