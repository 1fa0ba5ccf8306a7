//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes, commits.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::event::UsageEvent;
use crate::domain::outcome::SettlementOutcome;
use crate::domain::settlement::{Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;

/// One outcome for each event, in their order, after the commit.
pub async fn settle(
    connection: &mut SqliteConnection,
    context: &Context,
    events: &[Arc<UsageEvent>],
    purpose: Purpose,
) -> Result<Vec<SettlementOutcome>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    failpoint::hit("store.settle.begin")?;
    let snapshot = snapshot::read(&mut transaction, events).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    let plan = plan(events, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    write::plan(&mut transaction, context, &plan, now).await?;
    failpoint::hit("store.settle.written")?;
    if purpose.is_dry_run() {
        transaction.rollback().await?;
        return Ok(plan.outcomes);
    }
    transaction.commit().await?;
    failpoint::hit("store.settle.committed")?;
    Ok(plan.outcomes)
}
