//! Writes a plan: one statement a table, whatever the batch's size. The rows come from `storage::rows`, in that order.

use std::borrow::Cow;

use sqlx::MySqlConnection;

use super::context::Context;
use super::snapshot::Taken;
use crate::domain::accounts::AccountChange;
use crate::domain::adoption::ForeignRecord;
use crate::domain::outcome::InboxStatus;
use crate::domain::recording::InboxRow;
use crate::domain::refund::RefundPlan;
use crate::domain::settlement::{Adopted, Plan};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::rows::{self, NewOwners};

const NEW_LOGS: &str = "INSERT INTO webhook_logs (createdAt, processedAt, id, eventId, payload, status, errorMsg) \
     SELECT ?, ?, e.a, e.b, e.c, e.d, e.f FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c LONGTEXT CHARACTER SET utf8mb4 PATH '$[2]', d VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]', \
       f VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]')) AS e";

// The list comes first: a walk over the table would wait for rows that others hold.
const CHANGED_LOGS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]')) AS e \
     STRAIGHT_JOIN webhook_logs AS w FORCE INDEX (PRIMARY) ON w.id = e.a COLLATE {collation} SET w.processedAt = ?, w.status = e.b, w.errorMsg = e.c";

pub(super) const NO_LONGER_WAITING: &str = "DELETE i FROM \
     JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
     STRAIGHT_JOIN hookledger_inbox AS i FORCE INDEX (PRIMARY) ON i.inbox_id = e.v COLLATE utf8mb4_bin";

pub(super) const WAITING: &str = "INSERT INTO hookledger_inbox (recorded_at_ms, inbox_id, state, reason, remote_key_id, \
       called_at_ms, attempts, due_at_ms) \
     SELECT ?, e.a, e.b, e.c, e.d, e.f, e.g, e.h FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', d BIGINT PATH '$[3]', f BIGINT PATH '$[4]', \
       g BIGINT PATH '$[5]', h BIGINT PATH '$[6]')) AS e WHERE true \
     ON DUPLICATE KEY UPDATE state = VALUES(state), reason = VALUES(reason), attempts = VALUES(attempts), \
       due_at_ms = VALUES(due_at_ms)";

pub(super) const UNCLAIMED_LOGS: &str = "INSERT IGNORE INTO hookledger_log_rows (log_id) \
     SELECT e.v FROM JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e";

const UNKNOWN_TOKENS: &str = "INSERT INTO hookledger_unknown_tokens (last_look_ms, remote_key_id, is_open) \
     SELECT ?, e.v, 1 FROM JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e WHERE true \
     ON DUPLICATE KEY UPDATE last_look_ms = GREATEST(last_look_ms, VALUES(last_look_ms)), is_open = 1";

const NEW_OWNERS: &str = "INSERT INTO hookledger_token_owners (remote_key_id, from_ms, user_id, key_id) \
     SELECT e.a, e.b, e.c, e.d FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', d VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]')) AS e";

