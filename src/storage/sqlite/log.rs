//! The log's side of a settlement: what is near a batch, and what a plan writes of rows, ties and corrections.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::snapshot::logged_row;
use crate::domain::log_row::RowIdentity;
use crate::domain::settlement::Plan;
use crate::domain::side::Channel;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::log_writes;
use crate::storage::near_claim::NearClaim;
use crate::storage::neighbours::{LogLooks, MAX_OPEN_SIDES, OpenRow, row_identity};
use crate::storage::stored::LoggedRow;

macro_rules! near_columns {
    () => {
        "c.call_second, c.claim_id, c.source, c.event_id, c.event_at_ms, c.request_id, c.log_id, c.row_second, \
         c.row_digest, c.row_nth, c.row_request_id, c.row_log_id, c.row_source, c.tie_rule, c.remote_key_id, c.model, \
         c.prompt_tokens, c.completion_tokens, c.price_units, c.price_credits, c.price_femtos, c.rate_micros, \
         c.quota_per_unit, c.user_id, c.key_id, c.credits_moved, c.credits_unpaid, c.rounding"
    };
}

pub(super) const EVENTS_BETWEEN: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM jsonb_each(?3) AS e CROSS JOIN hookledger_claims AS c \
       ON c.call_bucket = (e.value ->> 0) AND c.remote_key_id = (e.value ->> 1) \
       AND c.prompt_tokens = (e.value ->> 2) AND c.completion_tokens = (e.value ->> 3) \
       AND c.call_second BETWEEN ?1 AND ?2 AND c.event_id IS NOT NULL \
       AND (c.row_second IS NOT NULL OR NOT EXISTS (SELECT 1 FROM hookledger_spans AS s WHERE s.proof = 'agreed' \
         AND c.call_second BETWEEN s.from_second AND s.until_second))"
);

const OF_REQUESTS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c ON c.request_id = e.value"
);

const OF_ROW_REQUESTS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c ON c.row_request_id = e.value"
);

pub(super) const UNTIED_ROWS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c \
       ON c.call_bucket = (e.value ->> 0) AND c.untied_row_token = (e.value ->> 1) \
       AND c.prompt_tokens = (e.value ->> 2) AND c.completion_tokens = (e.value ->> 3) \
       AND c.call_second BETWEEN (e.value ->> 4) AND (e.value ->> 5) \
     ORDER BY abs(c.call_second * 2 - (e.value ->> 4) - (e.value ->> 5)) LIMIT 4000"
);

const OPEN_EVENTS: &str = "SELECT w.eventId, w.id, CAST(w.status AS TEXT), CAST(w.errorMsg AS TEXT), \
       CAST(w.payload AS TEXT), i.attempts, i.reason \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_inbox AS i \
       ON i.reason IN ('alike', 'disputed') AND i.remote_key_id = (e.value ->> 0) \
       AND i.called_at_ms BETWEEN (e.value ->> 1) AND (e.value ->> 2) \
     JOIN webhook_logs AS w ON w.id = i.inbox_id ORDER BY i.called_at_ms, i.inbox_id LIMIT ?2";

const OPEN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.state, r.content \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_rows AS r \
       ON r.open_token = (e.value ->> 0) AND r.row_second BETWEEN (e.value ->> 1) AND (e.value ->> 2) \
       AND r.state IN ('waiting', 'disputed') \
     ORDER BY r.row_second, r.row_digest, r.row_nth LIMIT ?2";

const WAITING_SPANS: &str = "SELECT remote_key_id, MIN(called_at_ms), MAX(called_at_ms) FROM hookledger_inbox \
       WHERE reason = 'alike' AND remote_key_id IN (SELECT value FROM jsonb_each(?1)) GROUP BY remote_key_id \
     UNION ALL \
     SELECT open_token, MIN(row_second) * 1000, MAX(row_second) * 1000 FROM hookledger_rows \
       WHERE open_token IN (SELECT value FROM jsonb_each(?1)) AND state = 'waiting' GROUP BY open_token";

const KNOWN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.state \
     FROM jsonb_each(?1) AS e CROSS JOIN hookledger_rows AS r \
       ON r.row_second = (e.value ->> 1) AND r.row_digest = (e.value ->> 2) AND r.row_nth = (e.value ->> 3) \
       AND r.source = (e.value ->> 0)";

const REQUEST_IDS_TIED_AT: &str =
    "SELECT CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'request_ids_tied_at_ms'";

