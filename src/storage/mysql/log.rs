//! The log's side of a settlement: what is near a batch, and what a plan writes of rows, ties and corrections.

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::Context;
use super::snapshot::logged;
use super::write::each;
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
        "c.call_second, c.claim_id, c.source, CONVERT(c.event_id USING utf8mb4), c.event_at_ms, \
         CONVERT(c.request_id USING utf8mb4), c.log_id, c.row_second, c.row_digest, c.row_nth, \
         CONVERT(c.row_request_id USING utf8mb4), c.row_log_id, c.row_source, c.tie_rule, c.remote_key_id, c.model, \
         c.prompt_tokens, c.completion_tokens, c.price_units, c.price_credits, c.price_femtos, c.rate_micros, \
         c.quota_per_unit, c.user_id, c.key_id, c.credits_moved, c.credits_unpaid, c.rounding"
    };
}

const EVENTS_BETWEEN: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', d BIGINT PATH '$[2]', \
         f BIGINT PATH '$[3]')) AS e \
       STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (near_event) \
         ON c.call_bucket = e.a AND c.remote_key_id = e.b \
         AND c.prompt_tokens = e.d AND c.completion_tokens = e.f AND c.call_second BETWEEN ? AND ? \
         AND c.event_id IS NOT NULL \
         AND (c.row_second IS NOT NULL OR NOT EXISTS (SELECT 1 FROM hookledger_spans AS s WHERE s.proof = 'agreed' \
           AND c.call_second BETWEEN s.from_second AND s.until_second))"
);

const OF_REQUESTS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
       STRAIGHT_JOIN hookledger_claims AS c ON c.request_id = CAST(e.v AS BINARY)"
);

const OF_ROW_REQUESTS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
       STRAIGHT_JOIN hookledger_claims AS c ON c.row_request_id = CAST(e.v AS BINARY)"
);

const UNTIED_ROWS: &str = concat!(
    "SELECT ",
    near_columns!(),
    " FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', d BIGINT PATH '$[2]', \
         f BIGINT PATH '$[3]', g BIGINT PATH '$[4]', h BIGINT PATH '$[5]')) AS e \
       STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (untied_row) \
         ON c.call_bucket = e.a AND c.untied_row_token = e.b \
         AND c.prompt_tokens = e.d AND c.completion_tokens = e.f AND c.call_second BETWEEN e.g AND e.h \
     ORDER BY ABS(c.call_second * 2 - e.g - e.h) LIMIT 4000"
);

const OPEN_EVENTS: &str = "SELECT w.eventId, w.id, w.status, w.errorMsg, w.payload, i.attempts, i.reason FROM \
       JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', d BIGINT PATH '$[2]')) AS e \
       STRAIGHT_JOIN hookledger_inbox AS i ON i.reason IN ('alike', 'disputed') AND i.remote_key_id = e.a \
         AND i.called_at_ms BETWEEN e.b AND e.d \
       STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     ORDER BY i.called_at_ms, i.inbox_id LIMIT ?";

const OPEN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.state, r.content FROM \
       JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', d BIGINT PATH '$[2]')) AS e \
       STRAIGHT_JOIN hookledger_rows AS r ON r.open_token = e.a AND r.row_second BETWEEN e.b AND e.d \
         AND r.state IN ('waiting', 'disputed') \
     ORDER BY r.row_second, r.row_digest, r.row_nth LIMIT ?";

const WAITING_SPANS: &str = "SELECT i.remote_key_id, MIN(i.called_at_ms), MAX(i.called_at_ms) FROM \
       JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e \
       STRAIGHT_JOIN hookledger_inbox AS i ON i.reason = 'alike' AND i.remote_key_id = e.v GROUP BY i.remote_key_id \
     UNION ALL \
     SELECT r.open_token, MIN(r.row_second) * 1000, MAX(r.row_second) * 1000 FROM \
       JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e \
       STRAIGHT_JOIN hookledger_rows AS r ON r.open_token = e.v AND r.state = 'waiting' GROUP BY r.open_token";

