//! What a person must decide: looks on the reading connections, and the decision through the owner of the writing one.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::{SqliteStore, log, prices, snapshot};
use crate::domain::decision::{Decision, DecisionOutcome};
use crate::domain::ids::{EventId, RemoteKeyId};
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::{LogSnapshot, NumberedRow};
use crate::domain::ownership::Owner;
use crate::domain::pricing::PriceBook;
use crate::domain::settlement::{Batch, Purpose};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::BooksError;
use crate::storage::decode::{disputed_event, disputed_row, failed_row, found_row};
use crate::storage::disputes::{Disputes, EventClaim, FailedRows, FoundDispute, FoundRow, row_place};
use crate::storage::neighbours;
use crate::storage::rows::parameter;

const EVENTS: &str = "SELECT CAST(w.payload AS TEXT), CAST(w.errorMsg AS TEXT), i.recorded_at_ms \
     FROM hookledger_inbox AS i JOIN webhook_logs AS w ON w.id = i.inbox_id \
     WHERE i.reason = 'disputed' AND (?1 IS NULL OR i.remote_key_id IN (SELECT value FROM jsonb_each(?1))) \
     ORDER BY i.called_at_ms DESC, i.inbox_id DESC LIMIT ?2";

const ROWS: &str = "SELECT source, row_second, row_digest, row_nth, state, content, reason, read_at_ms \
     FROM hookledger_rows WHERE open_token IS NOT NULL AND state IN ('disputed', 'failed', 'refund_open') \
       AND (?1 IS NULL OR open_token IN (SELECT value FROM jsonb_each(?1))) \
     ORDER BY row_second DESC, row_digest, row_nth LIMIT ?2";

const FAILED: &str = "SELECT source, row_second, row_digest, row_nth, content FROM hookledger_rows \
     WHERE open_token IS NOT NULL AND state = 'failed' AND (row_second, row_digest, row_nth, source) > (?1, ?2, ?3, ?4) \
       AND (?5 IS NULL OR read_at_ms >= ?5) AND (?6 IS NULL OR read_at_ms < ?6) \
     ORDER BY row_second, row_digest, row_nth, source LIMIT ?7";

const ROW: &str = "SELECT state, content, claim_id FROM hookledger_rows \
     WHERE row_second = ?1 AND row_digest = ?2 AND row_nth = ?3 AND source = ?4";

const EVENT_CLAIM: &str =
    "SELECT claim_id, row_second IS NOT NULL FROM hookledger_claims WHERE event_at_ms = ?1 AND event_id = ?2";

#[async_trait]
impl Disputes for SqliteStore {
    async fn open_disputes(&self, tokens: Option<Vec<i64>>, limit: u32) -> Result<Vec<FoundDispute>, StoreError> {
        let tokens = tokens.map(|tokens| parameter(&tokens)).transpose()?;
        let events = sqlx::query(EVENTS).bind(&tokens).bind(limit).fetch_all(&self.readers).await?;
        let rows = sqlx::query(ROWS).bind(&tokens).bind(limit).fetch_all(&self.readers).await?;
        let found = events.iter().map(disputed_event::<SqliteRow>).chain(rows.iter().map(disputed_row::<SqliteRow>));
        found.filter_map(Result::transpose).collect()
    }

    async fn near(&self, batch: &Batch) -> Result<(LogSnapshot, PriceBook), StoreError> {
        let prices = prices::read(&self.readers).await?;
        let mut connection = self.readers.acquire().await?;
        let looks = &mut log::Looks(&mut connection);
        let log = neighbours::read(looks, batch, self.writer.policy().windows, &prices, self.clock.now()).await?;
        Ok((log, prices))
    }

    async fn owners(&self, tokens: &[RemoteKeyId]) -> Result<HashMap<RemoteKeyId, Owner>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        Ok(snapshot::ownership(&mut connection, tokens).await?.0)
    }

    async fn claim_of_event(&self, event_id: &EventId, at: UnixMillis) -> Result<Option<EventClaim>, StoreError> {
        let found = sqlx::query_as::<_, (String, bool)>(EVENT_CLAIM)
            .bind(at.as_millis())
            .bind(event_id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.map(|(claim_id, has_row)| EventClaim { claim_id, has_row }))
    }

    async fn failed_rows(&self, selection: FailedRows, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
        let FailedRows { since, until, after } = selection;
        let (second, digest, number, source) = row_place(after);
        let rows = sqlx::query(FAILED)
            .bind(second)
            .bind(digest)
            .bind(number)
            .bind(source)
            .bind(since.map(UnixMillis::as_millis))
            .bind(until.map(UnixMillis::as_millis))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(failed_row::<SqliteRow>).filter_map(Result::transpose).collect()
    }

    async fn row(&self, identity: &RowIdentity) -> Result<Option<FoundRow>, StoreError> {
        let found = sqlx::query(ROW)
            .bind(identity.second)
            .bind(identity.digest.as_str())
            .bind(identity.number)
            .bind(&*identity.source)
            .fetch_optional(&self.readers)
            .await?;
        found.as_ref().map(found_row).transpose()
    }

    async fn decide(&self, decision: Decision) -> Result<DecisionOutcome, BooksError> {
        let batch = Batch { decisions: vec![decision], ..Batch::default() };
        let plan = self.settle_batch(batch, Purpose::BY_A_PERSON).await;
        Ok(plan?.decisions.pop().unwrap_or(DecisionOutcome::Settled))
    }
}
