//! Looks at what was charged: lists, one charge explained, and what a reversal may give back.
//!
//! Claims lie in the order of their calls' seconds. A look by anything but time walks them, on a reading connection,
//! which holds up nobody.

use sqlx::{AssertSqlSafe, SqlitePool};

use super::books_read::{TransactionRow, find_user};
use super::inbox::event_time;
use crate::domain::ids::RecordId;
use crate::domain::refund::ChargeKey;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, TransactionView};
use crate::storage::charges::{ChargeDetail, ChargeFilter, ChargeSelector, ChargeView, RefundView};
use crate::storage::decode::{charge_view as view, refund_view};
use crate::storage::stored::unreadable;

const COLUMNS: &str = "c.claim_id, c.source, c.event_id, c.request_id, c.log_id, \
     COALESCE(c.event_at_ms, c.call_second * 1000), c.settled_at_ms, c.user_id, c.key_id, c.remote_key_id, c.model, \
     c.prompt_tokens, c.completion_tokens, c.price_units, c.price_credits, c.price_femtos, c.rate_micros, \
     c.quota_per_unit, c.credits_moved, c.credits_unpaid, c.remainder_before, c.remainder_after, \
     COALESCE((SELECT SUM(r.price_credits) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0), \
     COALESCE((SELECT SUM(r.price_femtos) FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id), 0)";

// Parts that make whole credits together are carried over, so that equal amounts have equal columns.
const REFUNDED: &str = "(SELECT COALESCE(SUM(r.price_credits), 0) + COALESCE(SUM(r.price_femtos), 0) / 1000000000000000, \
       COALESCE(SUM(r.price_femtos), 0) % 1000000000000000 \
     FROM hookledger_refunds AS r WHERE r.claim_id = c.claim_id)";

const SELECTED: &str = "c.call_second BETWEEN ?1 AND ?2 AND (?3 IS NULL OR c.user_id = ?3) \
     AND (?4 IS NULL OR c.key_id = ?4) AND (?5 IS NULL OR c.remote_key_id = ?5) AND (?6 IS NULL OR c.model = ?6)";

/// How far from the named instant a user's call may lie.
const NEAR_SECS: i64 = 300;

/// The filter with its user as an id.
pub async fn with_user_id(readers: &SqlitePool, filter: ChargeFilter) -> Result<ChargeFilter, BooksError> {
    let user = match &filter.user {
        Some(user) => Some(find_user(readers, user).await?.0),
        None => None,
    };
    Ok(ChargeFilter { user, ..filter })
}

