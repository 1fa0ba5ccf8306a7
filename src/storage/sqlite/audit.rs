//! The looks of an audit, each one statement on a reading connection: one instant, and short.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{SqliteConnection, SqlitePool};

use super::SqliteStore;
use super::command::Command;
use super::writer::Context;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::audit::{
    AcceptedDifference, AuditFrame, AuditStore, AuditedAccount, AuditedClaim, AuditedRefund, AuditedTransaction,
    ClaimPlace, LoneEvent, NewAcceptance, ReadRow, TransactionPlace, UnclaimedRecord, UnownedSecond,
};
use crate::storage::books::BooksError;
use crate::storage::decode::BookRow;
use crate::storage::log::SourceFilter;
use crate::storage::rows::parameter;

// The ids of charges follow the order in which they were settled; claims lie in the order of their calls.
const FRAME: &str = "SELECT max(COALESCE((SELECT MAX(id) FROM usage_records), ''), COALESCE((SELECT MAX(claim_id) FROM \
       (SELECT claim_id FROM hookledger_claims ORDER BY call_second DESC, claim_id DESC LIMIT 1000)), '')), \
     COALESCE((SELECT MAX(refund_id) FROM hookledger_refunds), ''), \
     (SELECT CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'), \
     EXISTS (SELECT 1 FROM hookledger_meta WHERE name = 'claims_cleared_unsummed'), \
     (SELECT value FROM hookledger_meta WHERE name = 'installation_id')";

const CLAIMS: &str = "SELECT c.call_second, c.claim_id, c.source, c.event_id, c.event_at_ms, c.row_source, c.row_second, \
       c.row_digest, c.row_nth, c.tie_rule, c.prompt_tokens, c.completion_tokens, c.price_units, c.price_credits, \
       c.price_femtos, c.rate_micros, c.quota_per_unit, c.user_id, c.key_id, c.credits_moved, c.credits_unpaid, \
       c.remainder_before, c.remainder_after, c.rounding, u.id IS NOT NULL, k.id IS NOT NULL, \
       CAST(strftime('%s', r.timestamp) AS INTEGER), r.apiKeyId, r.promptTokens, r.completionTokens, r.creditCost, \
       w.state, w.claim_id \
     FROM hookledger_claims AS c LEFT JOIN users AS u ON u.id = c.user_id LEFT JOIN api_keys AS k ON k.id = c.key_id \
     LEFT JOIN usage_records AS r ON r.id = c.claim_id \
     LEFT JOIN hookledger_rows AS w ON w.row_second = c.row_second AND w.row_digest = c.row_digest \
       AND w.row_nth = c.row_nth AND w.source = c.row_source \
     WHERE (c.call_second, c.claim_id) > (?1, ?2) ORDER BY c.call_second, c.claim_id LIMIT ?3";

/// Greater than any text that is an id.
const BEHIND_ALL_IDS: &str = "\u{10FFFF}";

const PAGE_END: &str = "SELECT id FROM usage_records WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";

pub(super) const UNCLAIMED: &str = "SELECT r.id, CAST(strftime('%s', r.timestamp) AS INTEGER), k.userId, r.creditCost, r.rawMeta \
     FROM usage_records AS r LEFT JOIN hookledger_claims AS c \
       ON c.call_second = CAST(strftime('%s', r.timestamp) AS INTEGER) AND c.claim_id = r.id \
     LEFT JOIN api_keys AS k ON k.id = r.apiKeyId \
     WHERE r.id > ?1 AND r.id <= ?2 AND c.claim_id IS NULL ORDER BY r.id";

const REFUNDS: &str = "SELECT f.refund_id, f.claim_id, f.call_second, f.user_id, u.id IS NOT NULL, f.price_credits, \
       f.price_femtos, f.credits_moved, f.unpaid_lowered, f.remainder_before, f.remainder_after, f.refunded_at_ms, \
       f.transaction_id, t.userId, t.amount, t.type = 'REFUND', t.ref, c.claim_id IS NOT NULL, c.rounding \
     FROM hookledger_refunds AS f LEFT JOIN users AS u ON u.id = f.user_id \
     LEFT JOIN credit_transactions AS t ON t.id = f.transaction_id \
     LEFT JOIN hookledger_claims AS c ON c.call_second = f.call_second AND c.claim_id = f.claim_id \
     WHERE f.refund_id > ?1 ORDER BY f.refund_id LIMIT ?2";

