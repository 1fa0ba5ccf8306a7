//! Writes a plan: one statement a table, whatever the batch's size.

use serde_json::json;
use sqlx::SqliteConnection;

use super::snapshot::json as parameter;
use super::writer::Context;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::money::{Credits, QuotaUnits};
use crate::domain::outcome::fit_column;
use crate::domain::recording::InboxRow;
use crate::domain::settlement::{AccountChange, Charge, Plan, Transaction};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::raw_meta::raw_meta;

/// Everything that a settlement books.
pub async fn plan(
    connection: &mut SqliteConnection,
    context: &Context,
    plan: &Plan,
    now: UnixMillis,
) -> Result<(), StoreError> {
    inbox(&mut *connection, &plan.inbox, now).await?;
    if plan.charges.is_empty() {
        return Ok(());
    }
    claims(&mut *connection, &plan.charges, now).await?;
    usage_records(&mut *connection, context, &plan.charges).await?;
    transactions(&mut *connection, &plan.transactions).await?;
    balances(&mut *connection, context, &plan.accounts, now).await?;
    accounts(&mut *connection, &plan.accounts).await?;
    key_uses(&mut *connection, &plan.key_uses).await
}

/// New rows of `webhook_logs` and new states of existing ones, and our own inbox beside them.
pub async fn inbox(connection: &mut SqliteConnection, rows: &[InboxRow], now: UnixMillis) -> Result<(), StoreError> {
    let at = now.to_column();
    let new: Vec<_> = rows
        .iter()
        .filter(|row| !row.exists)
        .map(|row| (row.id.as_str(), row.event_id.as_str(), &*row.payload, row.status.as_str(), &row.message))
        .collect();
    if !new.is_empty() {
        sqlx::query(
            "INSERT INTO webhook_logs (id, eventId, payload, status, errorMsg, processedAt, createdAt) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2, ?2 FROM json_each(?1)",
        )
        .bind(parameter(&new)?)
        .bind(&at)
        .execute(&mut *connection)
        .await?;
    }
    let changed: Vec<_> =
        rows.iter().filter(|row| row.exists).map(|row| (row.id.as_str(), row.status.as_str(), &row.message)).collect();
    if !changed.is_empty() {
        sqlx::query(
            "UPDATE webhook_logs SET status = c.status, errorMsg = c.message, processedAt = ?2 \
             FROM (SELECT value ->> 0 AS id, value ->> 1 AS status, value ->> 2 AS message FROM json_each(?1)) AS c \
             WHERE webhook_logs.id = c.id",
        )
        .bind(parameter(&changed)?)
        .bind(&at)
        .execute(&mut *connection)
        .await?;
        let settled: Vec<_> = rows.iter().filter(|row| row.waiting.is_none()).map(|row| row.id.as_str()).collect();
        sqlx::query("DELETE FROM hookledger_inbox WHERE inbox_id IN (SELECT value FROM json_each(?1))")
            .bind(parameter(&settled)?)
            .execute(&mut *connection)
            .await?;
    }
    waiting(connection, rows, now).await
}

