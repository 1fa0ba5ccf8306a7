//! Gives charges back in one transaction: locks, reads, lets the domain plan, writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::{lock, write};
use crate::domain::ids::{KeyId, UserId};
use crate::domain::refund::{RefundOutcome, RefundRequest, RefundSnapshot, plan_refunds};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::BooksError;
use crate::storage::decode::{booked_charge, earlier_refund};
use crate::storage::rows::parameter;

pub(super) const USERS: &str = "SELECT DISTINCT c.user_id FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', \
       v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin";

const CHARGES: &str = "SELECT c.call_second, c.claim_id, c.user_id, \
       EXISTS (SELECT 1 FROM users AS u WHERE u.id = c.user_id COLLATE {collation}), c.model, c.price_units, \
       c.price_credits, c.price_femtos, c.rate_micros, c.quota_per_unit, c.remainder_before, c.remainder_after, \
       CAST(COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED), \
       CAST(COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED), c.rounding \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin";

const EARLIER: &str = "SELECT r.origin, r.idempotency_key, r.refund_id, r.call_second, r.claim_id, r.user_id, \
       r.price_credits, r.price_femtos, r.credits_moved, r.unpaid_lowered, r.remainder_before, r.remainder_after, \
       r.transaction_id, r.is_rest \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_refunds AS r \
       ON r.origin = e.a COLLATE utf8mb4_bin AND r.idempotency_key = e.v COLLATE utf8mb4_bin";

/// One outcome for each request, in their order.
pub async fn refund(
    connection: &mut MySqlConnection,
    context: &Context,
    requests: &[RefundRequest],
    is_dry_run: bool,
) -> Result<End<Vec<RefundOutcome>>, StoreError> {
    let snapshot = read(connection, context, requests).await?;
    let now = context.clock.now();
    let plan = plan_refunds(requests, snapshot, context.policy.load().rounding, now, &context.ids);
    if is_dry_run || plan.refunds.is_empty() {
        return Ok(End::RollBack(plan.outcomes));
    }
    write::refunds(connection, context, &plan, now).await?;
    failpoint::hit("store.refund.written")?;
    Ok(End::Commit(plan.outcomes))
}

async fn read(
    connection: &mut MySqlConnection,
    context: &Context,
    requests: &[RefundRequest],
) -> Result<RefundSnapshot, StoreError> {
    let keys: BTreeSet<(i64, &str)> =
        requests.iter().map(|request| (request.charge.call_second, request.charge.id.as_str())).collect();
    let keys = parameter(&keys)?;
    let users: Vec<String> = sqlx::query_scalar(context.sql(USERS)).bind(&keys).fetch_all(&mut *connection).await?;
    let users: BTreeSet<UserId> = users.iter().filter_map(|user| UserId::parse(user).ok()).collect();
    let locked = lock::lock(connection, context, &users, &BTreeSet::<KeyId>::new()).await?;
    let mut snapshot = RefundSnapshot { accounts: locked.accounts, ..RefundSnapshot::default() };
    for row in sqlx::query(context.sql(CHARGES)).bind(&keys).fetch_all(&mut *connection).await? {
        let (key, charge) = booked_charge(&row)?;
        // A user who is gone has no row to hold.
        if charge.has_user && locked.busy_users.contains(&charge.user_id) {
            return Err(StoreError::Contended("another program holds the user's row".to_owned()));
        }
        snapshot.charges.insert(key, charge);
    }
    let keys: BTreeSet<(&str, &str)> =
        requests.iter().map(|request| (request.origin.as_str(), &*request.idempotency_key)).collect();
    for row in sqlx::query(context.sql(EARLIER)).bind(parameter(&keys)?).fetch_all(&mut *connection).await? {
        let (key, mut earlier) = earlier_refund(&row)?;
        let account = snapshot.accounts.get(&earlier.refund.user_id);
        earlier.refund.balance_after = account.and_then(|account| account.balance).unwrap_or_default();
        snapshot.earlier.insert(key, earlier);
    }
    Ok(snapshot)
}

/// Stores a reversal, or finds an earlier run of the same. The newest settlement that it covers; none if it is finished.
pub async fn begin_reversal(
    connection: &mut MySqlConnection,
    context: &Context,
    idempotency_key: &str,
    selection: &str,
    reason: &Arc<str>,
) -> Result<End<Option<UnixMillis>>, BooksError> {
    let earlier = sqlx::query_as::<_, (String, i64, i64)>(context.sql(
        "SELECT selection, settled_until_ms, is_finished FROM hookledger_reversals WHERE idempotency_key = ? FOR UPDATE",
    ))
    .bind(idempotency_key)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((stored, settled_until, is_finished)) = earlier {
        if stored != selection {
            return Err(BooksError::IdempotencyConflict(idempotency_key.to_owned()));
        }
        return Ok(End::RollBack((is_finished == 0).then(|| UnixMillis::new(settled_until))));
    }
    // What was booked while a clock was ahead is covered as well.
    let newest: Option<i64> = sqlx::query_scalar(context.sql(
        "SELECT MAX(c.settled_at_ms) FROM \
           (SELECT settled_at_ms FROM hookledger_claims ORDER BY call_second DESC, claim_id DESC LIMIT 256) AS c",
    ))
    .fetch_one(&mut *connection)
    .await?;
    let settled_until = context.clock.now().max(newest.map_or(UnixMillis::ZERO, UnixMillis::new));
    sqlx::query(context.sql(
        "INSERT INTO hookledger_reversals (idempotency_key, selection, settled_until_ms, reason) VALUES (?, ?, ?, ?)",
    ))
    .bind(idempotency_key)
    .bind(selection)
    .bind(settled_until.as_millis())
    .bind(&**reason)
    .execute(connection)
    .await?;
    Ok(End::Commit(Some(settled_until)))
}

/// All of it was given back.
pub async fn finish_reversal(
    connection: &mut MySqlConnection,
    context: &Context,
    idempotency_key: &str,
) -> Result<End<()>, BooksError> {
    sqlx::query(context.sql("UPDATE hookledger_reversals SET is_finished = 1 WHERE idempotency_key = ?"))
        .bind(idempotency_key)
        .execute(connection)
        .await?;
    Ok(End::Commit(()))
}
