//! The one road to the ledger: fresh events, and what the inbox holds unsettled, go through the same function.
//!
//! Plain functions over the store's seam, so that they are tested and simulated without an actor.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, join_all};

use crate::domain::decision::{parse_row_id, row_id};
use crate::domain::event::UsageEvent;
use crate::domain::log_snapshot::NumberedRow;
use crate::domain::outcome::{Failure, SettlementOutcome};
use crate::domain::settlement::Purpose;
use crate::domain::time::UnixMillis;
use crate::polling::rows;
use crate::storage::books::{NewReplay, Replayed};
use crate::storage::deciding;
use crate::storage::disputes::FailedRows;
use crate::storage::{LedgerStore, Part, Poison, Selection, Store, StoreError, Waiting};
use crate::telemetry::metrics;

/// Settles a batch, its parts side by side. Each part is carried out, whatever becomes of another.
pub async fn settle(
    store: &dyn LedgerStore,
    events: Vec<Arc<UsageEvent>>,
    purpose: Purpose,
) -> Result<Vec<SettlementOutcome>, StoreError> {
    let mut outcomes: Vec<Option<SettlementOutcome>> = vec![None; events.len()];
    let parts = store.parts(events).await.into_iter();
    let settled = parts.map(|Part { lane, places, events }| async move {
        let found = settle_part(store, lane, events, purpose).await?;
        Ok::<_, StoreError>(places.into_iter().zip(found))
    });
    for part in join_all(settled).await {
        part?.for_each(|(place, outcome)| outcomes[place] = Some(outcome));
    }
    // Each event is in exactly one part.
    Ok(outcomes.into_iter().flatten().collect())
}

/// Settles a part. If the database refuses the data, the part is halved until the offender stands alone; that one is
/// set aside as failed, and the rest is settled. A dry run sets nothing aside.
fn settle_part<'a>(
    store: &'a dyn LedgerStore,
    lane: usize,
    events: Vec<Arc<UsageEvent>>,
    purpose: Purpose,
) -> BoxFuture<'a, Result<Vec<SettlementOutcome>, StoreError>> {
    Box::pin(async move {
        let started = Instant::now();
        let reason = match store.settle(lane, events.clone(), purpose).await {
            Ok(outcomes) => {
                if !purpose.is_dry_run() {
                    metrics::batch_committed(events.len(), started.elapsed());
                    count(&outcomes);
                    metrics::moved(store.noticed().take_moved());
                }
                return Ok(outcomes);
            }
            Err(StoreError::Refused(reason)) if !purpose.is_dry_run() => reason,
            Err(error) => return Err(error),
        };
        if let [event] = events.as_slice() {
            tracing::error!(event_id = %event.event_id, %reason, "event set aside: the database refuses to book it");
            store.set_aside(Poison { event: event.clone(), reason: reason.clone() }).await?;
            metrics::settled("error", 1);
            return Ok(vec![SettlementOutcome::Failed(Failure::Unbookable(reason))]);
        }
        let (left, right) = events.split_at(events.len() / 2);
        let mut outcomes = settle_part(store, lane, left.to_vec(), purpose).await?;
        outcomes.extend(settle_part(store, lane, right.to_vec(), purpose).await?);
        Ok(outcomes)
    })
}

/// What one page of what waits came to.
#[derive(Debug, Default)]
pub struct PageEnd {
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
    /// Another program holds rows of some users: worth another try soon.
    pub has_deferred: bool,
}

/// How many events wait for rows that another program holds.
pub fn deferred(outcomes: &[SettlementOutcome]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, SettlementOutcome::Deferred)).count()
}

/// Settles one page of what waits.
pub async fn settle_waiting(
    store: &dyn LedgerStore,
    kind: Waiting,
    after: Option<String>,
    limit: usize,
) -> Result<PageEnd, StoreError> {
    let page = store.waiting(kind, after, limit).await?;
    let last = page.last().map(|pending| pending.inbox_id.clone());
    let is_full = page.len() == limit;
    let unreadable = page.iter().filter(|pending| pending.event.is_none());
    for pending in unreadable {
        tracing::error!(inbox_id = %pending.inbox_id, "a waiting row of webhook_logs holds no usage event any more");
    }
    let events: Vec<_> = page.into_iter().filter_map(|pending| pending.event).collect();
    let outcomes = if events.is_empty() { Vec::new() } else { settle(store, events, Purpose::Retry).await? };
    let deferred = deferred(&outcomes);
    let count = outcomes.len() - deferred;
    if count > 0 {
        tracing::info!(count, deferred, "events that waited were tried again");
    }
    Ok(PageEnd { next: last.filter(|_| is_full), has_deferred: deferred > 0 })
}

