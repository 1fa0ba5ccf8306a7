//! Reads stored rows back into the language of the domain; the same for every database.
//!
//! No SQL here: a store fetches the rows, this says what they mean.

use std::collections::{HashMap, HashSet};

use super::StoreError;

use crate::domain::event::{Content, Delivery, UsageEvent};
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::known::{KnownEvent, KnownEvents, OpenEvent};
use crate::domain::outcome::{Failure, InboxStatus};
use crate::domain::ownership::{KeyHolder, Owner};
use crate::domain::parse::parse_body;
use crate::domain::recording::WaitReason;
use crate::domain::time::UnixMillis;

/// A row of `webhook_logs` as it bears on an event id.
#[derive(Debug, Clone)]
pub struct LoggedRow {
    pub event_id: EventId,
    pub inbox_id: RecordId,
    pub status: String,
    pub message: Option<String>,
    pub payload: String,
    /// Errors so far, if we wrote it and it waits for its settlement.
    pub open_attempts: Option<u32>,
    /// Why it waits, if it does.
    pub open_reason: Option<String>,
}

/// An event id and the time under which its claim lies.
pub type ClaimKey = (UnixMillis, EventId);

/// What was stored under the ids of a batch, before the claims were looked up.
#[derive(Debug)]
pub struct LoggedRows {
    rows: Vec<(LoggedRow, Option<Delivery>)>,
}

impl LoggedRows {
    pub fn new(rows: Vec<LoggedRow>) -> Self {
        let parsed = rows.into_iter().map(|row| {
            let delivery = parse_body(row.payload.as_bytes()).ok();
            (row, delivery)
        });
        LoggedRows { rows: parsed.collect() }
    }

    /// Where a claim of one of these rows would lie: under the time that its stored payload tells.
    pub fn claim_keys(&self) -> impl Iterator<Item = ClaimKey> + '_ {
        self.rows.iter().filter(|(row, _)| row.open_attempts.is_none()).filter_map(|(row, delivery)| match delivery {
            Some(Delivery::Usage(event)) => Some((event.content.called_at, row.event_id.clone())),
            _ => None,
        })
    }

    /// Joins rows and claims into what is known of each id.
    pub fn into_known(self, claims: &HashSet<ClaimKey>) -> KnownEvents {
        let mut known: KnownEvents =
            claims.iter().map(|(_, event_id)| (event_id.clone(), KnownEvent::Charged { content: None })).collect();
        for (row, delivery) in self.rows {
            let event_id = row.event_id.clone();
            let is_charged = known.contains_key(&event_id);
            known.insert(event_id, meaning(row, delivery, is_charged));
        }
        known
    }
}

fn meaning(row: LoggedRow, delivery: Option<Delivery>, is_charged: bool) -> KnownEvent {
    let (content, notice) = match delivery {
        Some(Delivery::Usage(event)) => (Some(event.content), None),
        Some(Delivery::Notice(notice)) => (None, Some(notice.kind)),
        None => (None, None),
    };
    if let Some(attempts) = row.open_attempts {
        let status = InboxStatus::parse(&row.status).unwrap_or(InboxStatus::Failed);
        let is_ambiguous = row.open_reason.as_deref() == Some(WaitReason::AmbiguousKey.as_str());
        let (inbox_id, message) = (row.inbox_id, row.message);
        return KnownEvent::Open(OpenEvent { inbox_id, status, message, attempts, is_ambiguous, content });
    }
    if is_charged {
        return KnownEvent::Charged { content };
    }
    match row.message.filter(|message| content.is_some() && Failure::closes(message)) {
        Some(message) => KnownEvent::Closed { content, message },
        None => KnownEvent::Logged { notice },
    }
}

/// A stored value that makes no sense: it concerns the events that touch it, and no others.
pub fn unreadable(what: &'static str, value: impl std::fmt::Debug) -> StoreError {
    StoreError::Refused(format!("{what} holds {value:?}, which hookledger never writes: was it changed by hand?"))
}

/// Whose row of `webhook_logs` it is: the id that its payload tells, where the stored one is that or stands for it.
pub fn own_event_id(stored_id: &str, payload: &str) -> Option<EventId> {
    let told = parse_body(payload.as_bytes()).ok().map(|delivery| match delivery {
        Delivery::Usage(event) => event.event_id,
        Delivery::Notice(notice) => notice.event_id,
    });
    match told {
        Some(told) if told.as_str() == stored_id || told.set_apart() == stored_id => Some(told),
        _ => EventId::parse(stored_id).ok(),
    }
}

/// A stored payload as the usage event that it was.
pub fn usage_event(payload: &str) -> Option<UsageEvent> {
    match parse_body(payload.as_bytes()).ok()? {
        Delivery::Usage(event) => Some(event),
        Delivery::Notice(_) => None,
    }
}

/// A row of `api_keys`.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub remote_key_id: String,
    pub key_id: KeyId,
    pub user_id: UserId,
    pub is_active: bool,
    pub created_at: UnixMillis,
}

/// Whose each token is. Of one user's several keys an active one is charged, else the one with the smallest id.
pub fn owners(rows: Vec<KeyRow>) -> HashMap<RemoteKeyId, Owner> {
    let mut by_token: HashMap<RemoteKeyId, Vec<KeyRow>> = HashMap::new();
    for row in rows {
        // Only canonical digits count; a collation may have matched more than was asked for.
        if let Some(token) = RemoteKeyId::parse(&row.remote_key_id) {
            by_token.entry(token).or_default().push(row);
        }
    }
    let owner = |mut rows: Vec<KeyRow>| {
        rows.sort_by(|left, right| (!left.is_active, &left.key_id).cmp(&(!right.is_active, &right.key_id)));
        let first = rows.first()?.clone();
        let is_single = rows.iter().all(|row| row.user_id == first.user_id);
        let KeyRow { user_id, key_id, created_at: key_created_at, .. } = first;
        Some(if is_single { Owner::One(KeyHolder { user_id, key_id, key_created_at }) } else { Owner::Several })
    };
    by_token.into_iter().filter_map(|(token, rows)| Some((token, owner(rows)?))).collect()
}

/// Where the claims of a batch of usage events would lie.
pub fn claim_key(event_id: &EventId, content: &Content) -> ClaimKey {
    (content.called_at, event_id.clone())
}
