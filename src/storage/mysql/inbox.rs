//! Looks into the inbox: what waits, how much of it, and single events for a person.

use std::sync::Arc;

use sqlx::MySqlPool;
use sqlx::mysql::MySqlRow;

use super::charges;
use super::context::Names;
use crate::domain::ids::{EventId, RecordId};
use crate::domain::refund::ChargeKey;
use crate::domain::time::UnixMillis;
use crate::storage::books::{BooksError, EventDetail, EventFilter, EventView};
use crate::storage::charges::ChargeView;
use crate::storage::decode::BookRow;
use crate::storage::stored::{own_event_id, usage_event};
use crate::storage::{AmbiguousToken, InboxCounts, Selection, StoreError, Waiting, WaitingEvent};

const DUE: &str = "SELECT d.inbox_id, w.payload FROM \
       (SELECT inbox_id FROM hookledger_inbox WHERE state = 'pending' AND reason <> 'alike' AND inbox_id > ? \
        UNION ALL SELECT inbox_id FROM hookledger_inbox WHERE due_at_ms <= ? AND inbox_id > ?) AS d \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = d.inbox_id COLLATE {collation} ORDER BY d.inbox_id LIMIT ?";

// The tokens come first: they are few, however many events wait for them.
const WOKEN: &str = "SELECT i.inbox_id, w.payload FROM \
       (SELECT waiting.token FROM \
          (SELECT DISTINCT remote_key_id AS token FROM hookledger_inbox \
           WHERE reason IN ('unknown_key', 'ambiguous_key')) AS waiting \
        JOIN api_keys AS k ON k.remoteKeyId = CAST(waiting.token AS CHAR) COLLATE {collation} \
        WHERE waiting.token <> 0 GROUP BY waiting.token HAVING COUNT(DISTINCT k.userId) = 1) AS woken \
     STRAIGHT_JOIN hookledger_inbox AS i \
       ON i.reason IN ('unknown_key', 'ambiguous_key') AND i.remote_key_id = woken.token AND i.state = 'failed' \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     WHERE i.inbox_id > ? ORDER BY i.inbox_id LIMIT ?";

// Those whose quota per unit a person has named since.
const PRICED: &str = "SELECT i.inbox_id, w.payload FROM hookledger_inbox AS i \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     WHERE i.reason = 'quota_unknown' AND i.state = 'failed' AND i.inbox_id > ? \
       AND NOT EXISTS (SELECT 1 FROM hookledger_quota_holds AS h WHERE h.named_second IS NULL \
         AND i.called_at_ms BETWEEN h.from_second * 1000 AND h.until_second * 1000 + 999) \
     ORDER BY i.inbox_id LIMIT ?";

const SELECTED: &str = "SELECT i.inbox_id, w.payload, w.eventId FROM hookledger_inbox AS i \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     WHERE i.inbox_id > ? AND (? IS NULL OR w.eventId IN (?, ?)) AND (? IS NULL OR i.recorded_at_ms >= ?) \
       AND (? IS NULL OR i.recorded_at_ms < ?) ORDER BY i.inbox_id LIMIT ?";

const COUNTS: &str = "SELECT CAST((SELECT COALESCE(SUM(unpaid_credits), 0) FROM hookledger_accounts) AS SIGNED), \
       (SELECT COUNT(DISTINCT remote_key_id) FROM hookledger_inbox WHERE state = 'failed' AND reason = 'unknown_key'), \
       (SELECT COUNT(*) FROM hookledger_inbox WHERE reason = 'disputed') \
         + (SELECT COUNT(*) FROM hookledger_rows WHERE open_token IS NOT NULL AND state = 'disputed'), \
       (SELECT COUNT(*) FROM hookledger_rows WHERE open_token IS NOT NULL AND state = 'refund_open')";

