//! What the log says of the event channel: which of its rows came without their event, and whether both channels agree.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::source::Source;
use crate::domain::time::UnixMillis;
use crate::storage::log::{Agreement, RowLoss, SourceFilter};
use crate::storage::{LogStore, StoreError};

/// Over how long lost events are counted, and it is judged whether both channels agree.
const HOUR_SECS: i64 = 3600;

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
        let loss = store.row_loss(&of, now.as_secs() - HOUR_SECS, now.as_secs()).await?;
        let found = (loss, store.agreement(covered_until - HOUR_SECS + 1, covered_until).await?);
        let took = began.elapsed();
        let until = began + (took * LONG_LOOKS_APART).min(LONGEST_APART);
        *self.kept() = (took > LONG_LOOK).then_some(Kept { of, until, found });
        Ok(found)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