const KNOWN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.state FROM \
       JSON_TABLE(?, '$[*]' COLUMNS (a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b BIGINT PATH '$[1]', \
         d VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', f BIGINT PATH '$[3]')) AS e \
       STRAIGHT_JOIN hookledger_rows AS r ON r.row_second = e.b AND r.row_digest = e.d COLLATE utf8mb4_bin \
         AND r.row_nth = e.f AND r.source = e.a COLLATE utf8mb4_bin";

const REQUEST_IDS_TIED_AT: &str =
    "SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'request_ids_tied_at_ms'";

const TAKEN_OVER_AT: &str = "SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'taken_over_at_ms'";

/// Looks inside the transaction of a batch.
pub struct Looks<'a> {
    pub connection: &'a mut MySqlConnection,
    pub context: &'a Context,
}

fn claims(rows: Vec<MySqlRow>) -> Result<Vec<NearClaim>, StoreError> {
    rows.iter().map(NearClaim::read).collect()
}

impl LogLooks for Looks<'_> {
    async fn events_between(&mut self, from: i64, until: i64, counts: &str) -> Result<Vec<NearClaim>, StoreError> {
        let query = sqlx::query(self.context.sql(EVENTS_BETWEEN)).bind(counts.to_owned()).bind(from).bind(until);
        claims(query.fetch_all(&mut *self.connection).await?)
    }

    async fn with_request_ids(&mut self, channel: Channel, ids: &str) -> Result<Vec<NearClaim>, StoreError> {
        let sql = match channel {
            Channel::Webhook => OF_REQUESTS,
            Channel::Log => OF_ROW_REQUESTS,
        };
        let query = sqlx::query(self.context.sql(sql)).bind(ids.to_owned());
        claims(query.fetch_all(&mut *self.connection).await?)
    }

    async fn untied_rows(&mut self, spans: &str) -> Result<Vec<NearClaim>, StoreError> {
        let query = sqlx::query(self.context.sql(UNTIED_ROWS)).bind(spans.to_owned());
        claims(query.fetch_all(&mut *self.connection).await?)
    }

    async fn open_events(&mut self, spans: &str) -> Result<Vec<LoggedRow>, StoreError> {
        let query = sqlx::query(self.context.sql(OPEN_EVENTS)).bind(spans.to_owned()).bind(MAX_OPEN_SIDES);
        let rows = query.fetch_all(&mut *self.connection).await?;
        let found = rows.iter().map(|row| logged(row, 0)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn open_rows(&mut self, spans: &str) -> Result<Vec<OpenRow>, StoreError> {
        let query = sqlx::query(self.context.sql(OPEN_ROWS)).bind(spans.to_owned()).bind(MAX_OPEN_SIDES);
        let open = |row: &MySqlRow| {
            Ok(OpenRow {
                identity: identity(row)?,
                state: row.try_get(4)?,
                content: row.try_get::<Option<String>, _>(5)?.unwrap_or_default(),
            })
        };
        query.fetch_all(&mut *self.connection).await?.iter().map(open).collect()
    }

    async fn waiting_spans(&mut self, tokens: &str) -> Result<Vec<(i64, i64, i64)>, StoreError> {
        let query = sqlx::query_as(self.context.sql(WAITING_SPANS)).bind(tokens.to_owned()).bind(tokens.to_owned());
        Ok(query.fetch_all(&mut *self.connection).await?)
    }

    async fn known_rows(&mut self, identities: &str) -> Result<Vec<(RowIdentity, String)>, StoreError> {
        let query = sqlx::query(self.context.sql(KNOWN_ROWS)).bind(identities.to_owned());
        let rows = query.fetch_all(&mut *self.connection).await?;
        rows.iter().map(|row| Ok((identity(row)?, row.try_get(4)?))).collect()
    }

    async fn request_ids_tied_at(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        self.instant(REQUEST_IDS_TIED_AT).await
    }

    async fn taken_over_at(&mut self) -> Result<Option<UnixMillis>, StoreError> {
        self.instant(TAKEN_OVER_AT).await
    }
}

impl Looks<'_> {
    async fn instant(&mut self, sql: &str) -> Result<Option<UnixMillis>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar(self.context.sql(sql)).fetch_optional(&mut *self.connection).await?;
        Ok(at.map(UnixMillis::new))
    }
}

pub(super) fn identity(row: &MySqlRow) -> Result<RowIdentity, StoreError> {
    row_identity(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)
}

// A side that moves to another charge leaves its place first, since no two charges may have the same event.
const UNTIED: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', \
       b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (PRIMARY) \
       ON c.call_second = e.a AND c.claim_id = e.b COLLATE utf8mb4_bin \
     SET c.event_id = NULL, c.event_at_ms = NULL";

const TIES: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (c0 BIGINT PATH '$[0]', \
       c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', \
       c3 BIGINT PATH '$[3]', c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', c5 BIGINT PATH '$[5]', \
       r0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[6][0]', r1 BIGINT PATH '$[6][1]', \
       r2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[6][2]', r3 BIGINT PATH '$[6][3]', \
       r4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[6][4]', r5 BIGINT PATH '$[6][5]', \
       c7 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[7]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (PRIMARY) \
       ON c.call_second = e.c0 AND c.claim_id = e.c1 COLLATE utf8mb4_bin \
     SET c.event_id = CAST(e.c2 AS BINARY), c.event_at_ms = e.c3, c.request_id = CAST(e.c4 AS BINARY), \
       c.log_id = e.c5, c.row_source = e.r0, c.row_second = e.r1, c.row_digest = e.r2, c.row_nth = e.r3, \
       c.row_request_id = CAST(e.r4 AS BINARY), c.row_log_id = e.r5, c.tie_rule = e.c7, c.untied_row_token = NULL";

const CORRECTED_CLAIMS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (c0 BIGINT PATH '$[0]', \
       c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', c2 BIGINT PATH '$[2]', c3 BIGINT PATH '$[3]', \
       c4 BIGINT PATH '$[4]', c5 BIGINT PATH '$[5]', c6 BIGINT PATH '$[6]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (PRIMARY) \
       ON c.call_second = e.c0 AND c.claim_id = e.c1 COLLATE utf8mb4_bin \
     SET c.price_units = e.c2, c.price_credits = e.c3, c.price_femtos = e.c4, c.credits_moved = e.c5, \
       c.credits_unpaid = e.c6";

const CORRECTED_RECORDS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
       c1 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', c5 BIGINT PATH '$[5]', \
       c7 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[7]')) AS e \
     STRAIGHT_JOIN usage_records AS r FORCE INDEX (PRIMARY) ON r.id = e.c1 COLLATE {collation} \
     SET r.creditCost = e.c5, r.costUsd = CAST(e.c7 AS DECIMAL(40, 12))";

