//! When an event that failed is tried again, and when no more.

use std::time::Duration;

use super::ids::EventId;
use super::outcome::InboxStatus;
use super::time::UnixMillis;

/// The operator's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries before the event is dead; the first settlement counts.
    pub max_attempts: u32,
    pub base_delay: Duration,
    pub max_delay: Duration,
}

/// What becomes of an event after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AfterError {
    pub status: InboxStatus,
    pub attempts: u32,
    pub due_at: Option<UnixMillis>,
}

impl RetryPolicy {
    /// Doubles with every failure, within the bounds.
    pub fn back_off(&self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.min(16));
        self.base_delay.saturating_mul(factor).min(self.max_delay)
    }

    /// Failed and due again after a pause, or dead after the last try.
    pub fn after_error(&self, earlier_attempts: u32, event_id: &EventId, now: UnixMillis) -> AfterError {
        let attempts = earlier_attempts.saturating_add(1);
        if attempts >= self.max_attempts {
            return AfterError { status: InboxStatus::Dead, attempts, due_at: None };
        }
        let pause = jittered(self.back_off(attempts - 1), event_id);
        AfterError { status: InboxStatus::Failed, attempts, due_at: Some(now.plus(pause)) }
    }
}

/// Half to the whole of a pause, by the event's id: many that failed together do not come back together, and the
/// same event always waits the same, which a test can follow.
fn jittered(pause: Duration, event_id: &EventId) -> Duration {
    let hash = event_id.as_str().bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    pause / 2 + pause / 2 * (hash % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy { max_attempts: 3, base_delay: Duration::from_secs(2), max_delay: Duration::from_secs(60) }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (0..8).map(|failures| policy().back_off(failures).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy().back_off(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn the_last_error_is_the_end() {
        let (id, now) = (EventId::parse("e").unwrap(), UnixMillis::new(1_000_000));
        let first = policy().after_error(0, &id, now);
        assert_eq!((first.status, first.attempts), (InboxStatus::Failed, 1));
        let pause = first.due_at.unwrap().since(now);
        assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(2));
        let last = policy().after_error(2, &id, now);
        assert_eq!(last, AfterError { status: InboxStatus::Dead, attempts: 3, due_at: None });
    }

    #[test]
    fn events_that_failed_together_come_back_apart() {
        let now = UnixMillis::ZERO;
        let due = |id: &str| policy().after_error(0, &EventId::parse(id).unwrap(), now).due_at;
        let times: std::collections::BTreeSet<_> = (0..50).map(|number| due(&format!("evt-{number}"))).collect();
        assert!(times.len() > 10, "{}", times.len());
    }
}
