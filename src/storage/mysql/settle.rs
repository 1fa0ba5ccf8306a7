//! Settles a batch in one transaction: locks, reads, lets the domain plan, writes.

use std::sync::Arc;

use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::{snapshot, write};
use crate::domain::event::UsageEvent;
use crate::domain::outcome::SettlementOutcome;
use crate::domain::settlement::{Purpose, plan};
use crate::failpoint;
use crate::storage::StoreError;

/// One outcome for each event, in their order.
pub async fn settle(
    connection: &mut MySqlConnection,
    context: &Context,
    events: &[Arc<UsageEvent>],
    purpose: Purpose,
) -> Result<End<Vec<SettlementOutcome>>, StoreError> {
    failpoint::hit("store.settle.begin")?;
    let (snapshot, taken) = snapshot::read(connection, context, events).await?;
    let now = context.clock.now();
    let policy = **context.policy.load();
    let plan = plan(events, snapshot, policy, purpose, now, &context.ids);
    failpoint::hit("store.settle.planned")?;
    write::plan(connection, context, &plan, &taken, now).await?;
    failpoint::hit("store.settle.written")?;
    Ok(if purpose.is_dry_run() { End::RollBack(plan.outcomes) } else { End::Commit(plan.outcomes) })
}
