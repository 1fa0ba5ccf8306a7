//! Writes a plan in one round trip: one statement a table, whatever the batch's size.
//!
//! Each list is one JSON parameter; a statement over an empty list does nothing. Parameters are taken in order.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::snapshot::json as parameter;
use super::writer::Context;
use crate::domain::accounts::{AccountChange, Transaction};
use crate::domain::ids::{RecordId, RemoteKeyId, RequestId};
use crate::domain::money::{Credits, QuotaUnits};
use crate::domain::outcome::fit_column;
use crate::domain::ownership::KeyHolder;
use crate::domain::recording::InboxRow;
use crate::domain::refund::{RefundAmount, RefundPlan};
use crate::domain::settlement::{Charge, Plan};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::raw_meta::raw_meta;

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
       remainder_before, remainder_after, rounding) \
     SELECT 'webhook', ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
       value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, \
       value ->> 15, value ->> 16, value ->> 17, value ->> 18, value ->> 19, value ->> 20, value ->> 21 FROM jsonb_each(?)";

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
    if plan.charges.is_empty() {
        if !plan.inbox.is_empty() {
            let query = bind_inbox(sqlx::query(NOTHING_CHARGED_SQL.as_str()), &plan.inbox, now)?;
            bind_looks(query, plan, now)?.execute(connection).await?;
        }
        return Ok(());
    }
    let at = now.to_column();
    let query = bind_inbox(sqlx::query(ALL_SQL.as_str()), &plan.inbox, now)?;
    bind_looks(query, plan, now)?
        .bind(now.as_millis())
        .bind(claims(&plan.charges)?)
        .bind(usage_records(context, &plan.charges)?)
        .bind(transactions(&plan.transactions)?)
        .bind(at.clone())
        .bind(at.clone())
        .bind(at)
        .bind(balances(context, &plan.accounts, now)?)
        .bind(accounts(&plan.accounts)?)
        .bind(key_uses(plan)?)
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
        .bind(refund_rows(plan)?)
        .bind(transactions(&plan.transactions)?)
        .bind(at.clone())
        .bind(at.clone())
        .bind(at)
        .bind(balances(context, &plan.accounts, now)?)
        .bind(accounts(&plan.accounts)?)
        .execute(connection)
        .await?;
    Ok(())
}

fn refund_rows(plan: &RefundPlan) -> Result<String, StoreError> {
    let rows = plan.refunds.iter().map(|(request, refund)| {
        let (credits, femtos) = refund.amount.split().map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            refund.id.as_str(),
            refund.charge.call_second,
            refund.charge.id.as_str(),
            request.origin.as_str(),
            &*request.idempotency_key,
            refund.user_id.as_str(),
            credits.get(),
            femtos.get(),
            refund.credits.get(),
            refund.unpaid_lowered.get(),
            refund.remainder_before.get(),
            refund.remainder_after.get(),
            &*request.reason,
            refund.transaction_id.as_ref().map(RecordId::as_str),
            i64::from(request.amount == RefundAmount::Rest),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
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
        .bind(balances(context, changes, now)?)
        .execute(connection)
        .await?;
    Ok(())
}

fn bind_inbox<'q>(query: Query<'q>, rows: &[InboxRow], now: UnixMillis) -> Result<Query<'q>, StoreError> {
    let at = now.to_column();
    let new = rows.iter().filter(|row| !row.exists);
    let new: Vec<_> = new
        .map(|row| (row.id.as_str(), row.event_id.as_str(), &*row.payload, row.status.as_str(), &row.message))
        .collect();
    let changed = rows.iter().filter(|row| row.exists);
    let changed: Vec<_> = changed.map(|row| (row.id.as_str(), row.status.as_str(), &row.message)).collect();
    let settled = rows.iter().filter(|row| row.exists && row.waiting.is_none());
    let settled: Vec<_> = settled.map(|row| row.id.as_str()).collect();
    let waiting = rows.iter().filter_map(|row| {
        let waiting = row.waiting.as_ref()?;
        let (token, called_at) = (waiting.remote_key_id.get(), waiting.called_at.as_millis());
        let due_at = waiting.due_at.map(UnixMillis::as_millis);
        let (status, reason) = (row.status.as_str(), waiting.reason.as_str());
        Some((row.id.as_str(), status, reason, token, called_at, waiting.attempts, due_at))
    });
    let waiting: Vec<_> = waiting.collect();
    Ok(query
        .bind(at.clone())
        .bind(at.clone())
        .bind(parameter(&new)?)
        .bind(at)
        .bind(parameter(&changed)?)
        .bind(parameter(&settled)?)
        .bind(now.as_millis())
        .bind(parameter(&waiting)?))
}

