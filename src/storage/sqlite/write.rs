//! Writes a plan in one round trip: one statement a table, whatever the batch's size.
//!
//! Each list is one JSON parameter; a statement over an empty list does nothing. Parameters are taken in order.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::SqliteConnection;

use super::writer::Context;
use crate::domain::accounts::AccountChange;
use crate::domain::recording::InboxRow;
use crate::domain::refund::RefundPlan;
use crate::domain::settlement::Plan;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::rows::{self, NewOwners};

const NEW_ROWS: &str = "INSERT INTO webhook_logs (createdAt, processedAt, id, eventId, payload, status, errorMsg) \
     SELECT ?, ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM jsonb_each(?)";

const CHANGED_ROWS: &str = "UPDATE webhook_logs SET processedAt = ?, status = c.status, errorMsg = c.message \
     FROM (SELECT value ->> 0 AS id, value ->> 1 AS status, value ->> 2 AS message FROM jsonb_each(?)) AS c \
     WHERE webhook_logs.id = c.id";

const NO_LONGER_WAITING: &str = "DELETE FROM hookledger_inbox WHERE inbox_id IN (SELECT value FROM jsonb_each(?))";

const WAITING: &str = "INSERT INTO hookledger_inbox (recorded_at_ms, inbox_id, state, reason, remote_key_id, \
       called_at_ms, attempts, due_at_ms) \
     SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
     FROM jsonb_each(?) WHERE true \
     ON CONFLICT (inbox_id) DO UPDATE SET state = excluded.state, reason = excluded.reason, \
       attempts = excluded.attempts, due_at_ms = excluded.due_at_ms";

const UNKNOWN_TOKENS: &str = "INSERT INTO hookledger_unknown_tokens (last_look_ms, remote_key_id) \
     SELECT ?, value FROM jsonb_each(?) WHERE true \
     ON CONFLICT (remote_key_id) DO UPDATE SET last_look_ms = max(last_look_ms, excluded.last_look_ms), is_open = 1";

const NEW_OWNERS: &str = "INSERT INTO hookledger_token_owners (remote_key_id, from_ms, user_id, key_id) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each(?)";

const CLAIMS: &str = "INSERT INTO hookledger_claims (source, settled_at_ms, call_second, claim_id, event_id, \
       event_at_ms, request_id, log_id, remote_key_id, model, prompt_tokens, completion_tokens, price_units, \
       price_credits, price_femtos, rate_micros, quota_per_unit, user_id, key_id, credits_moved, credits_unpaid, \
       remainder_before, remainder_after, rounding, row_source, row_second, row_digest, row_nth, row_request_id, \
       row_log_id, tie_rule, untied_row_token, task_token) \
     SELECT value ->> 22, ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
       value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, \
       value ->> 15, value ->> 16, value ->> 17, value ->> 18, value ->> 19, value ->> 20, value ->> 21, \
       value -> 23 ->> 0, value -> 23 ->> 1, value -> 23 ->> 2, value -> 23 ->> 3, value -> 23 ->> 4, \
       value -> 23 ->> 5, value ->> 24, value ->> 25, \
       CASE WHEN value ->> 8 = 0 AND value ->> 9 = 0 THEN value ->> 6 END FROM jsonb_each(?)";

const USAGE_RECORDS: &str = "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, \
       completionTokens, totalTokens, costUsd, creditCost, rawMeta) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
       CAST(value ->> 7 AS REAL), value ->> 8, value ->> 9 FROM jsonb_each(?)";

const TRANSACTIONS: &str = "INSERT INTO credit_transactions (type, id, userId, amount, balance, ref, desc, createdAt) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7 \
     FROM jsonb_each(?)";

// Balances move by what was deducted, never to a value that was read before.
const BALANCES: &str = "INSERT INTO user_credit_balances (lastReplenishAt, createdAt, updatedAt, id, userId, \
       currentCredits) \
     SELECT ?, ?, ?, value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?) WHERE true \
     ON CONFLICT (userId) DO UPDATE SET currentCredits = currentCredits + excluded.currentCredits, \
       updatedAt = excluded.updatedAt";

const ACCOUNTS: &str = "INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits) \
     SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?) WHERE true \
     ON CONFLICT (user_id) DO UPDATE SET remainder_femtos = excluded.remainder_femtos, \
       unpaid_credits = excluded.unpaid_credits";

// A key's last use moves forward only.
const KEY_USES: &str = "UPDATE api_keys SET lastUsedAt = u.used_at \
     FROM (SELECT value ->> 0 AS id, value ->> 1 AS used_at FROM jsonb_each(?)) AS u \
     WHERE api_keys.id = u.id AND (api_keys.lastUsedAt IS NULL OR api_keys.lastUsedAt < u.used_at)";

