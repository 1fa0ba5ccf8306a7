//! Makes a batch durable without settling it.

use std::slice;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::MySqlConnection;

use super::MysqlStore;
use super::context::Context;
use super::shard::End;
use super::{snapshot, write};
use crate::domain::event::Delivery;
use crate::domain::outcome::RecordOutcome;
use crate::domain::recording::{plan_records, plan_set_aside};
use crate::failpoint;
use crate::storage::{Poison, StoreError, stored};

impl MysqlStore {
    /// If the database refuses the data, the part is halved until the offender stands alone. Two ids that the shared table
    /// takes for equal are refused together, and each by itself is not.
    pub(super) fn record_part(&self, part: Vec<Delivery>) -> BoxFuture<'_, Result<Vec<RecordOutcome>, StoreError>> {
        Box::pin(async move {
            let part = Arc::new(part);
            let whole = part.clone();
            let work = self.recorder.transact(move |connection, context| {
                let part = whole.clone();
                Box::pin(async move { record(connection, context, &part).await })
            });
            match work.await {
                Err(StoreError::Refused(_)) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    let mut outcomes = self.record_part(left.to_vec()).await?;
                    outcomes.extend(self.record_part(right.to_vec()).await?);
                    Ok(outcomes)
                }
                recorded => recorded,
            }
        })
    }
}

/// One outcome for each delivery, in their order.
pub async fn record(
    connection: &mut MySqlConnection,
    context: &Context,
    deliveries: &[Delivery],
) -> Result<End<Vec<RecordOutcome>>, StoreError> {
    failpoint::hit("store.record.begin")?;
    let ids = deliveries.iter().map(|delivery| match delivery {
        Delivery::Usage(event) => &event.event_id,
        Delivery::Notice(notice) => &notice.event_id,
    });
    let claim_keys = deliveries.iter().filter_map(|delivery| match delivery {
        Delivery::Usage(event) => Some(stored::claim_key(&event.event_id, &event.content)),
        Delivery::Notice(_) => None,
    });
    let (mut known, taken) = snapshot::known(connection, context, ids, claim_keys).await?;
    let now = context.clock.now();
    let plan = plan_records(deliveries, &mut known, now, &context.ids);
    write::inbox(connection, context, &plan.inbox, &taken, now).await?;
    // What is processed by being recorded is a notice.
    write::unclaimed(connection, context, plan.inbox.iter()).await?;
    failpoint::hit("store.record.written")?;
    Ok(End::Commit(plan.outcomes))
}

/// Keeps an event that the database refuses to settle as failed, with what the database said.
pub async fn set_aside(
    connection: &mut MySqlConnection,
    context: &Context,
    poison: &Poison,
) -> Result<End<()>, StoreError> {
    let event = &poison.event;
    let claim_key = stored::claim_key(&event.event_id, &event.content);
    let ids = [&event.event_id].into_iter();
    let (known, taken) = snapshot::known(connection, context, ids, [claim_key].into_iter()).await?;
    let now = context.clock.now();
    let retry = context.policy.load().retry;
    let Some(row) = plan_set_aside(event, &known, &poison.reason, retry, now, &context.ids) else {
        return Ok(End::RollBack(()));
    };
    write::inbox(connection, context, slice::from_ref(&row), &taken, now).await?;
    Ok(End::Commit(()))
}
