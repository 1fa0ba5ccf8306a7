//! Gives charges back in one transaction: locks, reads, lets the domain plan, writes, commits.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};

use super::snapshot;
use super::write;
use super::writer::Context;
use crate::domain::ids::UserId;
use crate::domain::refund::{RefundOutcome, RefundRequest, RefundSnapshot, plan_refunds};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::BooksError;
use crate::storage::decode::{booked_charge, earlier_refund};
use crate::storage::rows::parameter as json;

const CHARGES_SQL: &str = "SELECT c.call_second, c.claim_id, c.user_id, \
       EXISTS (SELECT 1 FROM users AS u WHERE u.id = c.user_id), c.model, c.price_units, c.price_credits, \
       c.price_femtos, c.rate_micros, c.quota_per_unit, c.remainder_before, c.remainder_after, \
       COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0), \
       COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0), c.rounding \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_claims AS c \
     ON c.call_second = (e.value ->> 0) AND c.claim_id = (e.value ->> 1)";

const EARLIER_SQL: &str = "SELECT r.origin, r.idempotency_key, r.refund_id, r.call_second, r.claim_id, r.user_id, \
       r.price_credits, r.price_femtos, r.credits_moved, r.unpaid_lowered, r.remainder_before, r.remainder_after, \
       r.transaction_id, r.is_rest \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_refunds AS r \
     ON r.origin = (e.value ->> 0) AND r.idempotency_key = (e.value ->> 1)";

/// One outcome for each request, in their order, after the commit.
pub async fn refund(
    connection: &mut SqliteConnection,
    context: &Context,
    requests: &[RefundRequest],
    is_dry_run: bool,
) -> Result<Vec<RefundOutcome>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let snapshot = read(&mut transaction, requests).await?;
    let now = context.clock.now();
    let plan = plan_refunds(requests, snapshot, context.policy.load().rounding, now, &context.ids);
    if is_dry_run || plan.refunds.is_empty() {
        transaction.rollback().await?;
        return Ok(plan.outcomes);
    }
    write::refunds(&mut transaction, context, &plan, now).await?;
    failpoint::hit("store.refund.written")?;
    transaction.commit().await?;
    failpoint::hit("store.refund.committed")?;
    Ok(plan.outcomes)
}

async fn read(connection: &mut SqliteConnection, requests: &[RefundRequest]) -> Result<RefundSnapshot, StoreError> {
    let keys: BTreeSet<(i64, &str)> =
        requests.iter().map(|request| (request.charge.call_second, request.charge.id.as_str())).collect();
    let mut snapshot = RefundSnapshot::default();
    for row in sqlx::query(CHARGES_SQL).bind(json(&keys)?).fetch_all(&mut *connection).await? {
        let (key, charge) = booked_charge(&row)?;
        snapshot.charges.insert(key, charge);
    }
    let keys: BTreeSet<(&str, &str)> =
        requests.iter().map(|request| (request.origin.as_str(), &*request.idempotency_key)).collect();
    for row in sqlx::query(EARLIER_SQL).bind(json(&keys)?).fetch_all(&mut *connection).await? {
        let (key, earlier) = earlier_refund(&row)?;
        snapshot.earlier.insert(key, earlier);
    }
    let users: BTreeSet<&UserId> = snapshot.charges.values().map(|charge| &charge.user_id).collect();
    snapshot.accounts = snapshot::accounts(connection, users).await?;
    for earlier in snapshot.earlier.values_mut() {
        let account = snapshot.accounts.get(&earlier.refund.user_id);
        earlier.refund.balance_after = account.and_then(|account| account.balance).unwrap_or_default();
    }
    Ok(snapshot)
}

/// What a reversal selects, and what it is for.
#[derive(Debug, Clone)]
pub struct Reversal {
    pub idempotency_key: String,
    /// The filter as JSON, its user as an id.
    pub selection: String,
    pub reason: Arc<str>,
}

/// Stores a reversal, or finds an earlier run of the same. The newest settlement that it covers; none if it is finished.
pub async fn begin_reversal(
    connection: &mut SqliteConnection,
    context: &Context,
    reversal: &Reversal,
) -> Result<Option<UnixMillis>, BooksError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let earlier = sqlx::query_as::<_, (String, i64, bool)>(
        "SELECT selection, settled_until_ms, is_finished FROM hookledger_reversals WHERE idempotency_key = ?1",
    )
    .bind(&reversal.idempotency_key)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((selection, settled_until, is_finished)) = earlier {
        if selection != reversal.selection {
            return Err(BooksError::IdempotencyConflict(reversal.idempotency_key.clone()));
        }
        return Ok((!is_finished).then(|| UnixMillis::new(settled_until)));
    }
    // What was booked while a clock was ahead is covered as well.
    let newest: Option<i64> = sqlx::query_scalar(
        "SELECT MAX(settled_at_ms) FROM \
           (SELECT settled_at_ms FROM hookledger_claims ORDER BY call_second DESC, claim_id DESC LIMIT 256)",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let settled_until = context.clock.now().max(newest.map_or(UnixMillis::ZERO, UnixMillis::new));
    sqlx::query(
        "INSERT INTO hookledger_reversals (idempotency_key, selection, settled_until_ms, reason) VALUES (?1, ?2, ?3, ?4)",
    )
    .bind(&reversal.idempotency_key)
    .bind(&reversal.selection)
    .bind(settled_until.as_millis())
    .bind(&*reversal.reason)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(settled_until))
}

/// All of it was given back.
pub async fn finish_reversal(connection: &mut SqliteConnection, idempotency_key: &str) -> Result<(), BooksError> {
    sqlx::query("UPDATE hookledger_reversals SET is_finished = 1 WHERE idempotency_key = ?1")
        .bind(idempotency_key)
        .execute(connection)
        .await?;
    Ok(())
}