async fn waiting(connection: &mut SqliteConnection, rows: &[InboxRow], now: UnixMillis) -> Result<(), StoreError> {
    let waiting: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let waiting = row.waiting.as_ref()?;
            let (token, called_at) = (waiting.remote_key_id.get(), waiting.called_at.as_millis());
            Some((row.id.as_str(), row.status.as_str(), waiting.reason.as_str(), token, called_at))
        })
        .collect();
    if waiting.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO hookledger_inbox (inbox_id, state, reason, remote_key_id, called_at_ms, recorded_at_ms) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2 FROM json_each(?1) WHERE true \
         ON CONFLICT (inbox_id) DO UPDATE SET state = excluded.state, reason = excluded.reason",
    )
    .bind(parameter(&waiting)?)
    .bind(now.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

async fn claims(connection: &mut SqliteConnection, charges: &[Charge], now: UnixMillis) -> Result<(), StoreError> {
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
        ]))
    });
    let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
    sqlx::query(
        "INSERT INTO hookledger_claims (call_second, claim_id, source, event_id, event_at_ms, request_id, log_id, \
           remote_key_id, model, prompt_tokens, completion_tokens, price_units, price_credits, price_femtos, \
           rate_micros, quota_per_unit, user_id, key_id, credits_moved, credits_unpaid, remainder_before, \
           remainder_after, settled_at_ms) \
         SELECT value ->> 0, value ->> 1, 'webhook', value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
           value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, \
           value ->> 14, value ->> 15, value ->> 16, value ->> 17, value ->> 18, value ->> 19, value ->> 20, ?2 \
         FROM json_each(?1)",
    )
    .bind(parameter(&rows)?)
    .bind(now.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

async fn usage_records(
    connection: &mut SqliteConnection,
    context: &Context,
    charges: &[Charge],
) -> Result<(), StoreError> {
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
    let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
    sqlx::query(
        "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens, \
           costUsd, creditCost, rawMeta) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
           CAST(value ->> 7 AS REAL), value ->> 8, value ->> 9 FROM json_each(?1)",
    )
    .bind(parameter(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn transactions(connection: &mut SqliteConnection, transactions: &[Transaction]) -> Result<(), StoreError> {
    if transactions.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = transactions
        .iter()
        .map(|transaction| {
            json!([
                transaction.id.as_str(),
                transaction.user_id.as_str(),
                transaction.amount.get(),
                transaction.balance_after.get(),
                transaction.charge_id.as_str(),
                fit_column(&transaction.model),
                transaction.created_at.to_column(),
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, desc, createdAt) \
         SELECT value ->> 0, value ->> 1, 'DEDUCT', value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
         FROM json_each(?1)",
    )
    .bind(parameter(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Balances move by what was deducted, never to a value that was read before.
pub async fn balances(
    connection: &mut SqliteConnection,
    context: &Context,
    changes: &[AccountChange],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let rows: Vec<_> = changes
        .iter()
        .filter(|change| change.creates_balance || change.balance_delta != Credits::ZERO)
        .map(|change| json!([context.ids.next(now).as_str(), change.user_id.as_str(), change.balance_delta.get()]))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO user_credit_balances (id, userId, currentCredits, lastReplenishAt, createdAt, updatedAt) \
         SELECT value ->> 0, value ->> 1, value ->> 2, ?2, ?2, ?2 FROM json_each(?1) WHERE true \
         ON CONFLICT (userId) DO UPDATE SET currentCredits = currentCredits + excluded.currentCredits, \
           updatedAt = excluded.updatedAt",
    )
    .bind(parameter(&rows)?)
    .bind(now.to_column())
    .execute(connection)
    .await?;
    Ok(())
}

async fn accounts(connection: &mut SqliteConnection, changes: &[AccountChange]) -> Result<(), StoreError> {
    let rows: Vec<_> = changes
        .iter()
        .map(|change| json!([change.user_id.as_str(), change.remainder.get(), change.unpaid.get()]))
        .collect();
    sqlx::query(
        "INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits) \
         SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true \
         ON CONFLICT (user_id) DO UPDATE SET remainder_femtos = excluded.remainder_femtos, \
           unpaid_credits = excluded.unpaid_credits",
    )
    .bind(parameter(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// A key's last use moves forward only.
async fn key_uses(connection: &mut SqliteConnection, uses: &[(KeyId, UnixMillis)]) -> Result<(), StoreError> {
    let rows: Vec<_> = uses.iter().map(|(key_id, used_at)| (key_id.as_str(), used_at.to_column())).collect();
    sqlx::query(
        "UPDATE api_keys SET lastUsedAt = u.used_at \
         FROM (SELECT value ->> 0 AS id, value ->> 1 AS used_at FROM json_each(?1)) AS u \
         WHERE api_keys.id = u.id AND (api_keys.lastUsedAt IS NULL OR api_keys.lastUsedAt < u.used_at)",
    )
    .bind(parameter(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}