/// Claims that were settled at this time.
macro_rules! claims {
    ($settled_at_ms:literal) => {
        concat!("INSERT INTO hookledger_claims (settled_at_ms, call_second, claim_id, event_id, event_at_ms, \
       request_id, log_id, remote_key_id, model, prompt_tokens, completion_tokens, price_units, price_credits, \
       price_femtos, rate_micros, quota_per_unit, user_id, key_id, credits_moved, credits_unpaid, remainder_before, \
       remainder_after, rounding, source, row_source, row_second, row_digest, row_nth, row_request_id, row_log_id, \
       tie_rule, untied_row_token, task_token) \
     SELECT ", $settled_at_ms, ", e.c0, e.c1, CAST(e.c2 AS BINARY), e.c3, CAST(e.c4 AS BINARY), e.c5, e.c6, e.c7, e.c8, e.c9, \
       e.c10, e.c11, e.c12, e.c13, e.c14, e.c15, e.c16, e.c17, e.c18, e.c19, e.c20, e.c21, \
       e.c22, e.r0, e.r1, e.r2, e.r3, CAST(e.r4 AS BINARY), e.r5, e.c24, e.c25, \
       CASE WHEN e.c8 = 0 AND e.c9 = 0 THEN e.c6 END \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (c0 BIGINT PATH '$[0]', c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 BIGINT PATH '$[3]', \
       c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', c5 BIGINT PATH '$[5]', c6 BIGINT PATH '$[6]', \
       c7 LONGTEXT CHARACTER SET utf8mb4 PATH '$[7]', c8 BIGINT PATH '$[8]', c9 BIGINT PATH '$[9]', \
       c10 BIGINT PATH '$[10]', c11 BIGINT PATH '$[11]', c12 BIGINT PATH '$[12]', c13 BIGINT PATH '$[13]', \
       c14 BIGINT PATH '$[14]', c15 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[15]', \
       c16 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[16]', c17 BIGINT PATH '$[17]', c18 BIGINT PATH '$[18]', \
       c19 BIGINT PATH '$[19]', c20 BIGINT PATH '$[20]', c21 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[21]', \
       c22 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[22]', r0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[23][0]', \
       r1 BIGINT PATH '$[23][1]', r2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[23][2]', \
       r3 BIGINT PATH '$[23][3]', r4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[23][4]', \
       r5 BIGINT PATH '$[23][5]', c24 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[24]', \
       c25 BIGINT PATH '$[25]')) AS e")
    };
}

pub(super) const CLAIMS: &str = claims!("?");

// A claim that is made again was settled when its id was made.
pub(super) const REBUILT_CLAIMS: &str =
    claims!("CAST(CONV(CONCAT(SUBSTRING(e.c1, 1, 8), SUBSTRING(e.c1, 10, 4)), 16, 10) AS SIGNED)");

// What was noticed before may have taken a call since.
const FOREIGN_RECORDS: &str = "INSERT INTO hookledger_foreign_records (noticed_at_ms, record_id, recorded_at_ms, \
       user_id, credits, is_adopted) \
     SELECT ?, e.a, e.b, e.c, e.d, e.f FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b BIGINT PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', d BIGINT PATH '$[3]', f BIGINT PATH '$[4]')) AS e WHERE true \
     ON DUPLICATE KEY UPDATE is_adopted = GREATEST(is_adopted, VALUES(is_adopted))";

pub(super) const USAGE_RECORDS: &str = "INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, \
       totalTokens, costUsd, creditCost, rawMeta) \
     SELECT e.c0, e.c1, e.c2, e.c3, e.c4, e.c5, e.c6, CAST(e.c7 AS DECIMAL(40, 12)), e.c8, e.c9 \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', \
       c3 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]', c4 BIGINT PATH '$[4]', c5 BIGINT PATH '$[5]', \
       c6 BIGINT PATH '$[6]', c7 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[7]', c8 BIGINT PATH '$[8]', \
       c9 LONGTEXT CHARACTER SET utf8mb4 PATH '$[9]')) AS e";

pub(super) const TRANSACTIONS: &str = "INSERT INTO credit_transactions (type, id, userId, amount, balance, ref, `desc`, createdAt) \
     SELECT e.c0, e.c1, e.c2, e.c3, e.c4, e.c5, e.c6, e.c7 \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', \
       c3 BIGINT PATH '$[3]', c4 BIGINT PATH '$[4]', c5 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[5]', \
       c6 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[6]', c7 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[7]')) AS e";

// Balances move by what was deducted, never to a value that was read before.
const BALANCES: &str = "INSERT INTO user_credit_balances (lastReplenishAt, createdAt, updatedAt, id, userId, currentCredits) \
     SELECT ?, ?, ?, e.a, e.b, e.c FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c BIGINT PATH '$[2]')) AS e WHERE true \
     ON DUPLICATE KEY UPDATE currentCredits = currentCredits + VALUES(currentCredits), updatedAt = VALUES(updatedAt)";

