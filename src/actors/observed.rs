//! What the daemon last saw of itself, in memory: whoever reports it waits for no actor and for no write.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::channel::Channel;
use super::conditions::{Condition, Conditions};
use super::lives::Lives;
use crate::domain::repair::Apart;
use crate::domain::time::UnixMillis;
use crate::polling::Coverage;
use crate::storage::takeover::TakenOver;
use crate::storage::{InboxCounts, Store};

/// The inbox as it was counted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub counts: InboxCounts,
    pub at: UnixMillis,
}

/// What is known of the reading of new-api's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogReading {
    /// Nothing before the first pass, and where no log is read.
    pub coverage: Option<Coverage>,
    /// When a pass last reached its end.
    pub last_pass_at: Option<UnixMillis>,
    /// When one last did not, and why.
    pub last_failure: Option<(UnixMillis, String)>,
}

/// Shared by those who see and those who tell. It outlives every actor.
#[derive(Default)]
pub struct Observed {
    pub lives: Lives,
    pub channel: Channel,
    pub conditions: Conditions,
    counted: Mutex<Option<Counted>>,
    database_problem: Mutex<Option<String>>,
    taken_over: Mutex<Option<TakenOver>>,
    reading: Mutex<LogReading>,
}

impl Observed {
    /// So that a restart does not make the channel look as if no event had ever come.
    pub async fn remember_last_event(&self, store: &dyn Store) {
        match store.last_event_at().await {
            Ok(Some(at)) => self.channel.event_arrived(at),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "when the last event came is not known until the next one"),
        }
    }

    /// What a look for other programs found; nothing where nobody else writes.
    pub fn taken_over(&self, found: Option<TakenOver>, now: UnixMillis) {
        let foreign = found.as_ref().and_then(|found| found.foreign.as_ref());
        self.conditions.set(Condition::ForeignDeductions, foreign.map(|foreign| foreign.sentence()), now);
        *self.taken_over.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Nothing before the first look, and where nobody else writes.
    pub fn takeover(&self) -> Option<TakenOver> {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a look at our state and the platform's tables found.
    pub fn looked_whether_apart(&self, apart: Option<&Apart>, now: UnixMillis) {
        let sentence = apart.map(|apart| {
            format!("{apart}; events are taken, and nothing is settled until `hookledger repair` was run")
        });
        self.conditions.set(Condition::SchemasApart, sentence, now);
    }

    /// A pass over new-api's log ended: when, or when and why it did not reach its end.
    pub fn passed(&self, coverage: Option<Coverage>, ended: Result<UnixMillis, (UnixMillis, String)>) {
        let mut reading = self.lock_reading();
        reading.coverage = coverage.or(reading.coverage);
        match ended {
            Ok(at) => reading.last_pass_at = Some(at),
            Err(failure) => reading.last_failure = Some(failure),
        }
    }

    pub fn reading(&self) -> LogReading {
        self.lock_reading().clone()
    }

    /// The log is not read any more; whether it was.
    pub fn reading_rests(&self) -> bool {
        self.lock_reading().coverage.take().is_some()
    }

    fn lock_reading(&self) -> MutexGuard<'_, LogReading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn inbox_counted(&self, counted: Counted) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
    }

    /// Nothing before the first count.
    pub fn counted(&self) -> Option<Counted> {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last try to write said, if it failed.
    pub fn database_tried(&self, problem: Option<String>) {
        *self.database_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub fn database_problem(&self) -> Option<String> {
        self.database_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