/// Newest calls first.
pub async fn list(readers: &SqlitePool, filter: ChargeFilter, limit: u32) -> Result<Vec<ChargeView>, BooksError> {
    let filter = with_user_id(readers, filter).await?;
    let (since, until) = filter.seconds();
    let sql = format!(
        "SELECT {COLUMNS} FROM hookledger_claims AS c WHERE {SELECTED} \
         ORDER BY c.call_second DESC, c.claim_id DESC LIMIT ?7"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(since)
        .bind(until)
        .bind(filter.user)
        .bind(filter.key)
        .bind(filter.remote_id)
        .bind(filter.model)
        .bind(limit)
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Charges that are not given back whole, in the order of their calls.
pub async fn reversible(
    readers: &SqlitePool,
    filter: ChargeFilter,
    settled_until: UnixMillis,
    after: Option<ChargeKey>,
    limit: usize,
) -> Result<Vec<ChargeKey>, BooksError> {
    let filter = with_user_id(readers, filter).await?;
    let (since, until) = filter.seconds();
    // So that the walk begins where the last page ended.
    let since = after.as_ref().map_or(since, |after| after.call_second.max(since));
    let sql = format!(
        "SELECT c.call_second, c.claim_id FROM hookledger_claims AS c WHERE {SELECTED} AND c.settled_at_ms <= ?7 \
           AND (c.call_second, c.claim_id) > (?8, ?9) AND (c.price_credits, c.price_femtos) > (0, 0) \
           AND (c.price_credits, c.price_femtos) <> {REFUNDED} \
         ORDER BY c.call_second, c.claim_id LIMIT ?10"
    );
    let after = after.map_or((-1, String::new()), |key| (key.call_second, key.id.to_string()));
    let rows = sqlx::query_as::<_, (i64, String)>(AssertSqlSafe(sql))
        .bind(since)
        .bind(until)
        .bind(filter.user)
        .bind(filter.key)
        .bind(filter.remote_id)
        .bind(filter.model)
        .bind(settled_until.as_millis())
        .bind(after.0)
        .bind(after.1)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    let key = |(call_second, id): (i64, String)| match RecordId::parse(&id) {
        Ok(id) => Ok(ChargeKey { call_second, id }),
        Err(_) => Err(unreadable("hookledger_claims.claim_id", id)),
    };
    Ok(rows.into_iter().map(key).collect::<Result<_, _>>()?)
}

type Place = (i64, String);

/// Looks where a charge should lie; where it is not there, all are walked.
async fn look_up(
    readers: &SqlitePool,
    condition: &str,
    id: &str,
    place: Option<(&str, i64)>,
) -> Result<Vec<Place>, StoreError> {
    let by = |condition: &str| {
        AssertSqlSafe(format!("SELECT call_second, claim_id FROM hookledger_claims WHERE {condition} LIMIT 10"))
    };
    if let Some((column, value)) = place {
        let sql = by(&format!("{condition} AND {column} = ?2"));
        let found = sqlx::query_as(sql).bind(id.to_owned()).bind(value).fetch_all(readers).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(sqlx::query_as(by(condition)).bind(id.to_owned()).fetch_all(readers).await?)
}

/// Where the charges that a selector names lie; more than one only where an id is not unique.
async fn find(readers: &SqlitePool, selector: &ChargeSelector) -> Result<Vec<Place>, BooksError> {
    Ok(match selector {
        ChargeSelector::Id(id) => {
            // The usage record tells the second, unless it went with its user.
            let at = sqlx::query_scalar::<_, String>("SELECT timestamp FROM usage_records WHERE id = ?1")
                .bind(id)
                .fetch_optional(readers)
                .await
                .map_err(StoreError::from)?;
            let second = at.and_then(|at| UnixMillis::from_column(&at)).map(UnixMillis::as_secs);
            look_up(readers, "claim_id = ?1", id, second.map(|second| ("call_second", second))).await?
        }
        ChargeSelector::Event(id) => {
            let at = event_time(readers, id).await?.map(UnixMillis::as_millis);
            look_up(readers, "event_id = ?1", id, at.map(|at| ("event_at_ms", at))).await?
        }
        ChargeSelector::Request(id) => look_up(readers, "request_id = ?1", id, None).await?,
        ChargeSelector::UserAt { user, at } => {
            let (user_id, _) = find_user(readers, user).await?;
            let sql = "SELECT call_second, claim_id FROM hookledger_claims \
                 WHERE call_second BETWEEN ?2 - ?3 AND ?2 + ?3 AND user_id = ?1 \
                 ORDER BY abs(COALESCE(event_at_ms, call_second * 1000) - ?4), claim_id LIMIT 1";
            let query = sqlx::query_as(sql).bind(user_id).bind(at.as_secs()).bind(NEAR_SECS).bind(at.as_millis());
            query.fetch_all(readers).await.map_err(StoreError::from)?
        }
    })
}

/// The one charge that a selector names.
pub async fn key(readers: &SqlitePool, selector: ChargeSelector) -> Result<ChargeKey, BooksError> {
    let mut found = find(readers, &selector).await?;
    if found.len() > 1 {
        let ids = found.into_iter().map(|(_, id)| id).collect();
        return Err(BooksError::SeveralCharges { selector, ids });
    }
    let Some((call_second, id)) = found.pop() else { return Err(BooksError::NoSuchCharge(selector)) };
    let id = RecordId::parse(&id).map_err(|_| unreadable("hookledger_claims.claim_id", id))?;
    Ok(ChargeKey { call_second, id })
}

/// One charge, as far as it can be told at a glance.
pub async fn charge_view(readers: &SqlitePool, key: &ChargeKey) -> Result<Option<ChargeView>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM hookledger_claims AS c WHERE c.call_second = ?1 AND c.claim_id = ?2");
    let row =
        sqlx::query(AssertSqlSafe(sql)).bind(key.call_second).bind(key.id.as_str()).fetch_optional(readers).await?;
    row.as_ref().map(view).transpose()
}

/// One charge explained: whose, what moved, and what was given back.
pub async fn detail(readers: &SqlitePool, selector: ChargeSelector) -> Result<ChargeDetail, BooksError> {
    let key = key(readers, selector.clone()).await?;
    let Some(charge) = charge_view(readers, &key).await? else { return Err(BooksError::NoSuchCharge(selector)) };
    let (email, key_label, received_at) = sqlx::query_as::<_, (Option<String>, Option<String>, Option<String>)>(
        "SELECT (SELECT email FROM users WHERE id = ?1), (SELECT label FROM api_keys WHERE id = ?2), \
           (SELECT createdAt FROM webhook_logs WHERE eventId = ?3)",
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
    let refunds = refunds(readers, &charge.id).await?;
    Ok(ChargeDetail { charge, email, key_label, received_at, transaction, balance_before, refunds })
}

/// The transaction of a deduction. Stamps never lie before the settlement, so that the walk begins there.
async fn deduction(readers: &SqlitePool, charge: &ChargeView) -> Result<Option<TransactionView>, StoreError> {
    let row = sqlx::query_as::<_, TransactionRow>(
        "SELECT id, createdAt, type, amount, balance, desc, ref FROM credit_transactions \
         WHERE userId = ?1 AND createdAt >= ?2 AND ref = ?3 AND type = 'DEDUCT' ORDER BY createdAt LIMIT 1",
    )
    .bind(&charge.user_id)
    .bind(&charge.settled_at)
    .bind(&charge.id)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(TransactionView::from))
}

const REFUNDS_SQL: &str = "SELECT r.refund_id, r.refunded_at_ms, r.origin, r.reason, r.idempotency_key, r.price_credits, \
       r.price_femtos, r.credits_moved, r.unpaid_lowered, r.remainder_before, r.remainder_after, \
       t.id, t.createdAt, t.type, t.amount, t.balance, t.desc, t.ref \
     FROM hookledger_refunds AS r LEFT JOIN credit_transactions AS t ON t.id = r.transaction_id \
     WHERE r.claim_id = ?1 ORDER BY r.refunded_at_ms, r.refund_id";

async fn refunds(readers: &SqlitePool, claim_id: &str) -> Result<Vec<RefundView>, StoreError> {
    let rows = sqlx::query(REFUNDS_SQL).bind(claim_id).fetch_all(readers).await?;
    rows.iter().map(refund_view).collect()
}