/// Looks on the writing connection.
pub struct Looks<'a>(pub &'a mut SqliteConnection);

fn claims(rows: Vec<SqliteRow>) -> Result<Vec<NearClaim>, StoreError> {
    rows.iter().map(NearClaim::read).collect()
}

impl LogLooks for Looks<'_> {
    async fn events_between(&mut self, from: i64, until: i64, counts: &str) -> Result<Vec<NearClaim>, StoreError> {
        claims(sqlx::query(EVENTS_BETWEEN).bind(from).bind(until).bind(counts).fetch_all(&mut *self.0).await?)
    }

    async fn with_request_ids(&mut self, channel: Channel, ids: &str) -> Result<Vec<NearClaim>, StoreError> {
        let sql = match channel {
            Channel::Webhook => OF_REQUESTS,
            Channel::Log => OF_ROW_REQUESTS,
        };
        claims(sqlx::query(sql).bind(ids).fetch_all(&mut *self.0).await?)
    }

    async fn untied_rows(&mut self, spans: &str) -> Result<Vec<NearClaim>, StoreError> {
        claims(sqlx::query(UNTIED_ROWS).bind(spans).fetch_all(&mut *self.0).await?)
    }

    async fn open_events(&mut self, spans: &str) -> Result<Vec<LoggedRow>, StoreError> {
        let rows = sqlx::query(OPEN_EVENTS).bind(spans).bind(MAX_OPEN_SIDES).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| logged_row(row, 0)).collect()
    }

    async fn open_rows(&mut self, spans: &str) -> Result<Vec<OpenRow>, StoreError> {
        let rows = sqlx::query(OPEN_ROWS).bind(spans).bind(MAX_OPEN_SIDES).fetch_all(&mut *self.0).await?;
        let open = |row: &SqliteRow| {
            Ok(OpenRow {
                identity: identity(row)?,
                state: row.try_get(4)?,
                content: row.try_get::<Option<String>, _>(5)?.unwrap_or_default(),
            })
        };
        rows.iter().map(open).collect()
    }

    async fn waiting_spans(&mut self, tokens: &str) -> Result<Vec<(i64, i64, i64)>, StoreError> {
        Ok(sqlx::query_as(WAITING_SPANS).bind(tokens).fetch_all(&mut *self.0).await?)
    }

    async fn known_rows(&mut self, identities: &str) -> Result<Vec<(RowIdentity, String)>, StoreError> {
        let rows = sqlx::query(KNOWN_ROWS).bind(identities).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((identity(row)?, row.try_get(4)?))).collect()
    }

    async fn request_ids_tied_at(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar(REQUEST_IDS_TIED_AT).fetch_optional(&mut *self.0).await?;
        Ok(at.map(UnixMillis::new))
    }

    /// The embedded database was always ours alone.
    async fn taken_over_at(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        Ok(None)
    }
}

fn identity(row: &SqliteRow) -> Result<RowIdentity, StoreError> {
    row_identity(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)
}

const UNTIED: &str = "UPDATE hookledger_claims SET event_id = NULL, event_at_ms = NULL \
       FROM (SELECT value ->> 0 AS second, value ->> 1 AS id FROM jsonb_each(?1)) AS t \
       WHERE hookledger_claims.call_second = t.second AND hookledger_claims.claim_id = t.id";

const TIES: &str = "UPDATE hookledger_claims SET event_id = t.event_id, event_at_ms = t.event_at_ms, request_id = t.request_id, \
       log_id = t.log_id, row_source = t.row_source, row_second = t.row_second, row_digest = t.row_digest, \
       row_nth = t.row_nth, row_request_id = t.row_request_id, row_log_id = t.row_log_id, tie_rule = t.tie_rule, \
       untied_row_token = NULL \
       FROM (SELECT value ->> 0 AS second, value ->> 1 AS id, value ->> 2 AS event_id, value ->> 3 AS event_at_ms, \
         value ->> 4 AS request_id, value ->> 5 AS log_id, value -> 6 ->> 0 AS row_source, \
         value -> 6 ->> 1 AS row_second, value -> 6 ->> 2 AS row_digest, value -> 6 ->> 3 AS row_nth, \
         value -> 6 ->> 4 AS row_request_id, value -> 6 ->> 5 AS row_log_id, value ->> 7 AS tie_rule \
         FROM jsonb_each(?1)) AS t \
       WHERE hookledger_claims.call_second = t.second AND hookledger_claims.claim_id = t.id";

