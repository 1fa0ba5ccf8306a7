//! The looks of an audit, each one plain statement on a reading connection: one instant, short, and no lock.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlRow;

use super::MysqlStore;
use super::audit_sql::{
    ACCOUNT_USERS, ACCOUNTS, CLAIMS, CLAIMS_PAGE_END, FRAME, LONE_EVENTS, PAGE_END, READ_ROWS, REFUNDS, UNCLAIMED,
    UNOWNED, transactions_sql,
};
use super::context::Context;
use super::shard::End;
use crate::domain::ids::IdMark;
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

/// A whole statement's rows, each read.
macro_rules! pages {
    ($query:expr, $store:expr, $read:path) => {
        $query.fetch_all(&$store.readers).await?.iter().map($read).collect()
    };
}

#[async_trait]
impl AuditStore for MysqlStore {
    async fn audit_frame(&self) -> Result<AuditFrame, StoreError> {
        let row = sqlx::query(self.context.sql(FRAME)).fetch_one(&self.readers).await?;
        let installation = self.context.installation.load().to_string();
        Ok(AuditFrame {
            newest_charge: row.text(0)?.max(row.text(1)?),
            newest_refund: row.text(2)?,
            remembered_from_second: row.optional_number(3)?,
            has_unsummed: row.flag(4)?,
            id_mark: Some(IdMark::of(&installation).to_string()),
            installation,
        })
    }

    async fn audited_claims(&self, after: &ClaimPlace, limit: u32) -> Result<Vec<AuditedClaim>, StoreError> {
        let ClaimPlace { call_second, id } = after.clone();
        let query = sqlx::query(self.context.sql(CLAIMS)).bind(call_second).bind(call_second).bind(id).bind(limit);
        pages!(query, self, AuditedClaim::read)
    }

    async fn unclaimed_records(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<UnclaimedRecord>, Option<String>), StoreError> {
        let after = after.to_owned();
        let end: Option<String> =
            sqlx::query_scalar(PAGE_END).bind(after.clone()).bind(limit).fetch_optional(&self.readers).await?;
        // Ids of ours begin with 0.
        let until = end.clone().unwrap_or_else(|| "1".to_owned());
        let rows = sqlx::query(self.context.sql(UNCLAIMED)).bind(after).bind(until).fetch_all(&self.readers).await?;
        let record = |row: &MySqlRow| {
            Ok(UnclaimedRecord {
                id: row.text(0)?,
                second: row.number(1)?,
                user_id: row.optional_text(2)?,
                credits: row.number(3)?,
                raw_meta: row.optional_text(4)?,
            })
        };
        Ok((rows.iter().map(record).collect::<Result<_, StoreError>>()?, end))
    }

    async fn audited_refunds(&self, after: &str, limit: u32) -> Result<Vec<AuditedRefund>, StoreError> {
        let query = sqlx::query(self.context.sql(REFUNDS)).bind(after.to_owned()).bind(limit);
        pages!(query, self, AuditedRefund::read)
    }

    /// What is left of the user of `after`; behind that, other users.
    async fn audited_transactions(
        &self,
        after: Option<&TransactionPlace>,
        limit: u32,
    ) -> Result<Vec<AuditedTransaction>, StoreError> {
        let mut found: Vec<AuditedTransaction> = Vec::new();
        if let Some(TransactionPlace { user_id, created_at, id }) = after.cloned() {
            let sql = transactions_sql("userId = ? AND createdAt >= ? AND (createdAt > ? OR id > ?)");
            let query = sqlx::query(self.context.sql(&sql));
            let query = query.bind(user_id).bind(created_at.clone()).bind(created_at).bind(id).bind(limit);
            let rows: Result<Vec<AuditedTransaction>, StoreError> = pages!(query, self, AuditedTransaction::read);
            found = rows?;
        }
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left > 0 {
            let user_id = after.map_or(String::new(), |after| after.user_id.clone());
            let sql = transactions_sql("userId > ?");
            let query = sqlx::query(self.context.sql(&sql)).bind(user_id).bind(left);
            let rows: Result<Vec<AuditedTransaction>, StoreError> = pages!(query, self, AuditedTransaction::read);
            found.extend(rows?);
        }
        Ok(found)
    }

    /// What the platform gave before we saw a user is none of ours.
    async fn untold_balances(&self, _limit: u32) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn account_users(&self, after: &str, limit: u32) -> Result<Vec<(String, bool)>, StoreError> {
        let query = sqlx::query_as(self.context.sql(ACCOUNT_USERS)).bind(after.to_owned()).bind(limit);
        Ok(query.fetch_all(&self.readers).await?)
    }

