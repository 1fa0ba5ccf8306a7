//! Looks into the inbox: what waits, how much of it, and single events for a person.

use std::sync::Arc;

use sqlx::SqlitePool;

use super::charges;
use crate::domain::ids::RecordId;
use crate::domain::refund::ChargeKey;
use crate::domain::time::UnixMillis;
use crate::storage::books::{BooksError, EventDetail, EventFilter, EventView};
use crate::storage::charges::ChargeView;
use crate::storage::stored::usage_event;
use crate::storage::{InboxCounts, Selection, StoreError, Waiting, WaitingEvent};

const DUE_SQL: &str = "SELECT d.inbox_id, CAST(w.payload AS TEXT) FROM \
       (SELECT inbox_id FROM hookledger_inbox WHERE state = 'pending' AND reason <> 'alike' AND inbox_id > ?1 \
        UNION ALL SELECT inbox_id FROM hookledger_inbox WHERE due_at_ms <= ?3 AND inbox_id > ?1) AS d \
     JOIN webhook_logs AS w ON w.id = d.inbox_id ORDER BY d.inbox_id LIMIT ?2";

// The tokens come first: they are few, however many events wait for them.
const WOKEN_SQL: &str = "WITH waiting (token) AS MATERIALIZED \
       (SELECT DISTINCT remote_key_id FROM hookledger_inbox WHERE reason IN ('unknown_key', 'ambiguous_key')), \
     woken (token) AS MATERIALIZED \
       (SELECT waiting.token FROM waiting JOIN api_keys AS k ON k.remoteKeyId = CAST(waiting.token AS TEXT) \
        WHERE waiting.token <> 0 GROUP BY waiting.token HAVING COUNT(DISTINCT k.userId) = 1) \
     SELECT d.inbox_id, CAST(w.payload AS TEXT) FROM \
       (SELECT i.inbox_id FROM woken CROSS JOIN hookledger_inbox AS i \
          ON i.reason IN ('unknown_key', 'ambiguous_key') AND i.remote_key_id = woken.token AND i.state = 'failed' \
          WHERE i.inbox_id > ?1 \
        UNION ALL SELECT i.inbox_id FROM hookledger_inbox AS i WHERE i.reason = 'quota_unknown' AND i.state = 'failed' \
          AND i.inbox_id > ?1 AND NOT EXISTS (SELECT 1 FROM hookledger_quota_holds AS h WHERE h.named_second IS NULL \
            AND i.called_at_ms BETWEEN h.from_second * 1000 AND h.until_second * 1000 + 999)) AS d \
     JOIN webhook_logs AS w ON w.id = d.inbox_id ORDER BY d.inbox_id LIMIT ?2";

const SELECTED_SQL: &str = "SELECT i.inbox_id, CAST(w.payload AS TEXT) FROM hookledger_inbox AS i JOIN webhook_logs AS w \
       ON w.id = i.inbox_id \
     WHERE i.inbox_id > ?1 AND (?3 IS NULL OR w.eventId = ?3) AND (?4 IS NULL OR i.recorded_at_ms >= ?4) \
       AND (?5 IS NULL OR i.recorded_at_ms < ?5) \
     ORDER BY i.inbox_id LIMIT ?2";

const COUNTS_SQL: &str = "SELECT (SELECT COALESCE(SUM(unpaid_credits), 0) FROM hookledger_accounts), \
       (SELECT COUNT(DISTINCT remote_key_id) FROM hookledger_inbox WHERE state = 'failed' AND reason = 'unknown_key'), \
       (SELECT COUNT(*) FROM hookledger_inbox WHERE reason = 'disputed') \
         + (SELECT COUNT(*) FROM hookledger_rows WHERE open_token IS NOT NULL AND state = 'disputed'), \
       (SELECT COUNT(*) FROM hookledger_rows WHERE open_token IS NOT NULL AND state = 'refund_open')";

type WaitingRow = (String, String);

