//! Decides what making a batch of deliveries durable writes: one inbox row for each that is new.

use std::sync::Arc;

use super::event::{Delivery, Notice, UsageEvent};
use super::ids::{EventId, RecordId, RecordIds, RemoteKeyId};
use super::known::{KnownEvent, KnownEvents, OpenEvent, Standing, standing};
use super::outcome::{Failure, InboxStatus, RecordOutcome};
use super::retry::RetryPolicy;
use super::time::UnixMillis;

/// A row of `webhook_logs` to be written, and of our own inbox while it is unsettled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRow {
    pub id: RecordId,
    /// The row is there already: its state changes, its payload and `createdAt` stay.
    pub exists: bool,
    pub event_id: EventId,
    pub payload: Arc<str>,
    pub status: InboxStatus,
    pub message: Option<String>,
    /// Present while the event waits for its settlement.
    pub waiting: Option<Waiting>,
}

/// What our own inbox keeps of an unsettled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub reason: WaitReason,
    pub remote_key_id: RemoteKeyId,
    pub called_at: UnixMillis,
    /// Errors so far; what merely waits for a change uses up none.
    pub attempts: u32,
    /// When it is tried again by the clock; absent where a change wakes it, or a person.
    pub due_at: Option<UnixMillis>,
}

/// Why an event waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Safe on disk; settled as soon as the ledger gets to it.
    Recorded,
    UnknownKey,
    AmbiguousKey,
    /// History that is not billed by itself: a person decides.
    BeyondGrace,
    /// Older than the oldest claim that is kept: never charged.
    BeyondMemory,
    /// A person said that its token is nobody's: closed, and waits for nothing.
    Ignored,
    /// Another session holds a row of its user: pending, tried again at once.
    Busy,
    Unbookable,
    /// new-api's quota per unit changed about its second: a person has to name the second.
    QuotaUnknown,
    /// An alike row is charged: pending until the log tells whether it is the same call.
    Alike,
    /// Nothing told whether an alike row is the same call: a person decides, or its true partner.
    Disputed,
    /// A person said that it is no call of its own: closed.
    Dismissed,
}

impl WaitReason {
    /// It waits for nothing any more.
    pub fn is_closed(self) -> bool {
        matches!(self, WaitReason::Ignored | WaitReason::Dismissed)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            WaitReason::Recorded => "recorded",
            WaitReason::UnknownKey => "unknown_key",
            WaitReason::AmbiguousKey => "ambiguous_key",
            WaitReason::BeyondGrace => "beyond_grace",
            WaitReason::BeyondMemory => "beyond_memory",
            WaitReason::Ignored => "ignored",
            WaitReason::Busy => "busy",
            WaitReason::Unbookable => "unbookable",
            WaitReason::QuotaUnknown => "quota_unknown",
            WaitReason::Alike => "alike",
            WaitReason::Disputed => "disputed",
            WaitReason::Dismissed => "dismissed",
        }
    }
}

/// What to write, and what to tell each sender.
#[derive(Debug, Default)]
pub struct RecordPlan {
    /// One for each delivery, in their order.
    pub outcomes: Vec<RecordOutcome>,
    pub inbox: Vec<InboxRow>,
}

/// Plans a batch. `known` covers the ids of all its deliveries and learns of the new ones.
pub fn plan_records(deliveries: &[Delivery], known: &mut KnownEvents, now: UnixMillis, ids: &RecordIds) -> RecordPlan {
    let mut plan = RecordPlan::default();
    for delivery in deliveries {
        let outcome = match delivery {
            Delivery::Usage(event) => usage(event, known, now, ids, &mut plan.inbox),
            Delivery::Notice(notice) => self::notice(notice, known, now, ids, &mut plan.inbox),
        };
        plan.outcomes.push(outcome);
    }
    plan
}

/// The row of an event that the database refuses to settle: failed with what it said, or dead after the last try. None
/// where the event is settled already.
pub fn plan_set_aside(
    event: &UsageEvent,
    known: &KnownEvents,
    reason: &str,
    retry: RetryPolicy,
    now: UnixMillis,
    ids: &RecordIds,
) -> Option<InboxRow> {
    let (existing, attempts) = match standing(known.get(&event.event_id), event) {
        Standing::New => (None, 0),
        Standing::Open(open) => (Some(open.inbox_id), open.attempts),
        Standing::Charged | Standing::Closed(_) | Standing::Conflicting => return None,
    };
    let after = retry.after_error(attempts, &event.event_id, now);
    Some(InboxRow {
        exists: existing.is_some(),
        id: existing.unwrap_or_else(|| ids.next(now)),
        event_id: event.event_id.clone(),
        payload: event.payload.clone(),
        status: after.status,
        message: Some(Failure::Unbookable(reason.to_owned()).message()),
        waiting: Some(Waiting {
            reason: WaitReason::Unbookable,
            remote_key_id: event.content.remote_key_id,
            called_at: event.content.called_at,
            attempts: after.attempts,
            due_at: after.due_at,
        }),
    })
}

fn usage(
    event: &UsageEvent,
    known: &mut KnownEvents,
    now: UnixMillis,
    ids: &RecordIds,
    inbox: &mut Vec<InboxRow>,
) -> RecordOutcome {
    match standing(known.get(&event.event_id), event) {
        Standing::Conflicting => RecordOutcome::Conflict,
        Standing::Charged => RecordOutcome::Known { status: InboxStatus::Processed, message: None },
        Standing::Closed(message) => RecordOutcome::Known { status: InboxStatus::Processed, message: Some(message) },
        Standing::Open(open) => RecordOutcome::Known { status: open.status, message: open.message },
        Standing::New => {
            let id = ids.next(now);
            let open = OpenEvent {
                inbox_id: id.clone(),
                status: InboxStatus::Pending,
                message: None,
                attempts: 0,
                is_ambiguous: false,
                content: Some(event.content.clone()),
            };
            known.insert(event.event_id.clone(), KnownEvent::Open(open));
            inbox.push(InboxRow {
                id,
                exists: false,
                event_id: event.event_id.clone(),
                payload: event.payload.clone(),
                status: InboxStatus::Pending,
                message: None,
                waiting: Some(Waiting {
                    reason: WaitReason::Recorded,
                    remote_key_id: event.content.remote_key_id,
                    called_at: event.content.called_at,
                    attempts: 0,
                    due_at: None,
                }),
            });
            RecordOutcome::Recorded
        }
    }
}

fn notice(
    notice: &Notice,
    known: &mut KnownEvents,
    now: UnixMillis,
    ids: &RecordIds,
    inbox: &mut Vec<InboxRow>,
) -> RecordOutcome {
    match known.get(&notice.event_id) {
        // Its own answer stands above the one for known ids, whatever lies under this one: a notice moves nothing.
        Some(_) => RecordOutcome::Known { status: InboxStatus::Processed, message: notice.kind.message() },
        None => {
            known.insert(notice.event_id.clone(), KnownEvent::Logged { notice: Some(notice.kind.clone()) });
            inbox.push(InboxRow {
                id: ids.next(now),
                exists: false,
                event_id: notice.event_id.clone(),
                payload: notice.payload.clone(),
                status: InboxStatus::Processed,
                message: notice.kind.message(),
                waiting: None,
            });
            RecordOutcome::Recorded
        }
    }
}