pub(super) const ACCOUNTS: &str = "INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits) \
     SELECT e.a, e.b, e.c FROM JSON_TABLE(?, '$[*]' COLUMNS (a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       b BIGINT PATH '$[1]', c BIGINT PATH '$[2]')) AS e WHERE true \
     ON DUPLICATE KEY UPDATE remainder_femtos = VALUES(remainder_femtos), unpaid_credits = VALUES(unpaid_credits)";

// A key's last use moves forward only.
const KEY_USES: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN api_keys AS k FORCE INDEX (PRIMARY) ON k.id = e.a COLLATE {collation} SET k.lastUsedAt = CAST(e.b AS DATETIME(3)) \
     WHERE k.lastUsedAt IS NULL OR k.lastUsedAt < CAST(e.b AS DATETIME(3))";

const REFUNDS: &str = "INSERT INTO hookledger_refunds (refunded_at_ms, refund_id, call_second, claim_id, origin, \
       idempotency_key, user_id, price_credits, price_femtos, credits_moved, unpaid_lowered, remainder_before, \
       remainder_after, reason, transaction_id, is_rest) \
     SELECT ?, e.c0, e.c1, e.c2, e.c3, e.c4, e.c5, e.c6, e.c7, e.c8, e.c9, e.c10, e.c11, e.c12, e.c13, e.c14 \
     FROM JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', \
       c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]', \
       c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', c5 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[5]', \
       c6 BIGINT PATH '$[6]', c7 BIGINT PATH '$[7]', c8 BIGINT PATH '$[8]', c9 BIGINT PATH '$[9]', \
       c10 BIGINT PATH '$[10]', c11 BIGINT PATH '$[11]', c12 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[12]', \
       c13 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[13]', c14 BIGINT PATH '$[14]')) AS e";

/// An empty list as JSON: its statement has nothing to do.
const NOTHING: &str = "[]";

/// Runs a statement over one list, unless that is empty.
pub(super) async fn each(
    connection: &mut MySqlConnection,
    context: &Context,
    sql: &str,
    before: &[&str],
    list: String,
    after: &[&str],
) -> Result<(), StoreError> {
    if list == NOTHING {
        return Ok(());
    }
    let mut query = sqlx::query(context.sql(sql));
    for value in before {
        query = query.bind((*value).to_owned());
    }
    query = query.bind(list);
    for value in after {
        query = query.bind((*value).to_owned());
    }
    query.execute(connection).await?;
    Ok(())
}

/// Everything that a settlement books.
pub async fn plan(
    connection: &mut MySqlConnection,
    context: &Context,
    plan: &Plan,
    taken: &Taken,
    now: UnixMillis,
) -> Result<(), StoreError> {
    inbox(connection, context, &plan.inbox, taken, now).await?;
    // What is processed and has a message was not charged.
    unclaimed(connection, context, plan.inbox.iter().filter(|row| row.message.is_some())).await?;
    let millis = now.as_millis().to_string();
    each(connection, context, UNKNOWN_TOKENS, &[&millis], rows::unknown_tokens(plan)?, &[]).await?;
    owners(connection, context, &plan.new_owners).await?;
    adopted(connection, context, &plan.adopted, now).await?;
    if plan.moves_nothing() {
        return Ok(());
    }
    each(connection, context, CLAIMS, &[&millis], rows::claims(&plan.charges)?, &[]).await?;
    let records = rows::usage_records(Some(&context.installation.load()), &plan.charges)?;
    each(connection, context, USAGE_RECORDS, &[], records, &[]).await?;
    each(connection, context, TRANSACTIONS, &[], rows::transactions(&plan.transactions)?, &[]).await?;
    move_balances(connection, context, &plan.accounts, now).await?;
    each(connection, context, ACCOUNTS, &[], rows::accounts(&plan.accounts)?, &[]).await?;
    each(connection, context, KEY_USES, &[], rows::key_uses(plan)?, &[]).await
}

