//! When a recurring step is due: decided from stored times and the clock, never from how often somebody asks.
//!
//! The times outlive the Scheduler that works by them, so that a restarted one neither forgets nor repeats a step.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::time::UnixMillis;

/// What recurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The Ledger settles what is pending or due by the clock.
    SettleDue,
    /// Tokens without a key are looked at, and the Ledger settles what waited for those that have one now.
    LookAtTokens,
    /// The rate in `options` and in the configuration is looked at.
    LookAtPrices,
    /// What other programs have billed is looked at.
    LookForOthers,
    /// The Logger counts the inbox.
    CountInbox,
    /// What is old is cleared.
    Retain,
    /// The database's size and the room left for it are measured.
    MeasureDisk,
    /// Limits and metrics are tidied; an unwritable database is tried again.
    Upkeep,
    /// Whether our state and the platform's tables belong together is looked at.
    LookWhetherApart,
    /// new-api's own settings are looked at.
    Probe,
    /// new-api's log is read, if the channel asks for it.
    Poll,
    /// new-api's log is read because a person asked for it.
    Sync,
}

impl Step {
    pub const ALL: [Step; 12] = [
        Step::LookWhetherApart,
        Step::SettleDue,
        Step::LookAtTokens,
        Step::LookAtPrices,
        Step::LookForOthers,
        Step::CountInbox,
        Step::MeasureDisk,
        Step::Retain,
        Step::Upkeep,
        Step::Probe,
        Step::Poll,
        Step::Sync,
    ];

    fn every(self) -> Duration {
        match self {
            Step::SettleDue => Duration::from_secs(1),
            Step::LookAtTokens => Duration::from_secs(60),
            Step::LookAtPrices => Duration::from_secs(5),
            Step::LookForOthers => Duration::from_secs(5),
            Step::CountInbox => Duration::from_secs(5),
            Step::Retain => Duration::from_secs(60),
            Step::MeasureDisk => Duration::from_secs(15),
            Step::Upkeep => Duration::from_secs(2),
            Step::LookWhetherApart => Duration::from_secs(3600),
            // Whether it is time is decided by `polling` beside the settings.
            Step::Probe | Step::Poll => Duration::from_secs(1),
            Step::Sync => Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    begun_at: Option<UnixMillis>,
    is_running: bool,
}

/// When each step last began, and whether it still runs.
#[derive(Debug, Default)]
pub struct StepTimes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    times: [Times; Step::ALL.len()],
    turn: u64,
}

/// Whose the steps are. A Scheduler that was replaced has an old one, and neither begins nor ends a step any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(u64);

impl StepTimes {
    /// Marks the step as begun if it is due and does not run.
    pub fn begin_if_due(&self, turn: Turn, step: Step, now: UnixMillis) -> bool {
        let mut inner = self.lock();
        let is_ours = inner.turn == turn.0;
        let times = &mut inner.times[step as usize];
        // A clock that was set back must not stop a step until it has caught up.
        let is_due = times.begun_at.is_none_or(|begun| now < begun || now.since(begun) >= step.every());
        if !is_ours || times.is_running || !is_due {
            return false;
        }
        *times = Times { begun_at: Some(now), is_running: true };
        true
    }

    pub fn finish(&self, turn: Turn, step: Step) {
        let mut inner = self.lock();
        if inner.turn == turn.0 {
            inner.times[step as usize].is_running = false;
        }
    }

    /// A fresh Scheduler knows that nothing counts any more that its predecessor began.
    pub fn take_over(&self) -> Turn {
        let mut inner = self.lock();
        inner.turn += 1;
        inner.times.iter_mut().for_each(|times| times.is_running = false);
        Turn(inner.turn)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis::new(1_000_000_000_000 + millis)
    }

    #[test]
    fn a_step_is_due_by_the_clock_and_never_over_itself() {
        let times = StepTimes::default();
        let turn = times.take_over();
        assert!(times.begin_if_due(turn, Step::SettleDue, at(0)), "never begun: due");
        assert!(!times.begin_if_due(turn, Step::SettleDue, at(5000)), "it still runs");
        times.finish(turn, Step::SettleDue);
        assert!(times.begin_if_due(turn, Step::SettleDue, at(5000)));
        times.finish(turn, Step::SettleDue);
        assert!(!times.begin_if_due(turn, Step::SettleDue, at(5999)), "woken too early");
        assert!(times.begin_if_due(turn, Step::LookAtPrices, at(5999)), "steps do not wait for each other");
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_steps() {
        let times = StepTimes::default();
        let turn = times.take_over();
        times.begin_if_due(turn, Step::Upkeep, at(3_600_000));
        times.finish(turn, Step::Upkeep);
        assert!(times.begin_if_due(turn, Step::Upkeep, at(0)));
    }

    #[test]
    fn a_fresh_scheduler_takes_over() {
        let times = StepTimes::default();
        let turn = times.take_over();
        times.begin_if_due(turn, Step::Upkeep, at(0));
        let fresh = times.take_over();
        assert!(!times.begin_if_due(fresh, Step::Upkeep, at(10)), "begun just now, by the predecessor");
        assert!(!times.begin_if_due(turn, Step::Upkeep, at(2000)), "that one may still be about");
        assert!(times.begin_if_due(fresh, Step::Upkeep, at(2000)));
        times.finish(turn, Step::Upkeep);
        assert!(!times.begin_if_due(fresh, Step::Upkeep, at(4000)), "it still runs");
    }
}