const TRANSACTIONS: &str = "SELECT t.userId, t.createdAt, t.id, t.type, t.amount, t.balance, t.ref, r.id IS NOT NULL, \
       c.source, f.refund_id IS NOT NULL, b.currentCredits \
     FROM credit_transactions AS t LEFT JOIN usage_records AS r ON r.id = t.ref \
     LEFT JOIN hookledger_claims AS c \
       ON c.call_second = CAST(strftime('%s', r.timestamp) AS INTEGER) AND c.claim_id = r.id \
     LEFT JOIN hookledger_refunds AS f ON t.type = 'REFUND' AND f.claim_id = t.ref AND f.transaction_id = t.id \
     LEFT JOIN user_credit_balances AS b ON b.userId = t.userId \
     WHERE (t.userId, t.createdAt, t.id) > (?1, ?2, ?3) ORDER BY t.userId, t.createdAt, t.id LIMIT ?4";

const UNTOLD: &str = "SELECT b.userId, b.currentCredits FROM user_credit_balances AS b WHERE b.currentCredits <> 0 \
     AND NOT EXISTS (SELECT 1 FROM credit_transactions AS t WHERE t.userId = b.userId) LIMIT ?1";

const ACCOUNT_USERS: &str = "SELECT a.user_id, u.id IS NOT NULL FROM hookledger_accounts AS a LEFT JOIN users AS u \
     ON u.id = a.user_id WHERE a.user_id > ?1 ORDER BY a.user_id LIMIT ?2";

// What a charge or a refund changed of what is owed below one credit. Parts are summed in two halves: a whole sum can be
// beyond 64 bits.
const ACCOUNTS: &str = "SELECT e.value, COALESCE(a.remainder_femtos, 0), COALESCE(a.unpaid_credits, 0), \
       COALESCE(g.carried_credits, 0), COALESCE(g.carried_femtos, 0), COALESCE(g.unpaid_credits, 0), \
       COALESCE(s.credits, 0), COALESCE(s.high, 0), COALESCE(s.low, 0), COALESCE(s.unpaid, 0) \
     FROM jsonb_each(?1) AS e LEFT JOIN hookledger_accounts AS a ON a.user_id = e.value \
     LEFT JOIN hookledger_cleared_claims AS g ON g.user_id = e.value \
     LEFT JOIN (SELECT user_id, SUM(credits) AS credits, SUM(femtos / 1000000000) AS high, \
         SUM(femtos % 1000000000) AS low, SUM(unpaid) AS unpaid FROM ( \
       SELECT c.user_id, CASE WHEN c.rounding = 'carry' OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after) \
           THEN c.price_credits - c.credits_moved - c.credits_unpaid ELSE 0 END AS credits, \
         CASE WHEN c.rounding = 'carry' OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after) \
           THEN c.price_femtos ELSE 0 END AS femtos, c.credits_unpaid AS unpaid \
       FROM usage_records AS r CROSS JOIN hookledger_claims AS c \
         ON c.call_second = CAST(strftime('%s', r.timestamp) AS INTEGER) AND c.claim_id = r.id WHERE r.id > ?2 \
       UNION ALL SELECT user_id, 0, remainder_after - remainder_before, -unpaid_lowered FROM hookledger_refunds \
         WHERE refund_id > ?3) GROUP BY user_id) AS s ON s.user_id = e.value";

const READ_ROWS: &str = "SELECT w.row_second, w.row_digest, w.row_nth, w.state, w.claim_id, c.user_id, w.units, w.is_refund \
     FROM hookledger_rows AS w LEFT JOIN hookledger_claims AS c ON c.call_second = w.call_second AND c.claim_id = w.claim_id \
     WHERE w.row_second BETWEEN ?2 AND ?3 AND w.source = ?1 ORDER BY w.row_second, w.row_digest, w.row_nth LIMIT ?4";