/// Claims of what another program has charged.
async fn adopted(
    connection: &mut MySqlConnection,
    context: &Context,
    adopted: &[Adopted],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let claims =
        rows::claims_at(adopted.iter().map(|adopted| (&adopted.charge, adopted.recorded_at)), Some("adopted"))?;
    each(connection, context, CLAIMS, &[&now.as_millis().to_string()], claims, &[]).await?;
    let records = rows::adopted_records(adopted)?;
    each(connection, context, FOREIGN_RECORDS, &[&now.as_millis().to_string()], records, &[]).await
}

/// Records of other programs that a look noticed.
pub async fn foreign_records(
    connection: &mut MySqlConnection,
    context: &Context,
    records: &[ForeignRecord],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let records = rows::foreign_records(records)?;
    each(connection, context, FOREIGN_RECORDS, &[&now.as_millis().to_string()], records, &[]).await
}

/// New rows of `webhook_logs` and new states of existing ones, and our own inbox beside them. An id that the table
/// cannot hold beside another that it takes for equal is stored set apart.
pub async fn inbox(
    connection: &mut MySqlConnection,
    context: &Context,
    inbox: &[InboxRow],
    taken: &Taken,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if inbox.is_empty() {
        return Ok(());
    }
    let (at, millis) = (now.to_column(), now.as_millis().to_string());
    let stored_id = |row: &'_ InboxRow| match taken.contains(&row.event_id) {
        true => Cow::Owned(row.event_id.set_apart()),
        false => Cow::Owned(row.event_id.to_string()),
    };
    each(connection, context, NEW_LOGS, &[&at, &at], rows::new_logs(inbox, stored_id)?, &[]).await?;
    each(connection, context, CHANGED_LOGS, &[], rows::changed_logs(inbox)?, &[&at]).await?;
    each(connection, context, NO_LONGER_WAITING, &[], rows::no_longer_waiting(inbox)?, &[]).await?;
    each(connection, context, WAITING, &[&millis], rows::waiting(inbox)?, &[]).await
}

/// Keeps that processed rows of `webhook_logs` are ours, of which no claim tells it.
pub async fn unclaimed(
    connection: &mut MySqlConnection,
    context: &Context,
    rows: impl Iterator<Item = &InboxRow>,
) -> Result<(), StoreError> {
    let ids = rows::unclaimed_logs(rows.filter(|row| row.status == InboxStatus::Processed))?;
    each(connection, context, UNCLAIMED_LOGS, &[], ids, &[]).await
}

/// Owners that a look was the first to see.
pub async fn owners(
    connection: &mut MySqlConnection,
    context: &Context,
    changes: &NewOwners,
) -> Result<(), StoreError> {
    each(connection, context, NEW_OWNERS, &[], rows::owners(changes)?, &[]).await
}

/// Everything that giving back books.
pub async fn refunds(
    connection: &mut MySqlConnection,
    context: &Context,
    plan: &RefundPlan,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let millis = now.as_millis().to_string();
    each(connection, context, REFUNDS, &[&millis], rows::refunds(plan)?, &[]).await?;
    each(connection, context, TRANSACTIONS, &[], rows::transactions(&plan.transactions)?, &[]).await?;
    move_balances(connection, context, &plan.accounts, now).await?;
    each(connection, context, ACCOUNTS, &[], rows::accounts(&plan.accounts)?, &[]).await
}

/// Moves balances.
pub async fn move_balances(
    connection: &mut MySqlConnection,
    context: &Context,
    changes: &[AccountChange],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let at = now.to_column();
    each(connection, context, BALANCES, &[&at, &at, &at], rows::balances(&context.ids, changes, now)?, &[]).await
}
