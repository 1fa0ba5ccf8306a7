//! Clears what is old, in steps so small and so far apart that nobody waits for them.
//!
//! Plain functions over the store's seam. What is old is decided in `domain::retention`.

use std::time::{Duration, Instant};

use crate::domain::retention::{FOREIGN_RECORDS_KEPT_FOR, RetentionPolicy};
use crate::domain::time::UnixMillis;
use crate::storage::{LedgerStore, OldRows, Page, StoreError};
use crate::telemetry::metrics;

/// Rows of one step: deleted rows dirty pages all over the database, and more at once would be felt in the commits beside
/// them.
const STEP_ROWS: u32 = 32;

/// A step is followed by this many times its own duration of rest, within these bounds: up to some four hundred rows a
/// second.
const REST_FACTOR: u32 = 9;
const SHORTEST_REST: Duration = Duration::from_millis(75);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// No kind of rows keeps the others waiting for longer; the next run goes on.
const LONGEST_TURN: Duration = Duration::from_secs(300);

/// What one run has cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleared {
    pub processed: u64,
    pub dead: u64,
    pub claims: u64,
    pub foreign_records: u64,
    pub log_rows: u64,
}

/// One run over what is old by now. `policy` is asked before each step: what a person has changed counts at once.
pub async fn retain(
    store: &dyn LedgerStore,
    policy: &(dyn Fn() -> RetentionPolicy + Sync),
    now: UnixMillis,
) -> Result<Cleared, StoreError> {
    let begun_with = policy();
    let holds = || policy() == begun_with;
    let times = store.book_times().await?;
    let mut cleared = Cleared::default();
    if let Some(before) = times.cleared_before(begun_with.webhook_logs, now) {
        cleared.processed = clear(store, OldRows::Processed, before, &holds).await?;
    }
    if let Some(before) = times.cleared_before(begun_with.dead, now) {
        cleared.dead = clear(store, OldRows::Dead, before, &holds).await?;
    }
    if begun_with.claims.is_some() && holds() {
        let mut mark = times.remembered_from_second;
        if let Some(second) = times.new_mark(begun_with.claims, now) {
            // First nothing older is charged any more, then its memory goes.
            store.remember_claims_from(second).await?;
            mark = Some(second);
        }
        if let Some(second) = mark {
            let before = UnixMillis::new(second.saturating_mul(1000));
            cleared.claims = clear(store, OldRows::Claims, before, &holds).await?;
        }
    }
    // Nobody chooses about these: they are our own, and matter to nothing any more.
    let noticed_before = now.minus(FOREIGN_RECORDS_KEPT_FOR);
    cleared.foreign_records = clear(store, OldRows::ForeignRecords, noticed_before, &holds).await?;
    cleared.log_rows = clear(store, OldRows::LogRows, now, &holds).await?;
    Ok(cleared)
}

async fn clear(
    store: &dyn LedgerStore,
    what: OldRows,
    before: UnixMillis,
    holds: &(dyn Fn() -> bool + Sync),
) -> Result<u64, StoreError> {
    let begun = Instant::now();
    let mut page = Page { after: None, limit: STEP_ROWS };
    let mut cleared = 0;
    while holds() && begun.elapsed() < LONGEST_TURN {
        let started = Instant::now();
        let (removed, next) = store.remove_old(what, before, page.clone()).await?;
        let rest = (started.elapsed() * REST_FACTOR).clamp(SHORTEST_REST, LONGEST_REST);
        cleared += removed;
        metrics::rows_removed(what.as_str(), removed);
        if next.is_none() {
            break;
        }
        page.after = next;
        tokio::time::sleep(rest).await;
    }
    Ok(cleared)
}
