//! Makes a batch durable without settling it.

use std::slice;

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::event::Delivery;
use crate::domain::outcome::RecordOutcome;
use crate::domain::recording::{plan_records, plan_set_aside};
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
    let now = context.clock.now();
    let retry = context.policy.load().retry;
    let Some(row) = plan_set_aside(event, &known, &poison.reason, retry, now, &context.ids) else {
        return Ok(());
    };
    write::inbox(&mut transaction, slice::from_ref(&row), now).await?;
    transaction.commit().await?;
    Ok(())
}
