//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes.

use std::sync::atomic::Ordering;

use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::snapshot::Read;
use super::{coverage, foreign, log, snapshot, source_looks, task_refunds, write};
use crate::domain::event::Content;
use crate::domain::log_snapshot::LogSnapshot;
use crate::domain::settlement::{Batch, Plan, Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::log::{Trial, Tried};
use crate::storage::{log_writes, neighbours};

/// What the batch came to.
pub async fn settle(
    connection: &mut MySqlConnection,
    context: &Context,
    batch: &Batch,
    purpose: Purpose,
) -> Result<End<Plan>, StoreError> {
    failpoint::hit("store.settle.begin")?;
    let Read { mut snapshot, taken, keys_of_tokens } = snapshot::read(connection, context, batch).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    if batch.has_rows() {
        context.has_log.store(true, Ordering::Release);
    }
    if policy.reads_log || context.has_log.load(Ordering::Acquire) {
        let looks = &mut log::Looks { connection: &mut *connection, context };
        snapshot.log = Some(neighbours::read(looks, batch, policy.windows, &snapshot.prices, now).await?);
    }
    // Those that wait may be charged as well.
    let open = snapshot.log.iter().flat_map(LogSnapshot::open_sides);
    let calls: Vec<Content> = batch.contents().chain(open.map(|side| side.content().clone())).collect();
    let reaches_back = purpose.reaches_before_takeover();
    snapshot.foreign = foreign::of_calls(connection, context, &calls, &keys_of_tokens, reaches_back).await?;
    let plan = plan(batch, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    log::make_room(connection, context, &plan).await?;
    write::plan(connection, context, &plan, &taken, now).await?;
    log::write(connection, context, &plan, now).await?;
    if let Some(seconds) = log_writes::seconds_of_charges(&plan)?.filter(|_| !purpose.is_dry_run()) {
        coverage::open_for(connection, context, seconds).await?;
    }
    if let Some((name, value)) = context.skew.news(&plan, now) {
        source_looks::raise_note(connection, context, name, value).await?;
    }
    failpoint::hit("store.settle.written")?;
    Ok(if purpose.is_dry_run() { End::RollBack(plan) } else { End::Commit(plan) })
}

/// What rows, and the refunds beside them, would come to: written, and rolled back.
pub async fn try_rows(
    connection: &mut MySqlConnection,
    context: &Context,
    batch: &Batch,
    trial: &Trial,
) -> Result<End<Tried>, StoreError> {
    let (End::Commit(plan) | End::RollBack(plan)) = settle(connection, context, batch, trial.purpose()).await?;
    let refunds = task_refunds::settle_all(connection, context, trial.refunds_of.clone()).await?;
    Ok(End::RollBack(Tried { outcomes: plan.row_outcomes, disputed: plan.disputed, refunds }))
}
