//! What the log says of the event channel: which of its rows came without their event, and whether both channels agree.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::storage::log::{Agreement, RowLoss, SourceFilter};
use crate::storage::{LogStore, StoreError};

/// Over how long lost events are counted, and it is judged whether both channels agree.
const HOUR_SECS: i64 = 3600;

/// Looked at with one statement: what it sees, the database has to keep for it while it lasts.
const PIECE_SECS: i64 = 300;

/// A look that takes longer than this is not repeated with every pass, but only when so many times as long has passed.
const LONG_LOOK: Duration = Duration::from_millis(500);
const LONG_LOOKS_APART: u32 = 20;
const LONGEST_APART: Duration = Duration::from_secs(300);

/// What was found of the log's rows, beside when the last event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelFacts {
    pub loss: RowLoss,
    /// Whether new-api has somewhere to send webhooks to, where that can be seen.
    pub has_webhook_url: Option<bool>,
    pub out_of_reach_since: Option<UnixMillis>,
}

impl ChannelFacts {
    pub fn of(source: &Source, loss: RowLoss) -> Self {
        let memory = source.memory();
        ChannelFacts { loss, has_webhook_url: memory.has_webhook_url, out_of_reach_since: memory.out_of_reach_since }
    }
}

/// What the books say of the last hour. A look costs what that hour held: at 1,000 calls a second some seconds.
#[derive(Default)]
pub struct LastHour {
    kept: Mutex<Option<Kept>>,
}

/// What a long look found, and how long it is good for.
struct Kept {
    of: SourceFilter,
    until: Instant,
    found: (RowLoss, Agreement),
}

impl LastHour {
    /// `covered_until`: the second with which the hour ends over which agreement is judged.
    pub async fn look(
        &self,
        store: &dyn LogStore,
        of: SourceFilter,
        now: UnixMillis,
        covered_until: i64,
    ) -> Result<(RowLoss, Agreement), StoreError> {
        let began = Instant::now();
        if let Some(kept) = self.kept().as_ref().filter(|kept| kept.of == of && began < kept.until) {
            return Ok(kept.found);
        }
        let mut found = (RowLoss::default(), Agreement::default());
        for (from, until) in pieces(now.as_secs() - HOUR_SECS, now.as_secs()) {
            found.0 = found.0.and(store.row_loss(&of, from, until).await?);
        }
        for (from, until) in pieces(covered_until - HOUR_SECS + 1, covered_until) {
            found.1 = found.1.and(store.agreement(from, until).await?);
        }
        let took = began.elapsed();
        let until = began + (took * LONG_LOOKS_APART).min(LONGEST_APART);
        *self.kept() = (took > LONG_LOOK).then_some(Kept { of, until, found });
        Ok(found)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spans of seconds that follow each other, both ends included.
fn pieces(from_second: i64, until_second: i64) -> impl Iterator<Item = (i64, i64)> {
    let starts = (from_second..=until_second).step_by(PIECE_SECS as usize);
    starts.map(move |from| (from, until_second.min(from + PIECE_SECS - 1)))
}