const INBOX: [&str; 4] = [NEW_ROWS, CHANGED_ROWS, NO_LONGER_WAITING, WAITING];
const BOOKS: [&str; 6] = [CLAIMS, USAGE_RECORDS, TRANSACTIONS, BALANCES, ACCOUNTS, KEY_USES];

static INBOX_SQL: LazyLock<String> = LazyLock::new(|| INBOX.join(";\n"));
const LOOKS: [&str; 2] = [UNKNOWN_TOKENS, NEW_OWNERS];
static NOTHING_CHARGED_SQL: LazyLock<String> = LazyLock::new(|| [&INBOX[..], &LOOKS[..]].concat().join(";\n"));
static ALL_SQL: LazyLock<String> = LazyLock::new(|| [&INBOX[..], &LOOKS[..], &BOOKS[..]].concat().join(";\n"));

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Everything that a settlement books.
pub async fn plan(
    connection: &mut SqliteConnection,
    context: &Context,
    plan: &Plan,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if plan.moves_nothing() {
        if !plan.inbox.is_empty() || !plan.unknown_tokens.is_empty() || !plan.new_owners.is_empty() {
            let query = bind_inbox(sqlx::query(NOTHING_CHARGED_SQL.as_str()), &plan.inbox, now)?;
            bind_looks(query, plan, now)?.execute(connection).await?;
        }
        return Ok(());
    }
    let at = now.to_column();
    let query = bind_inbox(sqlx::query(ALL_SQL.as_str()), &plan.inbox, now)?;
    bind_looks(query, plan, now)?
        .bind(now.as_millis())
        .bind(rows::claims(&plan.charges)?)
        .bind(rows::usage_records(Some(&context.installation), &plan.charges)?)
        .bind(rows::transactions(&plan.transactions)?)
        .bind(at.clone())
        .bind(at.clone())
        .bind(at)
        .bind(rows::balances(&context.ids, &plan.accounts, now)?)
        .bind(rows::accounts(&plan.accounts)?)
        .bind(rows::key_uses(plan)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// New rows of `webhook_logs` and new states of existing ones, and our own inbox beside them.
pub async fn inbox(connection: &mut SqliteConnection, rows: &[InboxRow], now: UnixMillis) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    bind_inbox(sqlx::query(INBOX_SQL.as_str()), rows, now)?.execute(connection).await?;
    Ok(())
}

const REFUNDS: &str = "INSERT INTO hookledger_refunds (refunded_at_ms, refund_id, call_second, claim_id, origin, \
       idempotency_key, user_id, price_credits, price_femtos, credits_moved, unpaid_lowered, remainder_before, \
       remainder_after, reason, transaction_id, is_rest) \
     SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
       value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14 FROM jsonb_each(?)";

static REFUNDS_SQL: LazyLock<String> = LazyLock::new(|| [REFUNDS, TRANSACTIONS, BALANCES, ACCOUNTS].join(";\n"));

/// Everything that giving back books.
pub async fn refunds(
    connection: &mut SqliteConnection,
    context: &Context,
    plan: &RefundPlan,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let at = now.to_column();
    sqlx::query(REFUNDS_SQL.as_str())
        .bind(now.as_millis())
        .bind(rows::refunds(plan)?)
        .bind(rows::transactions(&plan.transactions)?)
        .bind(at.clone())
        .bind(at.clone())
        .bind(at)
        .bind(rows::balances(&context.ids, &plan.accounts, now)?)
        .bind(rows::accounts(&plan.accounts)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves balances outside a settlement.
pub async fn move_balances(
    connection: &mut SqliteConnection,
    context: &Context,
    changes: &[AccountChange],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let at = now.to_column();
    sqlx::query(BALANCES)
        .bind(at.clone())
        .bind(at.clone())
        .bind(at)
        .bind(rows::balances(&context.ids, changes, now)?)
        .execute(connection)
        .await?;
    Ok(())
}

fn bind_inbox<'q>(query: Query<'q>, rows: &[InboxRow], now: UnixMillis) -> Result<Query<'q>, StoreError> {
    let at = now.to_column();
    Ok(query
        .bind(at.clone())
        .bind(at.clone())
        .bind(rows::new_logs(rows, |row| Cow::Borrowed(row.event_id.as_str()))?)
        .bind(at)
        .bind(rows::changed_logs(rows)?)
        .bind(rows::no_longer_waiting(rows)?)
        .bind(now.as_millis())
        .bind(rows::waiting(rows)?))
}

fn bind_looks<'q>(query: Query<'q>, plan: &Plan, now: UnixMillis) -> Result<Query<'q>, StoreError> {
    Ok(query.bind(now.as_millis()).bind(rows::unknown_tokens(plan)?).bind(rows::owners(&plan.new_owners)?))
}

/// Owners that a look was the first to see.
pub async fn owners(connection: &mut SqliteConnection, changes: &NewOwners) -> Result<(), StoreError> {
    sqlx::query(NEW_OWNERS).bind(rows::owners(changes)?).execute(connection).await?;
    Ok(())
}
