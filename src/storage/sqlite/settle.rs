//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes, commits.

use std::sync::atomic::Ordering;

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{coverage, log, snapshot, source_looks, task_refunds, write};
use crate::domain::settlement::{Batch, Plan, Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::log::{Trial, Tried};
use crate::storage::{log_writes, neighbours};

/// What the batch came to, after the commit.
pub async fn settle(
    connection: &mut SqliteConnection,
    context: &Context,
    batch: &Batch,
    purpose: Purpose,
) -> Result<Plan, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let plan = write_plan(&mut transaction, context, batch, purpose).await?;
    if purpose.is_dry_run() {
        transaction.rollback().await?;
        return Ok(plan);
    }
    transaction.commit().await?;
    context.skew.committed(&plan, context.clock.now());
    failpoint::hit("store.settle.committed")?;
    Ok(plan)
}

/// What rows, and the refunds beside them, would come to: written, and rolled back.
pub async fn try_rows(
    connection: &mut SqliteConnection,
    context: &Context,
    batch: &Batch,
    trial: &Trial,
) -> Result<Tried, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let plan = write_plan(&mut transaction, context, batch, trial.purpose()).await?;
    let refunds = task_refunds::settle_all(&mut transaction, context, trial.refunds_of.clone()).await?;
    transaction.rollback().await?;
    Ok(Tried { outcomes: plan.row_outcomes, disputed: plan.disputed, refunds })
}

async fn write_plan(
    transaction: &mut SqliteConnection,
    context: &Context,
    batch: &Batch,
    purpose: Purpose,
) -> Result<Plan, StoreError> {
    failpoint::hit("store.settle.begin")?;
    let mut snapshot = snapshot::read(transaction, batch).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    if batch.has_rows() {
        context.has_log.store(true, Ordering::Release);
    }
    if policy.reads_log || context.has_log.load(Ordering::Acquire) {
        let looks = &mut log::Looks(transaction);
        snapshot.log = Some(neighbours::read(looks, batch, policy.windows, &snapshot.prices, now).await?);
    }
    let plan = plan(batch, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    log::make_room(transaction, &plan).await?;
    write::plan(transaction, context, &plan, now).await?;
    log::write(transaction, &plan, now).await?;
    if let Some(seconds) = log_writes::seconds_of_charges(&plan)?.filter(|_| !purpose.is_dry_run()) {
        coverage::open_for(transaction, seconds).await?;
    }
    if let Some((name, value)) = context.skew.news(&plan, now) {
        source_looks::raise_note(transaction, name, value).await?;
    }
    failpoint::hit("store.settle.written")?;
    Ok(plan)
}