const ROWS: &str = "INSERT INTO hookledger_rows (read_at_ms, source, row_second, row_digest, row_nth, state, call_second, \
       claim_id, open_token, content, reason, units, is_refund, task_id) \
     SELECT ?, e.c0, e.c1, e.c2, e.c3, e.c4, e.c5, e.c6, e.c7, e.c8, e.c9, e.d0, e.d1, e.d2 FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', \
       c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 BIGINT PATH '$[3]', \
       c4 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', c5 BIGINT PATH '$[5]', \
       c6 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[6]', c7 BIGINT PATH '$[7]', \
       c8 LONGTEXT CHARACTER SET utf8mb4 PATH '$[8]', c9 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[9]', \
       d0 BIGINT PATH '$[10]', d1 BIGINT PATH '$[11]', d2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[12]')) AS e \
     WHERE true ON DUPLICATE KEY UPDATE state = VALUES(state), call_second = VALUES(call_second), \
       claim_id = VALUES(claim_id), open_token = VALUES(open_token), content = VALUES(content), reason = VALUES(reason), \
       task_token = IF(VALUES(state) = 'dismissed', NULL, task_token)";

const TASK_MARKS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       c1 BIGINT PATH '$[1]', c2 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', c3 BIGINT PATH '$[3]', \
       c4 BIGINT PATH '$[4]', c5 BIGINT PATH '$[5]')) AS e \
     STRAIGHT_JOIN hookledger_rows AS r FORCE INDEX (PRIMARY) ON r.row_second = e.c1 \
       AND r.row_digest = e.c2 COLLATE utf8mb4_bin AND r.row_nth = e.c3 AND r.source = e.c0 COLLATE utf8mb4_bin \
     SET r.task_token = e.c4, r.stated_units = e.c5";

const UNOWNED_ROWS: &str = "INSERT INTO hookledger_unowned_rows (source, row_second, remote_key_id, token_name, row_count, \
       units, refund_count) \
     SELECT e.c0, e.c1, e.c2, e.c3, e.c4, e.c5, e.c6 FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       c0 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', c1 BIGINT PATH '$[1]', c2 BIGINT PATH '$[2]', \
       c3 VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]', c4 BIGINT PATH '$[4]', c5 BIGINT PATH '$[5]', \
       c6 BIGINT PATH '$[6]')) AS e \
     WHERE true ON DUPLICATE KEY UPDATE row_count = row_count + VALUES(row_count), units = units + VALUES(units), \
       refund_count = refund_count + VALUES(refund_count), token_name = VALUES(token_name)";

const TIED_BY_REQUEST_ID: &str = "INSERT INTO hookledger_meta (name, value) VALUES ('request_ids_tied_at_ms', ?) \
     ON DUPLICATE KEY UPDATE value = VALUES(value)";

/// A side that moves to another charge leaves its place first, since no two charges may have the same event.
pub async fn make_room(connection: &mut MySqlConnection, context: &Context, plan: &Plan) -> Result<(), StoreError> {
    each(connection, context, UNTIED, &[], log_writes::ties(&plan.ties)?, &[]).await
}

/// Rows, ties and corrections; a batch that has none of a kind costs nothing for it.
pub async fn write(
    connection: &mut MySqlConnection,
    context: &Context,
    plan: &Plan,
    now: UnixMillis,
) -> Result<(), StoreError> {
    each(connection, context, TIES, &[], log_writes::ties(&plan.ties)?, &[]).await?;
    let corrections = log_writes::corrections(&plan.corrections)?;
    each(connection, context, CORRECTED_CLAIMS, &[], corrections.clone(), &[]).await?;
    each(connection, context, CORRECTED_RECORDS, &[], corrections, &[]).await?;
    let millis = now.as_millis().to_string();
    each(connection, context, ROWS, &[&millis], log_writes::rows(plan)?, &[]).await?;
    each(connection, context, TASK_MARKS, &[], log_writes::task_marks(&plan.task_rows)?, &[]).await?;
    each(connection, context, UNOWNED_ROWS, &[], log_writes::unowned_rows(plan)?, &[]).await?;
    if plan.tied_by_request_id {
        sqlx::query(context.sql(TIED_BY_REQUEST_ID)).bind(millis).execute(connection).await?;
    }
    Ok(())
}