/// A page's transaction holds up the others' for some ten milliseconds.
const REPLAYED_PAGE: usize = 256;

/// Settles one page of what a person selected: events, and after them rows that could not be booked. Charges what can be
/// charged, once.
pub async fn replay(store: &dyn Store, replay: NewReplay) -> Result<Replayed, StoreError> {
    let NewReplay { event_id, since_ms, until_ms, beyond_grace, dry_run, after } = replay;
    let (since, until) = (since_ms.map(UnixMillis::new), until_ms.map(UnixMillis::new));
    let purpose = Purpose::Replay { beyond_grace, is_dry_run: dry_run };
    if let Some(identity) = event_id.as_deref().and_then(parse_row_id) {
        let rows = deciding::failed_row(store, identity).await?.into_iter().collect();
        return replay_rows(store, rows, purpose).await;
    }
    let after_row = after.as_deref().and_then(parse_row_id);
    if after_row.is_some() {
        let rows = store.failed_rows(FailedRows { since, until, after: after_row }, REPLAYED_PAGE).await?;
        return replay_rows(store, rows, purpose).await;
    }
    let is_one = event_id.is_some();
    let page = store.selected(Selection { event_id, since, until }, after, REPLAYED_PAGE).await?;
    let next = page.last().filter(|_| page.len() == REPLAYED_PAGE).map(|last| last.inbox_id.clone());
    let events: Vec<_> = page.into_iter().filter_map(|waiting| waiting.event).collect();
    let mut replayed = match next {
        None if !is_one => {
            let rows = store.failed_rows(FailedRows { since, until, after: None }, REPLAYED_PAGE).await?;
            replay_rows(store, rows, purpose).await?
        }
        next => Replayed { next, ..Replayed::default() },
    };
    replayed.tried += events.len() as u64;
    if events.is_empty() {
        return Ok(replayed);
    }
    for outcome in settle(store, events, purpose).await? {
        match outcome {
            SettlementOutcome::Settled { credits } => {
                replayed.charged += 1;
                replayed.credits += credits.get();
            }
            SettlementOutcome::Unpaid { .. } => replayed.charged += 1,
            SettlementOutcome::AlreadySettled | SettlementOutcome::Tied => replayed.already_charged += 1,
            SettlementOutcome::Conflict
            | SettlementOutcome::Deferred
            | SettlementOutcome::Waits
            | SettlementOutcome::Failed(_) => {
                replayed.still_failed += 1;
            }
        }
    }
    Ok(replayed)
}

/// Rows that could not be booked are settled as if they were read now.
async fn replay_rows(store: &dyn Store, page: Vec<NumberedRow>, purpose: Purpose) -> Result<Replayed, StoreError> {
    let tried = page.len() as u64;
    let next = page.last().filter(|_| page.len() == REPLAYED_PAGE).map(|last| row_id(&last.identity));
    let tally = rows::settle(store, page, purpose).await?;
    let already_charged = tally.tied + tally.already_claimed;
    Ok(Replayed {
        tried,
        charged: tally.charged,
        credits: tally.credits,
        already_charged,
        still_failed: tried.saturating_sub(tally.charged + already_charged),
        next,
    })
}

fn count(outcomes: &[SettlementOutcome]) {
    const NAMES: [&str; 9] = [
        "settled",
        "unpaid",
        "already_settled",
        "conflict",
        "unknown_key",
        "ambiguous_key",
        "error",
        "tied",
        "disputed",
    ];
    let mut counts = [0u64; NAMES.len()];
    for outcome in outcomes {
        let index = match outcome {
            SettlementOutcome::Settled { .. } => 0,
            SettlementOutcome::Unpaid { .. } => 1,
            SettlementOutcome::AlreadySettled => 2,
            SettlementOutcome::Conflict => 3,
            SettlementOutcome::Failed(
                Failure::UnknownKey(_)
                | Failure::BeyondGrace(_)
                | Failure::FormerOwner(_)
                | Failure::IgnoredKey(_)
                | Failure::BeyondMemory,
            ) => 4,
            SettlementOutcome::Failed(Failure::AmbiguousKey(_)) => 5,
            SettlementOutcome::Failed(Failure::Unbookable(_)) => 6,
            SettlementOutcome::Tied => 7,
            // Nothing was settled: the event is known to have failed before, or is tried again at once.
            SettlementOutcome::Failed(Failure::Disputed(_)) => 8,
            SettlementOutcome::Failed(
                Failure::Stored(_) | Failure::Busy | Failure::Alike | Failure::QuotaUnknown | Failure::Dismissed(_),
            )
            | SettlementOutcome::Deferred
            | SettlementOutcome::Waits => continue,
        };
        counts[index] += 1;
    }
    for (name, count) in NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        metrics::settled(name, count);
    }
}
