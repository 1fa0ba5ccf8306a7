//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes.

use std::sync::atomic::Ordering;

use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::{log, snapshot, write};
use crate::domain::settlement::{Batch, Plan, Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::neighbours;

/// What the batch came to.
pub async fn settle(
    connection: &mut MySqlConnection,
    context: &Context,
    batch: &Batch,
    purpose: Purpose,
) -> Result<End<Plan>, StoreError> {
    failpoint::hit("store.settle.begin")?;
    let (mut snapshot, taken) = snapshot::read(connection, context, batch).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    if batch.has_rows() {
        context.has_log.store(true, Ordering::Release);
    }
    if policy.reads_log || context.has_log.load(Ordering::Acquire) {
        let looks = &mut log::Looks { connection: &mut *connection, context };
        snapshot.log = Some(neighbours::read(looks, batch, policy.windows, &snapshot.prices, now).await?);
    }
    let plan = plan(batch, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    write::plan(connection, context, &plan, &taken, now).await?;
    log::write(connection, context, &plan, now).await?;
    failpoint::hit("store.settle.written")?;
    Ok(if purpose.is_dry_run() { End::RollBack(plan) } else { End::Commit(plan) })
}
