//! How long one attempt may take: all the time left, or `attempt_timeout` while an available replica is left.

use std::time::Duration;

use super::relay::Relay;
use crate::upstream::Timeouts;

impl Relay {
    /// The time left for a buffered response, or to a stream's first event.
    pub(super) fn time_left(&self) -> Duration {
        let config = self.client_call.config();
        let total = if self.call.body.stream { config.stream_timeout } else { config.non_stream_timeout };
        total.saturating_sub(self.now.saturating_duration_since(self.begun))
    }

    /// The time limits of an attempt, and whether it has less time than a first one, so that a timeout says little about its
    /// replica. `others`: another available replica may be tried; then `attempt_timeout`, where it is set, is the time for the
    /// head of a buffered response, or for the first event of a stream. Without it no attempt is cancelled for being slow,
    /// because the provider charges for a slow response too.
    pub(super) fn allowance(&self, others: bool) -> (Timeouts, bool) {
        let (config, left) = (self.client_call.config(), self.time_left());
        let share = config.attempt_timeout.filter(|_| others).map(|time| time.min(left));
        let is_first = self.client_call.record.attempts == 1;
        let is_short = !is_first && config.attempt_timeout.is_none_or(|time| left < time);
        let timeouts = if self.call.body.stream {
            Timeouts { total: None, idle: Some(config.stream_timeout), first_byte: share.or(Some(left)) }
        } else {
            Timeouts {
                total: self.begun.checked_add(config.non_stream_timeout),
                idle: None,
                first_byte: share,
            }
        };
        (timeouts, is_short)
    }
}
