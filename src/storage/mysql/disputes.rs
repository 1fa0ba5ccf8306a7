//! What a person must decide: looks on the reading connections, and the decision in a transaction of its own.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;

use super::{MysqlStore, log, prices, snapshot};
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

const EVENTS: &str = "SELECT w.payload, w.errorMsg, i.recorded_at_ms FROM hookledger_inbox AS i \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     WHERE i.reason = 'disputed' AND (? IS NULL OR i.remote_key_id IN \
       (SELECT e.v FROM JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e)) \
     ORDER BY i.called_at_ms DESC, i.inbox_id DESC LIMIT ?";

const ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.state, r.content, r.reason, r.read_at_ms \
     FROM hookledger_rows AS r WHERE r.open_token IS NOT NULL AND r.state IN ('disputed', 'failed', 'refund_open') \
       AND (? IS NULL OR r.open_token IN \
         (SELECT e.v FROM JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e)) \
     ORDER BY r.row_second DESC, r.row_digest, r.row_nth LIMIT ?";

const FAILED: &str = "SELECT source, row_second, row_digest, row_nth, content FROM hookledger_rows \
     WHERE open_token IS NOT NULL AND state = 'failed' AND (row_second, row_digest, row_nth, source) > (?, ?, ?, ?) \
       AND (? IS NULL OR read_at_ms >= ?) AND (? IS NULL OR read_at_ms < ?) \
     ORDER BY row_second, row_digest, row_nth, source LIMIT ?";

const ROW: &str = "SELECT state, content, claim_id FROM hookledger_rows \
     WHERE row_second = ? AND row_digest = ? AND row_nth = ? AND source = ?";

const EVENT_CLAIM: &str = "SELECT claim_id, row_second IS NOT NULL FROM hookledger_claims \
     WHERE event_at_ms = ? AND event_id = CAST(? AS BINARY)";

#[async_trait]
impl Disputes for MysqlStore {
    async fn open_disputes(&self, tokens: Option<Vec<i64>>, limit: u32) -> Result<Vec<FoundDispute>, StoreError> {
        let tokens = tokens.map(|tokens| parameter(&tokens)).transpose()?;
        let list = tokens.clone().unwrap_or_else(|| "[]".to_owned());
        let names = &self.context.names;
        let events = sqlx::query(names.sql(EVENTS)).bind(tokens.clone()).bind(list.clone()).bind(limit);
        let events = events.fetch_all(&self.readers).await?;
        let rows = sqlx::query(names.sql(ROWS)).bind(tokens).bind(list).bind(limit).fetch_all(&self.readers).await?;
        let found = events.iter().map(disputed_event::<MySqlRow>).chain(rows.iter().map(disputed_row::<MySqlRow>));
        found.filter_map(Result::transpose).collect()
    }

    async fn near(&self, batch: &Batch) -> Result<(LogSnapshot, PriceBook), StoreError> {
        let context = &*self.context;
        let mut connection = self.readers.acquire().await?;
        let prices = prices::read(&mut connection, context).await?;
        let windows = context.policy.load().windows;
        let looks = &mut log::Looks { connection: &mut connection, context };
        let log = neighbours::read(looks, batch, windows, &prices, context.clock.now()).await?;
        Ok((log, prices))
    }

    async fn owners(&self, tokens: &[RemoteKeyId]) -> Result<HashMap<RemoteKeyId, Owner>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        let tokens: BTreeSet<RemoteKeyId> = tokens.iter().copied().collect();
        snapshot::owners(&mut connection, &self.context, &tokens).await
    }

    async fn claim_of_event(&self, event_id: &EventId, at: UnixMillis) -> Result<Option<EventClaim>, StoreError> {
        let found = sqlx::query_as::<_, (String, bool)>(self.context.sql(EVENT_CLAIM))
            .bind(at.as_millis())
            .bind(event_id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.map(|(claim_id, has_row)| EventClaim { claim_id, has_row }))
    }

    async fn failed_rows(&self, selection: FailedRows, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
        let FailedRows { since, until, after } = selection;
        let (since, until) = (since.map(UnixMillis::as_millis), until.map(UnixMillis::as_millis));
        let (second, digest, number, source) = row_place(after);
        let rows = sqlx::query(self.context.sql(FAILED))
            .bind(second)
            .bind(digest)
            .bind(number)
            .bind(source)
            .bind(since)
            .bind(since)
            .bind(until)
            .bind(until)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(failed_row::<MySqlRow>).filter_map(Result::transpose).collect()
    }

    async fn row(&self, identity: &RowIdentity) -> Result<Option<FoundRow>, StoreError> {
        let found = sqlx::query(self.context.sql(ROW))
            .bind(identity.second)
            .bind(identity.digest.as_str().to_owned())
            .bind(identity.number)
            .bind(identity.source.to_string())
            .fetch_optional(&self.readers)
            .await?;
        found.as_ref().map(found_row).transpose()
    }

    async fn decide(&self, decision: Decision) -> Result<DecisionOutcome, BooksError> {
        self.needs_whole_books()?;
        let batch = Batch { decisions: vec![decision], ..Batch::default() };
        let plan = self.settle_batch(0, batch, Purpose::BY_A_PERSON).await;
        Ok(plan?.decisions.pop().unwrap_or(DecisionOutcome::Settled))
    }
}
