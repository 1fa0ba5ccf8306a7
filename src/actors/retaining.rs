//! Clears what is old, in steps so small and so far apart that nobody waits for them.
//!
//! Plain functions over the store's seam. What is old is decided in `domain::retention`.

use std::time::{Duration, Instant};

use crate::domain::retention::RetentionPolicy;
use crate::domain::time::UnixMillis;
use crate::storage::{LedgerStore, OldRows, Page, StoreError};
use crate::telemetry::metrics;

/// A step that took longer is halved, one that took less than half of it is enlarged.
const STEP_TARGET: Duration = Duration::from_millis(3);
const SMALLEST_STEP: u32 = 8;
/// Deleted rows dirty pages all over the database: more at once would be felt in the commits beside them.
const LARGEST_STEP: u32 = 32;

/// A step is followed by this many times its own duration of rest, and by no less than `SHORTEST_REST`: some 25 million
/// rows a day.
const REST_FACTOR: u32 = 29;
const SHORTEST_REST: Duration = Duration::from_millis(100);

/// What one run has cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleared {
    pub processed: u64,
    pub dead: u64,
    pub claims: u64,
}

/// One run over all that is old by now.
pub async fn retain(store: &dyn LedgerStore, policy: RetentionPolicy, now: UnixMillis) -> Result<Cleared, StoreError> {
    let times = store.book_times().await?;
    let mut cleared = Cleared::default();
    if let Some(before) = times.cleared_before(policy.webhook_logs, now) {
        cleared.processed = clear(store, OldRows::Processed, before).await?;
    }
    if let Some(before) = times.cleared_before(policy.dead, now) {
        cleared.dead = clear(store, OldRows::Dead, before).await?;
    }
    if policy.claims.is_some() {
        let mut mark = times.remembered_from_second;
        if let Some(second) = times.new_mark(policy.claims, now) {
            // First nothing older is charged any more, then its memory goes.
            store.remember_claims_from(second).await?;
            mark = Some(second);
        }
        if let Some(second) = mark {
            let before = UnixMillis::new(second.saturating_mul(1000));
            cleared.claims = clear(store, OldRows::Claims, before).await?;
        }
    }
    Ok(cleared)
}

async fn clear(store: &dyn LedgerStore, what: OldRows, before: UnixMillis) -> Result<u64, StoreError> {
    let mut page = Page { after: None, limit: SMALLEST_STEP };
    let mut cleared = 0;
    loop {
        let started = Instant::now();
        let (removed, next) = store.remove_old(what, before, page.clone()).await?;
        let took = started.elapsed();
        cleared += removed;
        metrics::rows_removed(what.as_str(), removed);
        let Some(after) = next else { return Ok(cleared) };
        let limit = if took > STEP_TARGET {
            (page.limit / 2).max(SMALLEST_STEP)
        } else if took < STEP_TARGET / 2 {
            (page.limit * 2).min(LARGEST_STEP)
        } else {
            page.limit
        };
        page = Page { after: Some(after), limit };
        tokio::time::sleep((took * REST_FACTOR).max(SHORTEST_REST)).await;
    }
}