fn page_size(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn waiting_events(rows: Vec<WaitingRow>) -> Vec<WaitingEvent> {
    let event = |(inbox_id, payload): WaitingRow| WaitingEvent { inbox_id, event: usage_event(&payload).map(Arc::new) };
    rows.into_iter().map(event).collect()
}

/// Events to settle now, in the order in which they came.
pub async fn waiting(
    readers: &SqlitePool,
    kind: Waiting,
    after: Option<String>,
    limit: usize,
    now: UnixMillis,
) -> Result<Vec<WaitingEvent>, StoreError> {
    let sql = match kind {
        Waiting::Due => DUE_SQL,
        Waiting::Woken => WOKEN_SQL,
    };
    let rows = sqlx::query_as::<_, WaitingRow>(sql)
        .bind(after.unwrap_or_default())
        .bind(page_size(limit))
        .bind(now.as_millis())
        .fetch_all(readers)
        .await?;
    Ok(waiting_events(rows))
}

/// Unsettled events that a person selected, in the order in which they came.
pub async fn selected(
    readers: &SqlitePool,
    selection: Selection,
    after: Option<String>,
    limit: usize,
) -> Result<Vec<WaitingEvent>, StoreError> {
    let rows = sqlx::query_as::<_, WaitingRow>(SELECTED_SQL)
        .bind(after.unwrap_or_default())
        .bind(page_size(limit))
        .bind(selection.event_id)
        .bind(selection.since.map(UnixMillis::as_millis))
        .bind(selection.until.map(UnixMillis::as_millis))
        .fetch_all(readers)
        .await?;
    Ok(waiting_events(rows))
}

/// Counts what waits. Processed rows are not counted: they are many, and do not wait.
pub async fn counts(readers: &SqlitePool) -> Result<InboxCounts, StoreError> {
    let mut counts = InboxCounts::default();
    let states = sqlx::query_as::<_, (String, i64, Option<i64>)>(
        "SELECT state, COUNT(*), MIN(CASE WHEN reason <> 'alike' THEN recorded_at_ms END) FROM hookledger_inbox GROUP BY state",
    )
    .fetch_all(readers)
    .await?;
    for (state, count, oldest) in states {
        match state.as_str() {
            "pending" => {
                counts.pending = count;
                // What waits for the log to be read is not late.
                counts.oldest_pending_at = oldest.map(UnixMillis::new);
            }
            "failed" => counts.failed = count,
            _ => counts.dead = count,
        }
    }
    (counts.unpaid_credits, counts.parked_tokens, counts.disputes_open, counts.refunds_open) =
        sqlx::query_as(COUNTS_SQL).fetch_one(readers).await?;
    Ok(counts)
}

type EventRow = (String, String, Option<String>, String, String);

fn event_view((event_id, status, error_message, created_at, processed_at): EventRow) -> EventView {
    EventView { event_id, status, error_message, created_at, processed_at }
}

/// Newest first.
pub async fn events(readers: &SqlitePool, filter: EventFilter) -> Result<Vec<EventView>, StoreError> {
    let rows = sqlx::query_as::<_, EventRow>(
        "SELECT eventId, status, errorMsg, createdAt, processedAt FROM webhook_logs \
         WHERE ?1 IS NULL OR status = ?1 ORDER BY createdAt DESC, id DESC LIMIT ?2",
    )
    .bind(filter.status)
    .bind(filter.limit)
    .fetch_all(readers)
    .await?;
    Ok(rows.into_iter().map(event_view).collect())
}

/// One event with its body and what was charged for it.
pub async fn event(readers: &SqlitePool, event_id: String) -> Result<EventDetail, BooksError> {
    let row = sqlx::query_as::<_, (String, String, Option<String>, String, String, String)>(
        "SELECT eventId, status, errorMsg, createdAt, processedAt, payload FROM webhook_logs WHERE eventId = ?1",
    )
    .bind(&event_id)
    .fetch_optional(readers)
    .await
    .map_err(StoreError::from)?;
    let Some((id, status, message, created_at, processed_at, payload)) = row else {
        return Err(BooksError::NoSuchEvent(event_id));
    };
    let charge = match usage_event(&payload) {
        Some(event) => charge(readers, event.content.called_at, &event_id).await?,
        None => None,
    };
    let event = event_view((id, status, message, created_at, processed_at));
    Ok(EventDetail { event, payload, charge })
}

/// The time that a stored event tells of its call.
pub async fn event_time(readers: &SqlitePool, event_id: &str) -> Result<Option<UnixMillis>, StoreError> {
    let payload = sqlx::query_scalar::<_, String>("SELECT CAST(payload AS TEXT) FROM webhook_logs WHERE eventId = ?1")
        .bind(event_id)
        .fetch_optional(readers)
        .await?;
    Ok(payload.and_then(|payload| usage_event(&payload)).map(|event| event.content.called_at))
}

async fn charge(readers: &SqlitePool, called_at: UnixMillis, event_id: &str) -> Result<Option<ChargeView>, StoreError> {
    // A row that was charged before the event came may lie in another second.
    let found = sqlx::query_as::<_, (i64, String)>(
        "SELECT call_second, claim_id FROM hookledger_claims WHERE event_at_ms = ?1 AND event_id = ?2",
    )
    .bind(called_at.as_millis())
    .bind(event_id)
    .fetch_optional(readers)
    .await?;
    match found.and_then(|(call_second, id)| Some(ChargeKey { call_second, id: RecordId::parse(&id).ok()? })) {
        Some(key) => charges::charge_view(readers, &key).await,
        None => Ok(None),
    }
}
