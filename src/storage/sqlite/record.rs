//! Makes a batch durable without settling it.

use std::slice;

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::event::Delivery;
use crate::domain::known::{Standing, standing};
use crate::domain::outcome::{Failure, RecordOutcome};
use crate::domain::recording::{InboxRow, WaitReason, Waiting, plan_records};
use crate::failpoint;
use crate::storage::{Poison, StoreError, stored};

/// One outcome for each delivery, in their order, after the commit.
pub async fn record(
    connection: &mut SqliteConnection,
    context: &Context,
    deliveries: &[Delivery],
) -> Result<Vec<RecordOutcome>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    failpoint::hit("store.record.begin")?;
    let ids = deliveries.iter().map(|delivery| match delivery {
        Delivery::Usage(event) => &event.event_id,
        Delivery::Notice(notice) => &notice.event_id,
    });
    let claim_keys = deliveries.iter().filter_map(|delivery| match delivery {
        Delivery::Usage(event) => Some(stored::claim_key(&event.event_id, &event.content)),
        Delivery::Notice(_) => None,
    });
    let mut known = snapshot::known(&mut transaction, ids, claim_keys).await?;
    let now = context.clock.now();
    let plan = plan_records(deliveries, &mut known, now, &context.ids);
    write::inbox(&mut transaction, &plan.inbox, now).await?;
    failpoint::hit("store.record.written")?;
    transaction.commit().await?;
    failpoint::hit("store.record.committed")?;
    Ok(plan.outcomes)
}

/// Keeps an event that the database refuses to settle as failed, with what the database said.
pub async fn set_aside(
    connection: &mut SqliteConnection,
    context: &Context,
    poison: &Poison,
) -> Result<(), StoreError> {
    let event = &poison.event;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let claim_key = stored::claim_key(&event.event_id, &event.content);
    let known = snapshot::known(&mut transaction, [&event.event_id].into_iter(), [claim_key].into_iter()).await?;
    let (existing, attempts) = match standing(known.get(&event.event_id), event) {
        Standing::New => (None, 0),
        Standing::Open(open) => (Some(open.inbox_id), open.attempts),
        Standing::Charged | Standing::Closed(_) | Standing::Conflicting => return Ok(()),
    };
    let now = context.clock.now();
    let after = context.policy.load().retry.after_error(attempts, &event.event_id, now);
    let row = InboxRow {
        exists: existing.is_some(),
        id: existing.unwrap_or_else(|| context.ids.next(now)),
        event_id: event.event_id.clone(),
        payload: event.payload.clone(),
        status: after.status,
        message: Some(Failure::Unbookable(poison.reason.clone()).message()),
        waiting: Some(Waiting {
            reason: WaitReason::Unbookable,
            remote_key_id: event.content.remote_key_id,
            called_at: event.content.called_at,
            attempts: after.attempts,
            due_at: after.due_at,
        }),
    };
    write::inbox(&mut transaction, slice::from_ref(&row), now).await?;
    transaction.commit().await?;
    Ok(())
}
