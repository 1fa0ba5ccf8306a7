//! Looks at what was charged: lists, one charge explained, and what a reversal may give back.
//!
//! Claims lie in the order of their calls' seconds. A look by anything but time walks them, on a reading connection,
//! which holds up nobody.

use sqlx::{MySqlPool, Row};

use super::books_read::{TRANSACTION, find_user, transaction_row};
use super::context::Names;
use super::inbox::event_time;
use crate::domain::ids::RecordId;
use crate::domain::refund::ChargeKey;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, TransactionView};
use crate::storage::charges::{ChargeDetail, ChargeFilter, ChargeSelector, ChargeView, RefundView};
use crate::storage::decode::{charge_view as view, refund_view};
use crate::storage::stored::unreadable;

const COLUMNS: &str = "c.claim_id, c.source, CONVERT(c.event_id USING utf8mb4), CONVERT(c.request_id USING utf8mb4), \
     c.log_id, COALESCE(c.event_at_ms, c.call_second * 1000), c.settled_at_ms, c.user_id, c.key_id, c.remote_key_id, \
     c.model, c.prompt_tokens, c.completion_tokens, c.price_units, c.price_credits, c.price_femtos, c.rate_micros, \
     c.quota_per_unit, c.credits_moved, c.credits_unpaid, c.remainder_before, c.remainder_after, \
     CAST(COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED), \
     CAST(COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0) AS SIGNED)";

// Decimal sums: whole credits and parts together fit.
const LEFT: &str = "(c.price_credits * CAST(1000000000000000 AS DECIMAL(40)) + c.price_femtos) > \
     (SELECT COALESCE(SUM(r.price_credits * CAST(1000000000000000 AS DECIMAL(40)) + r.price_femtos), 0) \
      FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id)";

const SELECTED: &str = "c.call_second BETWEEN ? AND ? AND (? IS NULL OR c.user_id = ?) AND (? IS NULL OR c.key_id = ?) \
     AND (? IS NULL OR c.remote_key_id = ?) AND (? IS NULL OR (c.model = ? AND BINARY c.model = ?))";

/// How far from the named instant a user's call may lie.
const NEAR_SECS: i64 = 300;

/// The filter with its user as an id.
pub async fn with_user_id(readers: &MySqlPool, filter: ChargeFilter) -> Result<ChargeFilter, BooksError> {
    let user = match &filter.user {
        Some(user) => Some(find_user(readers, user).await?.0),
        None => None,
    };
    Ok(ChargeFilter { user, ..filter })
}

type Query = sqlx::query::Query<'static, sqlx::MySql, sqlx::mysql::MySqlArguments>;

/// Binds what `SELECTED` asks for.
fn bind_filter(query: Query, filter: ChargeFilter) -> Query {
    let (since, until) = filter.seconds();
    let ChargeFilter { user, key, remote_id, model, .. } = filter;
    query
        .bind(since)
        .bind(until)
        .bind(user.clone())
        .bind(user)
        .bind(key.clone())
        .bind(key)
        .bind(remote_id)
        .bind(remote_id)
        .bind(model.clone())
        .bind(model.clone())
        .bind(model)
}

