//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes, commits.

use std::sync::atomic::Ordering;

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{log, snapshot, write};
use crate::domain::settlement::{Batch, Plan, Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::neighbours;

/// What the batch came to, after the commit.
pub async fn settle(
    connection: &mut SqliteConnection,
    context: &Context,
    batch: &Batch,
    purpose: Purpose,
) -> Result<Plan, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    failpoint::hit("store.settle.begin")?;
    let mut snapshot = snapshot::read(&mut transaction, batch).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    if batch.has_rows() {
        context.has_log.store(true, Ordering::Release);
    }
    if policy.reads_log || context.has_log.load(Ordering::Acquire) {
        let looks = &mut log::Looks(&mut transaction);
        snapshot.log = Some(neighbours::read(looks, batch, policy.windows, &snapshot.prices, now).await?);
    }
    let plan = plan(batch, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    log::make_room(&mut transaction, &plan).await?;
    write::plan(&mut transaction, context, &plan, now).await?;
    log::write(&mut transaction, &plan, now).await?;
    failpoint::hit("store.settle.written")?;
    if purpose.is_dry_run() {
        transaction.rollback().await?;
        return Ok(plan);
    }
    transaction.commit().await?;
    failpoint::hit("store.settle.committed")?;
    Ok(plan)
}