const CORRECTIONS: &str = "UPDATE hookledger_claims SET price_units = t.units, price_credits = t.credits, \
       price_femtos = t.femtos, credits_moved = t.moved, credits_unpaid = t.unpaid \
       FROM (SELECT value ->> 0 AS second, value ->> 1 AS id, value ->> 2 AS units, value ->> 3 AS credits, \
         value ->> 4 AS femtos, value ->> 5 AS moved, value ->> 6 AS unpaid FROM jsonb_each(?1)) AS t \
       WHERE hookledger_claims.call_second = t.second AND hookledger_claims.claim_id = t.id; \
     UPDATE usage_records SET creditCost = t.moved, costUsd = t.usd \
       FROM (SELECT value ->> 1 AS id, value ->> 5 AS moved, CAST(value ->> 7 AS REAL) AS usd FROM jsonb_each(?1)) AS t \
       WHERE usage_records.id = t.id";

const ROWS: &str = "INSERT INTO hookledger_rows (read_at_ms, source, row_second, row_digest, row_nth, state, call_second, \
       claim_id, open_token, content, reason, units, is_refund, task_id) \
     SELECT ?2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
       value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12 FROM jsonb_each(?1) WHERE true \
     ON CONFLICT (row_second, row_digest, row_nth, source) DO UPDATE SET state = excluded.state, \
       call_second = excluded.call_second, claim_id = excluded.claim_id, open_token = excluded.open_token, \
       content = excluded.content, reason = excluded.reason, \
       task_token = CASE WHEN excluded.state = 'dismissed' THEN NULL ELSE task_token END";

const TASK_MARKS: &str = "UPDATE hookledger_rows SET task_token = t.token, stated_units = t.units \
       FROM (SELECT value ->> 0 AS source, value ->> 1 AS second, value ->> 2 AS digest, value ->> 3 AS nth, \
         value ->> 4 AS token, value ->> 5 AS units FROM jsonb_each(?1)) AS t \
       WHERE hookledger_rows.row_second = t.second AND hookledger_rows.row_digest = t.digest \
         AND hookledger_rows.row_nth = t.nth AND hookledger_rows.source = t.source";

const UNOWNED_ROWS: &str = "INSERT INTO hookledger_unowned_rows (source, row_second, remote_key_id, token_name, row_count, \
       units, refund_count) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
       FROM jsonb_each(?1) WHERE true \
     ON CONFLICT (row_second, remote_key_id, source) DO UPDATE SET row_count = row_count + excluded.row_count, \
       units = units + excluded.units, refund_count = refund_count + excluded.refund_count, \
       token_name = excluded.token_name";

const TIED_BY_REQUEST_ID: &str = "INSERT INTO hookledger_meta (name, value) VALUES ('request_ids_tied_at_ms', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// A side that moves to another charge leaves its place first, since no two charges may have the same event.
pub async fn make_room(connection: &mut SqliteConnection, plan: &Plan) -> Result<(), StoreError> {
    if !plan.ties.is_empty() {
        sqlx::query(UNTIED).bind(log_writes::ties(&plan.ties)?).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Rows, ties and corrections; a batch that has none of a kind costs nothing for it.
pub async fn write(connection: &mut SqliteConnection, plan: &Plan, now: UnixMillis) -> Result<(), StoreError> {
    if !plan.ties.is_empty() {
        sqlx::query(TIES).bind(log_writes::ties(&plan.ties)?).execute(&mut *connection).await?;
    }
    if !plan.corrections.is_empty() {
        let list = log_writes::corrections(&plan.corrections)?;
        sqlx::query(CORRECTIONS).bind(list).execute(&mut *connection).await?;
    }
    if !plan.rows.is_empty() {
        let list = log_writes::rows(plan)?;
        sqlx::query(ROWS).bind(list).bind(now.as_millis()).execute(&mut *connection).await?;
    }
    if !plan.task_rows.is_empty() {
        sqlx::query(TASK_MARKS).bind(log_writes::task_marks(&plan.task_rows)?).execute(&mut *connection).await?;
    }
    if !plan.unowned_rows.is_empty() {
        sqlx::query(UNOWNED_ROWS).bind(log_writes::unowned_rows(plan)?).execute(&mut *connection).await?;
    }
    if plan.tied_by_request_id {
        sqlx::query(TIED_BY_REQUEST_ID).bind(now.as_millis().to_string()).execute(&mut *connection).await?;
    }
    Ok(())
}