const CLAIMS_PAGE_END: &str = "SELECT call_second, claim_id FROM hookledger_claims \
     WHERE (call_second, claim_id) > (?1, ?2) AND call_second <= ?3 ORDER BY call_second, claim_id LIMIT 1 OFFSET ?4";

const LONE_EVENTS: &str = "SELECT call_second, claim_id, COALESCE(event_id, ''), remote_key_id, model, prompt_tokens, \
       completion_tokens, price_units, user_id, credits_moved FROM hookledger_claims \
     WHERE (call_second, claim_id) > (?1, ?2) AND (call_second, claim_id) <= (?3, ?4) AND row_second IS NULL \
     ORDER BY call_second, claim_id";

const UNOWNED: &str = "SELECT row_second, remote_key_id, row_count, refund_count FROM hookledger_unowned_rows \
     WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1";

/// A whole statement's rows, each read.
macro_rules! pages {
    ($query:expr, $readers:expr, $read:path) => {
        $query.fetch_all($readers).await?.iter().map($read).collect()
    };
}

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit_frame(&self) -> Result<AuditFrame, StoreError> {
        let row = sqlx::query(FRAME).fetch_one(&self.readers).await?;
        Ok(AuditFrame {
            newest_charge: row.text(0)?,
            newest_refund: row.text(1)?,
            remembered_from_second: row.optional_number(2)?,
            has_unsummed: row.flag(3)?,
            installation: row.optional_text(4)?.unwrap_or_default(),
            id_mark: None,
        })
    }

    async fn audited_claims(&self, after: &ClaimPlace, limit: u32) -> Result<Vec<AuditedClaim>, StoreError> {
        let query = sqlx::query(CLAIMS).bind(after.call_second).bind(&after.id).bind(limit);
        pages!(query, &self.readers, AuditedClaim::read)
    }

    async fn unclaimed_records(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<UnclaimedRecord>, Option<String>), StoreError> {
        let end: Option<String> =
            sqlx::query_scalar(PAGE_END).bind(after).bind(limit).fetch_optional(&self.readers).await?;
        // The last page has an end as well: without one, a page would be looked through up to the end of the table.
        let until = end.as_deref().unwrap_or(BEHIND_ALL_IDS);
        let rows = sqlx::query(UNCLAIMED).bind(after).bind(until).fetch_all(&self.readers).await?;
        let record = |row: &sqlx::sqlite::SqliteRow| {
            Ok(UnclaimedRecord {
                id: row.text(0)?,
                second: row.optional_number(1)?.unwrap_or_default(),
                user_id: row.optional_text(2)?,
                credits: row.number(3)?,
                raw_meta: row.optional_text(4)?,
            })
        };
        Ok((rows.iter().map(record).collect::<Result<_, StoreError>>()?, end))
    }

    async fn audited_refunds(&self, after: &str, limit: u32) -> Result<Vec<AuditedRefund>, StoreError> {
        let query = sqlx::query(REFUNDS).bind(after).bind(limit);
        pages!(query, &self.readers, AuditedRefund::read)
    }

    async fn audited_transactions(
        &self,
        after: Option<&TransactionPlace>,
        limit: u32,
    ) -> Result<Vec<AuditedTransaction>, StoreError> {
        let (user, created_at, id) = after.map_or(("", "", ""), |place| (&place.user_id, &place.created_at, &place.id));
        let query = sqlx::query(TRANSACTIONS).bind(user).bind(created_at).bind(id).bind(limit);
        pages!(query, &self.readers, AuditedTransaction::read)
    }

    async fn untold_balances(&self, limit: u32) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(sqlx::query_as(UNTOLD).bind(limit).fetch_all(&self.readers).await?)
    }

    async fn account_users(&self, after: &str, limit: u32) -> Result<Vec<(String, bool)>, StoreError> {
        Ok(sqlx::query_as(ACCOUNT_USERS).bind(after).bind(limit).fetch_all(&self.readers).await?)
    }

    async fn audited_accounts(&self, frame: &AuditFrame, users: &[String]) -> Result<Vec<AuditedAccount>, StoreError> {
        let (charge, refund) = (&frame.newest_charge, &frame.newest_refund);
        let query = sqlx::query(ACCOUNTS).bind(parameter(&users)?).bind(charge).bind(refund);
        pages!(query, &self.readers, AuditedAccount::read)
    }

    async fn emails(&self, users: &[String]) -> Result<HashMap<String, String>, StoreError> {
        let found: Vec<(String, String)> =
            sqlx::query_as("SELECT id, email FROM users WHERE id IN (SELECT value FROM jsonb_each(?1))")
                .bind(parameter(&users)?)
                .fetch_all(&self.readers)
                .await?;
        Ok(found.into_iter().collect())
    }

    async fn accepted_differences(&self) -> Result<Vec<AcceptedDifference>, StoreError> {
        accepted(&self.readers).await
    }

    async fn accept_difference(&self, new: NewAcceptance) -> Result<AcceptedDifference, BooksError> {
        let new = new.checked()?;
        Ok(self.write(|reply| Command::AcceptDifference(new, reply)).await.map_err(BooksError::from)?)
    }

    async fn read_rows(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
        limit: u32,
    ) -> Result<Vec<ReadRow>, StoreError> {
        let query = sqlx::query(READ_ROWS).bind(&of.source).bind(from_second).bind(until_second).bind(limit);
        pages!(query, &self.readers, ReadRow::read)
    }

    async fn lone_events(
        &self,
        after: &ClaimPlace,
        until_second: i64,
        limit: u32,
    ) -> Result<(Vec<LoneEvent>, Option<ClaimPlace>), StoreError> {
        let page =
            sqlx::query_as(CLAIMS_PAGE_END).bind(after.call_second).bind(&after.id).bind(until_second).bind(limit);
        let end: Option<(i64, String)> = page.fetch_optional(&self.readers).await?;
        let (second, id) = end.clone().unwrap_or_else(|| (until_second, BEHIND_ALL_IDS.to_owned()));
        let query = sqlx::query(LONE_EVENTS).bind(after.call_second).bind(&after.id).bind(second).bind(id);
        let found: Result<Vec<LoneEvent>, StoreError> = pages!(query, &self.readers, LoneEvent::read);
        Ok((found?, end.map(|(call_second, id)| ClaimPlace { call_second, id })))
    }

    async fn unowned_seconds(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
    ) -> Result<Vec<UnownedSecond>, StoreError> {
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(UNOWNED)
            .bind(&of.source)
            .bind(from_second)
            .bind(until_second)
            .fetch_all(&self.readers)
            .await?;
        let unowned = |(second, remote_key_id, rows, refunds)| UnownedSecond { second, remote_key_id, rows, refunds };
        Ok(rows.into_iter().map(unowned).collect())
    }
}