/// Newest calls first.
pub async fn list(
    readers: &MySqlPool,
    names: &Names,
    filter: ChargeFilter,
    limit: u32,
) -> Result<Vec<ChargeView>, BooksError> {
    let filter = with_user_id(readers, filter).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM hookledger_claims AS c WHERE {SELECTED} \
         ORDER BY c.call_second DESC, c.claim_id DESC LIMIT ?"
    );
    let rows = bind_filter(sqlx::query(names.sql(&sql)), filter)
        .bind(limit)
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Charges that are not given back whole, in the order of their calls.
pub async fn reversible(
    readers: &MySqlPool,
    names: &Names,
    filter: ChargeFilter,
    settled_until: UnixMillis,
    after: Option<ChargeKey>,
    limit: usize,
) -> Result<Vec<ChargeKey>, BooksError> {
    let filter = with_user_id(readers, filter).await?;
    let sql = format!(
        "SELECT c.call_second, c.claim_id FROM hookledger_claims AS c WHERE {SELECTED} AND c.settled_at_ms <= ? \
           AND (c.call_second > ? OR (c.call_second = ? AND c.claim_id > ?)) AND {LEFT} \
         ORDER BY c.call_second, c.claim_id LIMIT ?"
    );
    // So that the walk begins where the last page ended.
    let since_ms = after.as_ref().map(|after| after.call_second.saturating_mul(1000)).max(filter.since_ms);
    let filter = ChargeFilter { since_ms, ..filter };
    let (after_second, after_id) = after.map_or((-1, String::new()), |key| (key.call_second, key.id.to_string()));
    let rows = bind_filter(sqlx::query(names.sql(&sql)), filter)
        .bind(settled_until.as_millis())
        .bind(after_second)
        .bind(after_second)
        .bind(after_id)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    let key = |row: &sqlx::mysql::MySqlRow| charge_key(row.try_get(0)?, row.try_get(1)?);
    Ok(rows.iter().map(key).collect::<Result<_, _>>()?)
}

fn charge_key(call_second: i64, id: String) -> Result<ChargeKey, StoreError> {
    let id = RecordId::parse(&id).map_err(|_| unreadable("hookledger_claims.claim_id", id))?;
    Ok(ChargeKey { call_second, id })
}

type Place = (i64, String);

/// Looks where a charge should lie; where it is not there, all are walked.
async fn look_up(
    readers: &MySqlPool,
    names: &Names,
    condition: &str,
    id: &str,
    place: Option<(&str, i64)>,
) -> Result<Vec<Place>, StoreError> {
    let by = |condition: &str| {
        names.sql(&format!("SELECT call_second, claim_id FROM hookledger_claims WHERE {condition} LIMIT 10"))
    };
    if let Some((column, value)) = place {
        let sql = by(&format!("{condition} AND {column} = ?"));
        let found = sqlx::query_as(sql).bind(id.to_owned()).bind(value).fetch_all(readers).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(sqlx::query_as(by(condition)).bind(id.to_owned()).fetch_all(readers).await?)
}

/// Where the charges that a selector names lie; more than one only where an id is not unique.
async fn find(readers: &MySqlPool, names: &Names, selector: &ChargeSelector) -> Result<Vec<Place>, BooksError> {
    Ok(match selector {
        ChargeSelector::Id(id) => {
            // The usage record tells the second, unless it went with its user.
            let at = sqlx::query_scalar::<_, String>("SELECT CAST(timestamp AS CHAR) FROM usage_records WHERE id = ?")
                .bind(id)
                .fetch_optional(readers)
                .await
                .map_err(StoreError::from)?;
            let second = at.and_then(|at| UnixMillis::from_column(&at)).map(UnixMillis::as_secs);
            look_up(readers, names, "claim_id = ?", id, second.map(|second| ("call_second", second))).await?
        }
        ChargeSelector::Event(id) => {
            let at = event_time(readers, id).await?.map(UnixMillis::as_millis);
            look_up(readers, names, "event_id = CAST(? AS BINARY)", id, at.map(|at| ("event_at_ms", at))).await?
        }
        ChargeSelector::Request(id) => look_up(readers, names, "request_id = CAST(? AS BINARY)", id, None).await?,
        ChargeSelector::UserAt { user, at } => {
            let (user_id, _) = find_user(readers, user).await?;
            let sql = "SELECT call_second, claim_id FROM hookledger_claims \
                 WHERE call_second BETWEEN ? AND ? AND user_id = ? \
                 ORDER BY ABS(COALESCE(event_at_ms, call_second * 1000) - ?), claim_id LIMIT 1";
            sqlx::query_as(names.sql(sql))
                .bind(at.as_secs() - NEAR_SECS)
                .bind(at.as_secs() + NEAR_SECS)
                .bind(user_id)
                .bind(at.as_millis())
                .fetch_all(readers)
                .await
                .map_err(StoreError::from)?
        }
    })
}

/// The one charge that a selector names.
pub async fn key(readers: &MySqlPool, names: &Names, selector: ChargeSelector) -> Result<ChargeKey, BooksError> {
    let mut found = find(readers, names, &selector).await?;
    if found.len() > 1 {
        let ids = found.into_iter().map(|(_, id)| id).collect();
        return Err(BooksError::SeveralCharges { selector, ids });
    }
    let Some((call_second, id)) = found.pop() else { return Err(BooksError::NoSuchCharge(selector)) };
    Ok(charge_key(call_second, id)?)
}

/// One charge, as far as it can be told at a glance.
pub async fn charge_view(
    readers: &MySqlPool,
    names: &Names,
    key: &ChargeKey,
) -> Result<Option<ChargeView>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM hookledger_claims AS c WHERE c.call_second = ? AND c.claim_id = ?");
    let row =
        sqlx::query(names.sql(&sql)).bind(key.call_second).bind(key.id.to_string()).fetch_optional(readers).await?;
    row.as_ref().map(view).transpose()
}

