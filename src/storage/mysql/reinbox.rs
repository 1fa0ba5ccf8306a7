//! Holds what waits against `webhook_logs`: each of the two may be of another time than the other, and than the claims.

use std::collections::{HashMap, HashSet};

use sqlx::MySqlConnection;

use super::context::Context;
use super::rebuilding::{Rebuilt, would_be_claimed};
use super::repair::{Looked, page_rows, place_after};
use super::{snapshot, write};
use crate::domain::ids::{RecordId, RemoteKeyId};
use crate::domain::outcome::InboxStatus;
use crate::domain::recording::WaitReason;
use crate::domain::repair::wait_reason;
use crate::storage::StoreError;
use crate::storage::decode::BookRow;
use crate::storage::repair::{RepairPart, RepairPlace, Repaired};
use crate::storage::rows::parameter;
use crate::storage::stored::{self, ClaimKey, own_event_id, usage_event};

const INBOX: &str = "SELECT i.inbox_id, i.state, w.status, w.eventId, w.payload \
     FROM (SELECT inbox_id FROM hookledger_inbox WHERE inbox_id > ? ORDER BY inbox_id LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_inbox AS i ON i.inbox_id = p.inbox_id \
     LEFT JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} ORDER BY i.inbox_id";

// Bodies of what is settled are not read.
const LOGS: &str = "SELECT w.id, w.status, w.errorMsg, w.eventId, \
       IF(w.status IN ('pending', 'failed', 'dead') AND i.inbox_id IS NULL, w.payload, NULL) \
     FROM (SELECT id FROM webhook_logs WHERE id > ? AND id < '1' ORDER BY id LIMIT ?) AS p \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = p.id \
     LEFT JOIN hookledger_inbox AS i ON i.inbox_id = w.id COLLATE utf8mb4_bin ORDER BY w.id";

const STATES: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = e.a COLLATE {collation} \
     SET w.status = e.b, w.errorMsg = IF(e.b = 'processed', NULL, w.errorMsg)";

/// One page of our inbox: what was charged or has lost its body waits no longer, and the rest agrees with its row.
pub async fn held_against_logs(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    rebuilt: Rebuilt<'_>,
) -> Result<Looked, StoreError> {
    let rows =
        sqlx::query(context.sql(INBOX)).bind(place.id.clone()).bind(page_rows()).fetch_all(&mut *connection).await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Inbox, rows.len(), 0, &last.text(0)?);
    let (mut repaired, mut gone, mut states) = (Repaired::default(), Vec::new(), Vec::new());
    let mut keys: HashMap<String, (ClaimKey, RemoteKeyId)> = HashMap::new();
    for row in &rows {
        if let (Some(stored_id), Some(payload)) = (row.optional_text(3)?, row.optional_text(4)?) {
            keys.extend(claim_key(&stored_id, &payload).map(|key| (stored_id, key)));
        }
    }
    let charged = charged(connection, context, keys.values().cloned(), rebuilt).await?;
    for row in &rows {
        let (id, state) = (row.text(0)?, row.text(1)?);
        let Some(status) = row.optional_text(2)? else {
            repaired.lost_events += 1;
            gone.push(id);
            continue;
        };
        let key = row.optional_text(3)?.and_then(|stored_id| keys.get(&stored_id));
        let processed = InboxStatus::Processed.as_str();
        if status == processed || key.is_some_and(|(key, _)| charged.contains(key)) {
            repaired.closed_events += 1;
            gone.push(id.clone());
            if status != processed {
                states.push((id, processed.to_owned()));
            }
        } else if status != state {
            states.push((id, state));
        }
    }
    write::each(connection, context, STATES, &[], parameter(&states)?, &[]).await?;
    write::each(connection, context, write::NO_LONGER_WAITING, &[], parameter(&gone)?, &[]).await?;
    Ok((repaired, next))
}

/// One page of `webhook_logs`: rows of ours that wait and that our inbox does not know are taken in, or were charged.
pub async fn taken_in(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    rebuilt: Rebuilt<'_>,
) -> Result<Looked, StoreError> {
    let rows =
        sqlx::query(context.sql(LOGS)).bind(place.id.clone()).bind(page_rows()).fetch_all(&mut *connection).await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Events, rows.len(), 0, &last.text(0)?);
    let now = context.clock.now();
    let mut open = Vec::new();
    for row in &rows {
        let Some(payload) = row.optional_text(4)? else { continue };
        // Those that another program wrote are never retried.
        if !RecordId::is_form_of_ours(&row.text(0)?) {
            continue;
        }
        if let (Some(status), Some(event)) = (InboxStatus::parse(&row.text(1)?), usage_event(&payload)) {
            open.push((row, status, stored::claim_key(&event.event_id, &event.content), event));
        }
    }
    let events = open.iter().map(|(_, _, key, event)| (key.clone(), event.content.remote_key_id));
    let charged = charged(connection, context, events, rebuilt).await?;
    let (mut repaired, mut states, mut waiting) = (Repaired::default(), Vec::new(), Vec::new());
    for (row, status, key, event) in &open {
        let id = row.text(0)?;
        if charged.contains(key) {
            repaired.closed_events += 1;
            states.push((id, InboxStatus::Processed.as_str()));
            continue;
        }
        let reason = wait_reason(*status, row.optional_text(2)?.as_deref());
        let is_tried = *status == InboxStatus::Failed && reason == WaitReason::Unbookable;
        let due_at_ms = is_tried.then(|| now.as_millis());
        let (token, called_at_ms) = (event.content.remote_key_id.get(), event.content.called_at.as_millis());
        waiting.push((id, status.as_str(), reason.as_str(), token, called_at_ms, 0, due_at_ms));
        repaired.waiting_events += 1;
    }
    write::each(connection, context, STATES, &[], parameter(&states)?, &[]).await?;
    let now_ms = now.as_millis().to_string();
    write::each(connection, context, write::WAITING, &[&now_ms], parameter(&waiting)?, &[]).await?;
    Ok((repaired, next))
}

fn claim_key(stored_id: &str, payload: &str) -> Option<(ClaimKey, RemoteKeyId)> {
    let event_id = own_event_id(stored_id, payload)?;
    usage_event(payload).map(|event| ((event.content.called_at, event_id), event.content.remote_key_id))
}

/// Which of these events, each with its token, have a claim, or would have one by now.
async fn charged(
    connection: &mut MySqlConnection,
    context: &Context,
    events: impl Iterator<Item = (ClaimKey, RemoteKeyId)>,
    rebuilt: Rebuilt<'_>,
) -> Result<HashSet<ClaimKey>, StoreError> {
    let events: Vec<(ClaimKey, RemoteKeyId)> = events.collect();
    let keys = events.iter().map(|(key, _)| key.clone()).collect();
    let mut charged = snapshot::claims(connection, context, &keys).await?;
    if let Rebuilt::WouldBe(installation) = rebuilt {
        charged.extend(would_be_claimed(connection, context, installation, &events).await?);
    }
    Ok(charged)
}