async fn accepted(readers: &SqlitePool) -> Result<Vec<AcceptedDifference>, StoreError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT difference_id, reason, accepted_at_ms FROM hookledger_accepted_differences ORDER BY accepted_at_ms",
    )
    .fetch_all(readers)
    .await?;
    let accepted = |(id, reason, at)| AcceptedDifference { id, reason, accepted_at: UnixMillis::new(at).to_column() };
    Ok(rows.into_iter().map(accepted).collect())
}

/// Keeps that a person knows of a difference.
pub async fn accept(
    connection: &mut SqliteConnection,
    context: &Context,
    new: &NewAcceptance,
) -> Result<AcceptedDifference, StoreError> {
    let now = context.clock.now();
    sqlx::query(
        "INSERT INTO hookledger_accepted_differences (difference_id, reason, accepted_at_ms) VALUES (?1, ?2, ?3) \
         ON CONFLICT (difference_id) DO UPDATE SET reason = excluded.reason, accepted_at_ms = excluded.accepted_at_ms",
    )
    .bind(&new.id)
    .bind(&new.reason)
    .bind(now.as_millis())
    .execute(connection)
    .await?;
    Ok(AcceptedDifference { id: new.id.clone(), reason: new.reason.clone(), accepted_at: now.to_column() })
}