/// One charge explained: whose, what moved, and what was given back.
pub async fn detail(readers: &MySqlPool, names: &Names, selector: ChargeSelector) -> Result<ChargeDetail, BooksError> {
    let key = key(readers, names, selector.clone()).await?;
    let Some(charge) = charge_view(readers, names, &key).await? else {
        return Err(BooksError::NoSuchCharge(selector));
    };
    let (email, key_label, received_at) = sqlx::query_as::<_, (Option<String>, Option<String>, Option<String>)>(
        "SELECT (SELECT email FROM users WHERE id = ?), (SELECT label FROM api_keys WHERE id = ?), \
           (SELECT CAST(createdAt AS CHAR) FROM webhook_logs WHERE eventId = ? LIMIT 1)",
    )
    .bind(&charge.user_id)
    .bind(&charge.key_id)
    .bind(&charge.event_id)
    .fetch_one(readers)
    .await
    .map_err(StoreError::from)?;
    let transaction = match charge.credits {
        0 => None,
        _ => deduction(readers, &charge).await?,
    };
    let balance_before = transaction.as_ref().map(|transaction| transaction.balance - transaction.amount);
    let refunds = refunds(readers, names, &charge.id).await?;
    Ok(ChargeDetail { charge, email, key_label, received_at, transaction, balance_before, refunds })
}

/// The transaction of a deduction. Stamps never lie before the settlement, so that the walk begins there.
async fn deduction(readers: &MySqlPool, charge: &ChargeView) -> Result<Option<TransactionView>, StoreError> {
    let sql = format!(
        "SELECT {TRANSACTION} FROM credit_transactions AS t WHERE t.userId = ? AND t.createdAt >= ? AND t.ref = ? \
           AND t.type = 'DEDUCT' ORDER BY t.createdAt LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&charge.user_id)
        .bind(&charge.settled_at)
        .bind(&charge.id)
        .fetch_optional(readers)
        .await?;
    row.as_ref().map(|row| transaction_row(row, 0)).transpose()
}

async fn refunds(readers: &MySqlPool, names: &Names, claim_id: &str) -> Result<Vec<RefundView>, StoreError> {
    let sql = format!(
        "SELECT r.refund_id, r.refunded_at_ms, r.origin, r.reason, r.idempotency_key, r.price_credits, r.price_femtos, \
           r.credits_moved, r.unpaid_lowered, r.remainder_before, r.remainder_after, {TRANSACTION} \
         FROM hookledger_refunds AS r LEFT JOIN credit_transactions AS t ON t.id = r.transaction_id COLLATE {{collation}} \
         WHERE r.claim_id = ? ORDER BY r.refunded_at_ms, r.refund_id"
    );
    let rows = sqlx::query(names.sql(&sql)).bind(claim_id.to_owned()).fetch_all(readers).await?;
    rows.iter().map(refund_view).collect()
}