fn bind_looks<'q>(query: Query<'q>, plan: &Plan, now: UnixMillis) -> Result<Query<'q>, StoreError> {
    let unknown: Vec<i64> = plan.unknown_tokens.iter().map(|token| token.get()).collect();
    Ok(query.bind(now.as_millis()).bind(parameter(&unknown)?).bind(owner_rows(&plan.new_owners)?))
}

/// Tokens with their present owners, and from when on they count as such.
type NewOwners = BTreeMap<RemoteKeyId, (UnixMillis, KeyHolder)>;

/// Owners that a look was the first to see.
pub async fn owners(connection: &mut SqliteConnection, changes: &NewOwners) -> Result<(), StoreError> {
    sqlx::query(NEW_OWNERS).bind(owner_rows(changes)?).execute(connection).await?;
    Ok(())
}

fn owner_rows(changes: &NewOwners) -> Result<String, StoreError> {
    let rows = changes.iter().map(|(token, (from, holder))| {
        (token.get(), from.as_millis(), holder.user_id.as_str(), holder.key_id.as_str())
    });
    parameter(&rows.collect::<Vec<_>>())
}

fn claims(charges: &[Charge]) -> Result<String, StoreError> {
    let rows = charges.iter().map(|charge| {
        let content = &charge.event.content;
        let (price_credits, price_femtos) =
            charge.price.credits.split().map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            content.called_at.as_secs(),
            charge.id.as_str(),
            charge.event.event_id.as_str(),
            content.called_at.as_millis(),
            charge.event.request_id.as_ref().map(RequestId::as_str),
            charge.event.log_id,
            content.remote_key_id.get(),
            &*content.model,
            content.tokens.prompt,
            content.tokens.completion,
            charge.price.units.map(QuotaUnits::get),
            price_credits.get(),
            price_femtos.get(),
            charge.price.rate.micros(),
            charge.price.quota_per_unit.get(),
            charge.user_id.as_str(),
            charge.key_id.as_str(),
            charge.credits.get(),
            charge.unpaid.get(),
            charge.remainder_before.get(),
            charge.remainder_after.get(),
            charge.rounding.as_str(),
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

fn usage_records(context: &Context, charges: &[Charge]) -> Result<String, StoreError> {
    let rows = charges.iter().map(|charge| {
        let content = &charge.event.content;
        let meta = raw_meta(&context.installation, charge).map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(json!([
            charge.id.as_str(),
            charge.key_id.as_str(),
            content.called_at.to_column(),
            fit_column(&content.model),
            content.tokens.prompt,
            content.tokens.completion,
            content.tokens.total,
            charge.price.display_usd(),
            charge.credits.get(),
            meta,
        ]))
    });
    parameter(&rows.collect::<Result<Vec<Value>, StoreError>>()?)
}

fn transactions(rows: &[Transaction]) -> Result<String, StoreError> {
    let rows = rows.iter().map(|transaction| {
        json!([
            transaction.kind.as_str(),
            transaction.id.as_str(),
            transaction.user_id.as_str(),
            transaction.amount.get(),
            transaction.balance_after.get(),
            transaction.charge_id.as_str(),
            fit_column(&transaction.model),
            transaction.created_at.to_column(),
        ])
    });
    parameter(&rows.collect::<Vec<Value>>())
}

fn balances(context: &Context, changes: &[AccountChange], now: UnixMillis) -> Result<String, StoreError> {
    let moving = changes.iter().filter(|change| change.creates_balance || change.balance_delta != Credits::ZERO);
    let rows = moving
        .map(|change| json!([context.ids.next(now).as_str(), change.user_id.as_str(), change.balance_delta.get()]));
    parameter(&rows.collect::<Vec<Value>>())
}

fn accounts(changes: &[AccountChange]) -> Result<String, StoreError> {
    let rows = changes.iter().map(|change| (change.user_id.as_str(), change.remainder.get(), change.unpaid.get()));
    parameter(&rows.collect::<Vec<_>>())
}

fn key_uses(plan: &Plan) -> Result<String, StoreError> {
    let rows = plan.key_uses.iter().map(|(key_id, used_at)| (key_id.as_str(), used_at.to_column()));
    parameter(&rows.collect::<Vec<_>>())
}