fn page_size(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn waiting_event(row: &MySqlRow) -> Result<WaitingEvent, StoreError> {
    Ok(WaitingEvent { inbox_id: row.text(0)?, event: usage_event(&row.text(1)?).map(Arc::new) })
}

/// Events to settle now, in the order in which they came.
pub async fn waiting(
    readers: &MySqlPool,
    names: &Names,
    kind: Waiting,
    after: Option<String>,
    limit: usize,
    now: UnixMillis,
) -> Result<Vec<WaitingEvent>, StoreError> {
    let after = after.unwrap_or_default();
    let query = match kind {
        Waiting::Due => sqlx::query(names.sql(DUE)).bind(after.clone()).bind(now.as_millis()).bind(after.clone()),
        Waiting::Woken => sqlx::query(names.sql(WOKEN)).bind(after.clone()),
    };
    let mut rows = query.bind(page_size(limit)).fetch_all(readers).await?;
    if kind == Waiting::Woken {
        let priced = sqlx::query(names.sql(PRICED)).bind(after).bind(page_size(limit));
        rows.extend(priced.fetch_all(readers).await?);
    }
    let mut events = rows.iter().map(waiting_event).collect::<Result<Vec<_>, StoreError>>()?;
    events.sort_by(|one, other| one.inbox_id.cmp(&other.inbox_id));
    events.truncate(limit);
    Ok(events)
}

/// The two names under which an event may be stored.
fn stored_names(event_id: Option<&str>) -> (Option<String>, Option<String>) {
    let set_apart = event_id.and_then(|id| EventId::parse(id).ok()).map(|id| id.set_apart());
    (event_id.map(str::to_owned), set_apart)
}

/// Unsettled events that a person selected, in the order in which they came.
pub async fn selected(
    readers: &MySqlPool,
    names: &Names,
    selection: Selection,
    after: Option<String>,
    limit: usize,
) -> Result<Vec<WaitingEvent>, StoreError> {
    let (name, set_apart) = stored_names(selection.event_id.as_deref());
    let (since, until) = (selection.since.map(UnixMillis::as_millis), selection.until.map(UnixMillis::as_millis));
    let rows = sqlx::query(names.sql(SELECTED))
        .bind(after.unwrap_or_default())
        .bind(name.clone())
        .bind(name)
        .bind(set_apart)
        .bind(since)
        .bind(since)
        .bind(until)
        .bind(until)
        .bind(page_size(limit))
        .fetch_all(readers)
        .await?;
    let is_asked = |row: &MySqlRow| -> Result<bool, StoreError> {
        let Some(asked) = &selection.event_id else { return Ok(true) };
        let id = own_event_id(&row.text(2)?, &row.text(1)?);
        Ok(id.is_some_and(|id| id.as_str() == asked))
    };
    let mut events = Vec::new();
    for row in &rows {
        if is_asked(row)? {
            events.push(waiting_event(row)?);
        }
    }
    Ok(events)
}

/// Counts what waits. Processed rows are not counted: they are many, and do not wait.
pub async fn counts(readers: &MySqlPool, names: &Names) -> Result<InboxCounts, StoreError> {
    let mut counts = InboxCounts::default();
    let sql = names.sql("SELECT state, COUNT(*), MIN(CASE WHEN reason <> 'alike' THEN recorded_at_ms END) FROM hookledger_inbox GROUP BY state");
    for (state, count, oldest) in sqlx::query_as::<_, (String, i64, Option<i64>)>(sql).fetch_all(readers).await? {
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
        sqlx::query_as(names.sql(COUNTS)).fetch_one(readers).await?;
    Ok(counts)
}

fn event_view(row: &MySqlRow) -> Result<EventView, StoreError> {
    Ok(EventView {
        event_id: row.text(0)?,
        status: row.text(1)?,
        error_message: row.optional_text(2)?,
        created_at: row.text(3)?,
        processed_at: row.text(4)?,
    })
}

const EVENT: &str = "eventId, status, errorMsg, CAST(createdAt AS CHAR), CAST(processedAt AS CHAR), payload";

/// Newest first, each under the id that the sender gave it.
pub async fn events(readers: &MySqlPool, filter: EventFilter) -> Result<Vec<EventView>, StoreError> {
    let sql = format!(
        "SELECT {EVENT} FROM webhook_logs WHERE ? IS NULL OR status = ? ORDER BY createdAt DESC, id DESC LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(filter.status.clone())
        .bind(filter.status)
        .bind(filter.limit)
        .fetch_all(readers)
        .await?;
    let view = |row: &MySqlRow| -> Result<EventView, StoreError> {
        let view = event_view(row)?;
        let own = own_event_id(&view.event_id, &row.text(5)?);
        Ok(EventView { event_id: own.map_or(view.event_id, |id| id.to_string()), ..view })
    };
    rows.iter().map(view).collect()
}

/// The row of an event, and its payload.
async fn find(readers: &MySqlPool, event_id: &str) -> Result<Option<(EventView, String)>, StoreError> {
    let (name, set_apart) = stored_names(Some(event_id));
    let sql = format!("SELECT {EVENT} FROM webhook_logs WHERE eventId IN (?, ?)");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name).bind(set_apart).fetch_all(readers).await?;
    for row in &rows {
        let (view, payload) = (event_view(row)?, row.text(5)?);
        if own_event_id(&view.event_id, &payload).is_some_and(|id| id.as_str() == event_id) {
            return Ok(Some((EventView { event_id: event_id.to_owned(), ..view }, payload)));
        }
    }
    Ok(None)
}

/// One event with its body and what was charged for it.
pub async fn event(readers: &MySqlPool, names: &Names, event_id: String) -> Result<EventDetail, BooksError> {
    let Some((event, payload)) = find(readers, &event_id).await? else {
        return Err(BooksError::NoSuchEvent(event_id));
    };
    let charge = match usage_event(&payload) {
        Some(event) => charge(readers, names, event.content.called_at, &event_id).await?,
        None => None,
    };
    Ok(EventDetail { event, payload, charge })
}

/// The time that a stored event tells of its call.
pub async fn event_time(readers: &MySqlPool, event_id: &str) -> Result<Option<UnixMillis>, StoreError> {
    let found = find(readers, event_id).await?;
    Ok(found.and_then(|(_, payload)| usage_event(&payload)).map(|event| event.content.called_at))
}

async fn charge(
    readers: &MySqlPool,
    names: &Names,
    called_at: UnixMillis,
    event_id: &str,
) -> Result<Option<ChargeView>, StoreError> {
    let sql = names.sql(
        "SELECT call_second, claim_id FROM hookledger_claims WHERE event_at_ms = ? AND event_id = CAST(? AS BINARY)",
    );
    let found = sqlx::query_as::<_, (i64, String)>(sql)
        .bind(called_at.as_millis())
        .bind(event_id.to_owned())
        .fetch_optional(readers)
        .await?;
    match found.and_then(|(call_second, id)| Some(ChargeKey { call_second, id: RecordId::parse(&id).ok()? })) {
        Some(key) => charges::charge_view(readers, names, &key).await,
        None => Ok(None),
    }
}

const AMBIGUOUS: &str = "SELECT waiting.token, COALESCE((SELECT GROUP_CONCAT(DISTINCT u.email ORDER BY u.email \
       SEPARATOR ', ') FROM api_keys AS k JOIN users AS u ON u.id = k.userId \
       WHERE k.remoteKeyId = CAST(waiting.token AS CHAR) COLLATE {collation}), 'nobody any more') FROM \
     (SELECT DISTINCT remote_key_id AS token FROM hookledger_inbox WHERE reason = 'ambiguous_key' \
      ORDER BY remote_key_id LIMIT ?) AS waiting ORDER BY waiting.token";

/// Tokens of several users, for which events wait.
pub async fn ambiguous_tokens(
    readers: &MySqlPool,
    names: &Names,
    limit: usize,
) -> Result<Vec<AmbiguousToken>, StoreError> {
    let rows = sqlx::query(names.sql(AMBIGUOUS)).bind(page_size(limit)).fetch_all(readers).await?;
    let token = |row: &MySqlRow| -> Result<AmbiguousToken, StoreError> {
        Ok(AmbiguousToken { remote_key_id: row.number(0)?, users: row.text(1)? })
    };
    rows.iter().map(token).collect()
}

// By the youngest calls and the youngest waiting rows, which lie at the ends of their keys.
const LAST_EVENT: &str = "SELECT MAX(d.at) FROM ( \
       SELECT MAX(settled_at_ms) AS at FROM \
         (SELECT source, settled_at_ms FROM hookledger_claims ORDER BY call_second DESC, claim_id DESC LIMIT 256) AS c \
       WHERE c.source = 'webhook' \
       UNION ALL \
       SELECT recorded_at_ms FROM (SELECT recorded_at_ms FROM hookledger_inbox ORDER BY inbox_id DESC LIMIT 1) AS i) AS d";

/// About when the newest webhook of a call came in.
pub async fn last_event_at(readers: &MySqlPool, names: &Names) -> Result<Option<UnixMillis>, StoreError> {
    let millis = sqlx::query_scalar::<_, Option<i64>>(names.sql(LAST_EVENT)).fetch_one(readers).await?;
    Ok(millis.map(UnixMillis::new))
}
