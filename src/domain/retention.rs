//! How long what is settled is kept: pure, from clocks that may jump.
//!
//! What was charged is remembered by claims. Clearing a log row never weakens that, and claims themselves go only behind
//! a mark before which nothing is ever charged again.

use std::time::Duration;

use super::time::UnixMillis;

/// How long it is kept what was noticed of other programs' usage records. Settlements do not go by it: it is there to be
/// told and to be looked through by a person.
pub const FOREIGN_RECORDS_KEPT_FOR: Duration = Duration::from_secs(30 * 86_400);

/// The operator's choice; none: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    /// Processed rows of `webhook_logs`.
    pub webhook_logs: Option<Duration>,
    /// Events whose retries are used up.
    pub dead: Option<Duration>,
    pub claims: Option<Duration>,
}

/// What the books say of time, whatever the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookTimes {
    /// The newest call that was charged.
    pub newest_call: Option<UnixMillis>,
    /// The oldest call that is unsettled and may still be charged, by a person at least: not those of parked tokens.
    pub oldest_unsettled: Option<UnixMillis>,
    /// Where the mark of the claims stands.
    pub remembered_from_second: Option<i64>,
}

impl BookTimes {
    /// What is older than this is cleared: by the earliest of the clock and the newest call, so that a clock that jumps
    /// ahead alone makes nothing old. Before the first charge nothing is cleared.
    pub fn cleared_before(&self, keep: Option<Duration>, now: UnixMillis) -> Option<UnixMillis> {
        Some(self.newest_call?.min(now).minus(keep?))
    }

    /// The second from which claims are remembered from now on, if that moves forward.
    pub fn new_mark(&self, keep: Option<Duration>, now: UnixMillis) -> Option<i64> {
        // Without a charge there is nothing to forget.
        let newest = self.newest_call?;
        let mark = newest.min(now).minus(keep?);
        let mark = self.oldest_unsettled.map_or(mark, |oldest| oldest.min(mark)).as_secs();
        (mark > self.remembered_from_second.unwrap_or(0)).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: i64) -> UnixMillis {
        UnixMillis::new(1_795_500_000_000 + day * 86_400_000)
    }

    fn times(newest_call: i64) -> BookTimes {
        BookTimes { newest_call: Some(at(newest_call)), ..BookTimes::default() }
    }

    #[test]
    fn a_clock_that_jumps_ahead_alone_makes_nothing_old() {
        assert_eq!(times(100).cleared_before(Some(90 * DAY), at(110)), Some(at(10)));
        assert_eq!(times(100).new_mark(Some(90 * DAY), at(110)), Some(at(10).as_secs()));
        assert_eq!(times(100).cleared_before(Some(90 * DAY), at(99)), Some(at(9)), "nor one that was set back");
        assert_eq!(times(100).cleared_before(None, at(1000)), None, "for ever");
    }

    #[test]
    fn the_mark_waits_for_what_is_unsettled_and_never_moves_back() {
        let waiting = BookTimes { oldest_unsettled: Some(at(3)), ..times(100) };
        assert_eq!(waiting.new_mark(Some(90 * DAY), at(100)), Some(at(3).as_secs()));
        let marked = BookTimes { remembered_from_second: Some(at(20).as_secs()), ..times(100) };
        assert_eq!(marked.new_mark(Some(90 * DAY), at(100)), None);
        assert_eq!(marked.new_mark(Some(70 * DAY), at(100)), Some(at(30).as_secs()));
        assert_eq!(BookTimes::default().new_mark(Some(DAY), at(100)), None, "nothing was ever charged");
        assert_eq!(BookTimes::default().cleared_before(Some(DAY), at(100)), None);
    }
}