    async fn audited_accounts(&self, frame: &AuditFrame, users: &[String]) -> Result<Vec<AuditedAccount>, StoreError> {
        let query = sqlx::query(self.context.sql(ACCOUNTS))
            .bind(parameter(&users)?)
            .bind(frame.newest_charge.clone())
            .bind(frame.newest_refund.clone());
        pages!(query, self, AuditedAccount::read)
    }

    async fn emails(&self, users: &[String]) -> Result<HashMap<String, String>, StoreError> {
        const SQL: &str = "SELECT e.v, u.email FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
               v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
             STRAIGHT_JOIN users AS u ON u.id = e.v COLLATE {collation}";
        let found: Vec<(String, String)> =
            sqlx::query_as(self.context.sql(SQL)).bind(parameter(&users)?).fetch_all(&self.readers).await?;
        Ok(found.into_iter().collect())
    }

    async fn accepted_differences(&self) -> Result<Vec<AcceptedDifference>, StoreError> {
        const SQL: &str = "SELECT difference_id, reason, accepted_at_ms FROM hookledger_accepted_differences \
             ORDER BY accepted_at_ms";
        let rows: Vec<(String, String, i64)> = sqlx::query_as(self.context.sql(SQL)).fetch_all(&self.readers).await?;
        let accepted =
            |(id, reason, at)| AcceptedDifference { id, reason, accepted_at: UnixMillis::new(at).to_column() };
        Ok(rows.into_iter().map(accepted).collect())
    }

    async fn accept_difference(&self, new: NewAcceptance) -> Result<AcceptedDifference, BooksError> {
        let new = Arc::new(new.checked()?);
        let work = self.write(move |connection, context| {
            let new = new.clone();
            Box::pin(async move { accept(connection, context, &new).await })
        });
        Ok(work.await.map_err(BooksError::from)?)
    }

    async fn read_rows(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
        limit: u32,
    ) -> Result<Vec<ReadRow>, StoreError> {
        let query = sqlx::query(self.context.sql(READ_ROWS))
            .bind(from_second)
            .bind(until_second)
            .bind(of.source.clone())
            .bind(limit);
        pages!(query, self, ReadRow::read)
    }

    async fn lone_events(
        &self,
        after: &ClaimPlace,
        until_second: i64,
        limit: u32,
    ) -> Result<(Vec<LoneEvent>, Option<ClaimPlace>), StoreError> {
        let ClaimPlace { call_second, id } = after.clone();
        let page = sqlx::query_as(self.context.sql(CLAIMS_PAGE_END)).bind(call_second).bind(call_second);
        let page = page.bind(id.clone()).bind(until_second).bind(limit);
        let end: Option<(i64, String)> = page.fetch_optional(&self.readers).await?;
        // Behind all that is an id.
        let (second, last) = end.clone().unwrap_or_else(|| (until_second, "~".to_owned()));
        let query = sqlx::query(self.context.sql(LONE_EVENTS)).bind(call_second).bind(call_second).bind(id);
        let query = query.bind(second).bind(second).bind(last);
        let found: Result<Vec<LoneEvent>, StoreError> = pages!(query, self, LoneEvent::read);
        Ok((found?, end.map(|(call_second, id)| ClaimPlace { call_second, id })))
    }

    async fn unowned_seconds(
        &self,
        of: &SourceFilter,
        from_second: i64,
        until_second: i64,
    ) -> Result<Vec<UnownedSecond>, StoreError> {
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(self.context.sql(UNOWNED))
            .bind(from_second)
            .bind(until_second)
            .bind(of.source.clone())
            .fetch_all(&self.readers)
            .await?;
        let unowned = |(second, remote_key_id, rows, refunds)| UnownedSecond { second, remote_key_id, rows, refunds };
        Ok(rows.into_iter().map(unowned).collect())
    }
}

/// Keeps that a person knows of a difference.
async fn accept(
    connection: &mut MySqlConnection,
    context: &Context,
    new: &NewAcceptance,
) -> Result<End<AcceptedDifference>, StoreError> {
    const SQL: &str = "INSERT INTO hookledger_accepted_differences (difference_id, reason, accepted_at_ms) \
         VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE reason = VALUES(reason), accepted_at_ms = VALUES(accepted_at_ms)";
    let now = context.clock.now();
    sqlx::query(context.sql(SQL))
        .bind(new.id.clone())
        .bind(new.reason.clone())
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    let (id, reason) = (new.id.clone(), new.reason.clone());
    Ok(End::Commit(AcceptedDifference { id, reason, accepted_at: now.to_column() }))
}
