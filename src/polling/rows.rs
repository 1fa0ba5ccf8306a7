//! Rows that were read, on their way to the ledger: in small transactions, through the same settlement as events.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::domain::settlement::Purpose;
use crate::storage::log::RowPart;
use crate::storage::{LogStore, StoreError};
use crate::telemetry::metrics;

/// Rows of one transaction: while it lasts, events wait for it.
const MOST_ROWS: usize = 64;

/// Between two tries of rows whose user another program holds.
pub(super) const HELD_PAUSE: Duration = Duration::from_millis(200);

/// How long a run waits for rows that another program holds, before it leaves the rest to the next one.
pub(super) const MOST_TRIES_OF_HELD: u32 = 150;

/// What became of rows, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub charged: u64,
    pub credits: i64,
    pub tied: u64,
    pub already_claimed: u64,
    pub parked: u64,
    pub waiting: u64,
    pub refund_open: u64,
    pub ignored: u64,
    pub failed: u64,
}

impl Tally {
    pub fn read(&self) -> u64 {
        self.charged
            + self.tied
            + self.already_claimed
            + self.parked
            + self.waiting
            + self.refund_open
            + self.ignored
            + self.failed
    }

    /// Rows that were not settled before.
    pub fn changed(&self) -> u64 {
        self.read() - self.already_claimed - self.ignored
    }

    pub fn add(&mut self, other: Tally) {
        self.charged += other.charged;
        self.credits += other.credits;
        self.tied += other.tied;
        self.already_claimed += other.already_claimed;
        self.parked += other.parked;
        self.waiting += other.waiting;
        self.refund_open += other.refund_open;
        self.ignored += other.ignored;
        self.failed += other.failed;
    }

    pub(super) fn count(&mut self, outcome: &RowOutcome) {
        match outcome {
            RowOutcome::Charged { credits } => {
                self.charged += 1;
                self.credits += credits.get();
            }
            RowOutcome::Tied => self.tied += 1,
            RowOutcome::AlreadyClaimed => self.already_claimed += 1,
            RowOutcome::Parked => self.parked += 1,
            RowOutcome::Waiting => self.waiting += 1,
            RowOutcome::RefundOpen => self.refund_open += 1,
            RowOutcome::Ignored => self.ignored += 1,
            RowOutcome::Failed(_) => self.failed += 1,
            RowOutcome::Deferred => {}
        }
    }

    fn tell(&self) {
        let results = [
            ("charged", self.charged),
            ("tied", self.tied),
            ("already_claimed", self.already_claimed),
            ("parked", self.parked),
            ("disputed", self.waiting),
            ("refund_open", self.refund_open),
            ("ignored", self.ignored),
            ("failed", self.failed),
        ];
        for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
            metrics::rows_settled(result, count);
        }
        let outcomes = [
            ("settled", self.charged),
            ("tied", self.tied),
            ("already_settled", self.already_claimed),
            ("unknown_key", self.parked),
            ("disputed", self.waiting),
            ("error", self.failed),
        ];
        for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
            metrics::settled_by_log(outcome, count);
        }
    }
}

/// Settles rows of whole seconds, all of them or an error; what was committed before an error is found again by its
/// identity. `rows` are in the order of their seconds.
pub async fn settle(store: &dyn LogStore, rows: Vec<NumberedRow>, purpose: Purpose) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    for batch in rows.chunks(MOST_ROWS) {
        let mut left = batch.to_vec();
        let mut tries = 0;
        while !left.is_empty() {
            let (settled, held) = settle_once(store, left, purpose).await?;
            tally.add(settled);
            left = held;
            if left.is_empty() {
                break;
            }
            tries += 1;
            if tries >= MOST_TRIES_OF_HELD {
                let count = left.len();
                return Err(StoreError::Contended(format!("another program holds the users of {count} rows")));
            }
            tokio::time::sleep(HELD_PAUSE).await;
        }
    }
    Ok(tally)
}

/// One try of a batch, its users side by side; what could not be had is given back.
async fn settle_once(
    store: &dyn LogStore,
    rows: Vec<NumberedRow>,
    purpose: Purpose,
) -> Result<(Tally, Vec<NumberedRow>), StoreError> {
    let parts = store.row_parts(rows).await.into_iter();
    let settled = parts.map(|RowPart { lane, rows, .. }| async move {
        let outcomes = settle_part(store, lane, rows.clone(), purpose).await?;
        Ok::<_, StoreError>(rows.into_iter().zip(outcomes).collect::<Vec<_>>())
    });
    let (mut tally, mut held) = (Tally::default(), Vec::new());
    for part in join_all(settled).await {
        for (row, outcome) in part? {
            match outcome {
                RowOutcome::Deferred => held.push(row),
                outcome => tally.count(&outcome),
            }
        }
    }
    if !purpose.is_dry_run() {
        tally.tell();
        metrics::moved(store.noticed().take_moved());
    }
    Ok((tally, held))
}

/// If the database refuses the data, the part is halved until the offender stands alone; that one is stored as failed.
fn settle_part<'a>(
    store: &'a dyn LogStore,
    lane: usize,
    rows: Vec<NumberedRow>,
    purpose: Purpose,
) -> BoxFuture<'a, Result<Vec<RowOutcome>, StoreError>> {
    Box::pin(async move {
        let reason = match store.settle_rows(lane, rows.clone(), purpose).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(StoreError::Refused(reason)) if !purpose.is_dry_run() => reason,
            Err(error) => return Err(error),
        };
        if let [row] = rows.as_slice() {
            let (second, token) = (row.identity.second, row.row.token.get());
            tracing::error!(second, token, %reason, "a row of the log is set aside: the database refuses to book it");
            store.set_row_aside(row.clone(), reason.clone()).await?;
            return Ok(vec![RowOutcome::Failed(reason)]);
        }
        let (left, right) = rows.split_at(rows.len() / 2);
        let mut outcomes = settle_part(store, lane, left.to_vec(), purpose).await?;
        outcomes.extend(settle_part(store, lane, right.to_vec(), purpose).await?);
        Ok(outcomes)
    })
}
